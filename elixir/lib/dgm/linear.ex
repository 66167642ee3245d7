defmodule DGM.Linear do
  @moduledoc """
  A linear layer whose weights are packed once and applied many times.

      iex> layer = DGM.Linear.pack(DGM.Tensor.new([[1, 2], [3, 4], [5, 6]]), DGM.Tensor.new([0, 0, 1]))
      iex> DGM.Tensor.to_list(DGM.Linear.forward(layer, DGM.Tensor.new([[1, 1]])))
      [[3.0, 7.0, 12.0]]

  A layer is immutable and may be used by any number of processes at once.
  """

  alias DGM.{Check, Native, Tensor}

  @enforce_keys [:resource, :in_features, :out_features, :bytes]
  defstruct [:resource, :in_features, :out_features, :bytes]

  @type t :: %__MODULE__{
          resource: reference,
          in_features: pos_integer,
          out_features: pos_integer,
          bytes: pos_integer
        }

  @doc """
  Packs `weight` `{out_features, in_features}` and `bias` `{out_features}` (or `nil`).

  Both may be of type `{:f, 32}`, `{:f, 16}` or `{:bf, 16}`; weights are kept in their type.
  """
  @spec pack(Tensor.input(), Tensor.input() | nil) :: t
  def pack(weight, bias \\ nil) do
    {weight, bias} = {Tensor.typed(weight, "weight"), bias && Tensor.typed(bias, "bias")}
    layer(Native.linear_pack(weight, bias))
  end

  @doc """
  Packs the two halves of a gated layer: `forward/3` gives
  `activation(x * gate^T + gate_bias) * (x * up^T + up_bias)`, SwiGLU with `:silu`, GEGLU with a GELU.

  `gate` and `up` are `{out_features, in_features}`, of one type. One pass makes both halves and their
  product, with the bits of two layers followed by `DGM.swiglu/2` or `DGM.geglu/3`.

  ## Options

    * `:gate_bias`, `:up_bias` - `{out_features}`, default `nil`

  ## Example

      iex> {gate, up} = {DGM.Tensor.new([[1, 2]]), DGM.Tensor.new([[3, -1]])}
      iex> layer = DGM.Linear.pack_gated(gate, up)
      iex> DGM.Tensor.to_list(DGM.Linear.forward(layer, DGM.Tensor.new([[1, 1]])))
      [[6.0]]
  """
  @spec pack_gated(Tensor.input(), Tensor.input(), keyword) :: t
  def pack_gated(gate, up, opts \\ []) do
    opts = Check.keyword(opts, gate_bias: nil, up_bias: nil)
    {gate, up} = {Tensor.typed(gate, "gate"), Tensor.typed(up, "up")}
    gate_bias = Tensor.floats_or_nil(opts[:gate_bias], "gate_bias")
    up_bias = Tensor.floats_or_nil(opts[:up_bias], "up_bias")
    layer(Native.linear_pack_gated(gate, up, gate_bias, up_bias))
  end

  defp layer(answer) do
    {resource, inputs, outputs, bytes} = Native.value!(answer)
    %__MODULE__{resource: resource, in_features: inputs, out_features: outputs, bytes: bytes}
  end

  @doc """
  `residual + gate * activation(x * weight^T + bias)` for `x` `{..., in_features}`, in one pass with the bits
  of the layer in f32 followed by `DGM.gate_residual/3`.

  ## Options

    * `:activation` - `:none` (default), `:silu`, `:gelu_tanh` or `:gelu_erf`
    * `:gate` - `{..., out_features}`, default `nil`: multiplies the result. The number of its rows divides that
      of `x`, and each is for as many rows of `x` after one another: one row is for all, a row for each batch
      entry is the gate of adaLN-Zero
    * `:residual` - `{..., out_features}`, default `nil`: added in the end. The number of its rows divides that
      of `x`, and they repeat
    * `:type` - of the result: `{:f, 32}`, `{:f, 16}` or `{:bf, 16}`, default the type of `x`. Sums are f32,
      rounded once

  ## Example

      iex> weight = DGM.Tensor.new([[1, 2], [3, 4]]) |> DGM.Tensor.as_type({:bf, 16})
      iex> x = DGM.Tensor.new([[1, 1]]) |> DGM.Tensor.as_type({:bf, 16})
      iex> DGM.Linear.pack(weight) |> DGM.Linear.forward(x, type: {:f, 32}) |> DGM.Tensor.to_list()
      [[3.0, 7.0]]

      iex> layer = DGM.Linear.pack(DGM.Tensor.new([[1, 2]]))
      iex> {gate, residual} = {DGM.Tensor.new([[0.5]]), DGM.Tensor.new([[10], [20]])}
      iex> x = DGM.Tensor.new([[1, 1], [2, 2]])
      iex> DGM.Tensor.to_list(DGM.Linear.forward(layer, x, gate: gate, residual: residual))
      [[11.5], [23.0]]
  """
  @spec forward(t, Tensor.input(), keyword) :: Tensor.input()
  def forward(linear, x, opts \\ []) do
    linear = Check.handle(linear, __MODULE__, "linear")
    opts = Check.keyword(opts, activation: :none, gate: nil, residual: nil, type: nil)
    activation = Check.name(opts[:activation], "activation")
    {_, _, own} = x_typed = Tensor.typed(x, "x")
    type = if opts[:type], do: Tensor.float_name(opts[:type], "type"), else: own
    gate = Tensor.floats_or_nil(opts[:gate], "gate")
    residual = Tensor.floats_or_nil(opts[:residual], "residual")
    answer = Native.linear_forward(linear.resource, x_typed, activation, gate, residual, type)
    Tensor.like_typed(x, Native.value!(answer), opts[:type])
  end

  defimpl Inspect do
    def inspect(linear, _opts), do: "#DGM.Linear<#{linear.in_features} -> #{linear.out_features}>"
  end
end
