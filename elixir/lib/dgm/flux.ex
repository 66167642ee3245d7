defmodule DGM.Flux do
  @moduledoc """
  The transformer of Flux (FLUX.1 dev, schnell and their kin), as `save_pretrained` of diffusers'
  `FluxTransformer2DModel` writes it, in one file or in shards.

      iex> {:ok, model} = DGM.Flux.load("../tests/golden/tiny_flux_dev")
      iex> zeros = fn shape -> DGM.Tensor.new(List.duplicate(0.0, Tuple.product(shape)), shape) end
      iex> ids = for(y <- 0..1, x <- 0..2, do: [0, y, x]) |> List.flatten() |> DGM.Tensor.new({6, 3})
      iex> inputs = [zeros.({1, 6, 16}), [0.5], zeros.({1, 5, 20}), zeros.({1, 12}), ids]
      iex> y = apply(DGM.Flux, :forward, [model | inputs] ++ [[guidance: [3.5]]])
      iex> y.shape
      {1, 6, 8}

  A model is immutable; processes share it. A forward pass borrows a workspace that the model
  keeps for the next one.
  """

  alias DGM.{Check, Native, Network, Telemetry, Tensor}

  @enforce_keys [:resource, :config]
  defstruct [:resource, :config]

  @typedoc """
  `:config` has `:channels`, `:out_channels`, `:hidden`, `:depth`, `:single_depth`, `:heads`, `:text`, `:pooled`,
  `:axes` (the numbers of a head that each coordinate of a place turns), `:guidance` (whether it takes one) and
  `:packed_bytes`.
  """
  @type t :: %__MODULE__{resource: reference, config: %{atom => term}}

  use Network, event: :flux, weights: "diffusion_pytorch_model.safetensors"

  @doc """
  The network's output `{batch, tokens, out_channels}`, the velocity of the flow, of the kind of `x`.

    * `x` - `{batch, tokens, channels}`, the noisy latents, packed: a token has the channels of 2 x 2 neighbours,
      which is what `DGM.patchify/2` with a patch of 2 gives
    * `t` - the time of each image, 0 to 1, as a flow plan has it: a tensor or a list
    * `text` - `{batch, text tokens, text}`, the tokens of each prompt
    * `pooled` - `{batch, pooled}`, each prompt as a whole
    * `ids` - `{tokens, axes}`, the place of each image token; those of FLUX.1 are 0, row, column

  Options:

    * `:guidance` - a number for each image, such as 3.5, as a tensor or a list, where the network takes it
    * `:text_ids` - `{text tokens, axes}`, the place of each text token; all 0 without it, as in FLUX.1
  """
  @spec forward(
          t,
          Tensor.input(),
          Tensor.input() | [number],
          Tensor.input(),
          Tensor.input(),
          Tensor.input(),
          keyword
        ) :: Tensor.input()
  def forward(model, x, t, text, pooled, ids, opts \\ []) do
    model = Check.handle(model, __MODULE__, "model")
    opts = Check.keyword(opts, guidance: nil, text_ids: nil)
    native = Tensor.native(x, "x")

    times =
      {Tensor.native(listed(t), "t"), Tensor.native_or_nil(listed(opts[:guidance]), "guidance")}

    [text, pooled] = [Tensor.native(text, "text"), Tensor.native(pooled, "pooled")]
    places = {Tensor.native(ids, "ids"), Tensor.native_or_nil(opts[:text_ids], "text_ids")}
    batch = if tuple_size(x.shape) > 0, do: elem(x.shape, 0), else: 0

    call = fn ->
      Native.value!(Native.flux_forward(model.resource, native, times, text, pooled, places))
    end

    Tensor.like(x, Telemetry.span([:flux, :forward], %{batch: batch}, call))
  end

  defp listed(numbers) when is_list(numbers), do: Tensor.new(numbers)
  defp listed(other), do: other

  defimpl Inspect do
    def inspect(%{config: c}, _opts) do
      "#DGM.Flux<channels=#{c.channels} depth=#{c.depth}+#{c.single_depth} width=#{c.hidden} heads=#{c.heads}>"
    end
  end
end
