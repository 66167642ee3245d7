defmodule DGM.Rbm do
  @moduledoc """
  Restricted Boltzmann machines: energies, block Gibbs chains, gradients of the likelihood.

  A machine of visible and hidden units that are 0 or 1 has the energy `E(v, h) = -b v - c h - v W h`, and
  `p(v, h)` in proportion to `exp(-E(v, h))`. A step of a chain draws `h` given `v`, then `v` given `h`; CD-k
  (Hinton 2002) takes k steps from the data, PCD (Tieleman 2008) goes on with the chains of the last update.

      iex> data = DGM.Tensor.new([[1, 1, 0], [0, 0, 1]])
      iex> rbm = DGM.Rbm.new(DGM.Tensor.new([[0.1, 0], [0.1, 0], [0, 0.1]]), DGM.Tensor.new([0, 0, 0]), DGM.Tensor.new([0, 0]))
      iex> chains = DGM.Rbm.gibbs(rbm, data, DGM.Random.row_seeds(1, 2), steps: 1)
      iex> gradient = DGM.Rbm.cd_gradient(rbm, data, chains)
      iex> {gradient.weights.shape, gradient.visible_bias.shape, gradient.hidden_bias.shape}
      {{3, 2}, {3}, {2}}

  A machine is immutable and may be used by any number of processes at once.
  """

  alias DGM.{Check, Native, Tensor}

  @enforce_keys [:resource, :visible, :hidden]
  defstruct [:resource, :visible, :hidden]

  @type t :: %__MODULE__{resource: reference, visible: pos_integer, hidden: pos_integer}

  @doc """
  A machine of `weights` `{visible, hidden}`, `visible_bias` `{visible}` and `hidden_bias` `{hidden}`, all finite.

      iex> rbm = DGM.Rbm.new(DGM.Tensor.new([[1, 2, 3]]), DGM.Tensor.new([0]), DGM.Tensor.new([0, 0, 0]))
      iex> {rbm.visible, rbm.hidden}
      {1, 3}
  """
  @spec new(Tensor.input(), Tensor.input(), Tensor.input()) :: t
  def new(weights, visible_bias, hidden_bias) do
    weights = Tensor.native(weights, "weights")
    visible_bias = Tensor.native(visible_bias, "visible_bias")
    hidden_bias = Tensor.native(hidden_bias, "hidden_bias")

    {resource, visible, hidden} =
      Native.value!(Native.rbm_new(weights, visible_bias, hidden_bias))

    %__MODULE__{resource: resource, visible: visible, hidden: hidden}
  end

  @doc """
  The probabilities that hidden units are on, `p(h = 1 | v)`: `{rows, hidden}` of `v` `{rows, visible}`, numbers
  from 0 to 1.

      iex> rbm = DGM.Rbm.new(DGM.Tensor.new([[200]]), DGM.Tensor.new([0]), DGM.Tensor.new([-100]))
      iex> DGM.Tensor.to_list(DGM.Rbm.hidden_probabilities(rbm, DGM.Tensor.new([[0.5], [1]])))
      [[0.5], [1.0]]
  """
  @spec hidden_probabilities(t, Tensor.input()) :: Tensor.t()
  def hidden_probabilities(rbm, v) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    answer = Native.rbm_hidden_probabilities(rbm.resource, Tensor.native(v, "v"))
    Tensor.like(v, Native.value!(answer))
  end

  @doc """
  The probabilities that visible units are on, `p(v = 1 | h)`: `{rows, visible}` of `h` `{rows, hidden}`, numbers
  from 0 to 1.
  """
  @spec visible_probabilities(t, Tensor.input()) :: Tensor.t()
  def visible_probabilities(rbm, h) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    answer = Native.rbm_visible_probabilities(rbm.resource, Tensor.native(h, "h"))
    Tensor.like(h, Native.value!(answer))
  end

  @doc """
  The free energy `F(v) = -b v - sum_j ln(1 + exp(c_j + sum_i v_i W_ij))`, a number a row of `v`, numbers from 0
  to 1: `p(v)` is in proportion to `exp(-F(v))`.

      iex> rbm = DGM.Rbm.new(DGM.Tensor.new([[2]]), DGM.Tensor.new([0.5]), DGM.Tensor.new([-1]))
      iex> [zero, one] = DGM.Rbm.free_energy(rbm, DGM.Tensor.new([[0], [1]]))
      iex> abs(zero + :math.log(1 + :math.exp(-1))) + abs(one + 0.5 + :math.log(1 + :math.exp(1))) < 1.0e-12
      true
  """
  @spec free_energy(t, Tensor.input()) :: [float]
  def free_energy(rbm, v) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    Native.value!(Native.rbm_free_energy(rbm.resource, Tensor.native(v, "v")))
  end

  @doc """
  The energy `E(v, h)`, a number a row; its negative is the log density that `DGM.Chains.replica_exchange/5` reads.

      iex> rbm = DGM.Rbm.new(DGM.Tensor.new([[2]]), DGM.Tensor.new([0.5]), DGM.Tensor.new([-1]))
      iex> DGM.Rbm.energy(rbm, DGM.Tensor.new([[1], [1]]), DGM.Tensor.new([[0], [1]]))
      [-0.5, -1.5]
  """
  @spec energy(t, Tensor.input(), Tensor.input()) :: [float]
  def energy(rbm, v, h) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    answer = Native.rbm_energy(rbm.resource, Tensor.native(v, "v"), Tensor.native(h, "h"))
    Native.value!(answer)
  end

  @doc """
  Chains `{rows, visible}`, 0 or 1, after some steps of block Gibbs sampling. Step `n` of a row is a function of its
  seed, `n`, its `v` and its temperature alone, so 3 and then 4 steps are 7.

  ## Options

    * `:first_step` - number of the first step, default 0
    * `:steps` - how many, default 1; they end at 2^31 at most
    * `:inverse_temperatures` - `T` numbers, not negative: row `r` is drawn from `p^beta`, `beta` that at
      `rem(r, T)`, which scales weights and both biases; default `[]`, 1 everywhere
    * `:hidden` - whether to return `{v, h}`, `h` the hidden units that the last `v` was drawn from; default `false`
  """
  @spec gibbs(t, Tensor.input(), [non_neg_integer], keyword) ::
          Tensor.t() | {Tensor.t(), Tensor.t()}
  def gibbs(rbm, v, seeds, opts \\ []) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    opts = Check.keyword(opts, first_step: 0, steps: 1, inverse_temperatures: [], hidden: false)
    steps = {Check.u32(opts[:first_step], "first_step"), Check.u32(opts[:steps], "steps")}
    betas = Check.numbers(opts[:inverse_temperatures], "inverse_temperatures")
    hidden = Check.boolean(opts[:hidden], "hidden")
    {native, seeds} = {Tensor.native(v, "v"), Check.seeds(seeds)}

    case Native.value!(Native.rbm_gibbs(rbm.resource, native, seeds, steps, betas, hidden)) do
      {chains, nil} -> Tensor.like(v, chains)
      {chains, h} -> {Tensor.like(v, chains), Tensor.like(v, h)}
    end
  end

  @doc """
  The gradient of the mean log likelihood of `v_data`, the expectations under the machine being those of
  `v_chain`: means of `v p(h | v)` over the data less those over the chains, and of `v` and of `p` for the biases.
  Adding it, times a learning rate, raises the likelihood. Both are `{rows, visible}`, numbers from 0 to 1, of at
  least one row.
  """
  @spec cd_gradient(t, Tensor.input(), Tensor.input()) :: %{
          weights: Tensor.t(),
          visible_bias: Tensor.t(),
          hidden_bias: Tensor.t()
        }
  def cd_gradient(rbm, v_data, v_chain) do
    rbm = Check.handle(rbm, __MODULE__, "rbm")
    {data, chain} = {Tensor.native(v_data, "v_data"), Tensor.native(v_chain, "v_chain")}
    {w, b, c} = Native.value!(Native.rbm_cd_gradient(rbm.resource, data, chain))

    %{
      weights: Tensor.like(v_data, w),
      visible_bias: Tensor.like(v_data, b),
      hidden_bias: Tensor.like(v_data, c)
    }
  end
end
