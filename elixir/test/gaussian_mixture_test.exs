defmodule DGM.GaussianMixtureTest do
  use ExUnit.Case, async: true
  doctest DGM.GaussianMixture

  alias DGM.{Chains, GaussianMixture, Plan, Random, Sampler, Tensor}

  defp mixture,
    do:
      GaussianMixture.new([2, 1, 0.05], [[-1.5, 0.5], [2, 1], [0, -2]], [
        [0.3, 0.2],
        [0.5, 1],
        [0.01, 0.02]
      ])

  @target [process: :target, prediction: :score, steps: 12]

  test "the engine's own walk has the bits of one answer at a time" do
    for options <- [
          @target ++ [solver: :ula],
          @target ++ [solver: :mala, warmup: 6],
          @target ++ [solver: :hmc, warmup: 6, leapfrog: 3],
          [solver: :tsit5],
          [process: :vp_cosine, prediction: :v, solver: :dpmpp_2m_sde, steps: 9],
          [process: :edm, prediction: :edm, solver: :heun, steps: 9]
        ] do
      plan = Plan.compile(options)
      seeds = Random.row_seeds(3, 300)
      whole = plan |> Sampler.start(seeds, 2) |> Sampler.finish(mixture())
      told = plan |> Sampler.stream(seeds, 2, mixture()) |> Enum.to_list() |> List.last()
      assert Sampler.ask(whole) == :done
      assert Sampler.export(whole) == Sampler.export(told)
      if options[:warmup], do: assert(Enum.sum(Chains.accepted(whole)) > 0)
    end
  end

  test "walks have their published bits" do
    walks = %{
      "ula" => Keyword.put(@target, :steps, 50) ++ [solver: :ula],
      "hmc" => Keyword.put(@target, :steps, 20) ++ [solver: :hmc, warmup: 10],
      "tsit5" => [solver: :tsit5],
      "ddpm" => [process: :vp_cosine, prediction: :v, solver: :ddpm, steps: 20]
    }

    lines = "../../tests/golden/mixture.txt" |> Path.expand(__DIR__) |> File.read!()

    cases =
      for [name, hash] when name != "#" <- Enum.map(String.split(lines, "\n"), &String.split/1),
          do: {name, hash}

    assert length(cases) == 4

    for {name, hash} <- cases do
      plan = Plan.compile(walks[name])
      x = Sampler.sample(plan, Random.row_seeds(7, 300), 2, mixture())

      fnv =
        for <<byte <- x.data>>, reduce: 0xCBF29CE484222325 do
          h -> Bitwise.band(Bitwise.bxor(h, byte) * 0x100000001B3, 0xFFFFFFFFFFFFFFFF)
        end

      assert Base.encode16(<<fnv::64>>, case: :lower) == hash, name
    end
  end

  test "a function that calls the mixture is the same model" do
    plan = Plan.compile(steps: 9, solver: :heun)
    seeds = Random.row_seeds(4, 40)

    model = fn request, x, _times ->
      x = Tensor.new(x, {40, 2})

      GaussianMixture.evaluate(mixture(), x,
        prediction: :velocity,
        alpha: request.alpha,
        sigma: request.sigma
      )
    end

    assert Sampler.sample(plan, seeds, 2, mixture()) == Sampler.sample(plan, seeds, 2, model)
  end

  test "a normal has the score and the density of one" do
    normal = GaussianMixture.new([1], [[0, 0]], [4])
    x = Tensor.new([[1.0, 3.0]])
    assert Tensor.to_list(GaussianMixture.evaluate(normal, x)) == [[-0.25, -0.75]]
    [density] = GaussianMixture.log_density(normal, x)
    assert_in_delta density, -10 / 8 - :math.log(8 * :math.pi()), 1.0e-12
  end

  test "wrong arguments are named" do
    x = Tensor.new([[1.0, 2.0]])
    plan = Plan.compile(steps: 2)

    for {name, call} <- [
          {"weights", fn -> GaussianMixture.new([], [], []) end},
          {"weights", fn -> GaussianMixture.new([0], [[1]], [1]) end},
          {"weights", fn -> GaussianMixture.new(:a, [[1]], [1]) end},
          {"means", fn -> GaussianMixture.new([1], [1], [1]) end},
          {"means", fn -> GaussianMixture.new([1, 1], [[1], [1, 2]], [1, 1]) end},
          {"means", fn -> GaussianMixture.new([1, 1], [[1]], [1, 1]) end},
          {"variances", fn -> GaussianMixture.new([1], [[1]], [-1]) end},
          {"variances", fn -> GaussianMixture.new([1], [[1, 2]], [[1]]) end},
          {"variances", fn -> GaussianMixture.new([1], [[1]], nil) end},
          {"mixture", fn -> GaussianMixture.evaluate(:a, x) end},
          {"x", fn -> GaussianMixture.evaluate(mixture(), Tensor.new([[1.0]])) end},
          {"x", fn -> GaussianMixture.log_density(mixture(), "x") end},
          # Rows without end of nothing take no memory.
          {"x",
           fn ->
             nothing = %Tensor{data: "", shape: {Bitwise.bsl(1, 60), 0}}
             GaussianMixture.log_density(mixture(), nothing)
           end},
          {"prediction",
           fn -> GaussianMixture.evaluate(mixture(), x, prediction: :consistency) end},
          {"prediction", fn -> GaussianMixture.evaluate(mixture(), x, prediction: :nothing) end},
          {"alpha", fn -> GaussianMixture.evaluate(mixture(), x, alpha: -1) end},
          {"sigma", fn -> GaussianMixture.log_density(mixture(), x, sigma: -1) end},
          {"sigma_data",
           fn -> GaussianMixture.evaluate(mixture(), x, prediction: :edm, sigma_data: 0) end},
          {"elements", fn -> Sampler.sample(plan, [1], 3, mixture()) end},
          {"process", fn -> Sampler.sample(Plan.compile(process: :ode), [1], 2, mixture()) end},
          {"guidance", fn -> Sampler.sample(Plan.compile(guidance: 2), [1], 2, mixture()) end},
          {"run", fn -> GaussianMixture.predict(mixture(), :run) end}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ name
    end

    done = plan |> Sampler.start([1], 2) |> Sampler.finish(mixture())
    assert %DGM.Error{} = catch_error(GaussianMixture.predict(mixture(), done))
  end
end
