defmodule DGM.Dit do
  @moduledoc """
  Class-conditional diffusion transformers (DiT, adaLN-Zero), loaded from safetensors files
  with the tensor names of the official checkpoints: f32, f16 or bf16, which they stay in memory. Where
  those of all layers are bf16, what the layers and attention multiply is rounded to bf16 too.

      iex> {:ok, model} = DGM.Dit.load("../models/digits.safetensors")
      iex> plan = DGM.Plan.compile(DGM.Dit.plan_options(model))
      iex> images = DGM.Dit.generate(model, plan, DGM.Random.row_seeds(7, 3), [4, 2, 0])
      iex> images.shape
      {3, 1, 8, 8}

  A model is immutable; processes share it. A forward pass borrows a workspace that the model
  keeps for the next one.
  """

  alias DGM.{Check, Native, Network, Plan, Sampler, Telemetry, Tensor}

  @enforce_keys [:resource, :config, :metadata]
  defstruct [:resource, :config, :metadata]

  @typedoc """
    * `:config` - `:channels`, `:out_channels`, `:height`, `:width`, `:elements` (of an image),
      `:patch`, `:hidden`, `:depth`, `:heads`, `:num_classes`, `:null_label`, `:packed_bytes`
    * `:metadata` - the file's metadata, strings
  """
  @type t :: %__MODULE__{
          resource: reference,
          config: %{atom => non_neg_integer},
          metadata: %{String.t() => String.t()}
        }

  @doc """
  Loads a file or, where there is none but a `path.index.json`, the shards that it names.
  """
  @spec load(Path.t()) :: {:ok, t} | {:error, DGM.Error.t()}
  def load(path) do
    with {:ok, parts} <- Network.load(:dit, path, "path", &Native.dit_load/1),
         do: {:ok, new(parts)}
  end

  @doc """
  Like `load/1`, but raises `DGM.Error`.
  """
  @spec load!(Path.t()) :: t
  def load!(path), do: Native.bang!(load(path))

  @doc """
  The model in the bytes of a file.
  """
  @spec from_binary(binary) :: {:ok, t} | {:error, DGM.Error.t()}
  def from_binary(bytes) when is_binary(bytes) do
    with {:ok, parts} <- Native.tuple(Native.dit_from_binary(bytes)), do: {:ok, new(parts)}
  end

  def from_binary(other), do: Check.fail("bytes", other, "a binary")

  @doc """
  Like `from_binary/1`, but raises `DGM.Error`.
  """
  @spec from_binary!(binary) :: t
  def from_binary!(bytes), do: Native.bang!(from_binary(bytes))

  @doc """
  The sampler that the file asks for, as options of `DGM.Plan.compile/1`.
  """
  @spec plan_options(t) :: keyword
  def plan_options(model), do: Native.value!(Native.dit_plan_options(check(model).resource))

  @doc """
  The network's output.

    * `x` - `{batch, channels, height, width}` as a tensor, or the bare f32 binary of
      `DGM.Sampler.input/1`; the output is of the same kind
    * `t` - the time of each image: the binary of `DGM.Sampler.times/1`, a tensor or a list
    * `labels` - the class of each image; `model.config.null_label` is no class
  """
  @spec forward(t, Tensor.input() | binary, Tensor.input() | binary | [number], [integer]) ::
          Tensor.input() | binary
  def forward(model, x, t, labels) when is_binary(x) do
    {model, labels} = {check(model), Check.labels(labels)}
    {data, _shape} = run(&Native.dit_forward_binary/4, model, x, t, labels)
    data
  end

  def forward(model, x, t, labels) do
    {model, labels} = {check(model), Check.labels(labels)}
    Tensor.like(x, run(&Native.dit_forward/4, model, Tensor.native(x, "x"), t, labels))
  end

  defp run(nif, model, x, t, labels) do
    t = times(t)
    call = fn -> Native.value!(nif.(model.resource, x, t, labels)) end
    Telemetry.span([:dit, :forward], %{batch: length(labels)}, call)
  end

  @doc """
  Draws one image a label: `{batch, channels, height, width}`.

  The image of row r is a function of `seeds[r]` and `labels[r]` alone.
  """
  @spec generate(t, Plan.t(), [non_neg_integer], [integer]) :: Tensor.t()
  def generate(model, plan, seeds, labels) do
    %{config: c} = check(model)
    labels = Check.labels(labels)
    null = Enum.map(labels, fn _ -> c.null_label end)
    options = Plan.options(plan)

    if options[:guidance] != 1 and options[:guidance_mode] == :auto,
      do: Check.fail("guidance_mode", :auto, "another mode: autoguidance needs a second model")

    images =
      Sampler.sample(plan, seeds, c.elements, fn request, x, t ->
        forward(model, x, t, if(request.role == :uncond, do: null, else: labels))
      end)

    Tensor.reshape(images, {images.shape |> elem(0), c.channels, c.height, c.width})
  end

  # A list or binary of times becomes the one-dimensional tensor that the NIF reads.
  defp times(t) when is_binary(t), do: {t, [div(byte_size(t), 4)]}
  defp times(t) when is_list(t), do: Tensor.native(Tensor.new(t), "t")
  defp times(t), do: Tensor.native(t, "t")

  defp check(model), do: Check.handle(model, __MODULE__, "model")

  defp new({resource, config, metadata}) do
    %__MODULE__{resource: resource, config: config, metadata: Map.new(metadata)}
  end

  defimpl Inspect do
    def inspect(%{config: c}, _opts) do
      "#DGM.Dit<#{c.channels}x#{c.height}x#{c.width} classes=#{c.num_classes} " <>
        "depth=#{c.depth} width=#{c.hidden}>"
    end
  end
end
