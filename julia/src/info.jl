"""
    DGMKernels.library() -> String

The path of the libdgm in use.
"""
library() = (Library.address(1); Library.PATH[])

"""
    DGMKernels.cpu_info() -> String

Which instruction set and kernels run on this machine.
"""
cpu_info() = text(LibDGM.dgm_cpu_info)

"""
    DGMKernels.numerics_version() -> Int

Changes when the bits of any result may.
"""
numerics_version() = Int(LibDGM.dgm_numerics_version())

"""
    DGMKernels.num_threads() -> Int

How many threads, the caller included, a call may use. Results never depend on it.
"""
num_threads() = Int(LibDGM.dgm_num_threads())

"""
    DGMKernels.set_num_threads!(n)

Sets [`DGMKernels.num_threads`](@ref), 1 to 1024.
"""
function set_num_threads!(n::Integer)
    1 <= n <= 1024 || throw(ArgumentError("n is $n, expected 1 to 1024"))
    check(LibDGM.dgm_set_num_threads(n))
    return n
end

"""
    DGMKernels.set_backend!(backend)

Chooses what multiplies in linear layers and in attention with large `Float32` tiles: `:native`, the
default and the same bits everywhere, or `:blas`, the machine's BLAS (`ENV["DGM_BLAS_LIBRARY"]` names
it), whose bits are its own. In attention each thread of the engine calls it by itself: tell it to use one
of its own (`ENV["OPENBLAS_NUM_THREADS"] = "1"` before the first call).
`DGMKernels.cpu_info()` says what runs.
"""
function set_backend!(backend)
    check(LibDGM.dgm_set_backend(string(backend)))
    return backend
end
