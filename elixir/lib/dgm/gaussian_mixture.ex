defmodule DGM.GaussianMixture do
  @moduledoc """
  Gaussian mixtures: densities whose every noised marginal is known exactly.

  `p(x0) = sum_k w_k N(x0; mu_k, diag v_k)`, and with it the marginals of `x = alpha x0 + sigma eps`: the
  model that a diffusion or a flow would have to learn.

  A mixture is a model of `DGM.Sampler.sample/5`, `DGM.Sampler.finish/2` and `DGM.Sampler.stream/5`; the
  first two carry every block of rows to its end inside the engine, in one call that goes on when the process
  dies.

      iex> mixture = DGM.GaussianMixture.new([0.3, 0.7], [[-2, 0], [2, 1]], [0.1, 0.2])
      iex> plan = DGM.Plan.compile(process: :target, prediction: :score, solver: :ula, steps: 50)
      iex> x = DGM.Sampler.sample(plan, DGM.Random.row_seeds(1, 3), 2, mixture)
      iex> x.shape
      {3, 2}

  A mixture is immutable and may be used by any number of processes at once.
  """

  alias DGM.{Check, Native, Plan, Run, Tensor}

  @enforce_keys [:resource, :components, :dims]
  defstruct [:resource, :components, :dims]

  @type t :: %__MODULE__{resource: reference, components: pos_integer, dims: pos_integer}

  @doc """
  A mixture of `weights` (numbers above 0, divided by their sum), `means` (a list of as many lists) and
  `variances` (a number a component for all dimensions, or a list a component; not negative).

      iex> DGM.GaussianMixture.new([1], [[0, 0]], [[1, 4]]).dims
      2
  """
  @spec new([number], [[number]], [number] | [[number]]) :: t
  def new(weights, means, variances) do
    weights = Check.numbers(weights, "weights")
    count = length(weights)
    if count == 0, do: Check.fail("weights", weights, "at least one number")
    {rows, dims} = rows(means, "means", count)

    variances =
      if is_list(variances) and Enum.any?(variances, &is_list/1),
        do: same(rows(variances, "variances", count), dims),
        else: Check.numbers(variances, "variances")

    {resource, components, dims} = Native.value!(Native.mixture_new(weights, rows, variances))
    %__MODULE__{resource: resource, components: components, dims: dims}
  end

  defp rows(rows, name, count) do
    expected = "a list of #{count} lists of equally many numbers"

    if not (is_list(rows) and Enum.all?(rows, &is_list/1)), do: Check.fail(name, rows, expected)
    rows = Enum.map(rows, &Check.numbers(&1, name))

    case Enum.uniq(Enum.map(rows, &length/1)) do
      [dims] when length(rows) == count -> {List.flatten(rows), dims}
      _ -> Check.fail(name, rows, expected)
    end
  end

  defp same({numbers, dims}, dims), do: numbers

  defp same({_, other}, dims),
    do: Check.fail("variances", "lists of #{other}", "lists of #{dims}, as means")

  @doc """
  What the best model answers at a noise level, `{rows, dims}`: the expectation of its target given
  `x = alpha x0 + sigma eps`.

  ## Options

    * `:prediction` - any but `:consistency`, default `:score`; of the raw networks x is what they read, scaled
    * `:alpha` - weight of the data, default 1
    * `:sigma` - weight of the noise, default 0
    * `:sigma_data` - read for the raw networks of EDM and TrigFlow, default 0.5

  ## Example

      iex> normal = DGM.GaussianMixture.new([1], [[0]], [1])
      iex> DGM.Tensor.to_list(DGM.GaussianMixture.evaluate(normal, DGM.Tensor.new([[2.0]])))
      [[-2.0]]
  """
  @spec evaluate(t, Tensor.input(), keyword) :: Tensor.t()
  def evaluate(mixture, x, opts \\ []) do
    mixture = Check.handle(mixture, __MODULE__, "mixture")

    opts = Check.keyword(opts, prediction: :score, alpha: 1.0, sigma: 0.0, sigma_data: 0.5)
    prediction = Check.name(opts[:prediction], "prediction")
    [a, s, d] = for key <- [:alpha, :sigma, :sigma_data], do: level(opts, key)
    native = Tensor.native(x, "x")
    answer = Native.mixture_evaluate(mixture.resource, prediction, {a, s, d}, native)
    Tensor.like(x, Native.value!(answer))
  end

  @doc """
  The log density of the mixture, noised to a level (`:alpha`, `:sigma`), a number a row of `x`; `nil` where
  it is none.

      iex> normal = DGM.GaussianMixture.new([1], [[0]], [1])
      iex> [density] = DGM.GaussianMixture.log_density(normal, DGM.Tensor.new([[1.0]]))
      iex> abs(density + 0.5 + 0.5 * :math.log(2 * :math.pi())) < 1.0e-12
      true
  """
  @spec log_density(t, Tensor.input(), keyword) :: [float | nil]
  def log_density(mixture, x, opts \\ []) do
    mixture = Check.handle(mixture, __MODULE__, "mixture")
    opts = Check.keyword(opts, alpha: 1.0, sigma: 0.0)
    [a, s] = for key <- [:alpha, :sigma], do: level(opts, key)
    x = Tensor.native(x, "x")
    Native.value!(Native.mixture_log_density(mixture.resource, a, s, x))
  end

  defp level(opts, key), do: Check.number(opts[key], Atom.to_string(key))

  @doc """
  What a mixture answers to the current request of a run, for `DGM.Sampler.tell/3`.
  """
  @spec predict(t, Run.t()) :: DGM.Sampler.answer()
  def predict(mixture, run) do
    mixture = Check.handle(mixture, __MODULE__, "mixture")
    {plan, header, state} = parts(run)

    case Native.value!(Native.mixture_predict(mixture.resource, plan, header, state)) do
      {y, []} -> y
      answer -> answer
    end
  end

  @doc false
  def finish(mixture, run) do
    {plan, header, state} = parts(run)
    mixture = Check.handle(mixture, __MODULE__, "mixture")

    {header, state} = Native.value!(Native.mixture_finish(mixture.resource, plan, header, state))

    %{run | header: header, state: state}
  end

  defp parts(%Run{plan: %Plan{} = plan, header: header, state: state})
       when is_binary(header) and is_binary(state),
       do: {plan.resource, header, state}

  defp parts(other), do: Check.fail("run", other, "a %DGM.Run{}")
end
