defmodule DGM.SD3 do
  @moduledoc """
  The multimodal diffusion transformer of Stable Diffusion 3, as `save_pretrained` of diffusers'
  `SD3Transformer2DModel` writes it, in one file or in shards.

      iex> {:ok, model} = DGM.SD3.load("../tests/golden/tiny_sd3")
      iex> zeros = fn shape -> DGM.Tensor.new(List.duplicate(0.0, Tuple.product(shape)), shape) end
      iex> y = DGM.SD3.forward(model, zeros.({1, 4, 8, 6}), [500], zeros.({1, 5, 20}), zeros.({1, 12}))
      iex> y.shape
      {1, 4, 8, 6}

  A model is immutable; processes share it. A forward pass borrows a workspace that the model
  keeps for the next one.
  """

  alias DGM.{Check, Native, Network, Telemetry, Tensor}

  @enforce_keys [:resource, :config]
  defstruct [:resource, :config]

  @typedoc """
  `:config` has `:channels`, `:out_channels`, `:patch`, `:hidden`, `:depth`, `:heads`, `:text`, `:pooled`,
  `:positions` and `:packed_bytes`.
  """
  @type t :: %__MODULE__{resource: reference, config: %{atom => non_neg_integer}}

  use Network, event: :sd3, weights: "diffusion_pytorch_model.safetensors"

  @doc """
  The network's output `{batch, out_channels, height, width}`, of the kind of `x`.

    * `x` - `{batch, channels, height, width}`, the noisy latents; height and width multiples of the patch
    * `t` - the time of each image, 0 to 1000 (1000 times the `t` of a flow plan): a tensor or a list
    * `text` - `{batch, tokens, text}`, the tokens of each prompt
    * `pooled` - `{batch, pooled}`, each prompt as a whole
  """
  @spec forward(t, Tensor.input(), Tensor.input() | [number], Tensor.input(), Tensor.input()) ::
          Tensor.input()
  def forward(model, x, t, text, pooled) do
    model = Check.handle(model, __MODULE__, "model")
    t = if is_list(t), do: Tensor.new(t), else: t
    [nx, nt] = [Tensor.native(x, "x"), Tensor.native(t, "t")]
    [text, pooled] = [Tensor.native(text, "text"), Tensor.native(pooled, "pooled")]
    batch = if tuple_size(x.shape) > 0, do: elem(x.shape, 0), else: 0
    call = fn -> Native.value!(Native.sd3_forward(model.resource, nx, nt, text, pooled)) end

    Tensor.like(
      x,
      Telemetry.span([:sd3, :forward], %{batch: batch}, call)
    )
  end

  defimpl Inspect do
    def inspect(%{config: c}, _opts) do
      "#DGM.SD3<channels=#{c.channels} depth=#{c.depth} width=#{c.hidden} heads=#{c.heads}>"
    end
  end
end
