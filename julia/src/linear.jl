"""
    DGMKernels.Linear(weight, bias = nothing)

A linear layer with weights packed for the processor: `layer(x)` is `weight * x .+ bias`.

- `weight`: `(out, in)`, as in `weight * x`. Weights that lie in memory the other way round, such as a
  PyTorch `[out, in]` read as a Julia `(in, out)`, enter as `transpose(w)`; nothing is copied but the
  packing.
- `bias`: `(out,)` or `nothing`.

`layer(x; activation)` takes `x` as `(in, ...)` and gives `(out, ...)`; `activation` is `:none`,
`:silu`, `:gelu_tanh` or `:gelu_erf`. [`linear!`](@ref DGMKernels.linear!) fills an array of yours.

`weight`, `bias`, `x` and the output are of `Float32`, `Float16` or [`DGMKernels.BF16`](@ref), each for
itself; `layer(x)` has the type of `x`. Weights stay what they are in memory. With `x` and weights of
`BF16` products are of BF16 pairs, every other mix is widened to `Float32`; sums are `Float32`, and the
result is rounded once.

# Examples
```julia
layer = DGMKernels.Linear(randn(Float32, 256, 64), zeros(Float32, 256))
y = layer(randn(Float32, 64, 10, 2); activation = :silu)     # (256, 10, 2)
```
"""
struct Linear
    handle::LinearHandle
    inputs::Int
    outputs::Int
    bias::Bool
    function Linear(weight, bias = nothing)
        float_dims("weight", weight, 2, "(out, in)")
        outputs, inputs = size(weight)
        bias === nothing || float_size("bias", bias, (outputs,))
        # The logical [out, in] is the Julia array itself, not its reverse.
        w = Tensor(weight, reverse(size(weight)), reverse(element_strides(weight)))
        handle = LinearHandle(out -> LibDGM.dgm_linear_pack(w, optional(bias), out))
        return new(handle, inputs, outputs, bias !== nothing)
    end
end

const ACTIVATIONS = enumeration("DGM_ACTIVATION_")

function (layer::Linear)(x; activation = :none)
    ndims(x) >= 1 && size(x, 1) == layer.inputs || wrong_size("x", x, "($(layer.inputs), ...)")
    check_floats("x", x)
    out = Array{eltype(x)}(undef, layer.outputs, Base.tail(size(x))...)
    return linear!(out, layer, x; activation = activation)
end

"""
    DGMKernels.linear!(out, layer, x; activation = :none)

Fills `out`, `(out, ...)`, with `layer(x; activation)`. See [`DGMKernels.Linear`](@ref).
"""
function linear!(out, layer::Linear, x; activation = :none)
    number = choice("activation", activation, ACTIVATIONS)
    ndims(x) >= 1 && size(x, 1) == layer.inputs || wrong_size("x", x, "($(layer.inputs), ...)")
    check_floats("x", x)
    float_size("out", out, (layer.outputs, Base.tail(size(x))...))
    handle = layer.handle
    by_rows((o, i) -> check(LibDGM.dgm_linear_forward(handle, i, number, o)), out, x)
    return out
end

Base.show(io::IO, l::Linear) = print(io, "Linear(", l.inputs, " => ", l.outputs, l.bias ? ")" : "; no bias)")
