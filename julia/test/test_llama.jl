# Decoders against transformers (tests/golden/make_llama.py) and against themselves.

@testset "decoder" begin
    goldens = read_golden("llama")
    for (name, folder) in (("tiny_llama", "tiny_llama"), ("tiny_llama_3", "tiny_llama_3"), ("tiny_llama_3", "tiny_llama_3_shards"))
        model = D.Llama(joinpath(GOLDEN_DIR, folder))
        tokens, want = goldens["$name.tokens"], goldens["$name.logits"]
        cache = D.KVCache(model, 40; batch = 2)
        whole = model(tokens, cache; last = 40)
        @test near(whole, want; tol = 1e-5)
        @test cache.lengths == [40, 40]
        # The same bits in every language.
        hash = foldl((h, b) -> (h ⊻ b) * 0x100000001b3, reinterpret(UInt8, vec(whole)); init = 0xcbf29ce484222325)
        @test "$name $(string(hash; base = 16, pad = 16))" in eachline(joinpath(GOLDEN_DIR, "llama.fnv"))

        # In chunks, in pages of five and token by token: the same bits.
        pages = Int32[16 - 2i - b for i in 0:7, b in 1:2]
        k, v = (zeros(Float32, model.head_dim, 5, model.cache_heads, 16) for _ in 1:2)
        for (cache, chunk) in ((D.KVCache(k, v, [0, 0]; block_table = pages), 7), (D.KVCache(model, 64; batch = 2), 1))
            for from in 1:chunk:40
                part = from:min(from + chunk - 1, 40)
                @test model(Int32.(tokens[part, :]), cache; last = length(part)) == whole[:, part, :]
            end
        end

        # One sequence alone; tokens taken back.
        cache = D.KVCache(model, 40)
        model(tokens[1:30, 2], cache; last = 0)
        cache_truncate!(cache, [12])
        @test model(tokens[13:20, 2], cache)[:, 1, 1] == whole[:, 20, 2]
        for type in (Float16, D.BF16, Int8)
            cache = D.KVCache(model, 40; batch = 2, type = type)
            @test near(model(tokens, cache; last = 40), want; tol = 0.1)
        end
    end

    model = D.Llama(joinpath(GOLDEN_DIR, "tiny_llama"))
    @test (model.vocab, model.heads, model.kv_heads, model.head_dim, model.cache_heads) == (64, 4, 2, 12, 4)
    cache = D.KVCache(model, 4)
    before = (copy(cache.k), copy(cache.v))
    logits = zeros(Float32, 64, 1, 1)
    @test_throws ArgumentError model([1, 64], cache)
    @test_throws ArgumentError model([-1], cache)
    @test_throws ArgumentError model([1.5], cache)
    @test_throws ArgumentError model("1", cache)
    @test_throws ArgumentError model([1], cache; last = 2)
    @test_throws ArgumentError model([1], cache; last = -1)
    @test_throws DimensionMismatch model([1 2], cache)
    @test_throws DimensionMismatch D.forward!(zeros(Float32, 63, 1, 1), model, [1], cache)
    @test_throws DimensionMismatch D.forward!(zeros(Float32, 64, 2, 1), model, [1], cache)
    @test_throws ArgumentError D.forward!(zeros(64, 1, 1), model, [1], cache)
    @test_throws DimensionMismatch model([1], D.KVCache(D.Llama(joinpath(GOLDEN_DIR, "tiny_llama_3")), 4))
    @test_throws ArgumentError D.KVCache(model, 0)
    @test_throws ArgumentError D.KVCache(model, 4; type = Float64)
    # Full.
    @test occursin("lengths is 5, expected 0 to 4", sprint(showerror, thrown(() -> model(1:5, cache))))
    @test (cache.k, cache.v) == before && cache.lengths == [0]
    @test_throws ArgumentError model.colour
    @test_throws DGMError D.Llama("no such folder")
    @test occursin("config.json", sprint(showerror, thrown(() -> D.Llama("no such folder"))))
    @test occursin("vocab 64", repr(model)) && occursin("4 heads of 12 over 2", repr("text/plain", model))
    @test :depth in propertynames(model)

    # Two tasks on one model: the second brings its own workspace.
    tokens = collect(0:19)
    alone = model(tokens, D.KVCache(model, 20))
    tasks = [Threads.@spawn(model(tokens, D.KVCache(model, 20))) for _ in 1:4]
    @test all(t -> fetch(t) == alone, tasks)
end
