defmodule DGM.Network do
  @moduledoc false
  # What the modules of networks have in common.

  alias DGM.{Check, Native, Telemetry}

  @doc """
  Gives a module with `:resource`, `:config` and a type `t` the functions that load it from what
  `save_pretrained` writes; `:event` names its NIFs and its telemetry, `:weights` its file.
  """
  defmacro __using__(event: event, weights: weights) do
    quote do
      @doc """
      Loads `config.json` and `#{unquote(weights)}`, or the shards of its index, of a folder.
      Weights of f32, f16 and bf16 stay what they are.
      """
      @spec load(Path.t()) :: {:ok, t} | {:error, DGM.Error.t()}
      def load(folder) do
        native = &(DGM.Native.unquote(:"#{event}_load") / 1)
        DGM.Network.put(__MODULE__, DGM.Network.load(unquote(event), folder, "folder", native))
      end

      @doc """
      Like `load/1`, but raises `DGM.Error`.
      """
      @spec load!(Path.t()) :: t
      def load!(folder), do: DGM.Native.bang!(load(folder))

      @doc """
      The model in the bytes of one file of weights and the text of its `config.json`.
      """
      @spec from_binary(binary, String.t()) :: {:ok, t} | {:error, DGM.Error.t()}
      def from_binary(weights, config) do
        native = &(DGM.Native.unquote(:"#{event}_from_binary") / 2)
        DGM.Network.put(__MODULE__, DGM.Network.from_binary(weights, config, native))
      end

      @doc """
      Like `from_binary/2`, but raises `DGM.Error`.
      """
      @spec from_binary!(binary, String.t()) :: t
      def from_binary!(weights, config), do: DGM.Native.bang!(from_binary(weights, config))
    end
  end

  @doc "The struct of a module around what a NIF answered."
  def put(module, {:ok, {resource, config}}),
    do: {:ok, struct!(module, resource: resource, config: config)}

  def put(_module, error), do: error

  @doc "Reads a network from a path, which `argument` names; `name` is that of the telemetry event."
  def load(name, path, argument, native) do
    path = Check.path(path, argument)
    Telemetry.span([name, :load], %{path: path}, fn -> Native.tuple(native.(path)) end)
  end

  @doc "Reads a network from the bytes of its weights and the text of its configuration."
  def from_binary(weights, config, native) do
    is_binary(weights) || Check.fail("weights", weights, "a binary")
    (is_binary(config) and String.valid?(config)) || Check.fail("config", config, "a text")
    Native.tuple(native.(weights, config))
  end
end
