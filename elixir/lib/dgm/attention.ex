defmodule DGM.Attention do
  @moduledoc false
  # The options of DGM.attention/4, DGM.attention_backward/7, DGM.attention_varlen/6 and
  # DGM.attention_varlen_backward/9, type-checked for the NIF. Sizes and ranges are the engine's business.

  alias DGM.{Check, Tensor}

  @defaults [
    scale: nil,
    causal: false,
    window: {:infinity, :infinity},
    kv_lengths: nil,
    soft_cap: nil,
    alibi_slopes: nil,
    sinks: nil,
    bias: nil,
    mask: nil
  ]

  @packed Keyword.drop(@defaults, [:kv_lengths, :bias, :mask])

  # Those of packed sequences; of their gradients without `:lse`.
  def packed_options(opts), do: opts |> Check.keyword([{:lse, false} | @packed]) |> options(:lse)
  def packed_gradient_options(opts), do: opts |> Check.keyword(@packed) |> options(:lse)

  # `wanted` is the option that asks for one result more.
  def options(opts, wanted) do
    opts = Check.keyword(opts, [{wanted, false} | @defaults])
    {left, right} = window(opts[:window])

    %{
      scale: opts[:scale] && Check.number(opts[:scale], "scale"),
      causal: Check.boolean(opts[:causal], "causal"),
      window_left: left,
      window_right: right,
      kv_lengths: opts[:kv_lengths] && Check.counts(opts[:kv_lengths], "kv_lengths"),
      soft_cap: opts[:soft_cap] && Check.number(opts[:soft_cap], "soft_cap"),
      alibi_slopes: opts[:alibi_slopes] && Check.numbers(opts[:alibi_slopes], "alibi_slopes"),
      sinks: opts[:sinks] && Check.numbers(opts[:sinks], "sinks"),
      bias: Tensor.native_or_nil(opts[:bias], "bias"),
      mask: opts[:mask] && Tensor.native_mask(opts[:mask], "mask"),
      lse: Check.boolean(Keyword.get(opts, :lse, false), "lse"),
      dbias: Check.boolean(Keyword.get(opts, :dbias, false), "dbias")
    }
  end

  # Rotary tables for the NIF.
  def tables({cos, sin}, interleaved) do
    {Tensor.native(cos, "cos"), Tensor.native(sin, "sin"),
     Check.boolean(interleaved, "interleaved")}
  end

  def tables(other, _interleaved), do: Check.fail("rope", other, "{cos, sin}")

  defp window({left, right}), do: {reach(left), reach(right)}

  defp window(other),
    do: Check.fail("window", other, "{left, right}, each a non-negative integer or :infinity")

  defp reach(:infinity), do: nil
  defp reach(n), do: Check.count(n, "window")
end
