defmodule DGM.ExamplesTest do
  use ExUnit.Case, async: true

  @folder Path.expand("../examples", __DIR__)

  setup do
    folder =
      Path.join(
        System.tmp_dir!(),
        "dgm-examples-#{System.pid()}-#{System.unique_integer([:positive])}"
      )

    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    {:ok, folder: folder}
  end

  defp elixir(args) do
    ebin = Path.join(Application.app_dir(:dgm), "ebin")
    {text, status} = System.cmd("elixir", ["-pa", ebin | args], stderr_to_stdout: true)
    assert status == 0, text
    text
  end

  test "digits.exs draws what generate draws, and resumes", %{folder: folder} do
    [out, block, resumed] = for name <- ~w(out.f32 run resumed.f32), do: Path.join(folder, name)
    common = ~w(--seed 5 --steps 4 --n 3 --labels 4,2,0)
    script = Path.join(@folder, "digits.exs")

    assert elixir([script | common] ++ ["--out", out]) =~
             ~r/^elixir  images=3 steps=4 seconds=\d+\.\d+$/m

    model = DGM.Dit.load!(Path.expand("../../models/digits.safetensors", __DIR__))
    plan = DGM.Plan.compile(Keyword.put(DGM.Dit.plan_options(model), :steps, 4))
    seeds = DGM.Random.row_seeds(5, 3)
    expected = DGM.Dit.generate(model, plan, seeds, [4, 2, 0])
    assert File.read!(out) == expected.data

    run = DGM.Sampler.start(plan, seeds, model.config.elements)
    {:eval, request} = DGM.Sampler.ask(run)
    y = DGM.Dit.forward(model, DGM.Sampler.input(run), DGM.Sampler.times(run), [4, 2, 0])
    File.write!(block, DGM.Sampler.export(DGM.Sampler.tell(run, request.eval_id, y)))
    elixir([script | common] ++ ["--resume", block, "--out", resumed])
    assert File.read!(resumed) == expected.data
  end

  test "the cells of digits.livemd run, Mix.install aside", %{folder: folder} do
    notebook = File.read!(Path.join(@folder, "digits.livemd"))
    cells = for [_, code] <- Regex.scan(~r/```elixir\n(.*?)```/s, notebook), do: code
    [install | code] = cells
    assert install =~ "Mix.install"
    # __DIR__ of a notebook is its folder.
    code = code |> Enum.join("\n") |> String.replace("__DIR__", inspect(@folder))
    file = Path.join(folder, "digits.exs")

    File.write!(
      file,
      code <> "\nIO.inspect(DGM.Sampler.result(resumed) == DGM.Sampler.result(List.last(runs)))\n"
    )

    text = elixir([file])
    assert text =~ "▀"
    assert String.ends_with?(text, "true\n")
  end
end
