defmodule DGMTest do
  use ExUnit.Case, async: true
  doctest DGM
  import DGM.Golden
  alias DGM.Tensor

  test "golden layer_norm and rms_norm" do
    [x, weight, bias] = for p <- ~w(x weight bias), do: read("layer_norm.#{p}")
    assert_close(DGM.layer_norm(x, eps: 1.0e-6), read("layer_norm.out"), 1.0e-5, 1.0e-6)
    out = DGM.layer_norm(x, weight: weight, bias: bias, eps: 1.0e-6)
    assert_close(out, read("layer_norm.affine_out"), 1.0e-5, 1.0e-6)
    [x, weight] = for p <- ~w(x weight), do: read("rms_norm.#{p}")
    assert_close(DGM.rms_norm(x), read("rms_norm.out"), 1.0e-5, 1.0e-6)
    assert_close(DGM.rms_norm(x, weight: weight), read("rms_norm.affine_out"), 1.0e-5, 1.0e-6)
  end

  test "golden modulate and gate_residual" do
    [x, shift, scale] = for p <- ~w(x shift scale), do: read("modulate.#{p}")
    assert_close(DGM.modulate(x, shift, scale), read("modulate.out"), 1.0e-6, 1.0e-6)
    [res, y, gate] = for p <- ~w(res y gate), do: read("gate_residual.#{p}")
    assert_close(DGM.gate_residual(res, y, gate), read("gate_residual.out"), 1.0e-6, 1.0e-6)
    fused = DGM.layer_norm_modulate(x, shift, scale, eps: 1.0e-6)
    assert fused == DGM.modulate(DGM.layer_norm(x, eps: 1.0e-6), shift, scale)
  end

  test "golden activations" do
    x = read("activation.x")
    assert_close(DGM.silu(x), read("silu.out"), 1.0e-6, 1.0e-30)
    assert_close(DGM.gelu(x), read("gelu_tanh.out"), 1.0e-4, 1.0e-6)
    assert_close(DGM.gelu(x, kind: :erf), read("gelu_erf.out"), 1.0e-4, 1.0e-6)
  end

  test "golden timestep_embedding" do
    t = read("timestep_embedding.t")
    out = DGM.timestep_embedding(t, 256)
    assert_close(out, read("timestep_embedding.out"), 1.0e-4, 1.0e-4)
    out = DGM.timestep_embedding(t, 32)
    assert_close(out, read("timestep_embedding.small_out"), 1.0e-4, 1.0e-4)
  end

  test "golden patchify and unpatchify are exact" do
    assert DGM.patchify(read("patchify.x"), 2) == read("patchify.out")
    out = DGM.unpatchify(read("unpatchify_head.tokens"), 2, {6, 10})
    assert out == read("unpatchify_head.out")
  end

  test "unaligned binaries, any rank" do
    x = read("layer_norm.x")
    <<_::8, shifted::binary>> = <<7>> <> x.data
    assert DGM.layer_norm(%{x | data: shifted}) == DGM.layer_norm(x)
    flat = Tensor.reshape(x, {480})
    assert DGM.silu(flat).data == DGM.silu(x).data
    assert DGM.layer_norm(Tensor.reshape(x, {5, 1, 96})).data == DGM.layer_norm(x).data
    assert DGM.silu(Tensor.new([0], {})).shape == {}
  end

  test "threads do not change bits" do
    before = DGM.num_threads()
    x = DGM.Random.normal(DGM.Random.row_seeds(1, 64), 100_000)

    [one | more] =
      for n <- [1, 2, 5] do
        DGM.set_num_threads(n)
        {DGM.silu(x), DGM.layer_norm(x)}
      end

    DGM.set_num_threads(before)
    assert Enum.all?(more, &(&1 == one))
  end

  test "versions" do
    assert DGM.version() == Mix.Project.config()[:version]
    assert DGM.numerics_version() >= 1
    assert DGM.isa() in ~w(avx512 avx2 neon portable)
    assert DGM.cpu_info() =~ "isa=#{DGM.isa()}"
  end

  test "wrong arguments" do
    x = Tensor.new([[[1, 2], [3, 4]]])
    bd = Tensor.new([[1, 2]])
    d = Tensor.new([1, 2])
    image = Tensor.new([[[[1, 2], [3, 4]]]])

    wrong = [
      {~r/^threads is nil/, fn -> DGM.set_num_threads(nil) end},
      {~r/^threads is 1025/, fn -> DGM.set_num_threads(1025) end},
      {~r/^x is nil/, fn -> DGM.layer_norm(nil) end},
      {~r/^x has shape \[\]/, fn -> DGM.layer_norm(Tensor.new([1], {})) end},
      {~r/^weight has shape/, fn -> DGM.layer_norm(x, weight: bd) end},
      {~r/^weight has shape/, fn -> DGM.layer_norm(x, weight: Tensor.new([1])) end},
      {~r/^bias is 1/, fn -> DGM.layer_norm(x, bias: 1) end},
      {~r/^eps is nil/, fn -> DGM.layer_norm(x, eps: nil) end},
      {~r/^eps is -1/, fn -> DGM.layer_norm(x, eps: -1) end},
      {~r/^x is nil/, fn -> DGM.rms_norm(nil) end},
      {~r/^weight has shape/, fn -> DGM.rms_norm(x, weight: bd) end},
      {~r/^eps is "1"/, fn -> DGM.rms_norm(x, eps: "1") end},
      {~r/^x is nil/, fn -> DGM.modulate(nil, bd, bd) end},
      {~r/^x has shape \[1, 2\]/, fn -> DGM.modulate(bd, bd, bd) end},
      {~r/^shift has shape/, fn -> DGM.modulate(x, d, bd) end},
      {~r/^scale is nil/, fn -> DGM.modulate(x, bd, nil) end},
      {~r/^scale has shape/, fn -> DGM.layer_norm_modulate(x, bd, Tensor.new([[1]])) end},
      {~r/^eps is :x/, fn -> DGM.layer_norm_modulate(x, bd, bd, eps: :x) end},
      {~r/^residual is nil/, fn -> DGM.gate_residual(nil, x, bd) end},
      {~r/^y has shape/, fn -> DGM.gate_residual(x, bd, bd) end},
      {~r/^gate has shape/, fn -> DGM.gate_residual(x, x, d) end},
      {~r/^x is 1/, fn -> DGM.silu(1) end},
      {~r/^x is nil/, fn -> DGM.gelu(nil) end},
      {~r/^kind is relu/, fn -> DGM.gelu(x, kind: :relu) end},
      {~r/^t is nil/, fn -> DGM.timestep_embedding(nil, 4) end},
      {~r/^t has shape/, fn -> DGM.timestep_embedding(bd, 4) end},
      {~r/^dim is "4"/, fn -> DGM.timestep_embedding(d, "4") end},
      {~r/odd|even/, fn -> DGM.timestep_embedding(d, 3) end},
      {~r/^dim is too large/, fn -> DGM.timestep_embedding(d, 0x7FFFFFFFFFFFFFFF) end},
      {~r/^max_period is/, fn -> DGM.timestep_embedding(d, 4, max_period: nil) end},
      {~r/^x is nil/, fn -> DGM.patchify(nil, 2) end},
      {~r/^x has shape/, fn -> DGM.patchify(x, 2) end},
      {~r/^patch is 0/, fn -> DGM.patchify(image, 0) end},
      {~r/^patch is nil/, fn -> DGM.patchify(image, nil) end},
      {~r/^x has shape|^patch is 3/, fn -> DGM.patchify(image, 3) end},
      {~r/^patch is too large/, fn -> DGM.patchify(image, 0x7FFFFFFFFFFFFFFF) end},
      {~r/^x is nil/, fn -> DGM.unpatchify(nil, 2, {2, 2}) end},
      {~r/^size is nil/, fn -> DGM.unpatchify(x, 2, nil) end},
      {~r/^height is -1/, fn -> DGM.unpatchify(x, 2, {-1, 2}) end},
      {~r/^patch is 0/, fn -> DGM.unpatchify(x, 0, {2, 2}) end},
      {~r/^x has shape/, fn -> DGM.unpatchify(x, 2, {2, 2}) end},
      {~r/too large/, fn -> DGM.unpatchify(x, 1, {0x7FFFFFFFFFFFFFFF, 2}) end}
    ]

    for {message, function} <- wrong, do: assert_raise(ArgumentError, message, function)
  end
end
