//! [`Plain`] with a function for every operation, so that kernels at this level are calls. With eight times the code of
//! an operation wherever it stands they were a third of the library and of the time it takes to compile. What runs here
//! spends its time in the calls of `mul_add`; docs/PERFORMANCE.md has what it loses.

use super::portable::Plain;
use super::simd::Simd;

/// The level that needs no instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type F = <Plain as Simd>::F;
type I = <Plain as Simd>::I;
type M = <Plain as Simd>::M;

macro_rules! forward {
    ($how:ident: $(fn $name:ident$(<const $K:ident>)?($($arg:ident: $T:ty),*)$( -> $R:ty)?;)+) => {$(
        #[inline($how)]
        fn $name$(<const $K: i32>)?(self, $($arg: $T),*)$( -> $R)? {
            Plain.$name$(::<$K>)?($($arg),*)
        }
    )+};
}

impl Simd for Portable {
    const LANES: usize = Plain::LANES;
    type F = F;
    type I = I;
    type M = M;

    // Less than a call.
    forward! { always:
        fn splat(x: f32) -> F;
        fn isplat(x: i32) -> I;
        fn to_bits(a: F) -> I;
        fn bits_to_f32(a: I) -> F;
    }

    forward! { never:
        fn load(s: &[f32]) -> F;
        fn store(v: F, s: &mut [f32]);
        fn add(a: F, b: F) -> F;
        fn sub(a: F, b: F) -> F;
        fn mul(a: F, b: F) -> F;
        fn div(a: F, b: F) -> F;
        fn fma(a: F, b: F, c: F) -> F;
        fn sqrt(a: F) -> F;
        fn max(a: F, b: F) -> F;
        fn min(a: F, b: F) -> F;
        fn round(a: F) -> F;
        fn abs(a: F) -> F;
        fn neg(a: F) -> F;
        fn lt(a: F, b: F) -> M;
        fn eq(a: F, b: F) -> M;
        fn select(m: M, a: F, b: F) -> F;
        fn any(m: M) -> bool;
        fn all(m: M) -> bool;

        fn iload(s: &[i32]) -> I;
        fn iadd(a: I, b: I) -> I;
        fn isub(a: I, b: I) -> I;
        fn iand(a: I, b: I) -> I;
        fn ior(a: I, b: I) -> I;
        fn ixor(a: I, b: I) -> I;
        fn ishl<const K>(a: I) -> I;
        fn ishr<const K>(a: I) -> I;
        fn isar<const K>(a: I) -> I;
        fn ieq(a: I, b: I) -> M;
        fn mulhilo(a: I, b: I) -> (I, I);
        fn to_f32(a: I) -> F;
        fn to_i32(a: F) -> I;

        fn scale(x: F, n: F) -> F;
        fn add_exponent(x: F, n: F) -> F;
        fn power_of_two(k: I) -> F;

        fn load_partial(s: &[f32], fill: f32) -> F;
        fn store_partial(v: F, s: &mut [f32]);
        fn load_twos(s: &[f32]) -> [F; 2];
        fn store_twos(v: [F; 2], s: &mut [f32]);
        fn store_quads(v: [F; 4], s: &mut [f32]);
        fn zip(v: [F; 2]) -> [F; 2];
        fn unzip(v: [F; 2]) -> [F; 2];
        fn transpose(rows: [F; 16]) -> [F; 16];
        fn columns(rows: [F; 8]) -> [F; 8];
        fn columns_of_twos(rows: [F; 8]) -> [F; 8];

        fn load_u16(s: &[u16]) -> I;
        fn load_u8(s: &[u8]) -> I;
        fn load_i8(s: &[i8]) -> F;
        fn load_i8_partial(s: &[i8]) -> F;
        fn load_quads(s: &[i8]) -> I;
        fn load_quads_partial(s: &[i8]) -> I;
        fn load_pairs(s: &[u16]) -> I;
        fn load_pairs_partial(s: &[u16]) -> I;
        fn store_pairs(v: I, s: &mut [u16]);
        fn interleave(s: &[u16], t: &[u16]) -> I;

        fn load_bf16(s: &[u16]) -> F;
        fn load_bf16_partial(s: &[u16]) -> F;
        fn store_bf16(v: F, s: &mut [u16]);
        fn store_bf16_partial(v: F, s: &mut [u16]);
        fn pack_bf16(v: [F; 2]) -> I;
        fn dot_bf16(acc: F, a: I, b: I) -> F;
        fn upper_bf16(pairs: I) -> F;
        fn lower_bf16(pairs: I) -> F;
        fn round_bf16(x: F) -> I;
        fn pair_bf16(lower: F, upper: F) -> I;
        fn pair_bf16_exactly(lower: F, upper: F) -> I;
        fn round_bf16_exactly(x: F) -> I;

        fn load_f16(s: &[u16]) -> F;
        fn load_f16_partial(s: &[u16]) -> F;
        fn store_f16(v: F, s: &mut [u16]);
        fn store_f16_partial(v: F, s: &mut [u16]);
        fn pack_f16(v: [F; 2]) -> I;
    }
}
