defmodule DGM.Random do
  @moduledoc """
  Counter-based noise (Philox4x32-10): every number is a function of the row's seed, a purpose,
  a draw index and the element, so it depends neither on the other rows nor on the order in
  which anything runs.

  ## Options of every stream

    * `:purpose` - separates streams: `:user` (default), or one of the engine's own `:initial`,
      `:step`, `:churn`, `:inpaint`, `:accept`, `:gumbel`, `:draft`, `:residual`, `:brownian`,
      `:probe`, `:exchange`
    * `:draw` - index of the draw, default 0
  """

  alias DGM.{Check, Native, Tensor}

  @doc """
  A seed a row, derived from one: what a batch starts from.

      iex> DGM.Random.row_seeds(7, 3) == DGM.Random.row_seeds(7, 5) |> Enum.take(3)
      true
  """
  @spec row_seeds(non_neg_integer, non_neg_integer) :: [non_neg_integer]
  def row_seeds(seed, rows) do
    Native.value!(Native.row_seeds(Check.u64(seed, "seed"), Check.count(rows, "rows")))
  end

  @doc """
  Standard normal values: `{rows, elements}`, or `{rows, ...shape}` where a shape is given. As an `Nx`
  tensor: `x.data |> Nx.from_binary({:f, 32}) |> Nx.reshape(x.shape)`.

      iex> DGM.Random.normal(DGM.Random.row_seeds(1, 2), {3, 4}).shape
      {2, 3, 4}
  """
  @spec normal([non_neg_integer], non_neg_integer | tuple, keyword) :: Tensor.t()
  def normal(seeds, elements, opts \\ []) do
    {purpose, draw} = stream(opts)
    answer = Native.random_normal(Check.seeds(seeds), dims(elements), purpose, draw)
    Tensor.like(nil, Native.value!(answer))
  end

  @doc """
  Values uniform in the open interval (0, 1), shaped as in `normal/3`.
  """
  @spec uniform([non_neg_integer], non_neg_integer | tuple, keyword) :: Tensor.t()
  def uniform(seeds, elements, opts \\ []) do
    {purpose, draw} = stream(opts)
    answer = Native.random_uniform(Check.seeds(seeds), dims(elements), purpose, draw)
    Tensor.like(nil, Native.value!(answer))
  end

  @doc """
  One class a row, drawn with the probabilities `softmax(logits)`; `logits` is `{rows, classes}`.

      iex> logits = DGM.Tensor.new([[0, :neg_infinity], [:neg_infinity, 0]])
      iex> DGM.Random.categorical(logits, [1, 2])
      [0, 1]
  """
  @spec categorical(Tensor.input(), [non_neg_integer], keyword) :: [non_neg_integer]
  def categorical(logits, seeds, opts \\ []) do
    {purpose, draw} = stream(opts)
    logits = Tensor.native(logits, "logits")
    Native.value!(Native.random_categorical(logits, Check.seeds(seeds), purpose, draw))
  end

  defp stream(opts) do
    opts = Check.keyword(opts, purpose: :user, draw: 0)
    {Check.name(opts[:purpose], "purpose"), Check.u32(opts[:draw], "draw")}
  end

  defp dims(shape) when is_tuple(shape), do: Check.counts(Tuple.to_list(shape), "elements")
  defp dims(elements), do: [Check.count(elements, "elements")]
end
