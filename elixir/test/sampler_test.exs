defmodule DGM.SamplerTest do
  use ExUnit.Case, async: true
  doctest DGM.Sampler
  import DGM.Golden
  alias DGM.{Plan, Random, Sampler, Tensor}

  @plans [
    euler: [solver: :euler, steps: 5],
    midpoint: [solver: :midpoint, steps: 4, shift: 3],
    heun: [solver: :heun, steps: 3],
    rk4: [solver: :rk4, steps: 2],
    bosh3: [solver: :bosh3],
    guided: [solver: :euler, steps: 3, guidance: 2],
    ddpm: [process: :vp_linear, prediction: :epsilon, solver: :ddpm, steps: 6],
    ddim: [process: :vp_cosine, prediction: :v, solver: :ddim, eta: 0.7, steps: 4, clip: 1],
    dpmpp: [process: :vp_linear, prediction: :epsilon, solver: :dpmpp_2m, steps: 5],
    unipc: [process: :vp_linear, prediction: :x0, solver: :unipc, steps: 5]
  ]

  # Any finite function of its arguments will do as a network.
  defp network(request, x, t) do
    <<time::float-32-native, _::binary>> = t
    gain = if request.role == :cond, do: 0.5, else: 0.25
    for <<v::float-32-native <- x>>, into: <<>>, do: <<gain * v + 0.001 * time::float-32-native>>
  end

  test "autoguidance asks the weaker model" do
    plan = Plan.compile(steps: 1, guidance: 3, guidance_mode: :auto)
    run = Sampler.start(plan, [1], 1, x: Tensor.new([[1.0]]))
    {:eval, %{role: :cond, eval_id: id}} = Sampler.ask(run)
    run = Sampler.tell(run, id, Tensor.new([[0.5]]))
    {:eval, %{role: :weak, eval_id: id}} = Sampler.ask(run)
    run = Sampler.tell(run, id, Tensor.new([[0.25]]))
    assert Tensor.to_list(Sampler.result(run)) == [[0.0]]
  end

  test "guidance and autoguidance in one step add up" do
    plan = Plan.compile(steps: 1, guidance: 3, guidance_weak: 2)
    run = Sampler.start(plan, [1, 2], 2, x: Tensor.new([[0.0, 0.0], [0.0, 0.0]]))
    outputs = [cond: 0.5, uncond: 0.25, weak: 0.125]

    run =
      for {role, value} <- outputs, reduce: run do
        run ->
          {:eval, %{role: ^role, eval_id: id}} = Sampler.ask(run)
          Sampler.tell(run, id, Tensor.new([[value, value], [value, value]]))
      end

    assert Sampler.ask(run) == :done
    # u + 3 (c - u) + (2 - 1) (c - k), over a step from t = 1 to 0
    assert Tensor.to_list(Sampler.result(run)) == [[-1.375, -1.375], [-1.375, -1.375]]
  end

  test "outputs of one input told at once have the bits of one after the other" do
    for opts <- [
          [guidance: 3],
          [guidance: 3, guidance_rescale: 0.5],
          [guidance: 3, guidance_weak: 2]
        ] do
      plan = Plan.compile([steps: 3, solver: :heun] ++ opts)
      alone = Sampler.finish(Sampler.start(plan, [1, 2], 5), &network/3)
      joined = walk_joined(Sampler.start(plan, [1, 2], 5))
      assert Sampler.result(joined) == Sampler.result(alone)
      assert Sampler.stats(joined) == Sampler.stats(alone)
    end
  end

  defp walk_joined(run) do
    case Sampler.ask(run) do
      :done ->
        run

      {:eval, %{roles: [first | _] = roles} = request} ->
        assert first == request.role
        {x, t} = {Sampler.input(run), Sampler.times(run)}
        outputs = for role <- roles, into: "", do: network(%{request | role: role}, x, t)
        walk_joined(Sampler.tell(run, request.eval_id, outputs))
    end
  end

  test "more outputs than there are roles are refused" do
    run = Sampler.start(Plan.compile(steps: 2, guidance: 2), [1], 2)

    message =
      ~r/y has shape \[6\], expected 1 x 2 elements, or of up to 2 outputs one after the other/

    assert_raise ArgumentError, message, fn ->
      Sampler.tell(run, 1, Tensor.new([[1.0, 2, 3, 4, 5, 6]]))
    end

    run = Sampler.tell(run, 1, Tensor.new([[1.0, 2]]))
    assert {:eval, %{role: :uncond, roles: [:uncond]}} = Sampler.ask(run)
    assert_raise ArgumentError, fn -> Sampler.tell(run, 2, Tensor.new([[1.0, 2, 3, 4]])) end
  end

  for solver <- ~w(euler midpoint heun rk4)a, shift <- [1, 3] do
    test "golden flow #{solver} shift #{shift}" do
      plan = Plan.compile(solver: unquote(solver), steps: 10, shift: unquote(shift))
      check_golden(plan, "sampler.flow.#{unquote(solver)}.shift#{unquote(shift)}", :velocity)
    end
  end

  for {name, opts} <- [
        {"ddim.leading", [solver: :ddim, spacing: :leading]},
        {"ddim.trailing", [solver: :ddim, spacing: :trailing]},
        {"dpmpp_2m", [solver: :dpmpp_2m]},
        {"unipc_bh2", [solver: :unipc]}
      ] do
    test "golden #{name}" do
      times = read("sampler.#{unquote(name)}.timesteps")

      opts =
        [process: :vp_linear, times: times ++ [-1]] ++ Keyword.delete(unquote(opts), :spacing)

      check_golden(
        Plan.compile([prediction: :epsilon] ++ opts),
        "sampler.#{unquote(name)}.out",
        :epsilon
      )
    end
  end

  defp check_golden(plan, name, want) do
    x = read("sampler.x_T")
    [mu, std] = read("sampler.mu_std")

    network = fn request, x, _t ->
      {a, s} = {request.alpha, request.sigma}
      variance = a * a * std * std + s * s

      for <<v::float-32-native <- x>>, into: <<>> do
        eps = s * (v - a * mu) / variance
        x0 = mu + a * std * std * (v - a * mu) / variance
        <<%{epsilon: eps, x0: x0, velocity: eps - x0}[want]::float-32-native>>
      end
    end

    got = Sampler.sample(plan, [1, 2], 6, network, x: x)
    assert_close(got, read(name), 1.0e-4, 1.0e-5)
  end

  for {name, opts} <- @plans do
    test "#{name}: exported and imported at every ask, same bits; old runs stay valid" do
      plan = Plan.compile(unquote(opts))
      seeds = Random.row_seeds(3, 3)
      expected = Sampler.sample(plan, seeds, 7, &network/3)
      first = Sampler.start(plan, seeds, 7)

      step = fn run ->
        run = Sampler.import!(plan, Sampler.export(run))

        case Sampler.ask(run) do
          :done ->
            {:halt, run}

          {:eval, request} ->
            y = network(request, Sampler.input(run), Sampler.times(run))
            next = Sampler.tell(run, request.eval_id, y)
            # The old value is what it was: told again, it gives the same successor.
            assert Sampler.tell(run, request.eval_id, y) == next
            {:cont, next}
        end
      end

      last = Enum.reduce_while(Stream.cycle([nil]), first, fn _, run -> step.(run) end)
      assert Sampler.result(last) == expected
      assert Sampler.finish(first, &network/3) == last
      assert Sampler.stats(last).evals > 0
    end
  end

  test "a row does not depend on its batch" do
    plan = Plan.compile(process: :vp_linear, prediction: :epsilon, solver: :ddpm, steps: 4)
    seeds = Random.row_seeds(9, 5)
    all = Tensor.to_list(Sampler.sample(plan, seeds, 11, &network/3))
    alone = for s <- seeds, do: hd(Tensor.to_list(Sampler.sample(plan, [s], 11, &network/3)))
    assert all == alone
  end

  test "a run goes through another OS process and back" do
    plan = Plan.compile(solver: :heun, steps: 4)
    seeds = Random.row_seeds(2, 2)
    run = Sampler.start(plan, seeds, 5)
    {:eval, request} = Sampler.ask(run)
    run = Sampler.tell(run, request.eval_id, Sampler.input(run))
    folder = Path.join(System.tmp_dir!(), "dgm-run-#{System.pid()}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    File.write!(Path.join(folder, "plan"), Plan.to_binary(plan))
    File.write!(Path.join(folder, "run"), Sampler.export(run))

    script = """
    [folder] = System.argv()
    plan = DGM.Plan.from_binary!(File.read!(Path.join(folder, "plan")))
    run = DGM.Sampler.import!(plan, File.read!(Path.join(folder, "run")))
    done = DGM.Sampler.finish(run, fn _request, x, _t -> x end)
    File.write!(Path.join(folder, "out"), DGM.Sampler.result(done).data)
    """

    ebin = Path.join(Application.app_dir(:dgm), "ebin")

    {text, status} =
      System.cmd("elixir", ["-pa", ebin, "-e", script, folder], stderr_to_stdout: true)

    assert status == 0, text
    expected = Sampler.sample(plan, seeds, 5, fn _request, x, _t -> x end)
    assert File.read!(Path.join(folder, "out")) == expected.data
  end

  test "many processes run at once, same bits" do
    plan = Plan.compile(solver: :rk4, steps: 3)
    seeds = Random.row_seeds(4, 4)
    expected = Sampler.sample(plan, seeds, 100, &network/3)

    1..100
    |> Task.async_stream(fn _ -> Sampler.sample(plan, seeds, 100, &network/3) end,
      max_concurrency: 32,
      timeout: 60_000
    )
    |> Enum.each(fn {:ok, got} -> assert got == expected end)
  end

  test "input is a part of the state, not a copy" do
    run = Sampler.start(Plan.compile(), Random.row_seeds(1, 4), 1000)
    assert :binary.referenced_byte_size(Sampler.input(run)) == byte_size(run.state)
    assert :binary.referenced_byte_size(Sampler.result(run).data) == byte_size(run.state)
  end

  test "ten thousand rows" do
    plan = Plan.compile(steps: 2)
    seeds = Random.row_seeds(8, 10_000)
    got = Sampler.sample(plan, seeds, 2, &network/3)
    few = Sampler.sample(plan, Enum.take(seeds, 3), 2, &network/3)
    assert binary_part(got.data, 0, 24) == few.data
    assert Sampler.stats(Sampler.start(plan, seeds, 2)).evals == 0
  end

  test "stream emits every run; the last is done" do
    runs = Plan.compile(steps: 4) |> Sampler.stream([1], 3, &network/3) |> Enum.to_list()
    assert length(runs) == 4
    assert Sampler.ask(List.last(runs)) == :done

    assert Enum.map(Enum.take(runs, 3), &(&1 |> Sampler.ask() |> elem(1) |> Map.get(:step))) == [
             1,
             2,
             3
           ]
  end

  test "wrong arguments" do
    plan = Plan.compile(steps: 2)
    run = Sampler.start(plan, [1, 2], 3)
    {:eval, %{eval_id: id}} = Sampler.ask(run)
    y = Sampler.input(run)
    model = &network/3

    wrong = [
      {~r/^plan is nil/, fn -> Sampler.start(nil, [1], 3) end},
      {~r/^seeds is nil/, fn -> Sampler.start(plan, nil, 3) end},
      {~r/^rows is 0/, fn -> Sampler.start(plan, [], 3) end},
      {~r/^seeds is :a/, fn -> Sampler.start(plan, [:a], 3) end},
      {~r/^elements is nil/, fn -> Sampler.start(plan, [1], nil) end},
      {~r/^elements is 0/, fn -> Sampler.start(plan, [1], 0) end},
      {~r/too large/, fn -> Sampler.start(plan, [1], 0x7FFFFFFFFFFFFFFF) end},
      {~r/^x is 1/, fn -> Sampler.start(plan, [1], 3, x: 1) end},
      {~r/^x_start has shape/, fn -> Sampler.start(plan, [1], 3, x: Tensor.new([1])) end},
      {~r/^run is nil/, fn -> Sampler.ask(nil) end},
      {~r/^run is nil/, fn -> Sampler.input(nil) end},
      {~r/^run is nil/, fn -> Sampler.times(nil) end},
      {~r/^run is nil/, fn -> Sampler.tell(nil, id, y) end},
      {~r/^run is nil/, fn -> Sampler.result(nil) end},
      {~r/^run is nil/, fn -> Sampler.export(nil) end},
      {~r/^run is nil/, fn -> Sampler.stats(nil) end},
      {~r/^eval_id is nil/, fn -> Sampler.tell(run, nil, y) end},
      {~r/^y is nil/, fn -> Sampler.tell(run, id, nil) end},
      {~r/^y has shape \[5\]/, fn -> Sampler.tell(run, id, binary_part(y, 0, 20)) end},
      {~r/^y has shape \[3\]/, fn -> Sampler.tell(run, id, "abc") end},
      {~r/^state has shape/, fn -> Sampler.tell(%{run | state: <<>>}, id, y) end},
      {~r/^block is nil/, fn -> Sampler.import(plan, nil) end},
      {~r/^plan is nil/, fn -> Sampler.import(nil, <<>>) end},
      {~r/^model is nil/, fn -> Sampler.sample(plan, [1], 3, nil) end},
      {~r/^model is nil/, fn -> Sampler.stream(plan, [1], 3, nil) end},
      {~r/^plan is nil/, fn -> Sampler.sample(nil, [1], 3, model) end}
    ]

    for {message, function} <- wrong, do: assert_raise(ArgumentError, message, function)
  end

  # Below 64 KiB a call runs on a normal scheduler, from 1 MiB on the memory of states is used again.
  test "a row is the same in runs of any size" do
    opts = [process: :vp_linear, prediction: :epsilon, solver: :ddpm, steps: 3, per_row: true]
    plan = Plan.compile(opts)

    for elements <- [1_024, 100_000] do
      whole = bits(plan, [1, 2, 3, 4, 5], elements)
      for seed <- [1, 4], do: assert(bits(plan, [seed], elements) == [Enum.at(whole, seed - 1)])
    end
  end

  defp bits(plan, seeds, elements) do
    model = fn request, x, _t ->
      assert byte_size(x) == 4 * length(seeds) * elements
      assert request.rows == length(seeds)
      x
    end

    data = Sampler.sample(plan, seeds, elements, model).data

    for row <- Enum.to_list(1..length(seeds)),
        do: binary_part(data, (row - 1) * 4 * elements, 4 * elements)
  end

  test "runs that are kept stay as they were while memory is used again" do
    plan = Plan.compile(steps: 12)
    elements = 300_000
    begin = Sampler.start(plan, [1], elements)
    runs = Enum.to_list(Stream.iterate(begin, &step/1) |> Stream.take(6))
    kept = for run <- runs, do: :crypto.hash(:sha256, run.state)

    # Other runs whose states become garbage at once, in this process and in others.
    tasks =
      for seed <- 2..3, do: Task.async(fn -> walk(Sampler.start(plan, [seed], elements)) end)

    ours = walk(Sampler.start(plan, [2], elements))
    assert [^ours, _] = Task.await_many(tasks, 60_000)
    :erlang.garbage_collect()
    assert walk(Sampler.start(plan, [2], elements)) == ours

    assert for(run <- runs, do: :crypto.hash(:sha256, run.state)) == kept
    assert Enum.map(runs, &walk/1) |> Enum.uniq() |> length() == 1
    # A part of a state outlives the run it came from.
    part = binary_part(hd(runs).state, 4_000, 4_000)
    copy = :binary.copy(part)
    walk(Sampler.start(plan, [5], elements))
    assert part == copy
  end

  defp step(run) do
    {:eval, request} = Sampler.ask(run)
    Sampler.tell(run, request.eval_id, Sampler.input(run))
  end

  defp walk(run) do
    if Sampler.ask(run) == :done,
      do: :crypto.hash(:sha256, Sampler.result(run).data),
      else: walk(step(run))
  end

  test "answers that do not fit the run" do
    plan = Plan.compile(steps: 2)
    run = Sampler.start(plan, [1, 2], 3)
    {:eval, %{eval_id: id}} = Sampler.ask(run)
    y = Sampler.input(run)
    next = Sampler.tell(run, id, y)
    assert_raise DGM.Error, fn -> Sampler.tell(next, id, y) end
    assert %{kind: :state} = catch_error(Sampler.tell(run, id + 1, y))
    nan = Tensor.new([1, 1, 1, 1, :nan, 1])
    assert catch_error(Sampler.tell(run, id, nan)).message =~ "row 1"
    # The run that was refused goes on.
    assert Sampler.tell(run, id, y) == next
  end

  test "a large state goes from memory to memory, and equal calls give equal runs" do
    n = 300_001
    plan = Plan.compile(solver: :euler, steps: 3, guidance: 2)
    run = Sampler.start(plan, [1, 2], n)
    x = Sampler.input(run)
    told = fn -> Sampler.tell(run, 1, x <> x) end
    first = told.()
    # Its memory is used again, whatever lies there.
    for _ <- 1..3, do: assert(told.().state == first.state)
    :erlang.garbage_collect()
    for _ <- 1..3, do: assert(told.().state == first.state)
    apart = run |> Sampler.tell(1, x) |> Sampler.tell(2, x)
    assert Sampler.result(apart) == Sampler.result(first)
    <<_::binary-size(4), most::binary>> = x
    nan = most <> <<0x7FC00000::32-native>>

    assert catch_error(Sampler.tell(run, 1, x <> nan)).message =~
             "unconditional model output is NaN in row 1"

    assert Sampler.input(run) == x
  end

  test "outputs that are not finite, unseen" do
    run = Sampler.start(Plan.compile(steps: 1, non_finite: :propagate), [1, 2], 3)
    told = Sampler.tell(run, 1, Tensor.new([1, 1, 1, 1, :nan, 1]))
    assert :done = Sampler.ask(told)
    [[_, _, _], [a, b, c]] = Tensor.to_list(Sampler.result(told))
    assert is_float(a) and b == :nan and is_float(c)

    assert_raise ArgumentError, ~r/non_finite/, fn ->
      Plan.compile(solver: :bosh3, non_finite: :propagate)
    end
  end

  test "blocks that are no run of this plan" do
    plan = Plan.compile(steps: 2)
    block = Sampler.export(Sampler.start(plan, [1], 3))
    <<head::binary-size(40), byte, rest::binary>> = block
    flipped = <<head::binary, Bitwise.bxor(byte, 1), rest::binary>>
    short = binary_part(block, 0, byte_size(block) - 4)

    for {plan, block} <- [
          {plan, <<>>},
          {plan, "not a run"},
          {plan, flipped},
          {plan, short},
          {plan, block <> <<0>>},
          {Plan.compile(steps: 3), block}
        ] do
      assert {:error, %DGM.Error{code: code, message: text}} = Sampler.import(plan, block)
      assert code < 0 and text != ""
      assert_raise DGM.Error, fn -> Sampler.import!(plan, block) end
    end

    run = Sampler.start(plan, [1], 3)
    assert_raise DGM.Error, fn -> Sampler.ask(%{run | header: "forged"}) end
  end
end
