# Markov chains: what they accepted, their steps, how well they have mixed.

"""
    DGMKernels.accepted(run) -> Vector{UInt64}

Proposals that every chain of `:mala` or `:hmc` has accepted since the warmup.

# Examples
```julia
plan = DGMKernels.Plan(process = :target, prediction = :score, solver = :hmc, steps = 500, warmup = 250)
run = DGMKernels.start(1, plan, (2, 100))
model(x, t, request) = (-x, vec(-sum(abs2, x; dims = 1) ./ 2))     # gradient and log density of a normal
DGMKernels.sample!(run, model)
DGMKernels.accepted(run) ./ 250
```
"""
function accepted(run::Run)
    out = Vector{UInt64}(undef, last(run.dims))
    check(LibDGM.dgm_run_accepted(run.plan.handle, run.header, length(run.header), out, length(out)))
    return out
end

"""
    DGMKernels.step_sizes(run) -> Vector{Float64}

The step size of every chain: h of `:mala`, the leapfrog step of `:hmc`.
"""
function step_sizes(run::Run)
    out = Vector{Float64}(undef, last(run.dims))
    check(LibDGM.dgm_run_step_sizes(run.plan.handle, run.header, length(run.header), out, length(out)))
    return out
end

"""
    DGMKernels.split_r_hat(draws) -> Float64

Split R-hat of `draws`, a matrix with a chain in every column: the ratio of the deviation over all halves of
chains to that within them; 1 where they agree, `NaN` where nothing moves.
"""
split_r_hat(draws::AbstractMatrix{<:Real}) = diagnose(LibDGM.dgm_split_r_hat, draws)

"""
    DGMKernels.effective_sample_size(draws) -> Float64

Effective number of independent draws of chains in the columns of `draws` (Geyer 1992).
"""
effective_sample_size(draws::AbstractMatrix{<:Real}) = diagnose(LibDGM.dgm_effective_sample_size, draws)

function diagnose(f, draws)
    numbers, out = collect(Float64, draws), Ref{Float64}()
    check(f(numbers, length(numbers), size(draws, 2), out))
    return out[]
end

"""
    DGMKernels.replica_exchange!([rng], x, log_density; inverse_temperatures, step) -> Matrix{Bool}

One round of exchanges of parallel tempering between chains of any kind. Items `t` and `t + 1` of a ladder change places
with the probability `min(1, exp((beta[t] - beta[t + 1]) * (l[t + 1] - l[t])))`; at an even `step` the pairs (1, 2),
(3, 4), ... are tried, at an odd one (2, 3), (4, 5), ...

- `x`: `(..., T * ladders)`, the last dimension is that of the chains; changed in place.
- `log_density`: `ln p` of every item at inverse temperature 1, up to a constant, finite or `-Inf`; a
  `Vector{Float64}` that is changed in place.
- `inverse_temperatures`: the `T` of every ladder, not negative.
- the first argument is an `AbstractRNG`, a seed, or one seed an item: a pair is decided by the seed of its first item and
  the step.

Which pairs have changed places is the answer, `(T - 1, ladders)`.

# Examples
```julia
x, log_density = Float32[1 2], [-3.0, -1.0]
DGMKernels.replica_exchange!([5, 6], x, log_density; inverse_temperatures = [1, 0.1], step = 0)
x    # [2 1]: what is likelier goes to the colder item, always
```
"""
function replica_exchange!(source, x, log_density; inverse_temperatures, step::Integer)
    check_array("x", x)
    ndims(x) >= 1 || wrong_size("x", x, "(..., B)")
    is_dense(x) || throw(ArgumentError("x is a $(typeof(x)), expected elements that lie side by side"))
    rows, betas = size(x, ndims(x)), betas_of(inverse_temperatures)
    log_density isa Vector{Float64} ||
        throw(ArgumentError("log_density is a $(typeof(log_density)), expected a Vector{Float64}"))
    length(log_density) == rows ||
        throw(DimensionMismatch("log_density has length $(length(log_density)), expected the batch size $rows"))
    0 <= step <= typemax(UInt32) || throw(ArgumentError("step is $step, expected an integer of 32 bits, not negative"))
    seeds = seeds_of(source, rows)
    ladders = isempty(betas) ? 0 : rows ÷ length(betas)
    accepted = Matrix{UInt8}(undef, max(length(betas) - 1, 0), ladders)
    elements = prod(Base.front(size(x)))
    tensor = Tensor(x, (elements, rows), (1, max(elements, 1)))
    check(LibDGM.dgm_replica_exchange(tensor, log_density, betas, length(betas), seeds, rows, step, accepted,
                                      length(accepted)))
    return accepted .== 1
end
replica_exchange!(x, log_density; options...) = replica_exchange!(Random.default_rng(), x, log_density; options...)

"Inverse temperatures as the engine reads them."
betas_of(betas) =
    betas isa AbstractVector && all(b -> b isa Real, betas) ? collect(Float64, betas) :
    throw(ArgumentError("inverse_temperatures is a $(typeof(betas)), expected a vector of numbers"))
