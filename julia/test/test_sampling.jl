using Random: MersenneTwister

# The exact model of data that is normal with mean MU and deviation STD: x = alpha x0 + sigma noise.
const MU, STD = golden("sampler.mu_std")
exact_noise(x, a, s) = s * (x - a * MU) / (a^2 * STD^2 + s^2)
exact_data(x, a, s) = MU + a * STD^2 * (x - a * MU) / (a^2 * STD^2 + s^2)

noise_model(x, t, request) = Float32.(exact_noise.(Float64.(x), request.alpha, request.sigma))
# Every row has its own time: what an adaptive solver asks for.
function flow_model(x, t, request)
    times = reshape(Float64.(t), ntuple(_ -> 1, ndims(x) - 1)..., :)
    return Float32.(exact_noise.(x, 1 .- times, times) .- exact_data.(x, 1 .- times, times))
end

const START = golden("sampler.x_T")
const DIMS = size(START)

@testset "solvers against the reference" begin
    for solver in (:euler, :midpoint, :heun, :rk4), shift in (1, 3)
        plan = D.Plan(; process = :flow, prediction = :velocity, solver = solver, steps = 10, shift = shift)
        x = D.sample(1, flow_model, plan, DIMS; x = START)
        @test near(x, golden("sampler.flow.$solver.shift$shift"); tol = 1e-5)
    end
    vp = (process = :vp_linear, prediction = :epsilon)
    for spacing in (:leading, :trailing)
        plan = D.Plan(; vp..., solver = :ddim, spacing = spacing, steps = 10, eta = 0)
        @test near(D.sample(1, noise_model, plan, DIMS; x = START), golden("sampler.ddim.$spacing.out"); tol = 1e-5)
    end
    for (name, solver) in (("dpmpp_2m", :dpmpp_2m), ("unipc_bh2", :unipc))
        # The reference ends in clean data, which is the model time -1.
        times = [golden("sampler.$name.timesteps"); -1]
        plan = D.Plan(; vp..., solver = solver, times = times)
        @test near(D.sample(1, noise_model, plan, DIMS; x = START), golden("sampler.$name.out"); tol = 1e-5)
    end
    sigmas = golden("sampler.flow_match_euler.sigmas")
    plan = D.Plan(; process = :flow, prediction = :velocity, solver = :euler, times = sigmas)
    @test near(D.sample(1, flow_model, plan, DIMS; x = START), golden("sampler.flow_match_euler.out"); tol = 1e-5)
end

const PLANS = [
    [(process = :flow, prediction = :velocity, solver = s, steps = 4) for s in (:euler, :midpoint, :heun, :rk4)]...,
    [(process = :vp_linear, prediction = :epsilon, solver = s, steps = 4) for s in (:ddpm, :ddim, :dpmpp_2m, :unipc)]...,
    (process = :vp_cosine, prediction = :epsilon, solver = :ddim, eta = 1, steps = 4, clip = 1),
    (process = :flow, prediction = :velocity, solver = :bosh3, rtol = 1e-2, atol = 1e-2),
    (process = :flow, prediction = :velocity, solver = :euler, steps = 3, guidance = 2.5),
]
model_of(options) = options.process === :flow ? flow_model : noise_model

@testset "a run continues from any ask: $(options.solver)" for options in PLANS
    plan, model = D.Plan(; options...), model_of(options)
    seeds = row_seeds(3, 5)
    whole = D.sample(seeds, model, plan, (3, 2, 5))
    @test all(isfinite, whole) && size(whole) == (3, 2, 5)
    run, asks = D.start(seeds, plan, (3, 2, 5)), 0
    while true
        bytes = export_run(run)
        resumed = import_run(D.Plan(; options...), bytes, (3, 2, 5))
        @test export_run(resumed) == bytes
        @test D.result(D.sample!(resumed, model)) == whole
        request = ask(run)
        request === nothing && break
        asks += 1
        @test (again = ask(run); (again.id, again.x, again.times) == (request.id, request.x, request.times))
        tell!(run, request, model(request.x, request.times, request))
    end
    @test asks > 0 && D.isdone(run) && D.result(run) == whole
    # A row is the same whoever shares its batch.
    @test D.sample(seeds[4:4], model, plan, (3, 2, 1)) == whole[:, :, 4:4]
end

@testset "states that take turns" begin
    n = D.LARGE_STATE ÷ 2
    # The last step of the second remembers nothing for another; the third has tensors that would have to be copied.
    for (options, turned) in (((solver = :euler, guidance = 2), ==(5)), ((solver = :dpmpp_2m,), ==(4)), ((solver = :ipndm,), <(4)))
        plan = D.Plan(; steps = 5, options...)
        run, twin = D.start([1, 2], plan, (n, 2)), D.start([1, 2], plan, (n, 2))
        spare, id, turns = D.start([1, 2], plan, (n, 2)), 0, 0
        while (request = ask(run)) !== nothing
            outputs = length(request.roles)
            y = 0.25f0 .* reshape(request.x, n, 2, 1) .+ reshape(Float32.(1:outputs), 1, 1, outputs)
            outputs == 1 && (y = reshape(y, n, 2))
            y[end] = NaN32
            before = (copy(D.result(run)), request.id)
            @test_throws DGMError tell!(run, request, y)
            @test (D.result(run), ask(run).id) == before
            y[end] = 0
            x, state = D.result(run), run.state
            @test tell!(spare, twin, request, y) === spare
            @test ask(twin).id == request.id                               # twin is where it was
            spare, twin = twin, spare
            header = twin.header
            @test tell!(run, request, y) === run
            turns += run.state !== state
            @test D.result(run) == D.result(twin) && run.header == header
        end
        @test ask(twin) === nothing
        @test turned(turns)
    end
    plan = D.Plan(steps = 3)
    run, other = D.start(1, plan, (2, 1)), D.start(1, plan, (2, 2))
    request = ask(run)
    @test_throws ArgumentError tell!(run, run, request, request.x)
    @test_throws DimensionMismatch tell!(other, run, request, request.x)
    @test_throws ArgumentError tell!(D.start(1, D.Plan(steps = 3), (2, 1)), run, request, request.x)
    @test_throws DimensionMismatch tell!(D.start(1, plan, (2, 1)), run, request, zeros(Float32, 3, 1))
    @test_throws DGMError tell!(D.start(1, plan, (2, 1)), run, request, fill(NaN32, 2, 1))
end

@testset "runs" begin
    plan = D.Plan(; process = :flow, prediction = :velocity, solver = :heun, steps = 3)
    shape = (2, 3)
    # Any callable is a model; what it returns may be any array of that size.
    struct_model = Scaled(0.5)
    reference = D.sample(1, (x, t, request) -> 0.5f0 .* x, plan, shape)
    @test D.sample(1, struct_model, plan, shape) == reference
    @test D.sample(1, (x, t, request) -> PermutedDimsArray(permutedims(0.5f0 .* x), (2, 1)), plan, shape) == reference
    @test D.sample(1, (x, t, request) -> 0.5 .* Float64.(x), plan, shape) == reference
    @test D.sample(MersenneTwister(2), struct_model, plan, shape) == D.sample(MersenneTwister(2), struct_model, plan, shape)
    @test D.sample(struct_model, plan, shape) isa Matrix{Float32}

    run = D.start(1, plan, shape)
    request = ask(run)
    @test request isa D.Request && size(request.x) == shape && length(request.times) == 3
    @test (request.step, request.stage, request.role, request.t) == (0, 0, :cond, 1.0)
    @test request.uniform_times && request.active == 3
    @test request.x == D.normal!(1, zeros(Float32, shape); purpose = :initial)
    before = export_run(run)
    @test_throws DimensionMismatch tell!(run, request, zeros(Float32, 3, 2))
    @test_throws ArgumentError tell!(run, request, nothing)
    @test_throws ArgumentError tell!(run, request, fill("a", shape))
    @test thrown(() -> tell!(run, request, fill(NaN32, shape))) isa Exception
    @test export_run(run) == before
    tell!(run, request, request.x)
    @test thrown(() -> tell!(run, request, request.x)) isa DGMError        # told twice
    @test D.step!(run, struct_model) && ask(run).step == 1
    @test D.step!(run, struct_model) && D.step!(run, struct_model) && !D.step!(run, struct_model)
    @test ask(run) === nothing && occursin("done", repr(run))

    # A model that fails leaves the run where it was.
    run = D.start(1, plan, shape)
    @test_throws ErrorException D.sample!(run, (x, t, request) -> request.step == 1 ? error("no") : struct_model(x, t, request))
    @test ask(run).step == 1
    @test D.result(D.sample!(run, struct_model)) == reference
    seen = Int[]
    D.sample!(D.start(1, plan, shape), struct_model; callback = (run, request) -> push!(seen, request.step))
    @test seen == [0, 0, 1, 1, 2, 2]

    @test size(D.result(import_run(plan, before))) == shape
    @test_throws DimensionMismatch import_run(plan, before, (3, 2))
    @test_throws Exception import_run(plan, before[1:end-1])
    @test_throws Exception import_run(plan, xor.(before, 0x01))
    @test_throws Exception import_run(D.Plan(; steps = 5), before)
    @test_throws DimensionMismatch D.start(1, plan, (4,))
    # What to start from is taken as it is, so only Float32 will do; its layout does not matter.
    x = randn(Float32, 4, 3)
    @test D.result(D.start(1, plan, (4, 3); x = view(zeros(Float32, 8, 3) .= repeat(x; inner = (2, 1)), 1:2:8, :))) == x
    @test D.result(D.start(1, plan, (4, 3); x = transpose(permutedims(x)))) == x
    @test_throws ArgumentError D.start(1, plan, (4, 3); x = Float64.(x))
    @test_throws ArgumentError D.start(1, plan, (4, 3); x = 1f0)
    @test_throws DimensionMismatch D.start(1, plan, (4, 3); x = x[:, 1:2])
    @test_throws DimensionMismatch D.start(1, plan, (4, 0))
    @test_throws DimensionMismatch D.start([1, 2], plan, (4, 3))
    @test_throws DimensionMismatch D.start(1, plan, (4, 3); x = zeros(Float32, 3, 4))
    @test_throws ArgumentError D.start("1", plan, (4, 3))
end

@testset "guidance" begin
    plan = D.Plan(; process = :flow, prediction = :velocity, solver = :euler, steps = 2, guidance = 3)
    roles = Symbol[]
    x = D.sample(1, (x, t, r) -> (push!(roles, r.role); r.role === :cond ? 2x : x), plan, (2, 2))
    @test roles == [:cond, :uncond, :cond, :uncond]
    @test isapprox(x, D.sample(1, (x, t, r) -> 4x, D.Plan(; steps = 2, solver = :euler), (2, 2)); rtol = 1e-5)
end

@testset "outputs told at once: $options" for options in
    ((guidance = 3,), (guidance = 3, guidance_rescale = 0.5), (guidance = 3, guidance_weak = 2))
    plan, dims = D.Plan(; solver = :heun, steps = 3, options...), (5, 2)
    gain(role) = (cond = 0.5f0, uncond = 0.25f0, weak = 0.125f0)[role]
    alone = D.sample(4, (x, t, r) -> gain(r.role) .* x, plan, dims)
    run = D.start(4, plan, dims)
    while (request = ask(run)) !== nothing
        @test first(request.roles) === request.role
        tell!(run, request, cat((gain(role) .* request.x for role in request.roles)...; dims = 3))
    end
    @test D.result(run) == alone
    run = D.start(4, plan, dims)
    request = ask(run)
    error = thrown(() -> tell!(run, request, zeros(Float32, 5, 2, 4)))
    @test error isa DimensionMismatch && occursin("y has size (5, 2, 4), expected (5, 2), or (5, 2, n)", error.msg)
    tell!(run, request, request.x .* 0.5f0)
    @test ask(run).roles == Base.tail(request.roles)
end

@testset "autoguidance" begin
    plan = D.Plan(; steps = 2, solver = :euler, guidance = 3, guidance_mode = :auto)
    roles = Symbol[]
    x = D.sample(1, (x, t, r) -> (push!(roles, r.role); r.role === :cond ? 2x : x), plan, (2, 2))
    @test roles == [:cond, :weak, :cond, :weak]
    @test x == D.sample(1, (x, t, r) -> r.role === :cond ? 2x : x, D.Plan(; steps = 2, solver = :euler, guidance = 3), (2, 2))
end

@testset "plans" begin
    plan = D.Plan(; solver = :heun, steps = 7)
    @test plan == D.Plan(; solver = :heun, steps = 7) && hash(plan) == hash(D.Plan(; solver = :heun, steps = 7))
    @test plan != D.Plan(; solver = :heun, steps = 8)
    @test length(split(D.describe(plan), '\n')) > 3
    @test D.level(D.Plan(), 0.25) === (alpha = 0.75, sigma = 0.25)
    @test occursin("t is NaN", sprint(showerror, thrown(() -> D.level(D.Plan(), NaN))))
    @test !occursin('\n', repr(plan)) && repr("text/plain", plan) == chomp(D.describe(plan))
    @test D.Plan(; solver = "heun", steps = 7) == plan
    @test_throws ArgumentError D.Plan(; solver = :best)
    @test_throws ArgumentError D.Plan(; steps = 0)
    @test_throws ArgumentError D.Plan(; steps = 1.5)
    @test_throws ArgumentError D.Plan(; speed = 3)
    @test_throws ArgumentError D.Plan(; shift = NaN)
    @test_throws ArgumentError D.Plan(; shift = "a")
    @test_throws ArgumentError D.Plan(; times = Float64[])
    @test_throws ArgumentError D.Plan(; times = [0.2, 0.8])
    @test occursin("heun", thrown(() -> D.Plan(; solver = :best)).msg)
end

@testset "collections of garbage in between" begin
    plan = D.Plan(; process = :flow, prediction = :velocity, solver = :rk4, steps = 3)
    expected = D.sample(1, flow_model, plan, (64, 3))
    for i in 1:30
        fresh = D.Plan(; process = :flow, prediction = :velocity, solver = :rk4, steps = 3)
        x = D.sample(1, (x, t, r) -> (i % 3 == 0 && GC.gc(false); flow_model(x, t, r)), fresh, (64, 3))
        @test x == expected
        D.Linear(randn(Float32, 8, 8))
    end
    GC.gc()
    @test D.sample(1, flow_model, plan, (64, 3)) == expected
end

"Arrays of the caller: what `DGMKernels.operations` lists, done with broadcasts."
struct Host
    seeds::Vector{UInt64}
    state::Vector{Matrix{Float32}}
    registers::Vector{Matrix{Float32}}
end

function read_source(host::Host, term, y)
    term.source === :output && return y
    term.source === :state && return host.state[term.index]
    term.source === :register && return host.registers[term.index]
    return D.normal!(host.seeds, similar(y); purpose = term.purpose, draw = term.draw)
end

function apply!(host::Host, plan, id, y)
    for o in D.operations(plan, id)
        @test o.kind === :combine && o.mask == 0
        sum = zero(y)
        for term in o.terms
            @test term.measured == 0
            sum .= fma.(read_source(host, term, y), Float32(term.coefficient), sum)
        end
        o.clip == 0 || (sum .= clamp.(sum, -Float32(o.clip), Float32(o.clip)))
        (o.target === :state ? host.state : host.registers)[o.index] .= sum
    end
end

@testset "coefficients mode: $options" for options in (
    (process = :flow, prediction = :velocity, solver = :heun, guidance = 2),
    (process = :flow, prediction = :velocity, solver = :dpmpp_2m, clip = 0.75),
    (process = :flow, prediction = :velocity, solver = :dpmpp_2m_sde, noise = :brownian),
    (process = :vp_cosine, prediction = :epsilon, solver = :unipc),
    (process = :vp_cosine, prediction = :epsilon, solver = :sa_solver),
    (process = :vp_cosine, prediction = :epsilon, solver = :ddpm, clip = 1),
)
    plan, dims = D.Plan(; steps = 5, options...), (9, 3)
    model(x, t, request) = x .* (request.role === :cond ? 0.5f0 : 0.25f0) .+ Float32(request.t) * 1f-3
    whole = D.sample(4, model, plan, dims)
    for stop in (typemax(Int), 3)
        run = D.start_detached(4, plan, dims)
        host = Host(run.seeds, [zeros(Float32, dims) for _ in 1:plan.slots], [zeros(Float32, dims) for _ in 1:4])
        host.state[1] .= D.normal!(run.seeds, zeros(Float32, dims); purpose = :initial) .* Float32(ask(run).sigma)
        apply!(host, plan, 0, zeros(Float32, dims))
        while (request = ask(run)) !== nothing && request.id < stop
            @test request.x === nothing
            apply!(host, plan, request.id, model(host.state[request.slot], request.times, request))
            D.advance!(run, request)
            @test_throws DGMError D.advance!(run, request)
        end
        # The rest, if any, by ask and tell.
        stop == 3 || @test D.isdone(run) && host.state[1] == whole
        @test D.result(D.sample!(D.attach(run, host.state), model)) == whole
    end
end

@testset "a length measured in the data" begin
    plan = D.Plan(process = :ve, prediction = :epsilon, solver = :predictor_corrector, snr = 0.2, steps = 3)
    kinds = [o.kind for o in D.operations(plan, 1)]
    @test kinds == [:combine, :langevin, :combine]
    @test D.operations(plan, 1)[2].parameters[1] == 0.2
    @test [t.measured for t in D.operations(plan, 1)[3].terms] == [0, 1, 2]
end

@testset "plain ODEs" begin
    for solver in (:bosh3, :dopri5, :tsit5), turned in (false, true)
        times = turned ? [6, 0] : [0, 6]
        plan = D.Plan(process = :ode, solver = solver, times = times, save_at = turned ? (6:-2:0) : (0:2:6),
                      rtol = 1e-5, atol = 1e-6, controller = [0.7, -0.4])
        run = D.start(1, plan, (2, 3); x = repeat(Float32[1, 0], 1, 3))
        D.sample!(run, (x, t, request) -> [x[2:2, :]; -x[1:1, :]])
        kept = D.saved(run)
        @test size(kept) == (2, 3, 4)
        @test kept[:, :, end] == D.result(run)
        for (k, t) in enumerate(0:2:6), row in 1:3
            @test kept[:, row, k] ≈ [cos(t), turned ? sin(t) : -sin(t)] atol = 1e-3
        end
    end
    @test size(D.saved(D.start(1, D.Plan(), (2, 3)))) == (2, 3, 0)
    fixed = D.Plan(process = :ode, solver = :rk5, t_start = 1, t_end = 0, steps = 4)
    @test D.sample(1, (x, t, request) -> x, fixed, (1, 1); x = ones(Float32, 1, 1))[1] ≈ exp(-1) atol = 1e-6
    @test_throws ArgumentError D.Plan(process = :ode, solver = :ddim)
    @test_throws ArgumentError D.Plan(t_end = 2)
    @test_throws ArgumentError D.Plan(process = :ode, solver = :dopri5, save_at = [2.0])
    # Steps end where the slope jumps.
    jump(x, t, request) = fill!(similar(x), t[1] < 0.25 ? 1 : t[1] < 0.75 ? -2 : 3)
    for solver in (:bosh3, :dopri5, :tsit5)
        plan = D.Plan(process = :ode, solver = solver, stop_at = [0.25, 0.75])
        @test D.sample(1, jump, plan, (1, 1); x = zeros(Float32, 1, 1))[1] ≈ 0 atol = 1e-6
    end
    @test_throws ArgumentError D.Plan(process = :ode, solver = :dopri5, stop_at = [1.0])
    @test_throws ArgumentError D.Plan(process = :ode, solver = :heun, stop_at = [0.5])
    for solver in (:dpm_12, :dpm_23)
        plan = D.Plan(process = :ve, prediction = :x0, solver = solver)
        x = D.sample(1, (x, t, request) -> zero(x), plan, (1, 1); x = ones(Float32, 1, 1))
        @test x[1] ≈ 0.01 / 50 atol = 1e-6
        @test_throws ArgumentError D.Plan(process = :ode, solver = solver)
    end
end

@testset "equations with noise" begin
    # Ornstein-Uhlenbeck: from a point to its stationary distribution.
    for solver in (:euler_maruyama, :milstein, :stochastic_heun, :sra1, :sriw1)
        plan = D.Plan(process = :sde, solver = solver, t_end = 5, steps = 100)
        @test plan.outputs == 2
        model(x, t, request) = vcat(-x, fill(sqrt(2f0), size(x)))
        x = D.sample(1, model, plan, (20_000, 1); x = fill(2f0, 20_000, 1))
        @test abs(sum(x) / length(x) - 2exp(-5)) < 0.04
        @test abs(sum(abs2, x) / length(x) - 1) < 0.06
    end
    @test_throws ArgumentError D.Plan(process = :sde)
    @test D.Plan(process = :sub_vp, prediction = :score, beta_start = 0.1, beta_end = 20).slots == 1
end

@testset "outputs that are not finite" begin
    y = reshape(Float32[0, NaN, 0, 0], 2, 2)
    refusing = D.start([1, 2], D.Plan(steps = 1), (2, 2))
    @test_throws D.DGMError D.tell!(refusing, D.ask(refusing), y)
    run = D.start([1, 2], D.Plan(steps = 1, non_finite = :propagate), (2, 2))
    D.tell!(run, D.ask(run), y)
    @test D.ask(run) === nothing && isfinite.(D.result(run)) == isfinite.(y)
    @test_throws ArgumentError D.Plan(solver = :bosh3, non_finite = :propagate)
    @test_throws ArgumentError D.Plan(non_finite = true)
end

@testset "log densities" begin
    x = Float32[3 0 1; -1.5 1 2]
    exact = [-(a^2 + b^2) / 18 - log(2pi * 9) for (a, b) in eachcol(x)]
    for likelihood in (:exact, :hutchinson, :hutchinson_normal), solver in (:tsit5, :rk4)
        plan = D.Plan(process = :ode, solver = solver, likelihood = likelihood)
        @test plan.numbers == 1
        run = D.start(7, plan, (2, 3); x = x)
        e = likelihood === :exact ? nothing : D.probe(run)
        numbers() = -log(3) .* (e === nothing ? fill(2, 3) : vec(sum(abs2, e; dims = 1)))
        D.sample!(run, (x, t, request) -> (-Float32(log(3)) .* x, numbers()))
        estimated = likelihood === :hutchinson_normal
        estimated || @test D.log_density(run) ≈ exact atol = 1e-3
        @test D.divergence(run) ≈ numbers() atol = 1e-6
        @test D.bits_per_dimension(run) ≈ -D.log_density(run) ./ (2log(2))
    end
    plan = D.Plan(process = :ode, solver = :rk4, likelihood = :exact)
    run = D.start(7, plan, (2, 3))
    @test_throws D.DGMError D.log_density(run)
    @test_throws D.DGMError D.probe(run)
    @test_throws DimensionMismatch D.tell!(run, D.ask(run), (x, [1.0, 2.0]))
    @test_throws DimensionMismatch D.tell!(run, D.ask(run), x)
    @test_throws ArgumentError D.Plan(likelihood = :exact)
end

@testset "Markov chains" begin
    model(x, t, request) = (1 .- x, vec(-sum(abs2, x .- 1; dims = 1) ./ 2))
    for (solver, options) in ((:mala, (; step_size = 0.5)), (:hmc, (; leapfrog = 4, step_size = 0.01)))
        plan = D.Plan(; process = :target, prediction = :score, solver = solver, steps = 200, warmup = 100, options...)
        run = D.start(1, plan, (2, 300))
        draws = Vector{Float64}[]
        D.sample!(run, model; callback = (run, request) -> push!(draws, D.result(run)[1, :]))
        x = D.result(run)
        @test abs(sum(x) / length(x) - 1) < 0.15
        @test abs(sum(abs2, x .- 1) / length(x) - 1) < 0.25
        rate = sum(D.accepted(run)) / (300 * 100)
        @test 0.4 < rate < 1
        @test all(D.step_sizes(run) .> 0.05)
        chains = permutedims(reduce(hcat, draws[end÷2:end]))
        @test D.split_r_hat(chains) < 1.2
        @test 300 < D.effective_sample_size(chains) < 30 * length(chains)
    end
    ula = D.Plan(process = :target, prediction = :score, solver = :ula, steps = 100)
    x = D.sample(1, (x, t, request) -> -x, ula, (1, 4000))
    @test abs(sum(abs2, x) / length(x) - 1) < 0.15
    @test_throws ArgumentError D.accepted(D.start(1, ula, (1, 1)))
    @test_throws DimensionMismatch D.split_r_hat(zeros(3, 2))
    @test_throws ArgumentError D.Plan(process = :target, solver = :hmc)
end

@testset "two guidances in one step" begin
    plan = D.Plan(steps = 1, guidance = 3, guidance_weak = 2)
    roles, outputs = Symbol[], (cond = 0.5f0, uncond = 0.25f0, weak = 0.125f0)
    x = D.sample!(D.start(1, plan, (3, 2); x = zeros(Float32, 3, 2)),
                  (x, t, r) -> (push!(roles, r.role); fill(outputs[r.role], size(x))))
    @test roles == [:cond, :uncond, :weak]
    @test D.result(x) == fill(-(0.25f0 + 3 * 0.25f0 + 0.375f0), 3, 2)
end

@testset "coefficients mode refuses" begin
    plan = D.Plan(; steps = 2)
    @test_throws ArgumentError D.operations(plan, 3)
    @test_throws ArgumentError D.operations(plan, -1)
    @test_throws DimensionMismatch D.start_detached(1, plan, (4,))
    @test_throws DimensionMismatch D.start_detached(1, plan, (4, 0))
    run = D.start_detached(plan, (4, 2))
    @test occursin("4×2", repr(run)) && !D.isdone(run)
    @test_throws DimensionMismatch D.attach(run, [zeros(Float32, 4, 3)])
    @test_throws DimensionMismatch D.attach(run, [])
    adaptive = D.Plan(; solver = :bosh3)
    @test_throws ArgumentError D.operations(adaptive, 0)
    @test_throws ArgumentError D.start_detached(1, adaptive, (4, 2))
end

@testset "rows at times of their own: $solver" for solver in (:euler, :heun, :dpmpp_2m, :euler_ancestral_rf)
    options = (solver = solver, steps = 4, guidance = 2)
    dims = (5, 3)
    model(x, t, r) = x .* (r.role === :cond ? 0.5f0 : 0.25f0) .+ 0.1f0 .* t'
    whole = D.sample(1, model, D.Plan(; options...), dims)
    run = D.start(1, D.Plan(; options..., per_row = true), dims)
    for round in 1:6
        @test D.select!(run, [round >= r for r in 1:3]) === run
        active = D.row_active(run)
        @test D.step!(run, (x, t, r) -> (y = model(x, t, r); y[:, .!D.row_active(run)] .= NaN32; y))
        @test D.row_steps(run) == [clamp(round - r + 1, 0, 4) for r in 1:3]
        @test active == [0 <= round - r < 4 for r in 1:3]
        round == 2 && (run = import_run(run.plan, export_run(run), dims))
    end
    @test D.isdone(run) && D.result(run) == whole
    run = D.start(1, run.plan, dims)
    before = D.result(run)[:, 2]
    D.finish_rows!(run, [false, true, false])
    @test D.row_steps(run) == [0, 4, 0] && ask(run).times == [1, 0, 1] && !ask(run).uniform_times
    @test D.result(D.sample!(run, model))[:, 2] == before
    @test_throws DimensionMismatch D.select!(run, [true])
    @test_throws ArgumentError D.select!(run, [1, 0, 1])
    @test thrown(() -> D.select!(D.start(1, D.Plan(; options...), dims), trues(3))) isa DGMError
    @test_throws ArgumentError D.Plan(; solver = :bosh3, per_row = true)
    @test_throws ArgumentError D.Plan(; per_row = 1)
end
