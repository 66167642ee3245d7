# What a door costs, from Elixir: see benches/README.md.
#
#   cd elixir && mix run ../benches/doors/doors.exs

defmodule Doors do
  @trials 25
  @calls 1000
  @few 4
  @many 1_048_576
  @steps 16

  alias DGM.{Native, Plan, Random, Sampler}

  def main do
    empty = seconds(fn -> empty_calls(@calls) end, @calls)
    report("empty call", empty, nil)
    report("ask and advance without data", ask_advance(@few, @calls), empty)
    report("ask and tell of #{@few} numbers", ask_tell(@few, @calls), empty)
    report("Euler step of 1M numbers", ask_tell(@many, @steps), nil)
    report("1M normals", seconds(fn -> Random.normal([1], @many) end, 1), nil)
  end

  defp empty_calls(0), do: :ok

  defp empty_calls(n) do
    _ = Native.numerics_version()
    empty_calls(n - 1)
  end

  # Seconds a round trip, over a whole run of Euler steps.
  defp ask_tell(elements, steps) do
    plan = Plan.compile(solver: :euler, steps: steps)
    y = :binary.copy(<<0::size(32)>>, elements)
    run = Sampler.start(plan, [1], elements)
    seconds(fn -> walk(run, y) end, steps)
  end

  defp walk(run, y) do
    case Sampler.ask(run) do
      {:eval, request} -> run |> Sampler.tell(request.eval_id, y) |> walk(y)
      :done -> :ok
    end
  end

  # A whole run whose tensors are elsewhere: nothing but ask and advance.
  defp ask_advance(elements, steps) do
    run = Sampler.start_detached(Plan.compile(solver: :euler, steps: steps), [1], elements)
    seconds(fn -> advance(run) end, steps)
  end

  defp advance(run) do
    case Sampler.ask(run) do
      {:eval, request} -> run |> Sampler.advance(request.eval_id) |> advance()
      :done -> :ok
    end
  end

  # The median of seconds a call of `f`, which makes `calls` of them.
  defp seconds(f, calls) do
    f.()

    times =
      for _ <- 1..@trials do
        begun = System.monotonic_time(:nanosecond)
        f.()
        (System.monotonic_time(:nanosecond) - begun) * 1.0e-9 / calls
      end

    times |> Enum.sort() |> Enum.at(div(@trials, 2))
  end

  defp report(name, seconds, empty) do
    peers =
      if empty,
        do:
          ~s("peers_ms":{"empty call":#{1.0e3 * empty}},"best_peer":"empty call","ratio":#{empty / seconds}),
        else: ~s("peers_ms":{},"best_peer":null,"ratio":null)

    IO.puts(
      ~s({"case":"#{name}, Elixir","group":"door","dtype":"f32","threads":#{DGM.num_threads()},) <>
        ~s("ours_ms":#{1.0e3 * seconds},#{peers},"limit":null,"pct_of_limit":null})
    )
  end
end

Doors.main()
