using Random: MersenneTwister

@testset "random" begin
    seeds = row_seeds(7, 4)
    @test seeds isa Vector{UInt64} && length(unique(seeds)) == 4
    @test row_seeds(7, 2) == seeds[1:2]
    @test row_seeds(typemax(UInt64), 1) == row_seeds(-1, 1)
    @test row_seeds(MersenneTwister(3), 2) == row_seeds(rand(MersenneTwister(3), UInt64), 2)
    @test row_seeds(1, 0) == UInt64[]
    @test_throws ArgumentError row_seeds(1, -1)

    for f! in (D.normal!, D.uniform!)
        x = f!(seeds, zeros(Float32, 5, 3, 4))
        # A row depends on its seed alone, wherever it stands and however the array is laid out.
        @test f!(seeds[3:3], zeros(Float32, 5, 3, 1)) == x[:, :, 3:3]
        @test f!(seeds, zeros(Float32, 15, 4)) == reshape(x, 15, 4)
        big = zeros(Float32, 5, 3, 9)
        f!(seeds, view(big, :, :, 1:2:7))
        @test big[:, :, 1:2:7] == x && iszero(big[:, :, 2:2:8])
        @test f!(7, similar(x)) == x
        @test f!(MersenneTwister(1), similar(x)) == f!(rand(MersenneTwister(1), UInt64), similar(x))
        @test f!(similar(x)) != f!(similar(x))
        @test f!(seeds, similar(x); draw = 1) != x
        @test f!(seeds, similar(x); purpose = :step) == f!(seeds, similar(x); purpose = 1) != x
        @test_throws DimensionMismatch f!(seeds, zeros(Float32, 5, 3))
        @test_throws ArgumentError f!(seeds, zeros(5, 4))
        @test_throws ArgumentError f!(seeds, view(zeros(Float32, 10, 4), 1:2:9, :))
        @test_throws ArgumentError f!("seed", x)
        @test_throws ArgumentError f!(seeds, x; purpose = :nothing)
    end
    u = D.uniform!(1, zeros(Float32, 10_000, 2))
    n = D.normal!(1, zeros(Float32, 10_000, 2))
    @test all(x -> 0 < x < 1, u) && abs(sum(u) / length(u) - 0.5) < 0.01
    @test abs(sum(n) / length(n)) < 0.03 && abs(sum(abs2, n) / length(n) - 1) < 0.05

    logits = log.(repeat(Float32[0, 0.25, 0, 0.75], 1, 4000))
    drawn = D.categorical(5, logits)
    @test all(i -> i in (2, 4), drawn) && abs(count(==(4), drawn) / 4000 - 0.75) < 0.03
    @test D.categorical(row_seeds(5, 4000)[7:7], logits[:, 7:7]) == drawn[7:7]
    @test D.categorical(MersenneTwister(1), logits) == D.categorical(MersenneTwister(1), logits)
    @test_throws DimensionMismatch D.categorical(seeds, logits)
    @test_throws DimensionMismatch D.categorical(seeds, logits[:, 1])
    @test_throws ArgumentError D.categorical(1, Float64.(logits))
end
