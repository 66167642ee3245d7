defmodule DGM.Llama do
  @moduledoc """
  Causal language models: Llama 1 to 3, SmolLM2 and whatever else `save_pretrained` of
  `LlamaForCausalLM` writes, in one file or in shards, computed on the CPU.

      iex> {:ok, model} = DGM.Llama.load("../tests/golden/tiny_llama")
      iex> cache = DGM.Llama.cache(model, tokens: 32)
      iex> {logits, cache} = DGM.Llama.forward(model, [[5, 2, 7]], cache, last: 1)
      iex> {logits.shape, cache.lengths}
      {{1, 1, 64}, [3]}
      iex> {next, _cache} = DGM.Llama.forward(model, [[1]], cache)
      iex> next.shape
      {1, 1, 64}

  A model is immutable; processes share it. A call borrows a workspace that the model keeps for the next
  one. The cache is a `DGM.KVCache`, a value: keep an older one to go back to it. Each call copies it once,
  so give a prompt in few large chunks.
  """

  alias DGM.{Check, KVCache, Native, Network, Telemetry, Tensor}

  @enforce_keys [:resource, :config]
  defstruct [:resource, :config]

  @typedoc """
  `:config` has `:vocab`, `:hidden`, `:mlp_hidden`, `:depth`, `:heads`, `:kv_heads`, `:head_dim`,
  `:cache_heads` (`depth * kv_heads`), `:max_positions` and `:packed_bytes`.
  """
  @type t :: %__MODULE__{resource: reference, config: %{atom => non_neg_integer}}

  use Network, event: :llama, weights: "model.safetensors"

  @doc """
  An empty cache for `:batch` sequences (default 1) of up to `:tokens` tokens.

  `:type` is that of `DGM.KVCache.new/1`. For a paged cache call that function yourself, with
  `kv_heads: model.config.cache_heads` and `dim: model.config.head_dim`.
  """
  @spec cache(t, keyword) :: KVCache.t()
  def cache(model, opts) do
    %{config: c} = check(model)
    opts = Check.keyword(opts, [:tokens, batch: 1, type: {:f, 32}])
    tokens = Check.count(opts[:tokens], "tokens")
    batch = Check.count(opts[:batch], "batch")

    KVCache.new(
      pages: batch,
      page_len: tokens,
      kv_heads: c.cache_heads,
      dim: c.head_dim,
      type: opts[:type]
    )
  end

  @doc """
  Appends new tokens to a cache and gives the logits of what follows them: `{logits, cache}`.

    * `tokens` - a list of as many integers for each batch entry: they stand behind those of the cache
    * `cache` - of `cache/2`
    * `:last` - for how many of the new tokens logits are wanted, from the end; default 1

  The logits are `{batch, last, vocab}`. A sequence gives the same bits whole, in chunks or token by token,
  in any batch, for any page size.
  """
  @spec forward(t, [[integer]], KVCache.t(), keyword) :: {Tensor.t(), KVCache.t()}
  def forward(model, tokens, cache, opts \\ []) do
    model = check(model)
    tokens = Check.tokens(tokens, "tokens")
    opts = Check.keyword(opts, last: 1)
    last = Check.count(opts[:last], "last")
    native = KVCache.native(cache)

    call = fn ->
      Native.value!(Native.llama_forward(model.resource, tokens, native, last))
    end

    {{data, shape}, changed} = Telemetry.span([:llama, :forward], %{batch: length(tokens)}, call)
    {%Tensor{data: data, shape: shape}, KVCache.changed(cache, changed)}
  end

  defp check(model), do: Check.handle(model, __MODULE__, "model")

  defimpl Inspect do
    def inspect(%{config: c}, _opts) do
      "#DGM.Llama<vocab=#{c.vocab} depth=#{c.depth} width=#{c.hidden} heads=#{c.heads}/#{c.kv_heads}>"
    end
  end
end
