# Draws the samples of the gallery: every sampler on every shape that the file of cases lists.
#
#   julia --project=julia julia/examples/gallery.jl CASES POINTS
#
# `make gallery DOOR=julia` writes the cases, runs this and draws the picture. POINTS receives raw f32
# [plans, shapes, rows, 2].

using DGMKernels
using DGMKernels: GaussianMixture, Plan, sample

function main(cases, points)
    words = Iterators.Stateful(split(read(cases, String)))
    word() = popfirst!(words)
    after(name) = (found = word(); found == name || error("$cases has $found, expected $name"); word())
    value(text) = something(tryparse(Int, text), tryparse(Float64, text), Symbol(text))

    rows, seed = parse(Int, after("rows")), parse(UInt64, after("seed"))
    mixtures = map(1:parse(Int, after("shapes"))) do _
        count, deviation = parse(Int, after("shape")), parse(Float64, word())
        means = reshape([parse(Float64, word()) for _ in 1:2count], 2, count)
        GaussianMixture(ones(count), means, fill(deviation^2, count))
    end
    plans = map(1:parse(Int, after("plans"))) do _
        # A name, a value, and the number that C has for it.
        options = [(Symbol(word()), value(word()), word()) for _ in 1:parse(Int, after("plan"))]
        Plan(; (name => value for (name, value, _) in options)...)
    end

    seeds = row_seeds(seed, rows)
    open(points, "w") do io
        for plan in plans, mixture in mixtures
            write(io, sample(seeds, mixture, plan, (2, rows)))
        end
    end
end

length(ARGS) == 2 || error("expected two arguments: CASES POINTS")
main(ARGS...)
