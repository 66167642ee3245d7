const PROCESSES = enumeration("DGM_PROCESS_")
const PREDICTIONS = enumeration("DGM_PREDICTION_")
const SOLVERS = enumeration("DGM_SOLVER_")
const SPACINGS = enumeration("DGM_SPACING_")

"""
    DGMKernels.Plan(; steps = 16, solver = :euler, ...)
    DGMKernels.Plan(model::DiT; ...)

A sampler, compiled to a table that [`sample`](@ref DGMKernels.sample) follows. Immutable; any number
of runs and threads may share it. `Plan(model)` starts from what the file of the model says.

# Arguments
- `process`: how data becomes noise: `$(join(map(repr, keys(PROCESSES)), "`, `"))`.
- `prediction`: what the model returns: `$(join(map(repr, keys(PREDICTIONS)), "`, `"))`.
- `solver`: `$(join(map(repr, keys(SOLVERS)), "`, `"))`.
- `steps`: 1 to 100000.
- `spacing`: of the times: `$(join(map(repr, keys(SPACINGS)), "`, `"))`.
- `times`: model times of your own, descending, instead of `spacing` and `steps`.
- `shift`: of the times of a flow, `s t / (1 + (s - 1) t)`; 1 leaves them.
- `eta`: noise of DDIM, 0 (none) to 1 (as DDPM).
- `guidance`: `u + g (c - u)` of the conditional and the unconditional output; 1 asks for the
  conditional alone.
- `clip`: limits the predicted data to `-clip..clip`; `nothing` does not.
- `beta_start`, `beta_end`, `train_steps`: of the VP processes.
- `rtol`, `atol`, `h_init`, `max_evals`: error control, first step and limit of `:bosh3`.

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
end

Plan(options::LibDGM.dgm_plan_options; changes...) = compile(options; changes...)
Plan(; changes...) = Plan(default_options(LibDGM.dgm_plan_options_init, LibDGM.dgm_plan_options); changes...)

const CHOICES = (process = PROCESSES, prediction = PREDICTIONS, solver = SOLVERS, spacing = SPACINGS)

function compile(options; times = nothing, changes...)
    known = filter(n -> !(n in (:struct_size, :times, :times_len)), fieldnames(LibDGM.dgm_plan_options))
    for (name, value) in pairs(changes)
        name in known || throw(ArgumentError("unknown option $name, expected one of $(join(known, ", ")), times"))
        if haskey(CHOICES, name)
            value = choice(name, value, CHOICES[name])
        elseif name === :clip && value === nothing
            value = 0.0
        elseif !(value isa Real)
            throw(ArgumentError("$name is $(repr(value)), expected a number"))
        elseif fieldtype(LibDGM.dgm_plan_options, name) === Int64 && !isinteger(value)
            throw(ArgumentError("$name is $value, expected an integer"))
        end
        options = with(options; (name => value,)...)
    end
    grid = times === nothing ? Float64[] : collect(Float64, times)
    times === nothing || isempty(grid) && throw(ArgumentError("times is empty, expected at least two model times"))
    handle = GC.@preserve grid begin
        if times !== nothing
            options = with(options; times = pointer(grid), times_len = length(grid))
        end
        PlanHandle(out -> LibDGM.dgm_plan_compile(Ref(options), out))
    end
    slots = Ref{Csize_t}()
    check(LibDGM.dgm_plan_slots(handle, slots))
    return Plan(handle, Int(slots[]))
end

"""
    DGMKernels.describe(plan) -> String

The table of a plan: its options, its times and what each step asks and computes.
"""
describe(plan::Plan) = text((buffer, cap, needed) -> LibDGM.dgm_plan_describe(plan.handle, buffer, cap, needed))

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
