defmodule DGM do
  @moduledoc """
  Sampling and attention kernels of deep generative models, for the CPU: one engine, the same
  bits from Elixir, Rust, C and Julia, for any number of threads and any batch.

    * `DGM` - attention, norms, modulation, activations, embeddings, patches
    * `DGM.Linear` - packed linear layers
    * `DGM.Random` - counter-based noise
    * `DGM.Plan`, `DGM.Sampler` - sampling methods as tables, runs as values
    * `DGM.Dit` - diffusion transformers
    * `DGM.Telemetry` - the events it emits
    * `DGM.Tensor` - what goes in and comes out; `Nx` tensors do as well

  Every tensor argument may be a `DGM.Tensor` or an `Nx` tensor of type f32 (a mask: u8), mixed as you
  like. A result is of the kind of the first tensor argument: with `Nx` in, `Nx` comes out, at one copy
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
  to gives 0.

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
    options = Attention.options(opts)
    {nq, nk, nv} = {Tensor.native(q, "q"), Tensor.native(k, "k"), Tensor.native(v, "v")}
    call = fn -> Native.value!(Native.attention(nq, nk, nv, options)) end
    {out, lse} = Telemetry.span([:attention], %{q: elem(nq, 1), k: elem(nk, 1)}, call)
    if lse, do: {Tensor.like(q, out), Tensor.like(q, lse)}, else: Tensor.like(q, out)
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
    {nq, nk, nv} = {Tensor.native(q, "q"), Tensor.native(k, "k"), Tensor.native(v, "v")}
    {a, b} = {Check.counts(q_offsets, "q_offsets"), Check.counts(kv_offsets, "kv_offsets")}
    call = fn -> Native.value!(Native.attention_varlen(nq, nk, nv, a, b, options)) end
    {out, lse} = Telemetry.span([:attention_varlen], %{q: elem(nq, 1), k: elem(nk, 1)}, call)
    if lse, do: {Tensor.like(q, out), Tensor.like(q, lse)}, else: Tensor.like(q, out)
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
    weight = Tensor.native_or_nil(opts[:weight], "weight")
    bias = Tensor.native_or_nil(opts[:bias], "bias")
    eps = Check.number(opts[:eps], "eps")
    result(x, Native.layer_norm(Tensor.native(x, "x"), weight, bias, eps))
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
    weight = Tensor.native_or_nil(opts[:weight], "weight")
    result(x, Native.rms_norm(Tensor.native(x, "x"), weight, Check.number(opts[:eps], "eps")))
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
    {shift, scale} = {Tensor.native(shift, "shift"), Tensor.native(scale, "scale")}
    result(x, Native.modulate(Tensor.native(x, "x"), shift, scale))
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
    {shift, scale} = {Tensor.native(shift, "shift"), Tensor.native(scale, "scale")}
    result(x, Native.layer_norm_modulate(Tensor.native(x, "x"), shift, scale, eps))
  end

  @doc """
  `residual + gate * y` with `residual` and `y` `{batch, tokens, d}`, `gate` `{batch, d}`.

      iex> one = DGM.Tensor.new([[[1, 1]]])
      iex> DGM.Tensor.to_list(DGM.gate_residual(one, one, DGM.Tensor.new([[2, 3]])))
      [[[3.0, 4.0]]]
  """
  @spec gate_residual(Tensor.input(), Tensor.input(), Tensor.input()) :: Tensor.input()
  def gate_residual(residual, y, gate) do
    {ny, gate} = {Tensor.native(y, "y"), Tensor.native(gate, "gate")}
    result(residual, Native.gate_residual(Tensor.native(residual, "residual"), ny, gate))
  end

  @doc """
  `x * sigmoid(x)`, elementwise.

      iex> DGM.Tensor.to_list(DGM.silu(DGM.Tensor.new([0])))
      [0.0]
  """
  @spec silu(Tensor.input()) :: Tensor.input()
  def silu(x), do: result(x, Native.silu(Tensor.native(x, "x")))

  @doc """
  The Gaussian error linear unit, elementwise.

  ## Options

    * `:kind` - `:tanh` (the approximation, default) or `:erf` (exact)
  """
  @spec gelu(Tensor.input(), keyword) :: Tensor.input()
  def gelu(x, opts \\ []) do
    kind = Check.name(Check.keyword(opts, kind: :tanh)[:kind], "kind")
    result(x, Native.gelu(Tensor.native(x, "x"), kind))
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
    result(t, Native.timestep_embedding(Tensor.native(t, "t"), Check.count(dim, "dim"), period))
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
    result(x, Native.patchify(Tensor.native(x, "x"), Check.count(patch, "patch")))
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
    result(x, Native.unpatchify(Tensor.native(x, "x"), patch, height, width))
  end

  def unpatchify(_x, _patch, size), do: Check.fail("size", size, "{height, width}")

  defp result(like, answer), do: Tensor.like(like, Native.value!(answer))
end
