"""
    DGMKernels.Rbm(weights, visible_bias, hidden_bias)

A restricted Boltzmann machine of `V` visible and `H` hidden units that are 0 or 1, with the energy
`E(v, h) = -b'v - c'h - h'W v` and `p(v, h)` in proportion to `exp(-E(v, h))` (Hinton 2002).

`weights` is `H × V`, as in `W * v`; the biases have `V` and `H` numbers. All are finite.

See [`gibbs`](@ref DGMKernels.gibbs), [`cd_gradient`](@ref DGMKernels.cd_gradient),
[`free_energy`](@ref DGMKernels.free_energy), [`energy`](@ref DGMKernels.energy),
[`hidden_probabilities`](@ref DGMKernels.hidden_probabilities) and
[`visible_probabilities`](@ref DGMKernels.visible_probabilities).

# Examples
```julia
data = Float32[1 0; 1 0; 0 1]                     # two rows of three units
W, b, c = zeros(Float32, 2, 3), zeros(Float32, 3), zeros(Float32, 2)
for step in 0:9                                   # CD-1; PCD keeps `chains` from one update to the next
    rbm = DGMKernels.Rbm(W, b, c)
    chains = DGMKernels.gibbs(7, rbm, data; first_step = step)
    d = DGMKernels.cd_gradient(rbm, data, chains)
    W .+= 0.1f0 .* d.weights; b .+= 0.1f0 .* d.visible_bias; c .+= 0.1f0 .* d.hidden_bias
end
```
"""
struct Rbm
    handle::RbmHandle
    visible::Int
    hidden::Int
    function Rbm(weights, visible_bias, hidden_bias)
        check_dims("weights", weights, 2, "(H, V)")
        hidden, visible = size(weights)
        check_size("visible_bias", visible_bias, (visible,))
        check_size("hidden_bias", hidden_bias, (hidden,))
        w, b, c = Tensor(weights), convert(Vector{Float32}, visible_bias), convert(Vector{Float32}, hidden_bias)
        handle = RbmHandle(out -> LibDGM.dgm_rbm_create(w, b, visible, c, hidden, out))
        return new(handle, visible, hidden)
    end
end

function check_units(name, x, units)
    ndims(x) == 2 && size(x, 1) == units || wrong_size(name, x, "($units, B)")
    return check_array(name, x)
end

"""
    DGMKernels.hidden_probabilities(rbm, v) -> Matrix{Float32}

The probabilities `p(h = 1 | v)`, `H × B`, of the hidden units of an [`Rbm`](@ref DGMKernels.Rbm); `v` is `V × B`,
numbers from 0 to 1.
"""
function hidden_probabilities(rbm::Rbm, v)
    check_units("v", v, rbm.visible)
    input, out = convert(Array, v), Array{Float32}(undef, rbm.hidden, size(v, 2))
    check(LibDGM.dgm_rbm_hidden_probabilities(rbm.handle, Tensor(input), Tensor(out)))
    return out
end

"""
    DGMKernels.visible_probabilities(rbm, h) -> Matrix{Float32}

The probabilities `p(v = 1 | h)`, `V × B`, of the visible units of an [`Rbm`](@ref DGMKernels.Rbm); `h` is `H × B`,
numbers from 0 to 1.
"""
function visible_probabilities(rbm::Rbm, h)
    check_units("h", h, rbm.hidden)
    input, out = convert(Array, h), Array{Float32}(undef, rbm.visible, size(h, 2))
    check(LibDGM.dgm_rbm_visible_probabilities(rbm.handle, Tensor(input), Tensor(out)))
    return out
end

"""
    DGMKernels.free_energy(rbm, v) -> Vector{Float64}

The free energy `F(v) = -b'v - sum(log(1 + exp(c + W v)))` of every column of `v`, `V × B`, numbers from 0 to 1:
`p(v)` is in proportion to `exp(-F(v))`.
"""
function free_energy(rbm::Rbm, v)
    check_units("v", v, rbm.visible)
    input, out = convert(Array, v), Vector{Float64}(undef, size(v, 2))
    check(LibDGM.dgm_rbm_free_energy(rbm.handle, Tensor(input), out, length(out)))
    return out
end

"""
    DGMKernels.energy(rbm, v, h) -> Vector{Float64}

The energy `E(v, h)` of every column; its negative is the log density that
[`replica_exchange!`](@ref DGMKernels.replica_exchange!) reads.
"""
function energy(rbm::Rbm, v, h)
    check_units("v", v, rbm.visible)
    check_size("h", h, (rbm.hidden, size(v, 2)))
    visible, hidden, out = convert(Array, v), convert(Array, h), Vector{Float64}(undef, size(v, 2))
    check(LibDGM.dgm_rbm_energy(rbm.handle, Tensor(visible), Tensor(hidden), out, length(out)))
    return out
end

"""
    DGMKernels.gibbs([rng], rbm, v; first_step = 0, steps = 1, inverse_temperatures = [], hidden = nothing)
    DGMKernels.gibbs!([rng], rbm, v; ...)

Walk the chains in the columns of `v`, `V × B`, 0 or 1: a step draws `h` given `v`, then `v` given `h`. The first
argument is an `AbstractRNG`, a seed, or one seed a column, as in [`DGMKernels.normal!`](@ref). Step `n` of a column
is a function of its seed, `n`, its `v` and its temperature alone, so 3 and then 4 steps are 7.

- `first_step`, `steps`: they end at 2^31 at most.
- `inverse_temperatures`: `T` numbers, not negative; column `r` is drawn from `p^beta` with
  `beta = inverse_temperatures[mod1(r, T)]`, which scales weights and both biases. None means 1 everywhere.
- `hidden`: an `H × B` array that receives the `h` from which the last `v` was drawn.

# Examples
```julia
rbm = DGMKernels.Rbm(Float32[3 3; -1 2], Float32[-2, -2], Float32[-1, 0])
betas, seeds = [1, 0.5, 0], row_seeds(1, 6)                # two ladders of parallel tempering, coldest first
v, h = zeros(Float32, 2, 6), zeros(Float32, 2, 6)
for step in 0:19
    DGMKernels.gibbs!(seeds, rbm, v; first_step = step, inverse_temperatures = betas, hidden = h)
    log_density = -DGMKernels.energy(rbm, v, h)
    DGMKernels.replica_exchange!(seeds, v, log_density; inverse_temperatures = betas, step = step)
end
```
"""
function gibbs(source, rbm::Rbm, v; options...)
    check_units("v", v, rbm.visible)
    return gibbs!(source, rbm, copy(v); options...)
end
gibbs(rbm::Rbm, v; options...) = gibbs(Random.default_rng(), rbm, v; options...)

"See [`DGMKernels.gibbs`](@ref)."
function gibbs!(source, rbm::Rbm, v; first_step::Integer = 0, steps::Integer = 1,
                inverse_temperatures = Float64[], hidden = nothing)
    check_units("v", v, rbm.visible)
    columns = size(v, 2)
    hidden === nothing || check_size("hidden", hidden, (rbm.hidden, columns))
    for (name, n) in (("first_step", first_step), ("steps", steps))
        0 <= n <= typemax(UInt32) || throw(ArgumentError("$name is $n, expected an integer of 32 bits, not negative"))
    end
    seeds, betas = seeds_of(source, columns), betas_of(inverse_temperatures)
    check(LibDGM.dgm_rbm_gibbs(rbm.handle, Tensor(v), seeds, columns, first_step, steps, betas, length(betas),
                               optional(hidden)))
    return v
end
gibbs!(rbm::Rbm, v; options...) = gibbs!(Random.default_rng(), rbm, v; options...)

"""
    DGMKernels.cd_gradient(rbm, v_data, v_chain) -> (weights = ..., visible_bias = ..., hidden_bias = ...)

The gradient of the mean log likelihood of the columns of `v_data`, the expectations under the machine being those of
the columns of `v_chain`: means over the data less those over the chains. Adding it, times a learning rate, raises the
likelihood. With chains of [`gibbs`](@ref DGMKernels.gibbs) that take k steps from the data it is CD-k (Hinton 2002),
with chains that are kept PCD (Tieleman 2008).

`v_data` and `v_chain` are `V × B`, numbers from 0 to 1, of one column or more, as many or not.
"""
function cd_gradient(rbm::Rbm, v_data, v_chain)
    check_units("v_data", v_data, rbm.visible)
    check_units("v_chain", v_chain, rbm.visible)
    data, chain = convert(Array, v_data), convert(Array, v_chain)
    weights = Array{Float32}(undef, rbm.hidden, rbm.visible)
    b, c = Vector{Float32}(undef, rbm.visible), Vector{Float32}(undef, rbm.hidden)
    check(LibDGM.dgm_rbm_cd_gradient(rbm.handle, Tensor(data), Tensor(chain), Tensor(weights), b, length(b), c,
                                     length(c)))
    return (weights = weights, visible_bias = b, hidden_bias = c)
end

Base.show(io::IO, rbm::Rbm) = print(io, "Rbm(", rbm.visible, " visible, ", rbm.hidden, " hidden)")
