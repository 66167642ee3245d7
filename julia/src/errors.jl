"""
    DGMError(code, message)

The engine refused something that this package cannot check beforehand: a file, the bytes of an
exported run, a call that does not fit the state of a run. `code` is the stable number of the C
interface. Wrong arguments are `ArgumentError` or `DimensionMismatch`, as everywhere in Julia.
"""
struct DGMError <: Exception
    code::Int32
    message::String
end

Base.showerror(io::IO, e::DGMError) = print(io, "DGMError: ", e.message, " (code ", e.code, ")")

# The text belongs to the thread of the failed call, so nothing may yield between the two.
@noinline function fail(status::Int32)
    message = unsafe_string(LibDGM.dgm_last_error())
    status in (-200, -201) && throw(DimensionMismatch(message * " (in row-major order)"))
    -600 < status <= -100 && throw(ArgumentError(message))
    throw(DGMError(status, message))
end

@inline check(status::Int32) = status == 0 ? nothing : fail(status)

"The text that `f(buffer, capacity, needed)` writes; the length is asked for first."
function text(f)
    needed = Ref{Csize_t}(0)
    f(C_NULL, 0, needed)
    while true
        buffer = zeros(UInt8, max(needed[], 1))
        check(f(buffer, length(buffer), needed))
        needed[] <= length(buffer) && return String(buffer[1:something(findfirst(==(0x00), buffer), end + 1)-1])
    end
end
