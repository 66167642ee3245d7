//! The engine as a Julia module, for Julia 1.10 and newer, without the C interface.
//!
//! [jlrs](https://docs.rs/jlrs) makes methods of these Rust functions. Their names are those of the
//! Julia package that calls libdgm, and arguments come in the same order; what is a keyword there
//! is a field of a last argument here, a `NamedTuple`, because jlrs exports no keywords.
//!
//! | file | idea |
//! |---|---|
//! | `failure` | engine errors and panics as Julia exceptions |
//! | `array` | Julia arrays as tensors, in reverse order of dimensions |
//! | `options` | the fields of a `NamedTuple` |
//! | `attention`, `kernels` | attention; random numbers |
//! | `plan`, `run`, `dit` | samplers, sampling runs, networks |

mod array;
mod attention;
mod dit;
mod failure;
mod kernels;
mod options;
mod plan;
mod run;

use jlrs::data::managed::array::{TypedArrayRet, TypedVectorRet};
use jlrs::data::managed::string::StringRet;
use jlrs::data::managed::value::ValueRet;
use jlrs::data::managed::value::typed::TypedValueRet;
use jlrs::prelude::*;

use crate::array::{JlArray, JlValue};
use crate::attention::{
    attention, attention_backward_into, attention_backward_into_with, attention_into, attention_into_with,
    attention_with,
};
use crate::dit::{DiT, JlModel, forward, generate};
use crate::failure::Reply;
use crate::kernels::{
    categorical, categorical_with, choose_backend, cpu_info, normal, normal_with, num_threads,
    numerics_version, row_seeds, set_num_threads, uniform, uniform_with,
};
use crate::plan::{JlPlan, Plan};
use crate::run::{Run, import, import_as, start, start_with};

julia_module! {
    become dgm_jlrs_init;

    ///     attention!(out, q, k, v, [options])
    ///
    /// Fused scaled dot-product attention: `q` `(D, Lq, H, B)`, `k` `(D, Lk, Hkv, B)`, `v`
    /// `(Dv, Lk, Hkv, B)`, `out` `(Dv, Lq, H, B)`, all `Array{Float32,4}`. Options: those of the Julia
    /// package, `kv_lengths` a `Vector{Int}`, `alibi_slopes` and `sinks` a `Vector{Float32}`; `lse` is
    /// an `Array{Float32,3}`, `(Lq, H, B)`, to fill.
    fn attention_into(out: JlArray<'_>, q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>) -> Reply<Nothing> as attention!;
    fn attention_into_with(out: JlArray<'_>, q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>, options: JlValue<'_>) -> Reply<Nothing> as attention!;

    ///     attention(q, k, v, [options])
    ///
    /// `attention!` into a new array.
    fn attention(q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>) -> Reply<TypedArrayRet<f32>> as attention;
    fn attention_with(q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>, options: JlValue<'_>) -> Reply<TypedArrayRet<f32>> as attention;

    ///     attention_backward!(dq, dk, dv, q, k, v, out, lse, dout, [options])
    ///
    /// The gradients of `attention`, from its `out` and `lse`. Options: those of `attention!` but `lse`;
    /// `dbias` is an array of the size of `bias` to fill.
    fn attention_backward_into(dq: JlArray<'_>, dk: JlArray<'_>, dv: JlArray<'_>, q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>, out: JlArray<'_>, lse: JlArray<'_>, dout: JlArray<'_>) -> Reply<Nothing> as attention_backward!;
    fn attention_backward_into_with(dq: JlArray<'_>, dk: JlArray<'_>, dv: JlArray<'_>, q: JlArray<'_>, k: JlArray<'_>, v: JlArray<'_>, out: JlArray<'_>, lse: JlArray<'_>, dout: JlArray<'_>, options: JlValue<'_>) -> Reply<Nothing> as attention_backward!;

    ///     row_seeds(seed::UInt64, n::Int)
    ///
    /// The seeds of `n` rows of a batch, from one.
    fn row_seeds(seed: u64, n: isize) -> Reply<TypedVectorRet<u64>> as row_seeds;

    ///     normal!(seeds::Vector{UInt64}, out, [options])
    ///
    /// Fills `out`, `(..., B)`, with standard normal numbers, one seed a row. Options: `purpose`
    /// (a symbol or a number), `draw`.
    fn normal(seeds: JlArray<'_>, out: JlArray<'_>) -> Reply<Nothing> as normal!;
    fn normal_with(seeds: JlArray<'_>, out: JlArray<'_>, options: JlValue<'_>) -> Reply<Nothing> as normal!;

    ///     uniform!(seeds::Vector{UInt64}, out, [options])
    ///
    /// Fills `out`, `(..., B)`, with numbers between 0 and 1, exclusively.
    fn uniform(seeds: JlArray<'_>, out: JlArray<'_>) -> Reply<Nothing> as uniform!;
    fn uniform_with(seeds: JlArray<'_>, out: JlArray<'_>, options: JlValue<'_>) -> Reply<Nothing> as uniform!;

    ///     categorical(seeds::Vector{UInt64}, logits, [options])
    ///
    /// For each column of `logits`, `(V, B)`, an index from 1 to `V` with probabilities `softmax(logits)`.
    fn categorical(seeds: JlArray<'_>, logits: JlArray<'_>) -> Reply<TypedVectorRet<i64>> as categorical;
    fn categorical_with(seeds: JlArray<'_>, logits: JlArray<'_>, options: JlValue<'_>) -> Reply<TypedVectorRet<i64>> as categorical;

    ///     Plan(options)
    ///     Plan(model::DiT, options)
    ///
    /// A sampler, compiled. `options` is a `NamedTuple` with the keywords of the Julia package.
    struct Plan;
    in Plan fn compile(options: JlValue<'_>) -> Reply<TypedValueRet<Plan>> as Plan;
    in Plan fn for_model(model: JlModel<'_>, options: JlValue<'_>) -> Reply<TypedValueRet<Plan>> as Plan;

    ///     describe(plan) -> String
    in Plan fn describe(&self) -> Reply<StringRet> as describe;

    ///     Run
    ///
    /// One sampling run. Its state lies in Rust's memory, which Julia's garbage collector frees but does
    /// not count.
    struct Run;

    ///     start(seeds::Vector{UInt64}, plan, dims::Tuple, [options])
    ///
    /// Starts a run for a batch of `dims`, `(..., B)`. Options, each an `Array{Float32}` of that size: `x`, to
    /// start from; `data`, which is noised to the plan's first level (image to image); `known` and `mask`, for
    /// plans with `inpaint`.
    fn start(seeds: JlArray<'_>, plan: JlPlan<'_>, dims: JlValue<'_>) -> Reply<TypedValueRet<Run>> as start;
    fn start_with(seeds: JlArray<'_>, plan: JlPlan<'_>, dims: JlValue<'_>, options: JlValue<'_>) -> Reply<TypedValueRet<Run>> as start;

    ///     ask(run)
    ///
    /// The next question, or `nothing` when the run is finished: a `NamedTuple` with the fields of the
    /// Julia package's `Request`, where `x` and `times` are copies.
    in Run fn ask(&self) -> Reply<ValueRet> as ask;

    ///     tell!(run, request, y)
    ///
    /// Answers `request` with the output `y` of the model, an `Array{Float32}` of the size of `request.x`; with
    /// a learned variance its last dimension but one holds two outputs.
    in Run fn tell(&mut self, request: JlValue<'_>, y: JlArray<'_>) -> Reply<Nothing> as tell!;

    ///     isdone(run)
    in Run fn is_done(&self) -> Reply<Bool> as isdone;

    ///     result(run)
    ///
    /// A copy of the current sample; the final one when `ask` gives `nothing`.
    in Run fn result(&self) -> Reply<TypedArrayRet<f32>> as result;

    ///     export_run(run) -> Vector{UInt8}
    in Run fn export(&self) -> Reply<TypedVectorRet<u8>> as export_run;

    ///     import_run(plan, bytes::Vector{UInt8}, [dims::Tuple])
    fn import(plan: JlPlan<'_>, bytes: JlArray<'_>) -> Reply<TypedValueRet<Run>> as import_run;
    fn import_as(plan: JlPlan<'_>, bytes: JlArray<'_>, dims: JlValue<'_>) -> Reply<TypedValueRet<Run>> as import_run;

    ///     DiT(path::String)
    ///
    /// A diffusion transformer from a safetensors file.
    struct DiT;
    in DiT fn load(path: JuliaString) -> Reply<TypedValueRet<DiT>> as DiT;

    ///     metadata(model, key::String) -> String
    in DiT fn metadata(&self, key: JuliaString) -> Reply<StringRet> as metadata;

    ///     forward!(out, model, x, t::Vector{Float32}, labels::Vector{Int})
    ///
    /// The output `(W, H, Cout, B)` of the network for images `x` `(W, H, C, B)`.
    fn forward(out: JlArray<'_>, model: JlModel<'_>, x: JlArray<'_>, t: JlArray<'_>, labels: JlArray<'_>) -> Reply<Nothing> as forward!;

    ///     generate(seeds::Vector{UInt64}, model, plan, labels::Vector{Int})
    ///
    /// Images `(W, H, C, B)` of the classes `labels`.
    fn generate(seeds: JlArray<'_>, model: JlModel<'_>, plan: JlPlan<'_>, labels: JlArray<'_>) -> Reply<TypedArrayRet<f32>> as generate;

    ///     num_threads()
    fn num_threads() -> isize as num_threads;

    ///     set_num_threads!(n::Int)
    fn set_num_threads(n: isize) -> Reply<Nothing> as set_num_threads!;

    ///     set_backend!(backend::Symbol)
    ///
    /// `:native`, or `:blas` for the BLAS of the machine in linear layers.
    fn choose_backend(backend: Symbol) -> Reply<Nothing> as set_backend!;

    ///     cpu_info() -> String
    fn cpu_info() -> Reply<StringRet> as cpu_info;

    ///     numerics_version()
    fn numerics_version() -> isize as numerics_version;
}
