defmodule DGM.FluxTest do
  use ExUnit.Case, async: true
  doctest DGM.Flux
  import DGM.Golden
  alias DGM.{Flux, Tensor}

  setup_all do
    [dev, schnell] =
      for name <- ["tiny_flux_dev", "tiny_flux"] do
        inputs = for part <- ~w(x t text pooled ids), do: read("#{name}.#{part}", "flux")
        {Flux.load!(path(name)), inputs, read("#{name}.out", "flux")}
      end

    opts = for key <- [:guidance, :text_ids], do: {key, read("tiny_flux_dev.#{key}", "flux")}
    {:ok, dev: dev, schnell: schnell, opts: opts}
  end

  defp forward(model, inputs, opts \\ []), do: apply(Flux, :forward, [model | inputs] ++ [opts])

  test "the outputs of diffusers", %{
    dev: {dev, inputs, want},
    schnell: {schnell, plain, out},
    opts: opts
  } do
    assert_close(forward(schnell, plain), out, 2.0e-6, 2.0e-6)
    out = forward(dev, inputs, opts)
    assert_close(out, want, 2.0e-6, 2.0e-6)
    listed = Keyword.update!(opts, :guidance, &Tensor.to_flat_list/1)
    assert forward(dev, List.update_at(inputs, 1, &Tensor.to_flat_list/1), listed) == out

    # The second image alone.
    half = fn %Tensor{data: data, shape: shape} ->
      bytes = div(byte_size(data), 2)

      %Tensor{
        data: binary_part(data, bytes, bytes),
        shape: put_elem(shape, 0, div(elem(shape, 0), 2))
      }
    end

    {batched, [ids]} = Enum.split(inputs, 4)
    alone = forward(dev, Enum.map(batched, half) ++ [ids], Keyword.update!(opts, :guidance, half))
    assert alone == half.(out)
  end

  test "config, inspect, bytes", %{dev: {dev, _, _}, schnell: {schnell, _, _}} do
    assert %{channels: 16, out_channels: 8, hidden: 24, axes: [2, 2, 4], guidance: true} =
             dev.config

    assert inspect(dev) == "#DGM.Flux<channels=16 depth=1+2 width=24 heads=3>"

    [weights, config] =
      for file <- ["diffusion_pytorch_model.safetensors", "config.json"],
          do: File.read!(path("tiny_flux/#{file}"))

    assert Flux.from_binary!(weights, config).config == schnell.config
    assert {:error, %DGM.Error{kind: :format}} = Flux.from_binary(weights, "{}")
    assert {:error, %DGM.Error{kind: :io}} = Flux.load("/no/such/folder")

    assert_raise DGM.Error, ~r"/no/such/folder/config.json", fn ->
      Flux.load!("/no/such/folder")
    end
  end

  test "wrong sizes and options", %{
    dev: {dev, inputs, _},
    schnell: {schnell, plain, _},
    opts: opts
  } do
    refuse = fn message, at, wrong ->
      bad = List.replace_at(inputs, at, wrong)
      assert_raise ArgumentError, message, fn -> forward(dev, bad, opts) end
    end

    [x, t, _text, pooled, ids] = inputs
    refuse.(~r/^x has shape/, 0, pooled)
    refuse.(~r/^x is nil/, 0, nil)
    refuse.(~r/^t has shape/, 1, [1])
    refuse.(~r/^text has/, 2, x)
    refuse.(~r/^pooled has/, 3, ids)
    refuse.(~r/^ids has/, 4, t)

    for {message, opts} <- [
          {~r/^guidance is missing/, []},
          {~r/^guidance has shape/, [guidance: [1]]},
          {~r/^text_ids has shape/, [guidance: [1, 1], text_ids: ids]},
          {~r/unknown keys/, [guide: 1]}
        ] do
      assert_raise ArgumentError, message, fn -> forward(dev, inputs, opts) end
    end

    assert_raise ArgumentError, ~r/^guidance is given/, fn ->
      forward(schnell, plain, guidance: [1, 1])
    end
  end
end
