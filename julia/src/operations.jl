# Coefficients mode: a plan as scalars and keys of noise, for arrays that the engine cannot touch.

const OPERATION_KINDS = keys(enumeration("DGM_OPERATION_"))
const SOURCES = keys(enumeration("DGM_SOURCE_"))

"""
    DGMKernels.Term

One term of an [`Operation`](@ref DGMKernels.Operation): `coefficient` times what `source` says.

- `source`: `:state`, `:register` (both with `index`, from 1), `:output` of the model, or `:noise`: what
  [`normal!`](@ref DGMKernels.normal!) makes of the seeds, `purpose` and `draw`.
- `measured`: which number of the row, measured before, multiplies the coefficient; 0 for none.
"""
struct Term
    source::Symbol
    index::Int
    purpose::Int
    draw::Int
    coefficient::Float64
    measured::Int
end

"""
    DGMKernels.Operation

One operation on whole arrays, made by [`operations`](@ref DGMKernels.operations). `kind` is

- `:combine`: the array `target` (`:state` or `:register`) number `index` becomes the sum of the `terms`, one
  `fma` a term from 0 in their order; then `clamp`ed to `-clip..clip` unless `clip` is 0; then, unless
  `mask` is 0, `m .* sum .+ (1 .- m) .* target` with the state array `m` of that number.
- `:rescale`, `:project`, `:adaptive`, `:langevin`: numbers are measured in every row, from the two terms;
  `:threshold`, `:learned_noise`: rows of a state array are bounded, `exp` of an output scales noise.
  `include/dgm.h` has the formulas, `parameters` their numbers.
"""
struct Operation
    kind::Symbol
    target::Symbol
    index::Int
    mask::Int
    clip::Float64
    parameters::NTuple{3,Float64}
    terms::Vector{Term}
end

"""
    DGMKernels.operations(plan, id) -> Vector{DGMKernels.Operation}

What [`tell!`](@ref) does with the output of evaluation `id` (`request.id`, from 1), as scalars and keys of
noise, so that the arrays may stay on a GPU; 0 is what comes before the first evaluation. It depends on
nothing but the plan. An adaptive solver has no such list (`ArgumentError`): its scalars follow from an error that is
summed over the elements of each row.

The run beside the arrays is a [`DetachedRun`](@ref DGMKernels.DetachedRun).

# Examples
```julia
using DGMKernels: Plan, advance!, normal!, operations, start_detached
plan = Plan(process = :flow, prediction = :velocity, solver = :dpmpp_2m, steps = 8)
run = start_detached(1, plan, (16, 4))
blank() = zeros(Float32, 16, 4)                          # or CUDA.zeros
state, registers = [blank() for _ in 1:plan.slots], [blank() for _ in 1:4]
state[1] .= normal!(run.seeds, blank(); purpose = :initial) .* Float32(ask(run).sigma)
source(term, y) = term.source === :output ? y : term.source === :state ? state[term.index] :
                  term.source === :register ? registers[term.index] :
                  normal!(run.seeds, blank(); purpose = term.purpose, draw = term.draw)
function apply(id, y)
    for o in operations(plan, id)                        # all of kind :combine in this plan
        sum = blank()
        for term in o.terms
            sum .= fma.(source(term, y), Float32(term.coefficient), sum)
        end
        o.clip == 0 || (sum .= clamp.(sum, -Float32(o.clip), Float32(o.clip)))
        copyto!((o.target === :state ? state : registers)[o.index], sum)
    end
end
apply(0, blank())
while (request = ask(run)) !== nothing
    x = state[request.slot]
    apply(request.id, x ./ Float32(request.t))           # the model
    advance!(run, request)
end
```
"""
function operations(plan::Plan, id::Integer)
    id >= 0 || throw(ArgumentError("id is $id, expected 0 or the id of a request"))
    n, m = Ref{Csize_t}(), Ref{Csize_t}()
    check(LibDGM.dgm_plan_operations(plan.handle, id, C_NULL, 0, n, C_NULL, 0, m))
    list, terms = Vector{LibDGM.dgm_operation}(undef, n[]), Vector{LibDGM.dgm_term}(undef, m[])
    check(LibDGM.dgm_plan_operations(plan.handle, id, list, length(list), n, terms, length(terms), m))
    return [Operation(OPERATION_KINDS[o.kind+1], o.target < 0 ? :numbers : SOURCES[o.target+1], o.index + 1,
                      o.mask + 1, o.clip, (o.p0, o.p1, o.p2),
                      [term(terms[o.first_term+i]) for i in 1:o.terms]) for o in list]
end

term(t) = Term(SOURCES[t.source+1], t.index + 1, t.purpose, t.draw, t.coefficient, t.measured + 1)

"""
    DGMKernels.DetachedRun

A run whose arrays are the caller's, on any device: `plan`, `seeds` (one a row) and a small header. Made by
[`start_detached`](@ref DGMKernels.start_detached); [`ask`](@ref) says what to evaluate (`request.slot` is
the state array to read, `request.x` is `nothing`), [`operations`](@ref DGMKernels.operations) what to do with the
output, [`advance!`](@ref DGMKernels.advance!) that it is done.
"""
mutable struct DetachedRun{N}
    plan::Plan
    seeds::Vector{UInt64}
    header::Vector{UInt8}
    times::Vector{Float32}
    request::Base.RefValue{LibDGM.dgm_request}
    dims::Dims{N}
end

"""
    DGMKernels.start_detached([rng], plan, dims) -> DetachedRun

Starts a run for a batch of `dims`, `(..., B)`, whose `plan.slots` arrays the caller keeps: the first one is
normal noise of purpose `:initial` times the `sigma` of the first request, the rest 0. Randomness as in
[`start`](@ref DGMKernels.start).
"""
function start_detached(source, plan::Plan, dims::Dims{N}) where {N}
    N >= 2 && all(d -> d > 0, dims) || throw(DimensionMismatch("dims is $dims, expected (..., B) with all sizes above 0"))
    rows, elements = last(dims), prod(Base.front(dims))
    seeds, bytes = seeds_of(source, rows), Ref{Csize_t}()
    check(LibDGM.dgm_plan_run_size(plan.handle, rows, bytes))
    header = zeros(UInt8, bytes[])
    check(LibDGM.dgm_run_start_detached(plan.handle, seeds, rows, elements, header, length(header)))
    return DetachedRun{N}(plan, seeds, header, Vector{Float32}(undef, rows), blank(LibDGM.dgm_request), dims)
end
start_detached(plan::Plan, dims::Dims) = start_detached(Random.default_rng(), plan, dims)

ask(run::DetachedRun) = asked(run, r -> nothing)
isdone(run::DetachedRun) = ask(run) === nothing

"""
    DGMKernels.advance!(run::DetachedRun, request) -> run

Says that the [`operations`](@ref DGMKernels.operations) of `request` are applied, and goes on to the next one.
"""
function advance!(run::DetachedRun, request::Request)
    check(LibDGM.dgm_run_advance(run.plan.handle, run.header, length(run.header), request.id))
    return run
end

"""
    DGMKernels.attach(run::DetachedRun, state) -> Run

The run with its arrays in the engine's memory: `state` has `plan.slots` arrays of the size of the run. It
continues with [`tell!`](@ref), to the same bits.
"""
function attach(run::DetachedRun, state)
    length(state) == run.plan.slots ||
        throw(DimensionMismatch("state has $(length(state)) arrays, expected $(run.plan.slots)"))
    attached = Run(run.plan, run.dims)
    for (i, x) in enumerate(state)
        copyto!(slot(attached, i), start_values("state", x, run.dims))
    end
    copyto!(attached.header, run.header)
    return attached
end

Base.show(io::IO, run::DetachedRun) = print(io, "DetachedRun(", join(run.dims, "×"), isdone(run) ? ", done)" : ")")
