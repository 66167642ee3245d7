"""
    DiT(path)

A diffusion transformer (Peebles, Xie 2022, arXiv:2212.09748) read from a safetensors file, or from the shards
of `path.index.json` where there is no such file, and packed for the processor. `model(x, t, labels)` evaluates it.
Properties: `channels`, `height`, `width`, `out_channels`, `num_classes`, `tokens`, `width_d`, `depth`, `heads`,
`packed_bytes`. Weights are f32, f16 or bf16 and stay that in memory; where those of all layers are bf16, what the
layers and attention multiply is rounded to bf16 too.

# Examples
```julia
model = DiT("models/digits.safetensors")
images = DGMKernels.generate(MersenneTwister(1), model; labels = 0:9)     # (8, 8, 1, 10)
```
"""
struct DiT <: Network
    handle::ModelHandle
    info::LibDGM.dgm_model_info
    workspace::Vector{Float32}
    lock::ReentrantLock
    function DiT(path::AbstractString)
        handle = ModelHandle(out -> LibDGM.dgm_model_load(path, out))
        info = blank(LibDGM.dgm_model_info)
        check(LibDGM.dgm_model_get_info(handle, info))
        return new(handle, info[], Float32[], ReentrantLock())
    end
end

"""
    DGMKernels.metadata(model, key) -> Union{String,Nothing}

One entry of the metadata of the model's file, or `nothing`.
"""
function metadata(model::DiT, key::AbstractString)
    needed = Ref{Csize_t}(0)
    status = LibDGM.dgm_model_metadata(model.handle, key, C_NULL, 0, needed)
    status == -101 && return nothing
    return text((buffer, cap, needed) -> LibDGM.dgm_model_metadata(model.handle, key, buffer, cap, needed))
end

"""
    model(x, t, labels) -> Array{Float32}
    DGMKernels.forward!(out, model, x, t, labels)

The output `(W, H, Cout, B)` of a [`DiT`](@ref) for images `x` `(W, H, C, B)` at the model times `t`
(`B`, or one number for all) and of the classes `labels` (`B` integers from 0, or one for all).
The label `model.num_classes` means no class.
"""
function (model::DiT)(x, t, labels)
    out = Array{Float32}(undef, size(x, 1), size(x, 2), model.out_channels, size(x, 4))
    return forward!(out, model, x, t, labels)
end

"See [`DiT`](@ref)."
function forward!(out, model::DiT, x, t, labels)
    shape = (model.width, model.height, model.channels)
    ndims(x) == 4 && size(x)[1:3] == shape || wrong_size("x", x, "($(join(shape, ", ")), B)")
    check_array("x", x)
    batch = size(x, 4)
    check_size("out", out, (model.width, model.height, model.out_channels, batch))
    times, classes = batch_of("t", t, Float32, batch), batch_of("labels", labels, Int64, batch)
    all(c -> 0 <= c <= model.num_classes, classes) || throw(ArgumentError(
        "labels is $labels, expected classes 0 to $(model.num_classes - 1), or $(model.num_classes) for none"))
    floats = Ref{Csize_t}()
    check(LibDGM.dgm_model_workspace_len(model.handle, batch, floats))
    with_workspace(model, floats[]) do workspace
        check(LibDGM.dgm_model_forward(model.handle, Tensor(x), times, classes, workspace, length(workspace), Tensor(out)))
    end
    return out
end

batch_of(name, value::Real, ::Type{T}, batch) where {T} = fill(converted(name, value, T), batch)
function batch_of(name, values::AbstractVector, ::Type{T}, batch) where {T}
    length(values) == batch || throw(DimensionMismatch("$name has length $(length(values)), expected the batch size $batch"))
    return values isa Vector{T} ? values : T[converted(name, v, T) for v in values]
end
batch_of(name, value, T, batch) = throw(ArgumentError("$name is a $(typeof(value)), expected a number or a vector of $batch"))

converted(name, value::Real, ::Type{T}) where {T<:AbstractFloat} = T(value)
converted(name, value::Real, ::Type{T}) where {T<:Integer} =
    isinteger(value) ? T(value) : throw(ArgumentError("$name has $value, expected integers"))
converted(name, value, ::Type) = throw(ArgumentError("$name has a $(typeof(value)), expected numbers"))

function Plan(model::DiT; changes...)
    options = blank(LibDGM.dgm_plan_options)
    check(LibDGM.dgm_model_plan_options(model.handle, options))
    return Plan(options[]; changes...)
end

"""
    DGMKernels.generate([rng], model, [plan]; labels) -> Array{Float32}

Images `(W, H, C, B)` of the classes `labels` (`B` integers), by the plan that the file of the model
asks for or by one of yours. The first argument is an `AbstractRNG`, a seed or a seed an image.
"""
function generate(source, model::DiT, plan::Plan = Plan(model); labels)
    labels isa AbstractVector || throw(ArgumentError("labels is a $(typeof(labels)), expected one integer an image"))
    classes = batch_of("labels", labels, Int64, length(labels))
    all(c -> 0 <= c <= model.num_classes, classes) ||
        throw(ArgumentError("labels is $labels, expected classes 0 to $(model.num_classes - 1)"))
    seeds = seeds_of(source, length(classes))
    out = Array{Float32}(undef, model.width, model.height, model.channels, length(classes))
    check(LibDGM.dgm_generate(model.handle, plan.handle, seeds, classes, length(classes), Tensor(out)))
    return out
end
generate(model::DiT, plan::Plan = Plan(model); labels) = generate(Random.default_rng(), model, plan; labels = labels)

Base.show(io::IO, m::DiT) = print(io, "DiT(", m.width, "×", m.height, "×", m.channels, ", depth ", m.depth, ")")
Base.show(io::IO, ::MIME"text/plain", m::DiT) = print(io,
    m, "\n  ", m.depth, " blocks of width ", m.width_d, " with ", m.heads, " heads, ", m.tokens, " tokens",
    "\n  ", m.num_classes, " classes, ", Base.format_bytes(m.packed_bytes), " of packed weights")
