defmodule DGM.DitTest do
  use ExUnit.Case, async: true
  doctest DGM.Dit
  import DGM.Golden
  alias DGM.{Dit, Plan, Random, Sampler, Tensor}

  @digits Path.expand("../../models/digits.safetensors", __DIR__)

  setup_all do
    {:ok, model: Dit.load!(@digits), tiny: Dit.load!(path("tiny_dit.safetensors"))}
  end

  test "golden forward, both models", %{model: model, tiny: tiny} do
    for {model, name} <- [{model, "digits"}, {tiny, "tiny"}] do
      [x, t, labels] = for p <- ~w(x t labels), do: read("dit.#{name}.#{p}")
      out = Dit.forward(model, x, t, labels)
      assert_close(out, read("dit.#{name}.out"), 1.0e-3, 2.0e-4)
      # The bare binary of a run and a list of times give the same bits.
      assert Dit.forward(model, x.data, t.data, labels) == out.data
      assert Dit.forward(model, x, Tensor.to_flat_list(t), labels) == out
    end
  end

  test "golden generation", %{model: model} do
    x = read("dit.digits.noise")
    labels = read("dit.digits.sample_labels")
    rows = elem(x.shape, 0)
    null = List.duplicate(model.config.null_label, rows)
    guided = [solver: :euler, steps: 16, guidance: 2, shift: 1.5]

    for {name, opts} <- [sample: [], guided_sample: guided] do
      plan = Plan.compile(Keyword.merge(Dit.plan_options(model), opts))

      got =
        Sampler.sample(
          plan,
          Random.row_seeds(0, rows),
          model.config.elements,
          fn request, x, t ->
            Dit.forward(model, x, t, if(request.role == :uncond, do: null, else: labels))
          end,
          x: x
        )

      assert_close(Tensor.reshape(got, x.shape), read("dit.digits.#{name}"), 1.0e-2, 5.0e-3)
    end
  end

  test "an image depends on its seed and label alone", %{model: model} do
    plan = Plan.compile(Keyword.put(Dit.plan_options(model), :steps, 3))
    seeds = Random.row_seeds(11, 6)
    labels = [0, 1, 2, 3, 4, 5]
    all = Dit.generate(model, plan, seeds, labels)

    alone =
      for {s, l} <- Enum.zip(seeds, labels),
          into: <<>>,
          do: Dit.generate(model, plan, [s], [l]).data

    assert all.data == alone
  end

  test "many processes share a model", %{model: model} do
    [x, t, labels] = for p <- ~w(x t labels), do: read("dit.digits.#{p}")
    expected = Dit.forward(model, x, t, labels)

    1..64
    |> Task.async_stream(fn _ -> Dit.forward(model, x, t, labels) end,
      max_concurrency: 16,
      timeout: 60_000
    )
    |> Enum.each(fn {:ok, out} -> assert out == expected end)
  end

  test "config, metadata, inspect", %{model: model} do
    assert %{channels: 1, height: 8, width: 8, elements: 64, null_label: 10} = model.config
    assert model.metadata["dgm.format"] == "dit"
    assert Dit.plan_options(model)[:process] == :flow
    assert inspect(model) =~ "#DGM.Dit<1x8x8 classes=10"
  end

  test "files that are no model" do
    assert {:error, %DGM.Error{kind: :io, message: text}} = Dit.load("/no/such/file")
    assert text =~ "/no/such/file"
    assert_raise DGM.Error, ~r"/no/such/file", fn -> Dit.load!("/no/such/file") end
    assert {:error, %DGM.Error{kind: :format}} = Dit.from_binary("not a model")
    bytes = File.read!(@digits)
    short = binary_part(bytes, 0, div(byte_size(bytes), 2))
    assert {:error, %DGM.Error{kind: :format}} = Dit.from_binary(short)
    assert_raise DGM.Error, fn -> Dit.from_binary!(short) end
    assert Dit.from_binary!(bytes).config.elements == 64
  end

  test "wrong arguments", %{model: model} do
    x = Tensor.new(List.duplicate(0.0, 128), {2, 1, 8, 8})
    plan = Plan.compile()

    wrong = [
      {~r/^path is nil/, fn -> Dit.load(nil) end},
      {~r/^path is 3/, fn -> Dit.load!(3) end},
      {~r/^bytes is nil/, fn -> Dit.from_binary(nil) end},
      {~r/^model is nil/, fn -> Dit.forward(nil, x, [0, 0], [1, 1]) end},
      {~r/^model is nil/, fn -> Dit.plan_options(nil) end},
      {~r/^x is nil/, fn -> Dit.forward(model, nil, [0, 0], [1, 1]) end},
      {~r/^x has shape \[128\]/,
       fn -> Dit.forward(model, Tensor.reshape(x, {128}), [0, 0], [1, 1]) end},
      {~r/^x has shape/,
       fn -> Dit.forward(model, binary_part(x.data, 0, 256), [0, 0], [1, 1]) end},
      {~r/^t is nil/, fn -> Dit.forward(model, x, nil, [1, 1]) end},
      {~r/^t has shape \[1\]/, fn -> Dit.forward(model, x, [0], [1, 1]) end},
      {~r/^t is NaN in row 1/, fn -> Dit.forward(model, x, [0, :nan], [1, 1]) end},
      {~r/^labels is nil/, fn -> Dit.forward(model, x, [0, 0], nil) end},
      {~r/^labels is :a/, fn -> Dit.forward(model, x, [0, 0], [1, :a]) end},
      {~r/^labels is 11 in row 1/, fn -> Dit.forward(model, x, [0, 0], [1, 11]) end},
      {~r/^labels is -1 in row 0/, fn -> Dit.forward(model, x, [0, 0], [-1, 1]) end},
      {~r/^labels has shape \[1\]/, fn -> Dit.generate(model, plan, [1, 2], [1]) end},
      {~r/^model is nil/, fn -> Dit.generate(nil, plan, [1], [1]) end},
      {~r/^plan is nil/, fn -> Dit.generate(model, nil, [1], [1]) end},
      {~r/^seeds is nil/, fn -> Dit.generate(model, plan, nil, [1]) end}
    ]

    for {message, function} <- wrong, do: assert_raise(ArgumentError, message, function)
  end
end
