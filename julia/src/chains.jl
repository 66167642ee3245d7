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
