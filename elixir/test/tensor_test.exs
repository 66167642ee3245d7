defmodule DGM.TensorTest do
  use ExUnit.Case, async: true
  doctest DGM.Tensor

  alias DGM.Tensor

  test "values that floats lack survive the round trip" do
    list = [:nan, :infinity, :neg_infinity, -0.0, 1.5]
    assert Tensor.to_flat_list(Tensor.new(list)) == list
  end

  test "shapes with zeros" do
    assert Tensor.new([]).shape == {0}
    assert Tensor.to_list(Tensor.new(<<>>, {2, 0})) == [[], []]
    assert Tensor.to_list(Tensor.new(<<>>, {0, 2})) == []
  end

  test "a scalar has the empty shape" do
    assert Tensor.to_list(Tensor.new([3], {})) == 3.0
  end

  test "ragged lists, wrong sizes and wrong types are refused" do
    assert_raise ArgumentError, ~r/lists of equal lengths/, fn -> Tensor.new([[1], [1, 2]]) end
    assert_raise ArgumentError, ~r/lists of equal lengths/, fn -> Tensor.new([1, :x]) end
    assert_raise ArgumentError, ~r/list is nil/, fn -> Tensor.new(nil) end
    assert_raise ArgumentError, ~r/data has 4 bytes/, fn -> Tensor.new(<<0::32>>, {2}) end
    assert_raise ArgumentError, ~r/shape is \[1\]/, fn -> Tensor.new(<<0::32>>, [1]) end
    assert_raise ArgumentError, ~r/dimension of data is -1/, fn -> Tensor.new(<<>>, {-1}) end
    assert_raise ArgumentError, ~r/data is nil/, fn -> Tensor.new(nil, {1}) end
  end

  test "inspect shows type, shape and the first elements" do
    assert inspect(Tensor.new([[1, 2]])) == "#DGM.Tensor<f32[1][2] 1.0 2.0>"
    assert inspect(Tensor.new(Enum.to_list(1..9))) =~ "8.0 ...>"
    assert inspect(%Tensor{data: nil, shape: 3}) =~ "data: nil"
  end
end
