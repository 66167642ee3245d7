defmodule DGM.RbmTest do
  use ExUnit.Case, async: true
  doctest DGM.Rbm

  alias DGM.{Chains, Random, Rbm, Tensor}

  @visible 20
  @hidden 12
  @rows 300

  defp machine do
    w =
      for i <- 0..(@visible - 1),
          do: for(j <- 0..(@hidden - 1), do: (rem(7 * i + 3 * j, 11) - 5) / 8)

    b = for i <- 0..(@visible - 1), do: (rem(5 * i, 7) - 3) / 8
    c = for j <- 0..(@hidden - 1), do: (rem(3 * j, 5) - 2) / 8
    Rbm.new(Tensor.new(w), Tensor.new(b), Tensor.new(c))
  end

  defp data,
    do: Tensor.new(for r <- 0..(@rows - 1), do: for(i <- 0..(@visible - 1), do: rem(r + i, 2)))

  defp fnv(bytes) do
    fnv =
      for <<byte <- bytes>>, reduce: 0xCBF29CE484222325 do
        h -> Bitwise.band(Bitwise.bxor(h, byte) * 0x100000001B3, 0xFFFFFFFFFFFFFFFF)
      end

    Base.encode16(<<fnv::64>>, case: :lower)
  end

  @betas [1, 0.75, 0.25]

  defp tempered(rbm, seeds) do
    Enum.reduce(0..9, data(), fn step, v ->
      {v, h} =
        Rbm.gibbs(rbm, v, seeds, first_step: step, inverse_temperatures: @betas, hidden: true)

      log_density = Enum.map(Rbm.energy(rbm, v, h), &(-&1))
      {v, _, accepted} = Chains.replica_exchange(v, log_density, @betas, seeds, step)
      assert {length(accepted), length(hd(accepted))} == {100, 2}
      v
    end)
  end

  test "results have their published bits" do
    {rbm, seeds} = {machine(), Random.row_seeds(7, @rows)}
    v = Rbm.gibbs(rbm, data(), seeds, steps: 20)
    gradient = Rbm.cd_gradient(rbm, data(), v)
    free = for f <- Rbm.free_energy(rbm, v), into: <<>>, do: <<f::float-64-native>>

    got = %{
      "gibbs" => v.data,
      "hidden_probabilities" => Rbm.hidden_probabilities(rbm, v).data,
      "free_energy" => free,
      "weights" => gradient.weights.data,
      "visible_bias" => gradient.visible_bias.data,
      "hidden_bias" => gradient.hidden_bias.data,
      "tempered" => tempered(rbm, seeds).data
    }

    lines = "../../tests/golden/rbm.txt" |> Path.expand(__DIR__) |> File.read!()

    cases =
      for [name, hash] when name != "#" <- Enum.map(String.split(lines, "\n"), &String.split/1),
          do: {name, hash}

    assert length(cases) == 7
    for {name, hash} <- cases, do: assert({name, fnv(got[name])} == {name, hash})
  end

  test "three and four steps are seven, and a row stands alone" do
    {rbm, seeds} = {machine(), Random.row_seeds(9, @rows)}
    whole = Rbm.gibbs(rbm, data(), seeds, steps: 7)
    first = Rbm.gibbs(rbm, data(), seeds, steps: 3)
    assert Rbm.gibbs(rbm, first, seeds, first_step: 3, steps: 4) == whole
    alone = Tensor.new([Enum.at(Tensor.to_list(data()), 5)])
    [row] = Tensor.to_list(Rbm.gibbs(rbm, alone, [Enum.at(seeds, 5)], steps: 7))
    assert row == Enum.at(Tensor.to_list(whole), 5)
  end

  test "hidden units give visible ones" do
    rbm = Rbm.new(Tensor.new([[200, 0]]), Tensor.new([-100]), Tensor.new([0, 0]))
    p = Rbm.visible_probabilities(rbm, Tensor.new([[0, 0], [0.5, 1], [1, 1]]))
    [[low], [half], [high]] = Tensor.to_list(p)
    assert low < 1.0e-30 and half == 0.5 and high == 1.0
  end

  test "wrong arguments are named" do
    rbm = Rbm.new(Tensor.new([[1, 0], [0, 1], [1, 1]]), Tensor.new([0, 0, 0]), Tensor.new([0, 0]))
    {v, h} = {Tensor.new([[1, 0, 1], [0, 0, 1]]), Tensor.new([[1, 0], [0, 0]])}
    {w, b, c} = {Tensor.new([[1], [2]]), Tensor.new([0, 0]), Tensor.new([0])}
    half = Tensor.new([[1, 0.5, 1], [0, 0, 1]])
    nan = Tensor.new(<<0, 0, 0xC0, 0x7F>>, {1, 1})
    none = Tensor.new(<<>>, {0, 3})
    nothing = Tensor.new(<<>>, {1_000_000_000_000_000, 0})

    for {words, call} <- [
          {"weights", fn -> Rbm.new(:a, b, c) end},
          {"weights", fn -> Rbm.new(Tensor.new([1, 2]), b, c) end},
          {"weights", fn -> Rbm.new(Tensor.new(<<>>, {0, 1}), Tensor.new(<<>>, {0}), c) end},
          {"weights is NaN", fn -> Rbm.new(nan, c, c) end},
          {"visible_bias", fn -> Rbm.new(w, c, c) end},
          {"visible_bias", fn -> Rbm.new(w, w, c) end},
          {"hidden_bias", fn -> Rbm.new(w, b, b) end},
          {"rbm", fn -> Rbm.hidden_probabilities(:a, v) end},
          {"v has shape", fn -> Rbm.hidden_probabilities(rbm, h) end},
          {"v is 2", fn -> Rbm.hidden_probabilities(rbm, Tensor.new([[0, 2, 0]])) end},
          {"h has shape", fn -> Rbm.visible_probabilities(rbm, v) end},
          {"h is -1", fn -> Rbm.visible_probabilities(rbm, Tensor.new([[0, -1]])) end},
          {"v", fn -> Rbm.free_energy(rbm, "v") end},
          {"v has shape", fn -> Rbm.free_energy(rbm, h) end},
          # Rows without end of nothing take no memory.
          {"v has shape", fn -> Rbm.free_energy(rbm, nothing) end},
          {"v has shape", fn -> Rbm.hidden_probabilities(rbm, nothing) end},
          {"h has shape", fn -> Rbm.visible_probabilities(rbm, nothing) end},
          {"v has shape", fn -> Rbm.gibbs(rbm, nothing, [1], hidden: true) end},
          {"h has shape", fn -> Rbm.energy(rbm, v, Tensor.new([[1, 0]])) end},
          {"v is 0.5 at row 0, unit 1", fn -> Rbm.gibbs(rbm, half, [1, 2]) end},
          {"seeds", fn -> Rbm.gibbs(rbm, v, [1]) end},
          {"seeds", fn -> Rbm.gibbs(rbm, v, [1, -2]) end},
          {"steps", fn -> Rbm.gibbs(rbm, v, [1, 2], steps: -1) end},
          {"steps", fn -> Rbm.gibbs(rbm, v, [1, 2], first_step: 0x80000000) end},
          {"steps is 0", fn -> Rbm.gibbs(rbm, v, [1, 2], steps: 0, hidden: true) end},
          {"first_step", fn -> Rbm.gibbs(rbm, v, [1, 2], first_step: 1.5) end},
          {"hidden", fn -> Rbm.gibbs(rbm, v, [1, 2], hidden: 1) end},
          {"inverse_temperatures",
           fn -> Rbm.gibbs(rbm, v, [1, 2], inverse_temperatures: [1, 1, 1]) end},
          {"inverse_temperatures is -1",
           fn -> Rbm.gibbs(rbm, v, [1, 2], inverse_temperatures: [-1]) end},
          {"unknown keys", fn -> Rbm.gibbs(rbm, v, [1, 2], step: 1) end},
          {"v_data", fn -> Rbm.cd_gradient(rbm, none, v) end},
          {"v_chain", fn -> Rbm.cd_gradient(rbm, v, none) end},
          {"v_chain", fn -> Rbm.cd_gradient(rbm, v, h) end},
          {"x", fn -> Chains.replica_exchange(:x, [0, 0], [1], [1, 2], 0) end},
          {"inverse_temperatures", fn -> Chains.replica_exchange(v, [0, 0], [], [1, 2], 0) end},
          {"inverse_temperatures",
           fn -> Chains.replica_exchange(v, [0, 0], [1, -1], [1, 2], 0) end},
          {"log_density", fn -> Chains.replica_exchange(v, [0], [1, 0.5], [1, 2], 0) end},
          {"log_density", fn -> Chains.replica_exchange(v, [nil, 0], [1, 0.5], [1, 2], 0) end},
          {"seeds", fn -> Chains.replica_exchange(v, [0, 0], [1, 0.5], [1], 0) end},
          {"step", fn -> Chains.replica_exchange(v, [0, 0], [1, 0.5], [1, 2], -1) end}
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ words
    end

    assert Chains.replica_exchange(v, [0, 0], [1], [1, 2], 0) == {v, [0.0, 0.0], [[], []]}
  end
end
