# Draws handwritten digits with a diffusion transformer, asking and answering the sampler step by step.
#
#   julia --project=julia julia/examples/digits.jl --n 64 --seed 7 --out digits.f32
#
# --model FILE  weights             --n N         how many images      --seed S   of the noise
# --steps N     of the sampler      --labels A,B  classes, repeated    --out FILE raw f32 [N,1,8,8]

using DGMKernels
using DGMKernels: Plan, start, result

function options(args)
    values = Dict("--model" => joinpath(@__DIR__, "..", "..", "models", "digits.safetensors"),
                  "--seed" => "0", "--steps" => "", "--labels" => "", "--n" => "64", "--out" => "")
    isodd(length(args)) && error("$(last(args)) has no value")
    for (name, value) in Iterators.partition(args, 2)
        haskey(values, name) || error("unknown option $name, expected one of $(join(sort(collect(keys(values))), " "))")
        values[name] = value
    end
    return values
end

function draw(model, plan, seeds, labels)
    nobody = fill(model.num_classes, length(labels))         # the label that means "no class"
    run = start(seeds, plan, (model.width, model.height, model.channels, length(labels)))
    steps = 0
    while (request = ask(run)) !== nothing
        # Any function of (request.x, request.times) may stand here; this one is the transformer.
        y = model(request.x, request.times, request.role === :cond ? labels : nobody)
        tell!(run, request, y)
        steps = request.step + 1
    end
    return copy(result(run)), steps
end

function main(args)
    given = options(args)
    model = DiT(given["--model"])
    n = parse(Int, given["--n"])
    classes = isempty(given["--labels"]) ? (0:9) : parse.(Int, split(given["--labels"], ','))
    labels = [Int64(classes[mod1(r, length(classes))]) for r in 1:n]
    seeds = row_seeds(parse(UInt64, given["--seed"]), n)
    # The solver, the guidance and the number of steps that the model was made for.
    plan = isempty(given["--steps"]) ? Plan(model) : Plan(model; steps = parse(Int, given["--steps"]))

    draw(model, Plan(model; steps = 1), seeds[1:1], labels[1:1])         # Julia compiles at the first call
    seconds = @elapsed ((images, steps) = draw(model, plan, seeds, labels))
    println("julia  images=", n, " steps=", steps, " seconds=", round(seconds; digits = 3))
    # The memory of a Julia (8, 8, 1, N) is the row-major [N, 1, 8, 8].
    isempty(given["--out"]) || write(given["--out"], images)
    return images
end

main(ARGS)
