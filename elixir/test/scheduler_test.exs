defmodule DGM.SchedulerTest do
  use ExUnit.Case, async: true
  doctest DGM.Scheduler
  alias DGM.{Plan, Random, Sampler, Scheduler, Tensor}

  @methods [
    euler: [],
    heun: [solver: :heun],
    rk4: [solver: :rk4],
    dpmpp_2m_sde: [solver: :dpmpp_2m_sde],
    unipc: [process: :vp_linear, prediction: :epsilon, solver: :unipc],
    pndm: [process: :vp_scaled_linear, prediction: :epsilon, solver: :pndm],
    ddpm: [process: :vp_cosine, prediction: :v, solver: :ddpm],
    lcm: [process: :vp_scaled_linear, prediction: :epsilon, solver: :lcm]
  ]

  defp network(t, x),
    do: for(<<v::float-32-native <- x>>, into: <<>>, do: <<0.5 * v + 0.001 * t::float-32-native>>)

  defp walk(scheduler, state, sample, timesteps) do
    for t <- timesteps, reduce: {state, sample} do
      {state, %Tensor{} = sample} ->
        y = %{sample | data: network(t, sample.data)}
        Scheduler.step(scheduler, state, sample, y)

      {state, %Nx.Tensor{} = sample} ->
        y = %{sample | bytes: network(t, sample.bytes)}
        Scheduler.step(scheduler, state, sample, y)
    end
  end

  for {name, opts} <- @methods do
    test "#{name} has the bits of sample" do
      opts = unquote(opts)
      seeds = Random.row_seeds(9, 2)
      sample = Random.normal(seeds, {3, 2}, purpose: :initial)
      model = fn request, x, _t -> network(request.t, x) end
      plan = Plan.compile([steps: 4] ++ opts)
      expected = Sampler.sample(plan, seeds, 6, model, x: sample)

      scheduler = Scheduler.new(opts)
      {state, timesteps} = Scheduler.init(scheduler, 4, sample, 9)
      times = Tensor.to_flat_list(timesteps)
      assert hd(times) == Enum.max(times) and length(times) >= 4
      {state, result} = walk(scheduler, state, sample, times)
      assert result.shape == {2, 3, 2}

      for {a, b} <- Enum.zip(Tensor.to_flat_list(result), Tensor.to_flat_list(expected)),
          do: assert_in_delta(a, b, 1.0e-5 * max(1.0, abs(b)))

      assert_raise ArgumentError, ~r/state/, fn ->
        Scheduler.step(scheduler, state, result, result)
      end
    end
  end

  test "Nx tensors and keys" do
    scheduler = Scheduler.new(solver: :euler_ancestral, process: :vp_cosine, prediction: :epsilon)
    sample = Random.normal([1, 2], 3)
    nx = %Nx.Tensor{bytes: sample.data, type: {:f, 32}, shape: {2, 3}}
    key = fn words -> %Nx.Tensor{bytes: words, type: {:u, 32}, shape: {2}} end
    one = key.(<<1::32-native, 2::32-native>>)
    seed = 0x100000002

    {state, timesteps} = Scheduler.init(scheduler, 3, nx, one)
    assert %Nx.Tensor{type: {:f, 32}, shape: {3}} = timesteps
    times = for <<t::float-32-native <- timesteps.bytes>>, do: t
    {_, %Nx.Tensor{} = a} = walk(scheduler, state, nx, times)

    {state, _} = Scheduler.init(scheduler, 3, sample, seed)
    {_, b} = walk(scheduler, state, sample, times)
    assert a.bytes == b.data

    # A key a row: a row is the same in any batch.
    rows =
      for s <- Random.row_seeds(seed, 2),
          into: <<>>,
          do: <<div(s, 0x100000000)::32-native, rem(s, 0x100000000)::32-native>>

    {state, _} = Scheduler.init(scheduler, 3, nx, key.(rows))
    {_, c} = walk(scheduler, state, nx, times)
    assert c.bytes == a.bytes
    assert_raise ArgumentError, ~r/prng_key/, fn -> Scheduler.init(scheduler, 3, nx, nx) end
  end

  test "a changed sample is taken" do
    scheduler = Scheduler.new(solver: :euler)
    zeros = Tensor.new([[0.0, 0.0]])
    {state, _} = Scheduler.init(scheduler, 2, zeros, 1)
    {state, _} = Scheduler.step(scheduler, state, zeros, zeros)
    {_, x} = Scheduler.step(scheduler, state, Tensor.new([[1.0, 2.0]]), Tensor.new([[2.0, 2.0]]))
    assert Tensor.to_list(x) == [[0.0, 1.0]]
  end

  test "what has no meaning is refused" do
    for {word, opts} <- [
          {"solver", [solver: :bosh3]},
          {"prediction", [process: :edm, prediction: :edm]},
          {"inpaint", [inpaint: true]},
          {"guidance", [guidance: 2.0]},
          {"shift", [shift: -1]}
        ],
        do: assert_raise(ArgumentError, ~r/#{word}/, fn -> Scheduler.new(opts) end)

    scheduler = Scheduler.new()
    x = Tensor.new([[0.0, 0.0]])

    assert_raise ArgumentError, ~r/sample/, fn ->
      Scheduler.init(scheduler, 2, Tensor.new([], {0}), 1)
    end

    {state, _} = Scheduler.init(scheduler, 2, x, 1)

    assert_raise ArgumentError, ~r/sample/, fn ->
      Scheduler.step(scheduler, state, Tensor.new([[0.0]]), x)
    end

    assert_raise ArgumentError, ~r/prediction/, fn ->
      Scheduler.step(scheduler, state, x, Tensor.new([[0.0]]))
    end
  end
end
