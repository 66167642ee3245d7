# dot_product_attention against the formula of the textbook, in the layout of NNlib.

"""
softmax(kᵀq / √d + bias) of a head after the other, in Float64; `see(j, i, h, b)` hides elements. `q`, `k`, `v`
are `(features, length, batch)`.
"""
function textbook_attention(q, k, v, nheads; bias = (j, i, h, b) -> 0.0, see = (j, i, h, b) -> true)
    y = zeros(size(v, 1), size(q, 2), size(q, 3))
    features(x, h) = (n = size(x, 1) ÷ nheads; (h-1)*n+1:h*n)
    for b in axes(q, 3), h in 1:nheads, i in axes(q, 2)
        query = Float64.(q[features(q, h), i, b])
        scores = map(axes(k, 2)) do j
            see(j, i, h, b) || return -Inf
            return sum(query .* k[features(k, h), j, b]) / sqrt(length(query)) + bias(j, i, h, b)
        end
        maximum(scores) == -Inf && continue
        weights = exp.(scores .- maximum(scores))
        y[features(v, h), i, b] = Float64.(v[features(v, h), :, b]) * (weights ./ sum(weights))
    end
    return y
end

# The exported name of another package, as NNlib's.
module OtherAttention
export dot_product_attention
dot_product_attention(q, k, v) = :other
end
module UsesBoth
using ..OtherAttention, DGMKernels
answer() = dot_product_attention(1, 2, 3)
end

@testset "dot_product_attention" begin
    dpa = D.dot_product_attention
    close_to(y, want) = size(y) == size(want) && all(isapprox.(y, want; rtol = 1f-5, atol = 2f-6))
    q, k, v = randn(Float32, 24, 9, 3), randn(Float32, 24, 13, 3), randn(Float32, 20, 13, 3)

    for nheads in (1, 2, 4)
        y, scores = dpa(q, k, v; nheads = nheads)
        @test scores === nothing && y isa Array{Float32,3}
        @test close_to(y, textbook_attention(q, k, v, nheads))
    end
    # Batch dimensions: none, and more than one.
    @test dpa(q[:, :, 1], k[:, :, 1], v[:, :, 1]; nheads = 2)[1] == dpa(q, k, v; nheads = 2)[1][:, :, 1]
    grid(x) = reshape(x, size(x, 1), size(x, 2), 3, 1)
    @test dpa(grid(q), grid(k), grid(v); nheads = 2)[1] == grid(dpa(q, k, v; nheads = 2)[1])
    q4, k4, v4 = randn(Float32, 8, 5, 2, 3), randn(Float32, 8, 6, 2, 3), randn(Float32, 8, 6, 2, 3)
    flat(x) = reshape(x, size(x, 1), size(x, 2), 6)
    y4 = dpa(q4, k4, v4; nheads = 2)[1]
    @test size(y4) == (8, 5, 2, 3) && flat(y4) == dpa(flat(q4), flat(k4), flat(v4); nheads = 2)[1]

    # Bias and mask with every kind of repetition, and left-out dimensions.
    for dims in ((13, 9, 4, 3), (13, 9), (13, 1, 1, 3), (1, 9, 4), (13,), (1, 1, 4, 1))
        at(x, n...) = x[map((i, d) -> size(x, d) == 1 ? 1 : i, n, (1, 2, 3, 4))...]
        bias, mask = randn(Float32, dims), rand(Float32, dims) .> 0.3f0
        want = textbook_attention(q, k, v, 4; bias = (n...) -> at(bias, n...), see = (n...) -> at(mask, n...))
        @test mask isa BitArray
        y = dpa(q, k, v, bias; mask = mask, nheads = 4)[1]
        @test close_to(y, want)
        @test dpa(q, k, v, bias; mask = Array(mask), nheads = 4)[1] == y
    end
    hidden = [false, false, true, true, false, false, true, true, true]
    y = dpa(q, k, v; mask = reshape(hidden, 1, 9), nheads = 4)[1]
    @test all(iszero, y[:, .!hidden, :]) && !any(iszero, y[:, hidden, :])

    # The causal mask of NNlib, j <= i, and the ways to say so without one.
    s = randn(Float32, 16, 70, 2)
    causal = [j <= i for j in 1:70, i in 1:70]
    y = dpa(s, s, s; mask = causal, nheads = 2)[1]
    @test close_to(y, textbook_attention(s, s, s, 2; see = (j, i, h, b) -> j <= i))
    @test dpa(s, s, s; causal = true, nheads = 2)[1] == dpa(s, s, s; mask = :causal, nheads = 2)[1] == y
    @test dpa(s, s, s; mask = causal, causal = true, nheads = 2)[1] == y
    also = rand(70, 1) .> 0.5
    also[1] = true
    want = textbook_attention(s, s, s, 2; see = (j, i, h, b) -> j <= i && also[j])
    @test close_to(dpa(s, s, s; mask = also, causal = true, nheads = 2)[1], want)

    # It is the kernel of `attention`, with the heads reached by stride: the same bits, options included.
    heads(x, n) = PermutedDimsArray(reshape(x, size(x, 1) ÷ n, n, size(x, 2), size(x, 3)), (1, 3, 2, 4))
    for options in (NamedTuple(), (scale = 0.3,), (window = (3, 0),), (soft_cap = 2,), (sinks = [1, 2, 3, 4],),
                    (alibi_slopes = [1, 0.5, 0.25, 0],))
        want = attention(heads(q, 4), heads(k, 4), heads(v, 4); options...)
        @test heads(dpa(q, k, v; nheads = 4, options...)[1], 4) == want
    end

    # Any strides, no copies.
    for i in 1:2
        @test dpa(layouts(q)[i], layouts(k)[i], layouts(v)[i]; nheads = 2)[1] == dpa(q, k, v; nheads = 2)[1]
    end
    apart = view(randn(Float32, 8, 5, 4, 3), :, :, 1:2:4, 1:2)
    @test dpa(apart, apart, apart; nheads = 2)[1] == (x = Array(apart); dpa(x, x, x; nheads = 2)[1])
    gaps = view(randn(Float32, 8, 5, 4, 3), :, :, 1:3, :)
    error = thrown(() -> dpa(gaps, gaps, gaps))
    @test error isa ArgumentError && occursin("Array(q)", error.msg)
    large = randn(Float32, 256, 512, 2)
    dpa(large, large, large; nheads = 4)
    @test (@allocated dpa(large, large, large; nheads = 4)) < sizeof(large) + 16_384

    # 16 bits: computed in Float32, rounded once.
    for T in (Float16, D.BF16)
        h = map(x -> T.(x), (q, k, v))
        w = map(x -> Float32.(x), h)
        y = dpa(h...; nheads = 4)[1]
        @test eltype(y) == T
        @test all(isapprox.(Float32.(y), textbook_attention(w..., 4); rtol = T == Float16 ? 2f-3 : 2f-2, atol = 2f-3))
        bias = T.(randn(Float32, 13, 9))
        @test dpa(h..., bias; nheads = 4)[1] == dpa(h..., Float32.(bias); nheads = 4)[1]
    end
    bits = dpa(Float16.(q), Float16.(k), Float16.(v); nheads = 4)[1]
    @test bits == Float16.(dpa(map(x -> Float32.(Float16.(x)), (q, k, v))...; nheads = 4)[1])

    # Empty ones.
    @test size(dpa(q[:, 1:0, :], k, v)[1]) == (20, 0, 3) && size(dpa(q[:, :, 1:0], k[:, :, 1:0], v[:, :, 1:0])[1]) == (20, 9, 0)
    @test all(iszero, dpa(q, k[:, 1:0, :], v[:, 1:0, :])[1])

    # Another package's function of the same name keeps it.
    @test UsesBoth.answer() === :other && length(methods(OtherAttention.dot_product_attention)) == 1
    @test :dot_product_attention in D.PUBLIC

    refused(f, type, word) = (e = thrown(f); e isa type && occursin(word, e.msg))
    @test refused(() -> dpa(q, k, v; fdrop = x -> x), ArgumentError, "fdrop")
    for bad in (0, -1, 5, 7)
        @test refused(() -> dpa(q, k, v; nheads = bad), DimensionMismatch, "nheads is $bad")
    end
    @test refused(() -> dpa(q, k, v; nheads = 8), DimensionMismatch, "features of v, 20")
    @test refused(() -> dpa(q[:, 1, 1], k, v), DimensionMismatch, "q")
    @test refused(() -> dpa(q, k[1:23, :, :], v), DimensionMismatch, "k")
    @test refused(() -> dpa(q, k[:, :, 1:2], v), DimensionMismatch, "k")
    @test refused(() -> dpa(q, k, v[:, 1:12, :]), DimensionMismatch, "v")
    @test refused(() -> dpa(q, k, v[:, :, 1:2]), DimensionMismatch, "v")
    @test refused(() -> dpa(q, k, grid(v)), DimensionMismatch, "v")
    @test refused(() -> dpa(q, k, v, zeros(Float32, 9, 13)), DimensionMismatch, "bias")
    @test refused(() -> dpa(q, k, v, zeros(13, 9)), ArgumentError, "bias")
    @test refused(() -> dpa(q, k, v, 1f0), ArgumentError, "bias")
    @test refused(() -> dpa(q, k, v; mask = trues(13, 9, 2)), DimensionMismatch, "mask")
    @test refused(() -> dpa(q, k, v; mask = trues(13, 9, 1, 1, 1)), DimensionMismatch, "mask")
    @test refused(() -> dpa(q, k, v; mask = ones(Float32, 13, 9)), ArgumentError, "mask")
    @test refused(() -> dpa(q, k, v; mask = view(trues(13, 9), 1:13, 1:9)), ArgumentError, "mask")
    @test refused(() -> dpa(q, k, v; mask = :cross), ArgumentError, "mask")
    @test refused(() -> dpa(Float64.(q), k, v), ArgumentError, "q")
    @test refused(() -> dpa(q, Float16.(k), v), ArgumentError, "v has dtype")
    @test refused(() -> dpa(q, k, Elsewhere(v)), ArgumentError, "v")
end
