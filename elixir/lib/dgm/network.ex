defmodule DGM.Network do
  @moduledoc false
  # What the modules of networks have in common.

  alias DGM.{Check, Native, Telemetry}

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
