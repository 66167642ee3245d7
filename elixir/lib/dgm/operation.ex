defmodule DGM.Operation do
  @moduledoc """
  One operation on whole tensors, as `DGM.Plan.operations/2` lists them.

    * `:kind` - `:combine`: `:target`, `{:state, i}` or `{:register, i}`, becomes the sum of the
      `:terms`, one fma a term from 0 in their order; then limited to `-clip..clip` unless `:clip` is
      `nil`; then, unless `:mask` is `nil`, `m * sum + (1 - m) * target` with the state tensor m of that
      number. Other kinds measure numbers of rows (`:rescale`, `:project`, `:adaptive`, `:langevin`),
      bound rows (`:threshold`) or scale noise by an output (`:learned_noise`): `include/dgm.h` has their formulas
      (`DGM_OPERATION_...`), `:parameters` the numbers in them
    * `:terms` - `{source, coefficient, measured}`. Sources: `{:state, i}`; `{:register, i}`, four scratch
      tensors; `:output` of the model; `{:noise, purpose, draw}`, what `DGM.Random.normal/3` makes of
      the seeds. `measured`, if not `nil`, is the number of the row that multiplies the coefficient
  """

  @enforce_keys [:kind]
  defstruct [:kind, :target, :clip, :mask, terms: [], parameters: []]

  @type source ::
          {:state | :register, non_neg_integer} | :output | {:noise, atom, non_neg_integer}

  @type t :: %__MODULE__{
          kind:
            :combine
            | :rescale
            | :project
            | :adaptive
            | :langevin
            | :threshold
            | :learned_noise,
          target: {:state | :register, non_neg_integer} | nil,
          terms: [{source, float, 0 | 1 | nil}],
          clip: float | nil,
          mask: non_neg_integer | nil,
          parameters: [float]
        }
end
