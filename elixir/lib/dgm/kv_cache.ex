defmodule DGM.KVCache do
  @moduledoc """
  A cache of keys and values for `DGM.attention_paged/3`: a value like any other.

      iex> cache = DGM.KVCache.new(pages: 4, page_len: 2, kv_heads: 1, dim: 1, block_table: [[3, 1], [0]])
      iex> new = DGM.Tensor.new([[[[1], [2], [3]]], [[[4], [5], [6]]]])
      iex> cache = DGM.KVCache.append(cache, new, new, counts: [3, 2])
      iex> cache.lengths
      [3, 2]
      iex> DGM.Tensor.to_flat_list(cache.k)
      [4.0, 5.0, 3.0, 0.0, 0.0, 0.0, 1.0, 2.0]

  It has pages of `page_len` tokens. Token `j` of batch entry `b` lies in row `rem(j, page_len)` of page
  `Enum.at(block_table[b], div(j, page_len))`; without a block table page `b` holds all tokens of entry
  `b`. Pages are `{pages, kv_heads, page_len, dim}`, or `{pages, page_len, kv_heads, dim}` with
  `layout: :tokens_first`.

  A BEAM binary never changes, so `append/4` and `fork/3` copy the cache once and return the new one. For
  caches of many megabytes hand over many tokens at a time, or keep one cache a sequence.
  """

  alias DGM.{Attention, Check, Native, Tensor}

  @enforce_keys [:k, :v, :lengths]
  defstruct [:k, :v, :k_scale, :v_scale, :block_table, :lengths, layout: :heads_first]

  @typedoc """
  Fields may be set by hand: `k` and `v` of type `{:f, 32}`, `{:f, 16}`, `{:bf, 16}` or `{:s, 8}`, the
  scales `{pages, kv_heads, page_len}` of type `{:f, 32}` for `{:s, 8}` and only for it, the block table a
  list of lists of pages, the lengths a list of the tokens of each batch entry.
  """
  @type t :: %__MODULE__{
          k: Tensor.t(),
          v: Tensor.t(),
          k_scale: Tensor.t() | nil,
          v_scale: Tensor.t() | nil,
          block_table: [[integer]] | nil,
          lengths: [non_neg_integer],
          layout: :heads_first | :tokens_first
        }

  @stored [{:f, 32}, {:f, 16}, {:bf, 16}, {:s, 8}]

  @doc """
  An empty cache.

  ## Options

    * `:pages`, `:page_len`, `:kv_heads`, `:dim` - its sizes
    * `:value_dim` - numbers of a value, default `:dim`
    * `:type` - `{:f, 32}` (default), `{:f, 16}`, `{:bf, 16}` or `{:s, 8}` (int8 with a scale a token)
    * `:block_table` - the pages of each batch entry in order; default: page `b` for entry `b`
    * `:layout` - `:heads_first` (default) or `:tokens_first`
  """
  @spec new(keyword) :: t
  def new(opts) do
    opts =
      Check.keyword(opts, [
        :pages,
        :page_len,
        :kv_heads,
        :dim,
        :value_dim,
        block_table: nil,
        type: {:f, 32},
        layout: :heads_first
      ])

    [pages, len, heads, dim] =
      for name <- [:pages, :page_len, :kv_heads, :dim], do: Check.count(opts[name], "#{name}")

    value_dim = Check.count(opts[:value_dim] || dim, "value_dim")
    type = opts[:type]
    type in @stored || Check.fail("type", type, "one of #{inspect(@stored)}")
    layout = layout(opts[:layout])

    shape = fn n ->
      if layout == :heads_first, do: {pages, heads, len, n}, else: {pages, len, heads, n}
    end

    zeros = fn shape, {_, bits} = type -> zeros(shape, bits, type) end
    scale = if type == {:s, 8}, do: zeros.({pages, heads, len}, {:f, 32})
    table = table(opts[:block_table])

    %__MODULE__{
      k: zeros.(shape.(dim), type),
      v: zeros.(shape.(value_dim), type),
      k_scale: scale,
      v_scale: scale,
      block_table: opts[:block_table],
      lengths: List.duplicate(0, if(table, do: length(table), else: pages)),
      layout: layout
    }
  end

  defp zeros(shape, bits, type) do
    bytes = div(bits, 8) * Tuple.product(shape)
    bytes < 0x1000000000 || Check.fail("shape", shape, "a cache that fits in memory")
    Tensor.from_binary(:binary.copy(<<0>>, bytes), shape, type)
  end

  @doc """
  The cache with new keys `{batch, kv_heads, tokens, dim}` and values `{batch, kv_heads, tokens,
  value_dim}` behind those it has.

  A number is rounded once, to the cache's type; a token of an int8 cache has `scale = max |x| / 127` a
  head. Two batch entries may not write to one page: `fork/3` it first.

  ## Options

    * `:counts` - how many of the new tokens belong to each batch entry, default all
    * `:rope` - `{cos, sin}` of `DGM.rope_tables/3`: turns a key by its position, the number of tokens
      before it
    * `:interleaved` - as for `DGM.rope/4`
  """
  @spec append(t, Tensor.input(), Tensor.input(), keyword) :: t
  def append(cache, k, v, opts \\ []) do
    opts = Check.keyword(opts, counts: nil, rope: nil, interleaved: false)
    counts = opts[:counts] && Check.counts(opts[:counts], "counts")
    rope = opts[:rope] && Attention.tables(opts[:rope], opts[:interleaved])
    native = native(cache)
    {k, v} = {Tensor.typed(k, "k_new"), Tensor.typed(v, "v_new")}
    changed(cache, Native.value!(Native.cache_append(native, k, v, counts, rope)))
  end

  @doc """
  The cache with a copy of page `from` in page `to`: what a sequence needs before it appends to a page
  that others share.
  """
  @spec fork(t, non_neg_integer, non_neg_integer) :: t
  def fork(cache, from, to) do
    {from, to} = {Check.count(from, "from"), Check.count(to, "to")}
    changed(cache, Native.value!(Native.cache_fork(native(cache), from, to)))
  end

  @doc """
  The cache without the last tokens: batch entry `b` keeps the first `keep[b]`. Costs nothing.
  """
  @spec truncate(t, [non_neg_integer]) :: t
  def truncate(%__MODULE__{lengths: lengths} = cache, keep) do
    lengths = Check.counts(lengths, "lengths")
    lengths = Native.value!(Native.cache_truncate(lengths, Check.counts(keep, "keep")))
    %{cache | lengths: lengths}
  end

  def truncate(other, _keep), do: Check.fail("cache", other, "a %DGM.KVCache{}")

  @doc false
  def native(%__MODULE__{} = cache) do
    %{
      k: Tensor.typed(cache.k, "k", @stored),
      v: Tensor.typed(cache.v, "v", @stored),
      k_scale: Tensor.typed_or_nil(cache.k_scale, "k_scale"),
      v_scale: Tensor.typed_or_nil(cache.v_scale, "v_scale"),
      tokens_first: layout(cache.layout) == :tokens_first,
      block_table: table(cache.block_table),
      lengths: Check.counts(cache.lengths, "lengths")
    }
  end

  def native(other), do: Check.fail("cache", other, "a %DGM.KVCache{}")

  defp layout(layout) when layout in [:heads_first, :tokens_first], do: layout
  defp layout(other), do: Check.fail("layout", other, ":heads_first or :tokens_first")

  # Rows of one length: -1, which is no page, fills them up.
  defp table(nil), do: nil

  defp table(rows) do
    rows = Check.pages(rows, "block_table")
    most = rows |> Enum.map(&length/1) |> Enum.max(fn -> 0 end)
    Enum.map(rows, &(&1 ++ List.duplicate(-1, most - length(&1))))
  end

  @doc false
  def changed(cache, {k, v, k_scale, v_scale, lengths}) do
    scale = fn from, new -> new && Tensor.like_typed(from, new) end

    %{
      cache
      | k: Tensor.like_typed(cache.k, k),
        v: Tensor.like_typed(cache.v, v),
        k_scale: scale.(cache.k_scale, k_scale),
        v_scale: scale.(cache.v_scale, v_scale),
        lengths: lengths
    }
  end
end
