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

  test "gate and residual are those of gate_residual" do
    [x, weight, bias] = for p <- ~w(x weight bias), do: read("linear.small.#{p}")
    layer = Linear.pack(weight, bias)
    x = Tensor.reshape(x, {1, 3, 8})
    stream = Tensor.new(for i <- 1..48, do: i / 7) |> Tensor.reshape({1, 3, 16})
    gate = Tensor.new([for(i <- 1..16, do: 1 / i)])
    want = DGM.gate_residual(stream, Linear.forward(layer, x), gate)
    assert Linear.forward(layer, x, gate: gate, residual: stream) == want

    # The residual of one row repeats, and each row of the gate is for its rows.
    first = Linear.forward(layer, x, residual: Tensor.reshape(gate, {16}))
    ones = Tensor.new([List.duplicate(1, 16)])
    repeated = Tensor.new([List.duplicate(Enum.map(1..16, &(1 / &1)), 3)])
    assert first == DGM.gate_residual(repeated, Linear.forward(layer, x), ones)
    narrow = Linear.forward(layer, x, gate: gate, residual: stream, type: {:bf, 16})
    assert narrow == Tensor.as_type(want, {:bf, 16})
  end

  test "gated layers are those of swiglu and geglu" do
    [x, weight, bias] = for p <- ~w(x weight bias), do: read("linear.small.#{p}")
    up = Tensor.new(for i <- 1..128, do: :math.sin(i)) |> Tensor.reshape({16, 8})
    layer = Linear.pack_gated(weight, up, gate_bias: bias)
    halves = {Linear.forward(Linear.pack(weight, bias), x), Linear.forward(Linear.pack(up), x)}
    {a, b} = halves
    assert Linear.forward(layer, x, activation: :silu) == DGM.swiglu(a, b)
    assert Linear.forward(layer, x, activation: :gelu_tanh) == DGM.geglu(a, b)
    assert inspect(layer) == "#DGM.Linear<8 -> 16>"
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
      {~r/^gate has shape \[2, 1\], expected \[a divisor of 1, 1\]/, &Linear.forward/3,
       [layer, w, [gate: Tensor.new([[1], [2]])]]},
      {~r/^residual has shape \[1, 2\]/, &Linear.forward/3, [layer, w, [residual: w]]},
      {~r/^gate is 1/, &Linear.forward/3, [layer, w, [gate: 1]]},
      {~r/^up is nil/, &Linear.pack_gated/2, [w, nil]},
      {~r/^up has shape \[2, 1\]/, &Linear.pack_gated/2, [w, Tensor.new([[1], [2]])]},
      {~r/^up has dtype bf16/, &Linear.pack_gated/2, [w, Tensor.as_type(w, {:bf, 16})]},
      {~r/^up_bias has shape \[2\]/, &Linear.pack_gated/3, [w, w, [up_bias: Tensor.new([1, 2])]]},
      {~r/^activation is relu/, &Linear.forward/3, [layer, w, [activation: :relu]]},
      {~r/^activation is nil/, &Linear.forward/3, [layer, w, [activation: nil]]}
    ]

    for {message, function, args} <- wrong do
      assert_raise ArgumentError, message, fn -> apply(function, args) end
    end
  end
end
