"""
    layer_norm(x; weight = nothing, bias = nothing, eps = 1f-5)
    layer_norm!(out, x; ...)

Arrays here and below are `Float32`, `Float16` or `DGMKernels.BF16`, each for itself: everything is computed in
`Float32` and rounded once. Results that are not given have the type of the first array.

Every column of `x` (its first dimension, `d`) less its mean, over its standard deviation
`√(variance + eps)`, times `weight` plus `bias` (`d` each). `out` must not overlap `x`.
Method: Ba, Kiros, Hinton 2016, arXiv:1607.06450; the variance takes a second pass.

# Examples
```julia
x = randn(Float32, 64, 10, 2)
y = layer_norm(x; weight = ones(Float32, 64))
```
"""
layer_norm(x; options...) = layer_norm!(output(x), x; options...)

"See [`layer_norm`](@ref)."
function layer_norm!(out, x; weight = nothing, bias = nothing, eps = 1f-5)
    check_rows(out, x)
    weight === nothing || float_size("weight", weight, (size(x, 1),))
    bias === nothing || float_size("bias", bias, (size(x, 1),))
    w, b = optional(weight), optional(bias)
    check(LibDGM.dgm_layer_norm(Tensor(x), w, b, eps, Tensor(out)))
    return out
end

"""
    rms_norm(x; weight = nothing, eps = 1f-6)
    rms_norm!(out, x; ...)

Every column of `x` (first dimension, `d`) over its root mean square `√(mean(x²) + eps)`, times
`weight` (`d`). `out` must not overlap `x`. With queries or keys `(D, L, H, B)`, a `PermutedDimsArray` too,
this is QK-norm. Method: Zhang, Sennrich 2019, arXiv:1910.07467.

# Examples
```julia
y = rms_norm(randn(Float32, 64, 10))
```
"""
rms_norm(x; options...) = rms_norm!(output(x), x; options...)

"See [`rms_norm`](@ref)."
function rms_norm!(out, x; weight = nothing, eps = 1f-6)
    check_rows(out, x)
    weight === nothing || float_size("weight", weight, (size(x, 1),))
    w = optional(weight)
    check(LibDGM.dgm_rms_norm(Tensor(x), w, eps, Tensor(out)))
    return out
end

"""
    modulate(x, shift, scale)
    modulate!(out, x, shift, scale)

`x * (1 + scale) + shift`, the conditioning of adaLN blocks: `x` is `(d, T, B)`, `shift` and `scale`
are `(d, B)`. `out` may be `x`. Method: Peebles, Xie 2022, arXiv:2212.09748.

# Examples
```julia
y = modulate(randn(Float32, 64, 16, 2), randn(Float32, 64, 2), randn(Float32, 64, 2))
```
"""
modulate(x, shift, scale) = modulate!(output(x), x, shift, scale)

"See [`modulate`](@ref)."
function modulate!(out, x, shift, scale)
    check_modulation(out, x, shift, scale)
    check(LibDGM.dgm_modulate(Tensor(x), Tensor(shift), Tensor(scale), Tensor(out)))
    return out
end

"""
    layer_norm_modulate(x, shift, scale; eps = 1f-6)
    layer_norm_modulate!(out, x, shift, scale; eps = 1f-6)

[`layer_norm`](@ref) without weight and bias, then [`modulate`](@ref), in one pass over memory with the
same bits: `x` is `(d, T, B)`, `shift` and `scale` are `(d, B)`. `out` must not overlap `x`.
Method: Peebles, Xie 2022, arXiv:2212.09748.

# Examples
```julia
y = layer_norm_modulate(randn(Float32, 64, 16, 2), randn(Float32, 64, 2), randn(Float32, 64, 2))
```
"""
layer_norm_modulate(x, shift, scale; options...) = layer_norm_modulate!(output(x), x, shift, scale; options...)

"See [`layer_norm_modulate`](@ref)."
function layer_norm_modulate!(out, x, shift, scale; eps = 1f-6)
    check_modulation(out, x, shift, scale)
    check(LibDGM.dgm_layer_norm_modulate(Tensor(x), Tensor(shift), Tensor(scale), eps, Tensor(out)))
    return out
end

"""
    gate_residual(residual, y, gate)
    gate_residual!(out, residual, y, gate)

`residual + gate * y`, the gated residual of adaLN-Zero blocks: `residual` and `y` are `(d, T, B)`,
`gate` is `(d, B)`. `out` may be `residual`. Method: Peebles, Xie 2022, arXiv:2212.09748.

# Examples
```julia
h = gate_residual(randn(Float32, 64, 16, 2), randn(Float32, 64, 16, 2), zeros(Float32, 64, 2))
```
"""
gate_residual(residual, y, gate) = gate_residual!(output(residual), residual, y, gate)

"See [`gate_residual`](@ref)."
function gate_residual!(out, residual, y, gate)
    float_dims("residual", residual, 3, "(d, T, B)")
    float_size("y", y, size(residual))
    float_size("gate", gate, (size(residual, 1), size(residual, 3)))
    float_size("out", out, size(residual))
    check(LibDGM.dgm_gate_residual(Tensor(residual), Tensor(y), Tensor(gate), Tensor(out)))
    return out
end

"""
    DGMKernels.silu(x)
    DGMKernels.silu!(out, x)

`x / (1 + exp(-x))` of every element of an array of any shape. `out` may be `x`.

# Examples
```julia
DGMKernels.silu([-1f0, 0f0, 1f0])
```
"""
silu(x) = silu!(output(x), x)

"See [`silu`](@ref)."
function silu!(out, x)
    check_floats("x", x)
    float_size("out", out, size(x))
    check(LibDGM.dgm_silu(Tensor(x), Tensor(out)))
    return out
end

const GELUS = enumeration("DGM_GELU_")

"""
    DGMKernels.gelu(x; kind = :tanh)
    DGMKernels.gelu!(out, x; kind = :tanh)

`x Φ(x)` of every element of an array of any shape, with the normal distribution `Φ` by its tanh
approximation (`:tanh`) or by the error function (`:erf`). `out` may be `x`.
Method: Hendrycks, Gimpel 2016, arXiv:1606.08415.

# Examples
```julia
DGMKernels.gelu([-1f0, 0f0, 1f0]; kind = :erf)
```
"""
gelu(x; kind = :tanh) = gelu!(output(x), x; kind = kind)

"See [`gelu`](@ref)."
function gelu!(out, x; kind = :tanh)
    number = choice("kind", kind, GELUS)
    check_floats("x", x)
    float_size("out", out, size(x))
    check(LibDGM.dgm_gelu(Tensor(x), number, Tensor(out)))
    return out
end

"""
    DGMKernels.softmax(x)
    DGMKernels.softmax!(out, x)

`exp.(x) ./ sum(exp, x)` of every column of `x` (its first dimension). A column of `-Inf` alone gives 0.
`out` must not overlap `x`.

# Examples
```julia
p = DGMKernels.softmax(randn(Float32, 10, 3))
```
"""
softmax(x) = softmax!(output(x), x)

"See [`DGMKernels.softmax`](@ref)."
function softmax!(out, x)
    check_rows(out, x)
    check(LibDGM.dgm_softmax(Tensor(x), Tensor(out)))
    return out
end

"""
    DGMKernels.logsoftmax(x)
    DGMKernels.logsoftmax!(out, x)

`x .- log(sum(exp, x))` of every column of `x` (its first dimension). `out` must not overlap `x`.

# Examples
```julia
l = DGMKernels.logsoftmax(randn(Float32, 10, 3))
```
"""
logsoftmax(x) = logsoftmax!(output(x), x)

"See [`DGMKernels.logsoftmax`](@ref)."
function logsoftmax!(out, x)
    check_rows(out, x)
    check(LibDGM.dgm_log_softmax(Tensor(x), Tensor(out)))
    return out
end

"""
    rms_norm_residual(x, residual; weight = nothing, eps = 1f-6) -> (sum, out)
    rms_norm_residual!(sum, out, x, residual; ...)

`sum = x + residual` and `out = rms_norm(sum)` in one pass over memory. The norm sees the sum as it is
stored, in the type of `sum`; `sum` may be `residual`. See [`rms_norm`](@ref).

# Examples
```julia
h, y = rms_norm_residual(randn(Float32, 64, 10), randn(Float32, 64, 10); weight = ones(Float32, 64))
```
"""
rms_norm_residual(x, residual; options...) = rms_norm_residual!(output(x), output(x), x, residual; options...)

"See [`rms_norm_residual`](@ref)."
function rms_norm_residual!(sum, out, x, residual; weight = nothing, eps = 1f-6)
    ndims(x) >= 1 || wrong_size("x", x, "(d, ...)")
    check_floats("x", x)
    same_size("residual", residual, "x", x)
    float_size("sum", sum, size(x))
    float_size("out", out, size(x))
    weight === nothing || float_size("weight", weight, (size(x, 1),))
    w = optional(weight)
    check(LibDGM.dgm_rms_norm_residual(Tensor(x), Tensor(residual), w, eps, Tensor(sum), Tensor(out)))
    return sum, out
end

"""
    group_norm(x, groups; weight = nothing, bias = nothing, eps = 1f-5, silu = false)
    group_norm!(out, x, groups; ...)

`x` is `(..., C, B)`. Every one of the `groups` of channels of each batch item, with all its places, less its
mean, over its standard deviation `√(variance + eps)`, times `weight` plus `bias` (`C` each); with `silu`, SiLU
of that. `out` must not overlap `x`. Method: Wu, He 2018, arXiv:1803.08494.

# Examples
```julia
y = group_norm(randn(Float32, 8, 8, 32, 2), 4; silu = true)
```
"""
group_norm(x, groups::Integer; options...) = group_norm!(output(x), x, groups; options...)

"See [`group_norm`](@ref)."
function group_norm!(out, x, groups::Integer; weight = nothing, bias = nothing, eps = 1f-5, silu::Bool = false)
    groups >= 1 || throw(ArgumentError("groups is $groups, expected at least 1"))
    n = ndims(x)
    n >= 2 && size(x, n - 1) % groups == 0 || wrong_size("x", x, "(..., C, B) with C a multiple of groups $groups")
    check_floats("x", x)
    float_size("out", out, size(x))
    weight === nothing || float_size("weight", weight, (size(x, n - 1),))
    bias === nothing || float_size("bias", bias, (size(x, n - 1),))
    w, b = optional(weight), optional(bias)
    check(LibDGM.dgm_group_norm(Tensor(x), groups, w, b, eps, Int32(silu), Tensor(out)))
    return out
end

"""
    swiglu(gate, up)
    swiglu(x)
    swiglu!(out, gate, up)

`silu(gate) * up` of every element; `x` holds the gate in the first half of its first dimension, `up` in the
second. `out` may be `gate` or `up`. Method: Shazeer 2020, arXiv:2002.05202.

# Examples
```julia
y = swiglu(randn(Float32, 128, 10))     # (64, 10)
```
"""
swiglu(gate, up) = swiglu!(output(gate), gate, up)
swiglu(x) = swiglu(halves(x)...)

"See [`swiglu`](@ref)."
function swiglu!(out, gate, up)
    check_gated(out, gate, up)
    check(LibDGM.dgm_swiglu(Tensor(gate), Tensor(up), Tensor(out)))
    return out
end

"""
    geglu(gate, up; kind = :tanh)
    geglu(x; kind = :tanh)
    geglu!(out, gate, up; kind = :tanh)

`gelu(gate; kind) * up` of every element; as [`swiglu`](@ref). Method: Shazeer 2020, arXiv:2002.05202.

# Examples
```julia
y = geglu(randn(Float32, 64, 10), randn(Float32, 64, 10); kind = :erf)
```
"""
geglu(gate, up; kind = :tanh) = geglu!(output(gate), gate, up; kind = kind)
geglu(x; kind = :tanh) = geglu(halves(x)...; kind = kind)

"See [`geglu`](@ref)."
function geglu!(out, gate, up; kind = :tanh)
    number = choice("kind", kind, GELUS)
    check_gated(out, gate, up)
    check(LibDGM.dgm_geglu(Tensor(gate), Tensor(up), number, Tensor(out)))
    return out
end

"""
    embedding(table, indices)
    embedding!(out, table, indices)

Column `indices[n]` (from 1) of `table`, `(d, V)`, as column `n` of the result, `(d, N)`.

# Examples
```julia
e = embedding(randn(Float32, 64, 1000), [3, 1, 1000])     # (64, 3)
```
"""
function embedding(table, indices)
    float_dims("table", table, 2, "(d, V)")
    return embedding!(Array{eltype(table)}(undef, size(table, 1), length(indices)), table, indices)
end

"See [`embedding`](@ref)."
function embedding!(out, table, indices)
    float_dims("table", table, 2, "(d, V)")
    float_size("out", out, (size(table, 1), length(indices)))
    for i in indices
        i isa Integer && 1 <= i <= size(table, 2) ||
            throw(ArgumentError("indices has $(repr(i)), expected integers from 1 to $(size(table, 2))"))
    end
    rows = Int64[i - 1 for i in indices]
    check(LibDGM.dgm_embedding(Tensor(table), rows, length(rows), Tensor(out)))
    return out
end

"""
    cfg_combine(cond, uncond, scale; rescale = 0)
    cfg_combine!(out, cond, uncond, scale; rescale = 0)

Classifier-free guidance, `scale * cond + (1 - scale) * uncond`, of arrays `(..., B)`: the bits of a
`DGMKernels.Plan` with this guidance. With `rescale` up to 1 each batch item is multiplied by
`1 - rescale + rescale * (deviation of cond / deviation of the result)`. `out` must not overlap the others.
Methods: Ho, Salimans 2022, arXiv:2207.12598; Lin et al. 2023, arXiv:2305.08891.

# Examples
```julia
e = cfg_combine(randn(Float32, 8, 8, 3, 2), randn(Float32, 8, 8, 3, 2), 5; rescale = 0.7)
```
"""
cfg_combine(cond, uncond, scale; rescale = 0) =
    cfg_combine!(output(cond), cond, uncond, scale; rescale = rescale)

"See [`cfg_combine`](@ref)."
function cfg_combine!(out, cond, uncond, scale; rescale = 0)
    ndims(cond) >= 1 || wrong_size("cond", cond, "(..., B)")
    check_floats("cond", cond)
    same_size("uncond", uncond, "cond", cond)
    float_size("out", out, size(cond))
    check(LibDGM.dgm_cfg_combine(Tensor(cond), Tensor(uncond), scale, rescale, Tensor(out)))
    return out
end

"""
    timestep_embedding(t, dim; max_period = 10_000)
    timestep_embedding!(out, t; max_period = 10_000)

Sinusoidal embedding `(dim, B)` of `B` times: cosines of `t * max_period^(-i / (dim/2))` for
`i = 0, 1, ...`, then the sines. `dim` is even. Method: Vaswani et al. 2017, arXiv:1706.03762, in the
order that diffusion models use.

# Examples
```julia
e = timestep_embedding(Float32[0, 250, 999], 128)     # (128, 3)
```
"""
function timestep_embedding(t, dim::Integer; max_period = 10_000)
    (dim > 0 && iseven(dim)) || throw(ArgumentError("dim is $dim, expected an even number above 0"))
    return timestep_embedding!(Array{eltype(t)}(undef, dim, length(t)), t; max_period = max_period)
end

"See [`timestep_embedding`](@ref)."
function timestep_embedding!(out, t; max_period = 10_000)
    float_dims("t", t, 1, "(B,)")
    float_dims("out", out, 2, "(dim, B)")
    iseven(size(out, 1)) && size(out, 2) == length(t) ||
        wrong_size("out", out, "(dim, B) with dim even and B = $(length(t))")
    check(LibDGM.dgm_timestep_embedding(Tensor(t), max_period, Tensor(out)))
    return out
end

"""
    patchify(x, p)
    patchify!(out, x, p)

Cuts images `(W, H, C, B)` into tokens `(p * p * C, T, B)`, `T = (W ÷ p) * (H ÷ p)`, patches along `W`
first. Inside a token the column runs fastest, then the row, then the channel, which is the
order of a convolution's weights.

# Examples
```julia
tokens = patchify(randn(Float32, 32, 32, 3, 1), 2)     # (12, 256, 1)
```
"""
function patchify(x, p::Integer)
    return patchify!(Array{eltype(x)}(undef, token_dims("x", x, p)), x, p)
end

"See [`patchify`](@ref)."
function patchify!(out, x, p::Integer)
    float_size("out", out, token_dims("x", x, p))
    check(LibDGM.dgm_patchify(Tensor(x), p, Tensor(out)))
    return out
end

"""
    unpatchify(tokens, p, w, h)
    unpatchify!(out, tokens, p)

Puts the output tokens of a diffusion transformer, `(C * p * p, T, B)`, together as images
`(w, h, C, B)`. Inside a token the channel runs fastest, then the column, then the row: not the
order of [`patchify`](@ref), but the one that published DiT weights produce.

# Examples
```julia
x = unpatchify(randn(Float32, 12, 256, 1), 2, 32, 32)     # (32, 32, 3, 1)
```
"""
function unpatchify(tokens, p::Integer, w::Integer, h::Integer)
    float_dims("tokens", tokens, 3, "(C * p * p, T, B)")
    p > 0 && size(tokens, 1) % (p * p) == 0 ||
        wrong_size("tokens", tokens, "(C * p * p, T, B) for the patch size $p")
    return unpatchify!(Array{eltype(tokens)}(undef, w, h, size(tokens, 1) ÷ (p * p), size(tokens, 3)), tokens, p)
end

"See [`unpatchify`](@ref)."
function unpatchify!(out, tokens, p::Integer)
    float_dims("tokens", tokens, 3, "(C * p * p, T, B)")
    float_size("tokens", tokens, token_dims("out", out, p))
    check(LibDGM.dgm_unpatchify(Tensor(tokens), p, Tensor(out)))
    return out
end

"The dimensions of the tokens of images `(W, H, C, B)`, whose sides must be multiples of `p`."
function token_dims(name, images, p)
    float_dims(name, images, 4, "(W, H, C, B)")
    w, h, c, b = size(images)
    p > 0 && w % p == 0 && h % p == 0 || wrong_size(name, images, "W and H to be multiples of the patch size $p")
    return (c * p * p, (w ÷ p) * (h ÷ p), b)
end

output(x) = Array{eltype(x)}(undef, size(x))

function check_modulation(out, x, shift, scale)
    float_dims("x", x, 3, "(d, T, B)")
    float_size("shift", shift, (size(x, 1), size(x, 3)))
    float_size("scale", scale, (size(x, 1), size(x, 3)))
    float_size("out", out, size(x))
end

function check_gated(out, gate, up)
    check_floats("gate", gate)
    same_size("up", up, "gate", gate)
    float_size("out", out, size(gate))
end

"Checks that an argument has the size of another."
same_size(name, x, other, y) =
    size(x) == size(y) ? check_floats(name, x) : wrong_size(name, x, "$(size(y)), the size of $other")

"The two halves of the first dimension."
function halves(x)
    check_floats("x", x)
    ndims(x) >= 1 && iseven(size(x, 1)) || wrong_size("x", x, "(2 d, ...)")
    d, rest = size(x, 1) ÷ 2, ntuple(_ -> :, ndims(x) - 1)
    return view(x, 1:d, rest...), view(x, d+1:2*d, rest...)
end

function check_rows(out, x)
    ndims(x) >= 1 || wrong_size("x", x, "(d, ...)")
    check_floats("x", x)
    float_size("out", out, size(x))
end
