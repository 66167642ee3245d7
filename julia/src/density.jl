# Log densities along an ode: numbers told beside outputs.

"""
    DGMKernels.probe(run)

The probes `e` of Hutchinson's estimate, of size `dims`, one a row for the whole walk: the number to tell is
`e' * J * e` with the Jacobian `J` of `f` at the input. For plans with `likelihood = :hutchinson` or
`:hutchinson_normal`.
"""
function probe(run::Run)
    out = Array{Float32}(undef, run.dims)
    check(LibDGM.dgm_run_probe(run.plan.handle, run.header, length(run.header), out, length(out)))
    return out
end

"""
    DGMKernels.divergence(run) -> Vector{Float64}

The integral of the divergence over the time walked, one number a row: by so much has the logarithm of a
volume around the sample grown. A sample walked from standard normals has their log density less this.
"""
function divergence(run::Run)
    out = Vector{Float64}(undef, last(run.dims))
    check(LibDGM.dgm_run_divergence(run.plan.handle, run.header, length(run.header), out, length(out)))
    return out
end

"""
    DGMKernels.log_density(run) -> Vector{Float64}

The log density of what a finished run started from, one number a row, when what it ends with is standard
normal. The plan has `process = :ode` and a `likelihood`; the model returns `(f, numbers)`, with `:exact` the
divergence of `f` a row, with `:hutchinson` and `:hutchinson_normal` its estimate with [`probe`](@ref DGMKernels.probe).
[`bits_per_dimension`](@ref DGMKernels.bits_per_dimension) says it in bits.

# Examples
```julia
plan = DGMKernels.Plan(process = :ode, solver = :dopri5, likelihood = :exact)
x = Float32[3 0; -1.5 1]                                      # data N(0, 9), two dimensions, two rows
run = DGMKernels.start(1, plan, (2, 2); x = x)
DGMKernels.sample!(run, (x, t, request) -> (-log(3) .* x, fill(-2log(3), 2)))
DGMKernels.log_density(run)
```
"""
log_density(run::Run) = first(densities(run))

"""
    DGMKernels.bits_per_dimension(run) -> Vector{Float64}

`-log_density / (elements ln 2)` of every row, see [`log_density`](@ref DGMKernels.log_density).
"""
bits_per_dimension(run::Run) = last(densities(run))

function densities(run::Run)
    out, bits = Vector{Float64}(undef, last(run.dims)), Vector{Float64}(undef, last(run.dims))
    header, state = run.header, run.state
    check(LibDGM.dgm_run_log_density(run.plan.handle, header, length(header), state, length(state),
                                     out, bits, length(out)))
    return out, bits
end
