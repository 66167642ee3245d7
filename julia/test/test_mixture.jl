@testset "Gaussian mixtures" begin
    mixture = D.GaussianMixture([2, 1, 0.05], [-1.5 2 0; 0.5 1 -2], [0.3 0.5 0.01; 0.2 1 0.02])
    @test (mixture.components, mixture.dims) == (3, 2)
    @test sprint(show, mixture) == "GaussianMixture(3 components, 2-D)"
    normal = D.GaussianMixture([1], zeros(2, 1), [4])
    x = Float32[1 -2; 3 0]
    @test normal(x) == -x ./ 4
    @test normal(x; prediction = :x0, alpha = 0.6, sigma = 0.8) ≈ 0.6 * 4 / (0.36 * 4 + 0.64) .* x
    @test D.log_density(normal, x) ≈ [-5 / 4 - log(8π), -2 / 4 - log(8π)]
    @test mixture(view(Float32[1 2 3; 4 5 6], :, 1:2:3)) == mixture(Float32[1 3; 4 6])

    # The engine's own walk, one answer at a time, and a callable of one's own: the same bits.
    target = (; process = :target, prediction = :score, steps = 12)
    for options in ((; target..., solver = :ula), (; target..., solver = :mala, warmup = 6),
                    (; target..., solver = :hmc, warmup = 6, leapfrog = 3), (; solver = :tsit5), (; steps = 9, solver = :heun),
                    (; process = :vp_cosine, prediction = :v, solver = :dpmpp_2m_sde, steps = 9),
                    (; process = :edm, prediction = :edm, solver = :heun, steps = 9),
                    (; process = :ve, prediction = :score, solver = :annealed_langevin, steps = 9))
        plan = D.Plan(; options...)
        whole = D.sample!(D.start(3, plan, (2, 300)), mixture)
        told = D.sample!(D.start(3, plan, (2, 300)), mixture; callback = (run, request) -> nothing)
        stepped = D.start(3, plan, (2, 300))
        while D.step!(stepped, mixture) end
        own = D.sample!(D.start(3, plan, (2, 300)), (x, t, r) -> if plan.numbers > 0
            (mixture(x), D.log_density(mixture, x))
        elseif options.solver === :tsit5
            # Adaptive: rows at times of their own.
            reduce(hcat, [mixture(x[:, i:i]; prediction = :velocity, alpha = 1 - Float64(t[i]), sigma = Float64(t[i]))
                          for i in eachindex(t)])
        elseif get(options, :process, :flow) === :target
            mixture(x)
        else
            mixture(x; prediction = get(options, :prediction, :velocity), alpha = r.alpha, sigma = r.sigma)
        end)
        @test D.isdone(whole)
        @test export_run(whole) == export_run(told) == export_run(stepped) == export_run(own)
        options.solver in (:mala, :hmc) && @test sum(D.accepted(whole)) > 0
    end
    golden = filter(l -> !startswith(l, '#'), readlines(joinpath(PROJECT, "..", "tests", "golden", "mixture.txt")))
    @test length(golden) == 4
    walks = Dict("ula" => (; target..., solver = :ula, steps = 50), "tsit5" => (; solver = :tsit5),
                 "hmc" => (; target..., solver = :hmc, steps = 20, warmup = 10),
                 "ddpm" => (; process = :vp_cosine, prediction = :v, solver = :ddpm, steps = 20))
    for line in golden
        name, hash = split(line)
        x = D.sample(row_seeds(7, 300), mixture, D.Plan(; walks[name]...), (2, 300))
        fnv(h, b) = (h ⊻ b) * 0x00000100000001b3
        @test string(foldl(fnv, reinterpret(UInt8, vec(x)); init = 0xcbf29ce484222325), base = 16, pad = 16) == hash
    end
    plan = D.Plan(; steps = 40)
    x = D.sample(1, mixture, plan, (2, 2000))
    @test abs(sum(x[1, :] .> 0.3) / 2000 - 0.35) < 0.1
    run = D.start(1, plan, (2, 5))
    y = D.predict(mixture, run)
    @test y isa Array{Float32} && size(y) == (2, 5)

    @test_throws DimensionMismatch D.GaussianMixture([1, 1], zeros(2, 1), [1])
    @test_throws DimensionMismatch D.GaussianMixture([1], zeros(2, 1), [1, 2, 3])
    @test_throws ArgumentError D.GaussianMixture(1, zeros(2, 1), [1])
    for bad in (() -> D.GaussianMixture([0], zeros(2, 1), [1]), () -> D.GaussianMixture([1], fill(NaN, 2, 1), [1]),
                () -> D.GaussianMixture([1], zeros(2, 1), [-1]), () -> D.GaussianMixture(Float64[], zeros(2, 0), Float64[]),
                () -> mixture(x; prediction = :consistency), () -> mixture(x; prediction = :nothing),
                () -> mixture(x; alpha = -1), () -> mixture(x; sigma = Inf), () -> mixture(x; prediction = :edm, sigma_data = 0),
                () -> mixture(Float64.(x)), () -> D.GaussianMixture([1], zeros(2, 1), [0])(x),
                () -> D.log_density(mixture, x; sigma = NaN),
                () -> D.sample(1, mixture, D.Plan(process = :ode), (2, 3)),
                () -> D.sample(1, mixture, D.Plan(guidance = 2), (2, 3)),
                () -> D.sample(1, mixture, plan, (3, 3)), () -> D.predict(mixture, D.start(1, plan, (3, 3))))
        @test thrown(bad) isa Union{ArgumentError,DGMError}
    end
    @test thrown(() -> mixture(zeros(Float32, 3, 2))) isa DimensionMismatch
    @test thrown(() -> D.predict(mixture, D.sample!(run, mixture))) isa DGMError
end
