# The transformer of Flux against diffusers (tests/golden/make_flux.py).

@testset "Flux" begin
    g = read_golden("flux")
    part(name, parts...) = (g["$name.$p"] for p in parts)
    plain = D.FluxTransformer(joinpath(GOLDEN_DIR, "tiny_flux"))
    inputs = part("tiny_flux", "x", "t", "text", "pooled", "ids")
    y = plain(inputs...)
    @test near(y, g["tiny_flux.out"]; tol = 2e-6)
    @test plain(inputs...; text_ids = g["tiny_flux.text_ids"]) == y
    @test_throws ArgumentError plain(inputs...; guidance = 1)

    model = D.FluxTransformer(joinpath(GOLDEN_DIR, "tiny_flux_dev"))
    x, t, text, pooled, ids = part("tiny_flux_dev", "x", "t", "text", "pooled", "ids")
    guidance, text_ids = part("tiny_flux_dev", "guidance", "text_ids")
    y = model(x, t, text, pooled, ids; text_ids, guidance)
    @test near(y, g["tiny_flux_dev.out"]; tol = 2e-6)
    @test model(x[:, :, 2:2], t[2], text[:, :, 2:2], pooled[:, 2:2], ids; text_ids, guidance = guidance[2]) == y[:, :, 2:2]
    out = similar(y)
    @test D.forward!(out, model, x, t, text, pooled, ids; text_ids, guidance) === out && out == y
    wide = zeros(Float32, 16, 24, 2)
    strided = view(wide, :, 1:2:24, :)
    strided .= x
    @test model(strided, t, text, pooled, ids; text_ids, guidance) == y

    @test (model.channels, model.out_channels, model.depth, model.single_depth, model.axes) == (16, 8, 1, 2, 3)
    @test (model.guidance, plain.guidance) == (1, 0)
    call(; x = x, t = t, text = text, pooled = pooled, ids = ids, text_ids = text_ids, guidance = guidance) =
        model(x, t, text, pooled, ids; text_ids, guidance)
    @test call() == y
    @test_throws DimensionMismatch call(x = x[1:15, :, :])
    @test_throws DimensionMismatch call(x = x[:, :, 1])
    @test_throws DimensionMismatch call(t = t[1:1])
    @test_throws DimensionMismatch call(text = text[1:19, :, :])
    @test_throws DimensionMismatch call(text = text[:, :, 1:1])
    @test_throws DimensionMismatch call(pooled = pooled[1:11, :])
    @test_throws DimensionMismatch call(ids = ids[1:2, :])
    @test_throws DimensionMismatch call(ids = ids[:, 1:11])
    @test_throws DimensionMismatch call(text_ids = ids)
    @test_throws DimensionMismatch call(guidance = guidance[1:1])
    @test_throws ArgumentError call(guidance = nothing)
    @test_throws ArgumentError call(guidance = "1")
    @test_throws ArgumentError call(x = Float64.(x))
    @test_throws ArgumentError call(t = "1")
    @test_throws DimensionMismatch D.forward!(zeros(Float32, 16, 12, 2), model, x, t, text, pooled, ids; text_ids, guidance)
    @test occursin("ids", sprint(showerror, thrown(() -> call(ids = fill(NaN32, 3, 12)))))
    @test_throws ArgumentError model.colour
    @test_throws DGMError D.FluxTransformer("no such folder")
    @test occursin("depth 1 + 2", repr(model)) && :single_depth in propertynames(model)
end
