# Enough of Nx to test how its tensors go in and come out. Defined only where Nx itself is not
# there, which in this project's own tests it never is.
unless Code.ensure_loaded?(Nx) do
  defmodule Nx.Tensor do
    @moduledoc false
    defstruct [:bytes, :type, :shape]
  end

  defmodule Nx do
    @moduledoc false
    def type(t), do: t.type
    def shape(t), do: t.shape
    def to_binary(t), do: t.bytes

    def from_binary(bytes, {:f, 32}),
      do: %Nx.Tensor{bytes: bytes, type: {:f, 32}, shape: {div(byte_size(bytes), 4)}}

    def reshape(t, shape), do: %{t | shape: shape}
  end
end
