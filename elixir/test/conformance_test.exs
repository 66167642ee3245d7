defmodule DGM.ConformanceTest do
  # Every case of tests/conformance/cases.txt through the public functions.
  use ExUnit.Case, async: true
  alias DGM.{Conformance, Tensor}

  # Tensors of 16 bits are not here yet.
  @cases Enum.reject(Conformance.cases(), &(&1.args["storage"] in ~w(bf16 f16)))
  @external_resource Conformance.path()

  for %{kind: "case", name: name} = case <- @cases do
    test "#{name} has the published hash" do
      case = unquote(Macro.escape(case))
      out = call(case, Conformance.inputs(case))
      assert out.shape == List.to_tuple(case.out)
      assert Base.encode16(:crypto.hash(:sha256, out.data), case: :lower) == case.sha256
    end
  end

  for %{kind: "bad", name: name} = case <- @cases do
    test "#{name} is refused" do
      case = unquote(Macro.escape(case))
      {_class, word} = case.error
      inputs = Conformance.inputs(case)

      case attempt(fn -> call(case, inputs) end) do
        {:error, message} ->
          assert message =~ ~r/\b#{if word == "out", do: "(#{given(case)})", else: word}\b/

        # Results are allocated here, not passed: what other languages find wrong with `out`, or
        # with the tokens beside `out`, may give a result of another shape instead.
        {:ok, out} ->
          assert word == "out" or {case.call, word} == {"unpatchify", "x"}
          refute out.shape == List.to_tuple(case.out)
      end
    end
  end

  test "the file was read to its end, and holds both kinds" do
    lines = Conformance.path() |> File.read!() |> String.split("\n")

    for kind <- ~w(case bad) do
      found = Enum.count(@cases, &(&1.kind == kind))
      narrow = Enum.count(Conformance.cases(), &(&1.kind == kind and &1.args["storage"] != nil))
      assert found > 0
      assert found + narrow == Enum.count(lines, &String.starts_with?(&1, kind <> " "))
    end
  end

  defp attempt(function) do
    {:ok, function.()}
  rescue
    error in ArgumentError -> {:error, error.message}
  end

  defp given(case), do: Enum.join(Map.keys(case.inputs), "|")

  defp call(case, inputs), do: call(case.call, inputs, case.args, case.out)

  defp call("attention", x, %{"causal" => causal} = args, _out) when map_size(args) == 1,
    do: DGM.attention(x["q"], x["k"], x["v"], causal: causal == "1")

  defp call("linear", x, %{"activation" => activation}, _out) do
    x["weight"]
    |> DGM.Linear.pack(x["bias"])
    |> DGM.Linear.forward(x["x"], activation: String.to_atom(activation))
  end

  defp call("layer_norm", x, %{"eps" => eps}, _out),
    do: DGM.layer_norm(x["x"], weight: x["weight"], bias: x["bias"], eps: number(eps))

  defp call("rms_norm", x, %{"eps" => eps}, _out),
    do: DGM.rms_norm(x["x"], weight: x["weight"], eps: number(eps))

  defp call("modulate", x, _args, _out), do: DGM.modulate(x["x"], x["shift"], x["scale"])

  defp call("gate_residual", x, _args, _out),
    do: DGM.gate_residual(x["residual"], x["y"], x["gate"])

  defp call("silu", x, _args, _out), do: DGM.silu(x["x"])

  defp call("gelu", x, %{"kind" => kind}, _out),
    do: DGM.gelu(x["x"], kind: String.to_atom(kind))

  defp call("timestep_embedding", x, %{"max_period" => period}, [_, dim]),
    do: DGM.timestep_embedding(x["t"], dim, max_period: number(period))

  defp call("patchify", x, %{"patch" => patch}, _out),
    do: DGM.patchify(x["x"], String.to_integer(patch))

  defp call("unpatchify", x, %{"patch" => patch}, [_, _, height, width]),
    do: DGM.unpatchify(x["x"], String.to_integer(patch), {height, width})

  defp number(text) do
    {x, ""} = Float.parse(text)
    x
  end

  test "the generator is the one that is written down" do
    <<first::float-32-native, second::float-32-native>> = Conformance.generated(2, 7)
    assert first != second and abs(first) <= 1
    assert %Tensor{shape: {2}} = Tensor.new(Conformance.generated(2, 7), {2})
  end
end
