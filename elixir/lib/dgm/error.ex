defmodule DGM.Error do
  @moduledoc """
  What went wrong outside the caller's arguments: a file, the bytes of an exported run, a call
  that does not fit the state of a run.

  Functions that read outside data return `{:error, %DGM.Error{}}` and have a `!` twin that
  raises it. Wrong arguments raise `ArgumentError` with the engine's message instead.

    * `:code` - the engine's stable number, the same behind every language (-601, say)
    * `:kind` - `:argument`, `:shape`, `:dtype`, `:alias`, `:range`, `:io`, `:format`, `:state`,
      `:cancelled` or `:internal`
    * `:message` - which argument, what it was, what it should be
  """

  @type t :: %__MODULE__{code: integer, kind: atom, message: String.t()}

  defexception [:code, :kind, :message]

  @doc false
  def new(code, message), do: %__MODULE__{code: code, kind: kind(code), message: message}

  defp kind(code) when code in -199..-100, do: :argument
  defp kind(code) when code in -299..-200, do: :shape
  defp kind(code) when code in -399..-300, do: :dtype
  defp kind(code) when code in -499..-400, do: :alias
  defp kind(code) when code in -599..-500, do: :range
  defp kind(-600), do: :io
  defp kind(code) when code in -699..-601, do: :format
  defp kind(code) when code in -799..-700, do: :state
  defp kind(code) when code in -899..-800, do: :cancelled
  defp kind(_), do: :internal
end
