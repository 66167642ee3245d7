# Generated from include/dgm.h by `cargo run -p xtask -- header`. Do not edit.

"The C interface as it is: one Julia function a C function, one type a C struct."
module LibDGM

import ..Library: @native

const DGM_ABI_VERSION = 1
const DGM_OK = 0
const DGM_ERROR_NULL = -100
const DGM_ERROR_ARGUMENT = -101
const DGM_ERROR_SHAPE = -200
const DGM_ERROR_STRIDE = -201
const DGM_ERROR_DTYPE = -300
const DGM_ERROR_ALIAS = -400
const DGM_ERROR_RANGE = -500
const DGM_ERROR_OVERFLOW = -501
const DGM_ERROR_IO = -600
const DGM_ERROR_FORMAT = -601
const DGM_ERROR_STATE = -700
const DGM_ERROR_CANCELLED = -800
const DGM_ERROR_INTERNAL = -900
const DGM_DTYPE_INT = 0
const DGM_DTYPE_UINT = 1
const DGM_DTYPE_FLOAT = 2
const DGM_DTYPE_BFLOAT = 4
const DGM_DTYPE_BOOL = 6
const DGM_DEVICE_CPU = 1
const DGM_GELU_TANH = 0
const DGM_GELU_ERF = 1
const DGM_ACTIVATION_NONE = 0
const DGM_ACTIVATION_SILU = 1
const DGM_ACTIVATION_GELU_TANH = 2
const DGM_ACTIVATION_GELU_ERF = 3
const DGM_PURPOSE_INITIAL = 0
const DGM_PURPOSE_STEP = 1
const DGM_PURPOSE_CHURN = 2
const DGM_PURPOSE_INPAINT = 3
const DGM_PURPOSE_ACCEPT = 4
const DGM_PURPOSE_GUMBEL = 5
const DGM_PURPOSE_DRAFT = 6
const DGM_PURPOSE_RESIDUAL = 7
const DGM_PURPOSE_BROWNIAN = 8
const DGM_PURPOSE_USER = 9
const DGM_PURPOSE_PROBE = 10
const DGM_PURPOSE_EXCHANGE = 11
const DGM_COMPAT_STATE_SIZE = 2560
const DGM_COMPAT_TORCH_CPU = 0
const DGM_COMPAT_TORCH_CUDA = 1
const DGM_COMPAT_NUMPY_PCG64 = 2
const DGM_COMPAT_NUMPY_PHILOX = 3
const DGM_COMPAT_NUMPY_RANDOM_STATE = 4
const DGM_COMPAT_JAX_PARTITIONABLE = 0
const DGM_COMPAT_JAX_ORIGINAL = 1
const DGM_COMPAT_NX = 2
const DGM_PROCESS_FLOW = 0
const DGM_PROCESS_VP_LINEAR = 1
const DGM_PROCESS_VP_SCALED_LINEAR = 2
const DGM_PROCESS_VP_COSINE = 3
const DGM_PREDICTION_EPSILON = 0
const DGM_PREDICTION_X0 = 1
const DGM_PREDICTION_V = 2
const DGM_PREDICTION_VELOCITY = 3
const DGM_SOLVER_EULER = 0
const DGM_SOLVER_MIDPOINT = 1
const DGM_SOLVER_HEUN = 2
const DGM_SOLVER_RK4 = 3
const DGM_SOLVER_DDPM = 4
const DGM_SOLVER_DDIM = 5
const DGM_SOLVER_DPMPP_2M = 6
const DGM_SOLVER_UNIPC = 7
const DGM_SOLVER_BOSH3 = 8
const DGM_SPACING_UNIFORM = 0
const DGM_SPACING_LEADING = 1
const DGM_SPACING_TRAILING = 2
const DGM_PROCESS_VP_SIGMOID = 4
const DGM_PROCESS_VP_TRAINED = 5
const DGM_PROCESS_VP_CONTINUOUS = 6
const DGM_PROCESS_VE = 7
const DGM_PROCESS_EDM = 8
const DGM_PROCESS_TRIGFLOW = 9
const DGM_PROCESS_VP_LAPLACE = 10
const DGM_PROCESS_VP_CASCADE = 11
const DGM_PROCESS_ODE = 12
const DGM_PROCESS_SUB_VP = 13
const DGM_PROCESS_SDE = 14
const DGM_PROCESS_TARGET = 15
const DGM_LIKELIHOOD_NONE = 0
const DGM_LIKELIHOOD_EXACT = 1
const DGM_LIKELIHOOD_HUTCHINSON = 2
const DGM_LIKELIHOOD_HUTCHINSON_NORMAL = 3
const DGM_NON_FINITE_REFUSE = 0
const DGM_NON_FINITE_PROPAGATE = 1
const DGM_PREDICTION_SCORE = 4
const DGM_PREDICTION_EDM = 5
const DGM_PREDICTION_EDM_V = 6
const DGM_PREDICTION_TRIGFLOW = 7
const DGM_PREDICTION_CONSISTENCY = 8
const DGM_SOLVER_LMS = 9
const DGM_SOLVER_IPNDM = 10
const DGM_SOLVER_PLMS = 11
const DGM_SOLVER_PNDM = 12
const DGM_SOLVER_DPM2 = 13
const DGM_SOLVER_EULER_ANCESTRAL = 14
const DGM_SOLVER_DPM2_ANCESTRAL = 15
const DGM_SOLVER_DPMPP_2S_ANCESTRAL = 16
const DGM_SOLVER_EULER_ANCESTRAL_RF = 17
const DGM_SOLVER_DDIM_INVERSE = 18
const DGM_SOLVER_DPM = 19
const DGM_SOLVER_DPMPP = 20
const DGM_SOLVER_DPM_SINGLE = 21
const DGM_SOLVER_DPMPP_SINGLE = 22
const DGM_SOLVER_DPMPP_SDE = 23
const DGM_SOLVER_DPMPP_2M_SDE = 24
const DGM_SOLVER_DPMPP_2M_SDE_HEUN = 25
const DGM_SOLVER_DPMPP_3M_SDE = 26
const DGM_SOLVER_DPM_SDE = 27
const DGM_SOLVER_UNIPC_BH1 = 28
const DGM_SOLVER_DEIS = 29
const DGM_SOLVER_SA_SOLVER = 30
const DGM_SOLVER_ER_SDE = 31
const DGM_SOLVER_SEEDS_2 = 32
const DGM_SOLVER_SEEDS_3 = 33
const DGM_SOLVER_RES_MULTISTEP = 34
const DGM_SOLVER_RES_2S = 35
const DGM_SOLVER_GRADIENT_ESTIMATION = 36
const DGM_SOLVER_CONSISTENCY = 37
const DGM_SOLVER_LCM = 38
const DGM_SOLVER_TCD = 39
const DGM_SOLVER_SCM = 40
const DGM_SOLVER_FLOW_MAP = 41
const DGM_SOLVER_DPMPP_INVERSE = 42
const DGM_SOLVER_PREDICTOR_CORRECTOR = 43
const DGM_SOLVER_DOPRI5 = 44
const DGM_SOLVER_TSIT5 = 45
const DGM_SOLVER_RK5 = 46
const DGM_SOLVER_EULER_MARUYAMA = 47
const DGM_SOLVER_MILSTEIN = 48
const DGM_SOLVER_STOCHASTIC_HEUN = 49
const DGM_SOLVER_SRA1 = 50
const DGM_SOLVER_SRIW1 = 51
const DGM_SOLVER_ULA = 52
const DGM_SOLVER_MALA = 53
const DGM_SOLVER_HMC = 54
const DGM_SOLVER_ANNEALED_LANGEVIN = 55
const DGM_SOLVER_DPM_12 = 56
const DGM_SOLVER_DPM_23 = 57
const DGM_SPACING_LINSPACE = 3
const DGM_SPACING_KARRAS = 4
const DGM_SPACING_EXPONENTIAL = 5
const DGM_SPACING_POLYEXPONENTIAL = 6
const DGM_SPACING_BETA = 7
const DGM_SPACING_LAMBDA = 8
const DGM_SPACING_KL_OPTIMAL = 9
const DGM_SPACING_AYS_SD15 = 10
const DGM_SPACING_AYS_SDXL = 11
const DGM_SPACING_AYS_SVD = 12
const DGM_SPACING_LINEAR_QUADRATIC = 13
const DGM_SPACING_SIMPLE = 14
const DGM_SPACING_SGM_UNIFORM = 15
const DGM_SPACING_DDIM_UNIFORM = 16
const DGM_SPACING_GITS = 17
const DGM_FINAL_SIGMA_ZERO = 0
const DGM_FINAL_SIGMA_MIN = 1
const DGM_SHIFT_TYPE_STATIC = 0
const DGM_SHIFT_TYPE_EXPONENTIAL = 1
const DGM_SHIFT_TYPE_LINEAR = 2
const DGM_GUIDANCE_MODE_CFG = 0
const DGM_GUIDANCE_MODE_APG = 1
const DGM_GUIDANCE_MODE_CFG_ZERO = 2
const DGM_GUIDANCE_MODE_CFG_PP = 3
const DGM_GUIDANCE_MODE_AUTO = 4
const DGM_NOISE_INDEPENDENT = 0
const DGM_NOISE_BROWNIAN = 1
const DGM_VARIANCE_FIXED_SMALL = 0
const DGM_VARIANCE_FIXED_LARGE = 1
const DGM_VARIANCE_LEARNED_RANGE = 2
const DGM_COMPAT_NONE = 0
const DGM_COMPAT_DIFFUSERS = 1
const DGM_ROLE_COND = 0
const DGM_ROLE_UNCOND = 1
const DGM_ROLE_WEAK = 2
const DGM_SOURCE_STATE = 0
const DGM_SOURCE_REGISTER = 1
const DGM_SOURCE_OUTPUT = 2
const DGM_SOURCE_NOISE = 3
const DGM_OPERATION_COMBINE = 0
const DGM_OPERATION_RESCALE = 1
const DGM_OPERATION_PROJECT = 2
const DGM_OPERATION_ADAPTIVE = 3
const DGM_OPERATION_THRESHOLD = 4
const DGM_OPERATION_LEARNED_NOISE = 5
const DGM_OPERATION_LANGEVIN = 6

mutable struct dgm_flux end

mutable struct dgm_linear end

mutable struct dgm_llama end

mutable struct dgm_mixture end

mutable struct dgm_model end

mutable struct dgm_plan end

mutable struct dgm_rbm end

mutable struct dgm_sd3 end

struct dgm_tensor
    data::Ptr{Cvoid}
    device_type::Int32
    device_id::Int32
    ndim::Int32
    dtype_code::UInt8
    dtype_bits::UInt8
    dtype_lanes::UInt16
    shape::Ptr{Int64}
    strides::Ptr{Int64}
    byte_offset::UInt64
end

struct dgm_attention_options
    struct_size::Csize_t
    scale::Float32
    causal::Int32
    kv_lengths::Ptr{Int64}
    window_left::Int64
    window_right::Int64
    alibi_slopes::Ptr{Float32}
    sinks::Ptr{Float32}
    bias::Ptr{dgm_tensor}
    mask::Ptr{dgm_tensor}
    soft_cap::Float32
    reserved::Int32
end

struct dgm_kv_cache
    struct_size::Csize_t
    k::Ptr{dgm_tensor}
    v::Ptr{dgm_tensor}
    k_scale::Ptr{dgm_tensor}
    v_scale::Ptr{dgm_tensor}
    block_table::Ptr{dgm_tensor}
    lengths::Ptr{Int64}
end

struct dgm_rope_options
    struct_size::Csize_t
    cos::Ptr{dgm_tensor}
    sin::Ptr{dgm_tensor}
    interleaved::Int32
    reserved::Int32
end

struct dgm_linear_options
    struct_size::Csize_t
    gate::Ptr{dgm_tensor}
    residual::Ptr{dgm_tensor}
    activation::Int32
    reserved::Int32
end

struct dgm_plan_options
    struct_size::Csize_t
    process::Int32
    prediction::Int32
    solver::Int32
    spacing::Int32
    steps::Int64
    shift::Float64
    eta::Float64
    guidance::Float64
    clip::Float64
    beta_start::Float64
    beta_end::Float64
    train_steps::Int64
    rtol::Float64
    atol::Float64
    h_init::Float64
    times::Ptr{Float64}
    times_len::Csize_t
    max_evals::Int64
    order::Int64
    sde_eta::Float64
    sigma_min::Float64
    sigma_max::Float64
    sigma_data::Float64
    rho::Float64
    zero_snr::Int32
    final_sigma::Int32
    steps_offset::Int64
    shift_type::Int32
    guidance_mode::Int32
    shift_power::Float64
    shift_terminal::Float64
    s_churn::Float64
    s_tmin::Float64
    s_tmax::Float64
    s_noise::Float64
    guidance_rescale::Float64
    guidance_start::Float64
    guidance_end::Float64
    apg_eta::Float64
    apg_norm::Float64
    apg_momentum::Float64
    zero_init_steps::Int64
    noise::Int32
    variance::Int32
    threshold_ratio::Float64
    threshold_max::Float64
    start_step::Int64
    start_sigma::Float64
    inpaint::Int32
    compat::Int32
    original_steps::Int64
    time_scale::Float64
    sigmas::Ptr{Float64}
    sigmas_len::Csize_t
    betas::Ptr{Float64}
    betas_len::Csize_t
    restart::Ptr{Float64}
    restart_len::Csize_t
    per_row::Int32
    reserved::Int32
    snr::Float64
    corrector_steps::Int64
    guidance_weak::Float64
    t_start::Float64
    t_end::Float64
    controller::Ptr{Float64}
    controller_len::Csize_t
    save_at::Ptr{Float64}
    save_at_len::Csize_t
    likelihood::Int32
    non_finite::Int32
    step_size::Float64
    leapfrog::Int64
    warmup::Int64
    target_accept::Float64
    stop_at::Ptr{Float64}
    stop_at_len::Csize_t
end

struct dgm_request
    struct_size::Csize_t
    done::Int32
    role::Int32
    eval_id::UInt64
    step::Int64
    stage::Int64
    slot::Int64
    t::Float64
    sigma::Float64
    alpha::Float64
    rows::Int64
    elements::Int64
    active_rows::Int64
    uniform_t::Int32
    roles::UInt32
    t_to::Float64
end

struct dgm_operation
    kind::Int32
    target::Int32
    index::Int32
    mask::Int32
    first_term::Csize_t
    terms::Csize_t
    clip::Float64
    p0::Float64
    p1::Float64
    p2::Float64
end

struct dgm_term
    source::Int32
    index::Int32
    purpose::UInt32
    draw::UInt32
    coefficient::Float64
    measured::Int32
    reserved::Int32
end

const dgm_model_fn = Ptr{Cvoid}

struct dgm_model_info
    struct_size::Csize_t
    channels::Int64
    height::Int64
    width::Int64
    out_channels::Int64
    num_classes::Int64
    tokens::Int64
    width_d::Int64
    depth::Int64
    heads::Int64
    packed_bytes::UInt64
end

struct dgm_llama_info
    struct_size::Csize_t
    vocab::Int64
    hidden::Int64
    mlp_hidden::Int64
    depth::Int64
    heads::Int64
    kv_heads::Int64
    head_dim::Int64
    cache_heads::Int64
    max_positions::Int64
    packed_bytes::UInt64
end

struct dgm_sd3_info
    struct_size::Csize_t
    channels::Int64
    out_channels::Int64
    patch::Int64
    hidden::Int64
    depth::Int64
    heads::Int64
    text::Int64
    pooled::Int64
    positions::Int64
    packed_bytes::UInt64
end

struct dgm_flux_info
    struct_size::Csize_t
    channels::Int64
    out_channels::Int64
    hidden::Int64
    depth::Int64
    single_depth::Int64
    heads::Int64
    text::Int64
    pooled::Int64
    axes::Int64
    guidance::Int64
    packed_bytes::UInt64
end

const SYMBOLS = (
    :dgm_abi_version,
    :dgm_numerics_version,
    :dgm_version,
    :dgm_set_num_threads,
    :dgm_num_threads,
    :dgm_isa,
    :dgm_set_backend,
    :dgm_cpu_info,
    :dgm_status_string,
    :dgm_last_error,
    :dgm_attention_options_init,
    :dgm_attention,
    :dgm_attention_backward,
    :dgm_attention_varlen,
    :dgm_attention_varlen_backward,
    :dgm_kv_cache_init,
    :dgm_rope_options_init,
    :dgm_attention_paged,
    :dgm_kv_cache_append,
    :dgm_kv_cache_fork,
    :dgm_kv_cache_truncate,
    :dgm_attention_merge,
    :dgm_rope_tables,
    :dgm_rope_axial_tables,
    :dgm_rope,
    :dgm_layer_norm,
    :dgm_rms_norm,
    :dgm_modulate,
    :dgm_layer_norm_modulate,
    :dgm_gate_residual,
    :dgm_silu,
    :dgm_gelu,
    :dgm_softmax,
    :dgm_log_softmax,
    :dgm_rms_norm_residual,
    :dgm_group_norm,
    :dgm_swiglu,
    :dgm_geglu,
    :dgm_embedding,
    :dgm_cfg_combine,
    :dgm_timestep_embedding,
    :dgm_patchify,
    :dgm_unpatchify,
    :dgm_linear_pack,
    :dgm_linear_pack_gated,
    :dgm_linear_free,
    :dgm_linear_options_init,
    :dgm_linear_apply,
    :dgm_linear_forward,
    :dgm_random_uniform,
    :dgm_random_normal,
    :dgm_random_categorical,
    :dgm_row_seeds,
    :dgm_compat_seed,
    :dgm_compat_normal,
    :dgm_compat_uniform,
    :dgm_compat_brownian,
    :dgm_compat_jax_key,
    :dgm_compat_jax_fold_in,
    :dgm_compat_jax_split,
    :dgm_compat_jax_normal,
    :dgm_compat_jax_uniform,
    :dgm_plan_options_init,
    :dgm_plan_options_preset,
    :dgm_plan_compile,
    :dgm_plan_free,
    :dgm_plan_describe,
    :dgm_plan_slots,
    :dgm_plan_state_len,
    :dgm_plan_run_size,
    :dgm_plan_level,
    :dgm_plan_hash,
    :dgm_plan_numbers,
    :dgm_plan_outputs,
    :dgm_run_start,
    :dgm_run_start_from,
    :dgm_run_set_known,
    :dgm_run_ask,
    :dgm_run_times,
    :dgm_run_input,
    :dgm_run_tell,
    :dgm_run_result,
    :dgm_run_saved,
    :dgm_run_export_size,
    :dgm_run_export,
    :dgm_run_peek,
    :dgm_run_import,
    :dgm_run_select,
    :dgm_run_finish_rows,
    :dgm_run_row_steps,
    :dgm_run_row_active,
    :dgm_run_tell_from,
    :dgm_run_tell_swap,
    :dgm_run_tell_with,
    :dgm_run_probe,
    :dgm_run_divergence,
    :dgm_run_log_density,
    :dgm_run_accepted,
    :dgm_run_step_sizes,
    :dgm_split_r_hat,
    :dgm_effective_sample_size,
    :dgm_replica_exchange,
    :dgm_plan_operations,
    :dgm_run_start_detached,
    :dgm_run_advance,
    :dgm_sample,
    :dgm_mixture_create,
    :dgm_mixture_free,
    :dgm_mixture_evaluate,
    :dgm_mixture_log_density,
    :dgm_mixture_predict,
    :dgm_mixture_sample,
    :dgm_rbm_create,
    :dgm_rbm_free,
    :dgm_rbm_hidden_probabilities,
    :dgm_rbm_visible_probabilities,
    :dgm_rbm_free_energy,
    :dgm_rbm_energy,
    :dgm_rbm_gibbs,
    :dgm_rbm_cd_gradient,
    :dgm_model_load,
    :dgm_model_free,
    :dgm_model_get_info,
    :dgm_model_metadata,
    :dgm_model_plan_options,
    :dgm_model_workspace_len,
    :dgm_model_forward,
    :dgm_generate,
    :dgm_llama_load,
    :dgm_llama_free,
    :dgm_llama_get_info,
    :dgm_llama_workspace_len,
    :dgm_llama_forward,
    :dgm_sd3_load,
    :dgm_sd3_free,
    :dgm_sd3_get_info,
    :dgm_sd3_workspace_len,
    :dgm_sd3_forward,
    :dgm_flux_load,
    :dgm_flux_free,
    :dgm_flux_get_info,
    :dgm_flux_workspace_len,
    :dgm_flux_forward,
)

dgm_abi_version() =
    @native 1 dgm_abi_version()::Int32

dgm_numerics_version() =
    @native 2 dgm_numerics_version()::Int32

dgm_version() =
    @native 3 dgm_version()::Cstring

dgm_set_num_threads(threads) =
    @native 4 dgm_set_num_threads(threads::Int32)::Int32

dgm_num_threads() =
    @native 5 dgm_num_threads()::Int32

dgm_isa() =
    @native 6 dgm_isa()::Cstring

dgm_set_backend(backend) =
    @native 7 dgm_set_backend(backend::Cstring)::Int32

dgm_cpu_info(buf, cap, needed) =
    @native 8 dgm_cpu_info(buf::Ptr{UInt8}, cap::Csize_t, needed::Ptr{Csize_t})::Int32

dgm_status_string(status) =
    @native 9 dgm_status_string(status::Int32)::Cstring

dgm_last_error() =
    @native 10 dgm_last_error()::Cstring

dgm_attention_options_init(options, struct_size) =
    @native 11 dgm_attention_options_init(options::Ptr{dgm_attention_options}, struct_size::Csize_t)::Int32

dgm_attention(q, k, v, options, out, lse) =
    @native 12 dgm_attention(q::Ptr{dgm_tensor}, k::Ptr{dgm_tensor}, v::Ptr{dgm_tensor}, options::Ptr{dgm_attention_options}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor})::Int32

dgm_attention_backward(q, k, v, out, lse, dout, options, dq, dk, dv, dbias) =
    @native 13 dgm_attention_backward(q::Ptr{dgm_tensor}, k::Ptr{dgm_tensor}, v::Ptr{dgm_tensor}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor}, dout::Ptr{dgm_tensor}, options::Ptr{dgm_attention_options}, dq::Ptr{dgm_tensor}, dk::Ptr{dgm_tensor}, dv::Ptr{dgm_tensor}, dbias::Ptr{dgm_tensor})::Int32

dgm_attention_varlen(q, k, v, q_offsets, kv_offsets, sequences, options, out, lse) =
    @native 14 dgm_attention_varlen(q::Ptr{dgm_tensor}, k::Ptr{dgm_tensor}, v::Ptr{dgm_tensor}, q_offsets::Ptr{Int64}, kv_offsets::Ptr{Int64}, sequences::Int64, options::Ptr{dgm_attention_options}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor})::Int32

dgm_attention_varlen_backward(q, k, v, out, lse, dout, q_offsets, kv_offsets, sequences, options, dq, dk, dv) =
    @native 15 dgm_attention_varlen_backward(q::Ptr{dgm_tensor}, k::Ptr{dgm_tensor}, v::Ptr{dgm_tensor}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor}, dout::Ptr{dgm_tensor}, q_offsets::Ptr{Int64}, kv_offsets::Ptr{Int64}, sequences::Int64, options::Ptr{dgm_attention_options}, dq::Ptr{dgm_tensor}, dk::Ptr{dgm_tensor}, dv::Ptr{dgm_tensor})::Int32

dgm_kv_cache_init(cache, struct_size) =
    @native 16 dgm_kv_cache_init(cache::Ptr{dgm_kv_cache}, struct_size::Csize_t)::Int32

dgm_rope_options_init(options, struct_size) =
    @native 17 dgm_rope_options_init(options::Ptr{dgm_rope_options}, struct_size::Csize_t)::Int32

dgm_attention_paged(q, cache, options, out, lse) =
    @native 18 dgm_attention_paged(q::Ptr{dgm_tensor}, cache::Ptr{dgm_kv_cache}, options::Ptr{dgm_attention_options}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor})::Int32

dgm_kv_cache_append(k, v, counts, rope, cache) =
    @native 19 dgm_kv_cache_append(k::Ptr{dgm_tensor}, v::Ptr{dgm_tensor}, counts::Ptr{Int64}, rope::Ptr{dgm_rope_options}, cache::Ptr{dgm_kv_cache})::Int32

dgm_kv_cache_fork(cache, from, to) =
    @native 20 dgm_kv_cache_fork(cache::Ptr{dgm_kv_cache}, from::Int64, to::Int64)::Int32

dgm_kv_cache_truncate(lengths, keep, batch) =
    @native 21 dgm_kv_cache_truncate(lengths::Ptr{Int64}, keep::Ptr{Int64}, batch::Int64)::Int32

dgm_attention_merge(out1, lse1, out2, lse2, out, lse) =
    @native 22 dgm_attention_merge(out1::Ptr{dgm_tensor}, lse1::Ptr{dgm_tensor}, out2::Ptr{dgm_tensor}, lse2::Ptr{dgm_tensor}, out::Ptr{dgm_tensor}, lse::Ptr{dgm_tensor})::Int32

dgm_rope_tables(first, theta, cos, sin) =
    @native 23 dgm_rope_tables(first::Int64, theta::Float32, cos::Ptr{dgm_tensor}, sin::Ptr{dgm_tensor})::Int32

dgm_rope_axial_tables(positions, dims, theta, cos, sin) =
    @native 24 dgm_rope_axial_tables(positions::Ptr{dgm_tensor}, dims::Ptr{Int64}, theta::Float32, cos::Ptr{dgm_tensor}, sin::Ptr{dgm_tensor})::Int32

dgm_rope(x, first, tables, out) =
    @native 25 dgm_rope(x::Ptr{dgm_tensor}, first::Ptr{Int64}, tables::Ptr{dgm_rope_options}, out::Ptr{dgm_tensor})::Int32

dgm_layer_norm(x, weight, bias, eps, out) =
    @native 26 dgm_layer_norm(x::Ptr{dgm_tensor}, weight::Ptr{dgm_tensor}, bias::Ptr{dgm_tensor}, eps::Float32, out::Ptr{dgm_tensor})::Int32

dgm_rms_norm(x, weight, eps, out) =
    @native 27 dgm_rms_norm(x::Ptr{dgm_tensor}, weight::Ptr{dgm_tensor}, eps::Float32, out::Ptr{dgm_tensor})::Int32

dgm_modulate(x, shift, scale, out) =
    @native 28 dgm_modulate(x::Ptr{dgm_tensor}, shift::Ptr{dgm_tensor}, scale::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_layer_norm_modulate(x, shift, scale, eps, out) =
    @native 29 dgm_layer_norm_modulate(x::Ptr{dgm_tensor}, shift::Ptr{dgm_tensor}, scale::Ptr{dgm_tensor}, eps::Float32, out::Ptr{dgm_tensor})::Int32

dgm_gate_residual(residual, y, gate, out) =
    @native 30 dgm_gate_residual(residual::Ptr{dgm_tensor}, y::Ptr{dgm_tensor}, gate::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_silu(x, out) =
    @native 31 dgm_silu(x::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_gelu(x, kind, out) =
    @native 32 dgm_gelu(x::Ptr{dgm_tensor}, kind::Int32, out::Ptr{dgm_tensor})::Int32

dgm_softmax(x, out) =
    @native 33 dgm_softmax(x::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_log_softmax(x, out) =
    @native 34 dgm_log_softmax(x::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_rms_norm_residual(x, residual, weight, eps, sum, out) =
    @native 35 dgm_rms_norm_residual(x::Ptr{dgm_tensor}, residual::Ptr{dgm_tensor}, weight::Ptr{dgm_tensor}, eps::Float32, sum::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_group_norm(x, groups, weight, bias, eps, silu, out) =
    @native 36 dgm_group_norm(x::Ptr{dgm_tensor}, groups::Int64, weight::Ptr{dgm_tensor}, bias::Ptr{dgm_tensor}, eps::Float32, silu::Int32, out::Ptr{dgm_tensor})::Int32

dgm_swiglu(gate, up, out) =
    @native 37 dgm_swiglu(gate::Ptr{dgm_tensor}, up::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_geglu(gate, up, kind, out) =
    @native 38 dgm_geglu(gate::Ptr{dgm_tensor}, up::Ptr{dgm_tensor}, kind::Int32, out::Ptr{dgm_tensor})::Int32

dgm_embedding(table, indices, count, out) =
    @native 39 dgm_embedding(table::Ptr{dgm_tensor}, indices::Ptr{Int64}, count::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_cfg_combine(cond, uncond, scale, rescale, out) =
    @native 40 dgm_cfg_combine(cond::Ptr{dgm_tensor}, uncond::Ptr{dgm_tensor}, scale::Float64, rescale::Float64, out::Ptr{dgm_tensor})::Int32

dgm_timestep_embedding(t, max_period, out) =
    @native 41 dgm_timestep_embedding(t::Ptr{dgm_tensor}, max_period::Float32, out::Ptr{dgm_tensor})::Int32

dgm_patchify(x, patch, out) =
    @native 42 dgm_patchify(x::Ptr{dgm_tensor}, patch::Int64, out::Ptr{dgm_tensor})::Int32

dgm_unpatchify(x, patch, out) =
    @native 43 dgm_unpatchify(x::Ptr{dgm_tensor}, patch::Int64, out::Ptr{dgm_tensor})::Int32

dgm_linear_pack(weight, bias, out) =
    @native 44 dgm_linear_pack(weight::Ptr{dgm_tensor}, bias::Ptr{dgm_tensor}, out::Ptr{Ptr{dgm_linear}})::Int32

dgm_linear_pack_gated(gate, up, gate_bias, up_bias, out) =
    @native 45 dgm_linear_pack_gated(gate::Ptr{dgm_tensor}, up::Ptr{dgm_tensor}, gate_bias::Ptr{dgm_tensor}, up_bias::Ptr{dgm_tensor}, out::Ptr{Ptr{dgm_linear}})::Int32

dgm_linear_free(linear) =
    @native 46 dgm_linear_free(linear::Ptr{dgm_linear})::Cvoid

dgm_linear_options_init(options, struct_size) =
    @native 47 dgm_linear_options_init(options::Ptr{dgm_linear_options}, struct_size::Csize_t)::Int32

dgm_linear_apply(linear, x, options, out) =
    @native 48 dgm_linear_apply(linear::Ptr{dgm_linear}, x::Ptr{dgm_tensor}, options::Ptr{dgm_linear_options}, out::Ptr{dgm_tensor})::Int32

dgm_linear_forward(linear, x, activation, out) =
    @native 49 dgm_linear_forward(linear::Ptr{dgm_linear}, x::Ptr{dgm_tensor}, activation::Int32, out::Ptr{dgm_tensor})::Int32

dgm_random_uniform(seeds, rows, purpose, draw, out) =
    @native 50 dgm_random_uniform(seeds::Ptr{UInt64}, rows::Csize_t, purpose::UInt32, draw::UInt32, out::Ptr{dgm_tensor})::Int32

dgm_random_normal(seeds, rows, purpose, draw, out) =
    @native 51 dgm_random_normal(seeds::Ptr{UInt64}, rows::Csize_t, purpose::UInt32, draw::UInt32, out::Ptr{dgm_tensor})::Int32

dgm_random_categorical(logits, seeds, rows, purpose, draw, out) =
    @native 52 dgm_random_categorical(logits::Ptr{dgm_tensor}, seeds::Ptr{UInt64}, rows::Csize_t, purpose::UInt32, draw::UInt32, out::Ptr{Int64})::Int32

dgm_row_seeds(seed, rows, out) =
    @native 53 dgm_row_seeds(seed::UInt64, rows::Csize_t, out::Ptr{UInt64})::Int32

dgm_compat_seed(algorithm, seed, state, state_size) =
    @native 54 dgm_compat_seed(algorithm::UInt32, seed::UInt64, state::Ptr{Cvoid}, state_size::Csize_t)::Int32

dgm_compat_normal(state, state_size, out) =
    @native 55 dgm_compat_normal(state::Ptr{Cvoid}, state_size::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_compat_uniform(state, state_size, out) =
    @native 56 dgm_compat_uniform(state::Ptr{Cvoid}, state_size::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_compat_brownian(seeds, rows, t0, t1, ta, tb, normalized, out) =
    @native 57 dgm_compat_brownian(seeds::Ptr{UInt64}, rows::Csize_t, t0::Float64, t1::Float64, ta::Float64, tb::Float64, normalized::UInt32, out::Ptr{dgm_tensor})::Int32

dgm_compat_jax_key(seed, key) =
    @native 58 dgm_compat_jax_key(seed::UInt64, key::Ptr{UInt32})::Int32

dgm_compat_jax_fold_in(key, data, out) =
    @native 59 dgm_compat_jax_fold_in(key::Ptr{UInt32}, data::UInt32, out::Ptr{UInt32})::Int32

dgm_compat_jax_split(key, layout, count, out) =
    @native 60 dgm_compat_jax_split(key::Ptr{UInt32}, layout::UInt32, count::Csize_t, out::Ptr{UInt32})::Int32

dgm_compat_jax_normal(key, layout, out) =
    @native 61 dgm_compat_jax_normal(key::Ptr{UInt32}, layout::UInt32, out::Ptr{dgm_tensor})::Int32

dgm_compat_jax_uniform(key, layout, out) =
    @native 62 dgm_compat_jax_uniform(key::Ptr{UInt32}, layout::UInt32, out::Ptr{dgm_tensor})::Int32

dgm_plan_options_init(options, struct_size) =
    @native 63 dgm_plan_options_init(options::Ptr{dgm_plan_options}, struct_size::Csize_t)::Int32

dgm_plan_options_preset(options, name) =
    @native 64 dgm_plan_options_preset(options::Ptr{dgm_plan_options}, name::Cstring)::Int32

dgm_plan_compile(options, out) =
    @native 65 dgm_plan_compile(options::Ptr{dgm_plan_options}, out::Ptr{Ptr{dgm_plan}})::Int32

dgm_plan_free(plan) =
    @native 66 dgm_plan_free(plan::Ptr{dgm_plan})::Cvoid

dgm_plan_describe(plan, buf, cap, needed) =
    @native 67 dgm_plan_describe(plan::Ptr{dgm_plan}, buf::Ptr{UInt8}, cap::Csize_t, needed::Ptr{Csize_t})::Int32

dgm_plan_slots(plan, slots) =
    @native 68 dgm_plan_slots(plan::Ptr{dgm_plan}, slots::Ptr{Csize_t})::Int32

dgm_plan_state_len(plan, rows, elements, floats) =
    @native 69 dgm_plan_state_len(plan::Ptr{dgm_plan}, rows::Csize_t, elements::Csize_t, floats::Ptr{Csize_t})::Int32

dgm_plan_run_size(plan, rows, bytes) =
    @native 70 dgm_plan_run_size(plan::Ptr{dgm_plan}, rows::Csize_t, bytes::Ptr{Csize_t})::Int32

dgm_plan_level(plan, t, alpha, sigma) =
    @native 71 dgm_plan_level(plan::Ptr{dgm_plan}, t::Float64, alpha::Ptr{Float64}, sigma::Ptr{Float64})::Int32

dgm_plan_hash(plan, hash) =
    @native 72 dgm_plan_hash(plan::Ptr{dgm_plan}, hash::Ptr{UInt64})::Int32

dgm_plan_numbers(plan, numbers) =
    @native 73 dgm_plan_numbers(plan::Ptr{dgm_plan}, numbers::Ptr{Csize_t})::Int32

dgm_plan_outputs(plan, outputs) =
    @native 74 dgm_plan_outputs(plan::Ptr{dgm_plan}, outputs::Ptr{Csize_t})::Int32

dgm_run_start(plan, seeds, rows, elements, x_start, run, run_size, state, state_len) =
    @native 75 dgm_run_start(plan::Ptr{dgm_plan}, seeds::Ptr{UInt64}, rows::Csize_t, elements::Csize_t, x_start::Ptr{Float32}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t)::Int32

dgm_run_start_from(plan, seeds, rows, elements, data, run, run_size, state, state_len) =
    @native 76 dgm_run_start_from(plan::Ptr{dgm_plan}, seeds::Ptr{UInt64}, rows::Csize_t, elements::Csize_t, data::Ptr{Float32}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t)::Int32

dgm_run_set_known(plan, run, run_size, state, state_len, known, mask, len) =
    @native 77 dgm_run_set_known(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, known::Ptr{Float32}, mask::Ptr{Float32}, len::Csize_t)::Int32

dgm_run_ask(plan, run, run_size, request) =
    @native 78 dgm_run_ask(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, request::Ptr{dgm_request})::Int32

dgm_run_times(plan, run, run_size, t, rows) =
    @native 79 dgm_run_times(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, t::Ptr{Float32}, rows::Csize_t)::Int32

dgm_run_input(plan, run, run_size, state, state_len, x) =
    @native 80 dgm_run_input(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, x::Ptr{Ptr{Float32}})::Int32

dgm_run_tell(plan, run, run_size, state, state_len, eval_id, y, y_len) =
    @native 81 dgm_run_tell(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, eval_id::UInt64, y::Ptr{Float32}, y_len::Csize_t)::Int32

dgm_run_result(plan, run, run_size, state, state_len, x) =
    @native 82 dgm_run_result(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, x::Ptr{Ptr{Float32}})::Int32

dgm_run_saved(plan, run, run_size, state, state_len, x) =
    @native 83 dgm_run_saved(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, x::Ptr{Ptr{Float32}})::Int32

dgm_run_export_size(plan, run, run_size, bytes) =
    @native 84 dgm_run_export_size(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, bytes::Ptr{Csize_t})::Int32

dgm_run_export(plan, run, run_size, state, state_len, buf, cap, written) =
    @native 85 dgm_run_export(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, buf::Ptr{Cvoid}, cap::Csize_t, written::Ptr{Csize_t})::Int32

dgm_run_peek(buf, len, rows, elements) =
    @native 86 dgm_run_peek(buf::Ptr{Cvoid}, len::Csize_t, rows::Ptr{Csize_t}, elements::Ptr{Csize_t})::Int32

dgm_run_import(plan, buf, len, run, run_size, state, state_len) =
    @native 87 dgm_run_import(plan::Ptr{dgm_plan}, buf::Ptr{Cvoid}, len::Csize_t, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t)::Int32

dgm_run_select(plan, run, run_size, rows, len) =
    @native 88 dgm_run_select(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, rows::Ptr{UInt8}, len::Csize_t)::Int32

dgm_run_finish_rows(plan, run, run_size, rows, len) =
    @native 89 dgm_run_finish_rows(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, rows::Ptr{UInt8}, len::Csize_t)::Int32

dgm_run_row_steps(plan, run, run_size, steps, rows) =
    @native 90 dgm_run_row_steps(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, steps::Ptr{Int64}, rows::Csize_t)::Int32

dgm_run_row_active(plan, run, run_size, active, rows) =
    @native 91 dgm_run_row_active(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, active::Ptr{UInt8}, rows::Csize_t)::Int32

dgm_run_tell_from(plan, run, run_size, state, to, state_len, eval_id, y, y_len) =
    @native 92 dgm_run_tell_from(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, to::Ptr{Float32}, state_len::Csize_t, eval_id::UInt64, y::Ptr{Float32}, y_len::Csize_t)::Int32

dgm_run_tell_swap(plan, run, run_size, state, other, state_len, eval_id, y, y_len, swapped) =
    @native 93 dgm_run_tell_swap(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, other::Ptr{Float32}, state_len::Csize_t, eval_id::UInt64, y::Ptr{Float32}, y_len::Csize_t, swapped::Ptr{Int32})::Int32

dgm_run_tell_with(plan, run, run_size, state, state_len, eval_id, y, y_len, numbers, numbers_len) =
    @native 94 dgm_run_tell_with(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, eval_id::UInt64, y::Ptr{Float32}, y_len::Csize_t, numbers::Ptr{Float64}, numbers_len::Csize_t)::Int32

dgm_run_probe(plan, run, run_size, probe, len) =
    @native 95 dgm_run_probe(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, probe::Ptr{Float32}, len::Csize_t)::Int32

dgm_run_divergence(plan, run, run_size, divergence, len) =
    @native 96 dgm_run_divergence(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, divergence::Ptr{Float64}, len::Csize_t)::Int32

dgm_run_log_density(plan, run, run_size, state, state_len, log_density, bits, len) =
    @native 97 dgm_run_log_density(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, log_density::Ptr{Float64}, bits::Ptr{Float64}, len::Csize_t)::Int32

dgm_run_accepted(plan, run, run_size, accepted, len) =
    @native 98 dgm_run_accepted(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, accepted::Ptr{UInt64}, len::Csize_t)::Int32

dgm_run_step_sizes(plan, run, run_size, step_sizes, len) =
    @native 99 dgm_run_step_sizes(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, step_sizes::Ptr{Float64}, len::Csize_t)::Int32

dgm_split_r_hat(draws, len, chains, r_hat) =
    @native 100 dgm_split_r_hat(draws::Ptr{Float64}, len::Csize_t, chains::Csize_t, r_hat::Ptr{Float64})::Int32

dgm_effective_sample_size(draws, len, chains, size) =
    @native 101 dgm_effective_sample_size(draws::Ptr{Float64}, len::Csize_t, chains::Csize_t, size::Ptr{Float64})::Int32

dgm_replica_exchange(x, log_density, inverse_temperatures, temperatures, seeds, rows, step, accepted, accepted_len) =
    @native 102 dgm_replica_exchange(x::Ptr{dgm_tensor}, log_density::Ptr{Float64}, inverse_temperatures::Ptr{Float64}, temperatures::Csize_t, seeds::Ptr{UInt64}, rows::Csize_t, step::UInt32, accepted::Ptr{UInt8}, accepted_len::Csize_t)::Int32

dgm_plan_operations(plan, eval_id, operations, operations_cap, operations_len, terms, terms_cap, terms_len) =
    @native 103 dgm_plan_operations(plan::Ptr{dgm_plan}, eval_id::UInt64, operations::Ptr{dgm_operation}, operations_cap::Csize_t, operations_len::Ptr{Csize_t}, terms::Ptr{dgm_term}, terms_cap::Csize_t, terms_len::Ptr{Csize_t})::Int32

dgm_run_start_detached(plan, seeds, rows, elements, run, run_size) =
    @native 104 dgm_run_start_detached(plan::Ptr{dgm_plan}, seeds::Ptr{UInt64}, rows::Csize_t, elements::Csize_t, run::Ptr{Cvoid}, run_size::Csize_t)::Int32

dgm_run_advance(plan, run, run_size, eval_id) =
    @native 105 dgm_run_advance(plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, eval_id::UInt64)::Int32

dgm_sample(plan, seeds, rows, elements, x_start, run, run_size, state, state_len, y, t, model, ctx) =
    @native 106 dgm_sample(plan::Ptr{dgm_plan}, seeds::Ptr{UInt64}, rows::Csize_t, elements::Csize_t, x_start::Ptr{Float32}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, y::Ptr{Float32}, t::Ptr{Float32}, model::dgm_model_fn, ctx::Ptr{Cvoid})::Int32

dgm_mixture_create(weights, means, variances, variances_len, components, dims, out) =
    @native 107 dgm_mixture_create(weights::Ptr{Float64}, means::Ptr{Float64}, variances::Ptr{Float64}, variances_len::Csize_t, components::Csize_t, dims::Csize_t, out::Ptr{Ptr{dgm_mixture}})::Int32

dgm_mixture_free(mixture) =
    @native 108 dgm_mixture_free(mixture::Ptr{dgm_mixture})::Cvoid

dgm_mixture_evaluate(mixture, prediction, alpha, sigma, sigma_data, x, out) =
    @native 109 dgm_mixture_evaluate(mixture::Ptr{dgm_mixture}, prediction::Int32, alpha::Float64, sigma::Float64, sigma_data::Float64, x::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_mixture_log_density(mixture, alpha, sigma, x, log_density, len) =
    @native 110 dgm_mixture_log_density(mixture::Ptr{dgm_mixture}, alpha::Float64, sigma::Float64, x::Ptr{dgm_tensor}, log_density::Ptr{Float64}, len::Csize_t)::Int32

dgm_mixture_predict(mixture, plan, run, run_size, state, state_len, y, y_len, numbers, numbers_len) =
    @native 111 dgm_mixture_predict(mixture::Ptr{dgm_mixture}, plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t, y::Ptr{Float32}, y_len::Csize_t, numbers::Ptr{Float64}, numbers_len::Csize_t)::Int32

dgm_mixture_sample(mixture, plan, run, run_size, state, state_len) =
    @native 112 dgm_mixture_sample(mixture::Ptr{dgm_mixture}, plan::Ptr{dgm_plan}, run::Ptr{Cvoid}, run_size::Csize_t, state::Ptr{Float32}, state_len::Csize_t)::Int32

dgm_rbm_create(weights, visible_bias, visible, hidden_bias, hidden, out) =
    @native 113 dgm_rbm_create(weights::Ptr{dgm_tensor}, visible_bias::Ptr{Float32}, visible::Csize_t, hidden_bias::Ptr{Float32}, hidden::Csize_t, out::Ptr{Ptr{dgm_rbm}})::Int32

dgm_rbm_free(rbm) =
    @native 114 dgm_rbm_free(rbm::Ptr{dgm_rbm})::Cvoid

dgm_rbm_hidden_probabilities(rbm, v, out) =
    @native 115 dgm_rbm_hidden_probabilities(rbm::Ptr{dgm_rbm}, v::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_rbm_visible_probabilities(rbm, h, out) =
    @native 116 dgm_rbm_visible_probabilities(rbm::Ptr{dgm_rbm}, h::Ptr{dgm_tensor}, out::Ptr{dgm_tensor})::Int32

dgm_rbm_free_energy(rbm, v, free_energy, len) =
    @native 117 dgm_rbm_free_energy(rbm::Ptr{dgm_rbm}, v::Ptr{dgm_tensor}, free_energy::Ptr{Float64}, len::Csize_t)::Int32

dgm_rbm_energy(rbm, v, h, energy, len) =
    @native 118 dgm_rbm_energy(rbm::Ptr{dgm_rbm}, v::Ptr{dgm_tensor}, h::Ptr{dgm_tensor}, energy::Ptr{Float64}, len::Csize_t)::Int32

dgm_rbm_gibbs(rbm, v, seeds, rows, first_step, steps, inverse_temperatures, temperatures, hidden) =
    @native 119 dgm_rbm_gibbs(rbm::Ptr{dgm_rbm}, v::Ptr{dgm_tensor}, seeds::Ptr{UInt64}, rows::Csize_t, first_step::UInt32, steps::UInt32, inverse_temperatures::Ptr{Float64}, temperatures::Csize_t, hidden::Ptr{dgm_tensor})::Int32

dgm_rbm_cd_gradient(rbm, v_data, v_chain, weights, visible_bias, visible, hidden_bias, hidden) =
    @native 120 dgm_rbm_cd_gradient(rbm::Ptr{dgm_rbm}, v_data::Ptr{dgm_tensor}, v_chain::Ptr{dgm_tensor}, weights::Ptr{dgm_tensor}, visible_bias::Ptr{Float32}, visible::Csize_t, hidden_bias::Ptr{Float32}, hidden::Csize_t)::Int32

dgm_model_load(path, out) =
    @native 121 dgm_model_load(path::Cstring, out::Ptr{Ptr{dgm_model}})::Int32

dgm_model_free(model) =
    @native 122 dgm_model_free(model::Ptr{dgm_model})::Cvoid

dgm_model_get_info(model, info) =
    @native 123 dgm_model_get_info(model::Ptr{dgm_model}, info::Ptr{dgm_model_info})::Int32

dgm_model_metadata(model, key, buf, cap, needed) =
    @native 124 dgm_model_metadata(model::Ptr{dgm_model}, key::Cstring, buf::Ptr{UInt8}, cap::Csize_t, needed::Ptr{Csize_t})::Int32

dgm_model_plan_options(model, options) =
    @native 125 dgm_model_plan_options(model::Ptr{dgm_model}, options::Ptr{dgm_plan_options})::Int32

dgm_model_workspace_len(model, batch, floats) =
    @native 126 dgm_model_workspace_len(model::Ptr{dgm_model}, batch::Csize_t, floats::Ptr{Csize_t})::Int32

dgm_model_forward(model, x, t, labels, workspace, workspace_len, out) =
    @native 127 dgm_model_forward(model::Ptr{dgm_model}, x::Ptr{dgm_tensor}, t::Ptr{Float32}, labels::Ptr{Int64}, workspace::Ptr{Float32}, workspace_len::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_generate(model, plan, seeds, labels, rows, out) =
    @native 128 dgm_generate(model::Ptr{dgm_model}, plan::Ptr{dgm_plan}, seeds::Ptr{UInt64}, labels::Ptr{Int64}, rows::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_llama_load(folder, out) =
    @native 129 dgm_llama_load(folder::Cstring, out::Ptr{Ptr{dgm_llama}})::Int32

dgm_llama_free(model) =
    @native 130 dgm_llama_free(model::Ptr{dgm_llama})::Cvoid

dgm_llama_get_info(model, info) =
    @native 131 dgm_llama_get_info(model::Ptr{dgm_llama}, info::Ptr{dgm_llama_info})::Int32

dgm_llama_workspace_len(model, batch, tokens, floats) =
    @native 132 dgm_llama_workspace_len(model::Ptr{dgm_llama}, batch::Csize_t, tokens::Csize_t, floats::Ptr{Csize_t})::Int32

dgm_llama_forward(model, tokens, batch, new_tokens, cache, workspace, workspace_len, logits) =
    @native 133 dgm_llama_forward(model::Ptr{dgm_llama}, tokens::Ptr{Int64}, batch::Csize_t, new_tokens::Csize_t, cache::Ptr{dgm_kv_cache}, workspace::Ptr{Float32}, workspace_len::Csize_t, logits::Ptr{dgm_tensor})::Int32

dgm_sd3_load(folder, out) =
    @native 134 dgm_sd3_load(folder::Cstring, out::Ptr{Ptr{dgm_sd3}})::Int32

dgm_sd3_free(model) =
    @native 135 dgm_sd3_free(model::Ptr{dgm_sd3})::Cvoid

dgm_sd3_get_info(model, info) =
    @native 136 dgm_sd3_get_info(model::Ptr{dgm_sd3}, info::Ptr{dgm_sd3_info})::Int32

dgm_sd3_workspace_len(model, height, width, tokens, floats) =
    @native 137 dgm_sd3_workspace_len(model::Ptr{dgm_sd3}, height::Csize_t, width::Csize_t, tokens::Csize_t, floats::Ptr{Csize_t})::Int32

dgm_sd3_forward(model, x, t, text, pooled, workspace, workspace_len, out) =
    @native 138 dgm_sd3_forward(model::Ptr{dgm_sd3}, x::Ptr{dgm_tensor}, t::Ptr{Float32}, text::Ptr{dgm_tensor}, pooled::Ptr{dgm_tensor}, workspace::Ptr{Float32}, workspace_len::Csize_t, out::Ptr{dgm_tensor})::Int32

dgm_flux_load(folder, out) =
    @native 139 dgm_flux_load(folder::Cstring, out::Ptr{Ptr{dgm_flux}})::Int32

dgm_flux_free(model) =
    @native 140 dgm_flux_free(model::Ptr{dgm_flux})::Cvoid

dgm_flux_get_info(model, info) =
    @native 141 dgm_flux_get_info(model::Ptr{dgm_flux}, info::Ptr{dgm_flux_info})::Int32

dgm_flux_workspace_len(model, tokens, text_tokens, floats) =
    @native 142 dgm_flux_workspace_len(model::Ptr{dgm_flux}, tokens::Csize_t, text_tokens::Csize_t, floats::Ptr{Csize_t})::Int32

dgm_flux_forward(model, x, t, guidance, text, pooled, ids, text_ids, workspace, workspace_len, out) =
    @native 143 dgm_flux_forward(model::Ptr{dgm_flux}, x::Ptr{dgm_tensor}, t::Ptr{Float32}, guidance::Ptr{Float32}, text::Ptr{dgm_tensor}, pooled::Ptr{dgm_tensor}, ids::Ptr{dgm_tensor}, text_ids::Ptr{dgm_tensor}, workspace::Ptr{Float32}, workspace_len::Csize_t, out::Ptr{dgm_tensor})::Int32

end
