# The MM-DiT of Stable Diffusion 3 against diffusers (tests/golden/make_sd3.py).

@testset "MM-DiT" begin
    g = read_golden("sd3")
    x, t, text, pooled = (g["sd3.$name"] for name in ("x", "t", "text", "pooled"))
    model = D.SD3(joinpath(GOLDEN_DIR, "tiny_sd3"))
    y = model(x, t, text, pooled)
    @test near(y, g["sd3.out"]; tol = 2e-6)
    @test model(x[:, :, :, 2:2], t[2:2], text[:, :, 2:2], pooled[:, 2:2]) == y[:, :, :, 2:2]
    @test model(x, 31.25, text, pooled)[:, :, :, 2] == y[:, :, :, 2]
    out = similar(y)
    @test D.forward!(out, model, x, t, text, pooled) === out && out == y
    wide = zeros(Float32, 6, 16, 4, 2)
    strided = view(wide, :, 1:2:16, :, :)
    strided .= x
    @test model(strided, t, text, pooled) == y

    @test (model.channels, model.patch, model.hidden, model.depth, model.heads) == (4, 2, 24, 2, 3)
    @test_throws DimensionMismatch model(x[:, :, 1:3, :], t, text, pooled)
    @test_throws DimensionMismatch model(x[:, :, :, 1], t, text, pooled)
    @test_throws DimensionMismatch model(x, t[1:1], text, pooled)
    @test_throws DimensionMismatch model(x, t, text[1:19, :, :], pooled)
    @test_throws DimensionMismatch model(x, t, text[:, :, 1:1], pooled)
    @test_throws DimensionMismatch model(x, t, text, pooled[1:11, :])
    @test_throws DimensionMismatch D.forward!(zeros(Float32, 6, 8, 3, 2), model, x, t, text, pooled)
    @test_throws ArgumentError model(Float64.(x), t, text, pooled)
    @test_throws ArgumentError model(x, "1", text, pooled)
    @test occursin("width is 5", sprint(showerror, thrown(() -> model(x[1:5, :, :, :], t, text, pooled))))
    @test_throws ArgumentError model.colour
    @test_throws DGMError D.SD3("no such folder")
    @test occursin("depth 2", repr(model)) && :depth in propertynames(model)
end
