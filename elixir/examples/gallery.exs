# Draws the samples of the gallery: every sampler on every shape that the file of cases lists.
#
#     mix run examples/gallery.exs CASES POINTS
#
# `make gallery DOOR=elixir` writes the cases, runs this and draws the picture. POINTS receives raw
# f32 {plans, shapes, rows, 2}.

defmodule Gallery do
  def read(["rows", rows, "seed", seed, "shapes", count | words]) do
    {mixtures, ["plans", count | words]} = times(words, count, &mixture/1)
    {plans, []} = times(words, count, &plan/1)
    {integer(rows), integer(seed), mixtures, plans}
  end

  defp mixture(["shape", count, deviation | words]) do
    {means, words} = times(words, count, fn [x, y | words] -> {[number(x), number(y)], words} end)
    variance = number(deviation) ** 2
    ones = List.duplicate(1, length(means))
    {DGM.GaussianMixture.new(ones, means, List.duplicate(variance, length(means))), words}
  end

  # Of an option its name, its value, and the number that C has for it.
  defp plan(["plan", count | words]) do
    {options, words} =
      times(words, count, fn [name, value, _ | words] ->
        {{String.to_atom(name), value(value)}, words}
      end)

    {DGM.Plan.compile(options), words}
  end

  defp times(words, count, read) do
    Enum.map_reduce(1..integer(count), words, fn _, words -> read.(words) end)
  end

  defp value(text) do
    case Float.parse(text) do
      {_, ""} -> number(text)
      _ -> String.to_atom(text)
    end
  end

  defp number(text) do
    case Integer.parse(text) do
      {whole, ""} -> whole
      _ -> String.to_float(text)
    end
  end

  defp integer(text), do: String.to_integer(text)
end

[cases, points] = System.argv()
{rows, seed, mixtures, plans} = cases |> File.read!() |> String.split() |> Gallery.read()
seeds = DGM.Random.row_seeds(seed, rows)

samples =
  for plan <- plans, mixture <- mixtures do
    DGM.Sampler.sample(plan, seeds, 2, mixture).data
  end

File.write!(points, samples)
