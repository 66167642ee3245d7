# Walks that every language takes: tests/conformance/runs.txt holds the options of plans and the SHA-256
# of what each evaluation reads and of the result.

const RUNS_FILE = joinpath(@__DIR__, "..", "..", "tests", "conformance", "runs.txt")

"The value of an option as the file writes it."
function option_value(name, text)
    name in D.LISTS && return parse.(Float64, split(text, ','))
    name in D.FLAGS && return parse(Bool, text)
    haskey(D.CHOICES, name) && return Symbol(text)
    return parse(Float64, text)
end

"The cases of the file that are plans: `(name, elements, options, sha256)`."
function walk_cases(path = RUNS_FILE)
    cases, name, words = [], "", String[]
    for line in eachline(path)
        part = split(line)
        isempty(part) && continue
        part[1] == "run" && (name = part[2]; words = String[])
        part[1] == "plan" && (words = part[2:end])
        if part[1] == "sha256" && !isempty(words)
            pairs = [Symbol(words[i]) => words[i+1] for i in 1:2:length(words)]
            options = (; (k => option_value(k, v) for (k, v) in pairs[2:end])...)
            push!(cases, (name, parse(Int, pairs[1][2]), options, part[2]))
        end
    end
    return cases
end

halved(x, role) = 0.5f0 .* x .+ (role === :uncond ? -0.125f0 : 0.25f0)

function walk_hash(elements, options)
    plan = D.Plan(; options...)
    run = D.start([only(row_seeds(7 + r, 1)) for r in 0:2], plan, (elements, 3))
    seen = [Float32[] for _ in 1:3]
    keep(x) = foreach(r -> append!(seen[r], view(x, :, r)), 1:3)
    while (request = ask(run)) !== nothing
        get(options, :solver, :euler) in (:bosh3, :dopri5, :tsit5, :dpm_12, :dpm_23) || keep(request.x)
        y = halved(request.x, request.role)
        if plan.outputs == 2
            y = vcat(y, 0.25f0 .* request.x .+ 0.5f0)
        end
        tell!(run, request, y)
    end
    keep(D.result(run))
    return bytes2hex(sha256(reinterpret(UInt8, htol.(reinterpret(UInt32, reduce(vcat, seen))))))
end

@testset "walk $name" for (name, elements, options, hash) in walk_cases()
    @test walk_hash(elements, options) == hash
end

@testset "the walks were read" begin
    @test length(walk_cases()) > 100
end

@testset "image to image, masks and flow maps" begin
    plan = D.Plan(steps = 8, start_sigma = 0.5, inpaint = true)
    data, mask = fill(2f0, 3, 2), Float32[1 0; 0 0; 1 1]
    model(x, t, request) = zero(x)
    run = D.start(1, plan, (3, 2); data = data, known = 3data, mask = mask)
    z = D.start(1, D.Plan(), (3, 2))
    @test D.result(run) ≈ 0.5f0 .* data .+ 0.5f0 .* D.result(z)
    x = D.result(D.sample!(run, model))
    @test x[mask .== 1] == 3data[mask .== 1] && all(x[mask .== 0] .!= 6)
    @test thrown(() -> D.start(1, plan, (3, 2); data = data, x = data)) isa ArgumentError
    @test thrown(() -> D.set_known!(run, data, mask[:, 1])) isa DimensionMismatch
    @test thrown(() -> D.set_known!(z, data, mask)) isa Union{DGMError,ArgumentError}
    @test thrown(() -> D.Plan(zero_snr = 1)) isa ArgumentError
    @test thrown(() -> D.Plan(sigmas = Float64[])) isa ArgumentError
    request = ask(D.start(1, D.Plan(solver = :flow_map, steps = 2), (3, 2)))
    @test (request.t, request.t_to) == (1.0, 0.5)
end

@testset "learned variances take two outputs" begin
    plan = D.Plan(process = :vp_linear, prediction = :epsilon, solver = :ddpm, variance = :learned_range, steps = 3)
    x = D.sample(1, (x, t, request) -> vcat(0.5f0 .* x, zero(x)), plan, (4, 2))
    @test size(x) == (4, 2) && all(isfinite, x)
    @test thrown(() -> D.sample(1, (x, t, request) -> x, plan, (4, 2))) isa DimensionMismatch
end

@testset "presets" begin
    @test D.Plan(:sd3) == D.Plan(shift = 3, steps = 28)
    @test D.Plan(:sd3; steps = 5) == D.Plan(shift = 3, steps = 5)
    @test thrown(() -> D.Plan(:sd9)) isa ArgumentError
end
