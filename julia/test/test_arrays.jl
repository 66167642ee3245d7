using LinearAlgebra: transpose

# A stand-in for arrays of other devices or layouts.
struct Elsewhere{T,N} <: DenseArray{T,N}
    data::Array{T,N}
end
Base.size(x::Elsewhere) = size(x.data)
Base.getindex(x::Elsewhere, i...) = getindex(x.data, i...)

function reads_right(x)
    steps, at = D.element_strides(x), D.element_pointer(x)
    return GC.@preserve x all(CartesianIndices(x)) do i
        isequal(unsafe_load(at, 1 + sum((Tuple(i) .- 1) .* steps)), x[i])
    end
end

@testset "arrays" begin
    x = rand(Float32, 3, 4, 5)
    m = rand(Float32, 3, 4)
    for view_of in (
        x, view(x, :, 2:3, 1:2:5), view(x, 2, :, 3:-1:1), view(x, :, :, 2), view(x, 5:20),
        PermutedDimsArray(x, (2, 3, 1)), view(PermutedDimsArray(x, (3, 1, 2)), 1:2, :, 4),
        PermutedDimsArray(view(x, 1:2, :, :), (2, 3, 1)), transpose(m), m', transpose(m[:, 1]),
        view(transpose(m), 2:3, :), reshape(view(x, :, :, 2:3), 12, 2), reinterpret(Float32, rand(UInt32, 3, 4)),
    )
        @test D.is_strided(view_of)
        @test reads_right(view_of)
    end
    for unfit in (
        view(x, [1, 3], :, :), Elsewhere(x), 1f0:3f0, view(Elsewhere(x), 1:2, :, :),
        reshape(view(x, 1:2, :, :), 8, 5), PermutedDimsArray(view(x, [1, 2], :, :), (2, 1, 3)),
        view(x, Base.IdentityUnitRange(2:3), :, :),
    )
        @test !D.is_strided(unfit)
        error = thrown(() -> D.silu(unfit))
        @test error isa ArgumentError
        @test occursin(string(typeof(unfit)), error.msg)
    end
    t = D.Tensor(x)
    @test (t.shape, t.strides) == ((5, 4, 3), (12, 3, 1))
    @test sizeof(D.LibDGM.dgm_tensor) == 48
    # Views that merge into rows are one call, others one call a slice: same bits either way.
    y = rand(Float32, 6, 4, 5, 3)
    for part in (y, view(y, :, :, :, 1:2), view(y, 2:5, 2:3, :, :), view(y, :, 1:2:4, 3:4, :), view(y, :, :, 2:2, 1))
        @test layer_norm(part) == layer_norm(Array(part))
        target = view(zeros(Float32, 2 .* size(part)), map(n -> 1:2:2n, size(part))...)
        @test layer_norm!(target, part) === target
        @test target == layer_norm(Array(part))
    end
end
