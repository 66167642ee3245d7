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
    env = [{"DGM_NIF_PATH", prebuilt}, {"CARGO_HOME", "/no/such/folder"}]
    assert mix(folder, ~w(run -e User.run), env) =~ "[0.0]"

    env = [{"DGM_NIF_PATH", Path.join(folder, "missing.so")}]
    {text, status} = System.cmd("mix", ["compile"], cd: folder, stderr_to_stdout: true, env: env)
    assert status != 0 and text =~ "cannot read"
  end
end
