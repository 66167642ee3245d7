//! What follows the sums of a linear layer: bias, activation, gate, residual, rounding.

use half::{bf16, f16};
use ndarray::Ix2;

use super::options::{Activation, LinearOptions, Residual};
use super::packed::{PANEL, PackedLinear};
use super::rows::{load, store};
use crate::arch::{BlockMut, Kernel, Matrix, MatrixMut, Simd};
use crate::math::slice::{Function, GeluErf, GeluTanh, Silu};
use crate::nn::lanes::{Target, put_two};
use crate::tensor::{Element, Floats, FloatsMut, each};

/// A matrix of one of the three types, as vector code reads it.
#[derive(Clone, Copy)]
enum Numbers<'a> {
    F32(Matrix<'a>),
    F16(Matrix<'a, f16>),
    Bf16(Matrix<'a, bf16>),
}

impl<'a> Numbers<'a> {
    fn new(x: Floats<'a, Ix2>) -> Self {
        match x {
            Floats::F32(x) => Numbers::F32(Matrix::new(x)),
            Floats::F16(x) => Numbers::F16(Matrix::new(x)),
            Floats::Bf16(x) => Numbers::Bf16(Matrix::new(x)),
        }
    }

    /// Elements of a row from `col` on, zeros after its end.
    #[inline(always)]
    fn load<S: Simd>(&self, s: S, row: usize, col: usize) -> S::F {
        match self {
            Numbers::F32(m) => load_from(s, m, row, col),
            Numbers::F16(m) => load_from(s, m, row, col),
            Numbers::Bf16(m) => load_from(s, m, row, col),
        }
    }

    /// A row of adjacent f32.
    #[inline(always)]
    fn singles(&self, row: usize) -> Option<&'a [f32]> {
        match self {
            Numbers::F32(m) => m.row(row),
            _ => None,
        }
    }
}

#[inline(always)]
fn load_from<S: Simd, T: Element>(s: S, m: &Matrix<T>, row: usize, col: usize) -> S::F {
    if let Some(row) = m.row(row) {
        return load(s, row, col);
    }
    let mut all = [0.0; 16];
    for (i, to) in all[..S::LANES.min(m.cols() - col)].iter_mut().enumerate() {
        *to = m.get(row, col + i).to_f32();
    }
    s.load(&all)
}

/// What is added in the end.
#[derive(Clone, Copy)]
enum Base<'a> {
    None,
    /// Row `m mod` the number is for row `m`.
    Rows(Numbers<'a>, usize),
    Out,
}

/// Options of a call, for the rows from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Tail<'a> {
    act: Activation,
    /// The gate and how many rows share one of its rows.
    gate: Option<(Numbers<'a>, usize)>,
    base: Base<'a>,
    first: usize,
}

impl<'a> Tail<'a> {
    /// The caller has checked the options.
    pub fn new(options: LinearOptions<'a>, rows: usize) -> Self {
        let LinearOptions { activation, gate, residual } = options;
        let gate = gate.map(|gate| {
            let group = rows / gate.shape()[0].max(1);
            (Numbers::new(gate), group.max(1))
        });
        let base = match residual {
            Residual::None => Base::None,
            Residual::Rows(x) => {
                let period = x.shape()[0].max(1);
                Base::Rows(Numbers::new(x), period)
            }
            Residual::Out => Base::Out,
        };
        Tail { act: activation, gate, base, first: 0 }
    }

    /// The options of the rows from `row` on.
    pub fn after(self, row: usize) -> Self {
        Tail { first: self.first + row, ..self }
    }

    /// Whether the layer adds onto what its output holds.
    pub fn adds_onto_out(&self) -> bool {
        matches!(self.base, Base::Out)
    }

    /// Whether neither gate nor residual follows.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.gate.is_none() && matches!(self.base, Base::None)
    }

    /// Whether sums can go to rows of f32 straight: there is no activation, and gate and residual are rows of
    /// adjacent f32.
    #[inline(always)]
    pub fn is_straight(&self) -> bool {
        let gate = self.gate.is_none_or(|(gate, _)| gate.singles(0).is_some());
        let base = match self.base {
            Base::Rows(x, _) => x.singles(0).is_some(),
            Base::None | Base::Out => true,
        };
        self.act == Activation::None && gate && base
    }

    /// Gate and residual of row `row` where [`Tail::is_straight`].
    #[inline(always)]
    pub fn straight(&self, row: usize) -> (Option<&'a [f32]>, Option<&'a [f32]>) {
        let row = self.first + row;
        let gate = match self.gate {
            Some((gate, group)) => gate.singles(row / group),
            None => None,
        };
        let base = match self.base {
            Base::Rows(x, period) => x.singles(row % period),
            Base::None | Base::Out => None,
        };
        (gate, base)
    }

    /// What follows the sums of some rows, where [`Tail::is_straight`] and that is nothing, or where they share a gate and
    /// add onto what the output holds: the row of the gate.
    #[inline(always)]
    pub fn of_block(&self, row: usize, rows: usize) -> Option<Option<&'a [f32]>> {
        match (self.gate, self.base) {
            (None, Base::None) => Some(None),
            (Some((gate, group)), Base::Out) => {
                let row = self.first + row;
                let at = row / group;
                match (row + rows - 1) / group == at {
                    true => gate.singles(at).map(Some),
                    false => None,
                }
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn gate<S: Simd>(&self, s: S, row: usize, at: usize) -> Option<S::F> {
        // Not by a closure: it would be compiled without the instruction set.
        let (gate, group) = self.gate?;
        Some(gate.load(s, (self.first + row) / group, at))
    }
}

/// `gate * y + base`, of which the first or the last may be missing.
#[inline(always)]
pub(super) fn gated<S: Simd>(s: S, gate: Option<S::F>, y: S::F, base: Option<S::F>) -> S::F {
    match (gate, base) {
        (None, None) => y,
        (Some(gate), None) => s.mul(gate, y),
        (None, Some(base)) => s.add(y, base),
        (Some(gate), Some(base)) => s.fma(gate, y, base),
    }
}

/// Writes the sums `[rows][32]` of a panel to `out`, after all that follows them, rounded to its type. The sums may be lost.
#[inline(always)]
pub(super) fn finish_tile<S: Simd>(
    s: S,
    tail: &Tail,
    tile: &mut [f32],
    out: &mut FloatsMut<Ix2>,
    place: Place,
) {
    let tile = tile.as_chunks_mut().0;
    // Whole panels without gate and residual go straight to their rows.
    if tail.is_plain() && place.outputs == PANEL && place.cols == PANEL && out.strides()[1] == 1 {
        each!(FloatsMut, out, out => put_outputs(s, tail.act, tile, &mut MatrixMut::new(out.view_mut()), place));
    } else {
        bias_and_activation(s, tail.act, tile, place);
        each!(FloatsMut, out, out => put_tile(s, tail, tile, &mut MatrixMut::new(out.view_mut()), place));
    }
}

/// Calls `$f` with the activation `$act` is.
macro_rules! with_activation {
    ($act:expr, $f:ident($s:expr, $($arg:expr),*)) => {
        match $act {
            Activation::None => $f($s, Same, $($arg),*),
            Activation::Silu => $f($s, Silu, $($arg),*),
            Activation::GeluTanh => $f($s, GeluTanh, $($arg),*),
            Activation::GeluErf => $f($s, GeluErf, $($arg),*),
        }
    };
}

/// Writes what the activation gives for the sums of a panel to adjacent elements of rows.
#[inline(always)]
fn put_outputs<S: Simd, T: Element>(
    s: S,
    act: Activation,
    tile: &[[f32; PANEL]],
    out: &mut MatrixMut<T>,
    place: Place,
) {
    let Some(mut out) = out.block(place.row, place.col, tile.len(), PANEL) else { unreachable!("adjacent") };
    with_activation!(act, put_rows(s, tile, &mut out, place.bias));
}

#[inline(always)]
fn put_rows<S: Simd, T: Element>(
    s: S,
    f: impl Function,
    tile: &[[f32; PANEL]],
    out: &mut BlockMut<T>,
    bias: &[f32],
) {
    let bias = &bias[..PANEL];
    for (r, row) in tile.iter().enumerate() {
        let mut to = Target { row: T::row_mut(out.row(r)), past: false };
        for i in (0..PANEL).step_by(2 * S::LANES) {
            put_two(s, two_outputs(s, f, row, bias, i), &mut to, i);
        }
    }
}

/// Sums of a panel become what its activation gives, in place: as many a row as the panel has outputs.
#[inline(always)]
fn bias_and_activation<S: Simd>(s: S, act: Activation, tile: &mut [[f32; PANEL]], place: Place) {
    with_activation!(act, map(s, tile, place));
}

/// No activation.
#[derive(Clone, Copy)]
struct Same;

impl Function for Same {
    const COST: u64 = 0;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, _: S, x: [S::F; K]) -> [S::F; K] {
        x
    }
}

#[inline(always)]
fn map<S: Simd>(s: S, f: impl Function, tile: &mut [[f32; PANEL]], place: Place) {
    const HALF: usize = PANEL / 2;
    let bias = &place.bias[..PANEL];
    for row in tile {
        if place.outputs == PANEL {
            for i in (0..PANEL).step_by(2 * S::LANES) {
                let [a, b] = two_outputs(s, f, row, bias, i);
                s.store(a, &mut row[i..]);
                s.store(b, &mut row[i + S::LANES..]);
            }
            continue;
        }
        for i in (0..HALF).step_by(S::LANES) {
            let j = HALF + i;
            let [y] = f.eval(s, [s.add(s.load(&row[i..]), s.load(&bias[i..]))]);
            // The other half of a gated layer.
            let y = s.mul(y, s.add(s.load(&row[j..]), s.load(&bias[j..])));
            s.store(y, &mut row[i..]);
        }
    }
}

/// What `f` gives for the sums of a row from lane `i` on, with their bias.
#[inline(always)]
fn two_outputs<S: Simd>(s: S, f: impl Function, row: &[f32; PANEL], bias: &[f32], i: usize) -> [S::F; 2] {
    let j = i + S::LANES;
    f.eval(s, [s.add(s.load(&row[i..]), s.load(&bias[i..])), s.add(s.load(&row[j..]), s.load(&bias[j..]))])
}

/// Where a tile belongs, and the panel whose sums it holds.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its first row of what is written.
    pub row: usize,
    /// Its first column of what is written.
    pub col: usize,
    /// Its first column of the whole output.
    pub at: usize,
    /// Its columns.
    pub cols: usize,
    /// The bias of its panel.
    pub bias: &'a [f32],
    /// Outputs of its panel.
    pub outputs: usize,
}

/// Writes the first columns of each row of a tile to `out`, after gate and residual, rounded to its type.
#[inline(always)]
fn put_tile<S: Simd, T: Element>(
    s: S,
    tail: &Tail,
    tile: &[[f32; PANEL]],
    out: &mut MatrixMut<T>,
    place: Place,
) {
    let Place { row: first, col, at, cols, .. } = place;
    if tail.is_plain() {
        // A loop of its own: what the other may do would slow it down.
        for (r, row) in (first..).zip(tile) {
            let mut i = 0;
            while i < cols {
                store(s, s.load(&row[i..]), out, r, col + i);
                i += S::LANES;
            }
        }
        return;
    }
    for (r, row) in (first..).zip(tile) {
        let mut i = 0;
        while i < cols {
            let base = match tail.base {
                Base::None => None,
                Base::Rows(x, period) => Some(x.load(s, (tail.first + r) % period, at + i)),
                Base::Out => Some(held(s, out, r, col + i)),
            };
            let y = gated(s, tail.gate(s, r, at + i), s.load(&row[i..]), base);
            store(s, y, out, r, col + i);
            i += S::LANES;
        }
    }
}

/// What a row of the output holds from `col` on, zeros after its end.
#[inline(always)]
fn held<S: Simd, T: Element>(s: S, out: &mut MatrixMut<T>, row: usize, col: usize) -> S::F {
    if let Some(row) = out.row(row) {
        return load(s, row, col);
    }
    let mut all = [0.0; 16];
    for (i, to) in all[..S::LANES.min(out.cols() - col)].iter_mut().enumerate() {
        *to = out.get(row, col + i).to_f32();
    }
    s.load(&all)
}

/// All that follows a product that lies in `out`; neither is the layer gated nor does it add onto `out`.
pub(super) struct Finish<'a> {
    pub w: &'a PackedLinear,
    pub tail: Tail<'a>,
    pub out: MatrixMut<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut tile = [0.0; PANEL];
        for panel in 0..self.w.panels() {
            let first = panel * PANEL;
            let cols = PANEL.min(self.out.cols() - first);
            for r in 0..self.out.rows() {
                for (i, to) in tile[..cols].iter_mut().enumerate() {
                    *to = self.out.get(r, first + i);
                }
                let bias = self.w.bias(panel);
                let place = Place { row: r, col: first, at: first, cols, bias, outputs: PANEL };
                let tile = std::slice::from_mut(&mut tile);
                bias_and_activation(s, self.tail.act, tile, place);
                put_tile(s, &self.tail, tile, &mut self.out, place);
            }
        }
    }
}
