defmodule DGM.Scheduler do
  @moduledoc """
  Every sampler of the engine in the shape of Bumblebee's schedulers: `init/4` and `step/4` around a
  state, for loops that were written for those.

      iex> scheduler = DGM.Scheduler.new(solver: :heun)
      iex> sample = DGM.Random.normal([1, 2], 3, purpose: :initial)
      iex> {state, timesteps} = DGM.Scheduler.init(scheduler, 4, sample, 7)
      iex> {_state, result} =
      ...>   for _t <- DGM.Tensor.to_flat_list(timesteps), reduce: {state, sample} do
      ...>     {state, sample} ->
      ...>       # The network: here a velocity of 1 everywhere.
      ...>       y = DGM.Tensor.new(List.duplicate(1.0, 6), {2, 3})
      ...>       DGM.Scheduler.step(scheduler, state, sample, y)
      ...>   end
      iex> moved = Enum.zip(DGM.Tensor.to_flat_list(sample), DGM.Tensor.to_flat_list(result))
      iex> Enum.all?(moved, fn {from, to} -> abs(from - to - 1) < 1.0e-6 end)
      true

  Tensors are `DGM.Tensor`s or `Nx` tensors; results are of the kind that `init/4` was given. A method
  that asks several times a step has so many timesteps: after every evaluation `step/4` gives what
  the network must read next, after the last one the result.

  What differs from Bumblebee: the functions call native code, so they stand between the calls of a
  compiled network and not inside `defn` (for tensors that never leave the device see
  `DGM.Plan.operations/2`); noise is a function of the row's seed, so that a row is the same in any
  batch; the times are those of the process (0 to 1 for `:flow`).
  """

  alias DGM.{Check, Plan, Sampler, Tensor}

  @enforce_keys [:options]
  defstruct [:options]

  @typedoc "The options of a plan."
  @type t :: %__MODULE__{options: keyword}

  @typedoc "Where a walk is. Opaque."
  @opaque state :: %{
            plan: Plan.t(),
            seeds: [non_neg_integer],
            shape: [non_neg_integer],
            outputs: 1 | 2,
            run: DGM.Run.t() | nil
          }

  @typedoc "A number, or a key of `Nx.Random`: two `u32`, for the batch or for each row of it."
  @type key :: non_neg_integer | Tensor.input() | struct

  # Networks that read another tensor than the sample, and answers that come in pairs.
  @scaled [:edm, :edm_v, :trigflow, :consistency]

  @doc """
  A scheduler of the options of `DGM.Plan.compile/1`. `:steps` is only what they are checked with:
  `init/4` decides.

  `ArgumentError` for what has no meaning here: guidance (it is applied to the prediction before
  `step/4`), steps that depend on the data (`:bosh3`, `:dopri5`, `:tsit5`,
  `:dpm_12`, `:dpm_23`), networks that read a scaled sample, `:inpaint`.
  """
  @spec new(keyword) :: t
  def new(opts \\ []) do
    opts = Check.keyword(opts, Plan.defaults())
    _checked = Plan.compile(opts)

    refuse = fn key, values, why ->
      if opts[key] in values, do: Check.fail(Atom.to_string(key), opts[key], why)
    end

    refuse.(:solver, [:bosh3, :dopri5, :tsit5, :dpm_12, :dpm_23], "a solver with fixed steps")
    refuse.(:prediction, @scaled, "a prediction that reads the sample as it is")
    refuse.(:inpaint, [true], "false")

    if opts[:guidance] != 1,
      do: Check.fail("guidance", opts[:guidance], "1: guide the prediction")

    %__MODULE__{options: opts}
  end

  @doc """
  The state before the first step of a walk of `num_steps`, and the model times of all evaluations.

  `sample` has the shape of the samples, `{rows, ...}`; its numbers are not read. `prng_key` decides all
  noise that the steps add.
  """
  @spec init(t, pos_integer, Tensor.input(), key) :: {state, Tensor.input()}
  def init(%__MODULE__{options: options}, num_steps, sample, prng_key) do
    steps = Check.count(num_steps, "num_steps")
    plan = Plan.compile(Keyword.put(options, :steps, steps))
    {_data, shape} = floats(sample, "sample")

    {rows, elements} =
      case shape do
        [rows | dims] when rows > 0 -> {rows, Enum.product(dims)}
        _ -> Check.fail("sample", List.to_tuple(shape), "the shape {rows, ...}")
      end

    seeds = seeds(prng_key, rows)
    times = times(Sampler.start_detached(plan, seeds, elements))
    timesteps = {for(t <- times, into: <<>>, do: <<t::float-32-native>>), {length(times)}}
    outputs = if options[:variance] == :learned_range, do: 2, else: 1
    state = %{plan: plan, seeds: seeds, shape: shape, outputs: outputs, run: nil}
    {state, Tensor.like(sample, timesteps)}
  end

  def init(other, _num_steps, _sample, _prng_key),
    do: Check.fail("scheduler", other, "a %DGM.Scheduler{}")

  @doc """
  The state and the sample after a prediction.

  `prediction` is the output of the network for `sample` at the timestep that is due. A sample that was
  changed since the last step is taken as it is.
  """
  @spec step(t, state, Tensor.input(), Tensor.input()) :: {state, Tensor.input()}
  def step(%__MODULE__{}, %{plan: _, run: _} = state, sample, prediction) do
    {data, shape} = floats(sample, "sample")

    if shape != state.shape,
      do: Check.fail("sample", List.to_tuple(shape), "the shape #{inspect(state.shape)}")

    {y, y_shape} = floats(prediction, "prediction")

    if byte_size(y) != state.outputs * byte_size(data),
      do:
        Check.fail(
          "prediction",
          List.to_tuple(y_shape),
          "#{state.outputs} numbers for each of the sample"
        )

    run = state.run || begin_at(state, data)

    case Sampler.ask(run) do
      :done ->
        Check.fail("state", :done, "a state with steps left")

      {:eval, request} ->
        next = run |> put(request.slot, data) |> Sampler.tell(request.eval_id, y)
        {%{state | run: next}, Tensor.like(sample, {due(next), List.to_tuple(shape)})}
    end
  end

  def step(%__MODULE__{}, other, _sample, _prediction),
    do: Check.fail("state", other, "a state of init/4 or step/4")

  def step(other, _state, _sample, _prediction),
    do: Check.fail("scheduler", other, "a %DGM.Scheduler{}")

  defp floats(tensor, name) do
    {data, shape} = Tensor.native(tensor, name)

    if byte_size(data) != 4 * Enum.product(shape),
      do: Check.fail(name, byte_size(data), "the bytes of #{inspect(List.to_tuple(shape))} f32")

    {data, shape}
  end

  defp begin_at(state, data) do
    elements = div(byte_size(data), 4 * length(state.seeds))
    x = %Tensor{data: data, shape: {length(state.seeds), elements}}
    Sampler.start(state.plan, state.seeds, elements, x: x)
  end

  # What the network reads next, or the result.
  defp due(run) do
    case Sampler.ask(run) do
      :done -> Sampler.result(run).data
      {:eval, _request} -> Sampler.input(run)
    end
  end

  defp put(run, slot, data) do
    if data == Sampler.input(run) do
      run
    else
      before = slot * byte_size(data)
      <<head::binary-size(before), _::binary-size(byte_size(data)), tail::binary>> = run.state
      %{run | state: IO.iodata_to_binary([head, data, tail])}
    end
  end

  defp times(run) do
    case Sampler.ask(run) do
      :done -> []
      {:eval, request} -> [request.t | times(Sampler.advance(run, request.eval_id))]
    end
  end

  defp seeds(key, rows) when is_integer(key),
    do: DGM.Random.row_seeds(Check.u64(key, "prng_key"), rows)

  defp seeds(%{__struct__: Nx.Tensor} = key, rows) do
    words = if Nx.type(key) == {:u, 32}, do: for(<<w::32-native <- Nx.to_binary(key)>>, do: w)

    case words && Enum.chunk_every(words, 2) do
      [[high, low]] -> DGM.Random.row_seeds(high * 0x100000000 + low, rows)
      keys when length(keys) == rows -> for [high, low] <- keys, do: high * 0x100000000 + low
      _ -> Check.fail("prng_key", key, "a number, or a key of Nx.Random, one or one a row")
    end
  end

  defp seeds(other, _rows),
    do: Check.fail("prng_key", other, "a number, or a key of Nx.Random, one or one a row")
end
