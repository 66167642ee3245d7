# Draws handwritten digits: a trained diffusion transformer sampled by ask and tell.
#
#     mix run examples/digits.exs --n 10 --out digits.f32
#
#   --model PATH --seed N --steps N --n N --labels 0,1,2 --out FILE
#   --resume FILE   finish the exported run in FILE, whichever language started it

{opts, [], []} =
  OptionParser.parse(System.argv(),
    strict: [
      model: :string,
      seed: :integer,
      steps: :integer,
      n: :integer,
      labels: :string,
      out: :string,
      resume: :string
    ]
  )

default = Path.expand("../../models/digits.safetensors", __DIR__)
model = DGM.Dit.load!(Keyword.get(opts, :model, default))

# The weights file says how the network wants to be sampled; a plan is that, compiled.
plan =
  model
  |> DGM.Dit.plan_options()
  |> Keyword.merge(Keyword.take(opts, [:steps]))
  |> DGM.Plan.compile()

labels =
  case opts[:labels] do
    nil -> Enum.map(0..(Keyword.get(opts, :n, 64) - 1), &rem(&1, 10))
    list -> list |> String.split(",") |> Enum.map(&String.to_integer/1)
  end

null = Enum.map(labels, fn _ -> model.config.null_label end)

# One seed a row: an image never depends on the other images of its batch.
seeds = DGM.Random.row_seeds(Keyword.get(opts, :seed, 351), length(labels))

run =
  case opts[:resume] do
    nil -> DGM.Sampler.start(plan, seeds, model.config.elements)
    file -> DGM.Sampler.import!(plan, File.read!(file))
  end

defmodule Digits do
  # The run asks for the network's output, we tell it, until nothing is left to ask. Every run
  # is a value: keep it, send it to another process, export it, go back to it.
  def draw(run, network) do
    case DGM.Sampler.ask(run) do
      :done ->
        run

      {:eval, request} ->
        y = network.(request.role, DGM.Sampler.input(run), DGM.Sampler.times(run))
        run |> DGM.Sampler.tell(request.eval_id, y) |> draw(network)
    end
  end
end

# Classifier-free guidance asks twice a step: with the class and without.
network = fn
  :cond, x, t -> DGM.Dit.forward(model, x, t, labels)
  :uncond, x, t -> DGM.Dit.forward(model, x, t, null)
end

{microseconds, run} = :timer.tc(fn -> Digits.draw(run, network) end)
seconds = :erlang.float_to_binary(microseconds / 1.0e6, decimals: 3)
IO.puts("elixir  images=#{run.rows} steps=#{plan.steps} seconds=#{seconds}")

if opts[:out], do: File.write!(opts[:out], DGM.Sampler.result(run).data)
