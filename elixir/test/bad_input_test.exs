defmodule DGM.BadInputTest do
  # Every public function, every argument, every way it can be wrong: an ArgumentError that
  # names it, and a VM that goes on as before. The list is checked against the documentation,
  # so that a new function without a line here fails.
  use ExUnit.Case, async: false
  import DGM.BadInput

  alias DGM.{
    Compat,
    Dit,
    Flux,
    KVCache,
    Linear,
    Llama,
    Plan,
    Random,
    Sampler,
    Scheduler,
    SD3,
    Tensor
  }

  @modules [
    DGM,
    DGM.KVCache,
    DGM.Linear,
    DGM.Random,
    DGM.Compat,
    DGM.Plan,
    DGM.Sampler,
    DGM.Chains,
    DGM.Rbm,
    DGM.Scheduler,
    DGM.Dit,
    DGM.Llama,
    DGM.SD3,
    DGM.Flux,
    DGM.Tensor
  ]
  @model Path.expand("../../models/digits.safetensors", __DIR__)
  @llama Path.expand("../../tests/golden/tiny_llama", __DIR__)
  @sd3 Path.expand("../../tests/golden/tiny_sd3", __DIR__)
  @flux Path.expand("../../tests/golden/tiny_flux", __DIR__)

  # Numbers that f64 has and f32 has not, and what NaN looks like in Elixir.
  @not_f32 [1.0e300, -1.0e300]
  @not_numbers [nil, "1", :nan, :infinity, []]

  defp reals(shape), do: Tensor.new(DGM.Conformance.generated(Tuple.product(shape), 7), shape)

  # {module, function, arguments}
  defp functions do
    x = reals({2, 3, 4})
    bd = reals({2, 4})
    image = reals({2, 1, 4, 4})
    layer = Linear.pack(reals({3, 4}))
    plan = Plan.compile(steps: 2)
    run = Sampler.start(plan, [1, 2], 3)
    model = Dit.load!(@model)
    llama = Llama.load!(@llama)
    machine = handle("rbm", DGM.Rbm.new(zeros({3, 2}), zeros({3}), zeros({2})))

    folders = {"folder", @llama, [nil, 1, {:a}, [:a], <<255, 254>>, [1 | 2]]}

    [weights, config] =
      for file <- ["model.safetensors", "config.json"], do: File.read!(Path.join(@llama, file))

    {sd3, flux} = {SD3.load!(@sd3), Flux.load!(@flux)}
    [sd3_folders, flux_folders] = for f <- [@sd3, @flux], do: {"folder", f, elem(folders, 2)}

    [sd3_files, flux_files] =
      for folder <- [@sd3, @flux] do
        [weights, config] =
          for file <- ["diffusion_pytorch_model.safetensors", "config.json"],
              do: File.read!(Path.join(folder, file))

        [
          {"weights", weights, [nil, 1, [], <<1::1>>]},
          {"config", config, [nil, 1, [], <<1::1>>, <<255, 254>>]}
        ]
      end

    llama_files = [
      {"weights", weights, [nil, 1, [], <<1::1>>]},
      {"config", config, [nil, 1, [], <<1::1>>, <<255, 254>>]}
    ]

    network = fn _request, x, _t -> x end
    {:eval, %{eval_id: id}} = Sampler.ask(run)
    scheduler = Scheduler.new()

    paced =
      {"run", Sampler.start(Plan.compile(steps: 2, per_row: true), [1, 2], 3), [nil, 1, %{}]}

    density = Plan.compile(process: :ode, solver: :rk4, likelihood: :hutchinson)
    dense = Sampler.finish(Sampler.start(density, [1], 2), fn _request, x, _t -> {x, [2.0]} end)
    dense = {"run", dense, [nil, 1, %{}, %{dense | plan: nil}]}
    target = Plan.compile(process: :target, prediction: :score, solver: :hmc, steps: 2)
    walkers = Sampler.start(target, [1, 2], 3)
    walkers = {"run", walkers, [nil, 1, %{}, %{walkers | plan: nil}]}

    chains =
      {"chains", [[0, 1, 0, 2]], [nil, 1, [1], [nil], [[0, 1, 0, "a"]], [[0, 1, 0, 1], [0, 1]]]}

    flags =
      {"rows", [true, false],
       [nil, 1, [], [true], [true, false, true], [1, 0], [nil, true], [true | false]]}

    y = Sampler.input(run)

    x_arg = tensor("x", x, [{3, 3, 4}, {2, 3, 5}])
    bd_arg = &tensor(&1, bd, [{3, 4}, {2, 5}])
    eps = [eps: @not_numbers ++ [-1 | @not_f32]]
    affine = fn key -> {key, [1, "a", Tensor.new([1]), reals({1, 4}), %{}]} end
    seeds = integers("seeds", [1, 2], [[-1]])
    stream = options(purpose: [nil, "user", :nope, 1], draw: [nil, -1, 4_294_967_296, 1.0, :a])
    elements = count("elements", 3, [{-1}, {2, nil}, {huge(), huge()}, huge()])
    {good, shapes} = {Compat.new(:torch_cpu, 1), [{-1}, {2, nil}, {huge(), huge()}, huge()]}
    state = Compat.to_binary(good)
    rng = {"rng", good, [nil, 1, %{}, :torch_cpu, state, %{good | state: nil}]}
    shape = {"shape", {2, 3}, [nil, -1, 1.0, "1", :a, [] | shapes]}
    float = options(type: [nil, :f32, {:f, 16}, {:bf, 16}])
    layout = options(layout: [nil, "nx", :nope, 1])
    key = {"key", {1, 2}, [nil, 1, {1}, {1, 2, 3}, {1, -1}, {nil, 1}, [1, 2], {1, 4_294_967_296}]}
    seed = {"seed", 1, [nil, -1, 1.0, "1", :a, [], 0x10000000000000000]}
    pair = &{&1, {0.25, 1}, [nil, 1, {1}, {nil, 1}, {1, "a"}, [0, 1], %{}]}
    wrong = [1, "a", Tensor.new([1]), reals({2, 4}), %{}]
    start_options = options(x: wrong, data: wrong)

    labels =
      integers("labels", [1, 2], [[1], [1, 2, 3], [-1, 0], [0, model.config.num_classes + 1]])

    runs = {"run", run, [nil, 1, %{}, "run", Map.from_struct(run), %{run | plan: nil}]}

    [
      {DGM, :set_num_threads, [count("threads", 2, [0, 1025])]},
      {DGM, :attention, attention()},
      {DGM, :attention_paged, attention_paged()},
      {DGM, :attention_merge,
       [
         tensor("out1", image, [{2, 1, 4, 3}, {3, 1, 4, 4}]),
         tensor("lse1", reals({2, 1, 4}), [{2, 1, 5}]),
         tensor("out2", image, [{2, 1, 4, 3}, {3, 1, 4, 4}]),
         tensor("lse2", reals({2, 1, 4}), [{2, 1, 5}])
       ]},
      {DGM, :rope_tables,
       [
         count("positions", 2, [huge()]) |> named(["positions", "cos"]),
         count("r", 4, [3]) |> named(["r", "cos"]),
         options(
           theta: @not_numbers ++ [0, -1 | @not_f32],
           first: [nil, -1, 1.0, "1", huge()]
         )
       ]},
      {DGM, :rope,
       [
         tensor("x", image),
         integers("first", [0, 1], [[1], [1, 2, 3], [-1, 0]]),
         {["rope", "cos", "sin"], {reals({5, 2}), reals({5, 2})},
          [
            nil,
            1,
            {reals({5, 2})},
            {reals({5, 2}), reals({5, 1})},
            {reals({4, 2}), reals({4, 2})}
          ]},
         options(interleaved: [nil, 1, "a"])
       ]},
      {KVCache, :new, [cache_options()]},
      {KVCache, :append,
       [
         caches(),
         tensor("k_new", reals({2, 2, 1, 8}), [{2, 2, 1, 7}, {1, 2, 1, 8}]),
         tensor("v_new", reals({2, 2, 1, 6}), [{2, 2, 1, 7}, {1, 2, 1, 6}]),
         options(
           counts: [1, [1], [2, 0], [-1, 0], ["a", 1]],
           rope: [1, {reals({5, 2})}]
         )
       ]},
      {KVCache, :fork, [caches(), count("from", 0, [5]), count("to", 4, [5, 0])]},
      {KVCache, :truncate,
       [
         {"cache", cache(), [nil, 1, %{}, "cache", Map.from_struct(cache())]},
         integers("keep", [0, 0], [[0], [0, 0, 0], [1, 0]])
       ]},
      {DGM, :attention_backward, attention_backward()},
      {DGM, :attention_varlen, attention_varlen()},
      {DGM, :attention_varlen_backward, attention_varlen_backward()},
      {DGM, :layer_norm,
       [any_tensor("x", x), options([affine.(:weight), affine.(:bias)] ++ eps)]},
      {DGM, :rms_norm, [any_tensor("x", x), options([affine.(:weight)] ++ eps)]},
      {DGM, :modulate, [x_arg, bd_arg.("shift"), bd_arg.("scale")]},
      {DGM, :layer_norm_modulate, [x_arg, bd_arg.("shift"), bd_arg.("scale"), options(eps)]},
      {DGM, :gate_residual,
       [
         tensor("residual", x, [{3, 3, 4}, {2, 2, 4}]),
         tensor("y", x, [{2, 3, 5}, {2, 2, 4}]),
         bd_arg.("gate")
       ]},
      {DGM, :silu, [any_tensor("x", x)]},
      {DGM, :gelu, [any_tensor("x", x), options(kind: [nil, "tanh", :relu, 1])]},
      {DGM, :swiglu, [any_tensor("gate", x), optional(tensor("up", x, [{2, 3, 5}]))]},
      {DGM, :geglu,
       [
         any_tensor("gate", x),
         optional(tensor("up", x, [{2, 3, 5}])),
         options(kind: [nil, "tanh", :relu, 1])
       ]},
      {DGM, :softmax, [any_tensor("x", x)]},
      {DGM, :log_softmax, [any_tensor("x", x)]},
      {DGM, :rms_norm_residual,
       [
         any_tensor("x", x),
         tensor("residual", x, [{2, 3, 5}]),
         options([affine.(:weight)] ++ eps)
       ]},
      {DGM, :group_norm,
       [
         any_tensor("x", x),
         count("groups", 3, [0, 2, huge()]),
         options([silu: [nil, 1, "true"]] ++ eps)
       ]},
      {DGM, :embedding,
       [tensor("table", reals({2, 4})), integers("indices", [0, 1], [[2], [-1]])]},
      {DGM, :cfg_combine,
       [
         any_tensor("cond", x),
         tensor("uncond", x, [{2, 3, 5}]),
         number("scale", 2, [2000, -2000]),
         options(rescale: @not_numbers ++ [-1, 2])
       ]},
      {DGM, :rope_axial_tables,
       [
         tensor("positions", reals({3, 2})),
         integers("dims", [2, 4], [[2], [3, 4], [-2, 4], [huge() - 1, huge() - 1]]),
         options(theta: @not_numbers ++ [0, -1 | @not_f32])
       ]},
      {DGM, :timestep_embedding,
       [
         tensor("t", reals({2})),
         count("dim", 4, [3, huge(), huge() - 1]),
         options(max_period: @not_numbers ++ [0, -1 | @not_f32])
       ]},
      {DGM, :patchify, [tensor("x", image), count("patch", 2, [0, 3, 5, huge()])]},
      {DGM, :unpatchify,
       [
         tensor("x", x),
         count("patch", 2, [0, huge()]),
         {["size", "height", "width", "x"], {2, 6},
          [nil, 2, {2}, {2, 2, 2}, {-1, 2}, {2, 1.0}, {0, 0}, {4, 4}, {3, 4}, {huge(), 2}]}
       ]},
      {Linear, :pack,
       [tensor("weight", reals({3, 4})), optional(tensor("bias", reals({3}), [{4}]))]},
      {Linear, :pack_gated,
       [
         tensor("gate", reals({3, 4})),
         tensor("up", reals({3, 4})),
         options(gate_bias: [1, :none, reals({4})], up_bias: [1, reals({3, 3})])
       ]},
      {Linear, :forward,
       [
         handle("linear", layer),
         any_tensor("x", bd),
         options(
           activation: [nil, "silu", :relu, 1],
           gate: [1, :none, reals({4}), reals({5, 3})],
           residual: ["x", reals({3, 2})]
         )
       ]},
      {Compat, :new, [name("algorithm", :torch_cpu), seed]},
      {Compat, :normal, [rng, shape, float]},
      {Compat, :uniform, [rng, shape, float]},
      {Compat, :to_binary, [rng]},
      {Compat, :from_binary, [{"bytes", state, [nil, 1, :a, [], %{}]}]},
      {Compat, :brownian,
       [
         seeds,
         count("elements", 3, [huge()]),
         pair.("ends"),
         pair.("between"),
         options(normalized: [nil, 1, "a"])
       ]},
      {Compat, :jax_key, [seed]},
      {Compat, :jax_fold_in, [key, {"data", 7, [nil, -1, 1.0, "1", 4_294_967_296]}]},
      {Compat, :jax_split, [key, count("count", 3, [huge()]), layout]},
      {Compat, :jax_normal, [key, shape, layout]},
      {Compat, :jax_uniform, [key, shape, layout]},
      {Random, :row_seeds,
       [
         count("seed", 1) |> drop(fn v -> v == huge() + 1 end),
         count("rows", 2, [huge()])
       ]},
      {Random, :normal, [seeds, elements, stream]},
      {Random, :uniform, [seeds, elements, stream]},
      {Random, :categorical,
       [tensor("logits", bd), integers("seeds", [1, 2], [[1], [-1, 1]]), stream]},
      {Plan, :compile, [plan_options()]},
      {Plan, :preset, [{"preset", :sdxl, [nil, 1, "sdxl", :sd9]}]},
      {Plan, :options, [handle("plan", plan)]},
      {Plan, :describe, [handle("plan", plan)]},
      {Plan, :level, [handle("plan", plan), {"t", 0.5, [nil, :a, "1", [1]]}]},
      {Plan, :to_binary, [handle("plan", plan)]},
      {Plan, :from_binary, [{"bytes", Plan.to_binary(plan), [nil, 1, :a, [1], <<1::1>>]}]},
      {Plan, :from_binary!, [{"bytes", Plan.to_binary(plan), [nil, 1, :a, [1], <<1::1>>]}]},
      {Plan, :operations, [handle("plan", plan), count("eval_id", 1, [huge()])]},
      {Sampler, :start_detached,
       [handle("plan", plan), seeds, count("elements", 3, [0, huge()])]},
      {Sampler, :advance, [runs, count("eval_id", id) |> drop(fn v -> v == huge() + 1 end)]},
      {Scheduler, :new, [plan_options()]},
      {Scheduler, :init,
       [
         {"scheduler", scheduler, [nil, 1, %{}]},
         count("num_steps", 2, [0, huge()]) |> named(["num_steps", "steps"]),
         any_tensor("sample", reals({2, 3})),
         {"prng_key", 1, [nil, -1, 1.0, "1", :a, [], reals({2})]}
       ]},
      {Scheduler, :step,
       [
         {"scheduler", scheduler, [nil, 1, %{}]},
         {"state", elem(Scheduler.init(scheduler, 2, reals({2, 3}), 1), 0), [nil, 1, %{}]},
         tensor("sample", reals({2, 3}), [{3, 2}]),
         any_tensor("prediction", reals({2, 3}))
       ]},
      {Sampler, :select, [paced, flags]},
      {Sampler, :finish_rows, [paced, flags]},
      {Sampler, :row_steps, [runs]},
      {Sampler, :saved, [runs]},
      {Sampler, :probe, [dense]},
      {Sampler, :divergence, [dense]},
      {Sampler, :log_density, [dense]},
      {Sampler, :bits_per_dimension, [dense]},
      {DGM.Chains, :accepted, [walkers]},
      {DGM.Chains, :step_sizes, [walkers]},
      {DGM.Chains, :split_r_hat, [chains]},
      {DGM.Chains, :effective_sample_size, [chains]},
      {DGM.Chains, :replica_exchange,
       [
         any_tensor("x", zeros({2, 3})),
         {"log_density", [0.0, 0.0], [nil, 1, [:a], [nil, 0.0], [0.0], [1 | 2]]},
         {"inverse_temperatures", [1, 0.5], [nil, 1, [], [:a], [1, 1, 1], [-1, 1], [1 | 2]]},
         integers("seeds", [1, 2], [[1], [-1, 1]]),
         count("step", 0, [huge()])
       ]},
      {DGM.Rbm, :new,
       [
         tensor("weights", zeros({3, 2}), [{4, 2}, {3, 1}]),
         tensor("visible_bias", zeros({3}), [{4}]),
         tensor("hidden_bias", zeros({2}), [{1}])
       ]},
      {DGM.Rbm, :hidden_probabilities, [machine, tensor("v", zeros({2, 3}), [{2, 2}])]},
      {DGM.Rbm, :visible_probabilities, [machine, tensor("h", zeros({2, 2}), [{2, 3}])]},
      {DGM.Rbm, :free_energy, [machine, tensor("v", zeros({2, 3}), [{2, 2}])]},
      {DGM.Rbm, :energy,
       [machine, tensor("v", zeros({2, 3}), [{3, 3}]), tensor("h", zeros({2, 2}), [{3, 2}])]},
      {DGM.Rbm, :gibbs,
       [
         machine,
         tensor("v", zeros({2, 3}), [{3, 3}]),
         integers("seeds", [1, 2], [[1], [-1, 1]]),
         options([
           {:first_step, [nil, -1, 1.5, huge()]},
           {:steps, [nil, -1, 1.5, huge()]},
           {:inverse_temperatures, [nil, 1, [:a], [1, 1, 1], [-1], [1 | 2]]},
           {:hidden, [nil, 1, "true"]}
         ])
       ]},
      {DGM.Rbm, :cd_gradient,
       [
         machine,
         tensor("v_data", zeros({2, 3}), [{2, 2}, {0, 3}]),
         tensor("v_chain", zeros({2, 3}), [{2, 2}, {0, 3}])
       ]},
      {Sampler, :row_active, [runs]},
      {Sampler, :start,
       [handle("plan", plan), seeds, count("elements", 3, [0, huge()]), start_options]},
      {Sampler, :set_known,
       [
         {"run", Sampler.start(Plan.compile(steps: 2, inpaint: true), [1, 2], 3), [nil, 1, %{}]},
         any_tensor("known", reals({2, 3})),
         any_tensor("mask", %{reals({2, 3}) | data: <<0::192>>})
       ]},
      {Sampler, :ask, [runs]},
      {Sampler, :input, [runs]},
      {Sampler, :times, [runs]},
      {Sampler, :result, [runs]},
      {Sampler, :stats, [runs]},
      {Sampler, :export, [runs]},
      {Sampler, :tell,
       [
         runs,
         count("eval_id", id) |> drop(fn v -> v == huge() + 1 end),
         {"y", y, [nil, 1, :a, [], <<>>, "abc", y <> <<0::32>>, <<y::binary, 1::1>>, reals({5})]}
       ]},
      {Sampler, :import,
       [handle("plan", plan), {"block", Sampler.export(run), [nil, 1, [], <<1::1>>]}]},
      {Sampler, :import!,
       [handle("plan", plan), {"block", Sampler.export(run), [nil, 1, [], <<1::1>>]}]},
      {Sampler, :sample,
       [handle("plan", plan), seeds, count("elements", 3, [0]), models(network), start_options]},
      {Sampler, :stream,
       [handle("plan", plan), seeds, count("elements", 3, [0]), models(network), start_options]},
      {Sampler, :finish, [runs, models(network)]},
      {Dit, :load, [{"path", @model, [nil, 1, {:a}, [:a], <<255, 254>>, [1 | 2]]}]},
      {Dit, :load!, [{"path", @model, [nil, 1, {:a}, [:a], <<255, 254>>, [1 | 2]]}]},
      {Dit, :from_binary, [{"bytes", File.read!(@model), [nil, 1, [], <<1::1>>]}]},
      {Dit, :from_binary!, [{"bytes", File.read!(@model), [nil, 1, [], <<1::1>>]}]},
      {Dit, :plan_options, [handle("model", model)]},
      {Dit, :forward,
       [
         handle("model", model),
         {"x", reals({2, 1, 8, 8}), [nil, 1, <<>>, "abc", reals({2, 1, 8, 9}), reals({2, 64})]},
         {["t", "list"], [0.5, 0.5], [nil, :a, "abc", <<0::32>>, [1], ["a"], reals({3})]},
         labels
       ]},
      {Dit, :generate, [handle("model", model), handle("plan", plan), seeds, labels]},
      {SD3, :load, [sd3_folders]},
      {SD3, :load!, [sd3_folders]},
      {SD3, :from_binary, sd3_files},
      {SD3, :from_binary!, sd3_files},
      {SD3, :forward,
       [
         handle("model", sd3),
         tensor("x", reals({1, 4, 4, 6}), [{1, 3, 4, 6}]),
         {["t", "list"], [0.5], [nil, :a, "abc", [1, 2], ["a"], reals({3})]},
         tensor("text", reals({1, 2, 20}), [{1, 2, 19}, {2, 2, 20}]),
         tensor("pooled", reals({1, 12}), [{1, 13}, {2, 12}])
       ]},
      {Flux, :load, [flux_folders]},
      {Flux, :load!, [flux_folders]},
      {Flux, :from_binary, flux_files},
      {Flux, :from_binary!, flux_files},
      {Flux, :forward,
       [
         handle("model", flux),
         tensor("x", reals({1, 6, 16}), [{1, 6, 15}, {1, 7, 16}]),
         {["t", "list"], [0.5], [nil, :a, "abc", [1, 2], ["a"], reals({3})]},
         tensor("text", reals({1, 2, 20}), [{1, 2, 19}, {2, 2, 20}]),
         tensor("pooled", reals({1, 12}), [{1, 13}, {2, 12}]),
         tensor("ids", reals({6, 3}), [{5, 3}, {6, 2}]),
         options(
           guidance: [1, :a, [1.0], reals({1})],
           text_ids: [1, :a, reals({1, 3}), reals({2, 2})]
         )
       ]},
      {Llama, :load, [folders]},
      {Llama, :load!, [folders]},
      {Llama, :from_binary, llama_files},
      {Llama, :from_binary!, llama_files},
      {Llama, :cache,
       [
         # Its sizes are all that is read of it.
         {"model", llama, [nil, 1, %{}, "model", Map.from_struct(llama)]},
         {["tokens", "batch", "type", "options"], [tokens: 3],
          [
            nil,
            1,
            [],
            [tokens: -1],
            [tokens: 3, batch: nil],
            [tokens: 3, type: {:f, 64}],
            [pages: 3]
          ]}
       ]},
      {Llama, :forward,
       [
         handle("model", llama),
         {"tokens", [[1, 2], [3, 4]],
          [
            nil,
            1,
            :a,
            [],
            [1, 2],
            [[1, 2]],
            [[1, 2], [3]],
            [[1, 2], [3, 64]],
            [[1, 2], [3, -1]],
            [["a"], [1]]
          ]},
         {["cache", "k"], Llama.cache(llama, tokens: 4, batch: 2),
          [nil, 1, %{}, KVCache.new(pages: 2, page_len: 4, kv_heads: 4, dim: 8)]},
         options(last: [nil, -1, 1.0, "1", 3, huge()])
       ]},
      {Tensor, :new,
       [
         {["data", "list"], [1, 2], [nil, 1, :a, [[1], [1, 2]], ["a"], [1 | 2], "abc", [1]]},
         {["shape", "dimension", "data"], {2}, [nil, 2, [2], {-1}, {1.0}, {3}, {huge(), huge()}]}
       ]},
      {Tensor, :from_binary,
       [
         {"data", <<1, 2>>, [nil, 1, [1], <<1>>, <<1::1>>]},
         {["shape", "dimension", "data"], {1}, [nil, [1], {-1}, {3}, {huge(), huge()}]},
         {["type", "data"], {:f, 16}, [nil, :f16, {:f, 8}, {:f, 32}]}
       ]},
      {Tensor, :as_type,
       [
         {"tensor", bd, [nil, 1, %{}, "a"]},
         {"type", {:f, 16}, [nil, :f16, {:f, 8}, {:u, 8}, {:s, 8}]}
       ]},
      {Tensor, :mask,
       [
         {"mask", [true, false], [nil, 1, [1], [true], [true | false]]},
         {["shape", "dimension", "mask"], {2}, [nil, [2], {-1}, {3}, {huge(), huge()}]}
       ]},
      {Tensor, :reshape,
       [
         {"tensor", bd, [nil, 1, %{}, "a"]},
         {["shape", "dimension", "data"], {8}, [nil, [8], {7}, {-8}, {huge(), huge()}]}
       ]},
      {Tensor, :to_list, [{"tensor", bd, [nil, 1, %{}, "a"]}]},
      {Tensor, :to_flat_list, [{"tensor", bd, [nil, 1, %{}, "a"]}]}
    ]
  end

  defp attention do
    {tensors, options} = attention_arguments()
    tensors ++ [options(options ++ [lse: [nil, 1, "a"]])]
  end

  defp attention_backward do
    {tensors, options} = attention_arguments()
    out = reals({2, 4, 3, 8})
    wrong = [{2, 4, 3, 7}, {2, 4, 4, 8}, {1, 4, 3, 8}]

    tensors ++
      [
        tensor("out", out, wrong),
        tensor("lse", reals({2, 4, 3}), [{2, 4, 4}, {1, 4, 3}]),
        tensor("dout", out, wrong),
        # There is no bias to have a gradient.
        options(options ++ [dbias: [nil, 1, "a", true]])
      ]
  end

  defp attention_arguments do
    [q, k] = [reals({2, 4, 3, 8}), reals({2, 2, 5, 8})]
    fits = [{3, 2, 5, 8}, {2, 3, 5, 8}, {2, 2, 6, 8}, {2, 2, 5, 9}]
    masks = [1, "a", [true], %{}, reals({2, 4, 3, 5}), Tensor.mask([true], {1, 1, 1, 1, 1})]

    tensors = [
      tensor("q", q, [{3, 4, 3, 8}, {2, 3, 3, 8}, {2, 4, 3, 9}]),
      tensor("k", k, fits),
      # Values may be of another width than keys.
      tensor("v", k, List.delete_at(fits, 3))
    ]

    {tensors,
     [
       scale: ["1", :nan, :infinity, [] | @not_f32],
       causal: [nil, 1, "true", :yes],
       window: [nil, 1, {1}, {-1, 1}, {1, nil}, {1.5, 1}, {1, 2, 3}],
       kv_lengths: [1, [1], [1, 2, 3], [-1, 1], [6, 1], [1.0, 2], [1 | 2]],
       soft_cap: ["1", :nan, 0, -1, [] | @not_f32],
       alibi_slopes: [1, [1], [1, 2, 3, :nan], [1.0e300, 1, 1, 1], [1 | 2]],
       sinks: [1, [1], [1, 2, 3, "a"], [1 | 2]],
       bias: [1, "a", %{}, reals({1}), reals({2, 4, 3, 6})],
       mask: masks
     ]}
  end

  defp named({_, good, bad}, names), do: {names, good, bad}

  # Five pages of three tokens.
  defp cache do
    KVCache.new(
      pages: 5,
      page_len: 3,
      kv_heads: 2,
      dim: 8,
      value_dim: 6,
      block_table: [[0, 1], [2, 3]]
    )
  end

  defp caches do
    cache = cache()
    good = [nil, 1, %{}, "cache", Map.from_struct(cache)]

    fields = [
      {"k",
       k: [
         nil,
         1,
         reals({5, 2, 3, 8}) |> Map.put(:type, {:u, 8}),
         reals({5, 2, 4, 8}),
         reals({5, 2})
       ]},
      {"v",
       v: [nil, 1, reals({5, 2, 4, 6}), reals({4, 2, 3, 6}), Tensor.as_type(cache.v, {:f, 16})]},
      {"k_scale", k_scale: [1, reals({5, 2, 3})]},
      {"v_scale", v_scale: [1, reals({5, 2, 3})]},
      {"block_table",
       block_table: [1, [1], [[1], 2], [["a"]], [[1.0]], [[0x10000000000]], [[1 | 2]]]},
      {"lengths", lengths: [nil, 1, [1], [1, 2, 3], [-1, 0], [7, 0], ["a", 0]]},
      {"layout", layout: [nil, :columns, 1]}
    ]

    bad =
      for {_name, [{field, values}]} <- fields, value <- values do
        Map.put(cache, field, value)
      end

    # A wrong page, where a token is.
    wrong = for page <- [5, -1], do: %{cache | block_table: [[page, 1], [2, 3]], lengths: [1, 0]}

    {["cache", "k", "v", "k_scale", "v_scale", "block_table", "lengths", "layout"], cache,
     good ++ bad ++ wrong}
  end

  defp cache_options do
    good = [pages: 2, page_len: 3, kv_heads: 2, dim: 4]
    counts = [nil, -1, 1.5, "1", :a]

    {:options, _, bad} =
      options(
        block_table: [1, [1], [["a"]], [[1] | 2]],
        type: [nil, :f32, {:f, 8}, {:u, 8}],
        layout: [nil, 1, :rows]
      )

    bad =
      for {word, value} <- bad,
          do: {word, if(Keyword.keyword?(value), do: Keyword.merge(good, value), else: value)}

    sizes =
      for key <- Keyword.keys(good),
          value <- counts,
          do: {Atom.to_string(key), Keyword.put(good, key, value)}

    {:options, good, bad ++ sizes ++ [{"shape", Keyword.put(good, :pages, huge())}]}
  end

  defp attention_paged do
    [_, _, _, {:options, [], options}] = attention()

    # The cache has the lengths, and room for six keys.
    options =
      Enum.reject(options, fn {_, value} ->
        Keyword.keyword?(value) and
          (Keyword.has_key?(value, :bias) or Keyword.has_key?(value, :mask))
      end)

    more = [
      {"bias", [bias: reals({2, 4, 3, 5})]},
      {"mask", [mask: Tensor.mask([true], {1, 1, 1, 1, 1})]}
    ]

    lengths = [{"kv_lengths", [kv_lengths: [1, 1]]}]

    [
      tensor("q", reals({2, 4, 3, 8}), [{3, 4, 3, 8}, {2, 4, 3, 9}]),
      caches(),
      {:options, [], options ++ more ++ lengths}
    ]
  end

  defp attention_varlen do
    {tensors, offsets, options} = packed_arguments()
    tensors ++ offsets ++ [options(options ++ [lse: [nil, 1, "a"]])]
  end

  defp attention_varlen_backward do
    {tensors, offsets, options} = packed_arguments()
    out = reals({5, 4, 8})
    wrong = [{5, 4, 7}, {6, 4, 8}, {5, 3, 8}]

    saved = [
      tensor("out", out, wrong),
      tensor("lse", reals({4, 5}), [{4, 6}, {5, 4}]),
      tensor("dout", out, wrong)
    ]

    tensors ++ saved ++ offsets ++ [options(options)]
  end

  defp packed_arguments do
    [q, k] = [reals({5, 4, 8}), reals({6, 2, 8})]
    fits = [{5, 2, 8}, {6, 3, 8}, {6, 2, 9}]
    offsets = [[0], [0, 2, 1, 5], [0, 9], [1, 5, 6]]

    tensors = [
      tensor("q", q, [{6, 4, 8}, {5, 3, 8}, {5, 4, 9}]),
      tensor("k", k, fits),
      tensor("v", k, List.delete_at(fits, 2))
    ]

    offsets = [
      integers("q_offsets", [0, 2, 5], [[0, 2, 6], [0, -2, 5] | offsets]),
      integers("kv_offsets", [0, 2, 6], [[0, 2, 5], [0, -2, 6] | offsets])
    ]

    options = [
      scale: ["1", :nan, :infinity, [] | @not_f32],
      causal: [nil, 1, "true", :yes],
      window: [nil, 1, {1}, {-1, 1}, {1, nil}, {1.5, 1}, {1, 2, 3}],
      soft_cap: ["1", :nan, 0, -1, [] | @not_f32],
      alibi_slopes: [1, [1], [1, 2, 3, :nan], [1.0e300, 1, 1, 1], [1 | 2]],
      sinks: [1, [1], [1, 2, 3, "a"], [1 | 2]]
    ]

    {tensors, offsets, options}
  end

  defp plan_options do
    positive = @not_numbers ++ [0, -1, 1.0e300]
    counts = [nil, -1, 0, 1.5, "1", :a, 1_000_000_000, 1.0e9]

    vp = [process: :vp_linear, prediction: :epsilon]
    adaptive = [solver: :bosh3]
    hmc = [process: :target, prediction: :score, solver: :hmc]

    options([
      {:process, [nil, "flow", :nope, 1]},
      {:prediction, [nil, "velocity", :nope, 1]},
      {:solver, [nil, "euler", :nope, 1]},
      {:spacing, [nil, "uniform", :nope, 1]},
      {:likelihood, [nil, "exact", :nope, 1, :exact]},
      {:non_finite, [nil, "propagate", :nope, 1, true]},
      {:steps, counts},
      {:train_steps, counts, vp},
      {:max_evals, List.delete(counts, 1_000_000_000), adaptive},
      {:shift, positive},
      {:eta, @not_numbers ++ [-0.1, 1.1]},
      {:guidance, @not_numbers},
      {:beta_start, positive, vp},
      {:beta_end, positive, vp},
      {:rtol, @not_numbers ++ [-1], adaptive},
      {:atol, @not_numbers ++ [-1], adaptive},
      {:h_init, @not_numbers ++ [-1], adaptive},
      {:clip, List.delete(@not_numbers, nil) ++ [0, -1]},
      {:times, [1, "a", [], [1], [1 | 2], [:a, 0], [0, 1], [1, 1]]},
      {:sigmas, [1, "a", [1], [1 | 2], [:a, 0], [0, 1], [1, 1]]},
      {:betas, [1, "a", [0.1], [:a]]},
      {:restart, [1, "a", [1, 2], [:a, 1, 1, 1], [0.5, 1, 1, 0.1]]},
      {:order, counts -- [0]},
      {:start_step, counts -- [0]},
      {:sde_eta, @not_numbers ++ [-1, 3], [solver: :euler_ancestral]},
      {:s_noise, @not_numbers ++ [-1]},
      {:snr, @not_numbers ++ [-1, 11], [solver: :predictor_corrector]},
      {:corrector_steps, counts -- [0], [solver: :predictor_corrector]},
      {:guidance_weak, @not_numbers ++ [1001]},
      {:step_size, @not_numbers ++ [0, -1], hmc},
      {:target_accept, @not_numbers ++ [-1, 1], hmc},
      {:leapfrog, counts, hmc},
      {:warmup, counts -- [0], hmc},
      {:t_start, @not_numbers ++ [1.0e10], [process: :ode]},
      {:t_end, @not_numbers ++ [0, 1.0e10], [process: :ode]},
      {:start_sigma, @not_numbers ++ [-1, 2]},
      {:zero_snr, [nil, 1, "true", :nope]},
      {:inpaint, [nil, 1, "true", :nope]},
      {:per_row, [nil, 1, "true", :nope]},
      {:guidance_mode, [nil, "cfg", :nope, 1]},
      {:noise, [nil, "brownian", :nope, 1]},
      {:compat, [nil, "diffusers", :nope, 1]}
    ])
  end

  defp models(network),
    do:
      {["model", "y"], network,
       [nil, 1, fn -> 1 end, fn _, _, _ -> nil end, fn _, _, _ -> "" end]}

  defp drop({name, good, bad}, unwanted), do: {name, good, Enum.reject(bad, unwanted)}

  defp evaluate(module, function, arguments) do
    case apply(module, function, arguments) do
      # Lazy: look at it.
      stream when function == :stream -> Enum.to_list(stream)
      value -> value
    end
  end

  # What can be compared: handles are new on every call.
  defp comparable(%{resource: _} = value), do: %{value | resource: nil}
  defp comparable(%{plan: plan} = run), do: %{run | plan: comparable(plan)}

  defp comparable({:ok, value}), do: {:ok, comparable(value)}

  defp comparable({%{plan: _, run: run} = state, out}),
    do: {%{comparable(Map.delete(state, :run)) | seeds: comparable(run)}, out}

  defp comparable(list) when is_list(list), do: Enum.map(list, &comparable/1)
  defp comparable(value), do: value

  test "the list has every documented function" do
    listed =
      for {module, function, arguments} <- functions(), do: {module, function, length(arguments)}

    documented =
      for module <- @modules,
          {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(module),
          {{:function, function, arity}, _, _, doc, _} <- docs,
          doc != :hidden and arity > 0,
          do: {module, function, arity}

    # new/1 is new/2 with the shape read from the list.
    assert Enum.sort(documented -- [{Tensor, :new, 1}]) == Enum.sort(listed)
  end

  test "every wrong argument is refused by name, and nothing is lost" do
    failures =
      for {module, function, arguments} <- functions(),
          good = Enum.map(arguments, &elem(&1, 1)),
          before = comparable(evaluate(module, function, good)),
          failure <- wrong(module, function, arguments) ++ lost(module, function, good, before),
          do: failure

    assert failures == [], Enum.join(failures, "\n")
  end

  defp wrong(module, function, arguments) do
    for {bad, words} <- calls(arguments), problem = problem(module, function, bad, words) do
      "#{inspect(module)}.#{function}: #{problem}"
    end
  end

  defp problem(module, function, arguments, words) do
    value = evaluate(module, function, arguments)

    "#{inspect(arguments, limit: 5)} gave #{inspect(value, limit: 5)}, expected an error about #{inspect(words)}"
  rescue
    error in ArgumentError ->
      unless Enum.any?(words, &(error.message =~ ~r/\b#{&1}\b/)),
        do:
          "#{inspect(arguments, limit: 5)}: #{inspect(error.message)} has none of #{inspect(words)}"

    error ->
      "#{inspect(arguments, limit: 5)} raised #{inspect(error)} for #{inspect(words)}"
  end

  defp lost(module, function, good, before) do
    if comparable(evaluate(module, function, good)) == before,
      do: [],
      else: ["#{inspect(module)}.#{function} gives another result than before"]
  end

  describe "content from outside is an error tuple" do
    defp refused(function, bang) do
      assert {:error, %DGM.Error{code: code, kind: kind, message: text}} = function.()
      assert code < 0 and kind in [:io, :format, :range, :shape, :dtype, :argument, :state]
      assert text != "" and String.valid?(text)
      assert %DGM.Error{code: ^code} = catch_error(bang.())
    end

    # A file: the length of the header, the header, the tensors' bytes.
    defp file(header, data \\ <<>>), do: <<byte_size(header)::64-little>> <> header <> data

    defp entry(name, dtype, shape, from, to) do
      ~s("#{name}":{"dtype":"#{dtype}","shape":#{inspect(shape)},"data_offsets":[#{from},#{to}]})
    end

    test "hostile safetensors" do
      good = File.read!(@model)
      <<length::64-little, header::binary-size(length), data::binary>> = good

      many =
        for i <- 1..1_000_000,
            into: "",
            do: [",", entry("t#{i}", "F32", [1], 0, 4)] |> IO.iodata_to_binary()

      hostile = [
        <<>>,
        <<1, 2, 3>>,
        <<0::64>>,
        <<0xFFFFFFFFFFFFFFFF::64>>,
        <<1_000_000::64-little, "{}">>,
        file("{"),
        file("[]"),
        file("null"),
        file("{}"),
        file(<<255, 254>>),
        file(String.duplicate("[", 100_000)),
        file("{" <> entry("x", "F32", [1], 0, 400) <> "}", <<0::32>>),
        file("{" <> entry("x", "F32", [2], 0, 4) <> "}", <<0::32>>),
        file("{" <> entry("x", "F32", [1], 4, 0) <> "}", <<0::32>>),
        file("{" <> entry("x", "F32", [0xFFFFFFFFFFFFFFFF, 2], 0, 4) <> "}", <<0::32>>),
        file(
          "{" <> entry("x", "F32", [1], 0, 4) <> "," <> entry("y", "F32", [1], 0, 4) <> "}",
          <<0::32>>
        ),
        file("{" <> entry("x", "Q7", [1], 0, 4) <> "}", <<0::32>>),
        file("{" <> entry("t0", "F32", [1], 0, 4) <> many <> "}", <<0::32>>),
        file(String.replace(header, "F32", "I64"), data),
        file(header, binary_part(data, 0, byte_size(data) - 1)),
        file(header, data <> <<0>>),
        binary_part(good, 0, 8 + div(length, 2))
      ]

      for {bytes, i} <- Enum.with_index(hostile) do
        refused(fn -> Dit.from_binary(bytes) end, fn -> Dit.from_binary!(bytes) end)
        path = Path.join(System.tmp_dir!(), "dgm-hostile-#{System.pid()}-#{i}")
        File.write!(path, bytes)

        try do
          refused(fn -> Dit.load(path) end, fn -> Dit.load!(path) end)
        after
          File.rm!(path)
        end
      end

      assert Dit.from_binary!(good).config == Dit.load!(@model).config
    end

    test "paths that are no file" do
      for path <- [
            "",
            "/no/such/file",
            "a\0b",
            System.tmp_dir!(),
            ~c"/no/such",
            "/dev/null",
            String.duplicate("a", 10_000)
          ],
          do: refused(fn -> Dit.load(path) end, fn -> Dit.load!(path) end)
    end

    # Every cut and every flipped byte: the checksum sees them all.
    test "cut and corrupted plans and runs" do
      plan = Plan.compile(steps: 2, solver: :heun)
      run = Sampler.start(plan, [1, 2], 3)
      block = Sampler.export(run)

      for broken <- broken(block) do
        refused(fn -> Sampler.import(plan, broken) end, fn -> Sampler.import!(plan, broken) end)
      end

      for broken <- broken(Plan.to_binary(plan)) do
        refused(fn -> Plan.from_binary(broken) end, fn -> Plan.from_binary!(broken) end)
      end

      # A run of another plan, a plan as a run, a run as a plan.
      other = Plan.compile(steps: 3, solver: :heun)
      refused(fn -> Sampler.import(other, block) end, fn -> Sampler.import!(other, block) end)
      bytes = Plan.to_binary(plan)
      refused(fn -> Sampler.import(plan, bytes) end, fn -> Sampler.import!(plan, bytes) end)
      refused(fn -> Plan.from_binary(block) end, fn -> Plan.from_binary!(block) end)
      assert Sampler.import!(plan, block) == run
    end

    defp broken(block) do
      size = byte_size(block)
      cuts = for n <- 0..(size - 1), do: binary_part(block, 0, n)

      flips =
        for i <- 0..(size - 1) do
          <<head::binary-size(i), byte, rest::binary>> = block
          <<head::binary, Bitwise.bxor(byte, 0x41), rest::binary>>
        end

      [block <> <<0>>, block <> block | cuts ++ flips]
    end
  end

  test "forged runs give an error, whichever function looks at them" do
    plan = Plan.compile(steps: 2)
    run = Sampler.start(plan, [1, 2], 3)
    {:eval, %{eval_id: id}} = Sampler.ask(run)
    y = Sampler.input(run)
    next = Sampler.tell(run, id, y)
    other = Sampler.start(Plan.compile(steps: 3, solver: :rk4), [1, 2, 3], 5)

    forged =
      [%{run | plan: other.plan}, %{run | header: other.header}, %{run | header: <<>>}] ++
        for i <- 0..(byte_size(run.header) - 1) do
          <<head::binary-size(i), byte, rest::binary>> = run.header
          %{run | header: <<head::binary, Bitwise.bxor(byte, 0xFF), rest::binary>>}
        end

    # A header has no checksum, an exported block has: flipped bytes may be another run, but
    # never anything else than a value or one of the two exceptions.
    for run <- forged,
        look <- [
          &Sampler.ask/1,
          &Sampler.input/1,
          &Sampler.times/1,
          &Sampler.result/1,
          &Sampler.stats/1,
          &Sampler.export/1,
          &Sampler.tell(&1, id, y)
        ] do
      try do
        look.(run)
      rescue
        _ in [ArgumentError, DGM.Error] -> :ok
      end
    end

    for look <- [&Sampler.input/1, &Sampler.result/1, &Sampler.export/1, &Sampler.tell(&1, id, y)] do
      assert_raise ArgumentError, ~r/\bstate\b/, fn -> look.(%{run | state: other.state}) end
    end

    assert Sampler.tell(run, id, y) == next
  end

  test "misaligned binaries give the same bits in every function" do
    for {module, function, arguments} <- functions(),
        good = Enum.map(arguments, &elem(&1, 1)),
        shift <- 1..3 do
      expected = comparable(evaluate(module, function, good))
      got = comparable(evaluate(module, function, misaligned(good, shift)))
      assert got == expected, "#{inspect(module)}.#{function} shifted by #{shift} bytes"
    end
  end

  # The same value with every binary in it `shift` bytes into another.
  defp misaligned(binary, shift) when is_binary(binary) do
    <<_::binary-size(shift), shifted::binary>> = :binary.copy(<<7>>, shift) <> binary
    shifted
  end

  defp misaligned(list, shift) when is_list(list), do: Enum.map(list, &misaligned(&1, shift))
  defp misaligned(%Tensor{} = t, shift), do: %{t | data: misaligned(t.data, shift)}

  defp misaligned(%DGM.Run{} = run, shift),
    do: %{run | header: misaligned(run.header, shift), state: misaligned(run.state, shift)}

  defp misaligned(other, _shift), do: other
end
