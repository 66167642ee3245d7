# The names that julia/jlrs exports, read from its source: building it needs a newer Julia.

@testset "names of julia/jlrs" begin
    folder = joinpath(PROJECT, "jlrs")
    source = last(split(read(joinpath(folder, "src", "lib.rs"), String), "julia_module! {"))
    exported = Set{Symbol}()
    for line in filter(l -> !startswith(l, "//"), strip.(split(source, '\n')))
        m = match(r"^(?:in \w+ )?fn .* as ([\w!]+);$|^struct (\w+);$", line)
        m === nothing || push!(exported, Symbol(something(m[1], m[2])))
        # Nothing is exported in a way that this test does not see.
        @test m !== nothing || line in ("", "become dgm_jlrs_init;", "}")
    end
    wanted = (:attention, :attention!, :Plan, :start, :ask, :tell!, :normal!, :DiT, :forward!)
    @test all(name -> name in exported, wanted)

    here = setdiff(Set([names(DGMKernels); collect(D.PUBLIC)]), [:DGMKernels])
    readme = read(joinpath(folder, "README.md"), String)
    section = match(r"## Only in the package\n(.*?)(?=\n## |\z)"s, readme)[1]
    missing_there = Set(Symbol(m[1]) for m in eachmatch(r"`([\w!]+)`", section))
    @test isempty(intersect(exported, missing_there))
    @test setdiff(here, exported) == missing_there
    @test exported == setdiff(here, missing_there)
end
