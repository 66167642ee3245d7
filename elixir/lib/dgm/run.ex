defmodule DGM.Run do
  @moduledoc """
  A run of a sampler: a value. Keep it, send it to another process, store it, go back to it.

    * `:plan` - the plan
    * `:header` - program counter, seeds, controller, as bytes
    * `:state` - the sample and the history that the method needs, f32: `slots` tensors; empty where
      they are the caller's (`DGM.Sampler.start_detached/3`)
    * `:rows`, `:elements` - the batch: `rows` samples of `elements` numbers each

  `DGM.Sampler` has the functions. A run holds a reference to its plan, which is valid on its
  own node; use `DGM.Sampler.export/1` to send one to another.
  """

  @enforce_keys [:plan, :header, :state, :rows, :elements]
  defstruct [:plan, :header, :state, :rows, :elements]

  @type t :: %__MODULE__{
          plan: DGM.Plan.t(),
          header: binary,
          state: binary,
          rows: non_neg_integer,
          elements: non_neg_integer
        }

  defimpl Inspect do
    def inspect(run, _opts), do: "#DGM.Run<rows=#{run.rows} elements=#{run.elements}>"
  end
end

defmodule DGM.Request do
  @moduledoc """
  What a run asks of the model: its output for `DGM.Sampler.input/1` at `DGM.Sampler.times/1`.

    * `:eval_id` - goes back with the answer
    * `:role` - `:cond`; `:uncond` for the unconditional output of classifier-free guidance; `:weak` for
      that of the weaker model of autoguidance
    * `:roles` - those whose outputs `DGM.Sampler.tell/3` takes at once, this one first: they are asked for the same
      input
    * `:step`, `:stage` - where in the plan
    * `:t`, `:sigma`, `:alpha` - model time, noise and signal level of row 0
    * `:uniform_t` - whether all rows are at `t`
    * `:rows`, `:elements` - the batch
    * `:active_rows` - rows that still need an answer
    * `:slot` - which state tensor `DGM.Sampler.input/1` is, from 0
    * `:t_to` - model time at which the step ends, where a flow map must land; for adaptive solvers the end of the walk
  """

  @enforce_keys [:eval_id, :role]
  defstruct [
    :eval_id,
    :step,
    :stage,
    :role,
    :t,
    :sigma,
    :alpha,
    :rows,
    :elements,
    :active_rows,
    :uniform_t,
    :t_to,
    :slot,
    roles: [:cond]
  ]

  @type t :: %__MODULE__{
          eval_id: non_neg_integer,
          step: non_neg_integer,
          stage: non_neg_integer,
          role: :cond | :uncond | :weak,
          roles: [:cond | :uncond | :weak],
          t: float,
          sigma: float,
          alpha: float,
          rows: non_neg_integer,
          elements: non_neg_integer,
          active_rows: non_neg_integer,
          uniform_t: boolean,
          t_to: float,
          slot: non_neg_integer
        }
end
