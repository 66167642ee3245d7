defmodule DGM.ChainsTest do
  use ExUnit.Case, async: true
  doctest DGM.Chains

  alias DGM.{Chains, Plan, Sampler, Tensor}

  defp normal(x) do
    xs = for <<v::float-32-native <- x>>, do: v

    {for(v <- xs, into: <<>>, do: <<1.0 - v::float-32-native>>),
     for(v <- xs, do: -(v - 1) * (v - 1) / 2)}
  end

  test "chains have the moments of their target" do
    for {solver, options} <- [mala: [step_size: 0.5], hmc: [leapfrog: 4, step_size: 0.01]] do
      plan =
        Plan.compile(
          [process: :target, prediction: :score, solver: solver, steps: 120, warmup: 80] ++
            options
        )

      rows = 500
      run = Sampler.start(plan, DGM.Random.row_seeds(1, rows), 1)
      run = Sampler.finish(run, fn _request, x, _times -> normal(x) end)
      xs = run |> Sampler.result() |> Tensor.to_list() |> List.flatten()
      mean = Enum.sum(xs) / rows
      assert_in_delta mean, 1.0, 0.2
      assert_in_delta Enum.sum(Enum.map(xs, &((&1 - mean) * (&1 - mean)))) / rows, 1.0, 0.3
      rate = Enum.sum(Chains.accepted(run)) / (rows * 40)
      assert rate > 0.4 and rate <= 1.0
      assert Enum.all?(Chains.step_sizes(run), &(&1 > 0.05))
    end
  end

  test "unadjusted and annealed chains are told gradients alone" do
    plan = Plan.compile(process: :target, prediction: :score, solver: :ula, steps: 60)

    negative = fn _request, x, _times ->
      for <<v::float-32-native <- x>>, into: <<>>, do: <<-v::float-32-native>>
    end

    xs =
      Sampler.sample(plan, DGM.Random.row_seeds(1, 2000), 1, negative)
      |> Tensor.to_list()
      |> List.flatten()

    assert_in_delta Enum.sum(Enum.map(xs, &(&1 * &1))) / 2000, 1.05, 0.15

    annealed = [
      process: :ve,
      prediction: :score,
      solver: :annealed_langevin,
      corrector_steps: 3,
      steps: 4
    ]

    assert Plan.describe(Plan.compile(annealed)) =~ "annealed_langevin"
  end

  test "misuse" do
    run = Sampler.start(Plan.compile(), [1], 2)
    assert_raise ArgumentError, ~r/solver/, fn -> Chains.accepted(run) end
    assert_raise ArgumentError, ~r/run/, fn -> Chains.accepted(nil) end
    assert_raise ArgumentError, ~r/chains/, fn -> Chains.split_r_hat([[1, 2, 3]]) end
    assert_raise ArgumentError, ~r/chains/, fn -> Chains.split_r_hat([[1, 2, 3, 4], [1]]) end
    assert Chains.split_r_hat([[1, 1, 1, 1]]) == nil

    assert_raise ArgumentError, ~r/prediction/, fn ->
      Plan.compile(process: :target, solver: :hmc)
    end
  end
end
