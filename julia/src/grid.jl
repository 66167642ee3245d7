"""
    DGMKernels.Grid(x; columns = ceil(Int, √B), low = -1, high = 1, gap = 1, zoom = nothing)

The images `x`, `(W, H, C, B)` with `C` 1 (grey) or 3 (red, green, blue), side by side in rows of
`columns`, as one picture that notebooks and editors show: `show(io, MIME"image/png"(), grid)`.

Values from `low` to `high` become black to white, what lies outside is clipped and NaN is black.
`gap` black pixels stand between images. Every pixel is enlarged to `zoom` times `zoom`, without a
number so that the picture is at least 256 wide. The pixels are copied when the grid is made.

# Examples
```julia
grid = DGMKernels.Grid(DGMKernels.generate(7, model; labels = 0:9); columns = 5)
open(io -> show(io, MIME"image/png"(), grid), "digits.png", "w")
```
"""
struct Grid
    pixels::Array{UInt8,3}                      # (C, width, height)
    images::Int
    columns::Int
    function Grid(x::AbstractArray; columns::Union{Integer,Nothing} = nothing, low::Real = -1, high::Real = 1,
                  gap::Integer = 1, zoom::Union{Integer,Nothing} = nothing)
        eltype(x) <: Real || throw(ArgumentError("x has element type $(eltype(x)), expected real numbers"))
        ndims(x) == 4 && size(x, 3) in (1, 3) && all(>(0), size(x)) ||
            wrong_size("x", x, "(W, H, C, B), C 1 or 3, all above 0")
        Base.require_one_based_indexing(x)
        w, h, c, b = size(x)
        columns = something(columns, ceil(Int, sqrt(b)))
        columns > 0 || throw(ArgumentError("columns is $columns, expected 1 or more"))
        isfinite(low) && isfinite(high) && low < high ||
            throw(ArgumentError("low is $low and high is $high, expected finite numbers, low below high"))
        gap >= 0 || throw(ArgumentError("gap is $gap, expected 0 or more"))
        zoom === nothing || zoom > 0 || throw(ArgumentError("zoom is $zoom, expected 1 or more"))
        columns = min(Int(columns), b)
        width, height = columns * (w + gap) - gap, cld(b, columns) * (h + gap) - gap
        z = something(zoom, cld(256, width))
        pixels = zeros(UInt8, c, z * width, z * height)
        for (n, image) in enumerate(CartesianIndices((1:columns, 1:cld(b, columns))))
            n <= b || break
            left, top = (image[1] - 1) * (w + gap), (image[2] - 1) * (h + gap)
            for j in 0:z*h-1, i in 0:z*w-1, k in 1:c
                pixels[k, z*left+i+1, z*top+j+1] = grey(x[i÷z+1, j÷z+1, k, n], low, high)
            end
        end
        return new(pixels, b, columns)
    end
end

grey(value, low, high) = isnan(value) ? 0x00 : round(UInt8, 255 * clamp((value - low) / (high - low), 0, 1))

Base.show(io::IO, g::Grid) =
    print(io, "Grid(", g.images, " images in rows of ", g.columns, ", ", size(g.pixels, 2), "×", size(g.pixels, 3), " pixels)")

# A PNG file (ISO/IEC 15948) without compression: each row of pixels behind a filter type of 0, in
# the stored blocks of RFC 1951 inside the zlib format of RFC 1950.
function Base.show(io::IO, ::MIME"image/png", g::Grid)
    channels, width, height = size(g.pixels)
    rows = vcat(zeros(UInt8, 1, height), reshape(g.pixels, channels * width, height))
    write(io, UInt8[0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
    kind = channels == 1 ? 0x00 : 0x02
    chunk(io, "IHDR", vcat(bytes(UInt32(width)), bytes(UInt32(height)), UInt8[8, kind, 0, 0, 0]))
    chunk(io, "IDAT", stored(vec(rows)))
    chunk(io, "IEND", UInt8[])
    return nothing
end

bytes(n::UInt32) = reinterpret(UInt8, [hton(n)])

function chunk(io, name, data)
    body = vcat(codeunits(name), data)
    write(io, bytes(UInt32(length(data))), body, bytes(crc32(body)))
end

const CRC = map(0x00000000:0x000000ff) do n
    foldl((c, _) -> isodd(c) ? 0xedb88320 ⊻ (c >> 1) : c >> 1, 1:8; init = n)
end

crc32(data) = ~foldl((c, b) -> CRC[(c⊻b)&0xff+1] ⊻ (c >> 8), data; init = 0xffffffff)

function stored(data)
    out = UInt8[0x78, 0x01]
    a, b = UInt32(1), UInt32(0)
    for byte in data
        a = (a + byte) % 0x0000fff1
        b = (b + a) % 0x0000fff1
    end
    for start in 1:65535:length(data)
        block = @view data[start:min(start + 65534, end)]
        n = UInt16(length(block))
        push!(out, start + n > length(data) ? 0x01 : 0x00)        # the last block
        append!(out, UInt8[n & 0xff, n >> 8, ~n & 0xff, ~n >> 8])
        append!(out, block)
    end
    return append!(out, bytes((b << 16) | a))
end
