"""
Sampling and attention kernels of deep generative models, for the CPU.

Arrays are `Float32` (kernels also take `Float16` and `DGMKernels.BF16`) in Julia's order, so what other languages call `[B, H, L, D]` is `(D, L, H, B)`
here, and images are `(W, H, C, B)`; nothing is copied. The same input gives the same bits for any
number of threads, any batch and in any of the languages that share the engine.

- Kernels: [`attention`](@ref) and [`attention_backward`](@ref), [`layer_norm`](@ref), [`rms_norm`](@ref), [`modulate`](@ref), [`layer_norm_modulate`](@ref),
  [`rms_norm_residual`](@ref), [`group_norm`](@ref), [`gate_residual`](@ref), [`swiglu`](@ref), [`geglu`](@ref),
  [`timestep_embedding`](@ref), [`embedding`](@ref), [`patchify`](@ref), [`unpatchify`](@ref), [`cfg_combine`](@ref),
  `DGMKernels.softmax`, `DGMKernels.logsoftmax`, `DGMKernels.silu`, `DGMKernels.gelu`, `DGMKernels.Linear`, `DGMKernels.gated_linear`; each has a twin with `!` that fills an
  array of yours. `DGMKernels.dot_product_attention` is attention in the layout of NNlib.
- Random numbers: [`row_seeds`](@ref), `DGMKernels.normal!`, `DGMKernels.uniform!`,
  `DGMKernels.categorical`. Those of PyTorch, NumPy, JAX, Nx and torchsde: `DGMKernels.TorchCPU`,
  `DGMKernels.CompatRNG`, `DGMKernels.jax_normal!`, `DGMKernels.brownian!`.
- Sampling: `DGMKernels.Plan`, `DGMKernels.sample` with any callable as the model, or
  `DGMKernels.start` and a loop over [`ask`](@ref) and [`tell!`](@ref). `DGMKernels.operations` lists the scalars of
  a plan, for arrays on a GPU.
- Models: `DGMKernels.GaussianMixture`, known exactly; `DGMKernels.Rbm`, restricted Boltzmann machines; [`DiT`](@ref), `DGMKernels.generate`; `DGMKernels.SD3`, `DGMKernels.FluxTransformer`; `DGMKernels.Llama` with a `DGMKernels.KVCache`; `DGMKernels.Grid` shows images in a notebook.

Names that other packages also have are not exported; write `DGMKernels.sample`.
"""
module DGMKernels

using LinearAlgebra: Adjoint, Transpose
using Random: Random, AbstractRNG

include("library.jl")
include("LibDGM.jl")
include("errors.jl")
include("arrays.jl")
include("options.jl")
include("handles.jl")
include("attention.jl")
include("cache.jl")
include("dot_product_attention.jl")
include("nn.jl")
include("linear.jl")
include("random.jl")
include("compat.jl")
include("plan.jl")
include("run.jl")
include("rows.jl")
include("density.jl")
include("chains.jl")
include("mixture.jl")
include("rbm.jl")
include("operations.jl")
include("network.jl")
include("dit.jl")
include("llama.jl")
include("sd3.jl")
include("flux.jl")
include("grid.jl")
include("info.jl")

using .Library: LibraryNotFound

export DiT, DGMError, LibraryNotFound
export attention, attention!, attention_backward, attention_backward!, attention_varlen, attention_varlen!
export attention_varlen_backward, attention_varlen_backward!
export layer_norm, layer_norm!, layer_norm_modulate, layer_norm_modulate!, rms_norm, rms_norm!, modulate, modulate!
export attention_paged, attention_paged!, attention_merge, attention_merge!, cache_append!, cache_fork!, cache_truncate!
export gate_residual, gate_residual!, timestep_embedding, timestep_embedding!
export rms_norm_residual, rms_norm_residual!, group_norm, group_norm!, swiglu, swiglu!, geglu, geglu!
export embedding, embedding!, cfg_combine, cfg_combine!
export patchify, patchify!, unpatchify, unpatchify!
export row_seeds, ask, tell!, export_run, import_run

# Part of the interface, but with names that others export too.
const PUBLIC = (:DetachedRun, :FluxTransformer, :Grid, :KVCache, :Linear, :Llama, :Operation, :Plan, :Request, :Run, :Term, :advance!, :attach, :categorical, :cpu_info, :describe, :dot_product_attention,
                :element_pointer,
                :element_strides, :finish_rows!, :forward!, :gated_linear, :gelu, :gelu!, :generate, :BF16, :is_strided, :isdone, :library, :linear!, :logsoftmax, :logsoftmax!,
                :metadata, :normal!, :num_threads, :numerics_version, :operations, :result, :sample, :sample!,
                :rope, :rope!, :Rope, :SD3, :row_active, :row_steps, :select!, :set_backend!, :set_num_threads!, :silu, :silu!, :softmax, :softmax!, :start, :start_detached, :step!, :uniform!,
                :CompatRNG, :NumpyPCG64, :NumpyPhilox, :NumpyRandomState, :TorchCPU, :TorchCUDA, :brownian!, :export_rng, :import_rng,
                :level, :jax_fold_in, :jax_key, :jax_normal!, :jax_split, :jax_uniform!,
                :saved, :probe, :divergence, :log_density, :bits_per_dimension, :accepted, :step_sizes, :split_r_hat, :effective_sample_size,
                :GaussianMixture, :predict,
                :Rbm, :cd_gradient, :energy, :free_energy, :gibbs, :gibbs!, :hidden_probabilities, :replica_exchange!, :visible_probabilities)
@static if VERSION >= v"1.11"
    eval(Expr(:public, PUBLIC...))
end

end
