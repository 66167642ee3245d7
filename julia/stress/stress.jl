# STRESS_SECONDS=60 julia --threads 4 --project=julia julia/stress/stress.jl
#
# Attention, sampling, the network and short-lived handles at once on every thread, while another task
# allocates and collects garbage. Every result must have the bits of the first, single-threaded one,
# and resident memory must come back: neither handles nor tensors may leak.

using DGMKernels
const D = DGMKernels

const MODEL = DiT(joinpath(@__DIR__, "..", "..", "models", "digits.safetensors"))
const PLAN = D.Plan(MODEL; steps = 3)
const X = D.normal!(3, Array{Float32}(undef, 8, 8, 1, 4))
const Q = D.normal!(4, Array{Float32}(undef, 32, 65, 4, 2))
const WEIGHT = D.normal!(5, Array{Float32}(undef, 48, 32))

network(x, t, request) = MODEL(x, t, request.role === :cond ? 7 : MODEL.num_classes)

"Takes a run apart half way, continues from the bytes: handles, headers and states come and go."
function interrupted()
    run = D.start(1, PLAN, size(X))
    D.step!(run, network)
    return copy(D.result(D.sample!(import_run(D.Plan(MODEL; steps = 3), export_run(run), size(X)), network)))
end

const JOBS = (
    () -> attention(Q, Q, Q; causal = true),
    () -> attention(PermutedDimsArray(Q, (1, 3, 2, 4)), PermutedDimsArray(Q, (1, 3, 2, 4)), PermutedDimsArray(Q, (1, 3, 2, 4))),
    () -> D.sample(1, network, PLAN, size(X)),
    () -> D.generate(1, MODEL, PLAN; labels = [1, 2]),
    () -> MODEL(X, 0.5, 3),
    () -> D.Linear(WEIGHT)(view(Q, :, 1:2:65, 1, :)),
    interrupted,
)

"Bytes of resident memory, by the libuv in every Julia."
function resident()
    bytes = Ref{Csize_t}(0)
    ccall(:uv_resident_set_memory, Cint, (Ptr{Csize_t},), bytes) == 0 || error("resident memory cannot be read")
    return Int(bytes[])
end

"Runs the jobs in turn, from number `first` on, until `deadline`; how many ran."
function work(expected, first, deadline)
    count = 0
    while time() < deadline || count < length(JOBS)
        i = mod1(first + count, length(JOBS))
        JOBS[i]() == expected[i] || error("job $i gave other bits under load")
        count += 1
        yield()                  # more workers than threads, and the collecting task, take turns
    end
    return count
end

function pressure(deadline)
    collections = 0
    while time() < deadline
        for _ in 1:50
            Array{Float32}(undef, rand(1:20_000))
        end
        GC.gc(collections % 8 == 0)
        collections += 1
        sleep(0.005)         # a collection stops the workers; let them get on
    end
    return collections
end

function under_load(expected, seconds)
    deadline = time() + seconds
    workers = [Threads.@spawn(work(expected, i, deadline)) for i in 1:max(4, Threads.nthreads())]
    collections = pressure(deadline)
    done = sum(fetch, workers)
    foreach(_ -> GC.gc(), 1:3)
    return done, collections
end

function stress(seconds)
    expected = map(job -> job(), JOBS)
    under_load(expected, seconds / 3)             # threads, compiled code and pools exist from here on
    before = resident()
    done, collections = under_load(expected, 2seconds / 3)
    growth = (resident() - before) / 2^20
    println("stress: ", done, " calls on ", Threads.nthreads(), " threads, ", collections, " collections, memory ",
            growth < 0 ? "" : "+", round(growth; digits = 1), " MiB")
    growth < 64 || error("resident memory grew by $growth MiB")
end

stress(parse(Float64, get(ENV, "STRESS_SECONDS", "60")))
