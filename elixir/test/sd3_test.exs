defmodule DGM.SD3Test do
  use ExUnit.Case, async: true
  doctest DGM.SD3
  import DGM.Golden
  alias DGM.{SD3, Tensor}

  setup_all do
    inputs = for name <- ~w(x t text pooled), do: read("sd3.#{name}", "sd3")
    {:ok, model: SD3.load!(path("tiny_sd3")), inputs: inputs}
  end

  test "the outputs of diffusers", %{model: model, inputs: [x, t, text, pooled]} do
    out = SD3.forward(model, x, t, text, pooled)
    assert_close(out, read("sd3.out", "sd3"), 2.0e-6, 2.0e-6)
    assert SD3.forward(model, x, Tensor.to_flat_list(t), text, pooled) == out

    # The second image alone.
    half = fn %Tensor{data: data, shape: shape} ->
      bytes = div(byte_size(data), 2)
      %Tensor{data: binary_part(data, bytes, bytes), shape: put_elem(shape, 0, 1)}
    end

    [x, t, text, pooled] = Enum.map([x, t, text, pooled], half)
    assert SD3.forward(model, x, t, text, pooled) == half.(out)
  end

  test "config, inspect, bytes", %{model: model} do
    assert %{channels: 4, patch: 2, hidden: 24, depth: 2, heads: 3, text: 20} = model.config
    assert inspect(model) == "#DGM.SD3<channels=4 depth=2 width=24 heads=3>"

    [weights, config] =
      for file <- ["diffusion_pytorch_model.safetensors", "config.json"],
          do: File.read!(path("tiny_sd3/#{file}"))

    assert SD3.from_binary!(weights, config).config == model.config
    assert {:error, %DGM.Error{kind: :format}} = SD3.from_binary(weights, "{}")
    assert {:error, %DGM.Error{kind: :io}} = SD3.load("/no/such/folder")

    assert_raise DGM.Error, ~r"/no/such/folder/config.json", fn ->
      SD3.load!("/no/such/folder")
    end
  end

  test "wrong sizes", %{model: model, inputs: [x, t, text, pooled]} do
    odd = Tensor.new(List.duplicate(0.0, 2 * 4 * 5 * 6), {2, 4, 5, 6})

    assert_raise ArgumentError, ~r/^height is 5/, fn ->
      SD3.forward(model, odd, t, text, pooled)
    end

    assert_raise ArgumentError, ~r/^t has shape/, fn ->
      SD3.forward(model, x, [1], text, pooled)
    end

    assert_raise ArgumentError, ~r/^text has/, fn -> SD3.forward(model, x, t, x, pooled) end
    assert_raise ArgumentError, ~r/^x is nil/, fn -> SD3.forward(model, nil, t, text, pooled) end
  end
end
