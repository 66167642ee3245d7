# What a stream of random numbers is for; streams with different purposes never meet.
const PURPOSES = enumeration("DGM_PURPOSE_")

purpose_number(p::Integer) = UInt32(p)
purpose_number(p) = UInt32(choice("purpose", p, PURPOSES))

"""
    row_seeds(seed, n) -> Vector{UInt64}
    row_seeds(rng::AbstractRNG, n)

The seeds of `n` rows of a batch, from one seed or from one draw of `rng`. What row `r` samples is a
function of its own seed alone, so a row is the same in any batch, in any language.

# Examples
```julia
seeds = row_seeds(7, 64)
```
"""
row_seeds(rng::AbstractRNG, n::Integer) = row_seeds(rand(rng, UInt64), n)
function row_seeds(seed::Integer, n::Integer)
    n >= 0 || throw(ArgumentError("n is $n, expected 0 or more"))
    seeds = Vector{UInt64}(undef, n)
    check(LibDGM.dgm_row_seeds(seed % UInt64, n, seeds))
    return seeds
end

"The seeds of the rows of a batch: given, or drawn from a generator, or from a number."
seeds_of(seeds::AbstractVector{<:Integer}, rows) =
    length(seeds) == rows ? convert(Vector{UInt64}, seeds) :
    throw(DimensionMismatch("seeds has length $(length(seeds)), expected the batch size $rows"))
seeds_of(source::Union{AbstractRNG,Integer}, rows) = row_seeds(source, rows)
seeds_of(other, rows) =
    throw(ArgumentError("the source of randomness is a $(typeof(other)), expected an AbstractRNG, a seed, or a vector of seeds"))

"""
    DGMKernels.normal!([rng], out; purpose = :user, draw = 0)
    DGMKernels.uniform!([rng], out; purpose = :user, draw = 0)

Fill `out`, `(..., B)`, with standard normal numbers, or numbers between 0 and 1 exclusively.
The last dimension is the batch. The first argument is an `AbstractRNG`, of which one number is drawn,
one seed, or one seed a row; `row_seeds` says how a seed becomes those of the rows.
`purpose` (one of $(join(keys(PURPOSES), ", ")), or a number) and `draw` choose independent streams.
Method: Philox4x32-10, Salmon et al. 2011, doi:10.1145/2063384.2063405.

# Examples
```julia
noise = DGMKernels.normal!(MersenneTwister(1), Array{Float32}(undef, 8, 8, 1, 4))
same = DGMKernels.normal!([11, 12, 13, 14], similar(noise); purpose = :initial)
```
"""
normal!(source, out; purpose = :user, draw = 0) = fill_random!(LibDGM.dgm_random_normal, source, out, purpose, draw)
normal!(out; options...) = normal!(Random.default_rng(), out; options...)

"See [`DGMKernels.normal!`](@ref)."
uniform!(source, out; purpose = :user, draw = 0) = fill_random!(LibDGM.dgm_random_uniform, source, out, purpose, draw)
uniform!(out; options...) = uniform!(Random.default_rng(), out; options...)

function fill_random!(f, source, out, purpose, draw)
    check_array("out", out)
    ndims(out) >= 1 || wrong_size("out", out, "(..., B)")
    rows = size(out, ndims(out))
    steps = element_strides(out)
    # One row is a flat list of elements for the engine.
    row = CartesianIndices(Base.front(size(out)))
    is_dense(selectdim(out, ndims(out), 1:min(rows, 1))) ||
        throw(ArgumentError("out is a $(typeof(out)), expected each item of the last dimension to be contiguous"))
    seeds = seeds_of(source, rows)
    tensor = Tensor(out, (length(row), rows), (1, rows > 1 ? last(steps) : max(length(row), 1)))
    check(f(seeds, rows, purpose_number(purpose), UInt32(draw), tensor))
    return out
end

"""
    DGMKernels.categorical([rng], logits; purpose = :user, draw = 0) -> Vector{Int}

For each column of `logits`, `(V, B)`, an index from 1 to `V`, drawn with the probabilities
`softmax(logits)`. `-Inf` excludes an index. Randomness as in [`DGMKernels.normal!`](@ref).

# Examples
```julia
i = DGMKernels.categorical(MersenneTwister(1), log.(Float32[0.5 0; 0.5 1]))
```
"""
function categorical(source, logits; purpose = :user, draw = 0)
    check_dims("logits", logits, 2, "(V, B)")
    rows = size(logits, 2)
    seeds = seeds_of(source, rows)
    out = Vector{Int64}(undef, rows)
    check(LibDGM.dgm_random_categorical(
        Tensor(logits), seeds, rows, purpose_number(purpose), UInt32(draw), out))
    return out .+ 1
end
categorical(logits::AbstractMatrix; options...) = categorical(Random.default_rng(), logits; options...)
