# STRESS_SECONDS=60 mix run stress/stress.exs
#
# 100 processes attend and sample at once while some are killed in the middle and
# replaced, and a timer fires every millisecond. Every result must have the
# bits of the first, memory must come back, and no timer may be late by STRESS_MAX_LATE_MS (20).
# A machine that is busy with other work is late by itself: the same clock without load is shown too.

defmodule DGM.Stress do
  alias DGM.{Dit, Plan, Random, Sampler, Tensor}

  @workers 100

  def run(seconds, limit_ms) do
    idle = clock(now() + round(seconds * 100_000), 0) / 1000
    jobs = jobs()
    expected = Enum.map(jobs, & &1.())
    tables = {List.to_tuple(jobs), List.to_tuple(expected)}
    # Threads, workspaces and allocator carriers exist from here on.
    load(tables, seconds / 3)
    before = memory()
    {done, killed, late} = load(tables, 2 * seconds / 3)
    grown = memory() - before

    IO.puts(
      "elixir stress: calls=#{done} kills=#{killed} processes=#{@workers} " <>
        "schedulers=#{:erlang.system_info(:schedulers_online)} " <>
        "max_late_ms=#{Float.round(late, 1)} idle_max_late_ms=#{Float.round(idle, 1)} binary_memory_growth=#{grown}"
    )

    # Results that a late, killed call has still to drop are gone by now: the rest would be a leak.
    check(grown < 8_000_000, "#{grown} bytes of binaries were not given back")
    check(done > 0 and killed > 0, "#{done} calls and #{killed} kills are no stress")

    check(
      late < limit_ms,
      "a timer was late by #{late} ms, expected less than #{limit_ms} ms (#{idle} ms without load)"
    )
  end

  defp jobs do
    q = Random.normal(Random.row_seeds(1, 2), {4, 129, 32})
    model = Dit.load!(Path.expand("../../models/digits.safetensors", __DIR__))
    plan = Plan.compile(Dit.plan_options(model) |> Keyword.merge(steps: 2))
    ddpm = Plan.compile(process: :vp_linear, prediction: :epsilon, solver: :ddpm, steps: 5)
    seeds = Random.row_seeds(2, 4)

    [
      fn -> DGM.attention(q, q, q, causal: true) end,
      fn -> Dit.generate(model, plan, Enum.take(seeds, 2), [3, 4]) end,
      fn -> Sampler.sample(ddpm, seeds, 1000, fn _request, x, _t -> x end) end,
      fn -> halfway(ddpm, seeds) end,
      fn ->
        DGM.Linear.forward(DGM.Linear.pack(Tensor.new([[1, 2], [3, 4]])), Tensor.new([[1, 1]]))
      end
    ]
  end

  # A run that goes through bytes at every step.
  defp halfway(plan, seeds) do
    model = fn _request, x, _t -> x end

    case plan |> Sampler.stream(seeds, 300, model) |> Enum.at(2) do
      run -> Sampler.result(Sampler.finish(Sampler.import!(plan, Sampler.export(run)), model))
    end
  end

  defp load(tables, seconds) do
    deadline = now() + round(seconds * 1_000_000)
    done = :counters.new(1, [])
    clock = Task.async(fn -> clock(deadline, 0) end)
    workers = Map.new(1..@workers, fn i -> start(tables, i, deadline, done) end)
    killed = reap(workers, tables, deadline, done, 0)
    late = Task.await(clock, :infinity)
    {:counters.get(done, 1), killed, late / 1000}
  end

  defp start(tables, i, deadline, done) do
    {pid, ref} = spawn_monitor(fn -> work(tables, i, deadline, done) end)
    {ref, {pid, i}}
  end

  defp work({jobs, expected} = tables, i, deadline, done) do
    n = rem(i, tuple_size(jobs))

    unless elem(jobs, n).() == elem(expected, n), do: exit({:other_bits, n})
    :counters.add(done, 1, 1)
    if now() < deadline, do: work(tables, i + 1, deadline, done)
  end

  # Kills a worker every few milliseconds, mostly inside a NIF, and puts another in its place.
  defp reap(workers, _tables, _deadline, _done, killed) when map_size(workers) == 0, do: killed

  defp reap(workers, tables, deadline, done, killed) do
    receive do
      {:DOWN, ref, :process, _pid, :killed} ->
        {{_, i}, workers} = Map.pop!(workers, ref)
        {ref, worker} = start(tables, i + 1, deadline, done)
        reap(Map.put(workers, ref, worker), tables, deadline, done, killed + 1)

      {:DOWN, ref, :process, _pid, :normal} ->
        reap(Map.delete(workers, ref), tables, deadline, done, killed)

      {:DOWN, _ref, :process, _pid, reason} ->
        raise "a worker died: #{inspect(reason)}"
    after
      5 ->
        {_ref, {pid, _}} = Enum.random(workers)
        if now() < deadline, do: Process.exit(pid, :kill)
        reap(workers, tables, deadline, done, killed)
    end
  end

  # How many microseconds the latest message came after its time.
  defp clock(deadline, worst) do
    due = now() + 1000
    Process.send_after(self(), :tick, 1)

    receive do
      :tick -> :ok
    end

    worst = max(worst, now() - due)
    if now() < deadline, do: clock(deadline, worst), else: worst
  end

  defp memory do
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    Process.sleep(50)
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    :erlang.memory(:binary)
  end

  defp now, do: System.monotonic_time(:microsecond)
  defp check(ok?, message), do: ok? || raise(message)
end

number = fn name, default -> name |> System.get_env(default) |> Float.parse() |> elem(0) end
DGM.Stress.run(number.("STRESS_SECONDS", "60"), number.("STRESS_MAX_LATE_MS", "20"))
