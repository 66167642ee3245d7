//! Linear layers with packed weights.

use dgm_core::linalg::{Activation, LinearOptions, PackedLinear, Residual, linear as forward};
use dgm_core::{Error, Result};
use ndarray::{Ix1, Ix2};

use crate::fence::entry;
use crate::memory::{Versioned, free_handle, handle, init_struct, put_handle, read_struct};
use crate::tensor::{FLOATS, Tensor, dgm_tensor};

/// No activation.
pub const DGM_ACTIVATION_NONE: i32 = 0;
/// SiLU after the bias.
pub const DGM_ACTIVATION_SILU: i32 = 1;
/// GELU (tanh) after the bias.
pub const DGM_ACTIVATION_GELU_TANH: i32 = 2;
/// GELU (erf) after the bias.
pub const DGM_ACTIVATION_GELU_ERF: i32 = 3;

/// Weights and bias of a linear layer, packed for the engine. Immutable.
pub struct dgm_linear(PackedLinear);

/// Packs a weight matrix; the originals are not needed afterwards.
///
/// Weights stay f32, f16 or bf16 in memory; the bias, of any of these types, becomes f32.
///
/// @param weight [out_features, in_features], the layout of PyTorch
/// @param bias   [out_features]; NULL for none
/// @param out    receives the handle (NULL on failure); release with dgm_linear_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_pack(
    weight: *const dgm_tensor,
    bias: *const dgm_tensor,
    out: *mut *mut dgm_linear,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL, and a valid place or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            let weight = Tensor::read_any("weight", weight, Some(2), "[out_features, in_features]", FLOATS)?;
            let bias = match bias.is_null() {
                true => None,
                false => Some(Tensor::read_any("bias", bias, Some(1), "[out_features]", FLOATS)?),
            };
            let bias = bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
            PackedLinear::pack(weight.floats::<Ix2>()?, bias).map(dgm_linear)
        })
    })
}

/// Packs the two halves of a gated layer: activation(x gate^T + gate_bias) * (x up^T + up_bias), which is
/// SwiGLU with DGM_ACTIVATION_SILU and GEGLU with a GELU.
///
/// The halves of one matrix are two descriptors. They lie interleaved, so that one pass makes both and
/// their product; the bits are those of two layers followed by dgm_swiglu() or dgm_geglu().
///
/// @param gate      [out_features, in_features]
/// @param up        [out_features, in_features], the type of gate
/// @param gate_bias [out_features]; NULL for none
/// @param up_bias   [out_features]; NULL for none
/// @param out       receives the handle (NULL on failure); release with dgm_linear_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_pack_gated(
    gate: *const dgm_tensor,
    up: *const dgm_tensor,
    gate_bias: *const dgm_tensor,
    up_bias: *const dgm_tensor,
    out: *mut *mut dgm_linear,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL, and a valid place or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            let gate = Tensor::read_floats("gate", gate, Some(2), "[out_features, in_features]")?;
            let up = Tensor::read_floats("up", up, Some(2), "[out_features, in_features]")?;
            let gate_bias = Tensor::read_optional_floats("gate_bias", gate_bias, 1, "[out_features]")?;
            let up_bias = Tensor::read_optional_floats("up_bias", up_bias, 1, "[out_features]")?;
            let gate_bias = gate_bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
            let up_bias = up_bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
            let (gate, up) = (gate.floats::<Ix2>()?, up.floats::<Ix2>()?);
            PackedLinear::pack_gated(gate, up, gate_bias, up_bias).map(dgm_linear)
        })
    })
}

/// Releases a packed layer; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_free(linear: *mut dgm_linear) {
    // SAFETY: the caller gives a handle of dgm_linear_pack() for the last time, or NULL.
    unsafe { free_handle(linear) }
}

/// Options of dgm_linear_apply(); fill with dgm_linear_options_init() first.
///
/// What follows the sums is, in this order: bias, activation (of a gated layer times the other half), gate,
/// residual, one rounding.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_linear_options {
    /// sizeof(dgm_linear_options).
    pub struct_size: usize,
    /// NULL (the default), or f32, f16 or bf16 [G, out_features], any strides, that multiplies the result. G
    /// divides the rows, and each row of it is for rows / G rows after one another: one row is for all, a row
    /// for each batch entry is the gate of adaLN-Zero.
    pub gate: *const dgm_tensor,
    /// NULL (the default), or f32, f16 or bf16 [R, out_features], any strides, added in the end, in one fused
    /// multiply-add with the gate. R divides the rows, row m gets row m mod R. May be out.
    pub residual: *const dgm_tensor,
    /// DGM_ACTIVATION_NONE (the default), ...
    pub activation: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointers are not followed
// before they are checked).
unsafe impl Versioned for dgm_linear_options {}

const DEFAULT: dgm_linear_options = dgm_linear_options {
    struct_size: size_of::<dgm_linear_options>(),
    gate: std::ptr::null(),
    residual: std::ptr::null(),
    activation: DGM_ACTIVATION_NONE,
    reserved: 0,
};

/// Fills options with the defaults.
///
/// @param options     what to fill
/// @param struct_size sizeof *options
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_options_init(
    options: *mut dgm_linear_options,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("options", options, struct_size, DEFAULT) })
}

/// y = residual + gate * activation(x weight^T + bias), in one pass with the bits of the kernels it stands
/// for: this layer alone with an f32 output, then dgm_gate_residual().
///
/// x and out are f32, f16 or bf16, each for itself. With x and weights of bf16 products are of bf16
/// pairs, every other mix is widened to f32; sums are f32, and the result is rounded once.
///
/// @param linear  from dgm_linear_pack() or dgm_linear_pack_gated()
/// @param x       [rows, in_features], no negative stride
/// @param options NULL for the defaults
/// @param out     [rows, out_features]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_apply(
    linear: *const dgm_linear,
    x: *const dgm_tensor,
    options: *const dgm_linear_options,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and options, or NULL.
    entry(|| unsafe {
        let options = match options.is_null() {
            true => DEFAULT,
            false => read_struct("options", options, DEFAULT)?,
        };
        apply(linear, x, &options, out)
    })
}

/// dgm_linear_apply() with an activation alone: y = activation(x weight^T + bias).
///
/// @param linear     from dgm_linear_pack() or dgm_linear_pack_gated()
/// @param x          [rows, in_features], no negative stride
/// @param activation DGM_ACTIVATION_NONE, ...
/// @param out        [rows, out_features]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_forward(
    linear: *const dgm_linear,
    x: *const dgm_tensor,
    activation: i32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid descriptors, or NULL.
    entry(|| unsafe { apply(linear, x, &dgm_linear_options { activation, ..DEFAULT }, out) })
}

/// # Safety
/// The handle is live or NULL, the descriptors are valid or NULL.
unsafe fn apply(
    linear: *const dgm_linear,
    x: *const dgm_tensor,
    options: &dgm_linear_options,
    out: *mut dgm_tensor,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let layer = unsafe { handle("linear", linear) }?;
    let activation = match options.activation {
        DGM_ACTIVATION_NONE => Activation::None,
        DGM_ACTIVATION_SILU => Activation::Silu,
        DGM_ACTIVATION_GELU_TANH => Activation::GeluTanh,
        DGM_ACTIVATION_GELU_ERF => Activation::GeluErf,
        other => return Err(Error::argument("activation", other, "0 to 3")),
    };
    if options.reserved != 0 {
        return Err(Error::argument("reserved", options.reserved, "0"));
    }
    // SAFETY: the caller's promise.
    let (x, gate, residual, out) = unsafe {
        (
            Tensor::read_any("x", x, Some(2), "[rows, in_features]", FLOATS)?,
            Tensor::read_optional_floats("gate", options.gate, 2, "[G, out_features]")?,
            Tensor::read_optional_floats("residual", options.residual, 2, "[R, out_features]")?,
            Tensor::read_any("out", out, Some(2), "[rows, out_features]", FLOATS)?,
        )
    };
    let inputs: Vec<&Tensor> = [Some(&x), gate.as_ref()].into_iter().flatten().collect();
    let target = out.output_floats::<Ix2>(&inputs)?;
    let residual = match &residual {
        None => Residual::None,
        Some(residual) if residual.is_same_as(&out)? => Residual::Out,
        Some(residual) => Residual::Rows(residual.floats::<Ix2>()?),
    };
    let gate = gate.as_ref().map(Tensor::floats::<Ix2>).transpose()?;
    forward(x.floats::<Ix2>()?, &layer.0, LinearOptions { activation, gate, residual }, target)
}
