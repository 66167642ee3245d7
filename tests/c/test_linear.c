/* Linear layers, and every kind of bad tensor on one of them. */
#include "check.h"

static int64_t weight_shape[] = {2, 3}, bias_shape[] = {2}, x_shape[] = {2, 3}, out_shape[] = {2, 2};
static const float weight_data[] = {1, 2, 3, -1, 0, 1}, bias_data[] = {10, 20};
static const float x_data[] = {1, 1, 1, 1, 2, 3};

static void values(void)
{
    dgm_tensor weight = f32_tensor(weight_data, 2, weight_shape);
    dgm_tensor bias = f32_tensor(bias_data, 1, bias_shape);
    dgm_tensor x = f32_tensor(x_data, 2, x_shape);
    float y[4] = {0};
    dgm_tensor out = f32_tensor(y, 2, out_shape);

    dgm_linear *layer = NULL;
    OK(dgm_linear_pack(&weight, &bias, &layer));
    CHECK(layer != NULL);
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_NONE, &out));
    CHECK(y[0] == 16 && y[1] == 20 && y[2] == 24 && y[3] == 22);
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_SILU, &out));
    NEAR(y[0], 16.0 / (1.0 + exp(-16.0)));
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_GELU_TANH, &out));
    NEAR(y[0], 16);
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_GELU_ERF, &out));
    NEAR(y[3], 22);

    /* One row for all, every other element of x, and an output with a gap. */
    int64_t strides[] = {0, 2}, gaps[] = {3, 1}, backwards[] = {0, -1};
    float wide[6] = {9, 9, 9, 9, 9, 9};
    dgm_tensor view = x, sparse = f32_tensor(wide, 2, out_shape);
    view.strides = strides;
    view.byte_offset = sizeof(float);
    sparse.strides = gaps;
    OK(dgm_linear_forward(layer, &view, DGM_ACTIVATION_NONE, &sparse)); /* 1 1 3 */
    CHECK(wide[0] == 22 && wide[1] == 22 && wide[2] == 9 && wide[3] == 22 && wide[4] == 22 && wide[5] == 9);
    view.strides = backwards;
    view.byte_offset = 5 * sizeof(float);
    FAILS(DGM_ERROR_STRIDE, "x has strides", dgm_linear_forward(layer, &view, DGM_ACTIVATION_NONE, &sparse));
    dgm_linear_free(layer);

    OK(dgm_linear_pack(&weight, NULL, &layer));
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_NONE, &out));
    CHECK(y[0] == 6 && y[1] == 0 && y[2] == 14 && y[3] == 2);
    dgm_linear_free(layer);
    dgm_linear_free(NULL);
}

/* Small whole numbers, exact in every type. */
static uint16_t narrow(float x, int bf)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if (bf || x == 0)
        return (uint16_t)(u >> 16);
    return (uint16_t)((u >> 16 & 0x8000) | ((u >> 23 & 0xff) - 112) << 10 | (u >> 13 & 0x3ff));
}

static void sixteen_bits(void)
{
    uint16_t hw[COUNT(weight_data)], hb[COUNT(bias_data)], hx[COUNT(x_data)], hy[4];
    const float want[] = {16, 20, 24, 22};
    for (int bf = 0; bf < 2; bf++) {
        float y[4];
        dgm_tensor weight = f32_tensor((float *)hw, 2, weight_shape), bias = f32_tensor((float *)hb, 1, bias_shape);
        dgm_tensor x = f32_tensor((float *)hx, 2, x_shape), out = f32_tensor((float *)hy, 2, out_shape);
        dgm_tensor wide_x = f32_tensor(x_data, 2, x_shape), wide_out = f32_tensor(y, 2, out_shape);
        dgm_tensor *narrowed[] = {&weight, &bias, &x, &out};
        for (int i = 0; i < 4; i++) {
            narrowed[i]->dtype_bits = 16;
            narrowed[i]->dtype_code = bf ? DGM_DTYPE_BFLOAT : DGM_DTYPE_FLOAT;
        }
        for (size_t i = 0; i < COUNT(hw); i++)
            hw[i] = narrow(weight_data[i], bf);
        for (size_t i = 0; i < COUNT(hb); i++)
            hb[i] = narrow(bias_data[i], bf);
        for (size_t i = 0; i < COUNT(hx); i++)
            hx[i] = narrow(x_data[i], bf);
        dgm_linear *layer = NULL;
        OK(dgm_linear_pack(&weight, &bias, &layer));
        const dgm_tensor *inputs[] = {&x, &wide_x};
        for (int i = 0; i < 2; i++) {
            memset(y, 0, sizeof y);
            memset(hy, 0, sizeof hy);
            OK(dgm_linear_forward(layer, inputs[i], DGM_ACTIVATION_NONE, &wide_out));
            OK(dgm_linear_forward(layer, inputs[i], DGM_ACTIVATION_NONE, &out));
            for (int j = 0; j < 4; j++)
                CHECK(y[j] == want[j] && hy[j] == narrow(want[j], bf));
        }
        out.byte_offset = 1;
        FAILS(DGM_ERROR_STRIDE, "a multiple of 2", dgm_linear_forward(layer, &x, 0, &out));
        out.byte_offset = 0;
        out.dtype_bits = 8;
        FAILS(DGM_ERROR_DTYPE, "out", dgm_linear_forward(layer, &x, 0, &out));
        weight.dtype_bits = 64;
        dgm_linear *none;
        FAILS(DGM_ERROR_DTYPE, "weight", dgm_linear_pack(&weight, &bias, &none));
        bias.dtype_bits = 64;
        weight.dtype_bits = 16;
        FAILS(DGM_ERROR_DTYPE, "bias", dgm_linear_pack(&weight, &bias, &none));
        CHECK(none == NULL);
        dgm_linear_free(layer);
    }
}

static void bad_input(void)
{
    dgm_tensor weight = f32_tensor(weight_data, 2, weight_shape);
    dgm_tensor x = f32_tensor(x_data, 2, x_shape);
    float y[16] = {7, 7, 7, 7};
    dgm_tensor out = f32_tensor(y, 2, out_shape), bad;
    dgm_linear *layer = (dgm_linear *)y, *none;

    FAILS(DGM_ERROR_NULL, "weight is null", dgm_linear_pack(NULL, NULL, &layer));
    CHECK(layer == NULL);
    FAILS(DGM_ERROR_NULL, "out is null", dgm_linear_pack(&weight, NULL, NULL));
    bad = f32_tensor(bias_data, 1, x_shape);
    bad.shape = weight_shape + 1; /* 3 biases for 2 outputs */
    FAILS(DGM_ERROR_SHAPE, "bias has shape [3]", dgm_linear_pack(&weight, &bad, &none));
    CHECK(none == NULL);

    OK(dgm_linear_pack(&weight, NULL, &layer));
    FAILS(DGM_ERROR_NULL, "linear is null", dgm_linear_forward(NULL, &x, 0, &out));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_linear_forward(layer, NULL, 0, &out));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_linear_forward(layer, &x, 0, NULL));
    FAILS(DGM_ERROR_ARGUMENT, "activation is 4", dgm_linear_forward(layer, &x, 4, &out));
    FAILS(DGM_ERROR_ARGUMENT, "activation is -1", dgm_linear_forward(layer, &x, -1, &out));

    bad = x;
    bad.data = NULL;
    FAILS(DGM_ERROR_NULL, "x is null", dgm_linear_forward(layer, &bad, 0, &out));
    bad = x;
    bad.shape = NULL;
    FAILS(DGM_ERROR_NULL, "x is null", dgm_linear_forward(layer, &bad, 0, &out));
    bad = x;
    bad.ndim = 1;
    FAILS(DGM_ERROR_SHAPE, "x has shape [2]", dgm_linear_forward(layer, &bad, 0, &out));
    bad.ndim = -3;
    FAILS(DGM_ERROR_SHAPE, "-3 dimensions", dgm_linear_forward(layer, &bad, 0, &out));
    bad.ndim = 2000000000;
    FAILS(DGM_ERROR_SHAPE, "2000000000 dimensions", dgm_linear_forward(layer, &bad, 0, &out));
    int64_t negative[] = {2, -3}, huge[] = {INT64_MAX / 2, 3}, wrong[] = {2, 4};
    bad = x;
    bad.shape = negative;
    FAILS(DGM_ERROR_SHAPE, "[2, -3]", dgm_linear_forward(layer, &bad, 0, &out));
    bad.shape = huge;
    FAILS(DGM_ERROR_OVERFLOW, "x is too large", dgm_linear_forward(layer, &bad, 0, &out));
    bad.shape = wrong;
    FAILS(DGM_ERROR_SHAPE, "x has shape [2, 4]", dgm_linear_forward(layer, &bad, 0, &out));
    bad = x;
    bad.dtype_bits = 64;
    FAILS(DGM_ERROR_DTYPE, "x has dtype f64", dgm_linear_forward(layer, &bad, 0, &out));
    bad.dtype_lanes = 4;
    FAILS(DGM_ERROR_DTYPE, "4 lanes", dgm_linear_forward(layer, &bad, 0, &out));
    bad = x;
    bad.device_type = 2;
    FAILS(DGM_ERROR_DTYPE, "device type 2", dgm_linear_forward(layer, &bad, 0, &out));
    bad = x;
    bad.byte_offset = 2;
    FAILS(DGM_ERROR_STRIDE, "a multiple of 4", dgm_linear_forward(layer, &bad, 0, &out));
    bad.byte_offset = UINT64_MAX - 3;
    FAILS(DGM_ERROR_OVERFLOW, "byte_offset", dgm_linear_forward(layer, &bad, 0, &out));
    int64_t far[] = {INT64_MAX / 2, 1};
    bad = x;
    bad.strides = far;
    FAILS(DGM_ERROR_OVERFLOW, "x is too large", dgm_linear_forward(layer, &bad, 0, &out));

    int64_t backwards[] = {-2, 1}, same[] = {0, 1}, close[] = {1, 1};
    bad = out;
    bad.strides = backwards;
    bad.byte_offset = 8;
    FAILS(DGM_ERROR_STRIDE, "negative", dgm_linear_forward(layer, &x, 0, &bad));
    bad = out;
    bad.strides = same;
    FAILS(DGM_ERROR_STRIDE, "out has strides", dgm_linear_forward(layer, &x, 0, &bad));
    bad.strides = close;
    FAILS(DGM_ERROR_STRIDE, "out has strides", dgm_linear_forward(layer, &x, 0, &bad));
    bad = out;
    bad.shape = x_shape;
    FAILS(DGM_ERROR_SHAPE, "out has shape [2, 3]", dgm_linear_forward(layer, &x, 0, &bad));
    bad = f32_tensor(y + 3, 2, x_shape);
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_linear_forward(layer, &bad, 0, &out));
    CHECK(y[0] == 7 && y[1] == 7 && y[2] == 7 && y[3] == 7);

    /* Nothing to do is no error. */
    int64_t no_x[] = {0, 3}, no_out[] = {0, 2};
    dgm_tensor empty = f32_tensor(NULL, 2, no_x), nothing = f32_tensor(NULL, 2, no_out);
    OK(dgm_linear_forward(layer, &empty, 0, &nothing));
    dgm_linear_free(layer);
}

/* Gate and residual as dgm_gate_residual() has them, and the halves of a gated layer as dgm_swiglu(). */
static void epilogue(void)
{
    static const float gate_data[] = {2, -1, 0.5f, 3}, residual_data[] = {1, 2, 3, 4};
    int64_t one_shape[] = {1, 2}, stream_shape[] = {1, 2, 2}, odd_shape[] = {3, 2}, none_shape[] = {0, 2};
    dgm_tensor weight = f32_tensor(weight_data, 2, weight_shape), bias = f32_tensor(bias_data, 1, bias_shape);
    dgm_tensor x = f32_tensor(x_data, 2, x_shape);
    dgm_tensor gate = f32_tensor(gate_data, 2, out_shape), residual = f32_tensor(residual_data, 2, out_shape);
    float y[4] = {0}, plain[4] = {0}, want[4] = {0};
    dgm_tensor out = f32_tensor(y, 2, out_shape), alone = f32_tensor(plain, 2, out_shape);
    dgm_tensor composed = f32_tensor(want, 2, out_shape);
    dgm_linear *layer = NULL, *other = NULL;
    dgm_linear_options options;

    OK(dgm_linear_options_init(&options, sizeof options));
    CHECK(options.gate == NULL && options.residual == NULL && options.activation == DGM_ACTIVATION_NONE);
    OK(dgm_linear_pack(&weight, &bias, &layer));
    OK(dgm_linear_apply(layer, &x, NULL, &out)); /* 16 20 / 24 22 */
    CHECK(y[0] == 16 && y[3] == 22);
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_SILU, &alone));

    /* A row of the gate for each row, then one for both. */
    options.activation = DGM_ACTIVATION_SILU;
    options.gate = &gate;
    OK(dgm_linear_apply(layer, &x, &options, &out));
    for (int i = 0; i < 4; i++)
        CHECK(y[i] == plain[i] * gate_data[i]);
    gate.shape = one_shape;
    options.residual = &residual;
    {
        dgm_tensor r3 = f32_tensor(residual_data, 3, stream_shape), y3 = f32_tensor(plain, 3, stream_shape);
        dgm_tensor w3 = f32_tensor(want, 3, stream_shape);
        OK(dgm_gate_residual(&r3, &y3, &gate, &w3));
    }
    OK(dgm_linear_apply(layer, &x, &options, &out));
    CHECK(memcmp(y, want, sizeof y) == 0);
    /* Onto the output itself. */
    memcpy(y, residual_data, sizeof y);
    options.residual = &out;
    OK(dgm_linear_apply(layer, &x, &options, &out));
    CHECK(memcmp(y, want, sizeof y) == 0);
    /* A residual that repeats, without a gate. */
    options.gate = NULL;
    residual.shape = one_shape;
    options.residual = &residual;
    OK(dgm_linear_apply(layer, &x, &options, &out));
    for (int i = 0; i < 4; i++)
        CHECK(y[i] == plain[i] + residual_data[i % 2]);

    memset(y, 0, sizeof y);
    options.residual = NULL;
    gate.shape = odd_shape;
    options.gate = &gate;
    FAILS(DGM_ERROR_SHAPE, "gate has shape [3, 2]", dgm_linear_apply(layer, &x, &options, &out));
    gate.shape = none_shape;
    FAILS(DGM_ERROR_SHAPE, "gate has shape [0, 2]", dgm_linear_apply(layer, &x, &options, &out));
    gate.shape = out_shape;
    gate.dtype_bits = 64;
    FAILS(DGM_ERROR_DTYPE, "gate has dtype f64", dgm_linear_apply(layer, &x, &options, &out));
    options.gate = &out;
    FAILS(DGM_ERROR_ALIAS, "out overlaps gate", dgm_linear_apply(layer, &x, &options, &out));
    options.gate = NULL;
    options.residual = &x;
    FAILS(DGM_ERROR_SHAPE, "residual has shape [2, 3]", dgm_linear_apply(layer, &x, &options, &out));
    dgm_tensor shifted = f32_tensor(y + 2, 2, one_shape);
    options.residual = &shifted;
    FAILS(DGM_ERROR_ALIAS, "out overlaps residual", dgm_linear_apply(layer, &x, &options, &out));
    options.residual = NULL;
    options.activation = 4;
    FAILS(DGM_ERROR_ARGUMENT, "activation is 4", dgm_linear_apply(layer, &x, &options, &out));
    options.activation = 0;
    options.reserved = 1;
    FAILS(DGM_ERROR_ARGUMENT, "reserved is 1", dgm_linear_apply(layer, &x, &options, &out));
    options.reserved = 0;
    options.struct_size = 4;
    FAILS(DGM_ERROR_ARGUMENT, "struct_size 4", dgm_linear_apply(layer, &x, &options, &out));
    FAILS(DGM_ERROR_NULL, "linear is null", dgm_linear_apply(NULL, &x, NULL, &out));
    CHECK(y[0] == 0 && y[1] == 0 && y[2] == 0 && y[3] == 0);
    dgm_linear_free(layer);

    static const float up_data[] = {0.5f, 1, -1, 2, 0, 1};
    dgm_tensor up = f32_tensor(up_data, 2, weight_shape);
    OK(dgm_linear_pack(&weight, NULL, &layer));
    OK(dgm_linear_pack(&up, &bias, &other));
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_NONE, &alone));
    OK(dgm_linear_forward(other, &x, DGM_ACTIVATION_NONE, &composed));
    OK(dgm_swiglu(&alone, &composed, &composed));
    dgm_linear_free(layer);
    dgm_linear_free(other);
    OK(dgm_linear_pack_gated(&weight, &up, NULL, &bias, &layer));
    OK(dgm_linear_forward(layer, &x, DGM_ACTIVATION_SILU, &out));
    CHECK(memcmp(y, want, sizeof y) == 0);
    dgm_linear_free(layer);

    FAILS(DGM_ERROR_NULL, "up is null", dgm_linear_pack_gated(&weight, NULL, NULL, NULL, &layer));
    CHECK(layer == NULL);
    FAILS(DGM_ERROR_NULL, "out is null", dgm_linear_pack_gated(&weight, &up, NULL, NULL, NULL));
    up.shape = out_shape;
    FAILS(DGM_ERROR_SHAPE, "up has shape [2, 2]", dgm_linear_pack_gated(&weight, &up, NULL, NULL, &layer));
    up.shape = weight_shape;
    up.dtype_bits = 16;
    FAILS(DGM_ERROR_DTYPE, "up has dtype f16", dgm_linear_pack_gated(&weight, &up, NULL, NULL, &layer));
    up.dtype_bits = 32;
    bias.shape = weight_shape + 1;
    FAILS(DGM_ERROR_SHAPE, "gate_bias has shape [3]", dgm_linear_pack_gated(&weight, &up, &bias, NULL, &layer));
}

int main(void)
{
    values();
    epilogue();
    sixteen_bits();
    bad_input();
    return finish("test_linear");
}
