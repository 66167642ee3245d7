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

    * `:process` - `:flow` (default), `:vp_linear`, `:vp_scaled_linear` or `:vp_cosine`
    * `:prediction` - what the model predicts: `:velocity` (default), `:epsilon`, `:x0` or `:v`
    * `:solver` - `:euler` (default), `:midpoint`, `:heun`, `:rk4`, `:ddpm`, `:ddim`,
      `:dpmpp_2m`, `:unipc` or `:bosh3` (step size controlled row by row)
    * `:steps` - 1 to 100,000, default 16
    * `:spacing` - `:uniform` (default); VP processes also `:leading` and `:trailing`
    * `:shift` - shift of the flow grid, default 1
    * `:times` - model times, descending, instead of a spacing
    * `:eta` - noise of `:ddim`, 0 (default) to 1
    * `:guidance` - classifier-free guidance; at 1 (default) the model is asked once, else
      with and without the condition
    * `:clip` - clips predicted data to `[-clip, clip]`, default `nil`
    * `:beta_start`, `:beta_end`, `:train_steps` - of the VP processes
    * `:rtol`, `:atol`, `:h_init`, `:max_evals` - of `:bosh3`

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
