defmodule DGM.NxTest do
  # Every function that takes tensors, with Nx tensors: the same bits, in the kind of the first tensor.
  use ExUnit.Case, async: true
  alias DGM.{Linear, Random, Tensor}

  defp nx(%Tensor{data: data, shape: shape, type: {:u, 8}}),
    do: %Nx.Tensor{bytes: data, type: {:u, 8}, shape: shape}

  defp nx(%Tensor{data: data, shape: shape}),
    do: data |> Nx.from_binary({:f, 32}) |> Nx.reshape(shape)

  defp nx(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&nx/1) |> List.to_tuple()

  defp nx(other), do: other

  defp reals(shape, seed \\ 7),
    do: Tensor.new(DGM.Conformance.generated(Tuple.product(shape), seed), shape)

  # {name, tensor arguments in order, the call with them}
  defp functions do
    [q, k, v] = [reals({2, 4, 3, 8}), reals({2, 2, 5, 8}, 8), reals({2, 2, 5, 6}, 9)]
    [pq, pk, pv] = [reals({5, 4, 8}), reals({6, 2, 8}, 8), reals({6, 2, 6}, 9)]
    bias = reals({2, 1, 3, 5}, 10)
    mask = Tensor.mask(for(n <- 1..15, do: rem(n, 4) > 0), {1, 1, 3, 5})
    [x, y] = [reals({2, 3, 4}), reals({2, 3, 4}, 8)]
    [shift, scale] = [reals({2, 4}, 9), reals({2, 4}, 10)]
    [weight, add] = [reals({4}, 11), reals({4}, 12)]
    layer = Linear.pack(reals({3, 4}), reals({3}))
    {out, lse} = DGM.attention(q, k, v, lse: true)
    {pout, plse} = DGM.attention_varlen(pq, pk, pv, [0, 2, 5], [0, 2, 6], lse: true)
    tables = {reals({9, 2}), reals({9, 2}, 8)}

    cache =
      DGM.KVCache.new(
        pages: 4,
        page_len: 4,
        kv_heads: 2,
        dim: 8,
        value_dim: 6,
        block_table: [[0, 1], [2, 3]]
      )
      |> DGM.KVCache.append(k, v)

    [
      {:attention_paged, [q], &DGM.attention_paged(&1, cache)},
      {:attention_merge, [out, lse, out, lse], &DGM.attention_merge/4},
      {:attention_backward, [q, k, v, out, lse, out], &DGM.attention_backward/6},
      {:rope, [q], &DGM.rope(&1, [0, 3], tables)},
      {:attention, [q, k, v], &DGM.attention/3},
      {:attention, [q, k, v], &DGM.attention(&1, &2, &3, causal: true, lse: true)},
      {:attention, [q, k, v, bias, mask], &DGM.attention(&1, &2, &3, bias: &4, mask: &5)},
      {:attention_varlen, [pq, pk, pv],
       &DGM.attention_varlen(&1, &2, &3, [0, 2, 5], [0, 2, 6], lse: true)},
      {:attention_varlen, [pq, pk, pv], &DGM.attention_varlen(&1, &2, &3, [0, 2, 5], [0, 2, 6])},
      {:attention_varlen_backward, [pq, pk, pv, pout, plse, pout],
       &DGM.attention_varlen_backward(&1, &2, &3, &4, &5, &6, [0, 2, 5], [0, 2, 6])},
      {:layer_norm, [x], &DGM.layer_norm/1},
      {:layer_norm, [x, weight, add], &DGM.layer_norm(&1, weight: &2, bias: &3)},
      {:rms_norm, [x], &DGM.rms_norm/1},
      {:rms_norm, [x, weight], &DGM.rms_norm(&1, weight: &2)},
      {:modulate, [x, shift, scale], &DGM.modulate/3},
      {:layer_norm_modulate, [x, shift, scale], &DGM.layer_norm_modulate/3},
      {:gate_residual, [x, y, scale], &DGM.gate_residual/3},
      {:silu, [x], &DGM.silu/1},
      {:gelu, [x], &DGM.gelu(&1, kind: :erf)},
      {:swiglu, [x, y], &DGM.swiglu/2},
      {:geglu, [x, y], &DGM.geglu/2},
      {:softmax, [x], &DGM.softmax/1},
      {:log_softmax, [x], &DGM.log_softmax/1},
      {:rms_norm_residual, [x, y, weight], &DGM.rms_norm_residual(&1, &2, weight: &3)},
      {:group_norm, [x, reals({3}), reals({3}, 8)],
       &DGM.group_norm(&1, 3, weight: &2, bias: &3, silu: true)},
      {:embedding, [shift], &DGM.embedding(&1, [1, 0, 1])},
      {:cfg_combine, [x, y], &DGM.cfg_combine(&1, &2, 2.5, rescale: 0.5)},
      {:rope_axial_tables, [shift], &DGM.rope_axial_tables(&1, [2, 2, 4, 2])},
      {:timestep_embedding, [weight], &DGM.timestep_embedding(&1, 6)},
      {:patchify, [reals({2, 3, 4, 6})], &DGM.patchify(&1, 2)},
      {:unpatchify, [reals({2, 6, 12})], &DGM.unpatchify(&1, 2, {4, 6})},
      {:forward, [x], &Linear.forward(layer, &1, activation: :silu)},
      {:pack, [reals({3, 4}), reals({3}), x], &Linear.forward(Linear.pack(&1, &2), &3)},
      {:categorical, [shift], &Random.categorical(&1, [1, 2])}
    ]
  end

  test "Nx in, Nx out, with the same bits" do
    for {name, tensors, call} <- functions(), name != :pack do
      want = apply(call, tensors)
      assert apply(call, Enum.map(tensors, &nx/1)) == nx(want), "#{name}"
    end
  end

  test "kinds may be mixed; the first tensor decides" do
    for {name, [first | rest] = tensors, call} <- functions(), name != :pack, rest != [] do
      want = apply(call, tensors)

      for i <- 0..(length(rest) - 1) do
        mixed = List.update_at(rest, i, &nx/1)
        assert apply(call, [first | mixed]) == want, "#{name}"
        assert apply(call, [nx(first) | mixed]) == nx(want), "#{name}"
      end
    end
  end

  test "weights of a layer may be of either kind" do
    {:pack, [w, b, x], call} = List.keyfind(functions(), :pack, 0)
    want = call.(w, b, x)
    assert call.(nx(w), nx(b), x) == want
    assert call.(nx(w), b, nx(x)) == nx(want)
  end

  test "the list has every function of DGM that takes a tensor" do
    listed = functions() |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
    others = ~w(version numerics_version isa cpu_info num_threads set_num_threads rope_tables)a
    all = DGM.__info__(:functions) |> Keyword.keys() |> Enum.uniq()
    assert Enum.sort(all -- others) == Enum.sort(listed -- [:forward, :pack, :categorical])
  end

  test "noise becomes an Nx tensor as its documentation says" do
    for stream <- [&Random.normal/2, &Random.uniform/2] do
      x = stream.([1, 2], {3, 4})
      assert %Tensor{shape: {2, 3, 4}} = x
      assert x.data |> Nx.from_binary({:f, 32}) |> Nx.reshape(x.shape) == nx(x)
    end
  end

  test "a run can start from and be told an Nx tensor" do
    plan = DGM.Plan.compile()
    run = DGM.Sampler.start(plan, [1], 2)
    {:eval, %{eval_id: id}} = DGM.Sampler.ask(run)
    y = Tensor.new([1, 2])
    assert DGM.Sampler.tell(run, id, nx(y)) == DGM.Sampler.tell(run, id, y)
    x = Tensor.new([[3, 4]])
    assert DGM.Sampler.start(plan, [1], 2, x: nx(x)) == DGM.Sampler.start(plan, [1], 2, x: x)
  end

  test "other types are refused by name" do
    for {name, tensors, call} <- functions(), i <- 0..(length(tensors) - 1) do
      wrong = List.update_at(Enum.map(tensors, &nx/1), i, &%{&1 | type: {:f, 64}})

      assert_raise ArgumentError, ~r/ has dtype f64, expected (f32|u8)/, fn ->
        flunk("#{name} took f64: #{inspect(apply(call, wrong))}")
      end
    end

    t = %{nx(Tensor.new([1, 2])) | type: {:bf, 16}}

    assert_raise ArgumentError, "logits has dtype bf16, expected f32", fn ->
      Random.categorical(t, [1])
    end
  end
end
