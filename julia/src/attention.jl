"""
    attention(q, k, v; lse = false, options...)
    attention!(out, q, k, v; lse = nothing, options...)

Fused scaled dot-product attention, `softmax(scale * qᵀk) v` for every head, without ever holding
the matrix of scores.

# Arguments
- `q`: `(D, Lq, H, B)`, queries.
- `k`: `(D, Lk, Hkv, B)`, keys; `H` is a multiple of `Hkv`, consecutive query heads share a key head.
- `v`: `(Dv, Lk, Hkv, B)`, values.
- `lse`: `true` also returns the natural logarithm of each row's softmax denominator, `(Lq, H, B)`;
  `attention!` takes the array to fill.

# Options
Scores pass through them in this order. The *position* of query `i` is key `i + n - Lq` of `n`: the
last query stands at the last key.
- `scale`: a factor, `1/√D` unless given.
- `soft_cap`: scores become `soft_cap * tanh(score / soft_cap)`.
- `alibi_slopes`: `H` slopes; a score loses `slope` times the distance of its key from the position.
- `bias`: `(Lk, Lq, H, B)`, 1 wherever it repeats; added. `-Inf` hides the element.
- `mask`: `Array{Bool}` of such a size; `false` hides the element: whatever `k` and `v` hold there never
  reaches the result.
- `causal`: a query sees no key behind its position.
- `window`: `(left, right)`, how many keys before and behind its position a query sees; `nothing` for no limit.
- `kv_lengths`: `B` integers; keys behind `kv_lengths[b]` do not exist for batch item `b`.
- `sinks`: `H` scores that join the softmax without a value; `-Inf` is no sink.

Returns `out`, `(Dv, Lq, H, B)`, or `(out, lse)`. A query without any key gives 0 and `-Inf`.
`q`, `out` and the pair `k`, `v` are each `Float32`, `Float16` or [`DGMKernels.BF16`](@ref): computed in
`Float32`, rounded once (all of `BF16`: probabilities too, and products of pairs are summed in `Float32`); `out` of `attention` has the type of `q`. Arrays have any strides, so heads between `D` and `L` are
`PermutedDimsArray(x, (1, 3, 2, 4))`. The result has the same bits for any number of threads.

# Examples
```julia
q, k, v = randn(Float32, 64, 10, 8, 2), randn(Float32, 64, 20, 2, 2), randn(Float32, 64, 20, 2, 2)
y = attention(q, k, v; causal = true)          # (64, 10, 8, 2)
y, lse = attention(q, k, v; lse = true)
```
Method: Dao et al. 2022, arXiv:2205.14135; the order of every sum is fixed.
"""
function attention(q, k, v; lse::Bool = false, options...)
    float_dims("q", q, 4, "(D, Lq, H, B)")
    float_dims("v", v, 4, "(Dv, Lk, Hkv, B)")
    out = Array{eltype(q)}(undef, size(v, 1), size(q, 2), size(q, 3), size(q, 4))
    sums = lse ? Array{Float32}(undef, size(q, 2), size(q, 3), size(q, 4)) : nothing
    attention!(out, q, k, v; lse = sums, options...)
    return lse ? (out, sums) : out
end

"See [`attention`](@ref)."
function attention!(out, q, k, v; lse = nothing, options...)
    lk, lq, h, b = score_sizes(q, k, v)
    float_dims("out", out, 4, "(Dv, Lq, H, B)")
    size(out) == (size(v, 1), lq, h, b) || wrong_size("out", out, (size(v, 1), lq, h, b))
    lse === nothing || check_size("lse", lse, (lq, h, b))
    with_score_options((lk, lq, h, b); options...) do all
        check(LibDGM.dgm_attention(Tensor(q), Tensor(k), Tensor(v), Ref(all), Tensor(out), optional(lse)))
    end
    return out
end

"""
    attention_backward(q, k, v, out, lse, dout; dbias = false, options...)
    attention_backward!(dq, dk, dv, q, k, v, out, lse, dout; dbias = nothing, options...)

The gradients of [`attention`](@ref): with `dout` the gradient of a loss with respect to its result `out`,
those with respect to `q`, `k` and `v`.

# Arguments
- `q`, `k`, `v` and options: those of `attention`.
- `out`, `(Dv, Lq, H, B)`, and `lse`, `(Lq, H, B)`: what `attention(...; lse = true)` returned.
- `dout`: `(Dv, Lq, H, B)`.
- `dbias`: `true` also returns the gradient of `bias`, of its size, summed where the bias repeats;
  `attention_backward!` takes the array to fill.

Returns `(dq, dk, dv)`, of the sizes and element types of `q`, `k` and `v`, or `(dq, dk, dv, dbias)`. Elements
that are hidden and queries without a key add nothing. Of 16-bit arrays it computes in `Float32` (where `q`, `k`, `v` and
`dout` are `BF16`: in products of pairs, of probabilities and gradients of scores rounded to it). The result has the same bits for any number of threads.

With ChainRulesCore loaded (Julia 1.9 and newer) this is what automatic differentiation uses for `attention`.

# Examples
```julia
q, k, v = randn(Float32, 64, 10, 8, 2), randn(Float32, 64, 20, 2, 2), randn(Float32, 64, 20, 2, 2)
y, lse = attention(q, k, v; lse = true, causal = true)
dq, dk, dv = attention_backward(q, k, v, y, lse, 2 .* y; causal = true)   # of sum(abs2, y)
```
Method: Dao et al. 2022, arXiv:2205.14135, appendix B.4; the order of every sum is fixed.
"""
function attention_backward(q, k, v, out, lse, dout; bias = nothing, dbias::Bool = false, options...)
    float_dims("q", q, 4, "(D, Lq, H, B)")
    float_dims("k", k, 4, "(D, Lk, Hkv, B)")
    float_dims("v", v, 4, "(Dv, Lk, Hkv, B)")
    dbias && bias === nothing && throw(ArgumentError("dbias is true, expected false without a bias"))
    dq, dk, dv = map(x -> Array{eltype(x)}(undef, size(x)), (q, k, v))
    of_bias = dbias ? Array{Float32}(undef, size(bias)) : nothing
    attention_backward!(dq, dk, dv, q, k, v, out, lse, dout; bias = bias, dbias = of_bias, options...)
    return dbias ? (dq, dk, dv, of_bias) : (dq, dk, dv)
end

"See [`attention_backward`](@ref)."
function attention_backward!(dq, dk, dv, q, k, v, out, lse, dout; bias = nothing, dbias = nothing, options...)
    lk, lq, h, b = score_sizes(q, k, v)
    for (name, x) in (("out", out), ("dout", dout))
        float_dims(name, x, 4, "(Dv, Lq, H, B)")
        size(x) == (size(v, 1), lq, h, b) || wrong_size(name, x, (size(v, 1), lq, h, b))
    end
    check_size("lse", lse, (lq, h, b))
    for (name, x, of) in (("dq", dq, q), ("dk", dk, k), ("dv", dv, v))
        float_dims(name, x, 4, string(size(of)))
        size(x) == size(of) || wrong_size(name, x, size(of))
    end
    check_scores("bias", bias, Float32, (lk, lq, h, b))
    if dbias !== nothing
        bias === nothing && throw(ArgumentError("dbias is given, expected none without a bias"))
        check_size("dbias", dbias, size(bias))
    end
    with_score_options((lk, lq, h, b); bias = bias, options...) do all
        check(LibDGM.dgm_attention_backward(
            Tensor(q), Tensor(k), Tensor(v), Tensor(out), Tensor(lse), Tensor(dout), Ref(all),
            Tensor(dq), Tensor(dk), Tensor(dv), optional(dbias)))
    end
    return dq, dk, dv
end

"""
    attention_pullback(q, k, v; options...) -> out, pullback

[`attention`](@ref), and the function from the gradient of its result to those of `q`, `k` and `v`: what the
extension for ChainRulesCore makes a rule of. A `bias` is a constant to it.
"""
function attention_pullback(q, k, v; options...)
    out, lse = attention(q, k, v; lse = true, options...)
    function pullback(dout)
        dout isa AbstractArray && size(dout) == size(out) ||
            throw(DimensionMismatch("the gradient of attention is $(summary(dout)), expected an array of size $(size(out))"))
        fits = is_strided(dout) && eltype(dout) <: Floats && isconcretetype(eltype(dout))
        return attention_backward(q, k, v, out, lse, fits ? dout : Array{Float32}(dout); options...)
    end
    return out, pullback
end

"`(Lk, Lq, H, B)` of arguments that fit each other."
function score_sizes(q, k, v)
    float_dims("q", q, 4, "(D, Lq, H, B)")
    float_dims("k", k, 4, "(D, Lk, Hkv, B)")
    float_dims("v", v, 4, "(Dv, Lk, Hkv, B)")
    d, lq, h, b = size(q)
    _, lk, hkv, _ = size(k)
    if size(k, 1) != d || size(k, 4) != b || size(v)[2:4] != (lk, hkv, b) || hkv == 0 || h % hkv != 0
        throw(DimensionMismatch(
            "q is (D, Lq, H, B) = $(size(q)), k is $(size(k)), v is $(size(v)): expected k (D, Lk, Hkv, B) and " *
            "v (Dv, Lk, Hkv, B) with the same D, Lk, Hkv and B, and H a multiple of Hkv"))
    end
    return lk, lq, h, b
end

"Calls `f` with all options of a call whose scores are `(Lk, Lq, H, B)`."
function with_score_options(f, full; kv_lengths = nothing, bias = nothing, mask = nothing, options...)
    lk, _, h, b = full
    lengths = key_lengths(kv_lengths, b, lk)
    check_scores("bias", bias, Float32, full)
    check_scores("mask", mask, Bool, full)
    bias_tensor, mask_tensor = optional(bias), optional(mask)
    with_options(h; options...) do defaults
        GC.@preserve lengths bias_tensor mask_tensor begin
            f(with(defaults; kv_lengths = address(lengths), bias = address(bias_tensor), mask = address(mask_tensor)))
        end
    end
end

"""
    attention_varlen(q, k, v, q_offsets, kv_offsets; lse = false, options...)
    attention_varlen!(out, q, k, v, q_offsets, kv_offsets; lse = nothing, options...)

[`attention`](@ref) of sequences of different lengths packed one after the other, each within itself: the
bits are those of one call a sequence.

# Arguments
- `q`: `(D, H, Tq)`, the queries of all sequences; `k`: `(D, Hkv, Tk)`; `v`: `(Dv, Hkv, Tk)`.
- `q_offsets`: as many numbers as sequences and one more, from 0 to `Tq`: sequence `n` has the queries
  `q_offsets[n]+1:q_offsets[n+1]`. `kv_offsets`: the same for keys, from 0 to `Tk`.
- options as for `attention`, without `kv_lengths`, `bias` and `mask`.

Returns `out`, `(Dv, H, Tq)`, or `(out, lse)` with `lse` `(Tq, H)`.

# Examples
```julia
q, k, v = randn(Float32, 16, 4, 5), randn(Float32, 16, 4, 5), randn(Float32, 16, 4, 5)
y = attention_varlen(q, k, v, [0, 2, 5], [0, 2, 5]; causal = true)     # tokens 1:2 and 3:5
```
"""
function attention_varlen(q, k, v, q_offsets, kv_offsets; lse::Bool = false, options...)
    float_dims("q", q, 3, "(D, H, Tq)")
    float_dims("v", v, 3, "(Dv, Hkv, Tk)")
    out = Array{eltype(q)}(undef, size(v, 1), size(q, 2), size(q, 3))
    sums = lse ? Array{Float32}(undef, size(q, 3), size(q, 2)) : nothing
    attention_varlen!(out, q, k, v, q_offsets, kv_offsets; lse = sums, options...)
    return lse ? (out, sums) : out
end

"See [`attention_varlen`](@ref)."
function attention_varlen!(out, q, k, v, q_offsets, kv_offsets; lse = nothing, options...)
    size_out, size_lse = packed_sizes(q, k, v)
    float_dims("out", out, 3, "(Dv, H, Tq)")
    size(out) == size_out || wrong_size("out", out, size_out)
    lse === nothing || check_size("lse", lse, size_lse)
    a, b = packed_offsets(q_offsets, kv_offsets)
    with_options(size(q, 2); options...) do options
        check(LibDGM.dgm_attention_varlen(Tensor(q), Tensor(k), Tensor(v), a, b, length(a) - 1, Ref(options),
                                          Tensor(out), optional(lse)))
    end
    return out
end

"""
    attention_varlen_backward(q, k, v, out, lse, dout, q_offsets, kv_offsets; options...)
    attention_varlen_backward!(dq, dk, dv, q, k, v, out, lse, dout, q_offsets, kv_offsets; options...)

The gradients of [`attention_varlen`](@ref) with respect to `q`, `k` and `v`, with `dout` the one with respect
to its result: the bits are those of one [`attention_backward`](@ref) a sequence.

# Arguments
- `q`, `k`, `v`, `q_offsets`, `kv_offsets` and options: what `attention_varlen` got.
- `out`, `lse`: what it returned with `lse = true`; `dout`: `(Dv, H, Tq)`.

Returns `(dq, dk, dv)`, of the sizes and types of `q`, `k` and `v`.

# Examples
```julia
q, k, v = randn(Float32, 16, 4, 5), randn(Float32, 16, 4, 5), randn(Float32, 16, 4, 5)
y, lse = attention_varlen(q, k, v, [0, 2, 5], [0, 2, 5]; lse = true)
dq, dk, dv = attention_varlen_backward(q, k, v, y, lse, ones(Float32, size(y)), [0, 2, 5], [0, 2, 5])
```
"""
function attention_varlen_backward(q, k, v, out, lse, dout, q_offsets, kv_offsets; options...)
    packed_sizes(q, k, v)
    dq, dk, dv = map(x -> Array{eltype(x)}(undef, size(x)), (q, k, v))
    return attention_varlen_backward!(dq, dk, dv, q, k, v, out, lse, dout, q_offsets, kv_offsets; options...)
end

"See [`attention_varlen_backward`](@ref)."
function attention_varlen_backward!(dq, dk, dv, q, k, v, out, lse, dout, q_offsets, kv_offsets; options...)
    size_out, size_lse = packed_sizes(q, k, v)
    for (name, x) in (("out", out), ("dout", dout))
        float_dims(name, x, 3, "(Dv, H, Tq)")
        size(x) == size_out || wrong_size(name, x, size_out)
    end
    check_size("lse", lse, size_lse)
    for (name, x, of) in (("dq", dq, q), ("dk", dk, k), ("dv", dv, v))
        float_dims(name, x, 3, string(size(of)))
        size(x) == size(of) || wrong_size(name, x, size(of))
    end
    a, b = packed_offsets(q_offsets, kv_offsets)
    with_options(size(q, 2); options...) do options
        check(LibDGM.dgm_attention_varlen_backward(
            Tensor(q), Tensor(k), Tensor(v), Tensor(out), Tensor(lse), Tensor(dout), a, b, length(a) - 1,
            Ref(options), Tensor(dq), Tensor(dk), Tensor(dv)))
    end
    return dq, dk, dv
end

"The sizes of the result and of the log-sum-exps of packed arguments that fit each other."
function packed_sizes(q, k, v)
    float_dims("q", q, 3, "(D, H, Tq)")
    float_dims("k", k, 3, "(D, Hkv, Tk)")
    float_dims("v", v, 3, "(Dv, Hkv, Tk)")
    d, h, tq = size(q)
    _, hkv, tk = size(k)
    if size(k, 1) != d || size(v)[2:3] != (hkv, tk) || hkv == 0 || h % hkv != 0
        throw(DimensionMismatch(
            "q is (D, H, Tq) = $(size(q)), k is $(size(k)), v is $(size(v)): expected k (D, Hkv, Tk) and " *
            "v (Dv, Hkv, Tk) with the same D, Hkv and Tk, and H a multiple of Hkv"))
    end
    return (size(v, 1), h, tq), (tq, h)
end

"Both offsets as the library reads them."
function packed_offsets(q_offsets, kv_offsets)
    a, b = collect(Int64, q_offsets), collect(Int64, kv_offsets)
    length(a) == length(b) >= 1 ||
        throw(DimensionMismatch("kv_offsets has length $(length(b)), q_offsets $(length(a)): expected the same, 1 or more"))
    return a, b
end

"Calls `f` with the options that every kind of attention over `h` heads takes."
function with_options(f, h; scale = nothing, causal::Bool = false, window = (nothing, nothing), soft_cap = nothing,
                      alibi_slopes = nothing, sinks = nothing)
    positive("scale", scale)
    positive("soft_cap", soft_cap)
    left, right = window_limits(window)
    slopes, sink_scores = each_head("alibi_slopes", alibi_slopes, h), each_head("sinks", sinks, h)
    options = default_options(LibDGM.dgm_attention_options_init, LibDGM.dgm_attention_options)
    GC.@preserve slopes sink_scores f(with(
        options; scale = something(scale, 0), causal = causal, window_left = left, window_right = right,
        soft_cap = something(soft_cap, 0), alibi_slopes = address(slopes), sinks = address(sink_scores)))
end

# Where the engine finds an optional argument. The caller keeps it alive.
address(::Nothing) = C_NULL
address(x::Ptr) = x
address(x::Vector) = pointer(x)
address(x::Tensor) = Base.unsafe_convert(Ptr{LibDGM.dgm_tensor}, x)

positive(name, ::Nothing) = nothing
positive(name, x) =
    isfinite(x) && x > 0 ? nothing : throw(ArgumentError("$name is $x, expected a finite number above 0"))

function window_limits(window)
    window isa Tuple{Any,Any} && all(n -> n === nothing || (n isa Integer && n >= 0), window) ||
        throw(ArgumentError("window is $(repr(window)), expected (left, right), each nothing or an integer from 0"))
    return map(n -> n === nothing ? -1 : clamp(n, 0, typemax(Int64)), window)
end

each_head(name, ::Nothing, h) = nothing
function each_head(name, x, h)
    length(x) == h || throw(DimensionMismatch("$name has length $(length(x)), expected H = $h"))
    return collect(Float32, x)
end

check_scores(name, ::Nothing, T, full) = nothing
function check_scores(name, x, T, full)
    ndims(x) == 4 && all(map((n, whole) -> n == whole || n == 1, size(x), full)) ||
        throw(DimensionMismatch("$name has size $(size(x)), expected (Lk, Lq, H, B) = $full, or 1 wherever it repeats"))
    check_array(name, x, T)
end

key_lengths(::Nothing, b, lk) = nothing
function key_lengths(lengths, b, lk)
    length(lengths) == b || throw(DimensionMismatch("kv_lengths has length $(length(lengths)), expected B = $b"))
    all(n -> 0 <= n <= lk, lengths) || throw(ArgumentError("kv_lengths is $lengths, expected 0 to Lk = $lk each"))
    return collect(Int64, lengths)
end
