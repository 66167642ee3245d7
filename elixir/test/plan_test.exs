defmodule DGM.PlanTest do
  use ExUnit.Case, async: true
  doctest DGM.Plan
  alias DGM.Plan

  test "every solver compiles, describes itself and survives its bytes" do
    vp = [process: :vp_linear, prediction: :epsilon, steps: 5]

    for opts <- [
          [solver: :euler],
          [solver: :midpoint, shift: 3],
          [solver: :heun],
          [solver: :rk4],
          [solver: :bosh3],
          [solver: :euler, times: [1, 0.5, 0]],
          [solver: :euler, guidance: 2, clip: 1],
          vp ++ [solver: :ddpm],
          vp ++ [solver: :ddim, eta: 0.5, spacing: :leading],
          vp ++ [solver: :dpmpp_2m, spacing: :trailing],
          vp ++ [solver: :unipc]
        ] do
      plan = Plan.compile(opts)
      assert Plan.describe(plan) =~ Atom.to_string(opts[:solver])
      assert inspect(plan) =~ "#DGM.Plan<#{opts[:solver]} "
      assert Plan.from_binary!(Plan.to_binary(plan)).hash == plan.hash
      assert Plan.compile(Plan.options(plan)).hash == plan.hash
    end
  end

  test "wrong arguments" do
    for {message, opts} <- [
          {~r/^options is nil/, nil},
          {~r/unknown keys \[:stepz\]/, [stepz: 1]},
          {~r/^steps is 0/, [steps: 0]},
          {~r/^steps is -1/, [steps: -1]},
          {~r/^steps is 1\.5/, [steps: 1.5]},
          {~r/^steps is nil/, [steps: nil]},
          {~r/^solver is "adams"/, [solver: :adams]},
          {~r/^solver is .*expected an atom/, [solver: "euler"]},
          {~r/^process is/, [process: :vx]},
          {~r/^prediction is/, [prediction: :score]},
          {~r/^spacing is/, [spacing: :even]},
          {~r/^shift is 0/, [shift: 0]},
          {~r/^shift is .*expected a number/, [shift: :x]},
          {~r/^eta is/, [solver: :ddim, process: :vp_linear, prediction: :epsilon, eta: 2]},
          {~r/^clip is/, [clip: -1]},
          {~r/^times/, [times: [0, 1]]},
          {~r/^times is/, [times: 3]},
          {~r/^times is/, [times: [1, :x]]}
        ] do
      assert_raise ArgumentError, message, fn -> Plan.compile(opts) end
    end

    for function <- [&Plan.describe/1, &Plan.options/1, &Plan.to_binary/1] do
      assert_raise ArgumentError, ~r/^plan is nil/, fn -> function.(nil) end
    end

    assert_raise ArgumentError, ~r/^bytes is nil/, fn -> Plan.from_binary(nil) end
  end

  test "bytes that are no plan" do
    good = Plan.to_binary(Plan.compile())

    for bad <- [<<>>, "plan", binary_part(good, 0, byte_size(good) - 1)] do
      assert {:error, %DGM.Error{code: code, message: text}} = Plan.from_binary(bad)
      assert code < 0 and text != ""
      assert_raise DGM.Error, fn -> Plan.from_binary!(bad) end
    end
  end
end
