# What a door costs, from Julia: see benches/README.md.
#
#   julia --project=julia benches/doors/doors.jl

using DGMKernels
using DGMKernels: LibDGM, Plan, advance!, normal!, num_threads, start, start_detached

const TRIALS, CALLS, FEW, MANY, STEPS = 25, 1000, 4, 1 << 20, 16

middle(times) = sort(times)[end ÷ 2 + 1]

macro elapsed_ns(body)
    return quote
        local begun = time_ns()
        $(esc(body))
        time_ns() - begun
    end
end

# The median of seconds a call of `f`, which makes `calls` of them.
function seconds(f, calls)
    f()                                                      # Julia compiles at the first call
    return middle([1e-9 * @elapsed_ns(f()) / calls for _ in 1:TRIALS])
end

function empty_calls()
    sum = 0
    for _ in 1:CALLS
        sum += LibDGM.dgm_abi_version()
    end
    return sum
end

function walk(run, y)
    while (request = ask(run)) !== nothing
        tell!(run, request, y)
    end
end

# A whole run of Euler steps.
function ask_tell(elements, steps)
    plan, y = Plan(solver = :euler, steps = steps), zeros(Float32, elements, 1)
    walk(start(1, plan, (elements, 1)), y)
    runs = [start(1, plan, (elements, 1)) for _ in 1:TRIALS]
    return middle([1e-9 * @elapsed_ns(walk(run, y)) / steps for run in runs])
end

function advance(run)
    while (request = ask(run)) !== nothing
        advance!(run, request)
    end
end

# A whole run whose tensors are elsewhere: nothing but ask and advance.
function ask_advance(elements, steps)
    plan = Plan(solver = :euler, steps = steps)
    advance(start_detached(1, plan, (elements, 1)))
    runs = [start_detached(1, plan, (elements, 1)) for _ in 1:TRIALS]
    return middle([1e-9 * @elapsed_ns(advance(run)) / steps for run in runs])
end

function report(name, seconds, empty)
    peers = empty === nothing ? "\"peers_ms\":{},\"best_peer\":null,\"ratio\":null" :
            "\"peers_ms\":{\"empty call\":$(1e3 * empty)},\"best_peer\":\"empty call\",\"ratio\":$(empty / seconds)"
    println("{\"case\":\"$name, Julia\",\"group\":\"door\",\"dtype\":\"f32\",\"threads\":$(num_threads())," *
            "\"ours_ms\":$(1e3 * seconds),$peers,\"limit\":null,\"pct_of_limit\":null}")
end

out = Matrix{Float32}(undef, MANY, 1)
empty = seconds(empty_calls, CALLS)
report("empty call", empty, nothing)
report("ask and advance without data", ask_advance(FEW, CALLS), empty)
report("ask and tell of $FEW numbers", ask_tell(FEW, CALLS), empty)
report("Euler step of 1M numbers", ask_tell(MANY, STEPS), nothing)
report("1M normals", seconds(() -> normal!(UInt64[1], out), 1), nothing)
