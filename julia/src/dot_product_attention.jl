# Attention in the layout of NNlib: heads are groups of features, so they lie between D and L.

"""
    DGMKernels.dot_product_attention(q, k, v[, bias]; nheads = 1, mask = nothing, causal = false,
                                     fdrop = identity, options...) -> (y, nothing)

[`attention`](@ref) with the arguments of `NNlib.dot_product_attention`, for code that is written for it.
It is a function of this package alone: it adds no method to NNlib's and is not exported.

# Arguments
- `q`: `(features, Lq, batch...)`, `k`: `(features, Lk, batch...)`, `v`: `(vfeatures, Lk, batch...)`;
  `Float32`, `Float16` or [`DGMKernels.BF16`](@ref), `k` and `v` of one type. Head `h` of `nheads` is features
  `(h-1)*features÷nheads+1 : h*features÷nheads`. Heads and batch are reached by strides: nothing is
  permuted or copied. More than one batch dimension must be walkable with one stride, as in every `Array`.
- `bias`: added to the scores, `(Lk, Lq, nheads, prod(batch))`, 1 (or left out at the end) wherever it
  repeats; `Float32`. One of 16 bits is copied to `Float32` first.

# Options
- `nheads`: how many heads; it divides the features of `q`, `k` and `v`.
- `mask`: `Bool`s of such a size, `true` = attend (`NNlib.make_causal_mask` makes one); a `BitArray` is
  copied to bytes first. `:causal` is `causal = true`.
- `causal`: for `Lq == Lk` what `make_causal_mask` says, without a mask in memory and in half the time. For
  other lengths the last query sees the last key.
- `fdrop`: `identity`; dropout needs the scores, which are never in memory.
- `scale`, `window`, `soft_cap`, `alibi_slopes`, `sinks`: as in [`attention`](@ref).

Returns `(y, nothing)`: `y` is `(vfeatures, Lq, batch...)` with the type of `q`, and `nothing` stands where
NNlib returns the scores, which this kernel does not make. A query whose keys are all hidden gives 0.

# Examples
```julia
x = randn(Float32, 64, 100, 8)                                        # 4 heads of 16
y, _ = DGMKernels.dot_product_attention(x, x, x; nheads = 4, causal = true)
```
"""
function dot_product_attention(q, k, v, bias = nothing; fdrop = identity, mask = nothing, nheads::Integer = 1,
                               causal::Bool = false, options...)
    fdrop === identity ||
        throw(ArgumentError("fdrop is $(repr(fdrop)), expected identity: the scores are never in memory"))
    batch = size(q)[3:end]
    check_features("q", q, "(features, Lq, batch...)", nheads)
    check_features("k", k, "(features, Lk, batch...)", nheads)
    check_features("v", v, "(vfeatures, Lk, batch...)", nheads)
    size(k, 1) == size(q, 1) && size(k)[3:end] == batch ||
        wrong_size("k", k, "(features, Lk, batch...) with features = $(size(q, 1)) and batch = $batch, as q")
    size(v)[2:end] == size(k)[2:end] ||
        wrong_size("v", v, "(vfeatures, Lk, batch...) with Lk = $(size(k, 2)) and batch = $batch, as k")
    y = Array{eltype(q)}(undef, size(v, 1), size(q, 2), batch...)
    full = (size(k, 2), size(q, 2), Int(nheads), prod(batch))
    bias = score_tensor("bias", single(bias), Float32, full)
    mask, causal = mask === :causal ? (nothing, true) : (unpacked(mask), causal)
    mask = score_tensor("mask", mask, Bool, full)
    with_options(nheads; causal = causal, options...) do defaults
        GC.@preserve bias mask begin
            all = with(defaults; bias = address(bias), mask = address(mask))
            check(LibDGM.dgm_attention(head_tensor("q", q, nheads), head_tensor("k", k, nheads),
                                       head_tensor("v", v, nheads), Ref(all), head_tensor("y", y, nheads), C_NULL))
        end
    end
    return y, nothing
end

function check_features(name, x, expected, nheads)
    ndims(x) >= 2 || wrong_size(name, x, expected)
    check_floats(name, x)
    nheads >= 1 && size(x, 1) % nheads == 0 ||
        throw(DimensionMismatch("nheads is $nheads, expected a divisor of the features of $name, $(size(x, 1))"))
end

"`(features, L, batch...)` as `(D, L, nheads, B)` over the same memory."
function head_tensor(name, x, nheads)
    steps, d, b = element_strides(x), size(x, 1) ÷ nheads, one_stride(x, 3)
    b === nothing && throw(ArgumentError(
        "$name has strides $steps for the size $(size(x)), expected batch dimensions that one stride can walk. " *
        "Array($name) makes a copy that fits."))
    return Tensor(x, (d, size(x, 2), nheads, b[1]), (steps[1], steps[2], d * steps[1], b[2]))
end

single(x) = x
single(x::AbstractArray{<:Union{Float16,BF16}}) = (check_floats("bias", x); Float32.(x))
unpacked(x) = x
unpacked(x::BitArray) = Array(x)

"What has an element for every score; dimensions that are left out at the end repeat."
score_tensor(name, ::Nothing, T, full) = nothing
function score_tensor(name, x, T, full)
    x isa AbstractArray || throw(ArgumentError("$name is $(repr(x)), expected an array of $T" *
                                               (T === Bool ? ", :causal or nothing" : " or nothing")))
    dims = ntuple(d -> size(x, d), 4)
    ndims(x) <= 4 && all(map((n, whole) -> n == whole || n == 1, dims, full)) ||
        wrong_size(name, x, "(Lk, Lq, nheads, batch) = $full, or 1 wherever it repeats")
    check_array(name, x, T)
    steps = element_strides(x)
    return Tensor(x, dims, ntuple(d -> d <= ndims(x) ? steps[d] : 0, 4))
end
