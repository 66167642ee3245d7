defmodule DGM.CacheTest do
  # Caches: growing against whole, types, pages, and conversions of types.
  use ExUnit.Case, async: true
  alias DGM.{KVCache, Tensor}

  defp reals(shape, seed \\ 7),
    do: Tensor.new(DGM.Conformance.generated(Tuple.product(shape), seed), shape)

  # Tokens `from`, `from + 1`, ... of {batch, heads, tokens, dim}.
  defp tokens(%Tensor{shape: {b, h, n, d}, type: {_, bits}} = x, from, count) do
    size = div(bits, 8) * d

    rows =
      for row <- 0..(b * h - 1), do: binary_part(x.data, (row * n + from) * size, count * size)

    %{x | data: IO.iodata_to_binary(rows), shape: {b, h, count, d}}
  end

  for layout <- [:heads_first, :tokens_first], type <- [{:f, 32}, {:f, 16}, {:bf, 16}] do
    test "a cache that grows gives the bits of the whole prompt: #{layout} #{inspect(type)}" do
      {layout, type} = {unquote(layout), unquote(type)}
      [q, k, v] = [reals({2, 4, 9, 8}, 1), reals({2, 2, 9, 8}, 2), reals({2, 2, 9, 6}, 3)]
      [q, k, v] = for x <- [q, k, v], do: Tensor.as_type(x, type)
      want = DGM.attention(q, k, v, causal: true)
      assert want.type == type

      cache =
        KVCache.new(
          pages: 6,
          page_len: 4,
          kv_heads: 2,
          dim: 8,
          value_dim: 6,
          type: type,
          layout: layout,
          block_table: [[5, 0, 2], [1, 4, 3]]
        )

      {cache, 9} =
        Enum.reduce([4, 1, 4], {cache, 0}, fn count, {cache, from} ->
          cache = KVCache.append(cache, tokens(k, from, count), tokens(v, from, count))
          assert cache.lengths == [from + count, from + count]
          out = DGM.attention_paged(tokens(q, from, count), cache, causal: true)
          assert out == tokens(want, from, count)
          {cache, from + count}
        end)

      {out, lse} = DGM.attention_paged(q, cache, causal: true, lse: true)
      assert out == want and lse.shape == {2, 4, 9}
      assert cache |> KVCache.truncate([3, 9]) |> Map.fetch!(:lengths) == [3, 9]
    end
  end

  test "rotary embedding on the way into the cache is rotary embedding before it" do
    [k, v] = [reals({1, 2, 5, 8}, 2), reals({1, 2, 5, 8}, 3)]
    tables = DGM.rope_tables(9, 6, theta: 100)

    for interleaved <- [true, false] do
      turned = DGM.rope(k, [0], tables, interleaved: interleaved)
      refute turned == k
      cache = KVCache.new(pages: 1, page_len: 5, kv_heads: 2, dim: 8)
      a = KVCache.append(cache, k, v, rope: tables, interleaved: interleaved)
      assert a == KVCache.append(cache, turned, v)
      assert a.k == turned
    end
  end

  test "int8 caches are near the exact result" do
    [q, k, v] = [reals({1, 2, 1, 16}, 1), reals({1, 1, 40, 16}, 2), reals({1, 1, 40, 16}, 3)]
    cache = KVCache.new(pages: 1, page_len: 40, kv_heads: 1, dim: 16, type: {:s, 8})
    cache = KVCache.append(cache, k, v)
    assert Enum.all?(Tensor.to_flat_list(cache.k), &(&1 in -127..127))
    near = Tensor.to_flat_list(DGM.attention_paged(q, cache))
    exact = Tensor.to_flat_list(DGM.attention(q, k, v))
    for {a, b} <- Enum.zip(near, exact), do: assert_in_delta(a, b, 0.02)
  end

  test "a shared page is forked before it is written to" do
    one = reals({2, 1, 1, 4})
    cache = KVCache.new(pages: 3, page_len: 2, kv_heads: 1, dim: 4, block_table: [[0], [1]])
    cache = KVCache.append(cache, one, one)
    shared = %{cache | block_table: [[0], [0]]}
    message = ~r/block_table is page 0 to be written for batch entries 0 and 1/
    assert_raise ArgumentError, message, fn -> KVCache.append(shared, one, one) end
    forked = KVCache.fork(shared, 0, 2)
    assert tokens(%{forked.k | shape: {3, 1, 2, 4}}, 0, 2) == forked.k
    assert binary_part(forked.k.data, 64, 32) == binary_part(forked.k.data, 0, 32)
    own = KVCache.append(%{forked | block_table: [[0], [2]]}, one, one)
    assert own.lengths == [2, 2]
    # The one before is as it was.
    assert shared.lengths == [1, 1] and shared.k == cache.k
  end

  test "types are converted as everywhere else" do
    # What the engine rounds on its way into a cache, and what Elixir does.
    special = [
      0,
      1,
      -1,
      65_504,
      65_519,
      65_520,
      -70_000,
      1.0e-8,
      5.9e-8,
      3.0e-8,
      2.9e-8,
      6.1e-5,
      6.2e-5,
      3.0e38,
      1.0e-40
    ]

    x = Tensor.new(DGM.Conformance.generated(1000, 5), {1, 1, 1, 1000})
    y = Tensor.new([[[special ++ [:infinity, :neg_infinity]]]])

    for x <- [x, y], type <- [{:f, 16}, {:bf, 16}] do
      {_, _, _, dim} = x.shape
      cache = KVCache.new(pages: 1, page_len: 1, kv_heads: 1, dim: dim, type: type)
      assert KVCache.append(cache, x, x).k == Tensor.as_type(x, type)
      back = Tensor.as_type(Tensor.as_type(x, type), {:f, 32})
      assert Tensor.as_type(back, type) == Tensor.as_type(x, type)
      assert Tensor.to_list(Tensor.as_type(x, type)) == Tensor.to_list(back)
    end

    assert [:nan] = Tensor.to_list(Tensor.as_type(Tensor.new([:nan]), {:f, 16}))
    assert [:nan] = Tensor.to_list(Tensor.as_type(Tensor.new([:nan]), {:bf, 16}))
    assert inspect(Tensor.as_type(Tensor.new([1]), {:f, 16})) == "#DGM.Tensor<f16[1] 1.0>"
    assert inspect(Tensor.from_binary(<<255>>, {1}, {:s, 8})) == "#DGM.Tensor<s8[1] -1>"
  end
end
