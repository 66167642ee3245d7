"""
    DGMKernels.Run

One sampling run: a plan, a small header, and the state tensors that the solver needs, `slots` of
`dims` each. Made by [`start`](@ref DGMKernels.start) or [`import_run`](@ref); advanced by
[`ask`](@ref) and [`tell!`](@ref), [`step!`](@ref DGMKernels.step!) or
[`sample!`](@ref DGMKernels.sample!). One task at a time may use a run.
"""
mutable struct Run{N,M}
    plan::Plan
    header::Vector{UInt8}
    state::Array{Float32,M}
    other::Array{Float32,M}
    times::Vector{Float32}
    scratch::Vector{Float32}
    request::Base.RefValue{LibDGM.dgm_request}
    dims::Dims{N}
    function Run(plan::Plan, dims::Dims{N}) where {N}
        N >= 2 && all(d -> d > 0, dims) ||
            throw(DimensionMismatch("dims is $dims, expected (..., B) with all sizes above 0"))
        rows, elements = last(dims), prod(Base.front(dims))
        bytes, floats = Ref{Csize_t}(), Ref{Csize_t}()
        check(LibDGM.dgm_plan_run_size(plan.handle, rows, bytes))
        check(LibDGM.dgm_plan_state_len(plan.handle, rows, elements, floats))
        state = Array{Float32}(undef, dims..., plan.slots)
        length(state) == floats[] || throw(DGMError(-900, "the state has $(floats[]) floats, not $(length(state))"))
        request = blank(LibDGM.dgm_request)
        other = Array{Float32}(undef, ntuple(_ -> 0, Val(N + 1)))
        return new{N,N + 1}(plan, zeros(UInt8, bytes[]), state, other, Vector{Float32}(undef, rows), Float32[], request, dims)
    end
end

"""
    DGMKernels.start([rng], plan, dims; x = nothing, data = nothing, known = nothing, mask = nothing) -> Run

Starts a run for a batch of `dims`, `(..., B)`; the last dimension is the batch.

The first argument gives the randomness: an `AbstractRNG` (one number is drawn), one seed, or a vector
of one seed a row (see [`row_seeds`](@ref)). `x`, an array of `Float32` of size `dims`, is where to
start instead of noise; `data`, such an array, is noised to the plan's first level (image to image);
`known` and `mask` are for [`set_known!`](@ref DGMKernels.set_known!). All are copied.

# Examples
```julia
run = DGMKernels.start(MersenneTwister(1), plan, (8, 8, 1, 64))
while (request = ask(run)) !== nothing
    tell!(run, request, my_network(request.x, request.times))
end
images = DGMKernels.result(run)
```
"""
function start(source, plan::Plan, dims::Dims; x = nothing, data = nothing, known = nothing, mask = nothing)
    run = Run(plan, dims)
    seeds = seeds_of(source, last(dims))
    x === nothing || data === nothing || throw(ArgumentError("data is given beside x, expected one of the two"))
    call = data === nothing ? LibDGM.dgm_run_start : LibDGM.dgm_run_start_from
    first_x = x === nothing && data === nothing ? C_NULL :
              data === nothing ? start_values("x", x, dims) : start_values("data", data, dims)
    check(call(plan.handle, seeds, last(dims), prod(Base.front(dims)), first_x,
               run.header, length(run.header), run.state, length(run.state)))
    known === nothing && mask === nothing || set_known!(run, known, mask)
    return run
end
start(plan::Plan, dims::Dims; options...) = start(Random.default_rng(), plan, dims; options...)

function start_values(name, x::AbstractArray, dims)
    size(x) == dims || wrong_size(name, x, dims)
    eltype(x) === Float32 || wrong_type(name, x, Float32)
    return convert(Array, x)
end
start_values(name, x, dims) = throw(ArgumentError("$name is a $(typeof(x)), expected an array of size $dims"))

"""
    DGMKernels.set_known!(run, known, mask) -> run

Keeps known parts, for plans with `inpaint = true`: after every step x becomes `known`, noised to the
level of the step, where `mask` is 1, and stays where it is 0. Both are `Float32` arrays of the size of
the run; the noise comes from the row's seed, in a stream of its own.
"""
function set_known!(run::Run, known, mask)
    known, mask = start_values("known", known, run.dims), start_values("mask", mask, run.dims)
    check(LibDGM.dgm_run_set_known(run.plan.handle, run.header, length(run.header), run.state, length(run.state),
                                   known, mask, length(known)))
    return run
end

"""
    Request

What a run wants evaluated next: the model at `x` and `times`.

- `x`: `dims`, the input of the model; a view of the run's state, to be read only and until `tell!`.
- `times`: `Float32`, the model time of each row.
- `role`: `:cond`; `:uncond` for the unconditional output that guidance needs; `:weak` for that of the weaker model
  of autoguidance.
- `roles`: a tuple of those whose outputs `tell!` takes at once, this one first: they are asked for the same input.
- `step`, `stage`: from 0; a step may ask several times.
- `t`, `sigma`, `alpha`: model time, noise and signal level of row 1.
- `uniform_times`: whether all rows are at the same time. `active`: rows that have not finished.
- `t_to`: model time at which the step ends, where a flow map must land; for adaptive solvers the end of the walk.
- `slot`: which state array `x` is, from 1.
- `id`: names this question; `tell!` refuses the answer to any other.
"""
struct Request{X}
    id::UInt64
    step::Int
    stage::Int
    role::Symbol
    roles::Tuple{Vararg{Symbol}}
    t::Float64
    sigma::Float64
    alpha::Float64
    active::Int
    uniform_times::Bool
    t_to::Float64
    slot::Int
    x::X
    times::Vector{Float32}
end

const ROLES = keys(enumeration("DGM_ROLE_"))
# By the bits of dgm_request.roles; tuples made once, since a question is asked at every step.
const ROLE_SETS = [Tuple(ROLES[i] for i in 1:length(ROLES) if bits >> (i - 1) & 1 == 1) for bits in 0:2^length(ROLES)-1]

"""
    ask(run) -> Union{Request,Nothing}

The next question of a run, or `nothing` when it is finished. Asking twice gives the same question.
"""
ask(run::Run) = asked(run, r -> slot(run, r.slot + 1))

function asked(run, input)
    header, request = run.header, run.request
    check(LibDGM.dgm_run_ask(run.plan.handle, header, length(header), request))
    r = request[]
    r.done == 0 || return nothing
    # Rows that share their time have that of the request.
    r.uniform_t != 0 ? fill!(run.times, Float32(r.t)) :
        check(LibDGM.dgm_run_times(run.plan.handle, header, length(header), run.times, length(run.times)))
    return Request(r.eval_id, Int(r.step), Int(r.stage), ROLES[r.role+1], ROLE_SETS[r.roles+1], r.t, r.sigma,
                   r.alpha,
                   Int(r.active_rows), r.uniform_t != 0, r.t_to, Int(r.slot) + 1, input(r), run.times)
end

slot(run::Run{N}, i) where {N} = view(run.state, ntuple(_ -> Colon(), Val(N))..., Int(i))

"""
    tell!(run, request, y) -> run

Answers `request` with the output `y` of the model, of the size of `request.x`, and computes up to the
next question. An `Array{Float32}` is read in place; any other array of real numbers is first copied to
one, each number rounded to `Float32`. With guidance `y` may have one more dimension, with the outputs of
`request.roles`: a model can then be called once with a batch of twice the rows, and the state is walked through
once, to the same bits. With a `likelihood` the answer is a tuple `(y, numbers)`, a number a row
(see [`log_density`](@ref DGMKernels.log_density)). An answer that is not finite, or to another question, is refused and leaves the run as it was.

A run whose state has 4 MiB or more keeps memory for a second one, untouched until it is of use: the next state is
written there, and the two take turns, where that costs less than writing it over the old one.
"""
function tell!(run::Run, request::Request, y::AbstractArray)
    dims = answer_dims(run)
    size(y) == dims || check_outputs(y, dims, length(request.roles))
    header, state, output = run.header, run.state, answer(run, y)
    length(state) < LARGE_STATE || return tell_swap!(run, request, output)
    check(LibDGM.dgm_run_tell(run.plan.handle, header, length(header), state, length(state),
                              request.id, output, length(output)))
    return run
end

# Floats of a state from which a second one is worth its memory.
const LARGE_STATE = 1 << 20

# Zeros of the system, which nobody touches before their first use.
function untouched_zeros(dims)
    memory = Ptr{Float32}(Libc.calloc(prod(dims), sizeof(Float32)))
    memory == C_NULL && throw(OutOfMemoryError())
    return unsafe_wrap(Array, memory, dims; own = true)
end

function tell_swap!(run::Run, request::Request, output)
    header, state, swapped = run.header, run.state, Ref{Int32}(0)
    size(run.other) == size(state) || (run.other = untouched_zeros(size(state)))
    check(LibDGM.dgm_run_tell_swap(run.plan.handle, header, length(header), state, run.other, length(state),
                                   request.id, output, length(output), swapped))
    swapped[] == 1 && ((run.state, run.other) = (run.other, run.state))
    return run
end

"""
    tell!(to, run, request, y) -> to

[`tell!`](@ref) for a run that must stay as it is: the next one is `to`, another run of the same plan and size, whatever it held.
The two may take turns; the bits are the same. An answer that is refused leaves `run` as it was, and in `to` nothing of use.
What guidance keeps in the state from one request to the next is not written when outputs are told together.

# Examples
```julia
to = DGMKernels.start(1, plan, (8, 8, 1, 4))        # memory for the next one
next = tell!(to, run, request, y)                   # run still asks for the same
```
"""
function tell!(to::Run, run::Run, request::Request, y::AbstractArray)
    to === run && throw(ArgumentError("to is run, expected another one"))
    to.plan === run.plan || throw(ArgumentError("to is a run of another plan, expected one of the same"))
    to.dims == run.dims || throw(DimensionMismatch("to is a run of size $(to.dims), expected $(run.dims)"))
    dims = answer_dims(run)
    size(y) == dims || check_outputs(y, dims, length(request.roles))
    header, state, output = to.header, run.state, answer(run, y)
    copyto!(header, run.header)
    check(LibDGM.dgm_run_tell_from(run.plan.handle, header, length(header), state, to.state, length(state),
                                   request.id, output, length(output)))
    return to
end

function tell!(run::Run, request::Request, (y, numbers)::Tuple{AbstractArray,Any})
    dims, rows = answer_dims(run), last(run.dims)
    size(y) == dims || wrong_size("y", y, dims)
    told = convert(Vector{Float64}, vec(collect(Float64, numbers)))
    length(told) == rows * run.plan.numbers ||
        throw(DimensionMismatch("numbers has length $(length(told)), expected $(rows * run.plan.numbers)"))
    header, state, output = run.header, run.state, answer(run, y)
    check(LibDGM.dgm_run_tell_with(run.plan.handle, header, length(header), state, length(state),
                                   request.id, output, length(output), told, length(told)))
    return run
end
tell!(run::Run, request::Request, y) = throw(ArgumentError("y is a $(typeof(y)), expected an array of size $(run.dims)"))

"Checks the size of several answers at once."
function check_outputs(y, dims, most)
    most == 1 && wrong_size("y", y, dims)
    size(y) in ntuple(n -> (dims..., n), most) || wrong_size("y", y, "$dims, or ($(join(dims, ", ")), n) with n up to $most")
end

"The size of an answer: with a learned variance and for an sde the last dimension but one holds two outputs."
function answer_dims(run::Run{N}) where {N}
    run.plan.outputs == 1 && return run.dims
    return ntuple(i -> i == N - 1 ? run.plan.outputs * run.dims[i] : run.dims[i], Val(N))
end

answer(run::Run, y::Array{Float32}) = y
function answer(run::Run, y::AbstractArray)
    eltype(y) <: Real || throw(ArgumentError("y has element type $(eltype(y)), expected Float32"))
    resize!(run.scratch, length(y))
    copyto!(run.scratch, y)
    return run.scratch
end

"""
    DGMKernels.step!(run, model) -> Bool

Answers every question of one step (of every row that moves) with `model(x, times, request)`; `false` when the
run was finished.
"""
function step!(run::Run, model)
    request = ask(run)
    request === nothing && return false
    step = request.step
    while true
        tell!(run, request, model(request.x, request.times, request))
        request = ask(run)
        # Rows at steps of their own are in the middle of them together.
        inside = request !== nothing && (request.stage, request.role) != (0, :cond)
        inside && (run.plan.per_row || request.step == step) || return true
    end
end

"""
    DGMKernels.result(run)

The current sample, of size `dims`, as a view of the run's state; the final one when `ask` gives
`nothing`. `copy` it to keep it beyond the next `tell!`.
"""
function result(run::Run)
    out = Ref{Ptr{Float32}}(C_NULL)
    header, state = run.header, run.state
    GC.@preserve state begin
        check(LibDGM.dgm_run_result(run.plan.handle, header, length(header), state, length(state), out))
        return slot(run, (out[] - pointer(state)) ÷ (sizeof(Float32) * prod(run.dims)) + 1)
    end
end

"""
    DGMKernels.saved(run)

The samples at the times of `save_at`, of size `(dims..., times)`, as a view of the run's state; zeros where a
row has not come yet.

# Examples
```julia
plan = DGMKernels.Plan(process = :ode, solver = :tsit5, t_end = 6, save_at = 0:0.5:6)
run = DGMKernels.start(1, plan, (2, 1); x = reshape(Float32[1, 0], 2, 1))
DGMKernels.sample!(run, (x, t, request) -> [x[2:2, :]; -x[1:1, :]])      # an oscillator
DGMKernels.saved(run)                                                    # 2 x 1 x 13
```
"""
function saved(run::Run)
    out = Ref{Ptr{Float32}}(C_NULL)
    header, state = run.header, run.state
    GC.@preserve state begin
        check(LibDGM.dgm_run_saved(run.plan.handle, header, length(header), state, length(state), out))
        first = (out[] - pointer(state)) ÷ (sizeof(Float32) * prod(run.dims)) + 1
        return view(state, ntuple(_ -> Colon(), length(run.dims))..., first:run.plan.slots)
    end
end

"Whether a run is finished."
isdone(run::Run) = ask(run) === nothing

"""
    DGMKernels.sample([rng], model, plan, dims; callback = nothing, options...) -> Array{Float32}

Samples a batch of `dims`, `(..., B)`. `model(x, times, request)` is any callable that returns an array
of the size of `x`; `times` has one entry a row, and `request.role` is `:uncond` where guidance wants
the unconditional output (see [`Request`](@ref DGMKernels.Request)). Randomness and `options` as in
[`start`](@ref DGMKernels.start). `callback(run, request)` is called after every answer.

# Examples
```julia
# A model that knows only that the data is 0 everywhere: for a flow, velocity = x / t.
plan = DGMKernels.Plan(process = :flow, prediction = :velocity, steps = 8)
x = DGMKernels.sample(MersenneTwister(1), (x, t, request) -> x ./ t[1], plan, (8, 8, 1, 4))
```
"""
sample(source, model, plan::Plan, dims::Dims; callback = nothing, options...) =
    copy(result(sample!(start(source, plan, dims; options...), model; callback = callback)))
sample(model, plan::Plan, dims::Dims; options...) = sample(Random.default_rng(), model, plan, dims; options...)

"""
    DGMKernels.sample!(run, model; callback = nothing) -> run

Finishes a run, from wherever it stands. See [`DGMKernels.sample`](@ref).
"""
function sample!(run::Run, model; callback = nothing)
    while (request = ask(run)) !== nothing
        tell!(run, request, model(request.x, request.times, request))
        callback === nothing || callback(run, request)
    end
    return run
end

"""
    export_run(run) -> Vector{UInt8}

A run as bytes, checksummed and the same on every machine: a snapshot to continue from with
[`import_run`](@ref), in any language, with the same bits.
"""
function export_run(run::Run)
    header, state = run.header, run.state
    bytes, written = Ref{Csize_t}(), Ref{Csize_t}()
    check(LibDGM.dgm_run_export_size(run.plan.handle, header, length(header), bytes))
    out = Vector{UInt8}(undef, bytes[])
    check(LibDGM.dgm_run_export(run.plan.handle, header, length(header), state, length(state), out, length(out), written))
    return resize!(out, written[])
end

"""
    import_run(plan, bytes, [dims]) -> Run

The run that [`export_run`](@ref) wrote. `plan` must be equal to the plan of that run, and `dims` has
its numbers of elements and rows; without it the run is `(elements, rows)`.
"""
function import_run(plan::Plan, bytes::Vector{UInt8}, dims::Union{Dims,Nothing} = nothing)
    rows, elements = Ref{Csize_t}(), Ref{Csize_t}()
    check(LibDGM.dgm_run_peek(bytes, length(bytes), rows, elements))
    shape = dims === nothing ? (Int(elements[]), Int(rows[])) : dims
    length(shape) >= 2 && (prod(Base.front(shape)), last(shape)) == (elements[], rows[]) || throw(DimensionMismatch(
        "dims is $shape, expected $(elements[]) elements in each of $(rows[]) rows (the last dimension)"))
    run = Run(plan, shape)
    check(LibDGM.dgm_run_import(plan.handle, bytes, length(bytes), run.header, length(run.header),
                                run.state, length(run.state)))
    return run
end

function Base.show(io::IO, run::Run)
    request = ask(run)
    print(io, "Run(", join(run.dims, "×"), request === nothing ? ", done)" : ", step $(request.step), t = $(request.t))")
end
Base.show(io::IO, r::Request) = print(io, "Request(id = ", r.id, ", step = ", r.step, ", stage = ", r.stage,
                                      ", role = ", r.role, ", t = ", r.t, ")")
function Base.show(io::IO, ::MIME"text/plain", run::Run)
    println(io, run)
    print(io, "  plan:  ", run.plan, "\n  state: ", run.plan.slots, " × ", join(run.dims, "×"), " Float32")
end
