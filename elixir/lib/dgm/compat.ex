defmodule DGM.Compat do
  @moduledoc """
  The random numbers of PyTorch, NumPy, JAX, `Nx.Random` and torchsde, so that a pipeline's starting
  noise can be had again without it.

  A generator is a value. A draw returns the numbers, a binary of native f32 in row-major order, and the
  generator after it; one draw is one tensor there, in the same order:

      iex> rng = DGM.Compat.new(:torch_cpu, 0)               # torch.manual_seed(0)
      iex> {noise, _rng} = DGM.Compat.normal(rng, {4})       # torch.randn(4)
      iex> for <<x::float-32-native <- noise>>, do: Float.round(x, 4)
      [1.541, -0.2934, -2.1788, 0.5684]

  The noise starts a run as `x:` of `DGM.Sampler.start/4`:

      iex> {noise, _} = DGM.Compat.normal(DGM.Compat.new(:torch_cpu, 0), {2, 1, 4, 4})
      iex> run = DGM.Sampler.start(DGM.Plan.compile(steps: 4), [1, 2], 16, x: DGM.Tensor.new(noise, {2, 16}))
      iex> DGM.Sampler.result(run).data == noise
      true

  ## Algorithms

    * `:torch_cpu` - PyTorch on the CPU: `torch.randn`, `torch.rand`
    * `:torch_cuda` - PyTorch on CUDA devices: `torch.randn` in f32, for as many numbers as the device runs
      threads at once
    * `:numpy_pcg64` - `numpy.random.default_rng(seed)`: `standard_normal`, `random`
    * `:numpy_philox` - `numpy.random.Generator(numpy.random.Philox(seed))`
    * `:numpy_random_state` - `numpy.random.seed(seed)` and `RandomState(seed)`: `randn`, `random_sample`; seeds
      below 2^32

  `docs/NUMERICS.md` says how near the numbers are.

  JAX and Nx have keys instead, two words: `jax_key/1`, `jax_split/3`, `jax_fold_in/2`,
  `jax_normal/3`, `jax_uniform/3`, whose option `:layout` is

    * `:partitionable` (default) - JAX with `jax_threefry_partitionable`, its default
    * `:original` - JAX without
    * `:nx` - `Nx.Random`
  """

  alias DGM.{Check, Native}

  @enforce_keys [:algorithm, :state]
  defstruct [:algorithm, :state]

  @type t :: %__MODULE__{algorithm: atom, state: binary}
  @type key :: {non_neg_integer, non_neg_integer}
  @type shape :: non_neg_integer | tuple

  @algorithms [:torch_cpu, :torch_cuda, :numpy_pcg64, :numpy_philox, :numpy_random_state]

  @doc "The algorithms of `new/2`."
  @spec algorithms() :: [atom]
  def algorithms, do: @algorithms

  @doc """
  A generator at the start of the stream of a seed, as `torch.manual_seed(seed)` and the like make it.
  """
  @spec new(atom, non_neg_integer) :: t
  def new(algorithm, seed) do
    name = Check.name(algorithm, "algorithm")
    state = Native.value!(Native.compat_new(name, Check.u64(seed, "seed")))
    %__MODULE__{algorithm: algorithm, state: state}
  end

  @doc """
  The next tensor of normal numbers and the generator after it. With `type: {:f, 64}` the numbers are f64.
  """
  @spec normal(t, shape, keyword) :: {binary, t}
  def normal(rng, shape, opts \\ []), do: draw(rng, shape, opts, true)

  @doc "The next tensor of uniform numbers in [0, 1), as `normal/3`."
  @spec uniform(t, shape, keyword) :: {binary, t}
  def uniform(rng, shape, opts \\ []), do: draw(rng, shape, opts, false)

  defp draw(%__MODULE__{state: state} = rng, shape, opts, normal) when is_binary(state) do
    wide =
      case Check.keyword(opts, type: {:f, 32})[:type] do
        {:f, 32} -> false
        {:f, 64} -> true
        other -> Check.fail("type", other, "{:f, 32} or {:f, 64}")
      end

    {numbers, state} = Native.value!(Native.compat_draw(state, normal, wide, count(shape)))
    {numbers, %{rng | state: state}}
  end

  defp draw(other, _shape, _opts, _normal), do: Check.fail("rng", other, "a %DGM.Compat{}")

  @doc "A generator as bytes, the same on every machine and in every language of the engine."
  @spec to_binary(t) :: binary
  def to_binary(%__MODULE__{state: state}) when is_binary(state), do: state
  def to_binary(other), do: Check.fail("rng", other, "a %DGM.Compat{}")

  @doc """
  The generator of `to_binary/1`. Bytes that are no state of a generator are an error.

      iex> rng = DGM.Compat.new(:numpy_pcg64, 1)
      iex> {:ok, ^rng} = DGM.Compat.from_binary(DGM.Compat.to_binary(rng))
      iex> {:error, %DGM.Error{}} = DGM.Compat.from_binary("no state")
  """
  @spec from_binary(binary) :: {:ok, t} | {:error, DGM.Error.t()}
  def from_binary(bytes) when is_binary(bytes) do
    with {:ok, name} <- Native.tuple(Native.compat_algorithm(bytes)),
         do:
           {:ok,
            %__MODULE__{algorithm: String.to_existing_atom(name), state: :binary.copy(bytes)}}
  end

  def from_binary(other), do: Check.fail("bytes", other, "a binary")

  @doc """
  The noise of torchsde's Brownian tree between two times, one path a seed, `{rows, elements}` f32.

  As `BrownianTreeNoiseSampler` of k-diffusion with a list of seeds; with one seed for a batch there, give the
  batch as one row. `ends` are the ends of the tree (the lowest and the highest noise level), `between`
  the times of the step. With `normalized: false` it is the increment `W(tb) - W(ta)` itself.

      iex> noise = DGM.Compat.brownian([3], 16, {0.03, 14.6}, {5.0, 0.7})
      iex> byte_size(noise)
      64
  """
  @spec brownian([non_neg_integer], non_neg_integer, {number, number}, {number, number}, keyword) ::
          binary
  def brownian(seeds, elements, ends, between, opts \\ []) do
    normalized = Check.boolean(Check.keyword(opts, normalized: true)[:normalized], "normalized")
    {seeds, elements} = {Check.seeds(seeds), Check.count(elements, "elements")}
    {ends, between} = {pair(ends, "ends"), pair(between, "between")}
    Native.value!(Native.compat_brownian(seeds, elements, ends, between, normalized))
  end

  @doc """
  `jax.random.PRNGKey(seed)`, `Nx.Random.key(seed)`.

      iex> DGM.Compat.jax_key(999999999999)
      {232, 3567587327}
  """
  @spec jax_key(non_neg_integer) :: key
  def jax_key(seed), do: Native.compat_jax_key(Check.u64(seed, "seed"))

  @doc "`jax.random.fold_in(key, data)`."
  @spec jax_fold_in(key, non_neg_integer) :: key
  def jax_fold_in(key, data), do: Native.compat_jax_fold_in(key(key), Check.u32(data, "data"))

  @doc """
  `jax.random.split(key, count)`, `Nx.Random.split(key, count)`.

      iex> DGM.Compat.jax_split(DGM.Compat.jax_key(1701), 2, layout: :nx)
      [{56197195, 1801093307}, {961309823, 1704866707}]
  """
  @spec jax_split(key, non_neg_integer, keyword) :: [key]
  def jax_split(key, count, opts \\ []) do
    count = Check.count(count, "count")
    Native.value!(Native.compat_jax_split(key(key), layout(opts), count))
  end

  @doc "`jax.random.normal(key, shape)`, `Nx.Random.normal(key, shape: shape)`, f32."
  @spec jax_normal(key, shape, keyword) :: binary
  def jax_normal(key, shape, opts \\ []), do: jax(key, shape, opts, true)

  @doc "`jax.random.uniform(key, shape)`, `Nx.Random.uniform(key, shape: shape)`, f32."
  @spec jax_uniform(key, shape, keyword) :: binary
  def jax_uniform(key, shape, opts \\ []), do: jax(key, shape, opts, false)

  defp jax(key, shape, opts, normal),
    do: Native.value!(Native.compat_jax_draw(key(key), layout(opts), normal, count(shape)))

  defp layout(opts),
    do: Check.name(Check.keyword(opts, layout: :partitionable)[:layout], "layout")

  defp key({a, b}), do: {Check.u32(a, "key"), Check.u32(b, "key")}
  defp key(other), do: Check.fail("key", other, "{word, word}")

  defp pair({a, b}, name), do: {Check.number(a, name), Check.number(b, name)}
  defp pair(other, name), do: Check.fail(name, other, "{number, number}")

  defp count(shape) when is_tuple(shape) do
    product = shape |> Tuple.to_list() |> Check.counts("shape") |> Enum.product()
    Check.count(product, "shape")
  end

  defp count(shape), do: Check.count(shape, "shape")

  defimpl Inspect do
    def inspect(rng, _opts), do: "#DGM.Compat<#{rng.algorithm}>"
  end
end
