defmodule DGM.WalksTest do
  # The walks of tests/conformance/runs.txt: the options of plans, and the SHA-256 of what each
  # evaluation reads and of the result.
  use ExUnit.Case, async: true
  alias DGM.{Plan, Random, Sampler, Tensor}

  @path Path.expand("../../tests/conformance/runs.txt", __DIR__)
  @external_resource @path

  # `run` and `plan` lines, each plan with the hash that follows it.
  @cases @path
         |> File.read!()
         |> String.split("\n")
         |> Enum.map(&String.split/1)
         |> Enum.reduce({nil, nil, []}, fn
           ["run", name], {_, _, all} ->
             {name, nil, all}

           ["plan" | words], {name, _, all} ->
             {name, words, all}

           ["sha256", hash], {name, words, all} when words != nil ->
             {name, nil, [{name, words, hash} | all]}

           _, state ->
             state
         end)
         |> elem(2)

  for {name, words, hash} <- @cases do
    test "#{name} has the published hash" do
      assert walk(unquote(words)) == unquote(hash)
    end
  end

  test "the file was read" do
    assert length(@cases) > 100
  end

  defp walk(["elements", elements | words]) do
    elements = String.to_integer(elements)
    defaults = Plan.defaults()

    opts =
      for [name, text] <- Enum.chunk_every(words, 2) do
        key = String.to_atom(name)
        {key, value(key, defaults[key], text)}
      end

    plan = Plan.compile(opts)
    seeds = for row <- 0..2, do: hd(Random.row_seeds(7 + row, 1))
    run = Sampler.start(plan, seeds, elements)
    {run, seen} = steps(run, opts[:solver] in [:bosh3, :dopri5, :tsit5, :dpm_12, :dpm_23], [])
    seen = Enum.reverse([Sampler.result(run).data | seen])
    size = 4 * elements

    bytes = for row <- 0..2, x <- seen, into: <<>>, do: binary_part(x, row * size, size)
    Base.encode16(:crypto.hash(:sha256, bytes), case: :lower)
  end

  defp steps(run, quiet, seen) do
    case Sampler.ask(run) do
      :done ->
        {run, seen}

      {:eval, request} ->
        x = Sampler.input(run)
        bias = if request.role == :uncond, do: -0.125, else: 0.25
        y = for <<v::float-32-native <- x>>, into: <<>>, do: <<0.5 * v + bias::float-32-native>>
        y = if two_outputs?(run), do: with_second(x, y, run.elements), else: y
        steps(Sampler.tell(run, request.eval_id, y), quiet, if(quiet, do: seen, else: [x | seen]))
    end
  end

  # Where one number, 1 at first, comes to.
  defp told(plan, f) do
    run = Sampler.start(plan, [1], 1, x: Tensor.new([[1.0]]))
    run = Sampler.finish(run, fn request, _x, _times -> Tensor.new([[f.(request.t)]]) end)
    [[x]] = Tensor.to_list(Sampler.result(run))
    x
  end

  defp two_outputs?(run), do: Plan.options(run.plan)[:process] == :sde

  defp with_second(x, y, elements) do
    size = 4 * elements

    for row <- 0..(div(byte_size(x), size) - 1), into: <<>> do
      g =
        for <<v::float-32-native <- binary_part(x, row * size, size)>>,
          into: <<>>,
          do: <<0.25 * v + 0.5::float-32-native>>

      binary_part(y, row * size, size) <> g
    end
  end

  defp value(:clip, _default, text), do: number(text)

  defp value(key, _default, text)
       when key in [:times, :sigmas, :betas, :restart, :controller, :save_at, :stop_at],
       do: text |> String.split(",") |> Enum.map(&number/1)

  defp value(_key, default, text) when is_boolean(default), do: text == "true"
  defp value(_key, default, text) when is_atom(default), do: String.to_atom(text)
  defp value(_key, default, text) when is_integer(default), do: String.to_integer(text)
  defp value(_key, _default, text), do: number(text)

  defp number(text), do: text |> Float.parse() |> elem(0)

  test "image to image and masks" do
    plan = Plan.compile(steps: 8, start_sigma: 0.5, inpaint: true)
    zeros = fn _request, x, _t -> :binary.copy(<<0>>, byte_size(x)) end
    [data, known] = for v <- [2.0, 6.0], do: Tensor.new([[v, v, v]])
    mask = Tensor.new([[1.0, 0.0, 1.0]])
    run = Sampler.start(plan, [1], 3, data: data, known: known, mask: mask)
    [noise] = Plan.compile() |> Sampler.start([1], 3) |> Sampler.result() |> Tensor.to_list()
    [x] = run |> Sampler.result() |> Tensor.to_list()
    for {x, z} <- Enum.zip(x, noise), do: assert_in_delta(x, 0.5 * 2.0 + 0.5 * z, 1.0e-6)
    [[a, b, c]] = run |> Sampler.finish(zeros) |> Sampler.result() |> Tensor.to_list()
    assert {a, c} == {6.0, 6.0}
    assert b != 6.0

    assert_raise ArgumentError, ~r/^data is/, fn ->
      Sampler.start(plan, [1], 3, x: data, data: data)
    end

    assert_raise ArgumentError, ~r/^mask is/, fn -> Sampler.set_known(run, data, nil) end
    assert_raise ArgumentError, ~r/^mask/, fn -> Sampler.set_known(run, data, known) end

    assert_raise DGM.Error, ~r/inpaint/, fn ->
      Sampler.set_known(Sampler.start(Plan.compile(), [1], 3), data, mask)
    end
  end

  test "plain ODEs, either way, kept at given times" do
    for solver <- [:bosh3, :dopri5, :tsit5], {from, to} <- [{0.0, 2.0}, {2.0, 0.0}] do
      plan =
        Plan.compile(
          process: :ode,
          solver: solver,
          t_start: from,
          t_end: to,
          save_at: [from, 1.0, to],
          controller: [0.7, -0.4],
          rtol: 1.0e-5,
          atol: 1.0e-5
        )

      run = Sampler.start(plan, [1, 2], 1, x: DGM.Tensor.new([[1.0], [2.0]]))
      run = Sampler.finish(run, fn _request, x, _times -> x end)
      [[[1.0], [2.0]], [[a], [b]], last] = DGM.Tensor.to_list(Sampler.saved(run))
      assert last == DGM.Tensor.to_list(Sampler.result(run))
      factor = :math.exp(1.0 - from)
      assert_in_delta a, factor, 1.0e-3
      assert_in_delta b, 2 * factor, 1.0e-3
    end

    assert Sampler.saved(Sampler.start(Plan.compile(), [1], 3)).shape == {0, 1, 3}

    # Steps end where the slope jumps.
    for solver <- [:bosh3, :dopri5, :tsit5] do
      plan = Plan.compile(process: :ode, solver: solver, stop_at: [0.25, 0.75])
      jump = fn t -> if t < 0.25, do: 1.0, else: if(t < 0.75, do: -2.0, else: 3.0) end
      assert_in_delta told(plan, jump), 1.0, 1.0e-6
    end

    for solver <- [:dpm_12, :dpm_23] do
      plan = Plan.compile(process: :ve, prediction: :x0, solver: solver)
      assert_in_delta told(plan, fn _t -> 0.0 end), 0.01 / 50, 1.0e-6
    end

    for {bad, name} <- [
          {[solver: :ddim], "solver"},
          {[t_end: 0.0], "t_end"},
          {[solver: :tsit5, save_at: [2.0]], "save_at"},
          {[solver: :tsit5, controller: [0.0]], "controller"},
          {[solver: :tsit5, stop_at: [1.0]], "stop_at"},
          {[solver: :heun, stop_at: [0.5]], "stop_at"},
          {[solver: :dpm_23], "solver"}
        ] do
      assert_raise ArgumentError, ~r/#{name}/, fn -> Plan.compile([process: :ode] ++ bad) end
    end
  end

  test "equations with noise are told drift and diffusion" do
    # Ornstein-Uhlenbeck: from a point to its stationary distribution.
    n = 4000
    noise = for(_ <- 1..n, do: <<:math.sqrt(2)::float-32-native>>) |> IO.iodata_to_binary()

    model = fn _request, x, _times ->
      drift = for <<v::float-32-native <- x>>, into: <<>>, do: <<-v::float-32-native>>
      drift <> noise
    end

    start = DGM.Tensor.new([List.duplicate(2.0, n)])

    for solver <- [:euler_maruyama, :milstein, :stochastic_heun, :sra1, :sriw1] do
      plan = Plan.compile(process: :sde, solver: solver, t_end: 4, steps: 60)
      [x] = DGM.Tensor.to_list(Sampler.sample(plan, [1], n, model, x: start))
      assert_in_delta Enum.sum(x) / n, 2 * :math.exp(-4), 0.06
      assert_in_delta Enum.sum(Enum.map(x, &(&1 * &1))) / n, 1, 0.1
    end

    assert_raise ArgumentError, ~r/solver/, fn -> Plan.compile(process: :sde) end
  end

  test "log densities" do
    rate = -:math.log(3)
    start = DGM.Tensor.new([[3.0, -1.5], [0.0, 1.0]])

    model = fn x ->
      for <<v::float-32-native <- x>>, into: <<>>, do: <<rate * v::float-32-native>>
    end

    exact =
      for {a, b} <- [{3, -1.5}, {0, 1}], do: -(a * a + b * b) / 18 - :math.log(2 * :math.pi() * 9)

    for likelihood <- [:exact, :hutchinson], solver <- [:tsit5, :rk4] do
      plan = Plan.compile(process: :ode, solver: solver, likelihood: likelihood)
      run = Sampler.start(plan, [1, 2], 2, x: start)
      run = Sampler.finish(run, fn _request, x, _times -> {model.(x), [2 * rate, 2 * rate]} end)

      for {found, exact} <- Enum.zip(Sampler.log_density(run), exact),
          do: assert_in_delta(found, exact, 1.0e-3)

      for d <- Sampler.divergence(run), do: assert_in_delta(d, 2 * rate, 1.0e-6)
      [bits | _] = Sampler.bits_per_dimension(run)
      assert_in_delta bits, -hd(Sampler.log_density(run)) / (2 * :math.log(2)), 1.0e-9
    end

    run = Sampler.start(Plan.compile(process: :ode, likelihood: :hutchinson), [1, 2], 2)
    assert [[a, b], _] = DGM.Tensor.to_list(Sampler.probe(run))
    assert abs(a) == 1.0 and abs(b) == 1.0
    x = Sampler.input(run)
    assert_raise ArgumentError, ~r/numbers/, fn -> Sampler.tell(run, 1, x) end
    assert_raise ArgumentError, ~r/numbers/, fn -> Sampler.tell(run, 1, {x, [1.0]}) end
    assert_raise ArgumentError, ~r/numbers/, fn -> Sampler.tell(run, 1, {x, [1.0, :a]}) end
    assert_raise DGM.Error, fn -> Sampler.log_density(run) end
    assert_raise ArgumentError, ~r/likelihood/, fn -> Plan.compile(likelihood: :exact) end
  end

  test "a flow map is told where to land" do
    run = Sampler.start(Plan.compile(solver: :flow_map, steps: 2), [1], 3)
    assert {:eval, %{t: 1.0, t_to: 0.5}} = Sampler.ask(run)
    run = Sampler.start(Plan.compile(solver: :bosh3), [1], 3)
    assert {:eval, %{t_to: 0.0}} = Sampler.ask(run)
  end

  test "learned variances take two outputs" do
    plan =
      Plan.compile(
        process: :vp_linear,
        prediction: :epsilon,
        solver: :ddpm,
        variance: :learned_range,
        steps: 3
      )

    twice = fn _request, x, _t -> x <> :binary.copy(<<0>>, byte_size(x)) end
    [x] = plan |> Sampler.sample([1], 4, twice) |> Tensor.to_list()
    assert length(x) == 4
    assert_raise ArgumentError, fn -> Sampler.sample(plan, [1], 4, fn _r, x, _t -> x end) end
  end
end
