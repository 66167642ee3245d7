defmodule DGM.CompatTest do
  use ExUnit.Case, async: true
  doctest DGM.Compat
  alias DGM.Compat

  @folder Path.expand("../../tests/golden", __DIR__)
  @runs Path.expand("../../tests/conformance/runs.txt", __DIR__)

  # Name, type, count and bytes of what the other systems draw: tests/golden/make_compat.py.
  defp entries do
    data = File.read!(Path.join(@folder, "compat.bin"))

    for line <- File.stream!(Path.join(@folder, "compat.txt")),
        [name, type, dims, at] <- [String.split(line)],
        name != "#" do
      count = dims |> String.split("x") |> Enum.map(&String.to_integer/1) |> Enum.product()
      size = if type == "f32", do: 4, else: 8

      {String.split(name, "."), type, count,
       binary_part(data, String.to_integer(at), size * count)}
    end
  end

  defp numbers(bytes, "f32"), do: for(<<x::float-32-native <- bytes>>, do: x)
  defp numbers(bytes, "f64"), do: for(<<x::float-64-native <- bytes>>, do: x)
  defp numbers(bytes, "u64"), do: for(<<x::64-native <- bytes>>, do: x)

  defp close(got, want, type, tolerance) do
    for {a, b} <- Enum.zip(numbers(got, type), numbers(want, type)),
        do: assert_in_delta(a, b, tolerance * max(1, abs(b)))

    assert byte_size(got) == byte_size(want)
  end

  test "generators repeat the originals" do
    names = Enum.map(Compat.algorithms(), &Atom.to_string/1)

    drawn =
      for {[name, seed, _step, kind], type, count, want} <- entries(),
          name in names,
          reduce: %{} do
        rngs ->
          id = {name, seed}
          new = fn -> Compat.new(String.to_atom(name), String.to_integer(seed)) end
          rng = Map.get_lazy(rngs, id, new)
          draw = if kind == "normal", do: &Compat.normal/3, else: &Compat.uniform/3
          bits = type |> String.trim_leading("f") |> String.to_integer()
          {got, rng} = draw.(rng, count, type: {:f, bits})

          case {name, type} do
            {"torch_cuda", _} -> close(got, want, type, 2.0e-6)
            {_, "f64"} -> close(got, want, type, 5.0e-16)
            {_, "f32"} -> assert got == want
          end

          {:ok, rng} = Compat.from_binary(Compat.to_binary(rng))
          Map.put(rngs, id, rng)
      end

    assert map_size(drawn) == 3 * length(names)
  end

  test "JAX" do
    checked =
      for {["jax", layout, seed, what], type, count, want} <- entries() do
        key = Compat.jax_key(String.to_integer(seed))
        opts = [layout: String.to_atom(layout)]
        words = fn keys -> Enum.flat_map(keys, &Tuple.to_list/1) end

        case what do
          "fold_in_7" ->
            assert words.([Compat.jax_fold_in(key, 7)]) == numbers(want, type)

          "split" ->
            assert words.(Compat.jax_split(key, div(count, 2), opts)) == numbers(want, type)

          "uniform" ->
            assert Compat.jax_uniform(key, count, opts) == want

          "normal" ->
            close(Compat.jax_normal(key, count, opts), want, type, 5.0e-7)
        end
      end

    assert length(checked) >= 40
  end

  test "torchsde" do
    all = Map.new(entries(), fn {name, type, _, bytes} -> {name, {type, bytes}} end)
    get = fn name -> all |> Map.fetch!(["torchsde" | name]) |> elem(1) end
    seeds = numbers(get.(["seeds"]), "u64")

    for i <- 0..5 do
      [t0, t1, ta, tb] = numbers(get.(["#{i}", "times"]), "f64")
      got = Compat.brownian(seeds, 24, {t0, t1}, {ta, tb}, normalized: false)
      assert got == get.(["#{i}", "increment"])
      got = Compat.brownian(seeds, 24, {t0, t1}, {ta, tb})
      close(got, get.(["#{i}", "noise"]), "f32", 3.0e-7)
    end
  end

  test "the published hashes" do
    {cases, _} =
      @runs
      |> File.stream!()
      |> Enum.map(&String.split/1)
      |> Enum.reduce({[], nil}, fn
        ["compat" | words], {all, _} -> {all, words}
        ["sha256", hash], {all, words} when words != nil -> {[{words, hash} | all], nil}
        _, state -> state
      end)

    assert length(cases) == 17

    for {words, hash} <- cases do
      bytes = for row <- 0..2, into: <<>>, do: first(words, 7 + row)
      assert Base.encode16(:crypto.hash(:sha256, bytes), case: :lower) == hash, inspect(words)
    end
  end

  defp first(["brownian", t0, t1, ta, tb, "elements", n], seed) do
    [t0, t1, ta, tb] = Enum.map([t0, t1, ta, tb], &String.to_float/1)
    Compat.brownian([seed], String.to_integer(n), {t0, t1}, {ta, tb})
  end

  defp first(["jax", layout, kind, "elements", n], seed) do
    draw = if kind == "normal", do: &Compat.jax_normal/3, else: &Compat.jax_uniform/3
    draw.(Compat.jax_key(seed), {String.to_integer(n)}, layout: String.to_atom(layout))
  end

  defp first([algorithm, kind, "elements", n], seed) do
    rng = Compat.new(String.to_atom(algorithm), seed)
    draw = if kind == "normal", do: &Compat.normal/2, else: &Compat.uniform/2
    elem(draw.(rng, {String.to_integer(n)}), 0)
  end

  test "a generator is a value" do
    rng = Compat.new(:torch_cpu, 3)
    {a, later} = Compat.normal(rng, {2, 8})
    assert {^a, ^later} = Compat.normal(rng, {2, 8})
    {b, _} = Compat.normal(later, {2, 8})
    assert a != b
    assert inspect(rng) == "#DGM.Compat<torch_cpu>"
    assert {<<>>, _} = Compat.normal(rng, 0)
  end

  test "wrong arguments" do
    rng = Compat.new(:numpy_pcg64, 1)
    raises = fn text, f -> assert_raise ArgumentError, text, f end
    raises.(~r/^algorithm is torch, expected torch_cpu, /, fn -> Compat.new(:torch, 1) end)
    raises.(~r/^algorithm is nil/, fn -> Compat.new(nil, 1) end)
    raises.(~r/^seed is -1/, fn -> Compat.new(:torch_cpu, -1) end)
    raises.(~r/^seed is 4294967296/, fn -> Compat.new(:numpy_random_state, 4_294_967_296) end)
    raises.(~r/^shape/, fn -> Compat.normal(rng, -1) end)
    raises.(~r/^shape/, fn -> Compat.normal(rng, {2, nil}) end)
    raises.(~r/^shape/, fn -> Compat.normal(rng, 0x7FFFFFFFFFFFFFFF) end)
    raises.(~r/^shape/, fn -> Compat.normal(rng, 0x7FFFFFFFFFFFFFFF, type: {:f, 64}) end)
    raises.(~r/^shape/, fn -> Compat.normal(rng, {0x7FFFFFFFFFFFFFFF, 2}) end)
    raises.(~r/^type is/, fn -> Compat.normal(rng, 1, type: {:f, 16}) end)
    raises.(~r/^rng is/, fn -> Compat.normal(:torch_cpu, 1) end)
    raises.(~r/^rng is/, fn -> Compat.normal(%{rng | state: nil}, 1) end)
    raises.(~r/torch_cuda/, fn -> Compat.uniform(Compat.new(:torch_cuda, 1), 1) end)
    raises.(~r/^bytes is/, fn -> Compat.from_binary(nil) end)
    raises.(~r/^key is/, fn -> Compat.jax_normal(1, 1) end)
    raises.(~r/^key is/, fn -> Compat.jax_normal({1, -1}, 1) end)
    raises.(~r/^layout is/, fn -> Compat.jax_normal({1, 2}, 1, layout: :other) end)
    raises.(~r/^count is/, fn -> Compat.jax_split({1, 2}, 0x7FFFFFFFFFFFFFFF) end)
    raises.(~r/^ends is/, fn -> Compat.brownian([1], 1, 1, {0, 1}) end)
    raises.(~r/^t1 is/, fn -> Compat.brownian([1], 1, {1, 1}, {0, 1}) end)
    raises.(~r/^tb is/, fn -> Compat.brownian([1], 1, {0, 1}, {1, 1}) end)

    raises.(~r/^elements is/, fn ->
      Compat.brownian([1, 2], 0x7FFFFFFFFFFFFFFF, {0, 1}, {0, 1})
    end)

    for at <- 0..2559//37 do
      <<head::binary-size(at), byte, tail::binary>> = Compat.to_binary(rng)
      corrupt = <<head::binary, Bitwise.bxor(byte, 1), tail::binary>>
      assert {:error, %DGM.Error{}} = Compat.from_binary(corrupt)
      assert_raise DGM.Error, ~r/^state/, fn -> Compat.normal(%{rng | state: corrupt}, 1) end
    end
  end
end
