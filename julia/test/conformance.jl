# The cases that every language runs: tests/conformance/cases.txt holds inputs by seed and the SHA-256
# of the outputs. Row-major dimensions are reversed here; the bytes are the same.

using SHA: sha256

const CASES_FILE = joinpath(@__DIR__, "..", "..", "tests", "conformance", "cases.txt")

"Element `i` (from 0, in memory order) of the inputs with this seed."
function generated(i, seed)
    h = (i + 1) % UInt32 * 0x9E3779B1 + seed % UInt32 * 0x85EBCA77
    h = (h ⊻ (h >> 16)) * 0x21F0AAAD
    h = (h ⊻ (h >> 15)) * 0x735A2D97
    h ⊻= h >> 15
    return Float32(h >> 8) / 8388608f0 - 1f0
end

julia_dims(text) = Tuple(reverse(parse.(Int, split(text, ','))))

function input(dims, kind, text)
    kind == "seed" && (seed = parse(Int, text); return reshape([generated(i, seed) for i in 0:prod(dims)-1], dims))
    kind == "values" && return reshape([reinterpret(Float32, parse(UInt32, v; base = 16)) for v in split(text, ',')], dims)
    throw(ArgumentError("unknown contents \"$kind $text\" of a conformance input"))
end

mutable struct Case
    name::String
    call::String
    inputs::Dict{String,Array{Float32}}
    args::Dict{String,String}
    result::String
    out::Dims
    sha256::Union{String,Nothing}
    error::Union{NTuple{2,String},Nothing}
    Case(name) = new(name, "", Dict(), Dict(), "", (), nothing, nothing)
end

"""
Calls `f(case)` for every case of the file. A line that this reader does not know is an error, so
that no case is ever skipped silently.
"""
function each_case(f, path = CASES_FILE)
    case = Case("")
    for line in eachline(path)
        (isempty(line) || startswith(line, '#')) && continue
        words = split(line, ' ')
        kind, rest = words[1], words[2:end]
        if kind == "case" || kind == "bad"
            case = Case(rest[1])
        elseif kind == "call"
            case.call = rest[1]
        elseif kind == "in" && rest[2] == "f32"
            case.inputs[rest[1]] = input(julia_dims(rest[3]), rest[4], rest[5])
        elseif kind == "arg"
            case.args[rest[1]] = rest[2]
        elseif kind == "out" && rest[2] == "f32"
            case.result = rest[1]
            case.out = julia_dims(rest[3])
            length(rest) == 5 && rest[4] == "sha256" && (case.sha256 = rest[5])
        elseif kind == "error"
            case.error = (rest[1], rest[2])
        elseif kind == "end"
            f(case)
        else
            throw(ArgumentError("unknown conformance line \"$line\""))
        end
    end
end

number(case, name) = parse(Float64, case.args[name])
affine(case, names...) = (; (n => own(case, string(n)) for n in names if haskey(case.inputs, string(n)))...)

# Entry (n, b) of the block table is page batch * (most - 1 - n) + b; all places but `short` are filled.
function paged_cache(c, k, v)
    batch = Int(number(c, "batch"))
    most = size(k, 4) ÷ batch
    table = Int32[batch * (most - 1 - n) + b for n in 0:most-1, b in 0:batch-1]
    return D.KVCache(k, v, fill(most * size(k, 2) - Int(number(c, "short")), batch); block_table = table)
end

const ATTENTION_OPTIONS = ("causal", "scale", "soft_cap", "window_left", "window_right", "alibi_slopes", "sinks")
const ATTENTION_ARGUMENTS = (ATTENTION_OPTIONS..., "kv_lengths", "storage", "kv_storage", "q_offsets", "kv_offsets")

list(T, case, name) = parse.(T, split(case.args[name], ','))

function packed_options(case)
    @assert all(in(ATTENTION_ARGUMENTS), keys(case.args))
    given(f, name) = haskey(case.args, name) ? f(name) : nothing
    one(name) = given(name -> number(case, name), name)
    limit(name) = given(name -> Int(number(case, name)), name)
    many(name) = given(name -> list(Float32, case, name), name)
    return (causal = number(case, "causal") != 0, scale = one("scale"), soft_cap = one("soft_cap"),
            window = (limit("window_left"), limit("window_right")), alibi_slopes = many("alibi_slopes"),
            sinks = many("sinks"))
end

# Of a mask, whatever is at least -0.25 is seen.
attention_options(c) = (packed_options(c)..., bias = get(c.inputs, "bias", nothing),
                        mask = haskey(c.inputs, "mask") ? Array(c.inputs["mask"] .>= -0.25f0) : nothing,
                        kv_lengths = haskey(c.args, "kv_lengths") ? list(Int, c, "kv_lengths") : nothing)

const STORAGE = Dict("f32" => Float32, "f16" => Float16, "bf16" => D.BF16)
stored(c, x, name = "storage") = STORAGE[get(c.args, name, get(c.args, "storage", "f32"))].(x)

own(c, name) = stored(c, c.inputs[name])

# `f` with an output of the case's type, widened into `out`.
function into(f, out, c)
    haskey(c.args, "storage") || return f(out)
    narrow = fill!(similar(out, STORAGE[c.args["storage"]]), NaN32)
    f(narrow)
    out .= Float32.(narrow)
end

# How each entry of the C interface is called here: (out, case, x), where x gives an input by its name.
const CALLS = Dict(
    "attention" => (out, c, x) -> begin
        q, k, v = stored(c, x("q")), stored(c, x("k"), "kv_storage"), stored(c, x("v"), "kv_storage")
        c.result == "lse" || return into(y -> attention!(y, q, k, v; attention_options(c)...), out, c)
        y = similar(out, size(v, 1), size(q, 2), size(q, 3), size(q, 4))
        attention!(y, q, k, v; lse = out, attention_options(c)...)
    end,
    "attention_varlen" => (out, c, x) -> begin
        q, k, v, offsets = stored(c, x("q")), stored(c, x("k")), stored(c, x("v")), n -> list(Int, c, n)
        into(y -> attention_varlen!(y, q, k, v, offsets("q_offsets"), offsets("kv_offsets"); packed_options(c)...), out, c)
    end,
    # The three gradients one after the other.
    "attention_varlen_backward" => (out, c, x) -> begin
        q, k, v, offsets = x("q"), x("k"), x("v"), map(n -> list(Int, c, n), ("q_offsets", "kv_offsets"))
        y, lse = similar(x("dout")), Array{Float32}(undef, size(x("dout"), 3), size(x("dout"), 2))
        attention_varlen!(y, q, k, v, offsets...; lse = lse, packed_options(c)...)
        gradients = attention_varlen_backward(q, k, v, y, lse, x("dout"), offsets...; packed_options(c)...)
        out .= vcat(map(vec, gradients)...)
    end,
    "attention_paged" => (out, c, x) -> attention_paged!(out, x("q"), paged_cache(c, x("k"), x("v"));
                                                         causal = number(c, "causal") != 0),
    "attention_merge" => (out, c, x) -> attention_merge!(out, fill(NaN32, size(x("lse1"))), x("out1"), x("lse1"), x("out2"), x("lse2")),
    "rope" => (out, c, x) -> D.rope!(out, x("x"), parse.(Int, split(c.args["first"], ',')),
                                     D.Rope(x("cos"), x("sin"); interleaved = number(c, "interleaved") != 0)),
    # The three gradients of each batch item one after the other.
    "attention_backward" => (out, c, x) -> begin
        q, k, v, options = own(c, "q"), own(c, "k"), own(c, "v"), attention_options(c)
        y, lse = attention(q, k, v; lse = true, options...)
        gradients = attention_backward(q, k, v, y, lse, own(c, "dout"); options...)
        out .= vcat(map(g -> reshape(Float32.(g), :, size(out, 2)), gradients)...)
    end,
    # Weights lie in memory as [out, in].
    "linear" => (out, c, x) -> begin
        weight(name) = transpose(stored(c, x(name)))
        optional(name) = haskey(c.inputs, name) ? stored(c, x(name)) : nothing
        activation = Symbol(c.args["activation"])
        if haskey(c.args, "gated")
            layer = D.gated_linear(weight("gate"), weight("up"); gate_bias = x("gate_bias"), up_bias = x("up_bias"))
            D.linear!(out, layer, stored(c, x("x")); activation = activation)
        else
            layer = D.Linear(weight("weight"), get(c.inputs, "bias", nothing))
            D.linear!(out, layer, stored(c, x("x")); activation = activation, gate = optional("gate"), residual = optional("residual"))
        end
    end,
    "layer_norm" => (out, c, x) -> into(y -> layer_norm!(y, own(c, "x"); eps = number(c, "eps"), affine(c, :weight, :bias)...), out, c),
    "rms_norm" => (out, c, x) -> into(y -> rms_norm!(y, own(c, "x"); eps = number(c, "eps"), affine(c, :weight)...), out, c),
    # The sum and the norm of each row side by side.
    "rms_norm_residual" => (out, c, x) -> into(out, c) do y
        sum, normed = rms_norm_residual!(similar(own(c, "x")), similar(own(c, "x")), own(c, "x"), own(c, "residual");
                                         eps = number(c, "eps"), affine(c, :weight)...)
        y .= vcat(sum, normed)
    end,
    "group_norm" => (out, c, x) -> into(out, c) do y
        group_norm!(y, own(c, "x"), Int(number(c, "groups")); eps = number(c, "eps"), silu = number(c, "silu") != 0,
                    affine(c, :weight, :bias)...)
    end,
    "modulate" => (out, c, x) -> into(y -> modulate!(y, own(c, "x"), own(c, "shift"), own(c, "scale")), out, c),
    "layer_norm_modulate" => (out, c, x) -> into(out, c) do y
        layer_norm_modulate!(y, own(c, "x"), own(c, "shift"), own(c, "scale"); eps = number(c, "eps"))
    end,
    "gate_residual" => (out, c, x) -> into(y -> gate_residual!(y, own(c, "residual"), own(c, "y"), own(c, "gate")), out, c),
    "silu" => (out, c, x) -> into(y -> D.silu!(y, own(c, "x")), out, c),
    "gelu" => (out, c, x) -> into(y -> D.gelu!(y, own(c, "x"); kind = Symbol(c.args["kind"])), out, c),
    "swiglu" => (out, c, x) -> into(y -> swiglu!(y, own(c, "gate"), own(c, "up")), out, c),
    "geglu" => (out, c, x) -> into(y -> geglu!(y, own(c, "gate"), own(c, "up"); kind = Symbol(c.args["kind"])), out, c),
    "softmax" => (out, c, x) -> into(y -> D.softmax!(y, own(c, "x")), out, c),
    "log_softmax" => (out, c, x) -> into(y -> D.logsoftmax!(y, own(c, "x")), out, c),
    # Indices begin with 1 here.
    "embedding" => (out, c, x) -> into(y -> embedding!(y, own(c, "table"), list(Int, c, "indices") .+ 1), out, c),
    "cfg_combine" => (out, c, x) -> into(out, c) do y
        cfg_combine!(y, own(c, "cond"), own(c, "uncond"), number(c, "scale"); rescale = number(c, "rescale"))
    end,
    # Cosines and sines of each row side by side; the tables have the size of the positions, so none can be wrong.
    "rope_axial_tables" => (out, c, x) -> begin
        tables = D.Rope(x("positions"), Tuple(list(Int, c, "dims")); theta = number(c, "theta"))
        both = vcat(tables.cos, tables.sin)
        size(both) == size(out) || throw(DimensionMismatch("cos has the size of $(size(both)), expected $(size(out))"))
        out .= both
    end,
    "timestep_embedding" => (out, c, x) -> into(y -> timestep_embedding!(y, own(c, "t"); max_period = number(c, "max_period")), out, c),
    "patchify" => (out, c, x) -> into(y -> patchify!(y, own(c, "x"), Int(number(c, "patch"))), out, c),
    "unpatchify" => (out, c, x) -> into(y -> unpatchify!(y, own(c, "x"), Int(number(c, "patch"))), out, c),
)

# Arguments with another name here than in the C interface.
const JULIA_NAMES = Dict(("unpatchify", "x") => "tokens")

const ERROR_TYPES = Dict("shape" => DimensionMismatch, "argument" => ArgumentError, "dtype" => ArgumentError,
                         "alias" => ArgumentError, "range" => ArgumentError, "io" => DGMError, "state" => DGMError)

@testset "conformance" begin
    @test generated(0, 7) != generated(1, 7) && -1 <= generated(0, 7) < 1
    passed, refused = Ref(0), Ref(0)
    each_case() do case
        out = fill(NaN32, case.out)
        run() = CALLS[case.call](out, case, name -> case.inputs[name])
        if case.error === nothing
            run()
            @testset "$(case.name)" begin
                @test bytes2hex(sha256(reinterpret(UInt8, vec(out)))) == case.sha256
            end
            passed[] += 1
        else
            class, word = case.error
            error = thrown(run)
            name = get(JULIA_NAMES, (case.call, word), word)
            @testset "$(case.name)" begin
                @test error isa ERROR_TYPES[class]
                @test occursin(Regex("\\b\\Q$name\\E\\b"), sprint(showerror, error))
                @test all(isnan, out)                       # untouched
            end
            refused[] += 1
        end
    end
    # The file was read to its end, and holds both kinds.
    lines = readlines(CASES_FILE)
    @test passed[] == count(startswith("case "), lines) > 0
    @test refused[] == count(startswith("bad "), lines) > 0
end
