using LinearAlgebra: transpose

"Copies of `x` in other layouts, equal element by element."
function layouts(x)
    n = ndims(x)
    order = ntuple(i -> mod1(i + 1, n), n)
    back = ntuple(i -> findfirst(==(i), order), n)
    wide = similar(x, (2 .* size(x) .+ 1)...)
    every_second = view(wide, ntuple(d -> 2:2:2*size(x, d), n)...)
    every_second .= x
    return (PermutedDimsArray(permutedims(x, order), back), every_second)
end

@testset "attention" begin
    for name in ("plain", "causal", "causal_tall", "causal_wide", "cross", "gqa", "dv", "lengths", "one_query",
                 "longer_than_split")
        get_part(part) = golden("attention.$name.$part")
        q, k, v = get_part("q"), get_part("k"), get_part("v")
        options = (causal = startswith(name, "causal"),
                   kv_lengths = name == "lengths" ? get_part("kv_lengths") : nothing)
        out, lse = attention(q, k, v; lse = true, options...)
        @test near(out, get_part("out"))
        @test near(lse, get_part("lse"))
        @test attention(q, k, v; options...) == out
        for i in 1:2
            target = layouts(similar(out))[i]
            @test attention!(target, layouts(q)[i], layouts(k)[i], layouts(v)[i]; options...) === target
            @test target == out
        end
    end
    q, k, v = randn(Float32, 8, 3, 2, 2), randn(Float32, 8, 5, 2, 2), randn(Float32, 4, 5, 2, 2)
    @test attention(q, k, v; scale = 1 / sqrt(8)) == attention(q, k, v)
    @test attention(q, k, v; scale = 1) != attention(q, k, v)
    # Batch items do not know of each other.
    @test attention(q[:, :, :, 2:2], k[:, :, :, 2:2], v[:, :, :, 2:2]) == attention(q, k, v)[:, :, :, 2:2]

    @test_throws DimensionMismatch attention(q[:, :, :, 1], k, v)
    @test_throws DimensionMismatch attention(q, k[1:7, :, :, :], v)
    @test_throws DimensionMismatch attention(q, k, v[:, 1:4, :, :])
    @test_throws DimensionMismatch attention(q, k[:, :, :, 1:1], v)
    @test_throws DimensionMismatch attention(q[:, :, 1:1, :], k, v)
    @test_throws DimensionMismatch attention!(zeros(Float32, 8, 3, 2, 2), q, k, v)
    @test_throws DimensionMismatch attention!(zeros(Float32, 4, 3, 2, 2), q, k, v; lse = zeros(Float32, 2, 2, 2))
    @test_throws DimensionMismatch attention(q, k, v; kv_lengths = [1])
    @test_throws ArgumentError attention(q, k, v; kv_lengths = [1, 6])
    @test_throws ArgumentError attention(q, k, v; kv_lengths = [-1, 5])
    @test_throws ArgumentError attention(q, k, v; scale = NaN)
    @test_throws ArgumentError attention(Float64.(q), k, v)
    @test_throws ArgumentError attention(q, view(k, :, [1, 2, 3, 4, 5], :, :), v)
    error = thrown(() -> attention(q, k[1:7, :, :, :], v))
    @test occursin("(8, 3, 2, 2)", error.msg) && occursin("(7, 5, 2, 2)", error.msg)
end

"Attention of one row after the other in Float64; `score(s, i, j, h, b)` changes a score or hides it with `-Inf`."
function row_attention(q, k, v, score; sinks = fill(-Inf, size(q, 3)))
    out = zeros(size(v, 1), size(q, 2), size(q, 3), size(q, 4))
    for b in axes(q, 4), h in axes(q, 3), i in axes(q, 2)
        g = cld(h, size(q, 3) ÷ size(k, 3))
        s = [score(sum(Float64.(q[:, i, h, b]) .* k[:, j, g, b]) / sqrt(size(q, 1)), i, j, h, b) for j in axes(k, 2)]
        m = maximum([s; sinks[h]])
        m == -Inf && continue
        e = exp.(s .- m)
        out[:, i, h, b] = v[:, :, g, b] * (e ./ (sum(e) + exp(sinks[h] - m)))
    end
    return out
end

@testset "attention options" begin
    q, k, v = randn(Float32, 8, 5, 4, 2), randn(Float32, 8, 7, 2, 2), randn(Float32, 6, 7, 2, 2)
    position(i) = i + 2
    close_to(score; sinks = fill(-Inf, 4), options...) =
        near(attention(q, k, v; sinks = sinks, options...), Float32.(row_attention(q, k, v, score; sinks = sinks)))
    @test close_to((s, i, j, h, b) -> -1 <= position(i) - j <= 2 ? s : -Inf; window = (2, 1))
    @test close_to((s, i, j, h, b) -> 0 <= position(i) - j <= 1 ? s : -Inf; window = (1, nothing), causal = true)
    @test close_to((s, i, j, h, b) -> 2 * tanh(s / 2); soft_cap = 2)
    slopes, sinks = [0.5, 0.25, 0.125, 0.0], Float32[0.5, -2, -Inf, 3]
    @test close_to((s, i, j, h, b) -> s - slopes[h] * abs(position(i) - j); alibi_slopes = slopes)
    @test close_to((s, i, j, h, b) -> s; sinks = sinks)
    for dims in ((7, 5, 4, 2), (7, 1, 1, 2), (1, 5, 4, 1))
        at(x, n...) = x[map((i, d) -> d == 1 ? 1 : i, n, dims)...]
        bias, mask = randn(Float32, dims), rand(dims...) .> 0.3f0
        @test close_to((s, i, j, h, b) -> s + at(bias, j, i, h, b); bias = bias)
        mask = Array{Bool}(mask)
        @test close_to((s, i, j, h, b) -> at(mask, j, i, h, b) ? s : -Inf; mask = mask)
    end
    # Behind a mask anything may stand.
    mask = fill(true, 7, 1, 1, 1)
    mask[3] = false
    want = attention(q, k, v; mask = mask)
    k[:, 3, :, :] .= NaN32
    v[:, 3, :, :] .= Inf32
    @test attention(q, k, v; mask = mask) == want
    @test attention(q, k, v; bias = ifelse.(mask, 0f0, -Inf32)) == want
    @test attention(q, k, v; mask = PermutedDimsArray(permutedims(mask, (4, 3, 2, 1)), (4, 3, 2, 1))) == want

    for (options, words) in (((window = 3,), "window"), ((window = (-1, 2),), "window"), ((soft_cap = 0,), "soft_cap"),
                             ((soft_cap = NaN,), "soft_cap"), ((alibi_slopes = fill(NaN, 4),), "alibi_slopes"),
                             ((sinks = fill(Inf, 4),), "sinks"), ((mask = mask .& true,), "mask"),
                             ((bias = zeros(7, 5, 4, 2),), "bias"))
        error = thrown(() -> attention(q, k, v; options...))
        @test error isa ArgumentError && occursin(words, error.msg)
    end
    for options in ((alibi_slopes = [1, 2],), (sinks = [1],), (bias = zeros(Float32, 5, 7, 4, 2),),
                    (mask = fill(true, 7, 5, 3, 2),))
        @test thrown(() -> attention(q, k, v; options...)) isa DimensionMismatch
    end
end

@testset "gradients of attention" begin
    q, k, v = randn(Float32, 6, 5, 4, 2), randn(Float32, 6, 7, 2, 2), randn(Float32, 3, 7, 2, 2)
    dout, bias = randn(Float32, 3, 5, 4, 2), randn(Float32, 7, 1, 4, 1)
    mask = fill(true, 7, 5, 1, 1)
    mask[3, :, :, :] .= false
    options = (causal = true, soft_cap = 2, alibi_slopes = [0.1, 0.2, 0, 0.3], sinks = zeros(4), kv_lengths = [7, 6],
               mask = mask)
    loss(q, k, v, bias) = sum(Float64.(attention(q, k, v; bias = bias, options...)) .* dout)
    y, lse = attention(q, k, v; lse = true, bias = bias, options...)
    gradients = attention_backward(q, k, v, y, lse, dout; dbias = true, bias = bias, options...)
    arguments = (q, k, v, bias)
    @test map(size, gradients) == map(size, arguments)
    for i in 1:4
        # Along the gradient the loss rises by its square.
        g = gradients[i]
        moved(h) = loss(ntuple(n -> n == i ? arguments[n] .+ h .* g : arguments[n], 4)...)
        square = sum(abs2, Float64.(g))
        @test square > 1e-3 && isapprox((moved(1f-2) - moved(-1f-2)) / 2f-2, square; rtol = 1e-2)
    end
    @test all(iszero, gradients[2][:, 3, :, :]) && all(iszero, gradients[3][:, 3, :, :])
    # Behind a mask anything may stand, in outputs too.
    k[:, 3, :, :] .= NaN32
    v[:, 3, :, :] .= Inf32
    filled = map(x -> fill(NaN32, size(x)), arguments)
    @test attention_backward!(filled[1:3]..., q, k, v, y, lse, dout; dbias = filled[4], bias = bias, options...) === filled[1:3]
    @test filled == gradients
    @test attention_backward(q, k, v, y, lse, dout; bias = bias, options...) == gradients[1:3]
    # What automatic differentiation calls: any array as the gradient of the result.
    out, pullback = D.attention_pullback(q, k, v; bias = bias, options...)
    @test out == y && pullback(dout) == gradients[1:3] && pullback(Float64.(dout)) == gradients[1:3]
    @test pullback(fill(1, size(y))) == pullback(ones(Float32, size(y)))
    @test thrown(() -> pullback(dout[:, 1:4, :, :])) isa DimensionMismatch
    @test thrown(() -> pullback(nothing)) isa DimensionMismatch

    half = map(x -> Float16.(x), (q, k, v))
    narrow = attention_backward(half..., y, lse, dout; bias = bias, options...)
    @test map(eltype, narrow) == (Float16, Float16, Float16) && all(map((a, b) -> isapprox(a, b; rtol = 1e-2), narrow, gradients[1:3]))
    @test occursin("dbias is true", thrown(() -> attention_backward(q, k, v, y, lse, dout; dbias = true)).msg)
    @test occursin("dbias is given", thrown(() -> attention_backward!(filled[1:3]..., q, k, v, y, lse, dout; dbias = bias)).msg)
    @test thrown(() -> attention_backward!(filled[2], filled[2:3]..., q, k, v, y, lse, dout)) isa DimensionMismatch
    @test thrown(() -> attention_backward!(filled[1], filled[2], filled[2], q, k, k, q, lse, q)) isa ArgumentError
end

@testset "attention in 16 bits" begin
    x = randn(Float32, 40, 9, 4, 2), randn(Float32, 40, 30, 2, 2), randn(Float32, 24, 30, 2, 2)
    for T in (Float16, D.BF16)
        q, k, v = map(x -> T.(x), x)
        wide = map(x -> Float32.(x), (q, k, v))
        want = attention(wide...; causal = true)
        out = attention(q, k, v; causal = true)
        # BF16 throughout is multiplied in pairs: bits of its own, near those of the wide computation.
        own = attention!(similar(want), q, k, v; causal = true)
        @test T == D.BF16 ? maximum(abs, own - want) < 0.02f0 : own == want
        @test eltype(out) == T && out == T.(own)
        @test attention(wide[1], k, v; causal = true) == want
        @test attention!(similar(want), q, wide[2], wide[3]; causal = true) == want
        @test occursin("v has dtype", thrown(() -> attention(q, k, wide[3])).msg)
        packed(x) = permutedims(x[:, :, :, 1], (1, 3, 2))
        @test attention_varlen(packed(q), packed(k), packed(v), [0, 9], [0, 30]; causal = true) == packed(out)
    end
    # The bits of another package's type.
    bits = reinterpret(UInt16, D.BF16.(x[1]))
    @test attention(reinterpret(D.BF16, bits), x[2], x[3]) == attention(D.BF16.(x[1]), x[2], x[3])
    # Rounding to nearest, ties to even; specials.
    for (x, bits) in ((1f0, 0x3f80), (1f0 + 1f0 / 256, 0x3f80), (1f0 + 3f0 / 256, 0x3f82), (1f0 + 1.01f0 / 256, 0x3f81),
                      (floatmax(Float32), 0x7f80), (-Inf32, 0xff80), (-0f0, 0x8000))
        @test D.BF16(x).bits == bits
    end
    @test isnan(D.BF16(NaN32)) && Float32(D.BF16(0.5)) === 0.5f0
    @test_throws ArgumentError attention(Float64.(x[1]), x[2], x[3])
end

@testset "packed sequences" begin
    q, k, v = randn(Float32, 8, 4, 9), randn(Float32, 8, 2, 12), randn(Float32, 6, 2, 12)
    a, b = [0, 4, 4, 9], [0, 5, 6, 12]
    out, lse = attention_varlen(q, k, v, a, b; lse = true, window = (2, nothing), sinks = [1, 2, 3, 4])
    dout = randn(Float32, size(out))
    packed = attention_varlen_backward(q, k, v, out, lse, dout, a, b; window = (2, nothing), sinks = 1:4)
    for n in 1:3
        i, j = a[n]+1:a[n+1], b[n]+1:b[n+1]
        alone(x, i) = reshape(permutedims(x[:, :, i], (1, 3, 2)), size(x, 1), length(i), size(x, 2), 1)
        want, want_lse = attention(alone(q, i), alone(k, j), alone(v, j); lse = true, window = (2, nothing), sinks = 1:4)
        @test alone(out, i) == want && lse[i, :] == want_lse[:, :, 1]
        own = map(alone, (q, k, v), (i, j, j))
        grads = attention_backward(own..., want, want_lse, alone(dout, i); window = (2, nothing), sinks = 1:4)
        @test map(alone, packed, (i, j, j)) == grads
    end
    @test attention_varlen_backward!(map(similar, (q, k, v))..., q, k, v, out, lse, dout, a, b; causal = true) isa Tuple
    @test thrown(() -> attention_varlen_backward(q, k, v, out, lse, dout, a, [0, 12])) isa DimensionMismatch
    @test thrown(() -> attention_varlen_backward(q, k, v, out, lse', dout, a, b)) isa DimensionMismatch
    @test thrown(() -> attention_varlen_backward!(q, k, v, q, k, v, out, lse, dout, a, b)) isa ArgumentError
    for (offsets, words) in (([0, 4, 3, 9], "q_offsets"), ([0, 4, 4, 8], "q_offsets"), ([1, 4, 4, 9], "q_offsets"))
        @test occursin(words, thrown(() -> attention_varlen(q, k, v, offsets, b)).msg)
    end
    @test thrown(() -> attention_varlen(q, k, v, a, [0, 12])) isa DimensionMismatch
    @test thrown(() -> attention_varlen(q, k[1:7, :, :], v, a, b)) isa DimensionMismatch
    @test thrown(() -> attention_varlen!(zeros(Float32, 6, 4, 8), q, k, v, a, b)) isa DimensionMismatch
end

@testset "norms and modulation" begin
    for (f, f!, name, more) in ((layer_norm, layer_norm!, "layer_norm", (bias = "layer_norm.bias",)),
                                (rms_norm, rms_norm!, "rms_norm", NamedTuple()))
        x, w = golden("$name.x"), golden("$name.weight")
        affine = merge((weight = w,), map(golden, more))
        @test near(f(x; eps = 1e-6), golden("$name.out"))
        @test near(f(x; eps = 1e-6, affine...), golden("$name.affine_out"))
        for y in layouts(x)
            @test f(y; affine...) == f(x; affine...)
        end
        @test f!(zero(x), x) == f(x)
        @test_throws ArgumentError f!(x, x)                               # not in place
        @test f(x[:, 1]) == f(x)[:, 1]
        @test size(f(zeros(Float32, 4, 0))) == (4, 0)
        @test_throws DimensionMismatch f(x; weight = w[1:3])
        @test_throws DimensionMismatch f!(x[:, 1:2], x)
        @test_throws ArgumentError f(Float64.(x))
        @test_throws ArgumentError f(x; weight = Float64.(w))
        @test_throws ArgumentError f(x; eps = -1)
    end
    @test_throws DimensionMismatch layer_norm(zeros(Float32, 4, 2); bias = zeros(Float32, 3))

    x, shift, scale = golden("modulate.x"), golden("modulate.shift"), golden("modulate.scale")
    @test near(modulate(x, shift, scale), golden("modulate.out"))
    @test all(y -> modulate(y, shift, scale) == modulate(x, shift, scale), layouts(x))
    @test modulate(x, layouts(shift)[2], layouts(scale)[1]) == modulate(x, shift, scale)
    @test (y = copy(x); modulate!(y, y, shift, scale)) == modulate(x, shift, scale)
    @test_throws DimensionMismatch modulate(x[:, :, 1], shift, scale)
    @test_throws DimensionMismatch modulate(x, shift[:, 1:2], scale)
    @test_throws DimensionMismatch modulate(x, shift, scale[1:2, :])
    @test_throws DimensionMismatch modulate!(x[:, 1:2, :], x, shift, scale)
    @test_throws ArgumentError modulate(x, Float64.(shift), scale)

    fused = layer_norm_modulate(x, shift, scale)
    @test fused == modulate(layer_norm(x; eps = 1f-6), shift, scale)
    @test all(y -> layer_norm_modulate(y, layouts(shift)[2], scale) == fused, layouts(x))
    @test layer_norm_modulate(x, shift, scale; eps = 1) == modulate(layer_norm(x; eps = 1), shift, scale) != fused
    @test_throws ArgumentError layer_norm_modulate!(x, x, shift, scale)             # not in place
    @test_throws DimensionMismatch layer_norm_modulate(x, shift, scale[1:2, :])

    residual, y, gate = golden("gate_residual.res"), golden("gate_residual.y"), golden("gate_residual.gate")
    @test near(gate_residual(residual, y, gate), golden("gate_residual.out"))
    @test gate_residual(layouts(residual)[1], layouts(y)[2], layouts(gate)[1]) == gate_residual(residual, y, gate)
    @test (r = copy(residual); gate_residual!(r, r, y, gate)) == gate_residual(residual, y, gate)
    @test_throws DimensionMismatch gate_residual(residual, y[:, 1:2, :], gate)
    @test_throws DimensionMismatch gate_residual(residual, y, gate[:, 1:2])
    @test_throws ArgumentError gate_residual(residual, y, Int32.(round.(gate)))
end

@testset "softmax, gates, groups" begin
    x = 2 .* randn(Float32, 6, 4, 3)
    e = exp.(Float64.(x))
    p = D.softmax(x)
    @test near(p, Float32.(e ./ sum(e; dims = 1))) && near(D.logsoftmax(x), Float32.(x .- log.(sum(e; dims = 1))))
    @test all(y -> D.softmax(y) == p, layouts(x)) && D.softmax(fill(-Inf32, 3)) == zeros(Float32, 3)
    gate, up = x[1:3, :, :], x[4:6, :, :]
    @test swiglu(x) == swiglu(gate, up) == D.silu(gate) .* up
    @test geglu(x; kind = :erf) == geglu(gate, up; kind = :erf) == D.gelu(gate; kind = :erf) .* up
    @test (y = copy(gate); swiglu!(y, y, up)) == (y = copy(up); swiglu!(y, gate, y)) == swiglu(x)
    r = randn(Float32, 6, 4, 3)
    h, y = rms_norm_residual(x, r)
    @test h == x .+ r && y == rms_norm(h)
    @test (s = copy(r); rms_norm_residual!(s, zero(r), x, s)) == (h, y)
    weight, bias = randn(Float32, 4), randn(Float32, 4)
    g = group_norm(x, 2; weight = weight, bias = bias)
    plain = reshape(layer_norm(reshape(x, 12, 2, 3)), 6, 4, 3)
    @test group_norm(x, 2) == plain && near(g, plain .* weight' .+ bias')
    @test group_norm(x, 2; weight = weight, bias = bias, silu = true) == D.silu(g)
    @test all(y -> group_norm(y, 2; weight = weight, bias = bias) == g, layouts(x))
    # QK-norm: heads beside the numbers or beside the tokens.
    heads = PermutedDimsArray(randn(Float32, 8, 3, 5, 2), (1, 3, 2, 4))
    @test rms_norm(heads) == rms_norm(Array(heads))
    @test embedding(x[:, :, 1], [4, 1, 4]) == x[:, [4, 1, 4], 1] && size(embedding(x[:, :, 1], Int[])) == (6, 0)
    @test cfg_combine(x, r, 1) == x && near(cfg_combine(x, r, 3), 3 .* x .- 2 .* r)
    std(x) = sqrt(sum(abs2, x .- sum(x) / length(x)))
    c, u = x[:, :, 1], r[:, :, 1]
    mixed = 3 .* c .- 2 .* u
    @test near(cfg_combine(x, r, 3; rescale = 1)[:, :, 1], mixed .* (std(c) / std(mixed)))
    places = Float32[0 0 1; 0 2 3]
    tables, one, two = D.Rope(places, (4, 2)), D.Rope(4, 4), D.Rope(4, 2)
    @test tables.cos == vcat(one.cos[:, [1, 1, 2]], two.cos[:, [1, 3, 4]])
    @test tables.sin == vcat(one.sin[:, [1, 1, 2]], two.sin[:, [1, 3, 4]])
end

@testset "16-bit norms and activations" for T in (Float16, D.BF16)
    x, y = T.(randn(Float32, 6, 4, 3)), T.(randn(Float32, 6, 4, 3))
    wide, other, p = Float32.(x), Float32.(y), T.(randn(Float32, 6, 3))
    weight = T.(randn(Float32, 6))
    for (got, want) in ((layer_norm(x), layer_norm(wide)), (rms_norm(x; weight = weight), rms_norm(wide; weight = Float32.(weight))),
                        (modulate(x, p, p), modulate(wide, Float32.(p), Float32.(p))), (D.silu(x), D.silu(wide)),
                        (gate_residual(x, y, p), gate_residual(wide, other, Float32.(p))), (D.gelu(x), D.gelu(wide)),
                        (swiglu(x, y), swiglu(wide, other)), (D.softmax(x), D.softmax(wide)),
                        (group_norm(x, 2; silu = true), group_norm(wide, 2; silu = true)),
                        (cfg_combine(x, y, 2), cfg_combine(wide, other, 2)), (embedding(x[:, :, 1], [2]), wide[:, 2:2, 1]),
                        (patchify(reshape(x, 6, 4, 3, 1), 2), patchify(reshape(wide, 6, 4, 3, 1), 2)))
        @test eltype(got) === T && got == T.(want)
    end
    @test layer_norm!(zeros(Float32, 6, 4, 3), x) == layer_norm(wide)     # types may differ
end

@testset "activations" begin
    x = golden("activation.x")
    @test all(isapprox.(D.silu(x), golden("silu.out"); rtol = 1e-6, atol = 1e-37))
    @test all(isapprox.(D.gelu(x), golden("gelu_tanh.out"); rtol = 1e-5, atol = 1e-7))
    @test all(isapprox.(D.gelu(x; kind = :erf), golden("gelu_erf.out"); rtol = 1e-5, atol = 1e-7))
    cube = reshape(x[1:343], 7, 7, 7)
    for y in layouts(cube), f in (D.silu, D.gelu)
        @test f(y) == f(cube)
    end
    @test (y = copy(x); D.silu!(y, y)) == D.silu(x)
    @test D.silu(Float32[]) == Float32[]
    @test_throws ArgumentError D.gelu(x; kind = :exact)
    @test_throws ArgumentError D.silu([1, 2])
    @test_throws ArgumentError D.silu!(view(x, 2:10), view(x, 1:9))       # overlapping, not the same
    @test_throws DimensionMismatch D.silu!(x[1:2], x)
    @test_throws DimensionMismatch D.gelu!(x[1:2], x)
end

@testset "embedding and patches" begin
    t = golden("timestep_embedding.t")
    @test maximum(abs.(timestep_embedding(t, 256) .- golden("timestep_embedding.out"))) < 1e-4
    @test maximum(abs.(timestep_embedding(t, 32) .- golden("timestep_embedding.small_out"))) < 1e-4
    @test_throws ArgumentError timestep_embedding(t, 5)
    @test_throws ArgumentError timestep_embedding(Float64.(t), 4)
    @test_throws DimensionMismatch timestep_embedding(reshape(t, 2, :), 4)
    @test_throws DimensionMismatch timestep_embedding!(zeros(Float32, 4, 3), t)
    @test_throws ArgumentError timestep_embedding(t, 4; max_period = -1)

    x = golden("patchify.x")
    @test patchify(x, 2) == golden("patchify.out")
    @test all(y -> patchify(y, 2) == patchify(x, 2), layouts(x))
    tokens = golden("unpatchify_head.tokens")
    @test unpatchify(tokens, 2, 10, 6) == golden("unpatchify_head.out")
    @test_throws DimensionMismatch patchify(x, 4)
    @test_throws DimensionMismatch patchify(x, 0)
    @test_throws DimensionMismatch patchify(x[:, :, :, 1], 2)
    @test_throws DimensionMismatch patchify!(zeros(Float32, 12, 14, 2), x, 2)
    @test_throws DimensionMismatch unpatchify(tokens, 2, 10, 10)
    @test_throws DimensionMismatch unpatchify(tokens, 5, 10, 6)
    @test_throws ArgumentError patchify(Float64.(x), 2)
end

@testset "linear in 16 bits" begin
    w, b, x = randn(Float32, 33, 40), randn(Float32, 33), randn(Float32, 40, 5, 2)
    for T in (Float16, D.BF16)
        layer, wide = D.Linear(T.(w), b), D.Linear(Float32.(T.(w)), b)
        y, exact = layer(T.(x)), wide(Float32.(T.(x)))
        @test eltype(y) == T && size(y) == (33, 5, 2)
        @test isapprox(Float32.(y), exact; rtol = T == Float16 ? 1e-3 : 1e-2)
        # Another type than the weights': widened, so the bits are those of Float32.
        @test layer(Float32.(T.(x))) == exact
        T == Float16 && @test D.linear!(similar(exact), layer, T.(x)) == exact
        # An output that is rounded, from x whose columns lie apart.
        sums = D.linear!(similar(exact), layer, T.(x))
        @test T.(sums) == y
        apart = view(T.(repeat(x; inner = (1, 2, 1))), :, 1:2:10, :)
        @test D.linear!(zero(y), layer, apart; activation = :silu) == layer(T.(x); activation = :silu)
        @test D.Linear(transpose(Array(transpose(T.(w)))), T.(b))(x) == D.Linear(T.(w), Float32.(T.(b)))(x)
    end
    layer = D.Linear(D.BF16.(w))
    @test_throws ArgumentError layer(Float64.(x))
    @test_throws ArgumentError D.linear!(zeros(33, 5, 2), layer, x)
    @test_throws ArgumentError D.Linear(D.BF16.(w), Float64.(b))
    @test_throws DimensionMismatch D.linear!(fill(D.BF16(0), 32, 5, 2), layer, x)
end

@testset "linear" begin
    for name in ("small", "odd", "wide")
        # PyTorch's [out, in] in memory is a Julia (in, out).
        x, w, b = golden("linear.$name.x"), transpose(golden("linear.$name.weight")), golden("linear.$name.bias")
        @test near(D.Linear(w, b)(x), golden("linear.$name.out"))
        @test near(D.Linear(w)(x), golden("linear.$name.nobias_out"))
        @test D.Linear(Array(w), b)(x) == D.Linear(w, b)(x)
        @test all(y -> D.Linear(w, b)(y) == D.Linear(w, b)(x), layouts(x))
        @test isapprox(D.Linear(w, b)(x), w * x .+ b; rtol = 1e-5)
    end
    x = golden("linear.activation.x")
    layer = D.Linear(transpose(golden("linear.activation.weight")), golden("linear.activation.bias"))
    @test near(layer(x; activation = :silu), golden("linear.silu.out"))
    @test near(layer(x; activation = :gelu_tanh), golden("linear.gelu_tanh.out"))
    @test isapprox(layer(x; activation = :gelu_erf), D.gelu(layer(x); kind = :erf); rtol = 1e-5)
    @test layer(reshape(x, 40, 2, 3)) == reshape(layer(x), 29, 2, 3)
    @test layer(x[:, 1]) == layer(x)[:, 1]
    @test repr(layer) == "Linear(40 => 29)"
    @test repr(D.Linear(zeros(Float32, 2, 3))) == "Linear(3 => 2; no bias)"
    @test_throws DimensionMismatch layer(x[1:39, :])
    @test_throws DimensionMismatch D.linear!(zeros(Float32, 28, 6), layer, x)
    @test_throws DimensionMismatch D.Linear(zeros(Float32, 3, 2), zeros(Float32, 2))
    @test_throws DimensionMismatch D.Linear(zeros(Float32, 3))
    @test_throws ArgumentError D.Linear(zeros(3, 2))
    @test_throws ArgumentError layer(Float64.(x))
    @test_throws ArgumentError layer(x; activation = :relu)
end

@testset "gate, residual and gated layers" begin
    w, up, b = randn(Float32, 33, 40), randn(Float32, 33, 40), randn(Float32, 33)
    x, gate = randn(Float32, 40, 6, 2), randn(Float32, 33, 2)
    layer, stream = D.Linear(w, b), randn(Float32, 33, 6, 2)
    want = gate_residual(stream, layer(x), gate)
    @test layer(x; gate = gate, residual = stream) == want
    @test D.linear!(copy(stream), layer, x; gate = gate, residual = stream) == want
    onto = copy(stream)
    @test D.linear!(onto, layer, x; gate = gate, residual = onto) === onto == want
    @test layer(x; gate = gate) == layer(x) .* reshape(gate, 33, 1, 2)
    @test layer(x; gate = gate[:, 1]) == layer(x) .* gate[:, 1]
    @test layer(x; residual = stream[:, :, 1]) == layer(x) .+ stream[:, :, 1]
    @test layer(x[:, 1, 1]; gate = gate[:, 1], residual = stream[:, 1, 1]) == want[:, 1, 1]
    @test layer(x; activation = :silu, residual = transpose(Array(transpose(stream[:, :, 1])))) ==
          layer(x; activation = :silu) .+ stream[:, :, 1]
    # Every second row of a larger array.
    far = zeros(Float32, 66, 6, 2)
    D.linear!(view(far, 1:2:66, :, :), layer, x; gate = gate, residual = stream)
    @test far[1:2:66, :, :] == want && all(iszero, far[2:2:66, :, :])
    for T in (Float16, D.BF16)
        narrow = D.linear!(fill(T(0), 33, 6, 2), layer, x; gate = T.(gate), residual = T.(stream))
        @test narrow == T.(gate_residual(Float32.(T.(stream)), layer(x), Float32.(T.(gate))))
    end

    both = D.gated_linear(w, up; up_bias = b)
    halves = D.Linear(w)(x), D.Linear(up, b)(x)
    @test both(x; activation = :silu) == swiglu(halves...)
    @test both(x; activation = :gelu_erf) == geglu(halves...; kind = :erf)
    @test both(x) == halves[1] .* halves[2]
    @test both(x; activation = :silu, gate = gate, residual = stream) == gate_residual(stream, swiglu(halves...), gate)
    @test D.gated_linear(transpose(Array(transpose(w))), up)(x) == D.gated_linear(w, up)(x)
    @test repr(both) == "Linear(40 => 33)"

    @test_throws DimensionMismatch layer(x; gate = zeros(Float32, 33, 5))
    @test_throws DimensionMismatch layer(x; gate = zeros(Float32, 32))
    @test_throws DimensionMismatch layer(x; residual = zeros(Float32, 33, 0))
    @test_throws DimensionMismatch layer(x; residual = zeros(Float32, 33, 2, 6))
    @test_throws ArgumentError layer(x; gate = Float64.(gate))
    @test_throws ArgumentError layer(x; residual = 1)
    @test_throws ArgumentError D.linear!(onto, layer, x; residual = view(onto, :, 1:6, 1))
    @test_throws ArgumentError D.linear!(onto, layer, view(zeros(Float32, 40, 8, 2), :, 1:6, :); gate = gate)
    @test_throws DimensionMismatch D.gated_linear(w, up[1:32, :])
    @test_throws DimensionMismatch D.gated_linear(w, up; gate_bias = b[1:32])
    @test_throws ArgumentError D.gated_linear(w, Float16.(up))
    @test_throws ArgumentError D.gated_linear(Float64.(w), Float64.(up))
end

@testset "threads do not change bits" begin
    before = D.num_threads()
    q = randn(Float32, 64, 200, 4, 2)
    results = map((1, 2, 3)) do n
        D.set_num_threads!(n)
        @test D.num_threads() == n
        attention(q, q, q; causal = true)
    end
    @test results[1] == results[2] == results[3]
    D.set_num_threads!(before)
    @test_throws ArgumentError D.set_num_threads!(0)
end
