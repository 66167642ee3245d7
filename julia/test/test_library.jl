# What happens without the library, in processes of their own.

"What a new Julia process prints for `code`, with some environment variables changed."
function child(code, changes...; project = PROJECT)
    command = addenv_(`$(Base.julia_cmd()) --project=$project --startup-file=no -e $code`, changes...)
    return read(pipeline(ignorestatus(command); stderr = stdout), String)
end
addenv_(command, changes...) = setenv(command, merge(Dict{String,String}(ENV), Dict(changes...)))

const REPORT = """
    try
        println("is ", DGMKernels.numerics_version())
    catch e
        showerror(stdout, e)
    end
"""

@testset "library" begin
    @test isfile(D.library())
    @test D.numerics_version() >= 1 && occursin("isa=", D.cpu_info())
    @test Set(D.LibDGM.SYMBOLS) == Set(s for s in names(D.LibDGM; all = true)
                                       if startswith(string(s), "dgm_") && getfield(D.LibDGM, s) isa Function)
    @test all(i -> D.Library.address(i) != C_NULL, 1:length(D.LibDGM.SYMBOLS))

    # A place that the user named and that is wrong is an error, with nothing else tried.
    text = child("using DGMKernels; " * REPORT, "DGM_LIBRARY" => "/nowhere/libdgm.so")
    @test occursin("LibraryNotFound", text) && occursin("/nowhere/libdgm.so", text)
    @test occursin("cargo build --release", text) && !occursin("system loader", text)
    mktempdir() do folder
        broken = joinpath(folder, first(D.Library.FILE_NAMES))
        write(broken, "not a library")
        @test occursin("cannot be loaded", child("using DGMKernels; " * REPORT, "DGM_LIBRARY" => broken))
        # A failure is not remembered: the same session works once the library is there.
        code = """
            using DGMKernels
            ENV["DGM_LIBRARY"] = "/nowhere"
            $REPORT
            ENV["DGM_LIBRARY"] = $(repr(D.library()))
            $REPORT
        """
        text = child(code)
        @test occursin("LibraryNotFound", text) && endswith(strip(text), "is $(D.numerics_version())")

        # A package that depends on this one compiles without the library, and works when it is there.
        user = joinpath(folder, "User")
        mkpath(joinpath(user, "src"))
        write(joinpath(user, "Project.toml"), """
            name = "User"
            uuid = "0c9b1f0e-6a50-4c39-8a8e-2f1ab1d6a001"
            [deps]
            DGMKernels = "$(D.Library.UUID)"
        """)
        write(joinpath(user, "src", "User.jl"), "module User\nusing DGMKernels\nf(x) = rms_norm(x)\nend\n")
        write(joinpath(user, "Manifest.toml"), """
            [[DGMKernels]]
            deps = ["Libdl", "LinearAlgebra", "Random"]
            path = $(repr(PROJECT))
            uuid = "$(D.Library.UUID)"
            version = "0.1.0"
            [[Libdl]]
            uuid = "8f399da3-3557-5675-b5ff-fb832c97cbdb"
            [[LinearAlgebra]]
            deps = ["Libdl"]
            uuid = "37e2e46d-f89d-539d-b4ee-838fcccc9c8e"
            [[Random]]
            uuid = "9a3f8284-a2c9-5f02-9a11-845980a1fd5c"
        """)
        depot = "JULIA_DEPOT_PATH" => joinpath(folder, "depot")
        code = "using User; try; println(sum(abs2, User.f(ones(Float32, 4, 2)))); catch e; println(typeof(e)); end"
        @test occursin("LibraryNotFound", child(code, depot, "DGM_LIBRARY" => "/nowhere"; project = user))
        @test isapprox(parse(Float64, strip(child(code, depot, "DGM_LIBRARY" => D.library(); project = user))), 8; atol = 1e-3)

        # An artifact is found by the hash in Artifacts.toml.
        hash = "0123456789abcdef0123456789abcdef01234567"
        toml = joinpath(folder, "Artifacts.toml")
        write(toml, "[[dgm]]\ngit-tree-sha1 = \"$hash\"\nos = \"linux\"\n")
        @test isempty(D.Library.artifacts(toml, [folder]))
        mkpath(joinpath(folder, "artifacts", hash))
        @test joinpath(folder, "artifacts", hash, "lib", first(D.Library.FILE_NAMES)) in D.Library.artifacts(toml, [folder])
    end
    wrong = D.Library.open_library(D.library(), 9999)
    @test wrong isa String && occursin("9999", wrong)
end

# The Makefile builds a libdgm with an entry that panics; without it there is nothing to run.
const PANICS = get(ENV, "DGM_TEST_PANIC", "")

isempty(PANICS) || @testset "a panic stays behind the fence" begin
    code = """
        using DGMKernels, Libdl
        panic = dlsym(dlopen(DGMKernels.library()), :dgm_test_panic)
        Threads.@threads for kind in 0:5
            status = ccall(panic, Int32, (Int32,), kind)
            text = try
                DGMKernels.check(status)
                "nothing"
            catch e
                sprint(showerror, e)
            end
            print(string("caught ", text, '\\n'))
        end
        println("alive ", sum(abs2, rms_norm(ones(Float32, 4, 2))) > 7.9)
    """
    text = child(code, "DGM_LIBRARY" => joinpath(PANICS, first(D.Library.FILE_NAMES)), "JULIA_NUM_THREADS" => "2",
                 "RUST_BACKTRACE" => "0")
    for message in ("on purpose", "index out of bounds", "an element", "panic", "the thread to return", "divide by zero")
        @test occursin(Regex("caught DGMError: internal error: .*$message.* \\(code -900\\)"), text)
    end
    @test occursin("alive true", text)
    # The real library has no such entry.
    @test dlsym(dlopen(D.library()), :dgm_test_panic; throw_error = false) === nothing
end

@testset "quality" begin
    @test isempty(detect_ambiguities(DGMKernels, Base))
    @test all(s -> isdefined(DGMKernels, s), names(DGMKernels))
    # Every exported name, and every one that the module's own text mentions, is documented.
    documented = keys(Base.Docs.meta(DGMKernels))
    @test all(names(DGMKernels)) do name
        any(b -> b.var === name, documented) || name === :LibraryNotFound ||
            (endswith(string(name), "!") && any(b -> string(b.var, "!") == string(name), documented))
    end
    @test sizeof(D.LibDGM.dgm_request) == 112
    @test !any(f -> occursin("@cfunction", read(f, String)), readdir(joinpath(PROJECT, "src"); join = true))
    @test thrown(() -> D.check(Int32(-900))) isa DGMError
    @test D.set_backend!(:native) === :native && occursin("backend=native", D.cpu_info())
    @test occursin("cuda", sprint(showerror, thrown(() -> D.set_backend!(:cuda))))
    @test occursin("-900", sprint(showerror, DGMError(-900, "text")))
end
