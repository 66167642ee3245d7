defmodule DGM.Sampler do
  @moduledoc """
  Sampling by ask and tell: the run asks for your model's output, you tell it, until it is done.

      iex> plan = DGM.Plan.compile(solver: :euler, steps: 4)
      iex> run = DGM.Sampler.start(plan, DGM.Random.row_seeds(1, 2), 3)
      iex> {:eval, request} = DGM.Sampler.ask(run)
      iex> y = DGM.Sampler.input(run)
      iex> next = DGM.Sampler.tell(run, request.eval_id, y)
      iex> {:eval, %DGM.Request{step: 1}} = DGM.Sampler.ask(next)
      iex> {:eval, %DGM.Request{step: 0}} = DGM.Sampler.ask(run)
      iex> :ok
      :ok

  All functions are pure: `tell/3` returns the next run and leaves the one it was given as it
  was. The model is whatever you call between `ask/1` and `tell/3`, in any process, on any
  node; a run can be stopped, exported and finished elsewhere, with the same bits.
  """

  alias DGM.{Check, GaussianMixture, Native, Plan, Request, Run, Telemetry, Tensor}

  # Calls take time in proportion to the bytes they read. Below this it is some 0.1 milliseconds at most,
  # and they run on the scheduler of their process; above they must not hold it up and go to a dirty one,
  # which costs microseconds, on a machine whose cores are all busy milliseconds.
  @small 65_536

  # What a NIF answers: the one on a normal scheduler where the header is small, else its twin on a dirty one.
  defmacrop look(run, nif, args) do
    quote do
      answer =
        if byte_size(unquote(run).header) < @small,
          do: Native.unquote(nif)(unquote_splicing(args)),
          else: Native.unquote(:"#{nif}_long")(unquote_splicing(args))

      Native.value!(answer)
    end
  end

  @typedoc """
  A model as a function of the request, the input (f32 binary of `rows * elements` numbers) and
  the time of each row (f32 binary); returns the output as a binary, a `DGM.Tensor` or an `Nx`
  tensor with as many elements as the input. Or a `DGM.GaussianMixture`.
  """
  @type model :: (Request.t(), binary, binary -> answer) | DGM.GaussianMixture.t()

  @typedoc """
  An output, or with a `:likelihood` a tuple of it and of a list of numbers, one a row.
  """
  @type answer :: binary | Tensor.input() | {binary | Tensor.input(), [number]}

  @doc """
  Starts a run of `length(seeds)` rows of `elements` numbers.

  Row r starts from noise that is a function of its seed alone.

  ## Options

    * `:x` - start from these `rows * elements` numbers instead of noise (a tensor)
    * `:data` - start from these numbers, noised to the first level of the plan (image to image)
    * `:known`, `:mask` - see `set_known/3`
  """
  @spec start(Plan.t(), [non_neg_integer], pos_integer, keyword) :: Run.t()
  def start(plan, seeds, elements, opts \\ []) do
    opts = Check.keyword(opts, x: nil, data: nil, known: nil, mask: nil)
    [x, data] = for key <- [:x, :data], do: Tensor.native_or_nil(opts[key], Atom.to_string(key))
    if x && data, do: Check.fail("data", :set, "nil beside x")
    {seeds, elements} = {Check.seeds(seeds), Check.count(elements, "elements")}

    run =
      new(plan, Native.value!(Native.run_start(Plan.resource(plan), seeds, elements, x, data)))

    if opts[:known] || opts[:mask],
      do: set_known(run, opts[:known], opts[:mask]),
      else: run
  end

  @doc """
  Starts a run whose tensors are the caller's, on any device: `plan.slots` of them, the first one
  `DGM.Random.normal/3` of the seeds with purpose `:initial` times the sigma of the first request, the
  rest 0.

  Apply `DGM.Plan.operations/2` of 0; then ask, evaluate the model on tensor `request.slot`, apply the
  operations of `request.eval_id`, and go on with `advance/2`. Here the tensors are lists:

      iex> plan = DGM.Plan.compile(solver: :euler, steps: 4)
      iex> run = DGM.Sampler.start_detached(plan, [1, 2], 3)
      iex> step = fn {:eval, request}, x ->
      ...>   y = Enum.map(x, &(&1 / request.t))
      ...>   [%{terms: terms}] = DGM.Plan.operations(plan, request.eval_id)
      ...>   for {x, y} <- Enum.zip(x, y) do
      ...>     Enum.reduce(terms, 0.0, fn {source, c, nil}, sum ->
      ...>       sum + c * if(source == :output, do: y, else: x)
      ...>     end)
      ...>   end
      ...> end
      iex> {run, x} = Enum.reduce(1..4, {run, [1.0, 2.0, 3.0]}, fn id, {run, x} ->
      ...>   x = step.(DGM.Sampler.ask(run), x)
      ...>   {DGM.Sampler.advance(run, id), x}
      ...> end)
      iex> {DGM.Sampler.ask(run), Enum.all?(x, &(abs(&1) < 1.0e-9))}
      {:done, true}

  With `%{run | state: binary}`, the tensors as f32 one after the other, it continues by `tell/3`.
  """
  @spec start_detached(Plan.t(), [non_neg_integer], pos_integer) :: Run.t()
  def start_detached(plan, seeds, elements) do
    {seeds, elements} = {Check.seeds(seeds), Check.count(elements, "elements")}
    answer = Native.run_start_detached(Plan.resource(plan), seeds, elements)
    {header, rows, elements} = Native.value!(answer)
    new(plan, {header, "", rows, elements})
  end

  @doc """
  The run after the caller has applied the operations of `eval_id` to tensors of its own.
  """
  @spec advance(Run.t(), non_neg_integer) :: Run.t()
  def advance(run, eval_id) do
    run = check(run)
    id = Check.u64(eval_id, "eval_id")
    %{run | header: look(run, :run_advance, [run.plan.resource, run.header, id])}
  end

  @doc """
  The run with parts of its result known, for plans compiled with `inpaint: true`.

  After every step x becomes `known`, noised to the level of the step, where `mask` is 1, and stays
  where it is 0; both are tensors of `rows * elements` numbers. The noise is that of the row's
  seed, in a stream of its own.

      iex> plan = DGM.Plan.compile(prediction: :x0, steps: 3, inpaint: true)
      iex> zeros = fn _request, x, _t -> :binary.copy(<<0>>, byte_size(x)) end
      iex> {known, mask} = {DGM.Tensor.new([[3.0, 4.0]]), DGM.Tensor.new([[1.0, 0.0]])}
      iex> run = DGM.Sampler.start(plan, [1], 2, known: known, mask: mask)
      iex> run |> DGM.Sampler.finish(zeros) |> DGM.Sampler.result() |> DGM.Tensor.to_list()
      [[3.0, 0.0]]
  """
  @spec set_known(Run.t(), Tensor.input(), Tensor.input()) :: Run.t()
  def set_known(run, known, mask) do
    run = check(run)
    [known, mask] = [Tensor.native(known, "known"), Tensor.native(mask, "mask")]
    args = [run.plan.resource, run.header, run.state, known, mask]
    %{run | state: Native.value!(apply(&Native.run_set_known/5, args))}
  end

  @doc """
  What the run needs next: `{:eval, request}`, or `:done`.
  """
  @spec ask(Run.t()) :: {:eval, Request.t()} | :done
  def ask(run) do
    run = check(run)

    case look(run, :run_ask, [run.plan.resource, run.header]) do
      :done ->
        :done

      {id, step, stage, role, roles, t, sigma, alpha, rows, elements, active, uniform, to, slot} ->
        request = %Request{
          eval_id: id,
          step: step,
          stage: stage,
          role: role,
          roles: roles(roles),
          t: t,
          sigma: sigma,
          alpha: alpha,
          rows: rows,
          elements: elements,
          active_rows: active,
          uniform_t: uniform,
          t_to: to,
          slot: slot
        }

        {:eval, request}
    end
  end

  # The lists of every set of roles, made when this module is compiled.
  for bits <- 1..7 do
    roles =
      for {role, bit} <- [cond: 1, uncond: 2, weak: 4], Bitwise.band(bits, bit) != 0, do: role

    defp roles(unquote(bits)), do: unquote(roles)
  end

  @doc """
  The numbers that the model must read, `rows * elements` f32: a part of the state, not a copy.
  """
  @spec input(Run.t()) :: binary
  def input(run) do
    run = check(run)
    look(run, :run_input, [run.plan.resource, run.header, run.state])
  end

  @doc """
  The model time of each row, `rows` f32.
  """
  @spec times(Run.t()) :: binary
  def times(run) do
    run = check(run)
    look(run, :run_times, [run.plan.resource, run.header])
  end

  @doc """
  Answers the request `eval_id` with the model's output `y` and returns the next run.

  With a `:likelihood` the answer is a tuple `{y, numbers}`, a list with a number a row, see
  `log_density/1`.

  With guidance, `y` may hold the outputs of several requests one after the other, those of the request's
  `:roles`: a model is then called once with a batch of twice the rows, and the state is walked through once, to
  the same bits.

      iex> plan = DGM.Plan.compile(steps: 1, guidance: 3)
      iex> run = DGM.Sampler.start(plan, [7], 2, x: DGM.Tensor.new([[1.0, 2.0]]))
      iex> {:eval, %{eval_id: id, roles: [:cond, :uncond]}} = DGM.Sampler.ask(run)
      iex> run = DGM.Sampler.tell(run, id, DGM.Tensor.new([[[0.5, 0.5]], [[0.25, 0.25]]]))
      iex> {DGM.Sampler.ask(run), DGM.Tensor.to_list(DGM.Sampler.result(run))}
      {:done, [[0.0, 1.0]]}

  The next state is written to memory of its own, in one pass over everything up to the next request that reads
  `y` once and looks at it while it computes. Where header, state and
  `y` have less than 64 KiB together it runs on a normal scheduler, else on a dirty one; a state of 1 MiB or
  more lies in memory that is used again when the binary is garbage. Raises
  `ArgumentError` when `y` has the wrong size and `DGM.Error` of kind `:state` when `eval_id`
  is not the one asked for or `y` has a value that is not finite.
  """
  @spec tell(Run.t(), non_neg_integer, answer) :: Run.t()
  def tell(run, eval_id, answer)

  def tell(run, eval_id, {y, numbers}) when is_list(numbers) do
    numbers = Enum.map(numbers, &number/1)

    next(
      run,
      eval_id,
      y,
      &Native.run_tell_with(&1.plan.resource, &1.header, &1.state, &2, &3, numbers)
    )
  end

  def tell(run, eval_id, y), do: next(run, eval_id, y, &told/3)

  defp next(run, eval_id, y, nif) do
    run = check(run)
    {id, y} = {Check.u64(eval_id, "eval_id"), Tensor.bytes(y, "y")}

    call = fn -> Native.value!(nif.(run, id, y)) end
    metadata = %{rows: run.rows, elements: run.elements, eval_id: id}
    {header, state} = Telemetry.span([:sampler, :tell], metadata, call)
    %{run | header: header, state: state}
  end

  defp told(%Run{plan: plan, header: header, state: state}, id, y) do
    if byte_size(header) + byte_size(state) + byte_size(y) < @small,
      do: Native.run_tell(plan.resource, header, state, id, y),
      else: Native.run_tell_long(plan.resource, header, state, id, y)
  end

  defp number(number) when is_number(number), do: number / 1
  defp number(other), do: Check.fail("numbers", other, "numbers")

  @doc """
  Says which rows take a step from now on, for plans compiled with `per_row: true`: one boolean a row,
  at first all true.

  The others stay where they are, at their own time (`times/1`), and may be told anything: Diffusion
  Forcing, pyramids, rows that wait. A row's numbers do not depend on when it moves. Called between
  steps; inside one it raises `DGM.Error` of kind `:state`.

      iex> plan = DGM.Plan.compile(steps: 4, per_row: true)
      iex> run = DGM.Sampler.start(plan, [1, 2], 3)
      iex> step = fn run -> DGM.Sampler.tell(run, DGM.Sampler.stats(run).evals + 1, DGM.Sampler.input(run)) end
      iex> run = run |> DGM.Sampler.select([true, false]) |> step.()
      iex> run = run |> DGM.Sampler.select([true, true]) |> step.()
      iex> DGM.Sampler.row_steps(run)
      [2, 1]
  """
  @spec select(Run.t(), [boolean]) :: Run.t()
  def select(run, rows) do
    run = check(run)
    rows = Check.booleans(rows, "rows")
    %{run | header: look(run, :run_select, [run.plan.resource, run.header, rows])}
  end

  @doc """
  Declares rows finished, for plans compiled with `per_row: true`: one boolean a row.

  Their numbers stay and their time is the last one: parts that are known, which the model reads
  beside the rest.

      iex> plan = DGM.Plan.compile(steps: 4, per_row: true)
      iex> run = DGM.Sampler.start(plan, [1, 2], 3)
      iex> run |> DGM.Sampler.finish_rows([true, false]) |> DGM.Sampler.row_steps()
      [4, 0]
  """
  @spec finish_rows(Run.t(), [boolean]) :: Run.t()
  def finish_rows(run, rows) do
    run = check(run)
    rows = Check.booleans(rows, "rows")
    %{run | header: look(run, :run_finish_rows, [run.plan.resource, run.header, rows])}
  end

  @doc """
  Steps that every row has finished: those of the plan where it is done.
  """
  @spec row_steps(Run.t()) :: [non_neg_integer]
  def row_steps(run) do
    run = check(run)
    look(run, :run_row_steps, [run.plan.resource, run.header])
  end

  @doc """
  Which rows of the answer to the current request are used.
  """
  @spec row_active(Run.t()) :: [boolean]
  def row_active(run) do
    run = check(run)
    look(run, :run_row_active, [run.plan.resource, run.header])
  end

  @doc """
  The sample, `{rows, elements}`; before the run is done, what it is by now.
  """
  @spec result(Run.t()) :: Tensor.t()
  def result(run) do
    run = check(run)
    data = look(run, :run_result, [run.plan.resource, run.header, run.state])
    %Tensor{data: data, shape: {run.rows, run.elements}}
  end

  @doc """
  The sample at the times of the plan's `:save_at`, `{times, rows, elements}`; zeros where a row has not
  come yet.

      iex> plan = DGM.Plan.compile(process: :ode, solver: :tsit5, save_at: [0, 0.5, 1])
      iex> run = DGM.Sampler.start(plan, [1], 1, x: DGM.Tensor.new([[1.0]]))
      iex> run = DGM.Sampler.finish(run, fn _request, x, _times -> x end)
      iex> [[[1.0]], [[half]], [[end_]]] = DGM.Tensor.to_list(DGM.Sampler.saved(run))
      iex> {Float.round(half, 3), Float.round(end_, 3)}
      {1.649, 2.718}
  """
  @spec saved(Run.t()) :: Tensor.t()
  def saved(run) do
    run = check(run)
    data = Native.value!(Native.run_saved(run.plan.resource, run.header, run.state))
    times = div(byte_size(data), 4 * run.rows * run.elements)
    %Tensor{data: data, shape: {times, run.rows, run.elements}}
  end

  @doc """
  The probes e of Hutchinson's estimate, `{rows, elements}`, one a row for the whole walk, of plans with
  `likelihood: :hutchinson` or `:hutchinson_normal`: the number to tell is `e^T J e` with the Jacobian J of
  the model at its input.
  """
  @spec probe(Run.t()) :: Tensor.t()
  def probe(run) do
    run = check(run)
    data = Native.value!(Native.run_probe(run.plan.resource, run.header))
    %Tensor{data: data, shape: {run.rows, run.elements}}
  end

  @doc """
  The integral of the divergence over the time walked, a number a row: a sample walked from standard
  normals has their log density less this.
  """
  @spec divergence(Run.t()) :: [float]
  def divergence(run) do
    run = check(run)
    Native.value!(Native.run_divergence(run.plan.resource, run.header))
  end

  @doc """
  The log density of what a finished run started from, a number a row, when what it ends with is standard
  normal.

  The plan has the process `:ode` and a `:likelihood`. The model answers `{f, numbers}`: with `:exact` the
  divergence of f in every row, else its estimate with `probe/1`.

      iex> plan = DGM.Plan.compile(process: :ode, solver: :dopri5, likelihood: :exact, rtol: 1.0e-6, atol: 1.0e-6)
      iex> run = DGM.Sampler.start(plan, [1], 1, x: DGM.Tensor.new([[3.0]]))
      iex> rate = -:math.log(3)
      iex> model = fn _request, <<x::float-32-native>>, _times -> {<<rate * x::float-32-native>>, [rate]} end
      iex> [log_density] = run |> DGM.Sampler.finish(model) |> DGM.Sampler.log_density()
      iex> abs(log_density - (-0.5 - 0.5 * :math.log(2 * :math.pi() * 9))) < 1.0e-3
      true
  """
  @spec log_density(Run.t()) :: [float]
  def log_density(run), do: elem(densities(run), 0)

  @doc """
  `log_density/1` in bits per dimension, `-log_density / (elements ln 2)`.
  """
  @spec bits_per_dimension(Run.t()) :: [float]
  def bits_per_dimension(run), do: elem(densities(run), 1)

  defp densities(run) do
    run = check(run)
    Native.value!(Native.run_log_density(run.plan.resource, run.header, run.state))
  end

  @doc """
  Counts so far: model evaluations, and the accepted and rejected steps of an adaptive solver.
  """
  @spec stats(Run.t()) :: %{
          evals: non_neg_integer,
          accepts: non_neg_integer,
          rejects: non_neg_integer
        }
  def stats(run) do
    run = check(run)
    {evals, accepts, rejects} = look(run, :run_stats, [run.plan.resource, run.header])
    %{evals: evals, accepts: accepts, rejects: rejects}
  end

  @doc """
  The run as one checksummed block: a checkpoint that any of the four languages can continue.
  """
  @spec export(Run.t()) :: binary
  def export(run) do
    run = check(run)
    Native.value!(Native.run_export(run.plan.resource, run.header, run.state))
  end

  @doc """
  The run in a block made by `export/1`, or by another language, under an equal plan.
  """
  @spec import(Plan.t(), binary) :: {:ok, Run.t()} | {:error, DGM.Error.t()}
  def import(plan, block) when is_binary(block) do
    with {:ok, parts} <- Native.tuple(Native.run_import(Plan.resource(plan), block)),
         do: {:ok, new(plan, parts)}
  end

  def import(_plan, other), do: Check.fail("block", other, "a binary")

  @doc """
  Like `import/2`, but raises `DGM.Error`.
  """
  @spec import!(Plan.t(), binary) :: Run.t()
  def import!(plan, block), do: Native.bang!(__MODULE__.import(plan, block))

  @doc """
  Samples to the end and returns the result.

      iex> plan = DGM.Plan.compile(prediction: :x0, steps: 3)
      iex> zeros = fn _request, x, _t -> :binary.copy(<<0>>, byte_size(x)) end
      iex> DGM.Tensor.to_list(DGM.Sampler.sample(plan, [1], 2, zeros))
      [[0.0, 0.0]]

  Options as in `start/4`.
  """
  @spec sample(Plan.t(), [non_neg_integer], pos_integer, model, keyword) :: Tensor.t()
  def sample(plan, seeds, elements, model, opts \\ []) do
    plan |> start(seeds, elements, opts) |> finish(model) |> result()
  end

  @doc """
  Tells a run whatever it asks until it is done, and returns it. With a `DGM.GaussianMixture` that is one
  call, which carries every block of rows to its end by itself, on all threads; run by run and in a stream
  the bits are the same.
  """
  @spec finish(Run.t(), model) :: Run.t()
  def finish(run, %GaussianMixture{} = mixture), do: GaussianMixture.finish(mixture, run)

  def finish(run, model) do
    case answer(run, model) do
      :done -> run
      next -> finish(next, model)
    end
  end

  @doc """
  A lazy stream of runs, one after every answer; the last is done.

      iex> plan = DGM.Plan.compile(steps: 3)
      iex> model = fn _request, x, _t -> x end
      iex> plan |> DGM.Sampler.stream([1], 2, model) |> Enum.count()
      3

  Options as in `start/4`.
  """
  @spec stream(Plan.t(), [non_neg_integer], pos_integer, model, keyword) :: Enumerable.t()
  def stream(plan, seeds, elements, model, opts \\ []) do
    model(model)

    Stream.unfold(start(plan, seeds, elements, opts), fn run ->
      case answer(run, model) do
        :done -> nil
        next -> {next, next}
      end
    end)
  end

  defp answer(run, model) do
    case ask(run) do
      :done ->
        :done

      {:eval, request} when is_struct(model, GaussianMixture) ->
        tell(run, request.eval_id, GaussianMixture.predict(model, run))

      {:eval, request} ->
        tell(run, request.eval_id, model(model).(request, input(run), times(run)))
    end
  end

  defp model(fun) when is_function(fun, 3), do: fun
  defp model(%GaussianMixture{} = mixture), do: mixture

  defp model(other),
    do:
      Check.fail(
        "model",
        other,
        "a function of request, input and times, or a %DGM.GaussianMixture{}"
      )

  defp new(plan, {header, state, rows, elements}) do
    %Run{plan: plan, header: header, state: state, rows: rows, elements: elements}
  end

  defp check(%Run{plan: %Plan{}, header: h, state: s} = run) when is_binary(h) and is_binary(s),
    do: run

  defp check(other), do: Check.fail("run", other, "a %DGM.Run{}")
end
