"""
    DGMKernels.KVCache(k, v, lengths; k_scale = nothing, v_scale = nothing, block_table = nothing)

A cache of keys and values in arrays of yours, which [`attention_paged`](@ref) reads and
[`cache_append!`](@ref) fills.

# Arguments
- `k`: `(D, T, Hkv, P)`, `v`: `(Dv, T, Hkv, P)`: `P` pages of `T` tokens, both `Float32`, `Float16`,
  [`DGMKernels.BF16`](@ref) or `Int8`. Any strides that keep the numbers of a token side by side: memory
  `(D, Hkv, T, P)` is `PermutedDimsArray(x, (1, 3, 2, 4))`.
- `lengths`: a `Vector{Int64}` with how many tokens each of the `B` batch items has.
- `k_scale`, `v_scale`: `Float32` `(T, Hkv, P)`, what multiplies the numbers of a token; for `Int8` only.
- `block_table`: `Int32` `(M, B)`: token `j` (from 0) of item `b` lies in page `block_table[j ÷ T + 1, b]`,
  counted from 0 as in every other language; entries behind the last token are not read. Without it page `b`
  holds all tokens of item `b`.

# Examples
```julia
k, v = zeros(Float32, 64, 16, 2, 10), zeros(Float32, 64, 16, 2, 10)      # 10 pages of 16 tokens, 2 heads
cache = DGMKernels.KVCache(k, v, [0]; block_table = Int32[3; 1; 7][:, :])
cache_append!(cache, randn(Float32, 64, 20, 2, 1), randn(Float32, 64, 20, 2, 1))
y = attention_paged(randn(Float32, 64, 1, 8, 1), cache)                   # (64, 1, 8, 1)
```
"""
struct KVCache{K,V,S,T}
    k::K
    v::V
    k_scale::S
    v_scale::S
    block_table::T
    lengths::Vector{Int64}
    function KVCache(k, v, lengths; k_scale = nothing, v_scale = nothing, block_table = nothing)
        stored_dims("k", k, "(D, T, Hkv, P)")
        stored_dims("v", v, "(Dv, T, Hkv, P)")
        eltype(v) === eltype(k) || wrong_type("v", v, eltype(k))
        size(v)[2:4] == size(k)[2:4] || wrong_size("v", v, (size(v, 1), size(k)[2:4]...))
        for (name, scale) in (("k_scale", k_scale), ("v_scale", v_scale))
            (scale === nothing) == (eltype(k) !== Int8) ||
                throw(ArgumentError("$name is $(scale === nothing ? "nothing" : "given"), expected " *
                                    (eltype(k) === Int8 ? "the scales of an Int8 cache" : "nothing for a cache of $(eltype(k))")))
            scale === nothing || check_size(name, scale, size(k)[2:4])
        end
        if block_table !== nothing
            ndims(block_table) == 2 || wrong_size("block_table", block_table, "(M, B)")
            check_array("block_table", block_table, Int32)
        end
        lengths isa Vector{Int64} ||
            throw(ArgumentError("lengths is a $(typeof(lengths)), expected a Vector{Int64}, which appending changes"))
        batch = block_table === nothing ? size(k, 4) : size(block_table, 2)
        length(lengths) == batch ||
            throw(DimensionMismatch("lengths has length $(length(lengths)), expected B = $batch"))
        scales = k_scale === nothing ? (nothing, nothing) : (k_scale, v_scale)
        S = Union{typeof(scales[1]),typeof(scales[2])}
        return new{typeof(k),typeof(v),S,typeof(block_table)}(k, v, scales..., block_table, lengths)
    end
end

Base.show(io::IO, c::KVCache) = print(
    io, "KVCache{$(eltype(c.k))}($(size(c.k, 4)) pages of $(size(c.k, 2)) tokens, $(size(c.k, 3)) heads, lengths $(c.lengths))")

function stored_dims(name, x, expected)
    ndims(x) == 4 || wrong_size(name, x, expected)
    eltype(x) === Int8 || eltype(x) <: Floats && isconcretetype(eltype(x)) ||
        wrong_type(name, x, "Float32, Float16, DGMKernels.BF16 or Int8")
    return check_array(name, x, eltype(x))
end

"Calls `f` with the cache as the C interface wants it."
function with_cache(f, c::KVCache)
    tensors = (Tensor(c.k), Tensor(c.v), optional(c.k_scale), optional(c.v_scale), optional(c.block_table))
    cache = default_options(LibDGM.dgm_kv_cache_init, LibDGM.dgm_kv_cache)
    lengths = c.lengths
    return GC.@preserve tensors lengths f(Ref(with(
        cache; k = address(tensors[1]), v = address(tensors[2]), k_scale = address(tensors[3]),
        v_scale = address(tensors[4]), block_table = address(tensors[5]), lengths = pointer(lengths))))
end

"""
    attention_paged(q, cache; lse = false, options...)
    attention_paged!(out, q, cache; lse = nothing, options...)

[`attention`](@ref) of new queries `(D, Lq, H, B)`, the last `Lq` tokens of each batch item, against a
[`DGMKernels.KVCache`](@ref) that already holds their keys and values.

Options are those of `attention` but `kv_lengths`; `bias` and `mask` have `M * T` keys. The bits are those
of `attention` with the same keys and values side by side, whatever the page size. With an `Int8` cache a
score is multiplied by its key's scale before anything else happens to it, and a probability by its value's
scale before it meets the value.

Returns `out`, `(Dv, Lq, H, B)`, or `(out, lse)`.
"""
function attention_paged(q, cache::KVCache; lse::Bool = false, options...)
    float_dims("q", q, 4, "(D, Lq, H, B)")
    out = Array{eltype(q)}(undef, size(cache.v, 1), size(q, 2), size(q, 3), size(q, 4))
    sums = lse ? Array{Float32}(undef, size(q, 2), size(q, 3), size(q, 4)) : nothing
    attention_paged!(out, q, cache; lse = sums, options...)
    return lse ? (out, sums) : out
end

"See [`attention_paged`](@ref)."
function attention_paged!(out, q, cache::KVCache; bias = nothing, mask = nothing, lse = nothing, options...)
    float_dims("q", q, 4, "(D, Lq, H, B)")
    d, lq, h, b = size(q)
    hkv, batch = size(cache.k, 3), length(cache.lengths)
    if d != size(cache.k, 1) || b != batch || hkv == 0 || h % hkv != 0
        throw(DimensionMismatch("q is (D, Lq, H, B) = $(size(q)), k is (D, T, Hkv, P) = $(size(cache.k)): expected the same D, " *
                                "H a multiple of Hkv, and B = $batch, the lengths of the cache"))
    end
    float_dims("out", out, 4, "(Dv, Lq, H, B)")
    size(out) == (size(cache.v, 1), lq, h, b) || wrong_size("out", out, (size(cache.v, 1), lq, h, b))
    lse === nothing || check_size("lse", lse, (lq, h, b))
    keys = size(cache.k, 2) * (cache.block_table === nothing ? 1 : size(cache.block_table, 1))
    check_scores("bias", bias, Float32, (keys, lq, h, b))
    check_scores("mask", mask, Bool, (keys, lq, h, b))
    bias_tensor, mask_tensor = optional(bias), optional(mask)
    with_options(h; options...) do defaults
        GC.@preserve bias_tensor mask_tensor with_cache(cache) do c
            all = with(defaults; bias = address(bias_tensor), mask = address(mask_tensor))
            check(LibDGM.dgm_attention_paged(Tensor(q), c, Ref(all), Tensor(out), optional(lse)))
        end
    end
    return out
end

"""
    DGMKernels.Rope(cos, sin; interleaved = false)
    DGMKernels.Rope(positions, r; theta = 10_000, first = 0, interleaved = false)

Tables of a rotary embedding (Su et al. 2021, arXiv:2104.09864), `Float32` `(r ÷ 2, positions)`: your own, or those of
the angles `p * theta^(-i / (r ÷ 2))` for `positions` positions from `first`. The first `r` numbers of a head
are turned, the others stay. Pairs are `(i, i + r ÷ 2)`, or neighbours when `interleaved`.

# Examples
```julia
tables = DGMKernels.Rope(4096, 64)
q = DGMKernels.rope(randn(Float32, 64, 1, 8, 1), [20], tables)       # one query at position 20
```
"""
struct Rope{C,S}
    cos::C
    sin::S
    interleaved::Bool
    function Rope(cos::AbstractArray, sin::AbstractArray; interleaved::Bool = false)
        check_dims("cos", cos, 2, "(R ÷ 2, positions)")
        check_size("sin", sin, size(cos))
        return new{typeof(cos),typeof(sin)}(cos, sin, interleaved)
    end
end

function Rope(positions::Integer, r::Integer; theta = 10_000, first::Integer = 0, interleaved::Bool = false)
    positions >= 0 || throw(ArgumentError("positions is $positions, expected an integer from 0"))
    r >= 0 && iseven(r) || throw(ArgumentError("r is $r, expected an even integer from 0"))
    first >= 0 || throw(ArgumentError("first is $first, expected an integer from 0"))
    positive("theta", theta)
    cos, sin = Array{Float32}(undef, r ÷ 2, positions), Array{Float32}(undef, r ÷ 2, positions)
    check(LibDGM.dgm_rope_tables(first, theta, Tensor(cos), Tensor(sin)))
    return Rope(cos, sin; interleaved = interleaved)
end

"""
    DGMKernels.Rope(positions, dims::Tuple; theta = 10_000, interleaved = false)

Tables of tokens with several coordinates, `Float32` `positions` `(axes, tokens)`: `dims[a]` numbers of a head,
even, are turned by coordinate `a`, one axis after the other. Token `n` has column `n` of the tables, so
[`DGMKernels.rope`](@ref) takes `first` 0. Images have two axes, video three; Flux has `dims` `(16, 56, 56)` and
`interleaved = true`.

# Examples
```julia
places = Float32[a == 1 ? (n - 1) ÷ 4 : (n - 1) % 4 for a in 1:2, n in 1:16]     # a grid of 4 x 4
tables = DGMKernels.Rope(places, (8, 8))
```
"""
function Rope(positions::AbstractArray, dims::Tuple{Vararg{Integer}}; theta = 10_000, interleaved::Bool = false)
    check_dims("positions", positions, 2, "(axes, tokens)")
    length(dims) == size(positions, 1) ||
        throw(DimensionMismatch("dims has length $(length(dims)), expected that of the axes, $(size(positions, 1))"))
    all(d -> d >= 0 && iseven(d), dims) || throw(ArgumentError("dims is $dims, expected even integers from 0"))
    positive("theta", theta)
    cos, sin = ntuple(_ -> Array{Float32}(undef, sum(dims) ÷ 2, size(positions, 2)), 2)
    numbers = collect(Int64, dims)
    check(LibDGM.dgm_rope_axial_tables(Tensor(positions), numbers, theta, Tensor(cos), Tensor(sin)))
    return Rope(cos, sin; interleaved = interleaved)
end

Base.show(io::IO, r::Rope) = print(io, "Rope($(2 * size(r.cos, 1)) numbers of $(size(r.cos, 2)) positions)")

with_rope(f, ::Nothing) = f(C_NULL)
function with_rope(f, r::Rope)
    cos, sin = Tensor(r.cos), Tensor(r.sin)
    options = default_options(LibDGM.dgm_rope_options_init, LibDGM.dgm_rope_options)
    return GC.@preserve cos sin f(Ref(with(
        options; cos = address(cos), sin = address(sin), interleaved = Int32(r.interleaved))))
end

"""
    DGMKernels.rope(x, first, tables)
    DGMKernels.rope!(out, x, first, tables)

Turns queries or keys `(D, L, H, B)` by their positions: token `i` (from 0) of batch item `b` stands at
position `first[b] + i`. See [`DGMKernels.Rope`](@ref).
"""
function rope(x, first, tables::Rope)
    float_dims("x", x, 4, "(D, L, H, B)")
    return rope!(Array{eltype(x)}(undef, size(x)), x, first, tables)
end

"See [`DGMKernels.rope`](@ref)."
function rope!(out, x, first, tables::Rope)
    float_dims("x", x, 4, "(D, L, H, B)")
    float_dims("out", out, 4, "(D, L, H, B)")
    size(out) == size(x) || wrong_size("out", out, size(x))
    length(first) == size(x, 4) ||
        throw(DimensionMismatch("first has length $(length(first)), expected B = $(size(x, 4))"))
    positions = collect(Int64, first)
    with_rope(tables) do t
        check(LibDGM.dgm_rope(Tensor(x), positions, t, Tensor(out)))
    end
    return out
end

"""
    cache_append!(cache, k, v; counts = nothing, rope = nothing)

Appends new keys `(D, N, Hkv, B)` and values `(Dv, N, Hkv, B)` to a [`DGMKernels.KVCache`](@ref) and adds
them to its `lengths`.

`counts` says how many of the `N` belong to each batch item, all unless given. With `rope`, a
[`DGMKernels.Rope`](@ref), a key is turned by its position, the number of tokens before it. A number is
rounded once, to the cache's type; a token of an `Int8` cache has `scale = max |x| / 127` a head. Two batch
items may not write to one page: [`cache_fork!`](@ref) it first. On error nothing is changed.
"""
function cache_append!(cache::KVCache, k, v; counts = nothing, rope = nothing)
    float_dims("k", k, 4, "(D, N, Hkv, B)")
    float_dims("v", v, 4, "(Dv, N, Hkv, B)")
    n, hkv, batch = size(k, 2), size(cache.k, 3), length(cache.lengths)
    size(k) == (size(cache.k, 1), n, hkv, batch) || wrong_size("k", k, (size(cache.k, 1), "N", hkv, batch))
    size(v) == (size(cache.v, 1), n, hkv, batch) || wrong_size("v", v, (size(cache.v, 1), n, hkv, batch))
    rope === nothing || rope isa Rope || throw(ArgumentError("rope is a $(typeof(rope)), expected a DGMKernels.Rope"))
    counts === nothing || length(counts) == batch ||
        throw(DimensionMismatch("counts has length $(length(counts)), expected B = $batch"))
    numbers = counts === nothing ? C_NULL : collect(Int64, counts)
    with_cache(cache) do c
        with_rope(rope) do r
            check(LibDGM.dgm_kv_cache_append(Tensor(k), Tensor(v), numbers, r, c))
        end
    end
    return cache
end

"""
    cache_fork!(cache, from, to)

Copies page `from` to page `to` (both from 0, as in the block table), scales included: what a sequence
needs before it appends to a page that others share.
"""
function cache_fork!(cache::KVCache, from::Integer, to::Integer)
    with_cache(cache) do c
        check(LibDGM.dgm_kv_cache_fork(c, from, to))
    end
    return cache
end

"""
    cache_truncate!(cache, keep)

Drops tokens from the end: batch item `b` keeps the first `keep[b]`.
"""
function cache_truncate!(cache::KVCache, keep)
    length(keep) == length(cache.lengths) ||
        throw(DimensionMismatch("keep has length $(length(keep)), expected B = $(length(cache.lengths))"))
    check(LibDGM.dgm_kv_cache_truncate(cache.lengths, collect(Int64, keep), length(keep)))
    return cache
end

"""
    attention_merge(out1, lse1, out2, lse2)
    attention_merge!(out, lse, out1, lse1, out2, lse2)

Joins the results `(Dv, Lq, H, B)` and log-sum-exps `(Lq, H, B)` of the same queries over two sets of
keys, as if all keys had been seen at once; returns `(out, lse)`. The bits are not those of one call.
"""
function attention_merge(out1, lse1, out2, lse2)
    float_dims("out1", out1, 4, "(Dv, Lq, H, B)")
    return attention_merge!(Array{eltype(out1)}(undef, size(out1)), Array{Float32}(undef, size(out1)[2:4]),
                            out1, lse1, out2, lse2)
end

"See [`attention_merge`](@ref)."
function attention_merge!(out, lse, out1, lse1, out2, lse2)
    float_dims("out1", out1, 4, "(Dv, Lq, H, B)")
    for (name, x) in (("out2", out2), ("out", out))
        float_dims(name, x, 4, "(Dv, Lq, H, B)")
        size(x) == size(out1) || wrong_size(name, x, size(out1))
    end
    foreach(((name, x),) -> check_size(name, x, size(out1)[2:4]), (("lse1", lse1), ("lse2", lse2), ("lse", lse)))
    check(LibDGM.dgm_attention_merge(Tensor(out1), Tensor(lse1), Tensor(out2), Tensor(lse2), Tensor(out), Tensor(lse)))
    return out, lse
end
