# One table of the functions that take arrays; every array argument in turn is replaced by one that
# does not fit. Always an exception of a documented type that names the argument, never a crash.

f32(dims...) = ones(Float32, dims...)
const LAYER = D.Linear(f32(3, 4))
const MACHINE = D.Rbm(f32(2, 3), f32(3), f32(2))
const PLAN = D.Plan(steps = 2)

# name, function of the array arguments, (name => good array)...
const ARRAY_FUNCTIONS = (
    ("attention", attention, "q" => f32(4, 3, 2, 1), "k" => f32(4, 5, 2, 1), "v" => f32(4, 5, 2, 1)),
    ("attention!", attention!, "out" => f32(4, 3, 2, 1), "q" => f32(4, 3, 2, 1), "k" => f32(4, 5, 2, 1), "v" => f32(4, 5, 2, 1)),
    ("attention_backward", attention_backward, "q" => f32(4, 3, 2, 1), "k" => f32(4, 5, 2, 1), "v" => f32(4, 5, 2, 1),
     "out" => f32(4, 3, 2, 1), "lse" => f32(3, 2, 1), "dout" => f32(4, 3, 2, 1)),
    ("attention_backward!", (dq, dk, dv, bias, dbias, x...) -> attention_backward!(dq, dk, dv, x...; bias = bias, dbias = dbias),
     "dq" => f32(4, 3, 2, 1), "dk" => f32(4, 5, 2, 1), "dv" => f32(4, 5, 2, 1), "bias" => f32(5, 3, 2, 1),
     "dbias" => f32(5, 3, 2, 1), "q" => f32(4, 3, 2, 1), "k" => f32(4, 5, 2, 1), "v" => f32(4, 5, 2, 1),
     "out" => f32(4, 3, 2, 1), "lse" => f32(3, 2, 1), "dout" => f32(4, 3, 2, 1)),
    ("dot_product_attention", (q, k, v, bias) -> D.dot_product_attention(q, k, v, bias; nheads = 2)[1],
     "q" => f32(4, 3, 2), "k" => f32(4, 5, 2), "v" => f32(4, 5, 2), "bias" => f32(5, 3, 2, 2)),
    ("attention_varlen", (q, k, v) -> attention_varlen(q, k, v, [0, 1, 3], [0, 2, 5]),
     "q" => f32(4, 2, 3), "k" => f32(4, 2, 5), "v" => f32(4, 2, 5)),
    ("attention_varlen!", (out, q, k, v, lse) -> attention_varlen!(out, q, k, v, [0, 1, 3], [0, 2, 5]; lse = lse),
     "out" => f32(4, 2, 3), "q" => f32(4, 2, 3), "k" => f32(4, 2, 5), "v" => f32(4, 2, 5), "lse" => f32(3, 2)),
    ("attention_varlen_backward", (x...) -> attention_varlen_backward(x..., [0, 1, 3], [0, 2, 5]),
     "q" => f32(4, 2, 3), "k" => f32(4, 2, 5), "v" => f32(4, 2, 5), "out" => f32(4, 2, 3), "lse" => f32(3, 2),
     "dout" => f32(4, 2, 3)),
    ("attention_varlen_backward!", (x...) -> attention_varlen_backward!(x..., [0, 1, 3], [0, 2, 5]),
     "dq" => f32(4, 2, 3), "dk" => f32(4, 2, 5), "dv" => f32(4, 2, 5), "q" => f32(4, 2, 3), "k" => f32(4, 2, 5),
     "v" => f32(4, 2, 5), "out" => f32(4, 2, 3), "lse" => f32(3, 2), "dout" => f32(4, 2, 3)),
    ("layer_norm", layer_norm, "x" => f32(4, 3)),
    ("layer_norm!", (o, x, w, b) -> layer_norm!(o, x; weight = w, bias = b),
     "out" => f32(4, 3), "x" => f32(4, 3), "weight" => f32(4), "bias" => f32(4)),
    ("rms_norm", rms_norm, "x" => f32(4, 3)),
    ("rms_norm!", (o, x, w) -> rms_norm!(o, x; weight = w), "out" => f32(4, 3), "x" => f32(4, 3), "weight" => f32(4)),
    ("modulate", modulate, "x" => f32(4, 3, 2), "shift" => f32(4, 2), "scale" => f32(4, 2)),
    ("modulate!", modulate!, "out" => f32(4, 3, 2), "x" => f32(4, 3, 2), "shift" => f32(4, 2), "scale" => f32(4, 2)),
    ("layer_norm_modulate", layer_norm_modulate, "x" => f32(4, 3, 2), "shift" => f32(4, 2), "scale" => f32(4, 2)),
    ("layer_norm_modulate!", layer_norm_modulate!,
     "out" => f32(4, 3, 2), "x" => f32(4, 3, 2), "shift" => f32(4, 2), "scale" => f32(4, 2)),
    ("gate_residual", gate_residual, "residual" => f32(4, 3, 2), "y" => f32(4, 3, 2), "gate" => f32(4, 2)),
    ("gate_residual!", gate_residual!, "out" => f32(4, 3, 2), "residual" => f32(4, 3, 2), "y" => f32(4, 3, 2), "gate" => f32(4, 2)),
    ("silu", D.silu, "x" => f32(4, 3)),
    ("silu!", D.silu!, "out" => f32(4, 3), "x" => f32(4, 3)),
    ("gelu", D.gelu, "x" => f32(4, 3)),
    ("gelu!", D.gelu!, "out" => f32(4, 3), "x" => f32(4, 3)),
    ("swiglu", swiglu, "gate" => f32(4, 3), "up" => f32(4, 3)),
    ("swiglu!", swiglu!, "out" => f32(4, 3), "gate" => f32(4, 3), "up" => f32(4, 3)),
    ("geglu", geglu, "gate" => f32(4, 3), "up" => f32(4, 3)),
    ("geglu!", geglu!, "out" => f32(4, 3), "gate" => f32(4, 3), "up" => f32(4, 3)),
    ("swiglu(x)", x -> swiglu(x), "x" => f32(4, 3)),
    ("softmax", D.softmax, "x" => f32(4, 3)),
    ("softmax!", D.softmax!, "out" => f32(4, 3), "x" => f32(4, 3)),
    ("logsoftmax", D.logsoftmax, "x" => f32(4, 3)),
    ("logsoftmax!", D.logsoftmax!, "out" => f32(4, 3), "x" => f32(4, 3)),
    ("rms_norm_residual", rms_norm_residual, "x" => f32(4, 3), "residual" => f32(4, 3)),
    ("rms_norm_residual!", (s, o, x, r, w) -> rms_norm_residual!(s, o, x, r; weight = w),
     "sum" => f32(4, 3), "out" => f32(4, 3), "x" => f32(4, 3), "residual" => f32(4, 3), "weight" => f32(4)),
    ("group_norm!", (o, x, w, b) -> group_norm!(o, x, 2; weight = w, bias = b),
     "out" => f32(3, 4, 2), "x" => f32(3, 4, 2), "weight" => f32(4), "bias" => f32(4)),
    ("embedding", t -> embedding(t, [1, 3]), "table" => f32(4, 3)),
    ("embedding!", (o, t) -> embedding!(o, t, [1, 3]), "out" => f32(4, 2), "table" => f32(4, 3)),
    ("cfg_combine", (c, u) -> cfg_combine(c, u, 2), "cond" => f32(4, 3), "uncond" => f32(4, 3)),
    ("cfg_combine!", (o, c, u) -> cfg_combine!(o, c, u, 2), "out" => f32(4, 3), "cond" => f32(4, 3), "uncond" => f32(4, 3)),
    ("Rope(positions, dims)", p -> D.Rope(p, (2, 4)), "positions" => f32(2, 3)),
    ("timestep_embedding", t -> timestep_embedding(t, 4), "t" => f32(3)),
    ("timestep_embedding!", timestep_embedding!, "out" => f32(4, 3), "t" => f32(3)),
    ("patchify", x -> patchify(x, 2), "x" => f32(4, 4, 1, 2)),
    ("patchify!", (o, x) -> patchify!(o, x, 2), "out" => f32(4, 4, 2), "x" => f32(4, 4, 1, 2)),
    ("unpatchify", x -> unpatchify(x, 2, 4, 4), "tokens" => f32(4, 4, 2)),
    ("unpatchify!", (o, x) -> unpatchify!(o, x, 2), "out" => f32(4, 4, 1, 2), "tokens" => f32(4, 4, 2)),
    ("Linear", D.Linear, "weight" => f32(3, 4), "bias" => f32(3)),
    ("(::Linear)", x -> LAYER(x), "x" => f32(4, 2)),
    ("linear!", (o, x) -> D.linear!(o, LAYER, x), "out" => f32(3, 2), "x" => f32(4, 2)),
    ("linear!(gate)", (o, x, g) -> D.linear!(o, LAYER, x; gate = g), "out" => f32(3, 2), "x" => f32(4, 2), "gate" => f32(3, 2)),
    ("linear!(residual)", (o, x, r) -> D.linear!(o, LAYER, x; residual = r), "out" => f32(3, 2), "x" => f32(4, 2), "residual" => f32(3, 2)),
    ("gated_linear", D.gated_linear, "gate" => f32(3, 4), "up" => f32(3, 4)),
    ("normal!", o -> D.normal!(1, o), "out" => f32(4, 2)),
    ("jax_normal!", o -> D.jax_normal!([1, 2], o), "out" => f32(4, 2)),
    ("jax_uniform!", o -> D.jax_uniform!([1, 2], o), "out" => f32(4, 2)),
    ("uniform!", o -> D.uniform!(1, o), "out" => f32(4, 2)),
    ("Rbm", D.Rbm, "weights" => f32(2, 3), "visible_bias" => f32(3), "hidden_bias" => f32(2)),
    ("hidden_probabilities", v -> D.hidden_probabilities(MACHINE, v), "v" => f32(3, 2)),
    ("visible_probabilities", h -> D.visible_probabilities(MACHINE, h), "h" => f32(2, 2)),
    ("free_energy", v -> D.free_energy(MACHINE, v), "v" => f32(3, 2)),
    ("energy", (v, h) -> D.energy(MACHINE, v, h), "v" => f32(3, 2), "h" => f32(2, 2)),
    ("gibbs", v -> D.gibbs(1, MACHINE, v), "v" => f32(3, 2)),
    ("gibbs!", (v, h) -> D.gibbs!(1, MACHINE, v; hidden = h), "v" => f32(3, 2), "hidden" => f32(2, 2)),
    ("cd_gradient", (v, c) -> D.cd_gradient(MACHINE, v, c), "v_data" => f32(3, 2), "v_chain" => f32(3, 2)),
    ("categorical", l -> D.categorical(1, l), "logits" => f32(4, 2)),
)

spread(x) = view(x, map(n -> collect(1:n), size(x))...)

# Elements and layouts that no function takes: the type must be ArgumentError.
const WRONG_ARRAYS = (
    "Float64" => x -> Float64.(x), "Int" => x -> Int.(x), "Complex" => x -> complex.(x),
    "vector-indexed view" => spread, "another device" => Elsewhere,
    "permuted view of another device" => x -> PermutedDimsArray(Elsewhere(x), Tuple(1:ndims(x))),
    "range" => x -> ndims(x) == 1 ? range(1f0; length = length(x)) : spread(x),
)

names_argument(error, name) = occursin(Regex("\\b$name\\b"), sprint(showerror, error))

@testset "bad arrays to $(entry[1])" for entry in ARRAY_FUNCTIONS
    name, f, arguments = entry[1], entry[2], entry[3:end]
    good = map(last, arguments)
    @test thrown(() -> f(map(copy, good)...)) === nothing
    for (i, (argument, x)) in enumerate(arguments)
        replaced_by(bad) = thrown(() -> f(map(copy, good[1:i-1])..., bad, map(copy, good[i+1:end])...))
        for (what, spoil) in WRONG_ARRAYS
            error = replaced_by(spoil(x))
            fits = error isa ArgumentError && names_argument(error, argument)
            fits || @error "unexpected" name argument what error
            @test fits
        end
        # One dimension more: wrong, except where any shape is allowed and nothing else fixes it. Where the
        # shape of x is free, it is out that does not fit x.
        error = replaced_by(reshape(x, size(x)..., 1))
        free = length(arguments) == 1 && name in ("layer_norm", "rms_norm", "silu", "gelu", "softmax", "logsoftmax", "swiglu(x)", "(::Linear)", "normal!", "uniform!", "jax_normal!", "jax_uniform!")
        fits = free ? error === nothing : error isa DimensionMismatch && any(n -> names_argument(error, n), (argument, "out"))
        fits || @error "unexpected" name argument error
        @test fits
        # Empty: an empty result or a refusal.
        error = replaced_by(Array{Float32}(undef, map(_ -> 0, size(x))))
        fits = error isa Union{Nothing,ArgumentError,DimensionMismatch}
        fits || @error "unexpected" name argument error
        @test fits
    end
end

@testset "bad numbers" begin
    refused(f, name) = (e = thrown(f); e isa Union{ArgumentError,DimensionMismatch} && names_argument(e, name))
    t, x = f32(3), f32(4, 4, 1, 2)
    for bad in (0, -1, -2, typemin(Int))
        @test refused(() -> timestep_embedding(t, bad), "dim")
        @test refused(() -> patchify(x, bad), "size")
    end
    for bad in (NaN, Inf, -1)
        @test refused(() -> attention(x, x, x; scale = bad), "scale")
        @test refused(() -> layer_norm(t; eps = bad), "eps")
        @test refused(() -> rms_norm(t; eps = bad), "eps")
        @test refused(() -> layer_norm_modulate(f32(4, 3, 2), f32(4, 2), f32(4, 2); eps = bad), "eps")
        @test refused(() -> timestep_embedding(t, 4; max_period = bad), "max_period")
        @test refused(() -> D.Plan(process = :vp_linear, prediction = :epsilon, solver = :ddim, beta_start = bad), "beta_start")
        @test refused(() -> D.Plan(guidance = bad === -1 ? NaN : bad), "guidance")
    end
    for bad in (0, -1, 3, typemin(Int))
        @test refused(() -> group_norm(f32(3, 4, 2), bad), bad == 3 ? "x" : "groups")
        @test refused(() -> embedding(f32(4, 2), [1, bad]), "indices")
    end
    for bad in (NaN, Inf, 1e4)
        @test refused(() -> cfg_combine(t, t, bad), "scale") && refused(() -> cfg_combine(t, t, 2; rescale = bad), "rescale")
    end
    @test refused(() -> embedding(f32(4, 2), [1.5]), "indices") && refused(() -> swiglu(f32(3, 2)), "x")
    @test refused(() -> D.Rope(f32(2, 3), (2, 3)), "dims") && refused(() -> D.Rope(f32(2, 3), (2,)), "dims")
    @test refused(() -> row_seeds(1, -1), "n")
    @test refused(() -> D.Plan(steps = 0), "steps") && refused(() -> D.Plan(steps = typemax(Int)), "steps")
    @test refused(() -> D.start(1, PLAN, (0, 1)), "dims") && refused(() -> D.start(1, PLAN, (-4, 1)), "dims")
    @test refused(() -> D.set_num_threads!(typemax(Int)), "n")
    # Sizes that no memory holds; Julia 1.5's own Array constructor throws an ErrorException.
    for f in (() -> row_seeds(1, typemax(Int)), () -> timestep_embedding(t, typemax(Int) - 1),
              () -> D.start(1, PLAN, (typemax(Int), 2)), () -> D.start(1, PLAN, (2, typemax(Int))))
        @test thrown(f) isa Union{ArgumentError,DimensionMismatch,OutOfMemoryError,OverflowError,ErrorException}
    end
end

@testset "aliases, states and files" begin
    x = f32(4, 3, 2)
    @test thrown(() -> modulate!(view(x, :, 2:3, :), view(x, :, 1:2, :), f32(4, 2), f32(4, 2))) isa ArgumentError
    @test thrown(() -> layer_norm!(x, x)) isa ArgumentError
    q = f32(4, 3, 2, 1)
    @test thrown(() -> attention!(q, q, q, q)) isa ArgumentError && all(==(1f0), q)
    bytes = export_run(D.start(1, PLAN, (4, 2)))
    for cut in (0, 1, 8, length(bytes) ÷ 2, length(bytes) - 1)
        @test thrown(() -> import_run(PLAN, bytes[1:cut])) isa Union{DGMError,ArgumentError}
    end
    @test thrown(() -> import_run(D.Plan(steps = 3), bytes)) isa Union{DGMError,ArgumentError}
    run = D.start(1, PLAN, (4, 2))
    resize!(run.header, length(run.header) ÷ 2)
    @test thrown(() -> ask(run)) isa Union{DGMError,ArgumentError}
    # A handle of nothing, as after a failed construction.
    layer = D.Linear(f32(3, 4))
    kept, layer.handle.pointer = layer.handle.pointer, C_NULL
    @test thrown(() -> layer(f32(4, 2))) isa Union{DGMError,ArgumentError}
    layer.handle.pointer = kept
    error = thrown(() -> DiT("/no/such/model.safetensors"))
    @test error isa DGMError && occursin("/no/such/model.safetensors", error.message)
end
