defmodule DGM.RandomTest do
  use ExUnit.Case, async: true
  doctest DGM.Random
  alias DGM.{Random, Tensor}

  test "a row does not depend on the others" do
    [a, b] = Random.row_seeds(3, 2)
    both = Tensor.to_list(Random.normal([a, b], 37))

    assert both ==
             Tensor.to_list(Random.normal([a], 37)) ++ Tensor.to_list(Random.normal([b], 37))
  end

  test "streams differ by purpose and draw" do
    draws =
      for purpose <- ~w(initial step churn inpaint accept gumbel draft residual brownian user)a,
          draw <- [0, 1, 0xFFFFFFFF],
          do: Random.normal([5], 4, purpose: purpose, draw: draw).data

    assert Enum.uniq(draws) == draws
    assert Random.normal([5], 4) == Random.normal([5], 4, purpose: :user, draw: 0)
  end

  test "moments" do
    seeds = Random.row_seeds(1, 10)
    n = Tensor.to_flat_list(Random.normal(seeds, 10_000))
    assert_in_delta Enum.sum(n) / 100_000, 0, 0.02
    assert_in_delta Enum.sum(Enum.map(n, &(&1 * &1))) / 100_000, 1, 0.02
    u = Tensor.to_flat_list(Random.uniform(seeds, 10_000))
    assert Enum.all?(u, &(&1 > 0 and &1 < 1))
    assert_in_delta Enum.sum(u) / 100_000, 0.5, 0.005
  end

  test "categorical follows the logits" do
    logits = Tensor.new(List.duplicate([:math.log(0.25), :math.log(0.75)], 4000))
    ones = logits |> Random.categorical(Random.row_seeds(1, 4000)) |> Enum.sum()
    assert_in_delta ones / 4000, 0.75, 0.03
  end

  test "the greatest seed" do
    assert [_] = Random.row_seeds(0xFFFFFFFFFFFFFFFF, 1)
    assert Random.normal([0xFFFFFFFFFFFFFFFF], 1).shape == {1, 1}
  end

  test "wrong arguments" do
    wrong = [
      {~r/^seed is -1/, &Random.row_seeds/2, [-1, 1]},
      {~r/^seed is nil/, &Random.row_seeds/2, [nil, 1]},
      {~r/^rows is 1.0/, &Random.row_seeds/2, [1, 1.0]},
      {~r/^rows is \d+, expected at most/, &Random.row_seeds/2, [1, 0x7FFFFFFFFFFFFFFF]},
      {~r/^seeds is nil/, &Random.normal/2, [nil, 1]},
      {~r/^seeds is 18446744073709551616/, &Random.normal/2, [[0x10000000000000000], 1]},
      {~r/^elements is -1/, &Random.normal/2, [[1], -1]},
      {~r/^elements is :x/, &Random.uniform/2, [[1], {2, :x}]},
      {~r/^elements is too large/, &Random.uniform/2, [[1], 0x7FFFFFFFFFFFFFFF]},
      {~r/^elements is too large/, &Random.uniform/2, [[1], 0xFFFFFFFFFFFFF]},
      {~r/^purpose is other/, &Random.normal/3, [[1], 1, [purpose: :other]]},
      {~r/^draw is 4294967296/, &Random.normal/3, [[1], 1, [draw: 0x100000000]]},
      {~r/^logits is nil/, &Random.categorical/2, [nil, [1]]},
      {~r/^logits has shape \[2\]/, &Random.categorical/2, [Tensor.new([1, 2]), [1]]},
      {~r/^seeds/, &Random.categorical/2, [Tensor.new([[1, 2]]), [1, 2]]}
    ]

    for {message, function, args} <- wrong do
      assert_raise ArgumentError, message, fn -> apply(function, args) end
    end
  end
end
