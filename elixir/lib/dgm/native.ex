defmodule DGM.Native do
  @moduledoc false
  # The NIFs, one line each, and the one place where their errors become Elixir's.

  @on_load :load_nif
  @version Mix.Project.config()[:version]

  @doc false
  def load_nif do
    path = Path.join(:code.priv_dir(:dgm), "dgm_nif")

    case :erlang.load_nif(String.to_charlist(path), @version) do
      :ok ->
        :ok

      {:error, {reason, text}} ->
        raise "DGM cannot load its native library #{path} (#{reason}): #{text}. " <>
                "Run `mix compile --force`; with DGM_NIF_PATH set, check that it names a " <>
                "library of version #{@version} for this system."
    end
  end

  @doc "Unwraps a NIF's answer: wrong arguments raise `ArgumentError`, the rest `DGM.Error`."
  def value!({:ok, value}), do: value

  def value!({:error, {code, message}}) when code in -599..-100,
    do: raise(ArgumentError, message)

  def value!({:error, {code, message}}), do: raise(DGM.Error.new(code, message))

  @doc "The same as a tuple, for what comes from outside: files, exported runs."
  def tuple({:ok, _} = ok), do: ok
  def tuple({:error, {code, message}}), do: {:error, DGM.Error.new(code, message)}

  @doc "What the `!` twin of a function that returns such a tuple does with it."
  def bang!({:ok, value}), do: value
  def bang!({:error, error}), do: raise(error)

  def version, do: missing()
  def numerics_version, do: missing()
  def isa, do: missing()
  def cpu_info, do: missing()
  def num_threads, do: missing()
  def set_num_threads(_count), do: missing()

  def attention(_q, _k, _v, _options), do: missing()
  def attention_paged(_q, _cache, _options), do: missing()
  def attention_merge(_out1, _lse1, _out2, _lse2), do: missing()
  def cache_append(_cache, _k, _v, _counts, _rope), do: missing()
  def cache_fork(_cache, _from, _to), do: missing()
  def cache_truncate(_lengths, _keep), do: missing()
  def rope_tables(_positions, _half, _first, _theta), do: missing()
  def rope(_x, _first, _tables), do: missing()
  def attention_backward(_q, _k, _v, _out, _lse, _dout, _options), do: missing()
  def attention_varlen(_q, _k, _v, _q_offsets, _kv_offsets, _options), do: missing()

  def attention_varlen_backward(_q, _k, _v, _out, _lse, _dout, _q_offsets, _kv_offsets, _options),
    do: missing()

  def layer_norm(_x, _weight, _bias, _eps), do: missing()
  def rms_norm(_x, _weight, _eps), do: missing()
  def modulate(_x, _shift, _scale), do: missing()
  def layer_norm_modulate(_x, _shift, _scale, _eps), do: missing()
  def gate_residual(_residual, _y, _gate), do: missing()
  def rms_norm_residual(_x, _residual, _weight, _eps), do: missing()
  def group_norm(_x, _groups, _weight, _bias, _eps, _silu), do: missing()
  def silu(_x), do: missing()
  def gated(_gate, _up, _kind), do: missing()
  def softmax(_x, _log), do: missing()
  def embedding(_table, _indices), do: missing()
  def cfg_combine(_cond, _uncond, _scale, _rescale), do: missing()
  def rope_axial_tables(_positions, _dims, _theta), do: missing()
  def gelu(_x, _kind), do: missing()
  def timestep_embedding(_t, _dim, _max_period), do: missing()
  def patchify(_x, _patch), do: missing()
  def unpatchify(_x, _patch, _height, _width), do: missing()

  def linear_pack(_weight, _bias), do: missing()
  def linear_pack_gated(_gate, _up, _gate_bias, _up_bias), do: missing()
  def linear_forward(_linear, _x, _activation, _gate, _residual, _type), do: missing()

  def random_normal(_seeds, _dims, _purpose, _draw), do: missing()
  def random_uniform(_seeds, _dims, _purpose, _draw), do: missing()
  def random_categorical(_logits, _seeds, _purpose, _draw), do: missing()
  def row_seeds(_seed, _rows), do: missing()

  def compat_new(_algorithm, _seed), do: missing()
  def compat_algorithm(_state), do: missing()
  def compat_draw(_state, _normal, _wide, _count), do: missing()
  def compat_brownian(_seeds, _elements, _ends, _between, _normalized), do: missing()
  def compat_jax_key(_seed), do: missing()
  def compat_jax_fold_in(_key, _data), do: missing()
  def compat_jax_split(_key, _layout, _count), do: missing()
  def compat_jax_draw(_key, _layout, _normal, _count), do: missing()

  def plan_defaults, do: missing()
  def plan_compile(_options), do: missing()
  def plan_preset(_preset), do: missing()
  def plan_options(_plan), do: missing()
  def plan_describe(_plan), do: missing()
  def plan_level(_plan, _t), do: missing()
  def plan_to_binary(_plan), do: missing()
  def plan_from_binary(_bytes), do: missing()
  def plan_operations(_plan, _eval_id), do: missing()

  def run_start_detached(_plan, _seeds, _elements), do: missing()
  def run_advance(_plan, _header, _eval_id), do: missing()
  def run_advance_long(_plan, _header, _eval_id), do: missing()
  def run_start(_plan, _seeds, _elements, _x_start, _data), do: missing()
  def run_set_known(_plan, _header, _state, _known, _mask), do: missing()
  def run_ask(_plan, _header), do: missing()
  def run_ask_long(_plan, _header), do: missing()
  def run_input(_plan, _header, _state), do: missing()
  def run_input_long(_plan, _header, _state), do: missing()
  def run_times(_plan, _header), do: missing()
  def run_times_long(_plan, _header), do: missing()
  def run_tell(_plan, _header, _state, _eval_id, _y), do: missing()
  def run_tell_long(_plan, _header, _state, _eval_id, _y), do: missing()
  def run_tell_with(_plan, _header, _state, _id, _y, _numbers), do: missing()
  def mixture_new(_weights, _means, _variances), do: missing()
  def mixture_evaluate(_mixture, _prediction, _level, _x), do: missing()
  def mixture_log_density(_mixture, _alpha, _sigma, _x), do: missing()
  def mixture_predict(_mixture, _plan, _header, _state), do: missing()
  def mixture_finish(_mixture, _plan, _header, _state), do: missing()
  def rbm_new(_weights, _visible_bias, _hidden_bias), do: missing()
  def rbm_hidden_probabilities(_rbm, _v), do: missing()
  def rbm_visible_probabilities(_rbm, _h), do: missing()
  def rbm_free_energy(_rbm, _v), do: missing()
  def rbm_energy(_rbm, _v, _h), do: missing()
  def rbm_gibbs(_rbm, _v, _seeds, _steps, _betas, _hidden), do: missing()
  def rbm_cd_gradient(_rbm, _v_data, _v_chain), do: missing()
  def replica_exchange(_x, _log_density, _betas, _seeds, _step), do: missing()
  def run_accepted(_plan, _header), do: missing()
  def run_step_sizes(_plan, _header), do: missing()
  def split_r_hat(_draws, _chains), do: missing()
  def effective_sample_size(_draws, _chains), do: missing()
  def run_probe(_plan, _header), do: missing()
  def run_divergence(_plan, _header), do: missing()
  def run_log_density(_plan, _header, _state), do: missing()
  def run_saved(_plan, _header, _state), do: missing()
  def run_result(_plan, _header, _state), do: missing()
  def run_result_long(_plan, _header, _state), do: missing()
  def run_stats(_plan, _header), do: missing()
  def run_stats_long(_plan, _header), do: missing()
  def run_select(_plan, _header, _rows), do: missing()
  def run_select_long(_plan, _header, _rows), do: missing()
  def run_finish_rows(_plan, _header, _rows), do: missing()
  def run_finish_rows_long(_plan, _header, _rows), do: missing()
  def run_row_steps(_plan, _header), do: missing()
  def run_row_steps_long(_plan, _header), do: missing()
  def run_row_active(_plan, _header), do: missing()
  def run_row_active_long(_plan, _header), do: missing()
  def run_export(_plan, _header, _state), do: missing()
  def run_import(_plan, _block), do: missing()

  def dit_load(_path), do: missing()
  def dit_from_binary(_bytes), do: missing()
  def dit_plan_options(_model), do: missing()
  def dit_forward(_model, _x, _t, _labels), do: missing()
  def dit_forward_binary(_model, _x, _t, _labels), do: missing()
  def sd3_load(_folder), do: missing()
  def sd3_from_binary(_weights, _config), do: missing()
  def sd3_forward(_model, _x, _t, _text, _pooled), do: missing()
  def flux_load(_folder), do: missing()
  def flux_from_binary(_weights, _config), do: missing()
  def flux_forward(_model, _x, _times, _text, _pooled, _places), do: missing()
  def llama_load(_folder), do: missing()
  def llama_from_binary(_weights, _config), do: missing()
  def llama_forward(_model, _tokens, _cache, _last), do: missing()

  defp missing, do: :erlang.nif_error(:nif_not_loaded)
end
