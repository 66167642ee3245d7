defmodule DGM.ProjectTest do
  # A user's project that has nothing but {:dgm, path: ...} in its deps.
  use ExUnit.Case, async: true
  @moduletag :slow
  @moduletag timeout: 300_000

  @dgm Path.expand("..", __DIR__)

  setup do
    folder = Path.join(System.tmp_dir!(), "dgm-project-#{System.pid()}")
    File.mkdir_p!(Path.join(folder, "lib"))
    on_exit(fn -> File.rm_rf!(folder) end)

    File.write!(Path.join(folder, "mix.exs"), """
    defmodule User.MixProject do
      use Mix.Project

      def project do
        [app: :user, version: "0.1.0", elixir: "~> 1.14", deps: [{:dgm, path: #{inspect(@dgm)}}]]
      end

      def application, do: [extra_applications: [:logger]]
    end
    """)

    File.write!(Path.join(folder, "lib/user.ex"), """
    defmodule User do
      def run, do: IO.inspect(DGM.Tensor.to_list(DGM.silu(DGM.Tensor.new([0]))))
    end
    """)

    {:ok, folder: folder}
  end

  defp mix(folder, args, env \\ []) do
    # As the user would call it: nothing of this test's own mix run leaks in.
    env =
      [{"MIX_ENV", "dev"}, {"MIX_BUILD_PATH", nil}, {"MIX_TARGET", nil}, {"MIX_EXS", nil}] ++ env

    {text, status} = System.cmd("mix", args, cd: folder, stderr_to_stdout: true, env: env)
    assert status == 0, text
    text
  end

  defp library(folder, env \\ "dev"),
    do: Path.join(folder, "_build/#{env}/lib/dgm/priv/dgm_nif.so")

  test "compiles, runs, is silent when fresh, makes a release", %{folder: folder} do
    assert mix(folder, ~w(run -e User.run)) =~ "[0.0]"
    before = File.stat!(library(folder))

    # Nothing changed: no line, and the library stays the file it is.
    assert mix(folder, ~w(compile)) == ""
    assert mix(folder, ~w(run -e User.run)) == "[0.0]\n"
    assert File.stat!(library(folder)).inode == before.inode

    # Another environment takes the same build of the crate: cargo has nothing to compile.
    refute mix(folder, ~w(compile), [{"MIX_ENV", "prod"}]) =~ "dgm_nif v"
    mix(folder, ~w(release --quiet), [{"MIX_ENV", "prod"}])
    program = Path.join(folder, "_build/prod/rel/user/bin/user")
    {text, status} = System.cmd(program, ["eval", "User.run()"], stderr_to_stdout: true)
    assert {text, status} == {"[0.0]\n", 0}
  end

  test "DGM_NIF_PATH names a prebuilt library; cargo is not called", %{folder: folder} do
    prebuilt = Path.join(folder, "prebuilt.so")
    File.cp!(Application.app_dir(:dgm, "priv/dgm_nif.so"), prebuilt)
    # A cargo that would be found first, and would leave a trace.
    called = Path.join(folder, "cargo-was-called")
    File.write!(Path.join(folder, "cargo"), "#!/bin/sh\ntouch '#{called}'\nexit 1\n")
    File.chmod!(Path.join(folder, "cargo"), 0o755)
    env = [{"DGM_NIF_PATH", prebuilt}, {"PATH", folder <> ":" <> System.get_env("PATH")}]
    assert mix(folder, ~w(run -e User.run), env) =~ "[0.0]"
    refute File.exists?(called)

    env = [{"DGM_NIF_PATH", Path.join(folder, "missing.so")}]
    {text, status} = System.cmd("mix", ["compile"], cd: folder, stderr_to_stdout: true, env: env)
    assert status != 0 and text =~ "cannot read"
  end

  test "a release runs with the source tree gone", %{folder: folder} do
    source = Path.join(folder, "moved")
    File.mkdir_p!(source)
    for part <- ~w(mix.exs lib), do: File.cp_r!(Path.join(@dgm, part), Path.join(source, part))
    prebuilt = Application.app_dir(:dgm, "priv/dgm_nif.so")
    user = File.read!(Path.join(folder, "mix.exs"))

    File.write!(
      Path.join(folder, "mix.exs"),
      String.replace(user, inspect(@dgm), inspect(source))
    )

    mix(folder, ~w(release --quiet), [{"MIX_ENV", "prod"}, {"DGM_NIF_PATH", prebuilt}])
    File.rm_rf!(source)
    release = Path.join(folder, "elsewhere")
    File.rename!(Path.join(folder, "_build/prod/rel/user"), release)
    File.rm_rf!(Path.join(folder, "_build"))
    program = Path.join(release, "bin/user")
    {text, status} = System.cmd(program, ["eval", "User.run()"], stderr_to_stdout: true)
    assert {text, status} == {"[0.0]\n", 0}
  end

  test "an umbrella with the dependency in two apps", %{folder: folder} do
    user = File.read!(Path.join(folder, "mix.exs"))
    File.rm_rf!(Path.join(folder, "lib"))

    File.write!(Path.join(folder, "mix.exs"), """
    defmodule Umbrella.MixProject do
      use Mix.Project
      def project, do: [apps_path: "apps", version: "0.1.0", deps: []]
    end
    """)

    shared =
      "build_path: \"../../_build\", lockfile: \"../../mix.lock\", deps_path: \"../../deps\", "

    for name <- ~w(one two) do
      app = Path.join([folder, "apps", name])
      File.mkdir_p!(Path.join(app, "lib"))
      module = String.capitalize(name)

      project =
        user
        |> String.replace("User", module)
        |> String.replace("app: :user, ", "app: :#{name}, " <> shared)

      File.write!(Path.join(app, "mix.exs"), project)

      File.write!(Path.join(app, "lib/#{name}.ex"), """
      defmodule #{module} do
        def run, do: DGM.Tensor.to_list(DGM.silu(DGM.Tensor.new([0])))
      end
      """)
    end

    assert mix(folder, ["run", "-e", "IO.inspect(One.run() == Two.run())"]) =~ "true"
    assert mix(folder, ["compile"]) == ""
  end
end
