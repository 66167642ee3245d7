defmodule DGM.RowsTest do
  # Rows at times of their own have the bits of a run together.
  use ExUnit.Case, async: true
  alias DGM.{Plan, Sampler}

  @seeds [5, 6, 7]
  @elements 4

  # Sees the time of every row; rows that are not asked for get what is no number.
  defp answer(run, request) do
    gain = if request.role == :cond, do: 0.5, else: 0.25
    x = for <<row::binary-size(4 * @elements) <- Sampler.input(run)>>, do: row
    t = for <<t::float-32-native <- Sampler.times(run)>>, do: t

    for {row, t, active} <- Enum.zip([x, t, Sampler.row_active(run)]),
        <<v::float-32-native <- row>>,
        into: <<>>,
        do: if(active, do: <<gain * v + 0.1 * t::float-32-native>>, else: <<-1::32>>)
  end

  defp evaluate(run) do
    {:eval, request} = Sampler.ask(run)
    Sampler.tell(run, request.eval_id, answer(run, request))
  end

  defp walk(run), do: if(Sampler.ask(run) == :done, do: run, else: walk(evaluate(run)))

  defp until(run, steps),
    do: if(Sampler.row_steps(run) == steps, do: run, else: until(evaluate(run), steps))

  for solver <- [:euler, :heun, :unipc, :dpmpp_2m_sde] do
    test "a pyramid of #{solver}" do
      opts = [solver: unquote(solver), steps: 3, guidance: 2]
      plan = Plan.compile(opts)
      expected = Sampler.result(walk(Sampler.start(plan, @seeds, @elements)))

      paced = Plan.compile([per_row: true] ++ opts)
      start = Sampler.start(paced, @seeds, @elements)

      run =
        for round <- 0..4, reduce: start do
          run ->
            due = for r <- 0..2, do: (round + 1 - r) |> max(0) |> min(3)
            run = Sampler.select(run, for(r <- 0..2, do: round >= r))
            Sampler.import!(paced, Sampler.export(until(run, due)))
        end

      assert Sampler.ask(run) == :done
      assert Sampler.result(run) == expected
    end
  end

  test "misuse is refused" do
    plan = Plan.compile(solver: :heun, steps: 2, per_row: true)
    run = Sampler.start(plan, @seeds, @elements)
    none = Sampler.select(run, [false, false, false])
    assert_raise DGM.Error, ~r/no selected row/, fn -> Sampler.ask(none) end

    assert_raise DGM.Error, ~r/inside a step/, fn ->
      Sampler.select(evaluate(run), [true, true, true])
    end

    assert_raise ArgumentError, ~r/rows/, fn -> Sampler.select(run, [true]) end
    assert_raise ArgumentError, ~r/solver/, fn -> Plan.compile(solver: :bosh3, per_row: true) end
    assert_raise ArgumentError, ~r/per_row/, fn -> Plan.operations(plan, 1) end
    together = Sampler.start(Plan.compile(steps: 2), @seeds, @elements)
    assert_raise DGM.Error, ~r/per_row/, fn -> Sampler.select(together, [true, true, true]) end
    assert Sampler.row_steps(together) == [0, 0, 0]
    assert Sampler.row_active(together) == [true, true, true]
  end
end
