"Finds libdgm at the first call, and holds the address of each of its functions."
module Library

using Libdl

"""
    LibraryNotFound(tried)

libdgm could not be loaded. `tried` lists the places looked at and what was wrong with each.
"""
struct LibraryNotFound <: Exception
    tried::Vector{Pair{String,String}}
end

function Base.showerror(io::IO, e::LibraryNotFound)
    print(io, "LibraryNotFound: libdgm could not be loaded. Tried:")
    for (place, outcome) in e.tried
        print(io, "\n  ", place, ": ", outcome)
    end
    print(io, "\nBuild it with `cargo build --release -p dgm-capi` in the checkout of DGMKernels, ",
          "or set ENV[\"DGM_LIBRARY\"] to the path of ", first(FILE_NAMES), ".")
end

const FILE_NAMES = Sys.iswindows() ? ["dgm.dll"] :
                   Sys.isapple() ? ["libdgm.dylib", "libdgm.0.dylib"] : ["libdgm.so", "libdgm.so.0"]

const PACKAGE = dirname(@__DIR__)
const UUID = Base.UUID("5f0f7a1c-8f5e-4c0e-9d4b-6a3f2f6f1d27")

function preferred()
    isdefined(Base, :get_preferences) || return nothing
    return get(Base.get_preferences(UUID), "libdgm", nothing)
end

# Artifacts are found by their tree hash; reading it by hand spares the Artifacts library, which
# Julia 1.5 does not have. Only the artifact of this platform is ever installed.
function artifacts(file = joinpath(PACKAGE, "Artifacts.toml"), depots = DEPOT_PATH)
    isfile(file) || return String[]
    hashes = [String(m[1]) for m in eachmatch(r"^\s*git-tree-sha1\s*=\s*\"([0-9a-f]{40})\""m, read(file, String))]
    folders = [joinpath(depot, "artifacts", hash) for depot in depots for hash in hashes]
    return [joinpath(f, sub, first(FILE_NAMES)) for f in folders if isdir(f) for sub in ("lib", "bin", ".")]
end

"""
    places() -> (what, path, decisive)

Where to look, in order. A `decisive` place was named by the user: when it fails nothing else is
tried, so that a typing error never loads some other library.
"""
function places()
    found = Tuple{String,String,Bool}[]
    path = get(ENV, "DGM_LIBRARY", "")
    isempty(path) || push!(found, ("ENV[\"DGM_LIBRARY\"]", path, true))
    path = preferred()
    path === nothing || push!(found, ("preference libdgm", String(path), true))
    append!(found, [("artifact", a, false) for a in artifacts()])
    checkout = joinpath(dirname(PACKAGE), "target", "release", first(FILE_NAMES))
    push!(found, ("checkout", checkout, false))
    append!(found, [("system loader", name, false) for name in FILE_NAMES])
    return found
end

"Opens one place: the handle, or why not."
function open_library(path, abi)
    isabspath(path) && !isfile(path) && return "no such file"
    handle = dlopen(path; throw_error = false)
    handle === nothing && return isfile(path) ? "the file cannot be loaded" : "not found"
    version = dlsym(handle, :dgm_abi_version; throw_error = false)
    version === nothing && return "is not libdgm"
    has = ccall(version, Int32, ())
    has == abi || return "has ABI version $has, this package needs $abi"
    return handle
end

function load(abi)
    tried = Pair{String,String}[]
    for (what, path, decisive) in places()
        handle = open_library(path, abi)
        if handle isa Ptr{Cvoid}
            PATH[] = dlpath(handle)
            return handle
        end
        push!(tried, "$what, $path" => handle)
        decisive && break
    end
    throw(LibraryNotFound(tried))
end

const LOCK = ReentrantLock()
const HANDLE = Ref{Ptr{Cvoid}}(C_NULL)
const PATH = Ref("")
const ADDRESSES = Ptr{Cvoid}[]

# Pointers of another process mean nothing: an image of this module must start without them.
function __init__()
    HANDLE[] = C_NULL
    PATH[] = ""
    resize!(ADDRESSES, length(parentmodule(@__MODULE__).LibDGM.SYMBOLS))
    fill!(ADDRESSES, C_NULL)
    return nothing
end

@noinline function resolve(index)
    bindings = parentmodule(@__MODULE__).LibDGM
    lock(LOCK)
    try
        if HANDLE[] == C_NULL
            HANDLE[] = load(bindings.DGM_ABI_VERSION)
        end
        address = dlsym(HANDLE[], bindings.SYMBOLS[index])
        ADDRESSES[index] = address
        return address
    finally
        unlock(LOCK)
    end
end

"The address of the function at `index` in `LibDGM.SYMBOLS`; the library is loaded when it is not yet."
@inline function address(index)
    known = @inbounds ADDRESSES[index]
    return known == C_NULL ? resolve(index) : known
end

"""
    @native index name(argument::Type, ...)::Type

Calls function `index` of libdgm. Where Julia can (1.12), its garbage collector may run meanwhile.
"""
macro native(index, expression)
    call, returns = expression.args
    arguments = call.args[2:end]
    if VERSION >= v"1.12"
        pointer = Expr(:$, :($address($index)))
        call = Expr(:(::), Expr(:call, pointer, arguments...), returns)
        return esc(Expr(:macrocall, GlobalRef(Base, Symbol("@ccall")), __source__, :(gc_safe = true), call))
    end
    names = [a.args[1] for a in arguments]
    types = [a.args[2] for a in arguments]
    return esc(:(ccall($address($index), $returns, ($(types...),), $(names...))))
end

end
