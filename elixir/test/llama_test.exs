defmodule DGM.LlamaTest do
  use ExUnit.Case, async: true
  doctest DGM.Llama
  import DGM.Golden
  alias DGM.{KVCache, Llama, Tensor}

  # What the golden values are called, and where the model lies.
  @models [
    {"tiny_llama", "tiny_llama"},
    {"tiny_llama_3", "tiny_llama_3"},
    {"tiny_llama_3", "tiny_llama_3_shards"}
  ]

  setup_all do
    {:ok, model: Llama.load!(path("tiny_llama"))}
  end

  defp tokens(name), do: read("#{name}.tokens", "llama") |> Enum.chunk_every(40)

  # Logits of all tokens of the rows, `chunk` at a time: a list of binaries a row.
  defp in_chunks(model, rows, cache, chunk) do
    parts = rows |> Enum.map(&Enum.chunk_every(&1, chunk)) |> Enum.zip_with(& &1)

    {logits, _cache} =
      Enum.map_reduce(parts, cache, fn part, cache ->
        new = length(hd(part))
        {logits, cache} = Llama.forward(model, part, cache, last: new)
        bytes = 4 * new * model.config.vocab
        {for(<<row::binary-size(bytes) <- logits.data>>, do: row), cache}
      end)

    Enum.zip_with(logits, &IO.iodata_to_binary/1)
  end

  # The same bits in every language.
  defp fnv(data) do
    hash =
      for <<b <- data>>, reduce: 0xCBF29CE484222325 do
        h -> Bitwise.band(Bitwise.bxor(h, b) * 0x100000001B3, 0xFFFFFFFFFFFFFFFF)
      end

    hash |> Integer.to_string(16) |> String.downcase() |> String.pad_leading(16, "0")
  end

  test "the logits of transformers" do
    for {name, folder} <- @models do
      model = Llama.load!(path(folder))
      cache = Llama.cache(model, tokens: 40, batch: 2)
      {logits, cache} = Llama.forward(model, tokens(name), cache, last: 40)
      assert_close(logits, read("#{name}.logits", "llama"), 1.0e-5, 1.0e-5)
      assert cache.lengths == [40, 40]
      assert "#{name} #{fnv(logits.data)}\n" in File.stream!(path("llama.fnv"))
    end
  end

  test "whole, in chunks, in pages and token by token: the same bits", %{model: model} do
    rows = tokens("tiny_llama")

    for type <- [{:f, 32}, {:f, 16}, {:bf, 16}, {:s, 8}] do
      cache = Llama.cache(model, tokens: 40, batch: 2, type: type)
      whole = in_chunks(model, rows, cache, 40)
      assert in_chunks(model, rows, cache, 1) == whole
      assert in_chunks(model, rows, cache, 9) == whole

      paged =
        KVCache.new(
          pages: 16,
          page_len: 5,
          kv_heads: model.config.cache_heads,
          dim: model.config.head_dim,
          type: type,
          block_table: [Enum.to_list(15..8//-1), Enum.to_list(0..7)]
        )

      assert in_chunks(model, rows, paged, 13) == whole
      alone = Llama.cache(model, tokens: 50, type: type)
      assert in_chunks(model, [List.last(rows)], alone, 11) == [List.last(whole)]
    end
  end

  test "an older cache goes back", %{model: model} do
    empty = Llama.cache(model, tokens: 8)
    {_, cache} = Llama.forward(model, [[1, 2, 3]], empty)
    {first, longer} = Llama.forward(model, [[4]], cache)
    {_, _} = Llama.forward(model, [[9, 9]], longer)
    assert {^first, ^longer} = Llama.forward(model, [[4]], cache)
    {_, other} = Llama.forward(model, [[7, 7]], cache, last: 0)
    assert {^first, _} = Llama.forward(model, [[4]], KVCache.truncate(other, [3]))
  end

  test "many processes share a model", %{model: model} do
    cache = Llama.cache(model, tokens: 20)
    expected = Llama.forward(model, [Enum.to_list(1..20)], cache)

    1..32
    |> Task.async_stream(fn _ -> Llama.forward(model, [Enum.to_list(1..20)], cache) end,
      max_concurrency: 16,
      timeout: 60_000
    )
    |> Enum.each(fn {:ok, out} -> assert out == expected end)
  end

  test "config, inspect, bytes", %{model: model} do
    assert %{vocab: 64, heads: 4, kv_heads: 2, head_dim: 12, cache_heads: 4} = model.config
    assert inspect(model) == "#DGM.Llama<vocab=64 depth=2 width=48 heads=4/2>"

    [weights, config] =
      for f <- ["model.safetensors", "config.json"], do: File.read!(path("tiny_llama/#{f}"))

    assert Llama.from_binary!(weights, config).config == model.config

    assert {:error, %DGM.Error{kind: :format, message: text}} =
             Llama.from_binary(weights, String.replace(config, "\"llama\"", "\"gpt2\""))

    assert text =~ "model_type"
    assert_raise DGM.Error, fn -> Llama.from_binary!("no weights", config) end
  end

  test "folders that are no model" do
    assert {:error, %DGM.Error{kind: :io, message: text}} = Llama.load("/no/such/folder")
    assert text =~ "/no/such/folder/config.json"
    assert_raise DGM.Error, ~r"/no/such", fn -> Llama.load!("/no/such/folder") end
  end

  test "wrong arguments", %{model: model} do
    cache = Llama.cache(model, tokens: 4, batch: 2)
    other = Llama.cache(Llama.load!(path("tiny_llama_3")), tokens: 4, batch: 2)
    good = [[1, 2], [3, 4]]

    wrong = [
      {~r/^folder is nil/, fn -> Llama.load(nil) end},
      {~r/^weights is nil/, fn -> Llama.from_binary(nil, "{}") end},
      {~r/^config is 1/, fn -> Llama.from_binary("", 1) end},
      {~r/^model is nil/, fn -> Llama.forward(nil, good, cache) end},
      {~r/^cache is nil/, fn -> Llama.forward(model, good, nil) end},
      {~r/^tokens is 1/, fn -> Llama.forward(model, 1, cache) end},
      {~r/^tokens is 1/, fn -> Llama.forward(model, [1, 2], cache) end},
      {~r/^tokens is :a/, fn -> Llama.forward(model, [[1], [:a]], cache) end},
      {~r/^tokens is 64 at \[1, 0\], expected 0 to 63/,
       fn -> Llama.forward(model, [[1], [64]], cache) end},
      {~r/^tokens is -1 at/, fn -> Llama.forward(model, [[1], [-1]], cache) end},
      {~r/^tokens is rows of different lengths/,
       fn -> Llama.forward(model, [[1], [1, 2]], cache) end},
      {~r/^tokens has shape/, fn -> Llama.forward(model, [[1]], cache) end},
      {~r/^last is 3, expected 0 to 2/, fn -> Llama.forward(model, good, cache, last: 3) end},
      {~r/^last is -1/, fn -> Llama.forward(model, good, cache, last: -1) end},
      {~r/^k has shape/, fn -> Llama.forward(model, good, other) end},
      {~r/^lengths is 5, expected 0 to 4/,
       fn -> Llama.forward(model, List.duplicate([1, 2, 3, 4, 5], 2), cache) end},
      {~r/^tokens is nil/, fn -> Llama.cache(model, []) end},
      {~r/^type is/, fn -> Llama.cache(model, tokens: 3, type: {:f, 64}) end}
    ]

    for {text, call} <- wrong, do: assert_raise(ArgumentError, text, call)
    assert %Tensor{} = model |> Llama.forward(good, cache) |> elem(0)
  end
end
