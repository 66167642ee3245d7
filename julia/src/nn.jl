"""
    layer_norm(x; weight = nothing, bias = nothing, eps = 1f-5)
    layer_norm!(out, x; ...)

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
    weight === nothing || check_size("weight", weight, (size(x, 1),))
    bias === nothing || check_size("bias", bias, (size(x, 1),))
    w, b = optional(weight), optional(bias)
    by_rows((o, i) -> check(LibDGM.dgm_layer_norm(i, w, b, eps, o)), out, x)
    return out
end

"""
    rms_norm(x; weight = nothing, eps = 1f-6)
    rms_norm!(out, x; ...)

Every column of `x` (first dimension, `d`) over its root mean square `√(mean(x²) + eps)`, times
`weight` (`d`). `out` must not overlap `x`. Method: Zhang, Sennrich 2019, arXiv:1910.07467.

# Examples
```julia
y = rms_norm(randn(Float32, 64, 10))
```
"""
rms_norm(x; options...) = rms_norm!(output(x), x; options...)

"See [`rms_norm`](@ref)."
function rms_norm!(out, x; weight = nothing, eps = 1f-6)
    check_rows(out, x)
    weight === nothing || check_size("weight", weight, (size(x, 1),))
    w = optional(weight)
    by_rows((o, i) -> check(LibDGM.dgm_rms_norm(i, w, eps, o)), out, x)
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
    check_dims("residual", residual, 3, "(d, T, B)")
    check_size("y", y, size(residual))
    check_size("gate", gate, (size(residual, 1), size(residual, 3)))
    check_size("out", out, size(residual))
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
    check_array("x", x)
    check_size("out", out, size(x))
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
    check_array("x", x)
    check_size("out", out, size(x))
    check(LibDGM.dgm_gelu(Tensor(x), number, Tensor(out)))
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
    return timestep_embedding!(Array{Float32}(undef, dim, length(t)), t; max_period = max_period)
end

"See [`timestep_embedding`](@ref)."
function timestep_embedding!(out, t; max_period = 10_000)
    check_dims("t", t, 1, "(B,)")
    check_dims("out", out, 2, "(dim, B)")
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
    return patchify!(Array{Float32}(undef, token_dims("x", x, p)), x, p)
end

"See [`patchify`](@ref)."
function patchify!(out, x, p::Integer)
    check_size("out", out, token_dims("x", x, p))
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
    check_dims("tokens", tokens, 3, "(C * p * p, T, B)")
    p > 0 && size(tokens, 1) % (p * p) == 0 ||
        wrong_size("tokens", tokens, "(C * p * p, T, B) for the patch size $p")
    return unpatchify!(Array{Float32}(undef, w, h, size(tokens, 1) ÷ (p * p), size(tokens, 3)), tokens, p)
end

"See [`unpatchify`](@ref)."
function unpatchify!(out, tokens, p::Integer)
    check_dims("tokens", tokens, 3, "(C * p * p, T, B)")
    check_size("tokens", tokens, token_dims("out", out, p))
    check(LibDGM.dgm_unpatchify(Tensor(tokens), p, Tensor(out)))
    return out
end

"The dimensions of the tokens of images `(W, H, C, B)`, whose sides must be multiples of `p`."
function token_dims(name, images, p)
    check_dims(name, images, 4, "(W, H, C, B)")
    w, h, c, b = size(images)
    p > 0 && w % p == 0 && h % p == 0 || wrong_size(name, images, "W and H to be multiples of the patch size $p")
    return (c * p * p, (w ÷ p) * (h ÷ p), b)
end

output(x) = Array{Float32}(undef, size(x))

function check_modulation(out, x, shift, scale)
    check_dims("x", x, 3, "(d, T, B)")
    check_size("shift", shift, (size(x, 1), size(x, 3)))
    check_size("scale", scale, (size(x, 1), size(x, 3)))
    check_size("out", out, size(x))
end

function check_rows(out, x)
    ndims(x) >= 1 || wrong_size("x", x, "(d, ...)")
    check_array("x", x)
    check_size("out", out, size(x))
end
