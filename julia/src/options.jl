# Option structs of the C interface, as values.

"An option struct with the engine's defaults."
function default_options(init, ::Type{T}) where {T}
    options = Ref{T}()
    check(init(options, sizeof(T)))
    return options[]
end

"A struct that the engine fills: it wants to know the size that the caller knows."
function blank(::Type{T}) where {T}
    zeros = map(F -> F <: Ptr ? F(C_NULL) : zero(F), Base.tail(fieldtypes(T)))
    return Ref(T(sizeof(T), zeros...))
end

"A copy of an option struct with some fields replaced."
with(options; fields...) = replaced(options, values(fields))

# Generated, because it stands in the path of every call of a kernel with options.
@generated function replaced(options::T, fields::NamedTuple{names}) where {T,names}
    return :(T($((name in names ? :(fields.$name) : :(options.$name) for name in fieldnames(T))...)))
end

"The values of a C enumeration by their lower-case names, in order: all constants that begin with `prefix`."
function enumeration(prefix)
    constants = filter(name -> startswith(string(name), prefix), names(LibDGM; all = true))
    sort!(constants; by = name -> getfield(LibDGM, name))
    short = map(name -> Symbol(lowercase(string(name)[length(prefix)+1:end])), constants)
    return NamedTuple{Tuple(short)}(Tuple(Int(getfield(LibDGM, name)) for name in constants))
end

"The number of the C interface behind a symbol."
function choice(name, symbol, numbers::NamedTuple)
    haskey(numbers, Symbol(symbol)) && return Int32(numbers[Symbol(symbol)])
    throw(ArgumentError("$name is $(repr(symbol)), expected one of " * join(map(repr, keys(numbers)), ", ")))
end
