"""
A network on the other side: its handle, its sizes, and a workspace for the task that comes first. Subtypes have the
fields `handle`, `info`, `workspace` and `lock`; the sizes in `info` are their properties.
"""
abstract type Network end

@generated sizes(::Type{T}) where {T<:Network} = filter(!=(:struct_size), fieldnames(fieldtype(T, :info)))
Base.propertynames(::T) where {T<:Network} = sizes(T)
function Base.getproperty(model::T, name::Symbol) where {T<:Network}
    name in fieldnames(T) && return getfield(model, name)
    name in sizes(T) && return Int(getfield(getfield(model, :info), name))
    throw(ArgumentError("$(nameof(T)) has no property $name; it has $(join(sizes(T), ", "))"))
end

"Calls `f` with at least `floats` numbers: those that the model keeps, or, for a task that finds them in use, its own."
function with_workspace(f, model::Network, floats)
    mine = trylock(model.lock)
    try
        workspace = mine ? model.workspace : Float32[]
        length(workspace) < floats && resize!(workspace, floats)
        return f(workspace)
    finally
        mine && unlock(model.lock)
    end
end
