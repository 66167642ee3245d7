# julia --project=julia julia/test/runtests.jl

using DGMKernels
using Libdl: dlopen, dlsym
using Test

const D = DGMKernels
const PROJECT = dirname(@__DIR__)

# A model that is neither a function nor an array.
struct Scaled
    by::Float32
end
(m::Scaled)(x, t, request) = m.by .* x

"What `f()` throws, or `nothing`."
function thrown(f)
    try
        f()
    catch error
        return error
    end
    return nothing
end

include("golden.jl")

"Passed and failed tests of a test set and those inside it."
function totals(set)
    passed, failed = set.n_passed, 0
    for result in set.results
        if result isa Test.DefaultTestSet
            (passed, failed) = (passed, failed) .+ totals(result)
        else
            failed += result isa Union{Test.Fail,Test.Error}
        end
    end
    return (passed, failed)
end

counts = try
    totals(@testset "DGMKernels" begin
        include("test_arrays.jl")
        include("test_kernels.jl")
        include("test_dot_product_attention.jl")
        include("test_random.jl")
        include("test_sampling.jl")
        include("test_mixture.jl")
        include("test_rbm.jl")
        include("test_dit.jl")
        include("test_llama.jl")
        include("test_sd3.jl")
        include("test_flux.jl")
        include("test_grid.jl")
        include("conformance.jl")
        include("walks.jl")
        include("test_compat.jl")
        include("test_bad_input.jl")
        include("test_cache.jl")
        include("test_library.jl")
        include("test_jlrs.jl")
    end)
catch error
    error isa Test.TestSetException || rethrow()
    (error.pass, error.fail + error.error)
end
println("julia: ", counts[1], " passed, ", counts[2], " failed")
exit(counts[2] == 0 ? 0 : 1)
