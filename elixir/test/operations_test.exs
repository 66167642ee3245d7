defmodule DGM.OperationsTest do
  # Coefficients mode: arithmetic on lists, in f64 rounded to f32 at the end of a sum, follows ask and tell.
  use ExUnit.Case, async: true
  alias DGM.{Plan, Random, Sampler}

  @seeds [11, 12]
  @elements 5
  @zeros List.duplicate(0.0, 2 * @elements)

  defp list(binary), do: for(<<v::float-32-native <- binary>>, do: v)
  defp binary(list), do: for(v <- list, into: <<>>, do: <<v::float-32-native>>)
  defp round32(v), do: hd(list(binary([v])))

  defp normal(purpose, draw),
    do: list(Random.normal(@seeds, @elements, purpose: purpose, draw: draw).data)

  defp network(request, x) do
    gain = if request.role == :cond, do: 0.5, else: 0.25
    Enum.map(x, &round32(gain * &1 + 0.001 * request.t))
  end

  defp read({:noise, purpose, draw}, _tensors, _y), do: normal(purpose, draw)
  defp read(:output, _tensors, y), do: y
  defp read(place, tensors, _y), do: Map.get(tensors, place, @zeros)

  defp apply_all(plan, id, tensors, y) do
    Enum.reduce(Plan.operations(plan, id), tensors, fn operation, tensors ->
      assert %DGM.Operation{kind: :combine, mask: nil, parameters: []} = operation

      sum =
        for {source, coefficient, nil} <- operation.terms, reduce: @zeros do
          sum ->
            for {s, v} <- Enum.zip(sum, read(source, tensors, y)),
                do: s + v * round32(coefficient)
        end

      clip = operation.clip
      sum = if clip, do: Enum.map(sum, &max(min(&1, clip), -clip)), else: sum
      Map.put(tensors, operation.target, Enum.map(sum, &round32/1))
    end)
  end

  defp walk(plan, run, tensors, stop) do
    case Sampler.ask(run) do
      {:eval, %{eval_id: id} = request} when id < stop ->
        y = network(request, read({:state, request.slot}, tensors, nil))
        walk(plan, Sampler.advance(run, id), apply_all(plan, id, tensors, y), stop)

      _ ->
        {run, tensors}
    end
  end

  for {name, opts} <- [
        heun: [solver: :heun, guidance: 2],
        dpmpp_2m: [solver: :dpmpp_2m, clip: 0.75],
        brownian: [solver: :dpmpp_2m_sde, noise: :brownian],
        unipc: [process: :vp_cosine, prediction: :epsilon, solver: :unipc],
        sa_solver: [process: :vp_cosine, prediction: :epsilon, solver: :sa_solver],
        ddpm: [process: :vp_cosine, prediction: :epsilon, solver: :ddpm, clip: 1]
      ] do
    test "lists follow #{name}" do
      plan = Plan.compile([steps: 5] ++ unquote(opts))
      model = fn request, x, _t -> binary(network(request, list(x))) end
      expected = list(Sampler.sample(plan, @seeds, @elements, model).data)

      for stop <- [1_000, 3] do
        run = Sampler.start_detached(plan, @seeds, @elements)
        {:eval, %{sigma: sigma}} = Sampler.ask(run)
        start = Enum.map(normal(:initial, 0), &round32(&1 * round32(sigma)))
        tensors = apply_all(plan, 0, %{{:state, 0} => start}, @zeros)
        {run, tensors} = walk(plan, run, tensors, stop)
        slots = for i <- 0..(plan.slots - 1), do: binary(read({:state, i}, tensors, nil))
        run = %{run | state: IO.iodata_to_binary(slots)}
        result = list(Sampler.result(Sampler.finish(run, model)).data)

        for {a, b} <- Enum.zip(result, expected),
            do: assert_in_delta(a, b, 1.0e-6 * max(1.0, abs(b)))
      end
    end
  end

  test "kinds other than sums" do
    kinds = fn opts, id ->
      Enum.map(Plan.operations(Plan.compile([steps: 3] ++ opts), id), & &1.kind)
    end

    guided = [guidance: 2, guidance_rescale: 0.5]
    assert [:rescale, :combine, :combine] = kinds.(guided, 2)
    assert [:project | _] = kinds.([guidance: 2, guidance_mode: :cfg_zero], 2)
    assert :adaptive in kinds.([guidance: 2, guidance_mode: :apg], 2)
    assert :threshold in kinds.([prediction: :x0, threshold_ratio: 0.9], 1)
    corrected = [process: :ve, prediction: :epsilon, solver: :predictor_corrector, snr: 0.2]
    assert [:combine, :langevin, :combine] = kinds.(corrected, 1)

    assert [_, %{parameters: [0.2]}, _] =
             Plan.operations(Plan.compile([steps: 3] ++ corrected), 1)

    vp = [process: :vp_linear, prediction: :epsilon, solver: :ddpm]
    assert :learned_noise in kinds.([variance: :learned_range] ++ vp, 1)
  end

  test "misuse is refused" do
    plan = Plan.compile(steps: 2)
    assert_raise ArgumentError, ~r/eval_id/, fn -> Plan.operations(plan, 3) end
    assert_raise ArgumentError, ~r/eval_id/, fn -> Plan.operations(plan, -1) end
    assert_raise ArgumentError, ~r/plan/, fn -> Plan.operations(nil, 1) end
    assert_raise ArgumentError, ~r/rows/, fn -> Sampler.start_detached(plan, [], 1) end
    assert_raise ArgumentError, ~r/elements/, fn -> Sampler.start_detached(plan, [1], -1) end
    run = Sampler.start_detached(plan, [1], 1)
    assert_raise DGM.Error, ~r/evaluation 2/, fn -> Sampler.advance(run, 2) end
    assert_raise ArgumentError, ~r/eval_id/, fn -> Sampler.advance(run, :a) end
    assert_raise ArgumentError, ~r/state/, fn -> Sampler.input(run) end
    bosh3 = Plan.compile(solver: :bosh3)
    assert_raise ArgumentError, ~r/solver/, fn -> Plan.operations(bosh3, 0) end
    assert_raise ArgumentError, ~r/solver/, fn -> Sampler.start_detached(bosh3, [1], 1) end
  end
end
