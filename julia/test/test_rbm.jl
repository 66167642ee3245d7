@testset "Restricted Boltzmann machines" begin
    V, H, B = 20, 12, 300
    rbm = D.Rbm(Float32[((7i + 3j) % 11 - 5) / 8 for j in 0:H-1, i in 0:V-1],
                Float32[(5i % 7 - 3) / 8 for i in 0:V-1], Float32[(3j % 5 - 2) / 8 for j in 0:H-1])
    @test (rbm.visible, rbm.hidden) == (V, H)
    @test sprint(show, rbm) == "Rbm(20 visible, 12 hidden)"
    data, seeds = Float32[(r + i) % 2 for i in 0:V-1, r in 0:B-1], row_seeds(7, B)
    v = D.gibbs(seeds, rbm, data; steps = 20)
    gradient = D.cd_gradient(rbm, data, v)
    tempered, h, betas = copy(data), zeros(Float32, H, B), [1, 0.75, 0.25]
    for step in 0:9
        D.gibbs!(seeds, rbm, tempered; first_step = step, inverse_temperatures = betas, hidden = h)
        log_density = -D.energy(rbm, tempered, h)
        rows, v_before = reshape(copy(log_density), 3, 100), reshape(copy(tempered), V, 3, 100)
        accepted = D.replica_exchange!(seeds, tempered, log_density; inverse_temperatures = betas, step = step)
        @test size(accepted) == (2, 100) && any(accepted[step % 2 + 1, :]) && !any(accepted[2 - step % 2, :])
        # What has changed places has taken its density along.
        for ladder in 1:100, t in 1:2
            accepted[t, ladder] || continue
            rows[[t, t + 1], ladder] = rows[[t + 1, t], ladder]
            v_before[:, [t, t + 1], ladder] = v_before[:, [t + 1, t], ladder]
        end
        @test vec(rows) == log_density && vec(v_before) == vec(tempered)
    end
    got = Dict("gibbs" => v, "hidden_probabilities" => D.hidden_probabilities(rbm, v), "free_energy" => D.free_energy(rbm, v),
               "weights" => gradient.weights, "visible_bias" => gradient.visible_bias,
               "hidden_bias" => gradient.hidden_bias, "tempered" => tempered)
    golden = filter(l -> !startswith(l, '#'), readlines(joinpath(PROJECT, "..", "tests", "golden", "rbm.txt")))
    @test length(golden) == 7
    for line in golden
        name, hash = split(line)
        fnv(h, b) = (h ⊻ b) * 0x00000100000001b3
        @test string(foldl(fnv, reinterpret(UInt8, vec(got[name])); init = 0xcbf29ce484222325), base = 16, pad = 16) == hash
    end
    # By the definitions, with the matrices as Julia writes them.
    W = Float64[((7i + 3j) % 11 - 5) / 8 for j in 0:H-1, i in 0:V-1]
    b, c = [(5i % 7 - 3) / 8 for i in 0:V-1], [(3j % 5 - 2) / 8 for j in 0:H-1]
    σ(x) = 1 / (1 + exp(-x))
    @test D.hidden_probabilities(rbm, v) ≈ σ.(W * v .+ c)
    @test D.visible_probabilities(rbm, h) ≈ σ.(W' * h .+ b)
    @test D.free_energy(rbm, v) ≈ -vec(b' * v) - vec(sum(log1p.(exp.(W * v .+ c)); dims = 1))
    @test D.energy(rbm, v, h) ≈ -vec(b' * v) - vec(c' * h) - vec(sum(h .* (W * v); dims = 1))
    mean_of(v) = σ.(W * v .+ c) * v' ./ size(v, 2)
    @test maximum(abs.(gradient.weights .- (mean_of(data) .- mean_of(v)))) < 1e-6
    # Steps in two parts, a column alone, views, generators.
    whole = D.gibbs(seeds, rbm, data; steps = 7)
    @test D.gibbs(seeds, rbm, D.gibbs(seeds, rbm, data; steps = 3); first_step = 3, steps = 4) == whole
    @test D.gibbs(seeds[5:5], rbm, data[:, 5:5]; steps = 7) == whole[:, 5:5]
    @test D.hidden_probabilities(rbm, view(v, :, 1:2:9)) == D.hidden_probabilities(rbm, v)[:, 1:2:9]
    @test D.gibbs(3, rbm, data) == D.gibbs(row_seeds(3, B), rbm, data)
    @test size(D.gibbs(rbm, data)) == size(data)
    one, density = Float32[1 2], [-3.0, -1.0]
    @test D.replica_exchange!([5, 6], one, density; inverse_temperatures = [1, 0.1], step = 0) == trues(1, 1)
    @test one == [2 1] && density == [-1, -3]

    w, few = zeros(Float32, 2, 3), zeros(Float32, 3, 4)
    small = D.Rbm(w, zeros(Float32, 3), zeros(Float32, 2))
    for bad in (() -> D.Rbm(w, zeros(Float32, 2), zeros(Float32, 2)), () -> D.Rbm(w, zeros(Float32, 3), zeros(Float32, 3)),
                () -> D.Rbm(zeros(Float32, 3), zeros(Float32, 3), zeros(Float32, 2)),
                () -> D.hidden_probabilities(small, w), () -> D.visible_probabilities(small, few),
                () -> D.free_energy(small, w), () -> D.energy(small, few, w), () -> D.gibbs(1, small, w),
                () -> D.gibbs([1], small, few), () -> D.gibbs(1, small, few; hidden = zeros(Float32, 2, 3)),
                () -> D.cd_gradient(small, w, few), () -> D.cd_gradient(small, few, w),
                () -> D.replica_exchange!(1, few, [0.0]; inverse_temperatures = [1, 2], step = 0))
        @test thrown(bad) isa DimensionMismatch
    end
    nan, half = fill(NaN32, 2, 3), fill(0.5f0, 3, 4)
    for (name, bad) in ("weights" => () -> D.Rbm(nan, zeros(Float32, 3), zeros(Float32, 2)),
                        "weights" => () -> D.Rbm(Float64.(w), zeros(Float32, 3), zeros(Float32, 2)),
                        "weights" => () -> D.Rbm(zeros(Float32, 0, 3), zeros(Float32, 3), Float32[]),
                        "hidden_bias" => () -> D.Rbm(w, zeros(Float32, 3), Float32[0, Inf]),
                        "v is 2" => () -> D.hidden_probabilities(small, fill(2f0, 3, 4)),
                        "h is -1" => () -> D.visible_probabilities(small, fill(-1f0, 2, 4)),
                        "v is NaN" => () -> D.free_energy(small, fill(NaN32, 3, 4)),
                        "v is 0.5" => () -> D.gibbs(1, small, half), "steps" => () -> D.gibbs(1, small, few; steps = -1),
                        "first_step" => () -> D.gibbs(1, small, few; first_step = -1),
                        "steps" => () -> D.gibbs(1, small, few; first_step = 2^31),
                        "steps is 0" => () -> D.gibbs(1, small, few; steps = 0, hidden = zeros(Float32, 2, 4)),
                        "inverse_temperatures" => () -> D.gibbs(1, small, few; inverse_temperatures = [1, 1, 1]),
                        "inverse_temperatures" => () -> D.gibbs(1, small, few; inverse_temperatures = [-1]),
                        "inverse_temperatures" => () -> D.gibbs(1, small, few; inverse_temperatures = :a),
                        "v_data" => () -> D.cd_gradient(small, zeros(Float32, 3, 0), few),
                        "v_chain" => () -> D.cd_gradient(small, few, zeros(Float32, 3, 0)),
                        "source of randomness" => () -> D.gibbs(:a, small, few),
                        "inverse_temperatures" => () -> D.replica_exchange!(1, few, zeros(4); inverse_temperatures = [], step = 0),
                        "x has element type" => () -> D.replica_exchange!(1, zeros(2, 4), zeros(4); inverse_temperatures = [1, 0.5], step = 0),
                        "x is a" => () -> D.replica_exchange!(1, view(few, 1:2, :), zeros(4); inverse_temperatures = [1, 0.5], step = 0),
                        "log_density is a" => () -> D.replica_exchange!(1, few, zeros(Float32, 4); inverse_temperatures = [1, 0.5], step = 0),
                        "log_density" => () -> D.replica_exchange!(1, few, fill(NaN, 4); inverse_temperatures = [1, 0.5], step = 0),
                        "step" => () -> D.replica_exchange!(1, few, zeros(4); inverse_temperatures = [1, 0.5], step = -1))
        error = thrown(bad)
        @test error isa Union{ArgumentError,DimensionMismatch,DGMError}
        @test occursin(name, sprint(showerror, error))
    end
end
