defmodule DGM.Check do
  @moduledoc false
  # The type checks that must happen before a NIF can decode its arguments. Sizes and ranges
  # are the engine's business.

  @u64 0xFFFFFFFFFFFFFFFF
  @size 0x7FFFFFFFFFFFFFFF

  def fail(name, got, expected) do
    raise ArgumentError, "#{name} is #{inspect(got, limit: 8)}, expected #{expected}"
  end

  def count(n, _name) when is_integer(n) and n in 0..@size, do: n
  def count(n, name), do: fail(name, n, "a non-negative integer")

  def u32(n, _name) when is_integer(n) and n in 0..0xFFFFFFFF, do: n
  def u32(n, name), do: fail(name, n, "an integer of 32 bits, not negative")

  def u64(n, _name) when is_integer(n) and n in 0..@u64, do: n
  def u64(n, name), do: fail(name, n, "an integer of 64 bits, not negative")

  def number(x, _name) when is_float(x), do: x
  def number(x, _name) when is_integer(x) and x in -@size..@size, do: :erlang.float(x)
  def number(x, name), do: fail(name, x, "a number")

  def boolean(b, _name) when is_boolean(b), do: b
  def boolean(b, name), do: fail(name, b, "true or false")

  def name(a, _name) when is_atom(a) and a not in [nil, true, false], do: Atom.to_string(a)
  def name(a, name), do: fail(name, a, "an atom")

  def counts(list, name), do: list(list, name, &count/2, "a list of non-negative integers")
  def numbers(list, name), do: list(list, name, &number/2, "a list of numbers")
  def booleans(list, name), do: list(list, name, &boolean/2, "a list of booleans")
  def seeds(list), do: list(list, "seeds", &u64/2, "a list of 64-bit integers, not negative")
  def indices(list), do: list(list, "indices", &label/2, "a list of integers")
  def labels(list), do: list(list, "labels", &label/2, "a list of integers")

  @doc "The rows of a block table."
  def pages(rows, name), do: rows(rows, name, &page/2, "pages")

  defp page(n, _name) when is_integer(n) and n in -0x80000000..0x7FFFFFFF, do: n
  defp page(n, name), do: fail(name, n, "pages, integers of 32 bits")

  @doc "The text of a path."
  def path(path, name) do
    text = IO.chardata_to_string(path)
    if String.valid?(text), do: text, else: raise(ArgumentError)
  rescue
    _ -> fail(name, path, "a path in UTF-8")
  end

  @doc "Rows of tokens."
  def tokens(rows, name), do: rows(rows, name, &label/2, "integers")

  defp rows(rows, name, check, what),
    do: list(rows, name, &list(&1, &2, check, "lists of #{what}"), "a list of lists of #{what}")

  def handle(%{__struct__: module, resource: resource} = value, module, _name)
      when is_reference(resource),
      do: value

  def handle(other, module, name), do: fail(name, other, "a %#{inspect(module)}{}")

  def keyword(opts, defaults) do
    if Keyword.keyword?(opts),
      do: Keyword.validate!(opts, defaults),
      else: fail("options", opts, "a keyword list")
  end

  defp label(n, _name) when is_integer(n) and n in -@size..@size, do: n
  defp label(n, name), do: fail(name, n, "an integer")

  defp list(list, name, check, expected) do
    if is_list(list) and List.improper?(list) == false,
      do: Enum.map(list, &check.(&1, name)),
      else: fail(name, list, expected)
  end
end
