defmodule DGM.MixProject do
  use Mix.Project

  # Equal to the version of the crate; the NIF refuses to load otherwise.
  @version "0.1.0"
  @root Path.expand("..", __DIR__)

  def project do
    [
      app: :dgm,
      version: @version,
      elixir: "~> 1.14",
      description: "Sampling and attention kernels of deep generative models, for the CPU",
      compilers: [:cargo] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      aliases: ["compile.cargo": &compile_cargo/1],
      # None on purpose: a path dependency must work without Hex.
      deps: []
    ]
  end

  def application, do: [extra_applications: [:logger]]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # Runs on every mix command of every project that depends on this one, so it says nothing
  # when nothing changed. The task is an alias because a project's own lib/ is not compiled
  # yet when its compilers start.
  defp compile_cargo(_args) do
    library = System.get_env("DGM_NIF_PATH") || build()
    # Not the source tree's priv/: that would be shared between environments and projects.
    target = Path.join([Mix.Project.app_path(), "priv", "dgm_nif" <> suffix()])

    if same?(library, target) do
      {:noop, []}
    else
      install(library, target)
      {:ok, []}
    end
  end

  defp build do
    triple = System.get_env("CARGO_BUILD_TARGET")
    target_dir = Path.join(@root, "target")
    args = ["build", "--release", "-p", "dgm_nif", "--target-dir", target_dir]
    args = if triple, do: args ++ ["--target", triple], else: args

    case run(cargo(), args) do
      0 -> Path.join([target_dir, triple || "", "release", library_name()])
      status -> Mix.raise("cargo build -p dgm_nif failed with status #{status}")
    end
  end

  # A port and not System.cmd: cargo's lines are shown as they come, but only once it has
  # something to do.
  defp run(cargo, args) do
    options = [:binary, :exit_status, :stderr_to_stdout, line: 4096, args: args, cd: @root]
    port = Port.open({:spawn_executable, cargo}, options)
    relay(port, [])
  end

  defp relay(port, held) do
    receive do
      {^port, {:data, {_, line}}} ->
        cond do
          held == :shown ->
            IO.puts(line)
            relay(port, :shown)

          line =~ ~r/^\s*(Compiling|Downloading|Blocking|error)/ ->
            Enum.each(Enum.reverse([line | held]), &IO.puts/1)
            relay(port, :shown)

          true ->
            relay(port, [line | held])
        end

      {^port, {:exit_status, status}} ->
        if status != 0 and held != :shown, do: Enum.each(Enum.reverse(held), &IO.puts/1)
        status
    end
  end

  defp cargo do
    home = System.get_env("CARGO_HOME")

    places =
      [home && Path.join(home, "bin/cargo"), "~/.cargo/bin/cargo", "/opt/homebrew/bin/cargo"]
      |> Enum.reject(&is_nil/1)
      |> Enum.map(&Path.expand/1)

    System.find_executable("cargo") || Enum.find(places, &File.regular?/1) ||
      Mix.raise("""
      dgm needs cargo to build its NIF, and it is neither on PATH nor at #{Enum.join(places, ", ")}.
      Install Rust from https://rustup.rs, or set DGM_NIF_PATH to a prebuilt library.
      """)
  end

  defp library_name do
    case :os.type() do
      {:win32, _} -> "dgm_nif.dll"
      {:unix, :darwin} -> "libdgm_nif.dylib"
      _ -> "libdgm_nif.so"
    end
  end

  # What :erlang.load_nif/2 appends: .so on every Unix, macOS included.
  defp suffix, do: if(match?({:win32, _}, :os.type()), do: ".dll", else: ".so")

  defp same?(library, target) do
    case {File.read(library), File.read(target)} do
      {{:ok, same}, {:ok, same}} -> true
      {{:ok, _}, _} -> false
      {{:error, reason}, _} -> Mix.raise("cannot read #{library}: #{:file.format_error(reason)}")
    end
  end

  # A running VM may have the old file mapped: replace the name, never the contents.
  defp install(library, target) do
    File.mkdir_p!(Path.dirname(target))
    temporary = target <> ".#{System.pid()}"
    File.cp!(library, temporary)
    File.rename!(temporary, target)
  end
end
