# The random numbers of other systems: tests/golden/make_compat.py, and the hashes of tests/conformance/runs.txt.

using Random: Random, rand!, randn!

"Name, type and values of what the other systems draw, in the order of the file."
function compat_entries()
    blob = read(joinpath(GOLDEN_DIR, "compat.bin"))
    entries = []
    for line in eachline(joinpath(GOLDEN_DIR, "compat.txt"))
        startswith(line, '#') && continue
        name, type, dims, offset = split(line)
        T, at, n = GOLDEN_TYPES[type], parse(Int, offset), prod(parse.(Int, split(dims, 'x')))
        push!(entries, (split(name, '.'), collect(reinterpret(T, blob[at+1:at+n*sizeof(T)]))))
    end
    return entries
end

const COMPAT = Dict("torch_cpu" => D.TorchCPU, "torch_cuda" => D.TorchCUDA, "numpy_pcg64" => D.NumpyPCG64,
                    "numpy_philox" => D.NumpyPhilox, "numpy_random_state" => D.NumpyRandomState)
compat_near(a, b, tol) = all(abs.(a .- b) .<= tol .* max.(1, abs.(b)))

@testset "generators repeat the originals" begin
    rngs = Dict()
    for (name, want) in compat_entries()
        haskey(COMPAT, name[1]) || continue
        T, n = eltype(want), length(want)
        rng = get!(() -> COMPAT[name[1]](parse(UInt64, name[2])), rngs, (name[1], name[2]))
        got = name[4] == "normal" ? randn(rng, T, n) : rand(rng, T, n)
        @test got isa Vector{T}
        tol = name[1] == "torch_cuda" ? 2e-6 : T === Float64 ? 5e-16 : 0.0
        @test compat_near(got, want, tol)
        rngs[(name[1], name[2])] = D.import_rng(D.export_rng(rng))
    end
    @test length(rngs) == 15
end

@testset "JAX, Nx and torchsde" begin
    checked = 0
    for (name, want) in compat_entries()
        name[1] == "jax" || continue
        key, layout = D.jax_key(parse(Int, name[3])), Symbol(name[2])
        if name[4] == "fold_in_7"
            @test D.jax_fold_in(key, 7) == want
        elseif name[4] == "split"
            @test vec(D.jax_split(key, length(want) ÷ 2; layout = layout)) == want
        elseif name[4] == "uniform"
            @test D.jax_uniform!(key, zeros(Float32, length(want)); layout = layout) == want
        else
            @test compat_near(D.jax_normal!(key, zeros(Float32, length(want)); layout = layout), want, 5e-7)
        end
        checked += 1
    end
    @test checked >= 40
    @test D.jax_split(D.jax_key(1701); layout = :nx) == [56197195 961309823; 1801093307 1704866707]

    all = Dict(join(name, '.') => values for (name, values) in compat_entries())
    seeds = all["torchsde.seeds"]
    for i in 0:5
        t0, t1, ta, tb = all["torchsde.$i.times"]
        w = D.brownian!(seeds, zeros(Float32, 4, 6, 2), (t0, t1), (ta, tb); normalized = false)
        @test vec(w) == all["torchsde.$i.increment"]
        @test compat_near(vec(D.brownian!(seeds, w, (t0, t1), (ta, tb))), all["torchsde.$i.noise"], 3e-7)
    end
    @test D.brownian!(3, zeros(Float32, 4, 1), (0, 1), (0, 0.5)) == D.brownian!([3], zeros(Float32, 4, 1), (0, 1), (0, 0.5))
end

function compat_row(words, seed)
    n = parse(Int, last(words))
    if words[1] == "brownian"
        t = parse.(Float64, words[2:5])
        return D.brownian!([seed], zeros(Float32, n, 1), t[1:2], t[3:4])
    elseif words[1] == "jax"
        f! = words[3] == "normal" ? D.jax_normal! : D.jax_uniform!
        return f!(D.jax_key(seed), zeros(Float32, n); layout = Symbol(words[2]))
    end
    return (words[2] == "normal" ? randn! : rand!)(COMPAT[words[1]](seed), zeros(Float32, n))
end

@testset "the published hashes" begin
    words, checked = String[], 0
    for line in eachline(RUNS_FILE)
        part = split(line)
        isempty(part) && continue
        part[1] == "compat" && (words = part[2:end])
        if part[1] == "sha256" && !isempty(words)
            rows = reduce(vcat, [vec(compat_row(words, 7 + r)) for r in 0:2])
            @test bytes2hex(sha256(reinterpret(UInt8, htol.(reinterpret(UInt32, rows))))) == part[2]
            words, checked = String[], checked + 1
        end
    end
    @test checked == 17
end

@testset "generators are native" begin
    rng = D.TorchCPU(0)
    @test randn(rng, Float32, 4) == Float32[1.5409961, -0.2934289, -2.1787894, 0.56843126]
    place = copy(rng)
    x = randn(rng, Float32, 8, 8, 1, 4)
    @test size(x) == (8, 8, 1, 4) && randn!(place, zeros(Float32, 256)) == vec(x) && place == rng
    @test randn!(Random.seed!(place, 5), zeros(Float32, 2, 9)) == randn!(D.TorchCPU(5), zeros(Float32, 2, 9))
    big = zeros(Float32, 9, 4)
    @test randn!(D.TorchCPU(5), view(big, :, 2:3)) == randn(D.TorchCPU(5), Float32, 9, 2) && iszero(big[:, [1, 4]])
    @test randn(D.NumpyPCG64(1)) isa Float64 && rand(D.NumpyPCG64(1), Float32) isa Float32
    @test rand(D.NumpyPCG64(1), 3) == rand!(D.NumpyPCG64(1), zeros(3))
    @test D.TorchCPU(-1) == D.TorchCPU(2^32 - 1)
    @test occursin("TorchCPU", sprint(show, rng)) && rng isa D.CompatRNG && hash(copy(rng)) == hash(rng)
    plan = D.Plan(steps = 3)
    @test D.result(D.start([1, 2, 3, 4], plan, size(x); x = x)) == x
    @test_throws ArgumentError D.start(rng, plan, (3, 2))
    @test_throws ArgumentError randn!(rng, view(big, 1:2:9, :))
    @test_throws ArgumentError D.NumpyRandomState(2^32)
    @test_throws ArgumentError rand(D.TorchCUDA(1), Float32, 3)
    @test_throws ArgumentError randn(D.TorchCUDA(1), Float64, 3)
    @test_throws ArgumentError D.jax_normal!(D.jax_key(1), zeros(3))
    @test_throws ArgumentError D.jax_normal!(D.jax_key(1), zeros(Float32, 3); layout = :other)
    @test_throws DimensionMismatch D.jax_normal!([1], zeros(Float32, 3))
    @test_throws DimensionMismatch D.brownian!([1, 2], zeros(Float32, 3, 1), (0, 1), (0, 1))
    @test_throws ArgumentError D.brownian!([1], zeros(Float32, 3, 1), (1, 1), (0, 1))
    @test_throws ArgumentError D.brownian!([1], zeros(3, 1), (0, 1), (0, 0.5))
    @test_throws ArgumentError D.brownian!([1], view(zeros(Float32, 6, 1), 1:2:5, :), (0, 1), (0, 0.5))
    @test_throws DimensionMismatch D.import_rng(UInt8[1, 2])
    for at in 1:61:2560
        bytes = D.export_rng(rng)
        bytes[at] ⊻= 0x01
        @test_throws DGMError D.import_rng(bytes)
    end
end
