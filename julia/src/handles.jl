# Owners of the engine's immutable objects. A finalizer only frees: it may run on any thread, in the
# middle of a garbage collection, where nothing else is allowed.

for (Owner, object, free) in (
    (:LinearHandle, :dgm_linear, :dgm_linear_free),
    (:PlanHandle, :dgm_plan, :dgm_plan_free),
    (:MixtureHandle, :dgm_mixture, :dgm_mixture_free),
    (:RbmHandle, :dgm_rbm, :dgm_rbm_free),
    (:ModelHandle, :dgm_model, :dgm_model_free),
    (:LlamaHandle, :dgm_llama, :dgm_llama_free),
    (:SD3Handle, :dgm_sd3, :dgm_sd3_free),
    (:FluxHandle, :dgm_flux, :dgm_flux_free),
)
    @eval begin
        mutable struct $Owner
            pointer::Ptr{LibDGM.$object}
            "Takes what `make(out)` writes to `out` on success."
            function $Owner(make::Function)
                out = Ref{Ptr{LibDGM.$object}}(C_NULL)
                check(make(out))
                return finalizer(h -> (LibDGM.$free(h.pointer); nothing), new(out[]))
            end
        end
        Base.unsafe_convert(::Type{Ptr{LibDGM.$object}}, h::$Owner) = h.pointer
    end
end
