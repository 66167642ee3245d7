"""
    DGMKernels.Linear(weight, bias = nothing)

A linear layer with weights packed for the processor: `layer(x)` is `weight * x .+ bias`.

- `weight`: `(out, in)`, as in `weight * x`. Weights that lie in memory the other way round, such as a
  PyTorch `[out, in]` read as a Julia `(in, out)`, enter as `transpose(w)`; nothing is copied but the
  packing.
- `bias`: `(out,)` or `nothing`.

`layer(x; activation, gate, residual)` takes `x` as `(in, ...)` and gives `(out, ...)`:
`residual .+ gate .* activation(weight * x .+ bias)` in one pass, with the bits of a layer of `Float32`
followed by [`gate_residual`](@ref). [`linear!`](@ref DGMKernels.linear!) fills an array of yours.

- `activation`: `:none`, `:silu`, `:gelu_tanh` or `:gelu_erf`.
- `gate`: `(out,)` for all columns, or `(out, G)` where `G` divides the number of columns: each of its columns
  is for as many columns of `x` after one another. With `x` `(in, T, B)` and `gate` `(out, B)` that is
  adaLN-Zero.
- `residual`: the size of the output, or `(out, R)` that repeats, where `R` divides the number of columns
  (positions that every batch entry shares).

[`gated_linear`](@ref DGMKernels.gated_linear) makes the layers of SwiGLU and GEGLU.

`weight`, `bias`, `x`, `gate`, `residual` and the output are of `Float32`, `Float16` or [`DGMKernels.BF16`](@ref), each for
itself; `layer(x)` has the type of `x`. Weights stay what they are in memory. With `x` and weights of
`BF16` products are of BF16 pairs, every other mix is widened to `Float32`; sums are `Float32`, and the
result is rounded once.

# Examples
```julia
layer = DGMKernels.Linear(randn(Float32, 256, 64), zeros(Float32, 256))
y = layer(randn(Float32, 64, 10, 2); activation = :silu)     # (256, 10, 2)
layer(randn(Float32, 64, 10, 2); gate = randn(Float32, 256, 2), residual = y)
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
    Linear(handle::LinearHandle, inputs, outputs, bias) = new(handle, inputs, outputs, bias)
end

"""
    DGMKernels.gated_linear(gate, up; gate_bias = nothing, up_bias = nothing)

A [`DGMKernels.Linear`](@ref) of two halves: `layer(x; activation)` is
`activation(gate * x .+ gate_bias) .* (up * x .+ up_bias)`, SwiGLU with `:silu`, GEGLU with a GELU
(arXiv 2002.05202). One pass makes both halves and their product, with the bits of two layers followed by
[`swiglu`](@ref) or [`geglu`](@ref).

`gate` and `up` are `(out, in)` of one element type, the biases `(out,)`.

# Examples
```julia
layer = DGMKernels.gated_linear(randn(Float32, 256, 64), randn(Float32, 256, 64))
y = layer(randn(Float32, 64, 10); activation = :silu)     # (256, 10)
```
"""
function gated_linear(gate, up; gate_bias = nothing, up_bias = nothing)
    float_dims("gate", gate, 2, "(out, in)")
    float_size("up", up, size(gate))
    eltype(up) === eltype(gate) || wrong_type("up", up, eltype(gate))
    outputs, inputs = size(gate)
    gate_bias === nothing || float_size("gate_bias", gate_bias, (outputs,))
    up_bias === nothing || float_size("up_bias", up_bias, (outputs,))
    a, b = map(w -> Tensor(w, reverse(size(w)), reverse(element_strides(w))), (gate, up))
    biases = optional(gate_bias), optional(up_bias)
    handle = LinearHandle(out -> LibDGM.dgm_linear_pack_gated(a, b, biases..., out))
    return Linear(handle, inputs, outputs, !(gate_bias === up_bias === nothing))
end

const ACTIVATIONS = enumeration("DGM_ACTIVATION_")

function (layer::Linear)(x; activation = :none, gate = nothing, residual = nothing)
    ndims(x) >= 1 && size(x, 1) == layer.inputs || wrong_size("x", x, "($(layer.inputs), ...)")
    check_floats("x", x)
    out = Array{eltype(x)}(undef, layer.outputs, Base.tail(size(x))...)
    return linear!(out, layer, x; activation = activation, gate = gate, residual = residual)
end

"""
    DGMKernels.linear!(out, layer, x; activation = :none, gate = nothing, residual = nothing)

Fills `out`, `(out, ...)`, with `layer(x; activation, gate, residual)`; `residual` may be `out`. See
[`DGMKernels.Linear`](@ref).

With a gate or a residual the dimensions after the first of `x`, `out` and `residual` must be one step apart,
as in an `Array` and in a view of some of its rows.
"""
function linear!(out, layer::Linear, x; activation = :none, gate = nothing, residual = nothing)
    number = choice("activation", activation, ACTIVATIONS)
    ndims(x) >= 1 && size(x, 1) == layer.inputs || wrong_size("x", x, "($(layer.inputs), ...)")
    check_floats("x", x)
    float_size("out", out, (layer.outputs, Base.tail(size(x))...))
    handle = layer.handle
    if gate === nothing && residual === nothing
        by_rows((o, i) -> check(LibDGM.dgm_linear_forward(handle, i, number, o)), out, x)
        return out
    end
    count = prod(Base.tail(size(x)))
    check_repeating("gate", gate, layer.outputs, count)
    residual isa AbstractArray && size(residual) == size(out) ? check_floats("residual", residual) :
    check_repeating("residual", residual, layer.outputs, count)
    target, input = one_step("out", out), one_step("x", x)
    g, r = one_step("gate", gate), one_step("residual", residual)
    options = default_options(LibDGM.dgm_linear_options_init, LibDGM.dgm_linear_options)
    GC.@preserve g r begin
        filled = Ref(with(options; activation = number, gate = address(g), residual = address(r)))
        check(LibDGM.dgm_linear_apply(handle, input, filled, target))
    end
    return out
end

"Checks an array whose columns stand for `count` columns."
check_repeating(name, ::Nothing, outputs, count) = nothing
function check_repeating(name, x::AbstractArray, outputs, count)
    n = ndims(x) == 2 ? size(x, 2) : 1
    fits = ndims(x) in (1, 2) && size(x, 1) == outputs && (count == 0 || n > 0 && count % n == 0)
    fits || wrong_size(name, x, "($outputs, a divisor of $count)")
    return check_floats(name, x)
end
check_repeating(name, x, outputs, count) = throw(ArgumentError("$name is $(repr(x)), expected an array or nothing"))

"An array as columns, which its strides must allow."
one_step(name, ::Nothing) = C_NULL
function one_step(name, x)
    columns = as_rows(x)
    columns === nothing || return columns
    throw(ArgumentError("$name has strides $(element_strides(x)), expected the dimensions after the first one step apart"))
end

Base.show(io::IO, l::Linear) = print(io, "Linear(", l.inputs, " => ", l.outputs, l.bias ? ")" : "; no bias)")
