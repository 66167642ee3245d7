const PROCESSES = enumeration("DGM_PROCESS_")
const PREDICTIONS = enumeration("DGM_PREDICTION_")
const SOLVERS = enumeration("DGM_SOLVER_")
const LIKELIHOODS = enumeration("DGM_LIKELIHOOD_")
const NON_FINITES = enumeration("DGM_NON_FINITE_")
const SPACINGS = enumeration("DGM_SPACING_")
const FINAL_SIGMAS = enumeration("DGM_FINAL_SIGMA_")
const SHIFT_TYPES = enumeration("DGM_SHIFT_TYPE_")
const GUIDANCE_MODES = enumeration("DGM_GUIDANCE_MODE_")
const NOISES = enumeration("DGM_NOISE_")
const VARIANCES = enumeration("DGM_VARIANCE_")
const COMPATS = enumeration("DGM_COMPAT_")

"""
    DGMKernels.Plan(; steps = 16, solver = :euler, ...)
    DGMKernels.Plan(model::DiT; ...)
    DGMKernels.Plan(preset::Symbol; ...)

A sampler, compiled to a table that [`sample`](@ref DGMKernels.sample) follows. Immutable; any number
of runs and threads may share it. `Plan(model)` starts from what the file of the model says, `Plan(:sdxl)` from what
a published model is sampled with (`docs/SAMPLERS.md` lists them).

# Arguments
- `process`: how data becomes noise: `$(join(map(repr, keys(PROCESSES)), "`, `"))`.
- `prediction`: what the model returns: `$(join(map(repr, keys(PREDICTIONS)), "`, `"))`.
- `solver`: `$(join(map(repr, keys(SOLVERS)), "`, `"))`.
- `steps`: 1 to 100000.
- `spacing`: of the times: `$(join(map(repr, keys(SPACINGS)), "`, `"))`.
- `times`: model times of your own, descending, instead of `spacing` and `steps`; `sigmas`: noise levels instead.
- `order`: of a solver that has several.
- `sigma_min`, `sigma_max`, `sigma_data`, `rho`, `steps_offset`, `zero_snr`: of processes and spacings.
- `final_sigma`: what stands after the last noisy level: `$(join(map(repr, keys(FINAL_SIGMAS)), "`, `"))`.
- `shift`: of the times of a flow, `s t / (1 + (s - 1) t)`; 1 leaves them (of `:vp_cascade` it multiplies `sigma / alpha`). `shift_type`
  (`$(join(map(repr, keys(SHIFT_TYPES)), "`, `"))`), `shift_power`, `shift_terminal`: its other forms.
- `start_step`, `start_sigma`: leave out the noisy end, for image to image.
- `eta`: noise of DDIM, 0 (none) to 1 (as DDPM); gamma of TCD.
- `sde_eta`, `s_noise`: noise of ancestral and SDE solvers, 1 is the method's own; its scale.
- `noise`: `$(join(map(repr, keys(NOISES)), "`, `"))`; the Brownian path stays when the steps change.
- `s_churn`, `s_tmin`, `s_tmax`: noise added before a step. `restart`: `[sigma_min, steps, times, sigma_max]`.
- `guidance`: `u + g (c - u)` of the conditional and the unconditional output; 1 asks for the
  conditional alone. `guidance_mode` (`$(join(map(repr, keys(GUIDANCE_MODES)), "`, `"))`), `guidance_rescale`,
  `guidance_start`, `guidance_end`, `apg_eta`, `apg_norm`, `apg_momentum`, `zero_init_steps`: its other forms.
- `guidance_weak`: autoguidance beside `:cfg`, adds `(w - 1) (c - k)` with the output `k` of a weaker model
  (role `:weak`); 1 does not ask it.
- `snr`, `corrector_steps`: of `:predictor_corrector`.
- `clip`: limits the predicted data to `-clip..clip`; `nothing` does not. `threshold_ratio`, `threshold_max`:
  dynamic thresholding.
- `variance`: of DDPM, `$(join(map(repr, keys(VARIANCES)), "`, `"))`.
- `inpaint`: keeps known parts, see [`set_known!`](@ref DGMKernels.set_known!).
- `per_row`: rows at times of their own, see [`select!`](@ref DGMKernels.select!).
- `beta_start`, `beta_end`, `betas`, `train_steps`: of the VP processes.
- `original_steps`, `time_scale`: of LCM and TCD.
- `rtol`, `atol`, `h_init`, `max_evals`: error control, first step and limit of `:bosh3`, `:dopri5`, `:tsit5`,
  `:dpm_12`, `:dpm_23` (the last two step in lambda);
  `controller`: exponents of their step sizes, `[1]`, `[0.7, -0.4]` ...; `save_at`: times at which they keep the
  sample, see [`saved`](@ref DGMKernels.saved) (not `:dpm_12`, `:dpm_23`); `stop_at`: times at which their steps end,
  because the model jumps there.
- `t_start`, `t_end`: of `process = :ode`, where the model is `dx/dt`, and `:sde`, where it is drift and diffusion,
  one after the other in the last dimension but one; `times` may ascend there.
- `likelihood`: `$(join(map(repr, keys(LIKELIHOODS)), "`, `"))`, see [`log_density`](@ref DGMKernels.log_density).
- `step_size`, `leapfrog`, `warmup`, `target_accept`: of Markov chains, `process = :target` with `:ula`, `:mala`,
  `:hmc` (see [`accepted`](@ref DGMKernels.accepted)), and of `:annealed_langevin`.
- `non_finite`: `$(join(map(repr, keys(NON_FINITES)), "`, `"))`: whether an output that is not finite is an error, or is
  computed with, unseen, in one pass over memory a step.
- `compat`: whose rounding to reproduce: `$(join(map(repr, keys(COMPATS)), "`, `"))`.

Without a value an argument has the engine's default, which [`describe`](@ref DGMKernels.describe)
shows.

# Examples
```julia
plan = DGMKernels.Plan(process = :flow, prediction = :velocity, solver = :heun, steps = 16)
print(DGMKernels.describe(plan))
```
"""
struct Plan
    handle::PlanHandle
    slots::Int
    outputs::Int
    numbers::Int
    per_row::Bool
end

Plan(options::LibDGM.dgm_plan_options; changes...) = compile(options; changes...)
function Plan(preset::Symbol; changes...)
    options = Ref(default_options(LibDGM.dgm_plan_options_init, LibDGM.dgm_plan_options))
    check(LibDGM.dgm_plan_options_preset(options, string(preset)))
    return Plan(options[]; changes...)
end
Plan(; changes...) = Plan(default_options(LibDGM.dgm_plan_options_init, LibDGM.dgm_plan_options); changes...)

const CHOICES = (process = PROCESSES, prediction = PREDICTIONS, solver = SOLVERS, spacing = SPACINGS,
                 final_sigma = FINAL_SIGMAS, shift_type = SHIFT_TYPES, guidance_mode = GUIDANCE_MODES,
                 likelihood = LIKELIHOODS, non_finite = NON_FINITES, noise = NOISES, variance = VARIANCES, compat = COMPATS)
const LISTS = (:times, :sigmas, :betas, :restart, :controller, :save_at, :stop_at)
const FLAGS = (:zero_snr, :inpaint, :per_row)

function compile(options; changes...)
    hidden = (:struct_size, :reserved, map(list -> Symbol(list, :_len), LISTS)...)
    known = filter(n -> !(n in hidden), fieldnames(LibDGM.dgm_plan_options))
    lists = Pair{Symbol,Vector{Float64}}[]
    for (name, value) in pairs(changes)
        name in known || throw(ArgumentError("unknown option $name, expected one of $(join(known, ", "))"))
        if name in LISTS
            value === nothing && continue
            push!(lists, name => numbers(name, value))
            continue
        elseif haskey(CHOICES, name)
            value = choice(name, value, CHOICES[name])
        elseif name === :clip && value === nothing
            value = 0.0
        elseif name in FLAGS
            value isa Bool || throw(ArgumentError("$name is $(repr(value)), expected true or false"))
        elseif !(value isa Real)
            throw(ArgumentError("$name is $(repr(value)), expected a number"))
        elseif fieldtype(LibDGM.dgm_plan_options, name) === Int64 && !isinteger(value)
            throw(ArgumentError("$name is $value, expected an integer"))
        end
        options = with(options; (name => value,)...)
    end
    handle = GC.@preserve lists begin
        for (name, list) in lists
            options = with(options; (name => pointer(list), Symbol(name, :_len) => length(list))...)
        end
        PlanHandle(out -> LibDGM.dgm_plan_compile(Ref(options), out))
    end
    slots = Ref{Csize_t}()
    check(LibDGM.dgm_plan_slots(handle, slots))
    outputs = Ref{Csize_t}()
    check(LibDGM.dgm_plan_outputs(handle, outputs))
    told = Ref{Csize_t}()
    check(LibDGM.dgm_plan_numbers(handle, told))
    return Plan(handle, Int(slots[]), Int(outputs[]), Int(told[]), options.per_row != 0)
end

function numbers(name, value)
    list = collect(Float64, value)
    isempty(list) && throw(ArgumentError("$name is empty, expected " * (name === :times ? "at least two model times" : "numbers")))
    return list
end

"""
    DGMKernels.describe(plan) -> String

The table of a plan: its options, its times and what each step asks and computes.
"""
describe(plan::Plan) = text((buffer, cap, needed) -> LibDGM.dgm_plan_describe(plan.handle, buffer, cap, needed))

"""
    DGMKernels.level(plan, t) -> (alpha = , sigma = )

The level of a model time of the process, `x = alpha x0 + sigma eps`: rows of an adaptive plan stand at times of their
own, between those of the grid. `t` is finite; behind the noisiest it is what the formula of the process gives.

# Examples
```julia
DGMKernels.level(DGMKernels.Plan(), 0.25)   # a flow: (alpha = 0.75, sigma = 0.25)
```
"""
function level(plan::Plan, t::Real)
    alpha, sigma = Ref{Float64}(), Ref{Float64}()
    check(LibDGM.dgm_plan_level(plan.handle, t, alpha, sigma))
    return (alpha = alpha[], sigma = sigma[])
end

function plan_hash(plan::Plan)
    out = Ref{UInt64}()
    check(LibDGM.dgm_plan_hash(plan.handle, out))
    return out[]
end

Base.:(==)(a::Plan, b::Plan) = plan_hash(a) == plan_hash(b)
Base.hash(plan::Plan, h::UInt) = hash(plan_hash(plan), h)

Base.show(io::IO, plan::Plan) =
    print(io, "Plan(", replace(first(split(describe(plan), '\n')), r"^plan [0-9a-f]+: " => ""), ")")
Base.show(io::IO, ::MIME"text/plain", plan::Plan) = print(io, chomp(describe(plan)))
