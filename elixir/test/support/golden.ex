defmodule DGM.Golden do
  @moduledoc false
  # The reference values that the tests of all four languages share: tests/golden/README.md.

  import ExUnit.Assertions

  @folder Path.expand("../../../tests/golden", __DIR__)

  def path(name), do: Path.join(@folder, name)

  @doc "The tensor called `name`; integers and f64 as a flat list."
  def read(name, file \\ "golden") do
    {dtype, dims, offset} = Map.fetch!(index(file), name)
    slice = &binary_part(bin(file), &1, &2)
    count = Enum.product(dims)

    case dtype do
      "f32" -> %DGM.Tensor{data: slice.(offset, count * 4), shape: List.to_tuple(dims)}
      "f64" -> for <<x::float-64-little <- slice.(offset, count * 8)>>, do: x
      "i64" -> for <<n::signed-64-little <- slice.(offset, count * 8)>>, do: n
      "u64" -> for <<n::64-little <- slice.(offset, count * 8)>>, do: n
    end
  end

  @doc "Asserts `|got - expected| <= atol + rtol * |expected|`, element by element."
  def assert_close(%DGM.Tensor{} = got, %DGM.Tensor{} = expected, rtol, atol) do
    assert got.shape == expected.shape

    pairs = Enum.zip(DGM.Tensor.to_flat_list(got), DGM.Tensor.to_flat_list(expected))

    for {{a, b}, i} <- Enum.with_index(pairs) do
      assert close?(a, b, rtol, atol), "element #{i} is #{a}, expected #{b}"
    end
  end

  defp close?(a, b, rtol, atol) when is_float(a) and is_float(b),
    do: abs(a - b) <= atol + rtol * abs(b)

  defp close?(a, b, _rtol, _atol), do: a == b

  defp bin(file), do: cached({:bin, file}, fn -> File.read!(path(file <> ".bin")) end)

  defp index(file) do
    cached({:index, file}, fn ->
      for line <- File.stream!(path(file <> ".txt")),
          [name, dtype, dims, offset] <- [String.split(line)],
          not String.starts_with?(name, "#"),
          into: %{} do
        dims = dims |> String.split("x") |> Enum.map(&String.to_integer/1)
        {name, {dtype, dims, String.to_integer(offset)}}
      end
    end)
  end

  defp cached(key, read) do
    :persistent_term.get({__MODULE__, key}, nil) ||
      tap(read.(), &:persistent_term.put({__MODULE__, key}, &1))
  end
end
