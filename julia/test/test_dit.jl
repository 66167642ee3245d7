const MODEL_FILE = joinpath(@__DIR__, "..", "..", "models", "digits.safetensors")

@testset "transformer" begin
    model = DiT(MODEL_FILE)
    @test (model.width, model.height, model.channels, model.num_classes) == (8, 8, 1, 10)
    x, t, labels = golden("dit.digits.x"), golden("dit.digits.t"), golden("dit.digits.labels")
    y = model(x, t, labels)
    @test near(y, golden("dit.digits.out"); tol = 1e-5)
    @test model(x[:, :, :, 2:2], t[2:2], labels[2:2]) == y[:, :, :, 2:2]
    wide = zeros(Float32, 8, 16, 1, 4)
    strided = view(wide, :, 1:2:16, :, :)
    strided .= x
    @test model(strided, t, labels) == y
    @test model(x, 0.5, 3) == model(x, fill(0.5f0, 4), fill(3, 4))
    out = similar(y)
    @test D.forward!(out, model, x, t, Int32.(labels)) === out && out == y

    tiny = DiT(joinpath(GOLDEN_DIR, "tiny_dit.safetensors"))
    @test near(tiny(golden("dit.tiny.x"), golden("dit.tiny.t"), golden("dit.tiny.labels")), golden("dit.tiny.out"); tol = 1e-5)

    @test_throws DimensionMismatch model(x[:, :, :, 1], t, labels)
    @test_throws DimensionMismatch model(zeros(Float32, 9, 8, 1, 4), t, labels)
    @test_throws DimensionMismatch model(x, t[1:3], labels)
    @test_throws DimensionMismatch model(x, t, labels[1:3])
    @test_throws DimensionMismatch D.forward!(zeros(Float32, 8, 8, 2, 4), model, x, t, labels)
    @test_throws ArgumentError model(x, t, [0, 1, 2, 11])
    @test_throws ArgumentError model(x, t, [0, 1, 2, 1.5])
    @test_throws ArgumentError model(x, t, "1")
    @test_throws ArgumentError model(Float64.(x), t, labels)
    @test_throws ArgumentError model.colour
    @test_throws DGMError DiT("no such file")
    @test_throws DGMError DiT(@__FILE__)
    @test occursin("no such file", sprint(showerror, thrown(() -> DiT("no such file"))))

    @test D.metadata(model, "dgm.format") == "dit" && D.metadata(model, "colour") === nothing
    @test occursin("8×8×1", repr(model)) && occursin("10 classes", repr("text/plain", model))
    @test :depth in propertynames(model) && model.depth > 0
end

@testset "generation" begin
    model = DiT(MODEL_FILE)
    labels = golden("dit.digits.sample_labels")
    conditioned(x, t, request) = model(x, t, request.role === :cond ? labels : fill(10, length(labels)))
    x = D.sample(1, conditioned, D.Plan(model), (8, 8, 1, 4); x = golden("dit.digits.noise"))
    @test near(x, golden("dit.digits.sample"); tol = 1e-4)
    guided = D.Plan(model; solver = :euler, steps = 16, guidance = 2, shift = 1.5)
    x = D.sample(1, conditioned, guided, (8, 8, 1, 4); x = golden("dit.digits.noise"))
    @test near(x, golden("dit.digits.guided_sample"); tol = 1e-4)

    # The engine's own loop, and ours over ask and tell!: the same bits.
    plan = D.Plan(model; steps = 4)
    images = D.generate(5, model, plan; labels = labels)
    @test images == D.sample(5, conditioned, plan, (8, 8, 1, 4))
    @test images[:, :, :, 2:2] == D.generate(row_seeds(5, 4)[2:2], model, plan; labels = labels[2:2])
    @test size(D.generate(model; labels = 0:2)) == (8, 8, 1, 3)
    @test_throws ArgumentError D.generate(1, model, plan; labels = [10, 12])
    @test_throws ArgumentError D.generate(1, model, plan; labels = 3)
    @test_throws DimensionMismatch D.generate([1, 2], model, plan; labels = [1])

    # Two tasks on one model: the second brings its own workspace.
    tasks = [Threads.@spawn(D.generate(s, model, plan; labels = labels)) for s in (5, 5, 5)]
    @test all(t -> fetch(t) == images, tasks)
end

@testset "the example" begin
    mktempdir() do folder
        file = joinpath(folder, "digits.f32")
        script = joinpath(PROJECT, "examples", "digits.jl")
        command = `$(Base.julia_cmd()) --project=$PROJECT $script --n 3 --steps 2 --seed 9 --labels 4,2 --out $file`
        line = read(command, String)
        @test occursin(r"^julia  images=3 steps=2 seconds=[0-9.]+\n$", line)
        model = DiT(MODEL_FILE)
        expected = D.generate(9, model, D.Plan(model; steps = 2); labels = [4, 2, 4])
        @test read(file) == reinterpret(UInt8, vec(expected))
    end
end

@testset "under load" begin
    script = joinpath(PROJECT, "stress", "stress.jl")
    command = `$(Base.julia_cmd()) --threads 4 --project=$PROJECT $script`
    line = read(setenv(command, merge(Dict{String,String}(ENV), Dict("STRESS_SECONDS" => "3"))), String)
    @test occursin(r"^stress: [0-9]+ calls on [0-9]+ threads, [0-9]+ collections, memory ", line)
end
