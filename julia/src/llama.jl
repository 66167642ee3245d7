"""
    DGMKernels.Llama(folder)

A causal language model, Llama 1 to 3, SmolLM2 and whatever else `save_pretrained` of `LlamaForCausalLM` writes
(Touvron et al. 2023, arXiv:2302.13971): `config.json` and `model.safetensors`, or the shards of its index, of a folder,
packed for the processor. Weights of `Float32`, `Float16` and `BF16` stay what they are, everything is computed in `Float32`.

`model(tokens, cache)` appends tokens to a [`DGMKernels.KVCache`](@ref) and gives the logits of what follows.
Properties: `vocab`, `hidden`, `mlp_hidden`, `depth`, `heads`, `kv_heads`, `head_dim`, `cache_heads`,
`max_positions`, `packed_bytes`.

# Examples
```julia
model = DGMKernels.Llama("SmolLM2-135M")
cache = DGMKernels.KVCache(model, 2048)                  # room for 2048 tokens
logits = model([504, 3576, 282], cache)                  # a prompt: (vocab, 1, 1)
for _ in 1:20                                            # greedy
    global logits = model([argmax(vec(logits)) - 1], cache)
end
```
"""
struct Llama <: Network
    handle::LlamaHandle
    info::LibDGM.dgm_llama_info
    workspace::Vector{Float32}
    lock::ReentrantLock
    function Llama(folder::AbstractString)
        handle = LlamaHandle(out -> LibDGM.dgm_llama_load(folder, out))
        info = blank(LibDGM.dgm_llama_info)
        check(LibDGM.dgm_llama_get_info(handle, info))
        return new(handle, info[], Float32[], ReentrantLock())
    end
end

"""
    DGMKernels.KVCache(model, tokens; batch = 1, type = Float32)

An empty cache for `batch` sequences of up to `tokens` tokens of a [`DGMKernels.Llama`](@ref), of `Float32`,
`Float16`, `DGMKernels.BF16` or `Int8`. Of a paged cache `k` and `v` are `(head_dim, T, cache_heads, P)`: the heads
of all blocks side by side.
"""
function KVCache(model::Llama, tokens::Integer; batch::Integer = 1, type::Type = Float32)
    tokens >= 1 || throw(ArgumentError("tokens is $tokens, expected an integer from 1"))
    batch >= 0 || throw(ArgumentError("batch is $batch, expected an integer from 0"))
    k, v = ntuple(_ -> fill!(Array{type}(undef, model.head_dim, tokens, model.cache_heads, batch), zero(type)), 2)
    scales = type === Int8 ? ntuple(_ -> zeros(Float32, tokens, model.cache_heads, batch), 2) : (nothing, nothing)
    return KVCache(k, v, zeros(Int64, batch); k_scale = scales[1], v_scale = scales[2])
end

"""
    model(tokens, cache; last = 1) -> Array{Float32}
    DGMKernels.forward!(logits, model, tokens, cache)

Appends `tokens` `(N, B)`, integers from 0 (or a vector of `N` for one sequence), to a cache and gives the logits
`(vocab, M, B)` of what follows the `last` `M` of them. On error nothing is written.

A sequence gives the same bits whole, in chunks or token by token, in any batch, for any page size.
[`cache_truncate!`](@ref) takes tokens back.
"""
function (model::Llama)(tokens, cache::KVCache; last::Integer = 1)
    check_tokens(tokens)
    0 <= last <= size(tokens, 1) || throw(ArgumentError("last is $last, expected 0 to $(size(tokens, 1)), the new tokens"))
    return forward!(Array{Float32}(undef, model.vocab, last, size(tokens, 2)), model, tokens, cache)
end

"See [`DGMKernels.Llama`](@ref)."
function forward!(logits, model::Llama, tokens, cache::KVCache)
    check_tokens(tokens)
    new, batch = size(tokens, 1), size(tokens, 2)
    length(cache.lengths) == batch ||
        throw(DimensionMismatch("tokens is (N, B) = $((new, batch)), expected B = $(length(cache.lengths)), the lengths of the cache"))
    sizes = (model.head_dim, model.cache_heads)
    (size(cache.k, 1), size(cache.k, 3)) == sizes && size(cache.v, 1) == sizes[1] ||
        wrong_size("k", cache.k, "($(sizes[1]), T, $(sizes[2]), P)")
    check_dims("logits", logits, 3, "(vocab, M, B)")
    size(logits, 2) <= new || wrong_size("logits", logits, "($(model.vocab), at most $new, $batch)")
    check_size("logits", logits, (model.vocab, size(logits, 2), batch))
    numbers = tokens isa Array{Int64} ? tokens : Int64[converted("tokens", t, Int64) for t in tokens]
    all(t -> 0 <= t < model.vocab, numbers) || throw(ArgumentError("tokens has a number outside 0 to $(model.vocab - 1)"))
    floats = Ref{Csize_t}()
    check(LibDGM.dgm_llama_workspace_len(model.handle, batch, new, floats))
    with_workspace(model, floats[]) do workspace
        with_cache(cache) do c
            check(LibDGM.dgm_llama_forward(model.handle, numbers, batch, new, c, workspace, length(workspace), Tensor(logits)))
        end
    end
    return logits
end

check_tokens(tokens) = tokens isa AbstractArray && ndims(tokens) in (1, 2) ||
    throw(ArgumentError("tokens is a $(typeof(tokens)), expected integers (N, B)"))

Base.show(io::IO, m::Llama) = print(io, "Llama(vocab ", m.vocab, ", depth ", m.depth, ", width ", m.hidden, ")")
Base.show(io::IO, ::MIME"text/plain", m::Llama) = print(io,
    m, "\n  ", m.heads, " heads of ", m.head_dim, " over ", m.kv_heads, " of keys and values",
    "\n  ", Base.format_bytes(m.packed_bytes), " of packed weights")
