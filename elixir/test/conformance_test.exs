defmodule DGM.ConformanceTest do
  # Every case of tests/conformance/cases.txt through the public functions.
  use ExUnit.Case, async: true
  alias DGM.{Conformance, Tensor}

  @cases Conformance.cases()
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
          assert message =~ ~r/\b#{if word == case.result, do: "(#{given(case)})", else: word}\b/

        # Results are allocated here, not passed: what other languages find wrong with `out`, or
        # with the tokens beside `out`, may give a result of another shape instead.
        {:ok, out} ->
          assert word == case.result or {case.call, word} == {"unpatchify", "x"}
          refute out.shape == List.to_tuple(case.out)
      end
    end
  end

  test "the file was read to its end, and holds both kinds" do
    lines = Conformance.path() |> File.read!() |> String.split("\n")

    for kind <- ~w(case bad) do
      found = Enum.count(@cases, &(&1.kind == kind))
      assert found > 0
      assert found == Enum.count(lines, &String.starts_with?(&1, kind <> " "))
    end
  end

  defp attempt(function) do
    {:ok, function.()}
  rescue
    error in ArgumentError -> {:error, error.message}
  end

  defp given(case),
    do: Enum.map_join([case.inputs, case.args], "|", &Enum.join(Map.keys(&1), "|"))

  defp call(%{call: "attention", result: "lse", args: args} = case, x) do
    [q, k, v] = for name <- ~w(q k v), do: stored(x[name], args["storage"])
    {_out, lse} = DGM.attention(q, k, v, [lse: true] ++ options(case))
    lse
  end

  defp call(%{call: "attention", args: args} = case, x) do
    q = stored(x["q"], args["storage"])
    [k, v] = for name <- ~w(k v), do: stored(x[name], args["kv_storage"] || args["storage"])
    extra = [bias: x["bias"], mask: x["mask"] && mask(x["mask"])]
    widened(DGM.attention(q, k, v, extra ++ options(case)))
  end

  defp call(%{call: "attention_varlen", args: args} = case, x) do
    [q, k, v] = for name <- ~w(q k v), do: stored(x[name], args["storage"])
    [q_offsets, kv_offsets] = for name <- ~w(q_offsets kv_offsets), do: integers(args[name])
    widened(DGM.attention_varlen(q, k, v, q_offsets, kv_offsets, options(case)))
  end

  # The three gradients one after the other.
  defp call(%{call: "attention_varlen_backward", args: args, out: dims} = case, x) do
    opts = options(case)
    [q, k, v] = for name <- ~w(q k v), do: x[name]
    [q_offsets, kv_offsets] = for name <- ~w(q_offsets kv_offsets), do: integers(args[name])
    {out, lse} = DGM.attention_varlen(q, k, v, q_offsets, kv_offsets, [lse: true] ++ opts)

    {dq, dk, dv} =
      DGM.attention_varlen_backward(q, k, v, out, lse, x["dout"], q_offsets, kv_offsets, opts)

    %Tensor{data: dq.data <> dk.data <> dv.data, shape: List.to_tuple(dims)}
  end

  # The three gradients of each batch entry one after the other.
  defp call(%{call: "attention_backward", args: args, out: [batch, _] = dims} = case, x) do
    opts = options(case)
    [q, k, v, dout] = for name <- ~w(q k v dout), do: stored(x[name], args["storage"])
    {out, lse} = DGM.attention(q, k, v, [lse: true] ++ opts)
    gradients = DGM.attention_backward(q, k, v, out, lse, dout, opts) |> Tuple.to_list()

    data =
      for b <- 0..(batch - 1), %{data: data} <- Enum.map(gradients, &widened/1), into: <<>> do
        size = div(byte_size(data), batch)
        binary_part(data, b * size, size)
      end

    %Tensor{data: data, shape: List.to_tuple(dims)}
  end

  defp call(case, inputs), do: call(case.call, inputs, case.args, case.out)

  # Entry (b, n) of the block table is page batch * (most - 1 - n) + b; all places but `short` are filled.
  defp call("attention_paged", x, args, _out) do
    {pages, _, page_len, _} = x["k"].shape
    [batch, short] = for name <- ~w(batch short), do: String.to_integer(args[name])
    most = div(pages, batch)

    cache = %DGM.KVCache{
      k: x["k"],
      v: x["v"],
      block_table:
        for(b <- 0..(batch - 1), do: for(n <- 0..(most - 1), do: batch * (most - 1 - n) + b)),
      lengths: List.duplicate(most * page_len - short, batch)
    }

    DGM.attention_paged(x["q"], cache, causal: args["causal"] == "1")
  end

  defp call("attention_merge", x, _args, _out) do
    {out, _lse} = DGM.attention_merge(x["out1"], x["lse1"], x["out2"], x["lse2"])
    out
  end

  defp call("rope", x, args, _out) do
    first = args["first"] |> String.split(",") |> Enum.map(&String.to_integer/1)
    # As many as the batch has, for the cases that are refused too.
    first = Enum.take(first ++ [0], elem(x["x"].shape, 0))
    DGM.rope(x["x"], first, {x["cos"], x["sin"]}, interleaved: args["interleaved"] == "1")
  end

  defp call("linear", x, %{"activation" => activation} = args, _out) do
    own = fn name -> x[name] && stored(x[name], args["storage"]) end
    opts = [activation: String.to_atom(activation), type: {:f, 32}]

    if args["gated"] do
      biases = [gate_bias: x["gate_bias"], up_bias: x["up_bias"]]
      layer = DGM.Linear.pack_gated(own.("gate"), own.("up"), biases)
      DGM.Linear.forward(layer, own.("x"), opts)
    else
      layer = DGM.Linear.pack(own.("weight"), x["bias"])
      opts = [gate: own.("gate"), residual: own.("residual")] ++ opts
      DGM.Linear.forward(layer, own.("x"), opts)
    end
  end

  defp call("rope_axial_tables", x, args, _out) do
    theta = number(args["theta"])
    {cos, sin} = DGM.rope_axial_tables(x["positions"], integers(args["dims"]), theta: theta)
    side_by_side(cos, sin)
  end

  defp call(name, x, args, out) do
    x = Map.new(x, fn {name, tensor} -> {name, stored(tensor, args["storage"])} end)
    widened(typed(name, x, args, out))
  end

  defp typed("layer_norm", x, %{"eps" => eps}, _out),
    do: DGM.layer_norm(x["x"], weight: x["weight"], bias: x["bias"], eps: number(eps))

  defp typed("rms_norm", x, %{"eps" => eps}, _out),
    do: DGM.rms_norm(x["x"], weight: x["weight"], eps: number(eps))

  defp typed("rms_norm_residual", x, %{"eps" => eps}, _out) do
    options = [weight: x["weight"], eps: number(eps)]
    {sum, out} = DGM.rms_norm_residual(x["x"], x["residual"], options)
    side_by_side(sum, out)
  end

  defp typed("group_norm", x, %{"groups" => groups, "eps" => eps, "silu" => silu}, _out) do
    options = [weight: x["weight"], bias: x["bias"], eps: number(eps), silu: silu == "1"]
    DGM.group_norm(x["x"], String.to_integer(groups), options)
  end

  defp typed("modulate", x, _args, _out), do: DGM.modulate(x["x"], x["shift"], x["scale"])

  defp typed("layer_norm_modulate", x, %{"eps" => eps}, _out),
    do: DGM.layer_norm_modulate(x["x"], x["shift"], x["scale"], eps: number(eps))

  defp typed("gate_residual", x, _args, _out),
    do: DGM.gate_residual(x["residual"], x["y"], x["gate"])

  defp typed("silu", x, _args, _out), do: DGM.silu(x["x"])

  defp typed("gelu", x, %{"kind" => kind}, _out),
    do: DGM.gelu(x["x"], kind: String.to_atom(kind))

  defp typed("swiglu", x, _args, _out), do: DGM.swiglu(x["gate"], x["up"])

  defp typed("geglu", x, %{"kind" => kind}, _out),
    do: DGM.geglu(x["gate"], x["up"], kind: String.to_atom(kind))

  defp typed("softmax", x, _args, _out), do: DGM.softmax(x["x"])
  defp typed("log_softmax", x, _args, _out), do: DGM.log_softmax(x["x"])

  defp typed("embedding", x, %{"indices" => indices}, _out),
    do: DGM.embedding(x["table"], integers(indices))

  defp typed("cfg_combine", x, %{"scale" => scale, "rescale" => rescale}, _out),
    do: DGM.cfg_combine(x["cond"], x["uncond"], number(scale), rescale: number(rescale))

  defp typed("timestep_embedding", x, %{"max_period" => period}, [_, dim]),
    do: DGM.timestep_embedding(x["t"], dim, max_period: number(period))

  defp typed("patchify", x, %{"patch" => patch}, _out),
    do: DGM.patchify(x["x"], String.to_integer(patch))

  defp typed("unpatchify", x, %{"patch" => patch}, [_, _, height, width]),
    do: DGM.unpatchify(x["x"], String.to_integer(patch), {height, width})

  # The rows of two matrices, one beside the other.
  defp side_by_side(%Tensor{shape: {rows, columns}} = a, b) do
    size = div(byte_size(a.data), rows)

    data =
      for r <- 0..(rows - 1), %{data: data} <- [a, b], into: <<>> do
        binary_part(data, r * size, size)
      end

    %{a | data: data, shape: {rows, 2 * columns}}
  end

  # The options of attention; what is not one of them is read elsewhere.
  defp options(%{args: args}) do
    limit = fn name -> if args[name], do: String.to_integer(args[name]), else: :infinity end
    window = {limit.("window_left"), limit.("window_right")}

    Enum.flat_map(args, fn
      {"causal", causal} -> [causal: causal == "1"]
      {"scale", text} -> [scale: number(text)]
      {"soft_cap", text} -> [soft_cap: number(text)]
      {"alibi_slopes", text} -> [alibi_slopes: numbers(text)]
      {"sinks", text} -> [sinks: numbers(text)]
      {"kv_lengths", text} -> [kv_lengths: integers(text)]
      {name, _} when name in ~w(window_left window_right storage kv_storage) -> []
      {name, _} when name in ~w(q_offsets kv_offsets) -> []
    end)
    |> Keyword.put(:window, window)
  end

  # Of a mask, whatever is at least -0.25 is seen.
  defp mask(%Tensor{shape: shape} = x),
    do: x |> Tensor.to_flat_list() |> Enum.map(&(&1 >= -0.25)) |> Tensor.mask(shape)

  defp stored(x, nil), do: x
  defp stored(x, "f16"), do: Tensor.as_type(x, {:f, 16})
  defp stored(x, "bf16"), do: Tensor.as_type(x, {:bf, 16})

  defp widened(x), do: Tensor.as_type(x, {:f, 32})

  defp integers(text), do: text |> String.split(",") |> Enum.map(&String.to_integer/1)

  defp numbers(text), do: text |> String.split(",") |> Enum.map(&number/1)

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
