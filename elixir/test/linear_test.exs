defmodule DGM.LinearTest do
  use ExUnit.Case, async: true
  doctest DGM.Linear
  import DGM.Golden
  alias DGM.{Linear, Tensor}

  for name <- ~w(small odd wide) do
    test "golden #{name}" do
      [x, weight, bias] = for p <- ~w(x weight bias), do: read("linear.#{unquote(name)}.#{p}")
      out = Linear.forward(Linear.pack(weight, bias), x)
      assert_close(out, read("linear.#{unquote(name)}.out"), 1.0e-5, 1.0e-5)
      out = Linear.forward(Linear.pack(weight), x)
      assert_close(out, read("linear.#{unquote(name)}.nobias_out"), 1.0e-5, 1.0e-5)
    end
  end

  for activation <- [:silu, :gelu_tanh] do
    test "golden #{activation}" do
      [x, weight, bias] = for p <- ~w(x weight bias), do: read("linear.activation.#{p}")
      out = Linear.forward(Linear.pack(weight, bias), x, activation: unquote(activation))
      assert_close(out, read("linear.#{unquote(activation)}.out"), 1.0e-5, 1.0e-5)
    end
  end

  test "leading dimensions are rows" do
    layer = Linear.pack(read("linear.small.weight"), read("linear.small.bias"))
    x = read("linear.small.x")
    flat = Linear.forward(layer, x)
    assert Linear.forward(layer, Tensor.reshape(x, {3, 1, 8})) == Tensor.reshape(flat, {3, 1, 16})
    assert Linear.forward(layer, Tensor.new(<<>>, {0, 8})).shape == {0, 16}
  end

  test "many processes share a layer" do
    layer = Linear.pack(read("linear.wide.weight"), read("linear.wide.bias"))
    x = read("linear.wide.x")
    expected = Linear.forward(layer, x)

    1..64
    |> Task.async_stream(fn _ -> Linear.forward(layer, x) end, max_concurrency: 16)
    |> Enum.each(fn {:ok, out} -> assert out == expected end)
  end

  test "wrong arguments" do
    w = Tensor.new([[1, 2]])
    layer = Linear.pack(w)
    assert inspect(layer) == "#DGM.Linear<2 -> 1>"

    assert_raise ArgumentError, ~r/^type is :f16, expected one of/, fn ->
      Linear.forward(layer, w, type: :f16)
    end

    wrong = [
      {~r/^weight is nil/, &Linear.pack/1, [nil]},
      {~r/^weight has shape \[2\]/, &Linear.pack/1, [Tensor.new([1, 2])]},
      {~r/^bias has shape \[2\]/, &Linear.pack/2, [w, Tensor.new([1, 2])]},
      {~r/^bias is 3/, &Linear.pack/2, [w, 3]},
      {~r/^linear is nil/, &Linear.forward/2, [nil, w]},
      {~r/^x is nil/, &Linear.forward/2, [layer, nil]},
      {~r/^x has shape \[1, 3\]/, &Linear.forward/2, [layer, Tensor.new([[1, 2, 3]])]},
      {~r/^x has shape \[\]/, &Linear.forward/2, [layer, Tensor.new([1], {})]},
      {~r/^activation is relu/, &Linear.forward/3, [layer, w, [activation: :relu]]},
      {~r/^activation is nil/, &Linear.forward/3, [layer, w, [activation: nil]]}
    ]

    for {message, function, args} <- wrong do
      assert_raise ArgumentError, message, fn -> apply(function, args) end
    end
  end
end
