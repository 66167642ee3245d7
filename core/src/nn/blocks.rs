//! The middle of rows in blocks, by loops that are compiled for the types of the operands: asked about with every
//! vector, the types cost as much as the arithmetic of a norm.
//!
//! Every loop is code for every operation and instruction set, so there are those that networks ask for, of operations
//! whose arithmetic does not hide the question.

use std::any::TypeId;

use super::lanes::{Lanes, Operand, Target, ask};
use crate::arch::Simd;
use crate::tensor::{Row, RowMut};

/// Elements of a block: at least two vectors.
pub(super) const BLOCK: usize = 32;

/// A type that rows have.
pub(super) trait Type: 'static {
    /// How an element lies in memory.
    type Word: Copy;
    /// The words of a row of this type.
    fn words<'a>(row: &Row<'a>) -> Option<&'a [Self::Word]>;
    /// The first two vectors of `x`; panics when there are fewer elements.
    fn two<S: Simd>(s: S, x: &[Self::Word]) -> [S::F; 2];
    /// Writes the first two vectors of `to`, past the caches or to them; panics when there are fewer elements.
    fn put_two<S: Simd>(s: S, v: [S::F; 2], to: &mut [Self::Word], past: bool);
    /// What [`two`](Type::two) reads, in the order that takes least: of bfloat16 those at even places and those at odd
    /// ones.
    #[inline(always)]
    fn both<S: Simd>(s: S, x: &[Self::Word]) -> [S::F; 2] {
        Self::two(s, x)
    }
    /// Writes what [`both`](Type::both) reads, as [`put_two`](Type::put_two) does.
    #[inline(always)]
    fn put_both<S: Simd>(s: S, v: [S::F; 2], to: &mut [Self::Word], past: bool) {
        Self::put_two(s, v, to, past);
    }
    /// Writes what [`both`](Type::both) reads, as it is.
    #[inline(always)]
    fn store_both<S: Simd>(s: S, v: [S::F; 2], to: &mut [f32]) {
        F32::put_two(s, v, to, false);
    }
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl Type for F32 {
    type Word = f32;
    #[inline(always)]
    fn words<'a>(row: &Row<'a>) -> Option<&'a [f32]> {
        match row {
            Row::F32(x) => Some(x),
            _ => None,
        }
    }
    #[inline(always)]
    fn two<S: Simd>(s: S, x: &[f32]) -> [S::F; 2] {
        let x = &x[..2 * S::LANES];
        [s.load(x), s.load(&x[S::LANES..])]
    }
    #[inline(always)]
    fn put_two<S: Simd>(s: S, v: [S::F; 2], to: &mut [f32], past: bool) {
        let to = &mut to[..2 * S::LANES];
        if past {
            s.stream(v[0], to);
            s.stream(v[1], &mut to[S::LANES..]);
        } else {
            s.store(v[0], to);
            s.store(v[1], &mut to[S::LANES..]);
        }
    }
}

/// Two vectors to 16 bits each.
#[inline(always)]
fn put_pairs<S: Simd>(s: S, pairs: S::I, to: &mut [u16], past: bool) {
    let to = &mut to[..2 * S::LANES];
    if past { s.stream_pairs(pairs, to) } else { s.store_pairs(pairs, to) }
}

/// Both types of 16 bits.
macro_rules! halves {
    ($($T:ident: $load:ident, $pack:ident {$($more:tt)*})*) => {$(
        impl Type for $T {
            type Word = u16;
            #[inline(always)]
            fn words<'a>(row: &Row<'a>) -> Option<&'a [u16]> {
                match row {
                    Row::$T(x) => Some(x),
                    _ => None,
                }
            }
            #[inline(always)]
            fn two<S: Simd>(s: S, x: &[u16]) -> [S::F; 2] {
                let x = &x[..2 * S::LANES];
                [s.$load(x), s.$load(&x[S::LANES..])]
            }
            #[inline(always)]
            fn put_two<S: Simd>(s: S, v: [S::F; 2], to: &mut [u16], past: bool) {
                put_pairs(s, s.$pack(v), to, past);
            }
            $($more)*
        }
    )*};
}

halves! {
    F16: load_f16, pack_f16 {}
    Bf16: load_bf16, pack_bf16 {
        #[inline(always)]
        fn both<S: Simd>(s: S, x: &[u16]) -> [S::F; 2] {
            let pairs = s.load_pairs(x);
            [s.lower_bf16(pairs), s.upper_bf16(pairs)]
        }
        #[inline(always)]
        fn put_both<S: Simd>(s: S, [even, odd]: [S::F; 2], to: &mut [u16], past: bool) {
            put_pairs(s, s.pair_bf16_exactly(even, odd), to, past);
        }
        #[inline(always)]
        fn store_both<S: Simd>(s: S, v: [S::F; 2], to: &mut [f32]) {
            s.store_twos(v, to);
        }
    }
}

/// Elements that lie side by side.
const ROW: u32 = 0;
/// One number at every place.
const SAME: u32 = 1;

/// What three operands are, a bit each.
const fn kinds(first: u32, second: u32, third: u32) -> u32 {
    first | second << 1 | third << 2
}

const ROWS: u32 = kinds(ROW, ROW, ROW);
const WITHOUT_THIRD: u32 = kinds(ROW, ROW, SAME);
const FIRST_ALONE: u32 = kinds(ROW, SAME, SAME);

/// Operands whose first row is of `X`, and the others of `P`.
struct Sources<'a, S: Simd, X: Type, P: Type, const N: usize> {
    first: &'a [[X::Word; BLOCK]],
    /// The first of them is not looked at.
    rest: [&'a [[P::Word; BLOCK]]; N],
    same: [S::F; N],
    kinds: u32,
}

impl<'a, S: Simd, X: Type, P: Type, const N: usize> Sources<'a, S, X, P, N> {
    /// `count` blocks from `at` on; `None` where a row is of another type, or an operand what the output holds.
    #[inline(always)]
    fn new(s: S, from: &[Operand<'a>; N], at: usize, count: usize) -> Option<Self> {
        let mut all = Sources { first: &[], rest: [&[]; N], same: [s.splat(0.0); N], kinds: 0 };
        for i in 0..N {
            let kind = match &from[i] {
                Operand::Row(row) if i == 0 => {
                    all.first = &X::words(row)?[at..].as_chunks().0[..count];
                    ROW
                }
                Operand::Row(row) => {
                    all.rest[i] = &P::words(row)?[at..].as_chunks().0[..count];
                    ROW
                }
                Operand::Same(x) => {
                    all.same[i] = s.splat(*x);
                    SAME
                }
                Operand::Held => return None,
            };
            all.kinds |= kind << i;
        }
        Some(all)
    }

    /// Every block of `out`, of operands that are `KINDS`.
    #[inline(always)]
    fn fill<Y: Type, const KINDS: u32>(
        self,
        s: S,
        op: impl Lanes<N>,
        out: &mut [[Y::Word; BLOCK]],
        past: bool,
        next: Option<Row>,
    ) {
        // The order of numbers does not matter where it is that of all.
        let one_type = is_same::<X, Y>() && is_same::<X, P>();
        for (block, out) in out.iter_mut().enumerate() {
            if let Some(next) = next {
                ask(s, next.slice(block * BLOCK, BLOCK));
            }
            for at in (0..BLOCK).step_by(2 * S::LANES) {
                let mut x = [[s.splat(0.0); 2]; N];
                for i in 0..N {
                    x[i] = match KINDS >> i & 1 {
                        ROW if i == 0 => read::<S, X>(s, &self.first[block][at..], one_type),
                        ROW => read::<S, P>(s, &self.rest[i][block][at..], one_type),
                        _ => [self.same[i]; 2],
                    };
                }
                let (y, out) = (op.eval(s, x), &mut out[at..]);
                if one_type { Y::put_both(s, y, out, past) } else { Y::put_two(s, y, out, past) }
            }
        }
    }
}

/// [`Type::both`] or [`Type::two`].
#[inline(always)]
fn read<S: Simd, T: Type>(s: S, x: &[T::Word], both: bool) -> [S::F; 2] {
    if both { T::both(s, x) } else { T::two(s, x) }
}

/// Known when a loop is compiled.
#[inline(always)]
fn is_same<X: Type, Y: Type>() -> bool {
    TypeId::of::<X>() == TypeId::of::<Y>()
}

/// What an element costs where these loops pay.
const CHEAP: u64 = 8;

/// [`fill_blocks`] for a first row of `X`, others of `P` and outputs of `Y`.
#[inline(always)]
fn fill_typed<S: Simd, X: Type, P: Type, Y: Type, const N: usize>(
    s: S,
    op: impl Lanes<N>,
    from: &[Operand; N],
    (out, at): (&mut [Y::Word], usize),
    past: bool,
    next: Option<Row>,
) -> Option<usize> {
    let out = out[at..].as_chunks_mut().0;
    let filled = out.len() * BLOCK;
    let x = Sources::<S, X, P, N>::new(s, from, at, out.len())?;
    let next = next.map(|next| next.slice(at, filled));
    match x.kinds {
        ROWS => x.fill::<Y, ROWS>(s, op, out, past, next),
        WITHOUT_THIRD if N == 3 && is_same::<X, Y>() => x.fill::<Y, WITHOUT_THIRD>(s, op, out, past, next),
        FIRST_ALONE if N == 3 && is_same::<X, Y>() && is_same::<X, P>() => {
            x.fill::<Y, FIRST_ALONE>(s, op, out, past, next)
        }
        _ => return None,
    }
    Some(filled)
}

/// Whole blocks from `at` on as `op` gives them, where there is a loop for these operands; returns how many elements
/// that is. Of `next` the same places are asked for on the way.
#[inline(always)]
pub(super) fn fill_blocks<S: Simd, O: Lanes<N>, const N: usize>(
    s: S,
    op: O,
    from: &[Operand; N],
    (out, at): (&mut Target, usize),
    next: Option<Row>,
) -> usize {
    if O::COST > CHEAP {
        return 0;
    }
    let past = out.past;
    // Parameters are often f32 whatever the rest is.
    if N == 3
        && let (Operand::Row(Row::Bf16(_)), Operand::Row(Row::F32(_))) = (from[0], from[1])
    {
        let RowMut::Bf16(out) = &mut out.row else { return 0 };
        return fill_typed::<S, Bf16, F32, Bf16, N>(s, op, from, (out, at), past, next).unwrap_or(0);
    }
    macro_rules! types {
        ($($X:ident to $Y:ident;)*) => {
            match (from[0], &mut out.row) {
                $((Operand::Row(Row::$X(_)), RowMut::$Y(out)) =>
                    fill_typed::<S, $X, $X, $Y, N>(s, op, from, (out, at), past, next),)*
                _ => None,
            }
        };
    }
    let filled = types! {
        F32 to F32;
        F16 to F16;
        Bf16 to Bf16;
        F32 to F16;
        F32 to Bf16;
    };
    filled.unwrap_or(0)
}
