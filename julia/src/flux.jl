"""
    DGMKernels.FluxTransformer(folder)

The transformer of Flux (FLUX.1 dev, schnell and their kin; Black Forest Labs 2024), as `save_pretrained` of diffusers'
`FluxTransformer2DModel` writes it: `config.json` and `diffusion_pytorch_model.safetensors`, or the shards of its index,
of a folder. It is no model of the package Flux.jl.
`model(x, t, text, pooled, ids)` evaluates it. Properties: `channels`, `out_channels`, `hidden`, `depth`, `single_depth`,
`heads`, `text`, `pooled`, `axes` (coordinates of a token's place), `guidance` (1 where it takes one), `packed_bytes`.

# Examples
```julia
model = DGMKernels.FluxTransformer("FLUX.1-dev/transformer")
ids = Float32[axis == 1 ? 0 : axis == 2 ? (n - 1) ÷ 64 : (n - 1) % 64 for axis in 1:3, n in 1:4096]
x = randn(Float32, 64, 4096, 1)                          # latents (128, 128, 16, 1), packed
y = model(x, 1, text, pooled, ids; guidance = 3.5)       # text (4096, S, 1), pooled (768, 1)
```
"""
struct FluxTransformer <: Network
    handle::FluxHandle
    info::LibDGM.dgm_flux_info
    workspace::Vector{Float32}
    lock::ReentrantLock
    function FluxTransformer(folder::AbstractString)
        handle = FluxHandle(out -> LibDGM.dgm_flux_load(folder, out))
        info = blank(LibDGM.dgm_flux_info)
        check(LibDGM.dgm_flux_get_info(handle, info))
        return new(handle, info[], Float32[], ReentrantLock())
    end
end

"""
    model(x, t, text, pooled, ids; text_ids = nothing, guidance = nothing) -> Array{Float32}
    DGMKernels.forward!(out, model, x, t, text, pooled, ids; text_ids = nothing, guidance = nothing)

The velocity `(Cout, N, B)` by an [`DGMKernels.FluxTransformer`](@ref) for packed latents `x` `(C, N, B)` at the times
`t` (`B` numbers from 0 to 1, as a flow plan has them, or one for all), prompts `text` `(text, S, B)` and `pooled`
`(pooled, B)`, image tokens at the places `ids` `(axes, N)` and text tokens at `text_ids` `(axes, S)`, zeros unless given.
`guidance` is `B` numbers, or one for all, where the network takes it.
"""
function (model::FluxTransformer)(x, t, text, pooled, ids; text_ids = nothing, guidance = nothing)
    check_dims("x", x, 3, "(C, N, B)")
    out = Array{Float32}(undef, model.out_channels, size(x, 2), size(x, 3))
    return forward!(out, model, x, t, text, pooled, ids; text_ids, guidance)
end

"See [`DGMKernels.FluxTransformer`](@ref)."
function forward!(out, model::FluxTransformer, x, t, text, pooled, ids; text_ids = nothing, guidance = nothing)
    check_dims("x", x, 3, "(C, N, B)")
    check_dims("text", text, 3, "(text, S, B)")
    _, tokens, batch = size(x)
    text_tokens = size(text, 2)
    check_size("x", x, (model.channels, tokens, batch))
    check_size("text", text, (model.text, text_tokens, batch))
    check_size("pooled", pooled, (model.pooled, batch))
    check_size("ids", ids, (model.axes, tokens))
    text_ids === nothing || check_size("text_ids", text_ids, (model.axes, text_tokens))
    check_size("out", out, (model.out_channels, tokens, batch))
    times = batch_of("t", t, Float32, batch)
    guides = guidance === nothing ? C_NULL : batch_of("guidance", guidance, Float32, batch)
    floats = Ref{Csize_t}()
    check(LibDGM.dgm_flux_workspace_len(model.handle, tokens, text_tokens, floats))
    with_workspace(model, floats[]) do workspace
        check(LibDGM.dgm_flux_forward(model.handle, Tensor(x), times, guides, Tensor(text), Tensor(pooled), Tensor(ids),
                                      optional(text_ids), workspace, length(workspace), Tensor(out)))
    end
    return out
end

function Base.show(io::IO, m::FluxTransformer)
    print(io, "FluxTransformer(", m.channels, " channels, depth ", m.depth, " + ", m.single_depth, ", width ", m.hidden, ")")
end
