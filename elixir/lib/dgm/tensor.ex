defmodule DGM.Tensor do
  @moduledoc """
  A tensor: a binary in native byte order, row-major, its shape and its type, `{:f, 32}` as a rule.

      iex> t = DGM.Tensor.new([[1, 2, 3], [4, 5, 6]])
      iex> t.shape
      {2, 3}
      iex> DGM.Tensor.to_list(t)
      [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

  Every kernel takes these or `Nx` tensors of type `f32` and returns the kind that it was
  given; attention, its caches, norms and the other functions of `DGM` also take `{:f, 16}` and `{:bf, 16}`
  (`as_type/2`). An `Nx` tensor costs one copy in each direction; a `DGM.Tensor` none, unless its
  binary starts at an address that is not a multiple of four bytes (a slice of another binary
  may), which costs one.
  """

  @enforce_keys [:data, :shape]
  defstruct [:data, :shape, type: {:f, 32}]

  @type t :: %__MODULE__{data: binary, shape: tuple, type: type}

  @typedoc "Element types; which of them a function takes is in its documentation."
  @type type :: {:f, 32} | {:f, 16} | {:bf, 16} | {:s, 8} | {:u, 8}

  @typedoc "What kernels accept: a `DGM.Tensor` or an `Nx.Tensor` of type `f32`."
  @type input :: t | struct

  @compile {:no_warn_undefined, Nx}

  import Bitwise

  # Types as the engine calls them.
  @names %{
    {:f, 32} => "f32",
    {:f, 16} => "f16",
    {:bf, 16} => "bf16",
    {:s, 8} => "i8",
    {:u, 8} => "u8"
  }
  @floats [{:f, 32}, {:f, 16}, {:bf, 16}]

  @doc """
  Makes a tensor from a nested list of numbers, its shape read from the nesting.

      iex> DGM.Tensor.new([1, 2]).shape
      {2}
  """
  @spec new(list) :: t
  def new(list) when is_list(list) do
    shape = nesting(list)
    %__MODULE__{data: IO.iodata_to_binary(encode(list, shape)), shape: List.to_tuple(shape)}
  end

  def new(other), do: DGM.Check.fail("list", other, "a nested list of numbers")

  @doc """
  Makes a tensor of the given shape from a binary of native f32 values or a flat list.

      iex> DGM.Tensor.new(<<1.0::float-32-native, 2.0::float-32-native>>, {2, 1}).shape
      {2, 1}
  """
  @spec new(binary | [number], tuple) :: t
  def new(data, shape) when is_tuple(shape) do
    data = if is_list(data), do: new(data).data, else: data
    is_binary(data) || DGM.Check.fail("data", data, "a binary or a list of numbers")
    tensor = %__MODULE__{data: data, shape: shape}
    native(tensor, "data")

    if byte_size(data) == 4 * Tuple.product(shape) do
      tensor
    else
      raise ArgumentError,
            "data has #{byte_size(data)} bytes, expected f32 values of shape #{inspect(shape)}"
    end
  end

  def new(_data, shape), do: DGM.Check.fail("shape", shape, "a tuple of non-negative integers")

  @doc """
  Makes a mask for `DGM.attention/4`: a tensor of bytes, from a flat list of booleans.

      iex> DGM.Tensor.mask([true, false, true], {1, 1, 1, 3}).data
      <<1, 0, 1>>
  """
  @spec mask([boolean], tuple) :: t
  def mask(list, shape) when is_tuple(shape) do
    data =
      for x <- DGM.Check.booleans(list, "mask"), into: <<>>, do: if(x, do: <<1>>, else: <<0>>)

    tensor = %__MODULE__{data: data, shape: shape, type: {:u, 8}}
    {_, dims} = native_mask(tensor, "mask")

    if byte_size(data) == Enum.product(dims) do
      tensor
    else
      raise ArgumentError,
            "mask has #{byte_size(data)} elements, expected those of #{inspect(shape)}"
    end
  end

  def mask(_list, shape), do: DGM.Check.fail("shape", shape, "a tuple of non-negative integers")

  @doc """
  Makes a tensor of any type from a binary in native byte order.

      iex> DGM.Tensor.from_binary(<<1::16-native, 2::16-native>>, {2}, {:f, 16}).type
      {:f, 16}
  """
  @spec from_binary(binary, tuple, type) :: t
  def from_binary(data, shape, type) do
    is_binary(data) || DGM.Check.fail("data", data, "a binary")
    is_tuple(shape) || DGM.Check.fail("shape", shape, "a tuple of non-negative integers")

    is_map_key(@names, type) ||
      DGM.Check.fail("type", type, "one of #{inspect(Map.keys(@names))}")

    dims = shape |> Tuple.to_list() |> Enum.map(&DGM.Check.count(&1, "a dimension of data"))
    {_, bits} = type

    if byte_size(data) == div(bits, 8) * Enum.product(dims) do
      %__MODULE__{data: data, shape: shape, type: type}
    else
      raise ArgumentError,
            "data has #{byte_size(data)} bytes, expected #{@names[type]} values of shape #{inspect(shape)}"
    end
  end

  @doc """
  An f32 tensor as `{:f, 16}` or `{:bf, 16}`, rounded to the nearest (ties to even), or one of these
  as `{:f, 32}`, exactly.

      iex> half = DGM.Tensor.as_type(DGM.Tensor.new([1, 0.1]), {:bf, 16})
      iex> DGM.Tensor.to_list(half)
      [1.0, 0.10009765625]
  """
  @spec as_type(t, type) :: t
  def as_type(%__MODULE__{type: type} = tensor, type), do: tensor

  def as_type(%__MODULE__{data: data, type: from} = tensor, type)
      when type in [{:f, 32}, {:f, 16}, {:bf, 16}] and from in [{:f, 32}, {:f, 16}, {:bf, 16}] do
    singles = singles(data, from)
    %{tensor | data: narrowed(singles, type), type: type}
  end

  def as_type(%__MODULE__{}, type),
    do: DGM.Check.fail("type", type, "{:f, 32}, {:f, 16} or {:bf, 16}")

  def as_type(other, _type), do: DGM.Check.fail("tensor", other, "a %DGM.Tensor{}")

  # The bits of f32 numbers.
  defp singles(data, {:f, 32}), do: data

  defp singles(data, {:bf, 16}) do
    for <<x::16-native <- data>>, into: <<>>, do: <<x <<< 16::32-native>>
  end

  defp singles(data, {:f, 16}) do
    for <<x::16-native <- data>>, into: <<>>, do: <<from_half(x)::32-native>>
  end

  defp narrowed(data, {:f, 32}), do: data

  defp narrowed(data, {:bf, 16}) do
    for <<x::32-native <- data>>, into: <<>> do
      nan = (x &&& 0x7FFFFFFF) > 0x7F800000
      bits = if nan, do: x >>> 16 ||| 0x40, else: (x + 0x7FFF + (x >>> 16 &&& 1)) >>> 16
      <<bits::16-native>>
    end
  end

  defp narrowed(data, {:f, 16}) do
    for <<x::32-native <- data>>, into: <<>>, do: <<to_half(x)::16-native>>
  end

  defp from_half(x) do
    {sign, exponent, fraction} = {(x &&& 0x8000) <<< 16, x >>> 10 &&& 0x1F, x &&& 0x3FF}

    cond do
      exponent == 0x1F ->
        sign ||| 0x7F800000 ||| fraction <<< 13

      exponent == 0 ->
        # A subnormal is a whole number of 2^-24.
        <<bits::32>> = <<fraction * 5.960464477539063e-8::float-32>>
        sign ||| bits

      true ->
        sign ||| (exponent + 112) <<< 23 ||| fraction <<< 13
    end
  end

  defp to_half(x) do
    {sign, magnitude} = {x >>> 16 &&& 0x8000, x &&& 0x7FFFFFFF}

    cond do
      magnitude > 0x7F800000 ->
        sign ||| 0x7E00

      # 65520 and above round to infinity.
      magnitude >= 0x477FF000 ->
        sign ||| 0x7C00

      # Below 2^-14 the result is a whole number of 2^-24.
      magnitude < 0x38800000 ->
        shift = min(126 - (magnitude >>> 23), 31)
        sign ||| round_shift((magnitude &&& 0x7FFFFF) ||| 0x800000, shift)

      true ->
        sign ||| round_shift(magnitude - (112 <<< 23), 13)
    end
  end

  # Right shift, to the nearest, ties to even.
  defp round_shift(x, shift) do
    {whole, rest, half} = {x >>> shift, x &&& (1 <<< shift) - 1, 1 <<< (shift - 1)}
    if rest > half or (rest == half and (whole &&& 1) == 1), do: whole + 1, else: whole
  end

  @doc """
  The same elements under another shape, without a copy.

      iex> DGM.Tensor.new([1, 2, 3, 4]) |> DGM.Tensor.reshape({2, 2}) |> DGM.Tensor.to_list()
      [[1.0, 2.0], [3.0, 4.0]]
  """
  @spec reshape(t, tuple) :: t
  def reshape(%__MODULE__{data: data, type: {:f, 32}}, shape), do: new(data, shape)
  def reshape(%__MODULE__{data: data, type: type}, shape), do: from_binary(data, shape, type)
  def reshape(other, _shape), do: DGM.Check.fail("tensor", other, "a %DGM.Tensor{}")

  @doc """
  The elements as a flat list; values that Elixir's floats lack are `:infinity`,
  `:neg_infinity` and `:nan`.

      iex> DGM.Tensor.to_flat_list(DGM.Tensor.new([[1, 2]]))
      [1.0, 2.0]
  """
  @spec to_flat_list(t) :: [float | :infinity | :neg_infinity | :nan]
  def to_flat_list(%__MODULE__{data: data, type: type}) when type in @floats,
    do: data |> singles(type) |> decode()

  def to_flat_list(%__MODULE__{data: data, type: {:s, 8}}),
    do: for(<<x::signed-8 <- data>>, do: x)

  def to_flat_list(%__MODULE__{data: data, type: {:u, 8}}), do: :binary.bin_to_list(data)
  def to_flat_list(other), do: DGM.Check.fail("tensor", other, "a %DGM.Tensor{}")

  @doc """
  The elements as lists nested like the shape.
  """
  @spec to_list(t) :: list | float | atom
  def to_list(%__MODULE__{shape: shape} = tensor) do
    nest(to_flat_list(tensor), Tuple.to_list(shape))
  end

  def to_list(other), do: DGM.Check.fail("tensor", other, "a %DGM.Tensor{}")

  # --- between the caller's kind and the NIF's {binary, dims} ---

  @doc false
  def native(%__MODULE__{data: data, shape: shape, type: {:f, 32}}, name)
      when is_binary(data) and is_tuple(shape) do
    {data, shape |> Tuple.to_list() |> Enum.map(&DGM.Check.count(&1, "a dimension of #{name}"))}
  end

  def native(%__MODULE__{type: type}, name) when type != {:f, 32},
    do: wrong_type(name, type)

  def native(%{__struct__: Nx.Tensor} = tensor, name) do
    case Nx.type(tensor) do
      {:f, 32} -> {Nx.to_binary(tensor), Tuple.to_list(Nx.shape(tensor))}
      type -> wrong_type(name, type)
    end
  end

  def native(other, name), do: DGM.Check.fail(name, other, "a DGM.Tensor or an Nx tensor")

  @doc false
  # {binary, dims, type} for what takes several types.
  def typed(tensor, name, types \\ @floats)

  def typed(%__MODULE__{data: data, shape: shape, type: type}, name, types)
      when is_binary(data) and is_tuple(shape) do
    type in types || wrong_type(name, type, Enum.map_join(types, " or ", &@names[&1]))
    dims = shape |> Tuple.to_list() |> Enum.map(&DGM.Check.count(&1, "a dimension of #{name}"))
    {data, dims, @names[type]}
  end

  def typed(%{__struct__: Nx.Tensor} = tensor, name, types) do
    type = Nx.type(tensor)
    type in types || wrong_type(name, type, Enum.map_join(types, " or ", &@names[&1]))
    {Nx.to_binary(tensor), Tuple.to_list(Nx.shape(tensor)), @names[type]}
  end

  def typed(other, name, _types),
    do: DGM.Check.fail(name, other, "a DGM.Tensor or an Nx tensor")

  @doc false
  def typed_or_nil(tensor, name, types \\ [{:f, 32}])
  def typed_or_nil(nil, _name, _types), do: nil
  def typed_or_nil(tensor, name, types), do: typed(tensor, name, types)

  @doc false
  # One of the three types of floats, or nothing.
  def floats_or_nil(tensor, name), do: typed_or_nil(tensor, name, @floats)

  @doc false
  # A result in the kind of `input`, of its type unless another is given.
  def like_typed(input, result, type \\ nil)

  def like_typed(%{__struct__: Nx.Tensor} = input, {data, shape}, type) do
    data |> Nx.from_binary(type || Nx.type(input)) |> Nx.reshape(shape)
  end

  def like_typed(%__MODULE__{type: own}, {data, shape}, type),
    do: %__MODULE__{data: data, shape: shape, type: type || own}

  @doc false
  # The name of a floating-point type.
  def float_name(type, _name) when type in @floats, do: @names[type]
  def float_name(type, name), do: DGM.Check.fail(name, type, "one of #{inspect(@floats)}")

  @doc false
  def native_mask(%__MODULE__{data: data, shape: shape, type: {:u, 8}}, name)
      when is_binary(data) and is_tuple(shape) do
    {data, shape |> Tuple.to_list() |> Enum.map(&DGM.Check.count(&1, "a dimension of #{name}"))}
  end

  def native_mask(%{__struct__: Nx.Tensor} = tensor, name) do
    case Nx.type(tensor) do
      {:u, 8} -> {Nx.to_binary(tensor), Tuple.to_list(Nx.shape(tensor))}
      type -> wrong_type(name, type, "u8")
    end
  end

  def native_mask(%__MODULE__{type: type}, name), do: wrong_type(name, type, "u8")
  def native_mask(other, name), do: DGM.Check.fail(name, other, "a DGM.Tensor or an Nx tensor")

  @doc false
  def native_or_nil(nil, _name), do: nil
  def native_or_nil(tensor, name), do: native(tensor, name)

  @doc false
  def like(%{__struct__: Nx.Tensor}, {data, shape}) do
    data |> Nx.from_binary({:f, 32}) |> Nx.reshape(shape)
  end

  def like(_input, {data, shape}), do: %__MODULE__{data: data, shape: shape}

  @doc false
  # The bare elements of a tensor, an Nx tensor or a binary.
  def bytes(data, _name) when is_binary(data), do: data
  def bytes(tensor, name), do: tensor |> native(name) |> elem(0)

  @doc false
  def decode(data) do
    for <<four::binary-size(4) <- data>> do
      case four do
        <<x::float-32-native>> -> x
        <<0x7F800000::32-native>> -> :infinity
        <<0xFF800000::32-native>> -> :neg_infinity
        _ -> :nan
      end
    end
  end

  defp wrong_type(name, type, expected \\ "f32") do
    text =
      case type do
        {kind, bits} when is_atom(kind) and is_integer(bits) -> "#{kind}#{bits}"
        other -> inspect(other)
      end

    raise ArgumentError, "#{name} has dtype #{text}, expected #{expected}"
  end

  defp nesting([first | _] = list), do: [length(list) | nesting(first)]
  defp nesting([]), do: [0]
  defp nesting(_), do: []

  defp encode(list, [length | rest]) when is_list(list) and length(list) == length,
    do: Enum.map(list, &encode(&1, rest))

  defp encode(x, []) when is_number(x), do: <<x::float-32-native>>
  defp encode(:infinity, []), do: <<0x7F800000::32-native>>
  defp encode(:neg_infinity, []), do: <<0xFF800000::32-native>>
  defp encode(:nan, []), do: <<0x7FC00000::32-native>>

  defp encode(other, _),
    do: DGM.Check.fail("list", other, "numbers in lists of equal lengths")

  defp nest([x], []), do: x
  defp nest(list, [_]), do: list
  defp nest(_list, [0 | _]), do: []

  defp nest(list, [outer | rest]) do
    case div(length(list), outer) do
      0 -> List.duplicate(nest([], rest), outer)
      size -> list |> Enum.chunk_every(size) |> Enum.map(&nest(&1, rest))
    end
  end

  defimpl Inspect do
    import Inspect.Algebra

    @shown 8

    def inspect(%{data: data, shape: shape} = tensor, opts)
        when is_binary(data) and is_tuple(shape) do
      dims = for d <- Tuple.to_list(shape), do: "[#{Kernel.inspect(d)}]"
      {kind, bits} = tensor.type
      size = div(bits, 8)
      shown = min(byte_size(data), size * @shown)
      first = %{tensor | data: binary_part(data, 0, shown - rem(shown, size))}
      items = DGM.Tensor.to_flat_list(first)
      more = if byte_size(data) > size * @shown, do: ["..."], else: []
      text = Enum.map(items, &to_doc(&1, opts)) ++ more

      concat([
        "#DGM.Tensor<#{kind}#{bits}",
        Enum.join(dims),
        " ",
        concat(Enum.intersperse(text, " ")),
        ">"
      ])
    rescue
      _ -> Inspect.Any.inspect(tensor, opts)
    end

    def inspect(tensor, opts), do: Inspect.Any.inspect(tensor, opts)
  end
end
