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
    {resource, inputs, outputs, bytes} = Native.value!(Native.linear_pack(weight, bias))
    %__MODULE__{resource: resource, in_features: inputs, out_features: outputs, bytes: bytes}
  end

  @doc """
  `activation(x * weight^T + bias)` for `x` `{..., in_features}`.

  ## Options

    * `:activation` - `:none` (default), `:silu`, `:gelu_tanh` or `:gelu_erf`
    * `:type` - of the result: `{:f, 32}`, `{:f, 16}` or `{:bf, 16}`, default the type of `x`. Sums are f32,
      rounded once

  ## Example

      iex> weight = DGM.Tensor.new([[1, 2], [3, 4]]) |> DGM.Tensor.as_type({:bf, 16})
      iex> x = DGM.Tensor.new([[1, 1]]) |> DGM.Tensor.as_type({:bf, 16})
      iex> DGM.Linear.pack(weight) |> DGM.Linear.forward(x, type: {:f, 32}) |> DGM.Tensor.to_list()
      [[3.0, 7.0]]
  """
  @spec forward(t, Tensor.input(), keyword) :: Tensor.input()
  def forward(linear, x, opts \\ []) do
    linear = Check.handle(linear, __MODULE__, "linear")
    opts = Check.keyword(opts, activation: :none, type: nil)
    activation = Check.name(opts[:activation], "activation")
    {_, _, own} = x_typed = Tensor.typed(x, "x")
    type = if opts[:type], do: Tensor.float_name(opts[:type], "type"), else: own
    answer = Native.linear_forward(linear.resource, x_typed, activation, type)
    Tensor.like_typed(x, Native.value!(answer), opts[:type])
  end

  defimpl Inspect do
    def inspect(linear, _opts), do: "#DGM.Linear<#{linear.in_features} -> #{linear.out_features}>"
  end
end
