defmodule DGM.BadInput do
  @moduledoc false
  # What may be wrong with an argument of each kind. An argument is {name, good, bad}: every
  # value of `bad` in the place of `good` must be refused with a message that has `name` in it,
  # or, for {:any, value}, the name of some argument (two shapes that do not fit may be blamed
  # on either).

  alias DGM.Tensor

  @huge 0x7FFFFFFFFFFFFFFF

  @doc "A tensor whose rank matters."
  def tensor(name, %Tensor{} = good) do
    {name, values, bad} = any_tensor(name, good)
    shape = Tuple.to_list(good.shape)
    {name, values, bad ++ [shaped(good, [1 | shape]), shaped(good, [1, 1, 1, 1, 1 | shape])]}
  end

  @doc "A tensor of any rank, or one whose last dimensions alone matter."
  def any_tensor(name, %Tensor{data: data, shape: shape} = good) do
    not_tensors = [nil, 1, 1.5, :a, "text", [], [1.0], {data, [1]}, %{}, make_ref(), fn -> 1 end]

    wrong_fields = [
      %{good | data: nil},
      %{good | data: [1.0]},
      %{good | data: <<data::binary, 0::1>>},
      %{good | data: <<data::binary, 0>>},
      %{good | data: <<data::binary, 0::32>>},
      %{good | data: binary_part(data, 0, byte_size(data) - 4)},
      %{good | shape: nil},
      %{good | shape: Tuple.to_list(shape)},
      %{good | shape: put_elem(shape, 0, -1)},
      %{good | shape: put_elem(shape, 0, 1.0)},
      %{good | shape: put_elem(shape, 0, nil)},
      %{good | shape: put_elem(shape, 0, @huge)},
      %{good | shape: put_elem(shape, 0, @huge + 1)},
      %{good | shape: put_elem(shape, 0, 1 <<< 200)},
      %{good | shape: {@huge, @huge, 0}},
      %{good | type: {:u, 8}},
      %{good | type: {:bf, 16}},
      %{good | type: nil},
      Map.delete(good, :data),
      Map.delete(good, :shape),
      Map.delete(good, :type),
      %Nx.Tensor{bytes: data, type: {:bf, 16}, shape: shape},
      %Nx.Tensor{bytes: binary_part(data, 0, 3), type: {:f, 32}, shape: shape}
    ]

    {name, good, not_tensors ++ wrong_fields}
  end

  @doc "Like `tensor/2`; `fits` are shapes that are right alone but not beside the others."
  def tensor(name, good, fits) do
    {name, good, bad} = tensor(name, good)
    {name, good, bad ++ Enum.map(fits, &{:any, zeros(&1)})}
  end

  def optional({name, good, bad}), do: {name, good, List.delete(bad, nil)}

  def count(name, good, more \\ []),
    do: {name, good, [nil, -1, 1.0, "1", :a, [], 1 <<< 64, @huge + 1 | more]}

  def huge, do: @huge

  def number(name, good, more \\ []),
    do: {name, good, [nil, "1", :nan, :infinity, [], 1 <<< 200 | more]}

  def integers(name, good, more \\ []),
    do: {name, good, [nil, 1, "1", :a, [:a], [nil], [1.0], [1 | 2], [1 <<< 64], %{} | more]}

  def name(name, good), do: {name, good, [nil, true, 1, "tanh", :no_such_name, []]}

  def handle(name, %module{} = good) do
    plan = DGM.Plan.compile(steps: 1)
    layer = DGM.Linear.pack(Tensor.new([[1]]))
    foreign = if module == DGM.Plan, do: layer.resource, else: plan.resource
    forged = for r <- [nil, 1, make_ref(), foreign], do: %{good | resource: r}
    {name, good, [nil, 1, %{}, "plan", %{__struct__: module}, Map.from_struct(good) | forged]}
  end

  @doc """
  A keyword list; `wrong` are options with values that must be refused by their name, or
  `{key, values, others}` with the options that make the key matter.
  """
  def options(wrong \\ []) do
    bad = [nil, 1, %{}, [:a], [{"eps", 1}], [1 | 2]]
    refused = for o <- bad, do: {"options", o}

    values =
      for wrong <- wrong, v <- elem(wrong, 1) do
        others = if tuple_size(wrong) == 3, do: elem(wrong, 2), else: []
        {Atom.to_string(elem(wrong, 0)), [{elem(wrong, 0), v} | others]}
      end

    {:options, [], [{"unknown", [no_such_option: 1]} | refused] ++ values}
  end

  def zeros(dims),
    do: shaped(%Tensor{data: <<0::size(32 * Tuple.product(dims))>>, shape: dims}, nil)

  defp shaped(tensor, nil), do: tensor
  defp shaped(tensor, dims), do: %{tensor | shape: List.to_tuple(dims)}

  defp a <<< b, do: Bitwise.bsl(a, b)

  @doc """
  Every way to call `arguments` with one of them wrong: `{arguments, words}`, one of `words`
  must be in the message.
  """
  def calls(arguments) do
    good = Enum.map(arguments, &elem(&1, 1))
    names = for {name, _, _} <- arguments, is_binary(name), do: name

    for {{name, _, bad}, i} <- Enum.with_index(arguments), value <- bad do
      {words, value} =
        case {name, value} do
          {:options, {word, value}} -> {[word], value}
          {_, {:any, value}} -> {names, value}
          {name, value} -> {List.wrap(name), value}
        end

      {List.replace_at(good, i, value), words}
    end
  end
end
