defmodule DGM.Chains do
  @moduledoc """
  Markov chains: what they accepted, their steps, how well they have mixed.

  A chain is a row of a run whose plan has the process `:target` and the solver `:ula`, `:mala` or `:hmc`.
  The model answers the gradient of a log density; for `:mala` and `:hmc` `{gradient, numbers}` with the log
  density of every row.

      iex> plan = DGM.Plan.compile(process: :target, prediction: :score, solver: :hmc, steps: 40, warmup: 20)
      iex> run = DGM.Sampler.start(plan, [1, 2], 1)
      iex> normal = fn _request, x, _times ->
      ...>   xs = for <<v::float-32-native <- x>>, do: v
      ...>   {for(v <- xs, into: <<>>, do: <<-v::float-32-native>>), for(v <- xs, do: -v * v / 2)}
      ...> end
      iex> run = DGM.Sampler.finish(run, normal)
      iex> Enum.all?(DGM.Chains.accepted(run), &(&1 > 5))
      true
  """

  alias DGM.{Check, Native, Plan, Run, Tensor}

  @doc """
  Proposals that every chain of `:mala` or `:hmc` has accepted since the warmup.
  """
  @spec accepted(Run.t()) :: [non_neg_integer]
  def accepted(run), do: look(run, &Native.run_accepted/2)

  @doc """
  The step size of every chain: h of `:mala`, the leapfrog step of `:hmc`.
  """
  @spec step_sizes(Run.t()) :: [float]
  def step_sizes(run), do: look(run, &Native.run_step_sizes/2)

  @doc """
  Split R-hat of chains, lists of equally many draws: the ratio of the deviation over all halves of chains
  to that within them; 1 where they agree, `nil` where nothing moves.

      iex> DGM.Chains.split_r_hat([[0, 1, 0, 1], [5, 6, 5, 6]]) > 2
      true
  """
  @spec split_r_hat([[number]]) :: float | nil
  def split_r_hat(chains), do: diagnose(chains, &Native.split_r_hat/2)

  @doc """
  Effective number of independent draws of chains, lists of equally many draws (Geyer 1992); `nil` where
  nothing moves.
  """
  @spec effective_sample_size([[number]]) :: float | nil
  def effective_sample_size(chains), do: diagnose(chains, &Native.effective_sample_size/2)

  @doc """
  One round of exchanges of parallel tempering between rows of any chains: `{x, log_density, accepted}`.

  Rows `t` and `t + 1` of a ladder change places with the probability
  `min(1, exp((beta_t - beta_(t + 1)) (l_(t + 1) - l_t)))`; at an even `step` the pairs of even `t` are tried, at an
  odd one those of odd `t`.

    * `x` - `{ladders * T, ...}`
    * `log_density` - `ln p` of every row at inverse temperature 1, up to a constant
    * `inverse_temperatures` - the `T` of every ladder, not negative
    * `seeds` - one a row; a pair is decided by that of its first row and the step

  `accepted` is a list a ladder of whether each pair has changed places.

      iex> x = DGM.Tensor.new([[1], [2]])
      iex> {x, log_density, accepted} = DGM.Chains.replica_exchange(x, [-3, -1], [1, 0.1], [5, 6], 0)
      iex> {DGM.Tensor.to_list(x), log_density, accepted}
      {[[2.0], [1.0]], [-1.0, -3.0], [[true]]}
  """
  @spec replica_exchange(
          Tensor.input(),
          [number],
          [number],
          [non_neg_integer],
          non_neg_integer
        ) :: {Tensor.t(), [float], [[boolean]]}
  def replica_exchange(x, log_density, inverse_temperatures, seeds, step) do
    log_density = Check.numbers(log_density, "log_density")
    betas = Check.numbers(inverse_temperatures, "inverse_temperatures")
    {native, seeds, step} = {Tensor.native(x, "x"), Check.seeds(seeds), Check.u32(step, "step")}
    answer = Native.replica_exchange(native, log_density, betas, seeds, step)
    {exchanged, log_density, accepted} = Native.value!(answer)

    accepted =
      case betas do
        [_] -> Enum.map(seeds, fn _ -> [] end)
        _ -> Enum.chunk_every(accepted, length(betas) - 1)
      end

    {Tensor.like(x, exchanged), log_density, accepted}
  end

  defp look(%Run{plan: %Plan{} = plan, header: header}, nif) when is_binary(header),
    do: Native.value!(nif.(plan.resource, header))

  defp look(other, _nif), do: Check.fail("run", other, "a %DGM.Run{}")

  defp diagnose(chains, nif) do
    with true <- is_list(chains) and Enum.all?(chains, &numbers?/1),
         [n] when n >= 4 <- chains |> Enum.map(&length/1) |> Enum.uniq() do
      draws = for chain <- chains, v <- chain, do: v / 1
      Native.value!(nif.(draws, length(chains)))
    else
      _ -> Check.fail("chains", chains, "lists of equally many numbers, at least 4 in each")
    end
  end

  defp numbers?(chain), do: is_list(chain) and Enum.all?(chain, &is_number/1)
end
