defmodule DGM do
  @moduledoc """
  Sampling and attention kernels of deep generative models, for the CPU: one engine, the same
  bits from Elixir, Rust, C and Julia, for any number of threads and any batch.

    * `DGM` - attention, norms, modulation, activations, embeddings, patches
    * `DGM.Linear` - packed linear layers
    * `DGM.Random` - counter-based noise
    * `DGM.Plan`, `DGM.Sampler` - sampling methods as tables, runs as values
    * `DGM.Dit`, `DGM.SD3`, `DGM.Flux` - diffusion transformers
    * `DGM.Llama` - causal language models
    * `DGM.Telemetry` - the events it emits
    * `DGM.Tensor` - what goes in and comes out; `Nx` tensors do as well

  Every tensor argument may be a `DGM.Tensor` or an `Nx` tensor of type f32 (a mask: u8; norms, activations,
  softmax, embeddings, patches and attention also f16 and bf16, each tensor for itself: computed in f32, rounded
  once), mixed as you like. A result is of the kind and the type of the first tensor argument: with `Nx` in, `Nx` comes out, at one copy
  in each direction. Functions without a tensor argument (`DGM.Random.normal/3`,
  `DGM.Random.uniform/3`) return a `DGM.Tensor`; `DGM.Random.categorical/3` returns a list.

  Kernels run on the dirty CPU schedulers. Wrong arguments raise `ArgumentError` with a message
  that names the argument, what it was and what it should be.
  """

  alias DGM.{Attention, Check, Native, Telemetry, Tensor}

  @doc """
  The version of the library.

      iex> DGM.version()
      "0.1.0"
  """
  @spec version() :: String.t()
  def version, do: Native.version()

  @doc """
  The version of the numeric definitions: it changes when any bit of any result may.
  """
  @spec numerics_version() :: integer
  def numerics_version, do: Native.numerics_version()

  @doc """
  The instruction set in use: `"avx512"`, `"avx2"`, `"neon"` or `"portable"`. Results do not
  depend on it; the environment variable `DGM_ISA` forces one.
  """
  @spec isa() :: String.t()
  def isa, do: Native.isa()

  @doc """
  One line that says what runs here: versions, instruction set, threads.
  """
  @spec cpu_info() :: String.t()
  def cpu_info, do: Native.cpu_info()

  @doc """
  How many threads a call may use; `DGM_NUM_THREADS` or `set_num_threads/1` set it.
  """
  @spec num_threads() :: pos_integer
  def num_threads, do: Native.num_threads()

  @doc """
  Sets how many threads a call may use, 1 to 1024. Results do not depend on it.

  Every dirty CPU scheduler may be inside a kernel at once and they share the threads, so a
  service with many callers loses nothing by setting 1.

      iex> DGM.set_num_threads(2)
      :ok
      iex> DGM.set_num_threads(0)
      ** (ArgumentError) threads is 0, expected 1 to 1024
  """
  @spec set_num_threads(pos_integer) :: :ok
  def set_num_threads(count) do
    Native.value!(Native.set_num_threads(Check.count(count, "threads")))
    :ok
  end

  @doc """
  Scaled dot-product attention, fused: memory does not grow with the number of keys.

  `q` is `{batch, heads, queries, dim}`, `k` `{batch, kv_heads, keys, dim}`, `v`
  `{batch, kv_heads, keys, value_dim}`; the result is `{batch, heads, queries, value_dim}`.
  `heads` must be a multiple of `kv_heads` (grouped queries). A query without a key to attend
  to gives 0. `q` and the pair `k`, `v` may be of type `{:f, 16}` or `{:bf, 16}`: computed in f32, rounded
  once to the type of `q` (all of `{:bf, 16}`: probabilities too, products of pairs summed in f32).

  ## Options

    * `:scale` - factor of the scores, default `1 / sqrt(dim)`
    * `:causal` - a query sees the keys up to its own position, the last query the last key;
      default `false`
    * `:window` - `{left, right}`: a query sees the keys at most `left` before and `right` behind
      its own position, `:infinity` for no limit; default `{:infinity, :infinity}`
    * `:kv_lengths` - list of `batch` lengths: keys beyond them are not there
    * `:soft_cap` - scores become `soft_cap * tanh(score / soft_cap)`
    * `:alibi_slopes` - list of `heads` slopes: a score loses `slope` times the distance of its key
      from the query's position
    * `:sinks` - list of `heads` scores that join the softmax without a value
    * `:bias` - tensor added to the scores, `{batch, heads, queries, keys}` with 1 wherever it
      repeats; `:neg_infinity` hides the element
    * `:mask` - tensor of type `{:u, 8}` of such a shape: 0 hides the element, whatever key and
      value hold there. Make one with `DGM.Tensor.mask/2`
    * `:lse` - `true` returns `{out, lse}`, with the log-sum-exp of each query's scaled scores
      as `{batch, heads, queries}`; default `false`

  ## Example

      iex> q = DGM.Tensor.new([[[[1, 0]]]])
      iex> k = DGM.Tensor.new([[[[1, 0], [1, 0]]]])
      iex> v = DGM.Tensor.new([[[[2], [4]]]])
      iex> DGM.Tensor.to_list(DGM.attention(q, k, v))
      [[[[3.0]]]]
  """
  @spec attention(Tensor.input(), Tensor.input(), Tensor.input(), keyword) ::
          Tensor.input() | {Tensor.input(), Tensor.input()}
  def attention(q, k, v, opts \\ []) do
    options = Attention.options(opts, :lse)
    {nq, nk, nv} = {Tensor.typed(q, "q"), Tensor.typed(k, "k"), Tensor.typed(v, "v")}
    call = fn -> Native.value!(Native.attention(nq, nk, nv, options)) end
    {out, lse} = Telemetry.span([:attention], %{q: elem(nq, 1), k: elem(nk, 1)}, call)
    with_lse(q, out, lse)
  end

  defp with_lse(q, out, nil), do: Tensor.like_typed(q, out)
  defp with_lse(q, out, lse), do: {Tensor.like_typed(q, out), Tensor.like(q, lse)}

  @doc """
  `attention/4` of new queries against a cache that already holds their keys and values.

  `q` is `{batch, heads, queries, dim}`, the last `queries` tokens of each batch entry; `cache` a
  `DGM.KVCache`. Options are those of `attention/4` but `:kv_lengths`; `:bias` and `:mask` have as many
  keys as the cache has places for a batch entry. The result has the bits of `attention/4` with the same
  keys and values side by side, whatever the page size. With an int8 cache a score is multiplied by its
  key's scale before anything else happens to it, and a probability by its value's scale.

  ## Example

      iex> cache = DGM.KVCache.new(pages: 1, page_len: 4, kv_heads: 1, dim: 2, value_dim: 1)
      iex> k = DGM.Tensor.new([[[[1, 0], [1, 0]]]])
      iex> cache = DGM.KVCache.append(cache, k, DGM.Tensor.new([[[[2], [4]]]]))
      iex> DGM.Tensor.to_list(DGM.attention_paged(DGM.Tensor.new([[[[1, 0]]]]), cache))
      [[[[3.0]]]]
  """
  @spec attention_paged(Tensor.input(), DGM.KVCache.t(), keyword) ::
          Tensor.input() | {Tensor.input(), Tensor.input()}
  def attention_paged(q, cache, opts \\ []) do
    options = Attention.options(opts, :lse)
    {nq, native} = {Tensor.typed(q, "q"), DGM.KVCache.native(cache)}
    call = fn -> Native.value!(Native.attention_paged(nq, native, options)) end
    {out, lse} = Telemetry.span([:attention_paged], %{q: elem(nq, 1), k: elem(native.k, 1)}, call)
    with_lse(q, out, lse)
  end

  @doc """
  Joins the results of the same queries over two sets of keys by their log-sum-exps (`attention/4`
  with `lse: true`), as if all keys had been seen at once; returns `{out, lse}`.

      iex> [q, k] = [DGM.Tensor.new([[[[1]]]]), DGM.Tensor.new([[[[0]]]])]
      iex> {a, la} = DGM.attention(q, k, DGM.Tensor.new([[[[1]]]]), lse: true)
      iex> {b, lb} = DGM.attention(q, k, DGM.Tensor.new([[[[3]]]]), lse: true)
      iex> {out, _} = DGM.attention_merge(a, la, b, lb)
      iex> DGM.Tensor.to_list(out)
      [[[[2.0]]]]
  """
  @spec attention_merge(Tensor.input(), Tensor.input(), Tensor.input(), Tensor.input()) ::
          {Tensor.input(), Tensor.input()}
  def attention_merge(out1, lse1, out2, lse2) do
    {l1, l2} = {Tensor.native(lse1, "lse1"), Tensor.native(lse2, "lse2")}
    {o1, o2} = {Tensor.typed(out1, "out1"), Tensor.typed(out2, "out2")}
    {out, lse} = Native.value!(Native.attention_merge(o1, l1, o2, l2))
    {Tensor.like_typed(out1, out), Tensor.like(out1, lse)}
  end

  @doc """
  The tables `{cos, sin}` of a rotary embedding, `{positions, r / 2}` each: row `n` holds cosine and
  sine of `(first + n) * theta ^ (-i / (r / 2))`.

  ## Options

    * `:theta` - default `10_000`
    * `:first` - position of row 0, default 0

  ## Example

      iex> {cos, sin} = DGM.rope_tables(1, 4)
      iex> {DGM.Tensor.to_list(cos), DGM.Tensor.to_list(sin)}
      {[[1.0, 1.0]], [[0.0, 0.0]]}
  """
  @spec rope_tables(non_neg_integer, non_neg_integer, keyword) :: {Tensor.t(), Tensor.t()}
  def rope_tables(positions, r, opts \\ []) do
    opts = Check.keyword(opts, theta: 10_000, first: 0)
    r = Check.count(r, "r")
    rem(r, 2) == 0 || Check.fail("r", r, "an even number")
    {first, theta} = {Check.count(opts[:first], "first"), Check.number(opts[:theta], "theta")}
    answer = Native.rope_tables(Check.count(positions, "positions"), div(r, 2), first, theta)
    {cos, sin} = Native.value!(answer)
    {Tensor.like(nil, cos), Tensor.like(nil, sin)}
  end

  @doc """
  The tables `{cos, sin}` of a rotary embedding over several axes, `{tokens, sum of dims / 2}` each: row `n`
  holds, one axis after the other, cosine and sine of `positions[n][a] * theta ^ (-i / (dims[a] / 2))`.

  `positions` is `{tokens, axes}`, `dims` a list with the numbers of a head that each axis turns, all even. With
  `rope/4` token `n` has row `n`, so `first` is 0.

  ## Options

    * `:theta` - default `10_000`

  ## Example

      iex> {cos, sin} = DGM.rope_axial_tables(DGM.Tensor.new([[0, 0]]), [2, 4])
      iex> {DGM.Tensor.to_list(cos), DGM.Tensor.to_list(sin)}
      {[[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]}
  """
  @spec rope_axial_tables(Tensor.input(), [non_neg_integer], keyword) ::
          {Tensor.input(), Tensor.input()}
  def rope_axial_tables(positions, dims, opts \\ []) do
    theta = Check.number(Check.keyword(opts, theta: 10_000)[:theta], "theta")
    {native, dims} = {Tensor.native(positions, "positions"), Check.counts(dims, "dims")}
    {cos, sin} = Native.value!(Native.rope_axial_tables(native, dims, theta))
    {Tensor.like(positions, cos), Tensor.like(positions, sin)}
  end

  @doc """
  Turns queries or keys `{batch, heads, tokens, dim}` by their positions: token `i` of batch entry `b`
  stands at position `first[b] + i` of the tables `{cos, sin}`.

  ## Options

    * `:interleaved` - pairs are `(2 i, 2 i + 1)` rather than `(i, i + r / 2)`; default `false`

  ## Example

      iex> x = DGM.Tensor.new([[[[1, 1]]]])
      iex> tables = {DGM.Tensor.new([[1], [0]]), DGM.Tensor.new([[0], [1]])}
      iex> DGM.Tensor.to_list(DGM.rope(x, [1], tables))
      [[[[-1.0, 1.0]]]]
  """
  @spec rope(Tensor.input(), [non_neg_integer], {Tensor.input(), Tensor.input()}, keyword) ::
          Tensor.input()
  def rope(x, first, tables, opts \\ []) do
    opts = Check.keyword(opts, interleaved: false)
    tables = Attention.tables(tables, opts[:interleaved])
    answer = Native.rope(Tensor.typed(x, "x"), Check.counts(first, "first"), tables)
    Tensor.like_typed(x, Native.value!(answer))
  end

  @doc """
  The gradients of `attention/4`: with `dout` the gradient of a loss with respect to the result
  `out`, `{dq, dk, dv}` are those with respect to `q`, `k` and `v`.

  `out` and `lse` are what `attention/4` returned with `lse: true` for the same arguments and
  options. Elements that are hidden and queries without a key add nothing.

  ## Options

  Those of `attention/4` but `:lse`, and

    * `:dbias` - `true` returns `{dq, dk, dv, dbias}`, with the gradient of `:bias`, summed where
      it repeats; default `false`

  ## Example

      iex> q = DGM.Tensor.new([[[[1, 0]]]])
      iex> k = DGM.Tensor.new([[[[1, 0], [1, 0]]]])
      iex> v = DGM.Tensor.new([[[[2], [4]]]])
      iex> {out, lse} = DGM.attention(q, k, v, scale: 1, lse: true)
      iex> {_dq, dk, dv} = DGM.attention_backward(q, k, v, out, lse, DGM.Tensor.new([[[[1]]]]), scale: 1)
      iex> for x <- [dk, dv], [[rows]] = DGM.Tensor.to_list(x), do: for(r <- rows, x <- r, do: Float.round(x, 4))
      [[-0.5, 0.0, 0.5, 0.0], [0.5, 0.5]]
  """
  @spec attention_backward(
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          keyword
        ) ::
          {Tensor.input(), Tensor.input(), Tensor.input()}
          | {Tensor.input(), Tensor.input(), Tensor.input(), Tensor.input()}
  def attention_backward(q, k, v, out, lse, dout, opts \\ []) do
    options = Attention.options(opts, :dbias)
    {nq, nk, nv} = {Tensor.typed(q, "q"), Tensor.typed(k, "k"), Tensor.typed(v, "v")}
    saved = {Tensor.typed(out, "out"), Tensor.native(lse, "lse"), Tensor.typed(dout, "dout")}
    {nout, nlse, ndout} = saved

    call = fn ->
      Native.value!(Native.attention_backward(nq, nk, nv, nout, nlse, ndout, options))
    end

    {dq, dk, dv, dbias} =
      Telemetry.span([:attention_backward], %{q: elem(nq, 1), k: elem(nk, 1)}, call)

    of = fn gradient, input -> Tensor.like_typed(q, gradient, input.type) end
    gradients = {of.(dq, q), of.(dk, k), of.(dv, v)}
    if dbias, do: Tuple.append(gradients, Tensor.like(q, dbias)), else: gradients
  end

  @doc """
  `attention/4` of sequences of different lengths packed one after the other, each within itself:
  the bits are those of one call a sequence.

  `q` is `{tokens, heads, dim}`, the queries of all sequences; `k` `{kv_tokens, kv_heads, dim}`, `v`
  `{kv_tokens, kv_heads, value_dim}`; the result is `{tokens, heads, value_dim}`. `q_offsets` has one
  number more than there are sequences, from 0 to `tokens`, and never falls: sequence `n` has the
  queries from `q_offsets[n]` up to, but not with, `q_offsets[n + 1]`. `kv_offsets` says the same of the
  keys.

  Options are those of `attention/4` without `:kv_lengths`, `:bias` and `:mask`; with `:lse` the second
  result is `{heads, tokens}`.

  ## Example

  A sequence of one token and one of two:

      iex> one = DGM.Tensor.new([[[0]], [[0]], [[0]]])
      iex> v = DGM.Tensor.new([[[1]], [[2]], [[4]]])
      iex> DGM.Tensor.to_list(DGM.attention_varlen(one, one, v, [0, 1, 3], [0, 1, 3]))
      [[[1.0]], [[3.0]], [[3.0]]]
  """
  @spec attention_varlen(
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          [non_neg_integer],
          [non_neg_integer],
          keyword
        ) :: Tensor.input() | {Tensor.input(), Tensor.input()}
  def attention_varlen(q, k, v, q_offsets, kv_offsets, opts \\ []) do
    options = Attention.packed_options(opts)
    {nq, nk, nv} = {Tensor.typed(q, "q"), Tensor.typed(k, "k"), Tensor.typed(v, "v")}
    {a, b} = {Check.counts(q_offsets, "q_offsets"), Check.counts(kv_offsets, "kv_offsets")}
    call = fn -> Native.value!(Native.attention_varlen(nq, nk, nv, a, b, options)) end
    {out, lse} = Telemetry.span([:attention_varlen], %{q: elem(nq, 1), k: elem(nk, 1)}, call)
    with_lse(q, out, lse)
  end

  @doc """
  The gradients of `attention_varlen/6`: with `dout` the gradient of a loss with respect to the result
  `out`, `{dq, dk, dv}` are those with respect to `q`, `k` and `v`.

  `out` and `lse` are what `attention_varlen/6` returned with `lse: true` for the same arguments and
  options. The bits are those of one call of `attention_backward/7` a sequence.

  ## Example

  A sequence of one token and one of two:

      iex> one = DGM.Tensor.new([[[0]], [[0]], [[0]]])
      iex> {out, lse} = DGM.attention_varlen(one, one, one, [0, 1, 3], [0, 1, 3], lse: true)
      iex> dout = DGM.Tensor.new([[[1]], [[2]], [[4]]])
      iex> {_, _, dv} = DGM.attention_varlen_backward(one, one, one, out, lse, dout, [0, 1, 3], [0, 1, 3])
      iex> for [[x]] <- DGM.Tensor.to_list(dv), do: Float.round(x, 4)
      [1.0, 3.0, 3.0]
  """
  @spec attention_varlen_backward(
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          [non_neg_integer],
          [non_neg_integer],
          keyword
        ) :: {Tensor.input(), Tensor.input(), Tensor.input()}
  def attention_varlen_backward(q, k, v, out, lse, dout, q_offsets, kv_offsets, opts \\ []) do
    options = Attention.packed_gradient_options(opts)
    {nq, nk, nv} = {Tensor.typed(q, "q"), Tensor.typed(k, "k"), Tensor.typed(v, "v")}

    {no, nl, nd} =
      {Tensor.typed(out, "out"), Tensor.native(lse, "lse"), Tensor.typed(dout, "dout")}

    {a, b} = {Check.counts(q_offsets, "q_offsets"), Check.counts(kv_offsets, "kv_offsets")}

    call = fn ->
      Native.value!(Native.attention_varlen_backward(nq, nk, nv, no, nl, nd, a, b, options))
    end

    {dq, dk, dv} =
      Telemetry.span([:attention_varlen_backward], %{q: elem(nq, 1), k: elem(nk, 1)}, call)

    of = fn gradient, input -> Tensor.like_typed(q, gradient, input.type) end
    {of.(dq, q), of.(dk, k), of.(dv, v)}
  end

  @doc """
  Layer normalisation over the last dimension.

  ## Options

    * `:weight`, `:bias` - `{d}`, default none
    * `:eps` - added to the variance, default `1.0e-5`

  ## Example

      iex> DGM.Tensor.to_list(DGM.layer_norm(DGM.Tensor.new([[1, 3]]), eps: 0.0))
      [[-1.0, 1.0]]
  """
  @spec layer_norm(Tensor.input(), keyword) :: Tensor.input()
  def layer_norm(x, opts \\ []) do
    opts = Check.keyword(opts, weight: nil, bias: nil, eps: 1.0e-5)
    weight = Tensor.floats_or_nil(opts[:weight], "weight")
    bias = Tensor.floats_or_nil(opts[:bias], "bias")
    eps = Check.number(opts[:eps], "eps")
    result(x, Native.layer_norm(Tensor.typed(x, "x"), weight, bias, eps))
  end

  @doc """
  Division by the root mean square of the last dimension.

  ## Options

    * `:weight` - `{d}`, default none
    * `:eps` - added to the mean square, default `1.0e-6`
  """
  @spec rms_norm(Tensor.input(), keyword) :: Tensor.input()
  def rms_norm(x, opts \\ []) do
    opts = Check.keyword(opts, weight: nil, eps: 1.0e-6)
    weight = Tensor.floats_or_nil(opts[:weight], "weight")
    result(x, Native.rms_norm(Tensor.typed(x, "x"), weight, Check.number(opts[:eps], "eps")))
  end

  @doc """
  The end of a residual branch and the next norm in one pass: `sum = x + residual`, `out` its
  `rms_norm/2`; returns `{sum, out}`. The norm sees the sum as it is stored, in the type of `x`.

  ## Options

    * `:weight` - `{d}`, default none
    * `:eps` - added to the mean square, default `1.0e-6`

  ## Example

      iex> x = DGM.Tensor.new([[1, -1]])
      iex> {sum, out} = DGM.rms_norm_residual(x, DGM.Tensor.new([[2, -2]]), eps: 0)
      iex> {DGM.Tensor.to_list(sum), DGM.Tensor.to_list(out)}
      {[[3.0, -3.0]], [[1.0, -1.0]]}
  """
  @spec rms_norm_residual(Tensor.input(), Tensor.input(), keyword) ::
          {Tensor.input(), Tensor.input()}
  def rms_norm_residual(x, residual, opts \\ []) do
    opts = Check.keyword(opts, weight: nil, eps: 1.0e-6)
    weight = Tensor.floats_or_nil(opts[:weight], "weight")
    {nx, nr} = {Tensor.typed(x, "x"), Tensor.typed(residual, "residual")}
    answer = Native.rms_norm_residual(nx, nr, weight, Check.number(opts[:eps], "eps"))
    {sum, out} = Native.value!(answer)
    {Tensor.like_typed(x, sum), Tensor.like_typed(x, out)}
  end

  @doc """
  Group normalisation of `x` `{batch, channels, ...}`: every one of the `groups` of channels of each batch
  entry, with all its places, less its mean, over its deviation.

  ## Options

    * `:weight`, `:bias` - `{channels}`, default none
    * `:eps` - added to the variance, default `1.0e-5`
    * `:silu` - `true` for SiLU of the result, default `false`

  ## Example

      iex> x = DGM.Tensor.new([[[1, 3], [5, 5]]])
      iex> DGM.Tensor.to_list(DGM.group_norm(x, 2, eps: 3))
      [[[-0.5, 0.5], [0.0, 0.0]]]
  """
  @spec group_norm(Tensor.input(), pos_integer, keyword) :: Tensor.input()
  def group_norm(x, groups, opts \\ []) do
    opts = Check.keyword(opts, weight: nil, bias: nil, eps: 1.0e-5, silu: false)
    weight = Tensor.floats_or_nil(opts[:weight], "weight")
    bias = Tensor.floats_or_nil(opts[:bias], "bias")
    {eps, silu} = {Check.number(opts[:eps], "eps"), Check.boolean(opts[:silu], "silu")}
    groups = Check.count(groups, "groups")
    result(x, Native.group_norm(Tensor.typed(x, "x"), groups, weight, bias, eps, silu))
  end

  @doc """
  `x * (1 + scale) + shift` with `x` `{batch, tokens, d}`, `shift` and `scale` `{batch, d}`:
  the modulation of adaptive layer norm.

      iex> x = DGM.Tensor.new([[[1, 2], [3, 4]]])
      iex> DGM.Tensor.to_list(DGM.modulate(x, DGM.Tensor.new([[1, 0]]), DGM.Tensor.new([[1, 0]])))
      [[[3.0, 2.0], [7.0, 4.0]]]
  """
  @spec modulate(Tensor.input(), Tensor.input(), Tensor.input()) :: Tensor.input()
  def modulate(x, shift, scale) do
    {shift, scale} = {Tensor.typed(shift, "shift"), Tensor.typed(scale, "scale")}
    result(x, Native.modulate(Tensor.typed(x, "x"), shift, scale))
  end

  @doc """
  `layer_norm/2` without weight and bias, then `modulate/3`, in one pass with the same bits.

  ## Options

    * `:eps` - added to the variance, default `1.0e-6`
  """
  @spec layer_norm_modulate(Tensor.input(), Tensor.input(), Tensor.input(), keyword) ::
          Tensor.input()
  def layer_norm_modulate(x, shift, scale, opts \\ []) do
    eps = Check.number(Check.keyword(opts, eps: 1.0e-6)[:eps], "eps")
    {shift, scale} = {Tensor.typed(shift, "shift"), Tensor.typed(scale, "scale")}
    result(x, Native.layer_norm_modulate(Tensor.typed(x, "x"), shift, scale, eps))
  end

  @doc """
  `residual + gate * y` with `residual` and `y` `{batch, tokens, d}`, `gate` `{batch, d}`.

      iex> one = DGM.Tensor.new([[[1, 1]]])
      iex> DGM.Tensor.to_list(DGM.gate_residual(one, one, DGM.Tensor.new([[2, 3]])))
      [[[3.0, 4.0]]]
  """
  @spec gate_residual(Tensor.input(), Tensor.input(), Tensor.input()) :: Tensor.input()
  def gate_residual(residual, y, gate) do
    {ny, gate} = {Tensor.typed(y, "y"), Tensor.typed(gate, "gate")}
    result(residual, Native.gate_residual(Tensor.typed(residual, "residual"), ny, gate))
  end

  @doc """
  `x * sigmoid(x)`, elementwise.

      iex> DGM.Tensor.to_list(DGM.silu(DGM.Tensor.new([0])))
      [0.0]
  """
  @spec silu(Tensor.input()) :: Tensor.input()
  def silu(x), do: result(x, Native.silu(Tensor.typed(x, "x")))

  @doc """
  The Gaussian error linear unit, elementwise.

  ## Options

    * `:kind` - `:tanh` (the approximation, default) or `:erf` (exact)
  """
  @spec gelu(Tensor.input(), keyword) :: Tensor.input()
  def gelu(x, opts \\ []) do
    kind = Check.name(Check.keyword(opts, kind: :tanh)[:kind], "kind")
    result(x, Native.gelu(Tensor.typed(x, "x"), kind))
  end

  @doc """
  `silu(gate) * up`, elementwise. Without `up`, the last dimension of `gate` holds both, the gate first.

      iex> x = DGM.Tensor.new([[0, 0, 5, 7]])
      iex> DGM.Tensor.to_list(DGM.swiglu(x))
      [[0.0, 0.0]]
  """
  @spec swiglu(Tensor.input(), Tensor.input() | nil) :: Tensor.input()
  def swiglu(gate, up \\ nil),
    do:
      result(gate, Native.gated(Tensor.typed(gate, "gate"), Tensor.floats_or_nil(up, "up"), nil))

  @doc """
  `gelu(gate) * up`, elementwise; as `swiglu/2`.

  ## Options

    * `:kind` - `:tanh` (the approximation, default) or `:erf` (exact)

  ## Example

      iex> x = DGM.Tensor.new([[0, 5]])
      iex> DGM.Tensor.to_list(DGM.geglu(x, nil, kind: :erf))
      [[0.0]]
  """
  @spec geglu(Tensor.input(), Tensor.input() | nil, keyword) :: Tensor.input()
  def geglu(gate, up \\ nil, opts \\ []) do
    kind = Check.name(Check.keyword(opts, kind: :tanh)[:kind], "kind")
    {ngate, nup} = {Tensor.typed(gate, "gate"), Tensor.floats_or_nil(up, "up")}
    result(gate, Native.gated(ngate, nup, kind))
  end

  @doc """
  `exp(x) / sum(exp(x))` over the last dimension. A row of `:neg_infinity` alone gives 0.

      iex> DGM.Tensor.to_list(DGM.softmax(DGM.Tensor.new([[1000, 1000]])))
      [[0.5, 0.5]]
  """
  @spec softmax(Tensor.input()) :: Tensor.input()
  def softmax(x), do: result(x, Native.softmax(Tensor.typed(x, "x"), false))

  @doc """
  `x - log(sum(exp(x)))` over the last dimension.

      iex> DGM.Tensor.to_list(DGM.log_softmax(DGM.Tensor.new([[7]])))
      [[0.0]]
  """
  @spec log_softmax(Tensor.input()) :: Tensor.input()
  def log_softmax(x), do: result(x, Native.softmax(Tensor.typed(x, "x"), true))

  @doc """
  Rows of `table` `{rows, d}` by their numbers, from 0: `{length(indices), d}`.

      iex> table = DGM.Tensor.new([[1, 2], [3, 4]])
      iex> DGM.Tensor.to_list(DGM.embedding(table, [1, 0, 1]))
      [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
  """
  @spec embedding(Tensor.input(), [non_neg_integer]) :: Tensor.input()
  def embedding(table, indices) do
    result(table, Native.embedding(Tensor.typed(table, "table"), Check.indices(indices)))
  end

  @doc """
  Classifier-free guidance, `scale * cond + (1 - scale) * uncond`, of tensors `{rows, ...}`: the bits of a
  `DGM.Plan` with this guidance.

  ## Options

    * `:rescale` - 0 to 1: each row times `1 - rescale + rescale * (deviation of cond / of the result)`;
      default 0

  ## Example

      iex> {cond, uncond} = {DGM.Tensor.new([[2, 4]]), DGM.Tensor.new([[1, 1]])}
      iex> DGM.Tensor.to_list(DGM.cfg_combine(cond, uncond, 3))
      [[4.0, 10.0]]
  """
  @spec cfg_combine(Tensor.input(), Tensor.input(), number, keyword) :: Tensor.input()
  def cfg_combine(cond, uncond, scale, opts \\ []) do
    rescale = Check.number(Check.keyword(opts, rescale: 0)[:rescale], "rescale")
    {a, b} = {Tensor.typed(cond, "cond"), Tensor.typed(uncond, "uncond")}
    result(cond, Native.cfg_combine(a, b, Check.number(scale, "scale"), rescale))
  end

  @doc """
  The sinusoidal embedding of `t` `{batch}`: `{batch, dim}`, cosines first, `dim` even.

  ## Options

    * `:max_period` - default `10_000`

  ## Example

      iex> DGM.Tensor.to_list(DGM.timestep_embedding(DGM.Tensor.new([0]), 4))
      [[1.0, 1.0, 0.0, 0.0]]
  """
  @spec timestep_embedding(Tensor.input(), pos_integer, keyword) :: Tensor.input()
  def timestep_embedding(t, dim, opts \\ []) do
    period = Check.number(Check.keyword(opts, max_period: 10_000)[:max_period], "max_period")
    result(t, Native.timestep_embedding(Tensor.typed(t, "t"), Check.count(dim, "dim"), period))
  end

  @doc """
  Images `{batch, channels, height, width}` to tokens `{batch, tokens, channels * patch * patch}`,
  a token's elements in the order (channel, row, column).

      iex> x = DGM.Tensor.new([[[[1, 2], [3, 4]]]])
      iex> DGM.Tensor.to_list(DGM.patchify(x, 2))
      [[[1.0, 2.0, 3.0, 4.0]]]
  """
  @spec patchify(Tensor.input(), pos_integer) :: Tensor.input()
  def patchify(x, patch) do
    result(x, Native.patchify(Tensor.typed(x, "x"), Check.count(patch, "patch")))
  end

  @doc """
  Tokens `{batch, tokens, patch * patch * channels}`, in the order (row, column, channel), to
  images `{batch, channels, height, width}` of the given `{height, width}`.

      iex> x = DGM.Tensor.new([[[1, 2, 3, 4]]])
      iex> DGM.Tensor.to_list(DGM.unpatchify(x, 2, {2, 2}))
      [[[[1.0, 2.0], [3.0, 4.0]]]]
  """
  @spec unpatchify(Tensor.input(), pos_integer, {pos_integer, pos_integer}) :: Tensor.input()
  def unpatchify(x, patch, {height, width}) do
    {height, width} = {Check.count(height, "height"), Check.count(width, "width")}
    patch = Check.count(patch, "patch")
    result(x, Native.unpatchify(Tensor.typed(x, "x"), patch, height, width))
  end

  def unpatchify(_x, _patch, size), do: Check.fail("size", size, "{height, width}")

  defp result(like, answer), do: Tensor.like_typed(like, Native.value!(answer))
end
