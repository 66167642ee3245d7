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

  test "16-bit tensors have the bits of f32, rounded once" do
    x = DGM.Random.normal(DGM.Random.row_seeds(3, 6), 40)
    y = DGM.Random.normal(DGM.Random.row_seeds(4, 6), 40)
    w = Tensor.reshape(DGM.Random.normal(DGM.Random.row_seeds(5, 1), 40), {40})

    for type <- [{:f, 16}, {:bf, 16}] do
      [nx, ny, nw] = for t <- [x, y, w], do: Tensor.as_type(t, type)
      [fx, fy, fw] = for t <- [nx, ny, nw], do: Tensor.as_type(t, {:f, 32})
      images = &Tensor.reshape(&1, {1, 6, 4, 10})

      for f <- [
            fn x, _, w -> DGM.layer_norm(x, weight: w, bias: w) end,
            fn x, _, w -> DGM.rms_norm(x, weight: w) end,
            fn x, y, w -> elem(DGM.rms_norm_residual(x, y, weight: w), 0) end,
            fn x, _, _ -> DGM.group_norm(images.(x), 3, silu: true) end,
            fn x, _, _ -> DGM.silu(x) end,
            fn x, _, _ -> DGM.gelu(x, kind: :erf) end,
            fn x, y, _ -> DGM.swiglu(x, y) end,
            fn x, _, _ -> DGM.geglu(x) end,
            fn x, _, _ -> DGM.softmax(x) end,
            fn x, _, _ -> DGM.log_softmax(x) end,
            fn x, _, _ -> DGM.embedding(x, [5, 0]) end,
            fn x, y, _ -> DGM.cfg_combine(x, y, 2.5, rescale: 0.5) end,
            fn x, _, _ -> DGM.patchify(images.(x), 2) end,
            fn _, _, w -> DGM.timestep_embedding(w, 8) end
          ] do
        assert f.(nx, ny, nw) == Tensor.as_type(f.(fx, fy, fw), type)
      end

      # Each tensor for itself; the first decides the type of the result.
      assert DGM.swiglu(fx, ny) == DGM.swiglu(fx, fy)
    end
  end

  test "halves, sums and tables" do
    x = DGM.Random.normal(DGM.Random.row_seeds(3, 6), 40)
    [gate, up] = for part <- 0..1, do: columns(x, part * 20, 20)
    assert DGM.swiglu(x) == DGM.swiglu(gate, up)
    assert DGM.geglu(x, nil, kind: :erf) == DGM.geglu(gate, up, kind: :erf)
    {sum, out} = DGM.rms_norm_residual(gate, up)
    assert out == DGM.rms_norm(sum)
    {cos, sin} = DGM.rope_axial_tables(Tensor.new([[1, 3]]), [4, 2])
    {cos1, sin1} = DGM.rope_tables(4, 4)
    {cos2, _} = DGM.rope_tables(4, 2)
    assert columns(cos, 0, 2).data == binary_part(cos1.data, 8, 8)
    assert columns(sin, 0, 2).data == binary_part(sin1.data, 8, 8)
    assert columns(cos, 2, 1).data == binary_part(cos2.data, 12, 4)
  end

  defp columns(%Tensor{shape: {rows, width}} = x, first, count) do
    data =
      for r <- 0..(rows - 1), into: <<>> do
        binary_part(x.data, 4 * (r * width + first), 4 * count)
      end

    %{x | data: data, shape: {rows, count}}
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
      {~r/^residual has shape/, fn -> DGM.rms_norm_residual(x, bd) end},
      {~r/^residual is nil/, fn -> DGM.rms_norm_residual(x, nil) end},
      {~r/^groups is 0/, fn -> DGM.group_norm(x, 0) end},
      {~r/^groups is :a/, fn -> DGM.group_norm(x, :a) end},
      {~r/^x has shape/, fn -> DGM.group_norm(x, 3) end},
      {~r/^x has shape/, fn -> DGM.group_norm(d, 1) end},
      {~r/^weight has shape/, fn -> DGM.group_norm(x, 2, weight: bd) end},
      {~r/^silu is nil/, fn -> DGM.group_norm(x, 2, silu: nil) end},
      {~r/^gate is nil/, fn -> DGM.swiglu(nil) end},
      {~r/^gate has shape/, fn -> DGM.swiglu(Tensor.new([[1, 2, 3]])) end},
      {~r/^gate has shape/, fn -> DGM.swiglu(Tensor.new([1], {})) end},
      {~r/^up has shape/, fn -> DGM.swiglu(x, bd) end},
      {~r/^kind is relu/, fn -> DGM.geglu(x, x, kind: :relu) end},
      {~r/^x has shape \[\]/, fn -> DGM.softmax(Tensor.new([1], {})) end},
      {~r/^x is 1/, fn -> DGM.log_softmax(1) end},
      {~r/^indices is 1 /, fn -> DGM.embedding(bd, [0, 1]) end},
      {~r/^indices is -1 /, fn -> DGM.embedding(bd, [-1]) end},
      {~r/^indices is :a/, fn -> DGM.embedding(bd, [:a]) end},
      {~r/^table has shape/, fn -> DGM.embedding(x, [0]) end},
      {~r/^uncond has shape/, fn -> DGM.cfg_combine(x, bd, 2) end},
      {~r/^scale is 2000/, fn -> DGM.cfg_combine(x, x, 2000) end},
      {~r/^rescale is 2/, fn -> DGM.cfg_combine(x, x, 2, rescale: 2) end},
      {~r/^positions has shape/, fn -> DGM.rope_axial_tables(x, [2, 2]) end},
      {~r/^dims has shape/, fn -> DGM.rope_axial_tables(bd, [2]) end},
      {~r/^dims is 3/, fn -> DGM.rope_axial_tables(bd, [2, 3]) end},
      {~r/^dims is -2/, fn -> DGM.rope_axial_tables(bd, [2, -2]) end},
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
