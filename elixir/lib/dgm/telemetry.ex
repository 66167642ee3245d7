defmodule DGM.Telemetry do
  @moduledoc """
  Spans around the calls that take time, for the `:telemetry` library.

  Where the module `:telemetry` is loaded, each of these is emitted as `[..., :start]` and
  `[..., :stop]` or `[..., :exception]`, with the measurements of `:telemetry.span/3`. Where it is
  not, nothing happens.

    * `[:dgm, :attention]`, `[:dgm, :attention_backward]`, `[:dgm, :attention_varlen]`,
      `[:dgm, :attention_varlen_backward]` - metadata `:q` and `:k`,
      their dimensions
    * `[:dgm, :sampler, :tell]` - `:rows`, `:elements`, `:eval_id`
    * `[:dgm, :dit, :forward]` - `:batch`
    * `[:dgm, :dit, :load]` - `:path`
    * `[:dgm, :flux, :forward]` - `:batch`
    * `[:dgm, :flux, :load]` - `:path`
    * `[:dgm, :llama, :forward]` - `:batch`
    * `[:dgm, :llama, :load]` - `:path`
    * `[:dgm, :sd3, :forward]` - `:batch`
    * `[:dgm, :sd3, :load]` - `:path`
  """

  @compile {:no_warn_undefined, :telemetry}

  @doc false
  def span(event, metadata, function) do
    # True only of a loaded module, and cheap: nothing is looked for on disk.
    if function_exported?(:telemetry, :span, 3),
      do: :telemetry.span([:dgm | event], metadata, fn -> {function.(), metadata} end),
      else: function.()
  end
end
