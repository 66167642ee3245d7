# A reader of its own, so that a mistake in the writer is not repeated here.

"CRC-32 bit by bit."
function slow_crc(data)
    c = 0xffffffff
    for byte in data, bit in 0:7
        carry = isodd(c ⊻ (byte >> bit))
        c >>= 1
        carry && (c ⊻= 0xedb88320)
    end
    return ~c
end

"Width, height, colour type and pixels `(C, width, height)` of a PNG file of stored blocks."
function read_png(file)
    number(at) = foldl((n, byte) -> 256n + byte, file[at:at+3]; init = 0)
    @assert file[1:8] == [0x89; codeunits("PNG\r\n\x1a\n")]
    at, chunks = 9, Dict{String,Vector{UInt8}}()
    while at < length(file)
        size = number(at)
        @assert number(at + 8 + size) == slow_crc(file[at+4:at+7+size])
        chunks[String(file[at+4:at+7])] = file[at+8:at+7+size]
        at += 12 + size
    end
    @assert at == length(file) + 1 && isempty(chunks["IEND"])
    head = chunks["IHDR"]
    width, height = foldl((n, b) -> 256n + b, head[1:4]; init = 0), foldl((n, b) -> 256n + b, head[5:8]; init = 0)
    @assert head[9] == 8 && head[11:13] == [0, 0, 0]
    data = chunks["IDAT"]
    @assert (256 * data[1] + data[2]) % 31 == 0 && data[1] & 15 == 8
    at, final, raw = 3, false, UInt8[]
    while !final
        final = data[at] == 1
        size = data[at+1] + 256 * data[at+2]
        @assert data[at+3] + 256 * data[at+4] == 65535 - size
        append!(raw, data[at+5:at+4+size])
        at += 5 + size
    end
    a, b = 1 + sum(Int, raw), length(raw) + sum((length(raw) - i + 1) * Int(raw[i]) for i in eachindex(raw))
    @assert data[at:end] == reinterpret(UInt8, [hton(UInt32((b % 65521) << 16 + a % 65521))])
    channels = head[10] == 2 ? 3 : 1
    rows = reshape(raw, channels * width + 1, height)
    @assert all(==(0), rows[1, :])
    return reshape(rows[2:end, :], channels, width, height)
end

png(grid) = read_png(repr(MIME"image/png"(), grid))

@testset "grid of images" begin
    x = zeros(Float32, 2, 3, 1, 3)
    x[:, :, 1, 1] = [-1 0 1; -2 2 NaN]
    x[:, :, 1, 3] .= 1
    image = png(D.Grid(x; columns = 2, zoom = 1))
    @test size(image) == (1, 5, 7)
    @test image[1, 1:2, 1:3] == [0x00 0x80 0xff; 0x00 0xff 0x00]
    @test all(==(0x80), image[1, 4:5, 1:3]) && all(==(0xff), image[1, 1:2, 5:7])
    @test all(==(0), image[1, 3, :]) && all(==(0), image[1, :, 4]) && all(==(0), image[1, 4:5, 5:7])
    @test png(D.Grid(x; columns = 2, zoom = 3)) == repeat(image; inner = (1, 3, 3))
    @test size(png(D.Grid(x)), 2) >= 256
    @test size(png(D.Grid(x; columns = 9, gap = 0, zoom = 1))) == (1, 6, 3)
    # Three channels, more than one stored block, other limits, other element types and views.
    colours = rand(UInt8, 150, 150, 3, 2)
    image = png(D.Grid(view(colours, :, :, :, 2:2); low = 0, high = 255, zoom = 1))
    @test image == permutedims(colours[:, :, :, 2], (3, 1, 2))
    @test repr(D.Grid(x; columns = 2, zoom = 1)) == "Grid(3 images in rows of 2, 5×7 pixels)"
    @test showable(MIME"image/png"(), D.Grid(x))

    @test_throws DimensionMismatch D.Grid(zeros(Float32, 2, 2, 4, 1))
    @test_throws DimensionMismatch D.Grid(zeros(Float32, 2, 2, 1))
    @test_throws DimensionMismatch D.Grid(zeros(Float32, 2, 2, 1, 0))
    @test_throws ArgumentError D.Grid(fill("a", 2, 2, 1, 1))
    @test_throws ArgumentError D.Grid(x; columns = 0)
    @test_throws ArgumentError D.Grid(x; low = 1, high = 1)
    @test_throws ArgumentError D.Grid(x; high = Inf)
    @test_throws ArgumentError D.Grid(x; gap = -1)
    @test_throws ArgumentError D.Grid(x; zoom = 0)
end
