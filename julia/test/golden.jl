# The reference values that all languages share; made by PyTorch, tests/golden/make_golden.py.

const GOLDEN_DIR = joinpath(@__DIR__, "..", "..", "tests", "golden")
const GOLDEN_TYPES = Dict("f32" => Float32, "f64" => Float64, "i64" => Int64, "u64" => UInt64)

function read_golden(file = "golden")
    blob = read(joinpath(GOLDEN_DIR, "$file.bin"))
    tensors = Dict{String,Array}()
    for line in eachline(joinpath(GOLDEN_DIR, "$file.txt"))
        startswith(line, '#') && continue
        name, type, dims, offset = split(line)
        T, at = GOLDEN_TYPES[type], parse(Int, offset)
        shape = reverse(parse.(Int, split(dims, 'x')))      # row-major [a, b] is (b, a) here
        bytes = blob[at+1:at+sizeof(T)*prod(shape)]
        tensors[name] = reshape(collect(reinterpret(T, bytes)), shape...)
    end
    return tensors
end

const GOLDEN = read_golden()
golden(name) = GOLDEN[name]

"The largest difference, relative to the largest expected value."
function mismatch(got, expected)
    size(got) == size(expected) || return Inf
    scale = maximum(x -> isfinite(x) ? abs(Float64(x)) : 0.0, expected)
    errors = map((a, b) -> isequal(a, b) ? 0.0 : abs(Float64(a) - Float64(b)), got, expected)
    return maximum(errors) / max(scale, 1e-30)
end

near(got, expected; tol = 2e-6) = mismatch(got, expected) <= tol
