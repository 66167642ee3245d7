defmodule DGM.AttentionTest do
  use ExUnit.Case, async: true
  import DGM.Golden
  alias DGM.Tensor

  for name <- ~w(plain causal causal_tall causal_wide cross gqa dv one_query longer_than_split) do
    test "golden #{name}" do
      name = unquote(name)
      [q, k, v] = for part <- ~w(q k v), do: read("attention.#{name}.#{part}")
      opts = [causal: String.starts_with?(name, "causal"), lse: true]
      {out, lse} = DGM.attention(q, k, v, opts)
      assert_close(out, read("attention.#{name}.out"), 1.0e-5, 2.0e-6)
      assert_close(lse, read("attention.#{name}.lse"), 1.0e-5, 2.0e-6)
      # The log-sum-exp is a second output, not another computation.
      assert DGM.attention(q, k, v, Keyword.delete(opts, :lse)) == out
    end
  end

  test "golden lengths" do
    [q, k, v] = for part <- ~w(q k v), do: read("attention.lengths.#{part}")
    lengths = read("attention.lengths.kv_lengths")
    {out, lse} = DGM.attention(q, k, v, kv_lengths: lengths, lse: true)
    assert_close(out, read("attention.lengths.out"), 1.0e-5, 2.0e-6)
    assert_close(lse, read("attention.lengths.lse"), 1.0e-5, 2.0e-6)
  end

  test "an unaligned binary gives the same bits" do
    [q, k, v] = for part <- ~w(q k v), do: read("attention.plain.#{part}")
    <<_::8, shifted::binary>> = <<0>> <> q.data
    assert DGM.attention(%{q | data: shifted}, k, v) == DGM.attention(q, k, v)
  end

  # One head, scores log(1), log(2), log(4): weights 1, 2, 4 before any option.
  @scores Enum.map([1, 2, 4], &:math.log/1)
  defp one_hot(opts) do
    q = Tensor.new([[[[1.0]]]])
    k = Tensor.new([[Enum.map(@scores, &[&1])]])
    v = Tensor.new([[[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]])
    [[[out]]] = Tensor.to_list(DGM.attention(q, k, v, [scale: 1] ++ opts))
    out
  end

  defp assert_weights(opts, weights) do
    for {x, w} <- Enum.zip(one_hot(opts), weights), do: assert_in_delta(x, w, 1.0e-6)
  end

  test "options" do
    exp = &:math.exp/1
    assert_weights([], [1 / 7, 2 / 7, 4 / 7])
    assert_weights([window: {1, 0}], [0, 2 / 6, 4 / 6])
    assert_weights([window: {0, :infinity}], [0, 0, 1])
    assert_weights([mask: Tensor.mask([true, false, true], {1, 1, 1, 3})], [1 / 5, 0, 4 / 5])
    assert_weights([bias: Tensor.new([[[[:neg_infinity, 0, 0]]]])], [0, 2 / 6, 4 / 6])
    assert_weights([bias: Tensor.new([[[[:math.log(4), 0, 0]]]])], [4 / 10, 2 / 10, 4 / 10])
    assert_weights([sinks: [:math.log(3)]], [1 / 10, 2 / 10, 4 / 10])
    # The query stands at the last key.
    assert_weights([alibi_slopes: [:math.log(2)]], [0.25 / 5.25, 1 / 5.25, 4 / 5.25])
    capped = Enum.map(@scores, &exp.(0.5 * :math.tanh(&1 / 0.5)))
    assert_weights([soft_cap: 0.5], Enum.map(capped, &(&1 / Enum.sum(capped))))
  end

  # Tokens first, of some tokens of one sequence alone.
  defp packed(dims, seed),
    do: Tensor.new(DGM.Conformance.generated(Tuple.product(dims), seed), dims)

  # {tokens, heads, d}, tokens from..to-1, as {1, heads, tokens, d}.
  defp alone(tensor, from, to) do
    list = tensor |> Tensor.to_list() |> Enum.slice(from, to - from)
    heads = elem(tensor.shape, 1)
    by_head = for h <- 0..(heads - 1), do: Enum.map(list, &Enum.at(&1, h))
    Tensor.new(List.flatten(by_head), {1, heads, to - from, elem(tensor.shape, 2)})
  end

  test "packed sequences have the bits of each alone" do
    {q, k, v} = {packed({9, 4, 8}, 1), packed({12, 2, 8}, 2), packed({12, 2, 6}, 3)}
    # The second sequence has no queries, the third no keys.
    {a, b} = {[0, 4, 4, 6, 9], [0, 5, 6, 6, 12]}

    for opts <- [
          [],
          [causal: true],
          [window: {2, :infinity}, sinks: [1, 2, 3, 4]],
          [scale: 0.3, soft_cap: 2, alibi_slopes: [0.5, 0.25, 0.125, 0]]
        ] do
      {out, lse} = DGM.attention_varlen(q, k, v, a, b, [lse: true] ++ opts)
      assert {out.shape, lse.shape} == {{9, 4, 6}, {4, 9}}
      assert DGM.attention_varlen(q, k, v, a, b, opts) == out

      for n <- [0, 2, 3] do
        [i, j] = for offsets <- [a, b], do: {Enum.at(offsets, n), Enum.at(offsets, n + 1)}

        parts = [
          alone(q, elem(i, 0), elem(i, 1))
          | for(x <- [k, v], do: alone(x, elem(j, 0), elem(j, 1)))
        ]

        {want, want_lse} = apply(DGM, :attention, parts ++ [[lse: true] ++ opts])
        assert alone(out, elem(i, 0), elem(i, 1)) == want

        lse_part =
          for row <- Tensor.to_list(lse), do: Enum.slice(row, elem(i, 0)..(elem(i, 1) - 1))

        assert [lse_part] == Tensor.to_list(want_lse)
      end

      dout = packed({9, 4, 6}, 4)
      gradients = DGM.attention_varlen_backward(q, k, v, out, lse, dout, a, b, opts)
      assert for(x <- Tuple.to_list(gradients), do: x.shape) == [q.shape, k.shape, v.shape]

      for n <- 0..3 do
        [i, j] = for offsets <- [a, b], do: Enum.slice(offsets, n, 2)
        own = fn x, [from, to] -> alone(x, from, to) end
        parts = for {x, range} <- [{q, i}, {k, j}, {v, j}], do: own.(x, range)
        {one, one_lse} = apply(DGM, :attention, parts ++ [[lse: true] ++ opts])

        want = apply(DGM, :attention_backward, parts ++ [one, one_lse, own.(dout, i), opts])

        got = for {x, range} <- Enum.zip(Tuple.to_list(gradients), [i, j, j]), do: own.(x, range)
        assert got == Tuple.to_list(want)
      end
    end

    assert DGM.attention_varlen(packed({0, 4, 8}, 1), k, v, [0, 0], [0, 12]).shape == {0, 4, 6}

    assert DGM.attention_varlen(
             packed({0, 4, 8}, 1),
             packed({0, 2, 8}, 1),
             packed({0, 2, 6}, 1),
             [0],
             [0]
           ).data == ""
  end

  test "wrong arguments" do
    t = Tensor.new(List.duplicate(0.0, 16), {1, 2, 2, 4})

    wrong = [
      {~r/^q is nil, expected a DGM.Tensor/, [nil, t, t]},
      {~r/^k is :k, expected/, [t, :k, t]},
      {~r/^v is "v", expected/, [t, t, "v"]},
      {~r/^q has shape \[16\], expected \{batch/, [Tensor.reshape(t, {16}), t, t]},
      {~r/^k has shape/, [t, Tensor.reshape(t, {1, 2, 4, 2}), t]},
      {~r/^v has shape/, [t, t, Tensor.reshape(t, {2, 1, 2, 4})]},
      {~r/^q has shape \[16\]/, [%{t | shape: {1, 2, 2, 5}}, t, t]},
      {~r/^q has shape \[15\]/, [%{t | data: binary_part(t.data, 0, 15)}, t, t]},
      {~r/^q is too large/, [%{t | shape: {0x7FFFFFFFFFFFFFFF, 2, 2, 4}}, t, t]},
      {~r/^q has dtype f64, expected f32/, [%{t | type: {:f, 64}}, t, t]},
      {~r/^scale is "x"/, [t, t, t, [scale: "x"]]},
      {~r/^causal is nil, expected true or false/, [t, t, t, [causal: nil]]},
      {~r/^kv_lengths is -1/, [t, t, t, [kv_lengths: [-1]]]},
      {~r/^kv_lengths/, [t, t, t, [kv_lengths: [3]]]},
      {~r/^kv_lengths/, [t, t, t, [kv_lengths: [1, 1]]]},
      {~r/^options is nil/, [t, t, t, nil]},
      {~r/^window is 3/, [t, t, t, [window: 3]]},
      {~r/^window is -1/, [t, t, t, [window: {-1, 2}]]},
      {~r/^soft_cap is 0/, [t, t, t, [soft_cap: 0]]},
      {~r/^alibi_slopes is :x/, [t, t, t, [alibi_slopes: :x]]},
      {~r/^alibi_slopes has shape \[1\]/, [t, t, t, [alibi_slopes: [1]]]},
      {~r/^sinks is "x"/, [t, t, t, [sinks: [1, "x"]]]},
      {~r/^bias has shape \[16\]/, [t, t, t, [bias: Tensor.reshape(t, {16})]]},
      {~r/^bias has shape \[1, 2, 2, 4\]/, [t, t, t, [bias: t]]},
      {~r/^mask is 1/, [t, t, t, [mask: 1]]},
      {~r/^mask has dtype f32, expected u8/, [t, t, t, [mask: t]]},
      {~r/^mask has shape/, [t, t, t, [mask: Tensor.mask([true], {1})]]},
      {~r/^mask has shape/, [t, t, t, [mask: %{Tensor.mask([true], {1, 1, 1, 1}) | data: <<>>}]]},
      {~r/unknown keys \[:masks\]/, [t, t, t, [masks: 1]]}
    ]

    for {message, args} <- wrong do
      assert_raise ArgumentError, message, fn -> apply(DGM, :attention, args) end
    end

    t = Tensor.reshape(t, {4, 2, 2})
    whole = [0, 4]

    packed = [
      {~r/^q is nil/, [nil, t, t, whole, whole]},
      {~r/^q has shape \[16\], expected \{tokens/, [Tensor.reshape(t, {16}), t, t, whole, whole]},
      {~r/^k has shape/, [t, Tensor.reshape(t, {4, 1, 4}), t, whole, whole]},
      {~r/^v has shape/, [t, t, Tensor.reshape(t, {2, 2, 4}), whole, whole]},
      {~r/^q_offsets is \[0, 3\], expected numbers from 0 to 4/, [t, t, t, [0, 3], whole]},
      {~r/^q_offsets is \[0, 3, 2, 4\]/, [t, t, t, [0, 3, 2, 4], whole]},
      {~r/^q_offsets/, [t, t, t, [], whole]},
      {~r/^q_offsets is -1/, [t, t, t, [0, -1], whole]},
      {~r/^kv_offsets is \[1, 4\]/, [t, t, t, whole, [1, 4]]},
      {~r/^kv_offsets has shape \[3\]/, [t, t, t, whole, [0, 2, 4]]},
      {~r/^kv_offsets is nil/, [t, t, t, whole, nil]},
      {~r/unknown keys \[:mask\]/, [t, t, t, whole, whole, [mask: 1]]},
      {~r/unknown keys \[:kv_lengths\]/, [t, t, t, whole, whole, [kv_lengths: [4]]]},
      {~r/^sinks has shape \[1\]/, [t, t, t, whole, whole, [sinks: [1]]]}
    ]

    for {message, args} <- packed do
      assert_raise ArgumentError, message, fn -> apply(DGM, :attention_varlen, args) end
    end
  end

  # The sum of all elements of attention, each times its weight.
  defp loss(q, k, v, dout, opts) do
    out = Tensor.to_flat_list(DGM.attention(q, k, v, opts))
    Enum.zip_with(out, Tensor.to_flat_list(dout), &(&1 * &2)) |> Enum.sum()
  end

  defp reals(shape, seed),
    do: Tensor.new(DGM.Conformance.generated(Tuple.product(shape), seed), shape)

  test "gradients are slopes" do
    [q, k] = [reals({1, 2, 3, 4}, 1), reals({1, 1, 5, 4}, 2)]
    [v, dout, bias] = [reals({1, 1, 5, 3}, 3), reals({1, 2, 3, 3}, 4), reals({1, 2, 1, 5}, 5)]
    opts = [causal: true, soft_cap: 2.0, bias: bias]
    {out, lse} = DGM.attention(q, k, v, [lse: true] ++ opts)
    {dq, dk, dv} = DGM.attention_backward(q, k, v, out, lse, dout, opts)

    assert {^dq, ^dk, ^dv, dbias} =
             DGM.attention_backward(q, k, v, out, lse, dout, [dbias: true] ++ opts)

    # Along the gradient the loss rises by its square.
    along = fn x, dx, by ->
      list = Enum.zip_with(Tensor.to_flat_list(x), Tensor.to_flat_list(dx), &(&1 + by * &2))
      Tensor.new(list, x.shape)
    end

    moved = [
      {dq, fn by -> loss(along.(q, dq, by), k, v, dout, opts) end},
      {dk, fn by -> loss(q, along.(k, dk, by), v, dout, opts) end},
      {dv, fn by -> loss(q, k, along.(v, dv, by), dout, opts) end},
      {dbias, fn by -> loss(q, k, v, dout, Keyword.put(opts, :bias, along.(bias, dbias, by))) end}
    ]

    for {gradient, f} <- moved do
      square = gradient |> Tensor.to_flat_list() |> Enum.map(&(&1 * &1)) |> Enum.sum()
      assert square > 1.0e-3
      assert_in_delta (f.(0.02) - f.(-0.02)) / 0.04, square, 2.0e-3 * square + 1.0e-4
    end

    assert_raise ArgumentError, ~r/^dout has shape \[1, 2, 3, 4\]/, fn ->
      DGM.attention_backward(q, k, v, out, lse, q, opts)
    end

    assert_raise ArgumentError, ~r/^dbias is true, expected false without a bias/, fn ->
      DGM.attention_backward(q, k, v, out, lse, dout, dbias: true)
    end
  end

  test "gradients have the types of what they belong to" do
    [q, k, v, dout] = for seed <- 1..4, do: reals({1, 2, 5, 4}, seed)

    [q16, k16, v16] = [
      Tensor.as_type(q, {:bf, 16}) | for(x <- [k, v], do: Tensor.as_type(x, {:f, 16}))
    ]

    # The same numbers in f32.
    [q, k, v] = for x <- [q16, k16, v16], do: Tensor.as_type(x, {:f, 32})
    {out, lse} = DGM.attention(q, k, v, lse: true)
    wide = DGM.attention_backward(q, k, v, out, lse, dout) |> Tuple.to_list()
    narrow = DGM.attention_backward(q16, k16, v16, out, lse, dout) |> Tuple.to_list()

    for {wide, narrow, of} <- Enum.zip([wide, narrow, [q16, k16, v16]]) do
      assert narrow == Tensor.as_type(wide, of.type)
    end
  end
end
