# Rows of one batch at times of their own.

"""
    DGMKernels.select!(run, rows) -> run

Says which rows take a step from now on, for plans with `per_row = true`: one `Bool` a row, at first all `true`.
The others stay where they are, at their own time (`request.times`), and may be told anything: Diffusion
Forcing (Chen 2024), pyramids, rows that wait. A row's numbers do not depend on when it moves. Called between
steps; inside one it is refused.

# Examples
```julia
plan = DGMKernels.Plan(steps = 4, per_row = true)
run = DGMKernels.start(1, plan, (16, 3))
for round in 1:6                                     # a pyramid: column r begins r - 1 rounds later
    DGMKernels.select!(run, [round >= r for r in 1:3])
    DGMKernels.step!(run, (x, t, request) -> x ./ t')
end
```
"""
select!(run::Run, rows) = change_rows!(LibDGM.dgm_run_select, run, rows)

"""
    DGMKernels.finish_rows!(run, rows) -> run

Declares rows finished, for plans with `per_row = true`: their numbers stay and their time is the last one. For
parts that are known, which the model reads beside the rest.
"""
finish_rows!(run::Run, rows) = change_rows!(LibDGM.dgm_run_finish_rows, run, rows)

function change_rows!(f, run, rows::AbstractVector{Bool})
    length(rows) == last(run.dims) ||
        throw(DimensionMismatch("rows has length $(length(rows)), expected the batch size $(last(run.dims))"))
    check(f(run.plan.handle, run.header, length(run.header), convert(Vector{UInt8}, rows), length(rows)))
    return run
end
change_rows!(f, run, rows) = throw(ArgumentError("rows is a $(typeof(rows)), expected a vector of Bool"))

"""
    DGMKernels.row_steps(run) -> Vector{Int}

Steps that every row has finished: those of the plan where it is done.
"""
function row_steps(run::Run)
    steps = Vector{Int64}(undef, last(run.dims))
    check(LibDGM.dgm_run_row_steps(run.plan.handle, run.header, length(run.header), steps, length(steps)))
    return convert(Vector{Int}, steps)
end

"""
    DGMKernels.row_active(run) -> Vector{Bool}

Which rows of the answer to the current request are used.
"""
function row_active(run::Run)
    active = Vector{UInt8}(undef, last(run.dims))
    check(LibDGM.dgm_run_row_active(run.plan.handle, run.header, length(run.header), active, length(active)))
    return convert(Vector{Bool}, active)
end
