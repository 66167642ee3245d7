# Caches: pages against side by side, growing against whole, and what is refused.

# Batch item b has the pages table[:, b], from 0, of `len` tokens.
function scattered(x, table, len)
    d, n, h, b = size(x)
    pages = fill!(similar(x, d, len, h, maximum(table) + 2), eltype(x)(NaN))
    for item in 1:b, j in 1:n
        page = table[(j-1)÷len+1, item] + 1
        pages[:, (j-1)%len+1, :, page] = x[:, j, :, item]
    end
    return pages
end

refuses(f, name) = (e = thrown(f); e isa Union{ArgumentError,DimensionMismatch} && names_argument(e, name))
random(T, dims...) = map(T, reshape(D.normal!(1, Array{Float32}(undef, prod(dims), 1)), dims))

@testset "paged attention" begin
    table = Int32[5 1; 0 3; 4 7]
    for T in (Float32, Float16, D.BF16)
        q, k, v = random(T, 8, 2, 4, 2), random(T, 8, 12, 2, 2), random(T, 6, 12, 2, 2)
        lengths = [12, 7]
        want, want_lse = attention(q, k, v; causal = true, kv_lengths = lengths, lse = true)
        cache = D.KVCache(scattered(k, table, 4), scattered(v, table, 4), lengths; block_table = table)
        out, lse = attention_paged(q, cache; causal = true, lse = true)
        @test out == want && lse == want_lse && eltype(out) === T
        # Tokens outermost in memory.
        turn(x) = PermutedDimsArray(permutedims(x, (1, 3, 2, 4)), (1, 3, 2, 4))
        turned = D.KVCache(turn(cache.k), turn(cache.v), lengths; block_table = table)
        @test attention_paged(q, turned; causal = true) == want
        # Without a table page b is item b.
        @test attention_paged(q, D.KVCache(k, v, lengths); causal = true) == want
    end
end

@testset "caches grow, fork and shrink" begin
    q, k, v = random(Float32, 8, 9, 4, 2), random(Float32, 8, 9, 2, 2), random(Float32, 6, 9, 2, 2)
    tables = D.Rope(9, 6; theta = 100)
    turned(x) = D.rope(x, [0, 0], tables)
    want = attention(turned(q), turned(k), v; causal = true)
    table = Int32[3 1; 0 4; 2 5]
    cache = D.KVCache(zeros(Float32, 8, 3, 2, 6), zeros(Float32, 6, 3, 2, 6), [0, 0]; block_table = table)
    for tokens in (1:4, 5:5, 6:9)
        @test cache_append!(cache, k[:, tokens, :, :], v[:, tokens, :, :]; rope = tables) === cache
        first = cache.lengths .- length(tokens)
        out = attention_paged(D.rope(q[:, tokens, :, :], first, tables), cache; causal = true)
        @test out == want[:, tokens, :, :]
    end
    @test cache.lengths == [9, 9]
    @test occursin("6 pages of 3 tokens", sprint(show, cache))
    cache_truncate!(cache, [9, 7])
    @test cache.lengths == [9, 7]
    table[3, 2] = 2                                                  # shared with item 1
    cache_truncate!(cache, [7, 7])
    new = (k[:, 8:8, :, :], v[:, 8:8, :, :])
    @test refuses(() -> cache_append!(cache, new...), "block_table")
    cache_fork!(cache, 2, 5)
    table[3, 2] = 5
    @test cache.k[:, :, :, 3] == cache.k[:, :, :, 6] && cache.v[:, :, :, 3] == cache.v[:, :, :, 6]
    cache_append!(cache, new...; counts = [0, 1])
    @test cache.lengths == [7, 8]

    ints = D.KVCache(zeros(Int8, 8, 9, 2, 2), zeros(Int8, 6, 9, 2, 2), [0, 0];
                     k_scale = zeros(Float32, 9, 2, 2), v_scale = zeros(Float32, 9, 2, 2))
    cache_append!(ints, k, v)
    @test ints.k_scale == dropdims(maximum(abs, k; dims = 1); dims = 1) ./ 127f0
    @test maximum(abs, attention_paged(q, ints; causal = true) .- attention(q, k, v; causal = true)) < 0.05

    a, la = attention(q, k[:, 1:4, :, :], v[:, 1:4, :, :]; lse = true)
    b, lb = attention(q, k[:, 5:9, :, :], v[:, 5:9, :, :]; lse = true)
    out, lse = attention_merge(a, la, b, lb)
    whole, whole_lse = attention(q, k, v; lse = true)
    @test maximum(abs, out .- whole) < 2f-6 && maximum(abs, lse .- whole_lse) < 2f-6
end

@testset "rope" begin
    x = random(Float32, 8, 3, 2, 2)
    for interleaved in (false, true)
        y = D.rope(x, [0, 5], D.Rope(8, 6; interleaved = interleaved))
        for b in 1:2, l in 1:3, i in 0:2
            one, two = interleaved ? (2i + 1, 2i + 2) : (i + 1, i + 4)
            z = complex(Float64(x[one, l, 1, b]), x[two, l, 1, b]) * cis((l - 1 + (b == 2 ? 5 : 0)) * 10_000.0^(-i / 3))
            @test isapprox(complex(Float64(y[one, l, 1, b]), y[two, l, 1, b]), z; atol = 1e-6)
        end
        @test y[7:8, :, :, :] == x[7:8, :, :, :]
    end
end

@testset "wrong caches" begin
    k, v, q = ones(Float32, 8, 4, 2, 3), ones(Float32, 6, 4, 2, 3), ones(Float32, 8, 1, 4, 2)
    table, lengths = Int32[0 1; 2 -1], [7, 4]
    good() = D.KVCache(k, v, lengths; block_table = table)
    @test size(attention_paged(q, good())) == (6, 1, 4, 2)
    for (bad, name) in (
            (() -> D.KVCache(Float64.(k), v, lengths), "k"), (() -> D.KVCache(k[:, :, :, 1], v, lengths), "k"),
            (() -> D.KVCache(k, v[:, 1:3, :, :], lengths), "v"), (() -> D.KVCache(k, Float16.(v), lengths), "v"),
            (() -> D.KVCache(k, v, [7, 4]), "lengths"), (() -> D.KVCache(k, v, Int32[1, 2, 3]), "lengths"),
            (() -> D.KVCache(k, v, lengths; block_table = Int64.(table)), "block_table"),
            (() -> D.KVCache(k, v, lengths; block_table = table[:, 1]), "block_table"),
            (() -> D.KVCache(k, v, lengths; block_table = table, k_scale = k[1, :, :, :]), "k_scale"),
            (() -> D.KVCache(Int8.(k), Int8.(v), lengths; block_table = table, k_scale = k[1, :, :, :]), "v_scale"),
            (() -> attention_paged(ones(Float32, 7, 1, 4, 2), good()), "q"), (() -> attention_paged(ones(Float32, 8, 1, 3, 2), good()), "q"),
            (() -> attention_paged(q, good(); bias = ones(Float32, 7, 1, 1, 1)), "bias"),
            (() -> attention_paged!(ones(Float32, 5, 1, 4, 2), q, good()), "out"),
            (() -> attention_paged!(view(k, 1:6, 1:1, 1:2, 1:3), q, good()), "out"),
            (() -> cache_append!(good(), q, q), "k"), (() -> cache_append!(good(), ones(Float32, 8, 1, 2, 2), q), "v"),
            (() -> cache_append!(good(), ones(Float32, 8, 2, 2, 2), ones(Float32, 6, 2, 2, 2)), "lengths"),
            (() -> cache_append!(good(), ones(Float32, 8, 1, 2, 2), ones(Float32, 6, 1, 2, 2); counts = [1]), "counts"),
            (() -> cache_append!(good(), ones(Float32, 8, 1, 2, 2), ones(Float32, 6, 1, 2, 2); counts = [0, 1]), "block_table"),
            (() -> cache_append!(good(), ones(Float32, 8, 1, 2, 2), ones(Float32, 6, 1, 2, 2); rope = 1), "rope"),
            (() -> cache_fork!(good(), 0, 3), "to"), (() -> cache_fork!(good(), -1, 2), "from"),
            (() -> cache_truncate!(good(), [8, 1]), "keep"), (() -> cache_truncate!(good(), [1]), "keep"),
            (() -> D.Rope(4, 3), "r"), (() -> D.Rope(-1, 2), "positions"), (() -> D.Rope(4, 2; theta = 0), "theta"),
            (() -> D.rope(q, [0], D.Rope(4, 2)), "first"), (() -> D.rope(q, [0, 4], D.Rope(4, 2)), "cos"))
        @test refuses(bad, name)
    end
    @test thrown(() -> attention_paged(q, good(); kv_lengths = [1, 1])) isa MethodError
    lengths[1] = 9
    @test refuses(() -> attention_paged(q, good()), "lengths")
    lengths .= (7, 5)
    @test refuses(() -> attention_paged(q, good()), "block_table")
    @test all(==(1), k) && all(==(1), v)
end
