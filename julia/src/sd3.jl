"""
    DGMKernels.SD3(folder)

The multimodal diffusion transformer of Stable Diffusion 3 (Esser et al. 2024, arXiv:2403.03206), as `save_pretrained`
of diffusers' `SD3Transformer2DModel` writes it: `config.json` and `diffusion_pytorch_model.safetensors`, or the shards
of its index, of a folder.
Times are 0 to 1000: `1000 * request.t` of a flow plan.
`model(x, t, text, pooled)` evaluates it. Properties: `channels`, `out_channels`, `patch`, `hidden`, `depth`, `heads`,
`text`, `pooled`, `positions`, `packed_bytes`.

# Examples
```julia
model = DGMKernels.SD3("stable-diffusion-3-medium/transformer")
y = model(randn(Float32, 64, 64, 16, 1), 500, text, pooled)     # text (4096, S, 1), pooled (2048, 1)
```
"""
struct SD3 <: Network
    handle::SD3Handle
    info::LibDGM.dgm_sd3_info
    workspace::Vector{Float32}
    lock::ReentrantLock
    function SD3(folder::AbstractString)
        handle = SD3Handle(out -> LibDGM.dgm_sd3_load(folder, out))
        info = blank(LibDGM.dgm_sd3_info)
        check(LibDGM.dgm_sd3_get_info(handle, info))
        return new(handle, info[], Float32[], ReentrantLock())
    end
end

"""
    model(x, t, text, pooled) -> Array{Float32}
    DGMKernels.forward!(out, model, x, t, text, pooled)

The output `(W, H, Cout, B)` of an [`DGMKernels.SD3`](@ref) for latents `x` `(W, H, C, B)` at the times `t` (`B` numbers
from 0 to 1000, or one for all), prompts `text` `(text, S, B)` and `pooled` `(pooled, B)`.
"""
function (model::SD3)(x, t, text, pooled)
    check_dims("x", x, 4, "(W, H, C, B)")
    out = Array{Float32}(undef, size(x, 1), size(x, 2), model.out_channels, size(x, 4))
    return forward!(out, model, x, t, text, pooled)
end

"See [`DGMKernels.SD3`](@ref)."
function forward!(out, model::SD3, x, t, text, pooled)
    check_dims("x", x, 4, "(W, H, C, B)")
    check_dims("text", text, 3, "(text, S, B)")
    w, h, c, batch = size(x)
    c == model.channels || wrong_size("x", x, (w, h, model.channels, batch))
    check_size("text", text, (model.text, size(text, 2), batch))
    check_size("pooled", pooled, (model.pooled, batch))
    check_size("out", out, (w, h, model.out_channels, batch))
    times = batch_of("t", t, Float32, batch)
    floats = Ref{Csize_t}()
    check(LibDGM.dgm_sd3_workspace_len(model.handle, h, w, size(text, 2), floats))
    with_workspace(model, floats[]) do workspace
        check(LibDGM.dgm_sd3_forward(model.handle, Tensor(x), times, Tensor(text), Tensor(pooled), workspace,
                                     length(workspace), Tensor(out)))
    end
    return out
end

Base.show(io::IO, m::SD3) = print(io, "SD3(", m.channels, " channels, depth ", m.depth, ", width ", m.hidden, ")")
