defmodule DGM.TelemetryTest do
  # A stand-in for the library, present during these tests only; hence not async.
  use ExUnit.Case, async: false
  alias DGM.{Dit, Plan, Sampler, Tensor}

  @model Path.expand("../../models/digits.safetensors", __DIR__)

  setup do
    contents =
      quote do
        def span(event, metadata, function) do
          send(self(), {event ++ [:start], metadata})
          {result, stop} = function.()
          send(self(), {event ++ [:stop], stop})
          result
        end
      end

    unless Code.ensure_loaded?(:telemetry) do
      Module.create(:telemetry, contents, Macro.Env.location(__ENV__))

      on_exit(fn ->
        :code.purge(:telemetry)
        :code.delete(:telemetry)
        :code.purge(:telemetry)
      end)
    end

    :ok
  end

  defp assert_span(event, metadata) do
    {start, stop} = {[:dgm | event] ++ [:start], [:dgm | event] ++ [:stop]}
    assert_received {^start, ^metadata}
    assert_received {^stop, ^metadata}
  end

  test "a span around every call that takes time, results as without" do
    q = Tensor.new([[[[1, 0]]]])
    assert DGM.attention(q, q, q) == q
    assert_span([:attention], %{q: [1, 1, 1, 2], k: [1, 1, 1, 2]})

    lse = Tensor.new([[[0]]])
    assert {%Tensor{}, _, _} = DGM.attention_backward(q, q, q, q, lse, q)
    assert_span([:attention_backward], %{q: [1, 1, 1, 2], k: [1, 1, 1, 2]})

    packed = Tensor.reshape(q, {1, 1, 2})
    assert DGM.attention_varlen(packed, packed, packed, [0, 1], [0, 1]) == packed
    assert_span([:attention_varlen], %{q: [1, 1, 2], k: [1, 1, 2]})

    saved = [packed, Tensor.new([[0]]), packed]
    args = [packed, packed, packed] ++ saved ++ [[0, 1], [0, 1]]
    assert {%Tensor{}, _, _} = apply(DGM, :attention_varlen_backward, args)
    assert_span([:attention_varlen_backward], %{q: [1, 1, 2], k: [1, 1, 2]})

    run = Sampler.start(Plan.compile(steps: 2), [1, 2], 3)
    {:eval, %{eval_id: id}} = Sampler.ask(run)
    assert %DGM.Run{} = Sampler.tell(run, id, Sampler.input(run))
    assert_span([:sampler, :tell], %{rows: 2, elements: 3, eval_id: id})

    assert {:ok, model} = Dit.load(@model)
    assert_span([:dit, :load], %{path: @model})

    x = Tensor.new(<<0::size(64 * 32)>>, {1, 1, 8, 8})
    assert %Tensor{shape: {1, 1, 8, 8}} = Dit.forward(model, x, [0.5], [3])
    assert_span([:dit, :forward], %{batch: 1})
    assert Dit.forward(model, x.data, [0.5], [3]) == Dit.forward(model, x, [0.5], [3]).data
  end

  test "an error goes through a span" do
    q = Tensor.new([[[[1, 0]]]])
    assert_raise ArgumentError, ~r/^k /, fn -> DGM.attention(q, Tensor.new([[[[1]]]]), q) end
    assert_received {[:dgm, :attention, :start], _}
    refute_received {[:dgm, :attention, :stop], _}
  end
end
