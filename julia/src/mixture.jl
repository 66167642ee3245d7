"""
    DGMKernels.GaussianMixture(weights, means, variances)

The density `p(x0) = sum_k weights[k] N(x0; means[:, k], diag(variances[:, k]))`, and with it every noised marginal of
`x = alpha x0 + sigma eps`: the model that a diffusion or a flow would have to learn, known exactly.

`weights` has `K` numbers above 0 (they are divided by their sum), `means` is `D × K`; `variances` has `K` numbers,
one for all dimensions, or is `D × K`; none is negative.

A mixture is a model of [`sample`](@ref DGMKernels.sample) and [`sample!`](@ref DGMKernels.sample!), where the engine
carries every block of rows to its end by itself, in one call that an interrupt does not stop (with a `callback` it
goes step by step). Called, `mixture(x; prediction = :score, alpha = 1, sigma = 0,
sigma_data = 0.5)` is the expectation of the target of any prediction but `:consistency` at a noise level, `x` and the
answer being `D × B`; see also [`log_density`](@ref DGMKernels.log_density) and [`predict`](@ref DGMKernels.predict).

# Examples
```julia
mixture = DGMKernels.GaussianMixture([0.3, 0.7], [-2 2; 0 1], [0.1, 0.2])
plan = DGMKernels.Plan(process = :target, prediction = :score, solver = :ula, steps = 1000, step_size = 0.01)
x = DGMKernels.sample(1, mixture, plan, (2, 10_000))
score = mixture(x)
```
"""
struct GaussianMixture
    handle::MixtureHandle
    components::Int
    dims::Int
    function GaussianMixture(weights::AbstractVector{<:Real}, means::AbstractMatrix{<:Real},
                             variances::AbstractVecOrMat{<:Real})
        dims, components = size(means)
        length(weights) == components || throw(DimensionMismatch(
            "weights has length $(length(weights)), expected $components, the columns of means"))
        size(variances) in ((components,), (dims, components)) || throw(DimensionMismatch(
            "variances has size $(size(variances)), expected ($components,) or ($dims, $components)"))
        w, m, v = collect(Float64, weights), collect(Float64, means), collect(Float64, variances)
        handle = MixtureHandle(out -> LibDGM.dgm_mixture_create(w, m, v, length(v), components, dims, out))
        return new(handle, components, dims)
    end
end
GaussianMixture(weights, means, variances) = throw(ArgumentError(
    "weights, means and variances are $(typeof(weights)), $(typeof(means)) and $(typeof(variances)), expected a vector, " *
    "a matrix and a vector or a matrix of numbers"))

function (mixture::GaussianMixture)(x; prediction::Symbol = :score, alpha::Real = 1, sigma::Real = 0,
                                    sigma_data::Real = 0.5)
    check_points(mixture, x)
    haskey(PREDICTIONS, prediction) || throw(ArgumentError(
        "prediction is :$prediction, expected one of $(join(string.(':', keys(PREDICTIONS)), ", "))"))
    input = convert(Array, x)
    out = Array{Float32}(undef, size(input))
    check(LibDGM.dgm_mixture_evaluate(mixture.handle, PREDICTIONS[prediction], alpha, sigma, sigma_data,
                                      Tensor(input), Tensor(out)))
    return out
end

function check_points(mixture, x)
    ndims(x) == 2 && size(x, 1) == mixture.dims || wrong_size("x", x, "($(mixture.dims), B)")
    return check_array("x", x)
end

"""
    DGMKernels.log_density(mixture, x; alpha = 1, sigma = 0) -> Vector{Float64}

The log density of a [`GaussianMixture`](@ref DGMKernels.GaussianMixture), noised to a level, at every column of `x`.
"""
function log_density(mixture::GaussianMixture, x; alpha::Real = 1, sigma::Real = 0)
    check_points(mixture, x)
    input = convert(Array, x)
    out = Vector{Float64}(undef, size(input, 2))
    check(LibDGM.dgm_mixture_log_density(mixture.handle, alpha, sigma, Tensor(input), out, length(out)))
    return out
end

"""
    DGMKernels.predict(mixture, run) -> Union{Array{Float32},Tuple}

What a [`GaussianMixture`](@ref DGMKernels.GaussianMixture) answers to the current question of a run, for
[`tell!`](@ref): an array, or for `:mala` and `:hmc` a tuple of it and of the log densities.
"""
function predict(mixture::GaussianMixture, run::Run)
    header, state = run.header, run.state
    y = Array{Float32}(undef, run.dims)
    numbers = Vector{Float64}(undef, last(run.dims) * run.plan.numbers)
    check(LibDGM.dgm_mixture_predict(mixture.handle, run.plan.handle, header, length(header), state, length(state),
                                     y, length(y), numbers, length(numbers)))
    return isempty(numbers) ? y : (y, numbers)
end

function sample!(run::Run, mixture::GaussianMixture; callback = nothing)
    if callback !== nothing
        return invoke(sample!, Tuple{Run,Any}, run, (x, t, request) -> predict(mixture, run); callback = callback)
    end
    header, state = run.header, run.state
    check(LibDGM.dgm_mixture_sample(mixture.handle, run.plan.handle, header, length(header), state, length(state)))
    return run
end

step!(run::Run, mixture::GaussianMixture) = step!(run, (x, t, request) -> predict(mixture, run))

Base.show(io::IO, m::GaussianMixture) =
    print(io, "GaussianMixture(", m.components, m.components == 1 ? " component, " : " components, ", m.dims, "-D)")
