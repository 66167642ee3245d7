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
  """
  @spec pack(Tensor.input(), Tensor.input() | nil) :: t
  def pack(weight, bias \\ nil) do
    {weight, bias} = {Tensor.native(weight, "weight"), Tensor.native_or_nil(bias, "bias")}
    {resource, inputs, outputs, bytes} = Native.value!(Native.linear_pack(weight, bias))
    %__MODULE__{resource: resource, in_features: inputs, out_features: outputs, bytes: bytes}
  end

  @doc """
  `activation(x * weight^T + bias)` for `x` `{..., in_features}`.

  ## Options

    * `:activation` - `:none` (default), `:silu`, `:gelu_tanh` or `:gelu_erf`
  """
  @spec forward(t, Tensor.input(), keyword) :: Tensor.input()
  def forward(linear, x, opts \\ []) do
    linear = Check.handle(linear, __MODULE__, "linear")
    activation = Check.name(Check.keyword(opts, activation: :none)[:activation], "activation")
    answer = Native.linear_forward(linear.resource, Tensor.native(x, "x"), activation)
    Tensor.like(x, Native.value!(answer))
  end

  defimpl Inspect do
    def inspect(linear, _opts), do: "#DGM.Linear<#{linear.in_features} -> #{linear.out_features}>"
  end
end
