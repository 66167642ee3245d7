"""
    attention(q, k, v; scale = nothing, causal = false, kv_lengths = nothing, lse = false)
    attention!(out, q, k, v; scale = nothing, causal = false, kv_lengths = nothing, lse = nothing)

Fused scaled dot-product attention, `softmax(scale * qᵀk) v` for every head, without ever holding
the matrix of scores.

# Arguments
- `q`: `(D, Lq, H, B)`, queries.
- `k`: `(D, Lk, Hkv, B)`, keys; `H` is a multiple of `Hkv`, consecutive query heads share a key head.
- `v`: `(Dv, Lk, Hkv, B)`, values.
- `scale`: `1/√D` unless given.
- `causal`: query `i` sees keys up to `i + Lk - Lq`, so that the last query sees all.
- `kv_lengths`: `B` integers; keys from `kv_lengths[b]` on do not exist for batch item `b`.
- `lse`: `true` also returns the natural logarithm of each row's softmax denominator, `(Lq, H, B)`;
  `attention!` takes the array to fill.

Returns `out`, `(Dv, Lq, H, B)`, or `(out, lse)`. A query without any key gives 0 and `-Inf`.
Arrays are `Float32` with any strides, so heads between `D` and `L` are
`PermutedDimsArray(x, (1, 3, 2, 4))`. The result has the same bits for any number of threads.

# Examples
```julia
q, k, v = randn(Float32, 64, 10, 8, 2), randn(Float32, 64, 20, 2, 2), randn(Float32, 64, 20, 2, 2)
y = attention(q, k, v; causal = true)          # (64, 10, 8, 2)
y, lse = attention(q, k, v; lse = true)
```
Method: Dao et al. 2022, arXiv:2205.14135; the order of every sum is fixed.
"""
function attention(q, k, v; scale = nothing, causal::Bool = false, kv_lengths = nothing, lse::Bool = false)
    check_dims("q", q, 4, "(D, Lq, H, B)")
    check_dims("v", v, 4, "(Dv, Lk, Hkv, B)")
    out = Array{Float32}(undef, size(v, 1), size(q, 2), size(q, 3), size(q, 4))
    sums = lse ? Array{Float32}(undef, size(q, 2), size(q, 3), size(q, 4)) : nothing
    attention!(out, q, k, v; scale = scale, causal = causal, kv_lengths = kv_lengths, lse = sums)
    return lse ? (out, sums) : out
end

"See [`attention`](@ref)."
function attention!(out, q, k, v; scale = nothing, causal::Bool = false, kv_lengths = nothing, lse = nothing)
    check_dims("q", q, 4, "(D, Lq, H, B)")
    check_dims("k", k, 4, "(D, Lk, Hkv, B)")
    check_dims("v", v, 4, "(Dv, Lk, Hkv, B)")
    d, lq, h, b = size(q)
    _, lk, hkv, _ = size(k)
    if size(k, 1) != d || size(k, 4) != b || size(v)[2:4] != (lk, hkv, b) || hkv == 0 || h % hkv != 0
        throw(DimensionMismatch(
            "q is (D, Lq, H, B) = $(size(q)), k is $(size(k)), v is $(size(v)): expected k (D, Lk, Hkv, B) and " *
            "v (Dv, Lk, Hkv, B) with the same D, Lk, Hkv and B, and H a multiple of Hkv"))
    end
    check_size("out", out, (size(v, 1), lq, h, b))
    lse === nothing || check_size("lse", lse, (lq, h, b))
    scale === nothing || (isfinite(scale) && scale > 0) ||
        throw(ArgumentError("scale is $scale, expected a finite number above 0"))
    lengths = key_lengths(kv_lengths, b, lk)
    options = default_options(LibDGM.dgm_attention_options_init, LibDGM.dgm_attention_options)
    GC.@preserve lengths begin
        options = with(options; scale = something(scale, 0), causal = causal,
                         kv_lengths = lengths === nothing ? C_NULL : pointer(lengths))
        check(LibDGM.dgm_attention(Tensor(q), Tensor(k), Tensor(v), Ref(options), Tensor(out), optional(lse)))
    end
    return out
end

key_lengths(::Nothing, b, lk) = nothing
function key_lengths(lengths, b, lk)
    length(lengths) == b || throw(DimensionMismatch("kv_lengths has length $(length(lengths)), expected B = $b"))
    all(n -> 0 <= n <= lk, lengths) || throw(ArgumentError("kv_lengths is $lengths, expected 0 to Lk = $lk each"))
    return collect(Int64, lengths)
end
