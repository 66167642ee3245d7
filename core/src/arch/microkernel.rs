//! The one matrix product of the engine: a block of rows times a block of lanes.
//!
//! `acc[r][lane] = sum over k of a[r][k] * b[k][lane]`, one FMA chain from zero (or from where
//! a former product ended) in rising k for each element, so block shapes and vector widths never change a bit. Elements of `a`
//! are broadcast from memory of any strides; `b` is packed with its lanes side by side.
//! With bfloat16 an element is a pair, and a step of the chain is [`Simd::dot_bf16`], or there are two steps with a
//! multiply-add each. A product [`InParts`] is the sum of several chains: shorter, they are rounded less.

use std::hint::black_box;
use std::ops::Range;

use super::matrix::{Matrix, Pairs};
use super::simd::Simd;

/// How an element of the broadcast operand is multiplied with the packed one.
pub(crate) trait Steps<S: Simd> {
    /// Steps of the chain an element has.
    const STEPS: usize = 1;
    /// What pointers and strides count in.
    type Element;
    /// A vector of elements, as one step of the chain takes it.
    type Lanes: Copy;

    /// The element at `at` in all lanes, for a step.
    ///
    /// # Safety
    /// `at` is an element of a matrix.
    unsafe fn broadcast(s: S, at: *const Self::Element, step: usize) -> Self::Lanes;
    /// The packed operand, for a step.
    fn load(s: S, b: &[f32], step: usize) -> Self::Lanes;
    /// One step of the chain.
    fn step(s: S, x: Self::Lanes, b: Self::Lanes, acc: S::F) -> S::F;
}

/// What pointers to elements of `A` point to.
type Element<S, A> = <<A as Left<S>>::By as Steps<S>>::Element;

/// The broadcast operand of a product.
pub(crate) trait Left<S: Simd>: Copy {
    /// Whether the product is the sum of several chains. Known where it is compiled, so that one chain is one loop.
    const IN_PARTS: bool = false;
    /// Whether memory is asked for on the way.
    const ASKS: bool = false;
    /// How it is multiplied.
    type By: Steps<S>;

    /// First element, rows, depth, strides of rows and of depth.
    fn parts(&self) -> (*const Element<S, Self>, usize, usize, isize, isize);
    /// From what one step takes of an element to what the next does.
    #[inline(always)]
    fn step_stride(&self) -> isize {
        0
    }
    /// Steps of the first chain and, at most, of each that follows: of one chain all.
    #[inline(always)]
    fn chains(&self) -> [usize; 2] {
        [self.parts().2; 2]
    }
    /// The address from which on a block of rows from `row` on asks for memory.
    #[inline(always)]
    fn ahead(&self, _row: usize) -> usize {
        0
    }
}

impl<S: Simd> Left<S> for Matrix<'_> {
    type By = Self;

    #[inline(always)]
    fn parts(&self) -> (*const f32, usize, usize, isize, isize) {
        (self.ptr, self.rows(), self.cols(), self.row_stride, self.col_stride)
    }
}

impl<S: Simd> Steps<S> for Matrix<'_> {
    type Element = f32;
    type Lanes = S::F;

    #[inline(always)]
    unsafe fn broadcast(s: S, at: *const f32, _: usize) -> S::F {
        // SAFETY: an element of the matrix (the caller's promise).
        s.splat(unsafe { *at })
    }
    #[inline(always)]
    fn load(s: S, b: &[f32], _: usize) -> S::F {
        s.load(b)
    }
    #[inline(always)]
    fn step(s: S, x: S::F, b: S::F, acc: S::F) -> S::F {
        s.fma(x, b, acc)
    }
}

impl<S: Simd> Left<S> for Pairs<'_> {
    type By = Self;

    #[inline(always)]
    fn parts(&self) -> (*const u16, usize, usize, isize, isize) {
        (self.ptr, self.rows(), self.pairs(), self.row_stride, self.pair_stride)
    }
}

impl<S: Simd> Steps<S> for Pairs<'_> {
    const STEPS: usize = if S::DOTS { 1 } else { 2 };
    type Element = u16;
    type Lanes = S::I;

    #[inline(always)]
    unsafe fn broadcast(s: S, at: *const u16, step: usize) -> S::I {
        // SAFETY: the first of two adjacent elements of the matrix (the caller's promise).
        of_pairs(s, s.isplat(unsafe { at.cast::<i32>().read_unaligned() }), step)
    }
    #[inline(always)]
    fn load(s: S, b: &[f32], step: usize) -> S::I {
        of_pairs(s, s.to_bits(s.load(b)), step)
    }
    #[inline(always)]
    fn step(s: S, x: S::I, b: S::I, acc: S::F) -> S::F {
        match S::DOTS {
            true => s.dot_bf16(acc, x, b),
            false => s.fma(s.bits_to_f32(x), s.bits_to_f32(b), acc),
        }
    }
}

/// What a step takes of pairs: all of it where their products are instructions, else one number.
#[inline(always)]
fn of_pairs<S: Simd>(s: S, pairs: S::I, step: usize) -> S::I {
    if S::DOTS { pairs } else { s.to_bits(number(s, pairs, step)) }
}

/// The number of pairs that a step takes: the upper, then the lower.
#[inline(always)]
fn number<S: Simd>(s: S, pairs: S::I, step: usize) -> S::F {
    if step == 0 { s.upper_bf16(pairs) } else { s.lower_bf16(pairs) }
}

/// A matrix that is multiplied with pairs of bfloat16 and holds both numbers of its own pairs, widened: `first` those that
/// are multiplied first, the others `apart` from them.
#[derive(Clone, Copy)]
pub(crate) struct WidePairs<'a> {
    first: Matrix<'a>,
    apart: isize,
}

impl<'a> WidePairs<'a> {
    /// The columns of `m` in pairs, the one of each that is multiplied first in front; their number is even.
    #[inline(always)]
    pub(crate) fn of_columns(m: Matrix<'a>) -> Self {
        WidePairs { first: m.every_second_column(), apart: m.col_stride }
    }

    /// Pairs `first .. first + len` of every row.
    #[inline(always)]
    pub(crate) fn slice_pairs(self, first: usize, len: usize) -> Self {
        WidePairs { first: self.first.slice_cols(first, len), ..self }
    }

    /// Rows `first .. first + len`.
    #[inline(always)]
    pub(crate) fn slice_rows(self, first: usize, len: usize) -> Self {
        WidePairs { first: self.first.slice_rows(first, len), ..self }
    }
}

impl<S: Simd> Left<S> for WidePairs<'_> {
    type By = Self;

    #[inline(always)]
    fn parts(&self) -> (*const f32, usize, usize, isize, isize) {
        Left::<S>::parts(&self.first)
    }
    #[inline(always)]
    fn step_stride(&self) -> isize {
        self.apart
    }
}

impl<S: Simd> Steps<S> for WidePairs<'_> {
    const STEPS: usize = 2;
    type Element = f32;
    type Lanes = S::F;

    #[inline(always)]
    unsafe fn broadcast(s: S, at: *const f32, _: usize) -> S::F {
        // SAFETY: an element of the matrix (the caller's promise).
        s.splat(unsafe { *at })
    }
    #[inline(always)]
    fn load(s: S, b: &[f32], step: usize) -> S::F {
        number(s, s.to_bits(s.load(b)), step)
    }
    #[inline(always)]
    fn step(s: S, x: S::F, b: S::F, acc: S::F) -> S::F {
        s.fma(x, b, acc)
    }
}

/// A matrix whose product is the sum of chains, from left to right, all but the first from zero: over the first `first` elements of a
/// row, then over `rest` at a time.
#[derive(Clone, Copy)]
pub(crate) struct InParts<A> {
    pub of: A,
    pub first: usize,
    pub rest: usize,
}

impl<S: Simd, A: Left<S>> Left<S> for InParts<A> {
    const IN_PARTS: bool = true;
    const ASKS: bool = A::ASKS;
    type By = A::By;

    #[inline(always)]
    fn parts(&self) -> (*const Element<S, A>, usize, usize, isize, isize) {
        self.of.parts()
    }
    #[inline(always)]
    fn step_stride(&self) -> isize {
        self.of.step_stride()
    }
    #[inline(always)]
    fn chains(&self) -> [usize; 2] {
        [self.first, self.rest]
    }
    #[inline(always)]
    fn ahead(&self, row: usize) -> usize {
        self.of.ahead(row)
    }
}

/// A matrix whose product asks for memory that will be read after it, `bytes` from the address `next` on: each block of
/// rows from the beginning of its share on, a line every four steps.
#[derive(Clone, Copy)]
pub(crate) struct Asking<A> {
    pub of: A,
    pub next: usize,
    pub bytes: usize,
}

impl<S: Simd, A: Left<S>> Left<S> for Asking<A> {
    const IN_PARTS: bool = A::IN_PARTS;
    const ASKS: bool = true;
    type By = A::By;

    #[inline(always)]
    fn parts(&self) -> (*const Element<S, A>, usize, usize, isize, isize) {
        self.of.parts()
    }
    #[inline(always)]
    fn step_stride(&self) -> isize {
        self.of.step_stride()
    }
    #[inline(always)]
    fn chains(&self) -> [usize; 2] {
        self.of.chains()
    }
    #[inline(always)]
    fn ahead(&self, row: usize) -> usize {
        self.next + self.bytes / self.of.parts().1 * row
    }
}

/// Receives the finished blocks of a product.
pub(crate) trait Sink<S: Simd> {
    /// What the chains of the block whose first element is (`row`, `lane`) begin with.
    #[inline(always)]
    fn start<const MR: usize, const NV: usize>(&self, s: S, _row: usize, _lane: usize) -> [[S::F; NV]; MR] {
        [[s.splat(0.0); NV]; MR]
    }
    /// Takes the block whose first element is (`row`, `lane`).
    fn put<const MR: usize, const NV: usize>(&mut self, s: S, row: usize, lane: usize, acc: [[S::F; NV]; MR]);
}

/// Stores blocks in rows of `width`.
pub(crate) struct Store<'a> {
    pub to: &'a mut [f32],
    pub width: usize,
    /// What elements are multiplied by on their way.
    pub factor: Option<f32>,
}

impl<S: Simd> Sink<S> for Store<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let to = &mut self.to[(row + r) * self.width + lane..];
            for v in 0..NV {
                s.store(scaled(s, acc[r][v], self.factor), &mut to[v * S::LANES..]);
            }
        }
    }
}

/// `x` times a factor, if there is one.
#[inline(always)]
pub(crate) fn scaled<S: Simd>(s: S, x: S::F, factor: Option<f32>) -> S::F {
    match factor {
        Some(factor) => s.mul(x, s.splat(factor)),
        None => x,
    }
}

/// One block: rows `row .. row + MR` of `a`, `NV` vectors of lanes from the start of `b`, whose
/// rows are `ldb` apart, added to `acc`.
#[inline(always)]
fn block<S: Simd, A: Left<S>, const MR: usize, const NV: usize>(
    s: S,
    a: A,
    row: usize,
    b: &[f32],
    ldb: usize,
    mut acc: [[S::F; NV]; MR],
) -> [[S::F; NV]; MR] {
    let (depth, [first, rest]) = (a.parts().2, a.chains());
    if !A::IN_PARTS {
        return chain(s, a, row, b, ldb, 0..depth, acc);
    }
    assert!(rest > 0 || first >= depth);
    let mut sum = [[s.splat(0.0); NV]; MR];
    let (mut from, mut to) = (0, first.min(depth));
    loop {
        acc = chain(s, a, row, b, ldb, from..to, acc);
        if to == depth {
            break;
        }
        for r in 0..MR {
            for v in 0..NV {
                sum[r][v] = s.add(sum[r][v], acc[r][v]);
                acc[r][v] = s.splat(0.0);
            }
        }
        (from, to) = (to, depth.min(to + rest));
    }
    if first < depth {
        for r in 0..MR {
            for v in 0..NV {
                acc[r][v] = s.add(sum[r][v], acc[r][v]);
            }
        }
    }
    acc
}

/// The steps `depth` of a block, a chain an element.
#[inline(always)]
fn chain<S: Simd, A: Left<S>, const MR: usize, const NV: usize>(
    s: S,
    a: A,
    row: usize,
    b: &[f32],
    ldb: usize,
    depth: Range<usize>,
    mut acc: [[S::F; NV]; MR],
) -> [[S::F; NV]; MR] {
    if depth.is_empty() {
        return acc;
    }
    let (mut ahead, between) = (a.ahead(row), a.step_stride());
    let (a, rows, most, rs, cs) = a.parts();
    assert!(row < rows && MR <= rows - row && depth.end <= most);
    assert!((depth.end - 1).checked_mul(ldb).and_then(|n| n.checked_add(NV * S::LANES)).unwrap() <= b.len());
    let ldb = ldb as isize;
    let (from, steps) = (depth.start as isize, depth.len() as isize);
    // SAFETY: row `row` and column `from` exist (checked).
    let mut a = unsafe { a.offset(row as isize * rs).offset(from * cs) };
    if A::IN_PARTS {
        // Where the chain begins is hidden from the compiler, which would count up an address for every row, most of
        // them on the stack.
        a = black_box(a);
    }
    // SAFETY: row `from` of b exists (checked).
    let b = unsafe { b.as_ptr().offset(from * ldb) };
    let mut k = 0;
    if A::ASKS {
        const LINE: usize = 64;
        while k + 4 <= steps {
            s.prefetch_later_at(ahead);
            ahead += LINE;
            for k in [k, k + 1, k + 2, k + 3] {
                // SAFETY: from + k is a column of a and a row of b, which reaches to the last vector of the last row, and
                // row + MR rows exist (checked).
                acc = unsafe {
                    element::<S, A, MR, NV>(s, a.offset(k * cs), [rs, between], b.offset(k * ldb), acc)
                };
            }
            k += 4;
        }
    }
    while k < steps {
        // SAFETY: as above.
        acc = unsafe { element::<S, A, MR, NV>(s, a.offset(k * cs), [rs, between], b.offset(k * ldb), acc) };
        k += 1;
    }
    acc
}

/// What one element of `MR` rows, `rs` apart, and one row of `b` add to a block; the steps of an element are `between` apart.
///
/// # Safety
/// From `column` on there are `MR` elements, `rs` apart, with all their steps, and at `b` `NV` vectors.
#[inline(always)]
unsafe fn element<S: Simd, A: Left<S>, const MR: usize, const NV: usize>(
    s: S,
    column: *const Element<S, A>,
    [rs, between]: [isize; 2],
    b: *const f32,
    mut acc: [[S::F; NV]; MR],
) -> [[S::F; NV]; MR] {
    for step in 0..A::By::STEPS {
        // SAFETY: so far apart are the steps of an element (the caller's promise).
        let column = unsafe { column.offset(step as isize * between) };
        // Read once more for each step, not kept: the registers are full.
        let b = if step == 0 { b } else { unknown(b) };
        // SAFETY: so many lanes are there (the caller's promise).
        let panel = unsafe { std::slice::from_raw_parts(b, NV * S::LANES) };
        let mut lanes = [A::By::load(s, panel, step); NV];
        for v in 1..NV {
            lanes[v] = A::By::load(s, &panel[v * S::LANES..], step);
        }
        for r in 0..MR {
            // SAFETY: the row is there (the caller's promise). Groups of three rows share a base address, which
            // x86 can index by 0, 1 and 2 strides: fewer live registers.
            let x = unsafe {
                let at = column.offset((r / 3 * 3) as isize * rs).offset((r % 3) as isize * rs);
                A::By::broadcast(s, at, step)
            };
            for v in 0..NV {
                acc[r][v] = A::By::step(s, x, lanes[v], acc[r][v]);
            }
        }
    }
    acc
}

/// The same pointer, which the compiler takes for another.
#[inline(always)]
fn unknown<T>(mut pointer: *const T) -> *const T {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {} */", inout(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        pointer = black_box(pointer);
    }
    pointer
}

/// All rows of `a` times `NV` vectors, in blocks of at most `MAX` rows.
#[inline(always)]
fn sweep<S: Simd, A: Left<S>, const MAX: usize, const NV: usize>(
    s: S,
    a: A,
    b: &[f32],
    ldb: usize,
    lane: usize,
    sink: &mut impl Sink<S>,
) {
    let (_, rows, ..) = a.parts();
    let mut row = 0;
    if MAX == 16 {
        while rows - row >= 16 {
            let acc = block::<S, A, 16, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
            sink.put(s, row, lane, acc);
            row += 16;
        }
    }
    if MAX == 12 {
        while rows - row >= 12 {
            let acc = block::<S, A, 12, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
            sink.put(s, row, lane, acc);
            row += 12;
        }
    }
    if MAX == 8 || MAX == 16 {
        while rows - row >= 8 {
            let acc = block::<S, A, 8, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
            sink.put(s, row, lane, acc);
            row += 8;
        }
    }
    while rows - row >= 6 {
        let acc = block::<S, A, 6, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
        sink.put(s, row, lane, acc);
        row += 6;
    }
    if rows - row >= 4 {
        let acc = block::<S, A, 4, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
        sink.put(s, row, lane, acc);
        row += 4;
    }
    if rows - row >= 2 {
        let acc = block::<S, A, 2, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
        sink.put(s, row, lane, acc);
        row += 2;
    }
    if rows - row >= 1 {
        let acc = block::<S, A, 1, NV>(s, a, row, b, ldb, sink.start(s, row, lane));
        sink.put(s, row, lane, acc);
    }
}

/// Whether the elements of a column share a set of the first cache, which holds eight lines: more rows at a time
/// would drive each other out.
#[inline(always)]
fn rows_alias<S: Simd, A: Left<S>>(a: A) -> bool {
    const BETWEEN_SETS: usize = 4096;
    let (_, rows, _, stride, _) = a.parts();
    rows > 8
        && stride != 0
        && (stride.unsigned_abs() * size_of::<Element<S, A>>()).is_multiple_of(BETWEEN_SETS)
}

/// [`multiply_lanes`] for all lanes.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, a: impl Left<S>, b: &[f32], width: usize, sink: &mut impl Sink<S>) {
    multiply_lanes(s, a, b, width, 0..width, sink);
}

/// `a` times `b[k * width + lane]` for some lanes, a multiple of 16, block by block.
///
/// Block shapes fill the registers: 24 accumulators of 32 registers, 12 of 16.
#[inline(always)]
pub(crate) fn multiply_lanes<S: Simd>(
    s: S,
    a: impl Left<S>,
    b: &[f32],
    width: usize,
    lanes: Range<usize>,
    sink: &mut impl Sink<S>,
) {
    let Range { start: mut lane, end } = lanes;
    match S::LANES {
        16 => {
            while end - lane >= 64 {
                sweep::<S, _, 6, 4>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 64;
            }
            if end - lane == 48 {
                sweep::<S, _, 8, 3>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                return;
            }
            let aliased = rows_alias::<S, _>(a);
            while end - lane >= 32 {
                let b = b.get(lane..).unwrap_or_default();
                match aliased {
                    true => sweep::<S, _, 8, 2>(s, a, b, width, lane, sink),
                    false => sweep::<S, _, 12, 2>(s, a, b, width, lane, sink),
                }
                lane += 32;
            }
            if lane < end {
                sweep::<S, _, 16, 1>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
            }
        }
        8 => {
            while lane < end {
                sweep::<S, _, 6, 2>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 16;
            }
        }
        _ => {
            while lane < end {
                sweep::<S, _, 6, 4>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 4 * S::LANES;
            }
        }
    }
}
