defmodule DGM.Plan do
  @moduledoc """
  A sampling method, compiled to a table: immutable, printable, shared by any number of runs
  and processes.

      iex> plan = DGM.Plan.compile(solver: :heun, steps: 8)
      iex> plan.steps
      8

  See `DGM.Sampler` for what to do with it.
  """

  alias DGM.{Check, Native}

  @enforce_keys [:resource, :steps, :slots, :hash]
  defstruct [:resource, :steps, :slots, :hash]

  @typedoc """
    * `:steps` - steps of the grid
    * `:slots` - state tensors a run keeps
    * `:hash` - identifies the plan; an exported run can only go on with an equal one
  """
  @type t :: %__MODULE__{
          resource: reference,
          steps: non_neg_integer,
          slots: pos_integer,
          hash: non_neg_integer
        }

  @doc """
  Compiles a plan.

  ## Options

    * `:process` - how data becomes noise: `:flow` (default), `:vp_linear`, `:vp_scaled_linear`,
      `:vp_cosine`, `:vp_sigmoid`, `:vp_trained` (with `:betas`), `:vp_continuous`,
      `:vp_laplace`, `:vp_cascade`, `:ve`, `:edm`, `:trigflow`,
      `:sub_vp`, `:ode`, `:sde`, `:target`
    * `:prediction` - what the model predicts: `:velocity` (default), `:epsilon`, `:x0`, `:v`,
      `:score`, or a raw network: `:edm`, `:edm_v`, `:trigflow`, `:consistency`
    * `:solver` - `:euler` (default), `:heun`, `:dpmpp_2m`, `:unipc`, `:ddim`, `:euler_ancestral`,
      `:dpmpp_2m_sde`, `:sa_solver`, `:lcm` and more: `docs/SAMPLERS.md` lists all
    * `:order` - of a solver that has several
    * `:steps` - 1 to 100,000, default 16
    * `:spacing` - `:uniform` (default), `:leading` and `:trailing` (VP tables), `:linspace`,
      `:karras`, `:exponential`, `:polyexponential`, `:beta`, `:lambda`, `:kl_optimal`, `:ays_sd15`,
      `:ays_sdxl`, `:ays_svd`, `:linear_quadratic`, `:simple`, `:sgm_uniform`, `:ddim_uniform`,
      `:gits`
    * `:final_sigma`, `:sigma_min`, `:sigma_max`, `:sigma_data`, `:rho`, `:steps_offset`, `:zero_snr`
    * `:shift`, `:shift_type`, `:shift_power`, `:shift_terminal` - of the grid of a flow; `:shift`
      also of `:vp_cascade`
    * `:times` - model times, descending, instead of a spacing; `:sigmas` - noise levels instead
    * `:start_step`, `:start_sigma` - leave out the noisy end (image to image)
    * `:eta` - noise of `:ddim`, 0 (default) to 1; gamma of `:tcd`
    * `:sde_eta`, `:s_noise`, `:noise` - noise of ancestral and SDE solvers, its scale, and `:independent`
      or `:brownian`; `:s_churn`, `:s_tmin`, `:s_tmax` - noise added before a step; `:restart`
    * `:guidance` - classifier-free guidance; at 1 (default) the model is asked once, else
      with and without the condition
    * `:guidance_mode` - `:cfg`, `:apg`, `:cfg_zero`, `:cfg_pp`, `:auto`, with `:guidance_rescale`,
      `:guidance_start`, `:guidance_end`, `:apg_eta`, `:apg_norm`, `:apg_momentum`, `:zero_init_steps`
    * `:guidance_weak` - autoguidance beside `:cfg`: adds `(w - 1) (c - k)`, k of a weaker model (role
      `:weak`); at 1 (default) it is not asked
    * `:snr`, `:corrector_steps` - of `:predictor_corrector`
    * `:clip` - clips predicted data to `[-clip, clip]`, default `nil`; `:threshold_ratio`,
      `:threshold_max` - dynamic thresholding; `:variance` - of `:ddpm`
    * `:inpaint` - keeps known parts, see `DGM.Sampler.set_known/3`
    * `:per_row` - rows at times of their own, see `DGM.Sampler.select/2`
    * `:beta_start`, `:beta_end`, `:betas`, `:train_steps` - of the VP processes
    * `:original_steps`, `:time_scale` - of `:lcm` and `:tcd`
    * `:rtol`, `:atol`, `:h_init`, `:max_evals`, `:controller` - of the adaptive `:bosh3`, `:dopri5`, `:tsit5`,
      `:dpm_12`, `:dpm_23` (the last two step in lambda); `:save_at` - times at which these keep the sample, see
      `DGM.Sampler.saved/1` (not `:dpm_12`, `:dpm_23`); `:stop_at` - times at which their steps end, because the
      model jumps there
    * `:t_start`, `:t_end` - of the processes `:ode`, whose model is `dx/dt`, and `:sde`, whose model is drift and
      diffusion, one after the other in each row; their `:times` may ascend
    * `:likelihood` - of `:ode`: `:exact`, `:hutchinson`, `:hutchinson_normal`, see
      `DGM.Sampler.log_density/1`; default `:none`
    * `:step_size`, `:leapfrog`, `:warmup`, `:target_accept` - of Markov chains (`:ula`, `:mala`, `:hmc` on the
      process `:target`, see `DGM.Chains`) and of `:annealed_langevin`
    * `:non_finite` - whether an output that is not finite is an error, `:refuse` (default), or computed with, unseen,
      in one pass over memory a step, `:propagate`
    * `:compat` - `:diffusers` reproduces that library's rounding, default `:none`

  `defaults/0` lists the default of each.
  """
  @spec compile(keyword) :: t
  def compile(opts \\ []) do
    opts = Check.keyword(opts, defaults())
    new(Native.value!(Native.plan_compile(opts)))
  end

  @doc """
  The default of every option.

      iex> DGM.Plan.defaults()[:solver]
      :euler
  """
  @spec defaults() :: keyword
  def defaults, do: Native.plan_defaults()

  @doc """
  The options that a published model is sampled with; `docs/SAMPLERS.md` lists the presets.

      iex> plan = DGM.Plan.compile(DGM.Plan.preset(:sd3) |> Keyword.put(:steps, 5))
      iex> DGM.Plan.options(plan)[:shift]
      3.0
  """
  @spec preset(atom) :: keyword
  def preset(name) when is_atom(name), do: Native.value!(Native.plan_preset(name))
  def preset(other), do: Check.fail("preset", other, "an atom")

  @doc """
  The options a plan was compiled from, defaults included.

      iex> DGM.Plan.options(DGM.Plan.compile(steps: 3))[:steps]
      3
  """
  @spec options(t) :: keyword
  def options(plan), do: Native.plan_options(resource(plan))

  @doc """
  The table as text.
  """
  @spec describe(t) :: String.t()
  def describe(plan), do: Native.plan_describe(resource(plan))

  @doc """
  The level `{alpha, sigma}` of a model time of the process, `x = alpha x0 + sigma eps`: rows of an adaptive plan
  stand at times of their own, between those of the grid. Behind the noisiest it is what the formula of the
  process gives.

      iex> DGM.Plan.level(DGM.Plan.compile(), 0.25)
      {0.75, 0.25}
  """
  @spec level(t, number) :: {float, float}
  def level(plan, t), do: Native.value!(Native.plan_level(resource(plan), Check.number(t, "t")))

  @doc """
  What `DGM.Sampler.tell/3` does with the output of evaluation `eval_id` (as in `DGM.Request`, from 1), as
  scalars and keys of noise, so that tensors may stay on a GPU or in Nx; 0 is what comes before the
  first evaluation.

      iex> plan = DGM.Plan.compile(solver: :euler, steps: 4)
      iex> [%DGM.Operation{kind: :combine} = step] = DGM.Plan.operations(plan, 1)
      iex> {step.target, step.terms}
      {{:state, 0}, [{{:state, 0}, 1.0, nil}, {:output, -0.25, nil}]}

  It depends on nothing but the plan. An adaptive solver has no such list
  (`ArgumentError`): its scalars follow from an error summed over the elements of each row. See
  `DGM.Sampler.start_detached/3` for the run beside the tensors.
  """
  @spec operations(t, non_neg_integer) :: [DGM.Operation.t()]
  def operations(plan, eval_id),
    do: Native.value!(Native.plan_operations(resource(plan), Check.u64(eval_id, "eval_id")))

  @doc """
  The plan as bytes, for another node or another language.

      iex> plan = DGM.Plan.compile(steps: 3)
      iex> {:ok, same} = DGM.Plan.from_binary(DGM.Plan.to_binary(plan))
      iex> same.hash == plan.hash
      true
  """
  @spec to_binary(t) :: binary
  def to_binary(plan), do: Native.value!(Native.plan_to_binary(resource(plan)))

  @doc """
  The plan in bytes made by `to_binary/1`.
  """
  @spec from_binary(binary) :: {:ok, t} | {:error, DGM.Error.t()}
  def from_binary(bytes) when is_binary(bytes) do
    with {:ok, parts} <- Native.tuple(Native.plan_from_binary(bytes)), do: {:ok, new(parts)}
  end

  def from_binary(other), do: Check.fail("bytes", other, "a binary")

  @doc """
  Like `from_binary/1`, but raises `DGM.Error`.
  """
  @spec from_binary!(binary) :: t
  def from_binary!(bytes), do: Native.bang!(from_binary(bytes))

  @doc false
  def resource(plan), do: Check.handle(plan, __MODULE__, "plan").resource

  defp new({resource, steps, slots, hash}) do
    %__MODULE__{resource: resource, steps: steps, slots: slots, hash: hash}
  end

  defimpl Inspect do
    # A forged plan is shown too: an error message that could not show what it is about would
    # be an error about itself.
    def inspect(plan, opts) do
      o = DGM.Native.plan_options(plan.resource)
      "#DGM.Plan<#{o[:solver]} #{o[:process]} #{o[:prediction]} steps=#{plan.steps}>"
    rescue
      _ -> Inspect.Any.inspect(plan, opts)
    end
  end
end
