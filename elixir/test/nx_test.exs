defmodule DGM.NxTest do
  use ExUnit.Case, async: true
  alias DGM.Tensor

  defp nx(%Tensor{data: data, shape: shape}),
    do: data |> Nx.from_binary({:f, 32}) |> Nx.reshape(shape)

  test "Nx tensor in, Nx tensor out, same bits" do
    x = Tensor.new([[[1, 2], [3, 4]]])
    bd = Tensor.new([[1, 2]])
    qkv = Tensor.reshape(x, {1, 1, 2, 2})
    layer = DGM.Linear.pack(nx(bd))

    assert DGM.silu(nx(x)) == nx(DGM.silu(x))
    assert DGM.modulate(nx(x), nx(bd), bd) == nx(DGM.modulate(x, bd, bd))
    assert DGM.Linear.forward(layer, nx(x)) == nx(DGM.Linear.forward(layer, x))
    {out, lse} = DGM.attention(qkv, qkv, qkv, lse: true)
    assert DGM.attention(nx(qkv), nx(qkv), qkv, lse: true) == {nx(out), nx(lse)}
  end

  test "a run can be told an Nx tensor" do
    run = DGM.Sampler.start(DGM.Plan.compile(), [1], 2)
    {:eval, %{eval_id: id}} = DGM.Sampler.ask(run)
    y = Tensor.new([1, 2])
    assert DGM.Sampler.tell(run, id, nx(y)) == DGM.Sampler.tell(run, id, y)
  end

  test "other types are refused" do
    t = %{nx(Tensor.new([1, 2])) | type: {:bf, 16}}
    assert_raise ArgumentError, "x has dtype bf16, expected f32", fn -> DGM.silu(t) end
  end
end
