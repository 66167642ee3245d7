defmodule DGM.Conformance do
  @moduledoc false
  # Reads the cases that every language runs: tests/conformance/cases.txt holds inputs by seed
  # and the SHA-256 of the outputs.

  import Bitwise

  @path Path.expand("../../../tests/conformance/cases.txt", __DIR__)
  @u32 0xFFFFFFFF

  defstruct [:kind, :name, :call, :result, :out, :sha256, :error, inputs: %{}, args: %{}]

  def path, do: @path

  @doc """
  All cases in order. A line that this reader does not know raises, so no case is skipped
  silently.
  """
  def cases do
    {cases, nil} =
      @path
      |> File.stream!()
      |> Stream.map(&String.trim_trailing(&1, "\n"))
      |> Stream.reject(&(&1 == "" or String.starts_with?(&1, "#")))
      |> Enum.reduce({[], nil}, &line(String.split(&1, " "), &2))

    Enum.reverse(cases)
  end

  defp line([kind, name], {done, nil}) when kind in ~w(case bad),
    do: {done, %__MODULE__{kind: kind, name: name}}

  defp line(["end"], {done, %{} = case}), do: {[case | done], nil}
  defp line(words, {done, %{} = case}), do: {done, field(words, case)}

  defp field(["call", name], case), do: %{case | call: name}

  defp field(["in", name, "f32", dims, contents, text], case),
    do: put_in(case.inputs[name], {dims(dims), contents, text})

  defp field(["arg", name, text], case), do: put_in(case.args[name], text)
  defp field(["out", name, "f32", dims], case), do: %{case | result: name, out: dims(dims)}

  defp field(["out", name, "f32", dims, "sha256", hash], case),
    do: %{case | result: name, out: dims(dims), sha256: hash}

  defp field(["error", class, word], case), do: %{case | error: {class, word}}

  defp dims(text), do: text |> String.split(",") |> Enum.map(&String.to_integer/1)

  @doc "The inputs as tensors."
  def inputs(case), do: Map.new(case.inputs, fn {name, input} -> {name, tensor(input)} end)

  defp tensor({dims, "seed", seed}),
    do:
      DGM.Tensor.new(generated(Enum.product(dims), String.to_integer(seed)), List.to_tuple(dims))

  defp tensor({dims, "values", text}) do
    data =
      for v <- String.split(text, ","), into: <<>>, do: <<String.to_integer(v, 16)::32-native>>

    DGM.Tensor.new(data, List.to_tuple(dims))
  end

  @doc "The first `count` values of the generator that all languages share."
  def generated(count, seed) do
    start = seed * 0x85EBCA77
    for i <- 1..count//1, into: <<>>, do: <<value(i * 0x9E3779B1 + start)::float-32-native>>
  end

  defp value(h) do
    h = h &&& @u32
    h = bxor(h, h >>> 16) * 0x21F0AAAD &&& @u32
    h = bxor(h, h >>> 15) * 0x735A2D97 &&& @u32
    (bxor(h, h >>> 15) >>> 8) / 8_388_608 - 1
  end
end
