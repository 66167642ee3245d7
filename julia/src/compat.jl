# The random numbers of PyTorch, NumPy, JAX, Nx and torchsde.

"""
    DGMKernels.CompatRNG

A generator of another system, so that a pipeline's starting noise can be had again without it:

- `DGMKernels.TorchCPU(seed)`: `torch.manual_seed(seed)` and tensors on the CPU
- `DGMKernels.TorchCUDA(seed)`: `torch.randn(..., device="cuda")`, for as many numbers as the device runs threads at once
- `DGMKernels.NumpyPCG64(seed)`: `numpy.random.default_rng(seed)`
- `DGMKernels.NumpyPhilox(seed)`: `numpy.random.Generator(numpy.random.Philox(seed))`
- `DGMKernels.NumpyRandomState(seed)`: `numpy.random.seed(seed)`, `RandomState(seed)`; seeds below 2^32

They are `AbstractRNG`s for `randn`, `randn!`, `rand` and `rand!` of `Float32` and `Float64`, and one call is one
tensor there: `randn(rng, Float32, 4)` twice is not `randn(rng, Float32, 8)` where the other system
makes that difference. A tensor `[B, C, H, W]` is the array `(W, H, C, B)`: the same memory.
`docs/NUMERICS.md` says how near the numbers are. `copy` keeps a place in the stream,
[`DGMKernels.export_rng`](@ref) makes bytes of it.

They make no seeds for this package's own generator: draw the array and pass it as `x`.

# Examples
```julia
using Random
rng = DGMKernels.TorchCPU(0)                       # torch.manual_seed(0)
x = randn(rng, Float32, 8, 8, 1, 4)                # torch.randn(4, 1, 8, 8)
plan = DGMKernels.Plan(process = :flow, prediction = :velocity, steps = 8)
y = DGMKernels.sample([1, 2, 3, 4], (x, t, request) -> x ./ t[1], plan, size(x); x = x)
```
"""
mutable struct CompatRNG{A} <: AbstractRNG
    state::Vector{UInt8}
    CompatRNG{A}(state::Vector{UInt8}, ::Val{:state}) where {A} = new{A}(state)
end

function CompatRNG{A}(seed::Integer) where {A}
    state = zeros(UInt8, LibDGM.DGM_COMPAT_STATE_SIZE)
    algorithm = Dict(values_of_compat())[A]
    check(LibDGM.dgm_compat_seed(algorithm, seed % UInt64, state, length(state)))
    return CompatRNG{A}(state, Val(:state))
end

values_of_compat() = (
    :TorchCPU => LibDGM.DGM_COMPAT_TORCH_CPU, :TorchCUDA => LibDGM.DGM_COMPAT_TORCH_CUDA,
    :NumpyPCG64 => LibDGM.DGM_COMPAT_NUMPY_PCG64, :NumpyPhilox => LibDGM.DGM_COMPAT_NUMPY_PHILOX,
    :NumpyRandomState => LibDGM.DGM_COMPAT_NUMPY_RANDOM_STATE)

"See [`DGMKernels.CompatRNG`](@ref)."
const TorchCPU = CompatRNG{:TorchCPU}
"See [`DGMKernels.CompatRNG`](@ref)."
const TorchCUDA = CompatRNG{:TorchCUDA}
"See [`DGMKernels.CompatRNG`](@ref)."
const NumpyPCG64 = CompatRNG{:NumpyPCG64}
"See [`DGMKernels.CompatRNG`](@ref)."
const NumpyPhilox = CompatRNG{:NumpyPhilox}
"See [`DGMKernels.CompatRNG`](@ref)."
const NumpyRandomState = CompatRNG{:NumpyRandomState}

Base.copy(rng::CompatRNG{A}) where {A} = CompatRNG{A}(copy(rng.state), Val(:state))
Base.:(==)(a::CompatRNG{A}, b::CompatRNG{A}) where {A} = a.state == b.state
Base.hash(rng::CompatRNG{A}, h::UInt) where {A} = hash(rng.state, hash(A, h))
Base.show(io::IO, ::CompatRNG{A}) where {A} = print(io, "DGMKernels.", A, "(…)")
Random.seed!(rng::CompatRNG{A}, seed::Integer) where {A} = (copyto!(rng.state, CompatRNG{A}(seed).state); rng)

"""
    DGMKernels.export_rng(rng) -> Vector{UInt8}
    DGMKernels.import_rng(bytes) -> CompatRNG

A generator of another system as bytes, checksummed and the same on every machine and in every language, and
back. Bytes that are no such state are a `DGMError`.
"""
export_rng(rng::CompatRNG) = copy(rng.state)

"See [`DGMKernels.export_rng`](@ref)."
function import_rng(bytes::AbstractVector{UInt8})
    state = Vector{UInt8}(bytes)
    length(state) == LibDGM.DGM_COMPAT_STATE_SIZE || throw(DimensionMismatch(
        "bytes has length $(length(state)), expected $(LibDGM.DGM_COMPAT_STATE_SIZE)"))
    # The draw of nothing checks the state.
    check(LibDGM.dgm_compat_normal(copy(state), length(state), Tensor(Float32[])))
    number = state[7] + 256 * Int(state[8])
    name = first(only(p for p in values_of_compat() if last(p) == number))
    return CompatRNG{name}(state, Val(:state))
end

function fill_compat!(f, rng, out)
    is_strided(out) || not_strided("out", out)
    is_dense(out) || throw(ArgumentError("out is a $(typeof(out)), expected contiguous elements"))
    check(f(rng.state, length(rng.state), Tensor(vec_of(out)...)))
    return out
end
vec_of(out) = (out, (length(out),), (1,))

# One method a type and kind of array, so that none of Random's own is as specific.
for T in (Float32, Float64)
    unit = Random.SamplerTrivial{Random.CloseOpen01{T}}
    for A in (AbstractArray{T}, Array{T})
        @eval Random.randn!(rng::CompatRNG, out::$A) = fill_compat!(LibDGM.dgm_compat_normal, rng, out)
        @eval Random.rand!(rng::CompatRNG, out::$A, ::$unit) = fill_compat!(LibDGM.dgm_compat_uniform, rng, out)
    end
    @eval Base.randn(rng::CompatRNG, ::Type{$T}) = only(Random.randn!(rng, Vector{$T}(undef, 1)))
    @eval Base.rand(rng::CompatRNG, sampler::$unit) = only(Random.rand!(rng, Vector{$T}(undef, 1), sampler))
end
Base.randn(rng::CompatRNG) = randn(rng, Float64)

row_seeds(rng::CompatRNG, n::Integer) = throw(ArgumentError(
    "the source of randomness is $rng, which draws floats only; pass x = randn(rng, Float32, dims...) and seeds of this package"))

"""
    DGMKernels.brownian!(seeds, out, (t0, t1), (ta, tb); normalized = true) -> out

Fill `out`, `(..., B)`, with the noise of torchsde's Brownian tree on `t0` to `t1` between the times `ta` and `tb`, a
path a seed: what `BrownianTreeNoiseSampler` of k-diffusion returns for a list of seeds. For a batch
with a single seed there, `reshape` the batch to one item here. With `normalized = false` it is the
increment `W(tb) - W(ta)` itself.

# Examples
```julia
noise = DGMKernels.brownian!([3], zeros(Float32, 8, 8, 4, 1), (0.03, 14.6), (5.0, 0.7))
```
"""
function brownian!(seeds, out, ends, between; normalized::Bool = true)
    check_array("out", out)
    ndims(out) >= 1 || wrong_size("out", out, "(..., B)")
    is_dense(out) || throw(ArgumentError("out is a $(typeof(out)), expected contiguous elements"))
    rows = size(out, ndims(out))
    elements = prod(Base.front(size(out)))
    seeds = seeds_of(seeds isa Integer ? [seeds % UInt64] : seeds, rows)
    tensor = Tensor(out, (elements, rows), (1, max(elements, 1)))
    check(LibDGM.dgm_compat_brownian(seeds, rows, ends[1], ends[2], between[1], between[2], UInt32(normalized), tensor))
    return out
end

# Which counter gives which number.
const JAX_LAYOUTS = (partitionable = LibDGM.DGM_COMPAT_JAX_PARTITIONABLE, original = LibDGM.DGM_COMPAT_JAX_ORIGINAL,
                     nx = LibDGM.DGM_COMPAT_NX)
jax_layout(layout) = UInt32(choice("layout", layout, JAX_LAYOUTS))
jax_words(key) = length(key) == 2 ? convert(Vector{UInt32}, collect(key)) :
    throw(DimensionMismatch("key has length $(length(key)), expected 2"))

"""
    DGMKernels.jax_key(seed) -> Vector{UInt32}
    DGMKernels.jax_fold_in(key, data) -> Vector{UInt32}
    DGMKernels.jax_split(key, n = 2; layout = :partitionable) -> Matrix{UInt32}
    DGMKernels.jax_normal!(key, out; layout = :partitionable) -> out
    DGMKernels.jax_uniform!(key, out; layout = :partitionable) -> out

The random numbers of JAX and of Elixir's `Nx.Random`: `PRNGKey`, `fold_in`, `split` (a key a column), `normal`
and `uniform` in `Float32`. `layout` is `:partitionable` for JAX with `jax_threefry_partitionable` (its default),
`:original` for JAX without, `:nx` for `Nx.Random`. A shape `(B, H, W)` there is an array `(W, H, B)` here.

# Examples
```julia
key = DGMKernels.jax_key(42)
noise = DGMKernels.jax_normal!(key, zeros(Float32, 8, 8, 4))
```
"""
function jax_key(seed::Integer)
    key = zeros(UInt32, 2)
    check(LibDGM.dgm_compat_jax_key(seed % UInt64, key))
    return key
end

"See [`DGMKernels.jax_key`](@ref)."
function jax_fold_in(key, data::Integer)
    out = zeros(UInt32, 2)
    check(LibDGM.dgm_compat_jax_fold_in(jax_words(key), data % UInt32, out))
    return out
end

"See [`DGMKernels.jax_key`](@ref)."
function jax_split(key, n::Integer = 2; layout = :partitionable)
    n >= 0 || throw(ArgumentError("n is $n, expected 0 or more"))
    out = zeros(UInt32, 2, n)
    check(LibDGM.dgm_compat_jax_split(jax_words(key), jax_layout(layout), n, out))
    return out
end

"See [`DGMKernels.jax_key`](@ref)."
jax_normal!(key, out; layout = :partitionable) = fill_jax!(LibDGM.dgm_compat_jax_normal, key, out, layout)
"See [`DGMKernels.jax_key`](@ref)."
jax_uniform!(key, out; layout = :partitionable) = fill_jax!(LibDGM.dgm_compat_jax_uniform, key, out, layout)

function fill_jax!(f, key, out, layout)
    check_array("out", out)
    is_dense(out) || throw(ArgumentError("out is a $(typeof(out)), expected contiguous elements"))
    check(f(jax_words(key), jax_layout(layout), Tensor(vec_of(out)...)))
    return out
end
