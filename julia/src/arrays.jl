# Julia arrays as the tensors of the C interface, without copies: a column-major (D, L, H, B) is the
# row-major [B, H, L, D], so dimensions and strides travel in reverse.

"""
    DGMKernels.is_strided(x) -> Bool

Whether the elements of `x` lie in CPU memory at regular distances, so that a kernel can read them
in place. True for `Array` and for views with ranges, `reshape`, `reinterpret`, `transpose` and
`PermutedDimsArray` of such arrays. An array type of your own that stores its elements in an `Array`
`p` takes part with `is_strided`, `element_strides` and `element_pointer` methods that refer to `p`.
"""
is_strided(x::AbstractArray) = false
is_strided(x::Array) = true
is_strided(x::SubArray) =
    is_strided(parent(x)) && !Base.has_offset_axes(x) && all(i -> i isa Union{Integer,AbstractRange}, parentindices(x))
is_strided(x::PermutedDimsArray) = is_strided(parent(x))
is_strided(x::Union{Base.ReshapedArray,Base.ReinterpretArray}) = is_strided(parent(x)) && is_dense(parent(x))
is_strided(x::Union{Transpose{<:Real},Adjoint{<:Real}}) = is_strided(parent(x))

"""
    DGMKernels.element_strides(x)

The distance, in elements, between neighbours along each dimension of an array that `is_strided`.
"""
element_strides(x::Array) = strides(x)
element_strides(x::SubArray) = view_strides(element_strides(parent(x)), parentindices(x))
element_strides(x::PermutedDimsArray{T,N,perm}) where {T,N,perm} =
    (s = element_strides(parent(x)); map(i -> s[i], perm))
element_strides(x::Union{Base.ReshapedArray,Base.ReinterpretArray}) = dense_strides(size(x))
element_strides(x::Union{Transpose,Adjoint}) = turned(element_strides(parent(x)))

turned(s::NTuple{2,Int}) = (s[2], s[1])
turned(s::NTuple{1,Int}) = (s[1], s[1])

view_strides(::Tuple{}, ::Tuple) = ()
view_strides(s::Tuple, i::Tuple) = (index_stride(s[1], i[1])..., view_strides(Base.tail(s), Base.tail(i))...)
index_stride(s, ::Integer) = ()
index_stride(s, i::AbstractRange) = (s * step(i),)

dense_strides(size::Dims) = (Base.size_to_strides(1, size...))
dense_strides(::Tuple{}) = ()

"""
    DGMKernels.element_pointer(x)

The address of the first element of an array that `is_strided`.
"""
element_pointer(x::Array) = pointer(x)
element_pointer(x::SubArray{T}) where {T} =
    Ptr{T}(element_pointer(parent(x))) + sizeof(T) * view_offset(element_strides(parent(x)), parentindices(x))
element_pointer(x::Union{PermutedDimsArray,Transpose,Adjoint}) = element_pointer(parent(x))
element_pointer(x::Union{Base.ReshapedArray{T},Base.ReinterpretArray{T}}) where {T} = Ptr{T}(element_pointer(parent(x)))

view_offset(::Tuple{}, ::Tuple) = 0
view_offset(s::Tuple, i::Tuple) = s[1] * (first(i[1]) - 1) + view_offset(Base.tail(s), Base.tail(i))

@static if isdefined(Core, :Memory)
    is_strided(x::Memory) = true
    element_strides(x::Memory) = (1,)
    element_pointer(x::Memory) = pointer(x)
end

"Whether memory order is the order of `vec(x)`; a dimension of one element has no stride to respect."
function is_dense(x)
    steps, expected = element_strides(x), dense_strides(size(x))
    return all(d -> size(x, d) == 1 || steps[d] == expected[d], 1:ndims(x))
end

@noinline not_strided(name, x) = throw(ArgumentError(
    "$name is a $(typeof(x)), expected an array in CPU memory with regular strides: an Array, or a view with " *
    "ranges, reshape, transpose or PermutedDimsArray of one. Array($name) makes a copy that fits."))
@noinline wrong_type(name, x, T) =
    throw(ArgumentError("$name has element type $(eltype(x)), expected $T"))
@noinline wrong_size(name, x, expected) =
    throw(DimensionMismatch("$name has size $(size(x)), expected $expected"))

"Checks that the argument `name` is an array of `T` that a kernel can read in place."
@inline function check_array(name, x::AbstractArray, T = Float32)
    eltype(x) === T || wrong_type(name, x, T)
    is_strided(x) || not_strided(name, x)
    return nothing
end

"`check_array` of one of several types."
@inline function check_floats(name, x::AbstractArray)
    eltype(x) <: Floats && isconcretetype(eltype(x)) || wrong_type(name, x, "Float32, Float16 or DGMKernels.BF16")
    return check_array(name, x, eltype(x))
end
@inline float_dims(name, x, n, expected) = ndims(x) == n ? check_floats(name, x) : wrong_size(name, x, expected)

@inline float_size(name, x, expected::Dims) =
    size(x) == expected ? check_floats(name, x) : wrong_size(name, x, expected)

@inline check_dims(name, x, n, expected) = ndims(x) == n ? check_array(name, x) : wrong_size(name, x, expected)
@inline check_size(name, x, expected::Dims) =
    size(x) == expected ? check_array(name, x) : wrong_size(name, x, expected)

"""
    DGMKernels.BF16(x)

A bfloat16 number: the upper half of a `Float32`. It only stores: `Float32(x)` computes. An
`Array{UInt16}` with such bits, or the `Array{BFloat16}` of package BFloat16s, is
`reinterpret(DGMKernels.BF16, array)`.
"""
struct BF16 <: AbstractFloat
    bits::UInt16
    BF16(bits::UInt16, ::Val{:bits}) = new(bits)
end

# To the nearest, ties to even; a NaN stays one.
function BF16(x::Real)
    u = reinterpret(UInt32, Float32(x))
    isnan(x) && return BF16((u >> 16) % UInt16 | 0x0040, Val(:bits))
    return BF16(((u + 0x7fff + ((u >> 16) & 1)) >> 16) % UInt16, Val(:bits))
end
BF16(x::BF16) = x
Base.Float32(x::BF16) = reinterpret(Float32, UInt32(x.bits) << 16)
Base.Float64(x::BF16) = Float64(Float32(x))
Base.promote_rule(::Type{BF16}, ::Type{T}) where {T<:Union{Float32,Float64}} = T
Base.:(==)(a::BF16, b::BF16) = Float32(a) == Float32(b)
Base.isnan(x::BF16) = isnan(Float32(x))
Base.show(io::IO, x::BF16) = print(io, "DGMKernels.BF16(", Float32(x), ")")

"The element types that kernels take."
const Floats = Union{Float32,Float16,BF16}

# The number of an element type in the C interface.
dtype_code(::Type{Float32}) = LibDGM.DGM_DTYPE_FLOAT
dtype_code(::Type{Float64}) = LibDGM.DGM_DTYPE_FLOAT
dtype_code(::Type{Float16}) = LibDGM.DGM_DTYPE_FLOAT
dtype_code(::Type{BF16}) = LibDGM.DGM_DTYPE_BFLOAT
dtype_code(::Type{Int8}) = LibDGM.DGM_DTYPE_INT
dtype_code(::Type{Int32}) = LibDGM.DGM_DTYPE_INT
dtype_code(::Type{Bool}) = LibDGM.DGM_DTYPE_BOOL

# The header and what it points to in one object, which Julia never moves. It keeps the array alive.
mutable struct Tensor{N,A}
    header::LibDGM.dgm_tensor
    shape::NTuple{N,Int64}
    strides::NTuple{N,Int64}
    array::A
    function Tensor(array::A, size::NTuple{N,Integer}, steps::NTuple{N,Integer}) where {N,A}
        tensor = new{N,A}()
        tensor.array = array
        tensor.shape = reverse(size)
        tensor.strides = reverse(steps)
        at = pointer_from_objref(tensor)
        tensor.header = LibDGM.dgm_tensor(
            element_pointer(array), LibDGM.DGM_DEVICE_CPU, 0, N, dtype_code(eltype(A)), 8 * sizeof(eltype(A)), 1,
            Ptr{Int64}(at + fieldoffset(Tensor{N,A}, 2)), Ptr{Int64}(at + fieldoffset(Tensor{N,A}, 3)), 0)
        return tensor
    end
end

Tensor(x::AbstractArray) = Tensor(x, size(x), element_strides(x))
# An argument that may be missing.
optional(::Nothing) = C_NULL
optional(x::AbstractArray) = Tensor(x)

Base.unsafe_convert(::Type{Ptr{LibDGM.dgm_tensor}}, t::Tensor) = Ptr{LibDGM.dgm_tensor}(pointer_from_objref(t))

"Dimensions of `x` from `first` on as one, `(count, stride)`, or `nothing` when their strides do not allow it."
function one_stride(x, first)
    steps = element_strides(x)
    count, stride = 1, 0
    for d in first:ndims(x)
        size(x, d) == 1 && continue
        count > 1 && steps[d] != stride * count && return nothing
        count == 1 && (stride = steps[d])
        count *= size(x, d)
    end
    return count, stride
end

"`x` as (size of dim 1, everything else) when its strides allow, else `nothing`."
function as_rows(x)
    ndims(x) == 2 && return Tensor(x)
    rows = one_stride(x, 2)
    rows === nothing && return nothing
    count, stride = rows
    return Tensor(x, (size(x, 1), count), (element_strides(x)[1], count == 1 ? size(x, 1) : stride))
end

"Calls `f(out, x)` on views of (d, rows): once when strides allow, else once a slice of the last dimension."
function by_rows(f, out, x)
    a, b = as_rows(out), as_rows(x)
    if a !== nothing && b !== nothing
        f(a, b)
    else
        n = ndims(x)
        for i in axes(x, n)
            by_rows(f, selectdim(out, n, i), selectdim(x, n, i))
        end
    end
    return nothing
end
