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
      {~r/unknown keys \[:mask\]/, [t, t, t, [mask: 1]]}
    ]

    for {message, args} <- wrong do
      assert_raise ArgumentError, message, fn -> apply(DGM, :attention, args) end
    end
  end
end
