"Automatic differentiation of `attention`, for every package that knows ChainRulesCore. Julia 1.9 and newer."
module DGMKernelsChainRulesCoreExt

using ChainRulesCore: ChainRulesCore, NoTangent, ZeroTangent, unthunk
using DGMKernels: DGMKernels, attention

function ChainRulesCore.rrule(::typeof(attention), q, k, v; lse::Bool = false, options...)
    lse && throw(ArgumentError("lse is true, expected false in a function that is differentiated"))
    out, pullback = DGMKernels.attention_pullback(q, k, v; options...)
    function attention_pullback(tangent)
        dout = unthunk(tangent)
        dout isa Union{NoTangent,ZeroTangent} && return (NoTangent(), dout, dout, dout)
        return (NoTangent(), pullback(dout)...)
    end
    return out, attention_pullback
end

end
