//! A block of rows through some panels: the product itself.

use ndarray::Ix2;

use super::epilogue::{Place, Tail, finish_tile, gated};
use super::packed::{PANEL, PackedLinear, Panel};
use super::rows::{paired, turned, widened};
use crate::arch::{Asking, Kernel, Matrix, MatrixMut, Pairs, Simd, Sink, WidePairs, multiply};
use crate::tensor::{Dtype, Floats, FloatsMut, each};

/// Rows a block may have.
pub(super) const MAX_ROWS: usize = 96;

/// Inputs that a panel is read by: the part stays in the caches until all rows have used it.
const PART: usize = 1536;

/// The same for panels that are widened part by part: the part stays in L1.
const WIDENED_PART: usize = 128;

/// Rows that panels of pairs are not widened for.
const FEW: usize = 24;

/// Floats that [`Block`] needs for the rows of `x`; with `dots` where products of pairs are instructions of their own.
pub(super) fn room_len(x: &Floats<Ix2>, w: &PackedLinear, dots: bool) -> usize {
    let (rows, depth) = (x.shape()[0], x.shape()[1]);
    let copied = match x.dtype() {
        Dtype::F32 => 0,
        Dtype::Bf16 if w.dtype() == Dtype::Bf16 && dots => rows * depth.div_ceil(2),
        _ => rows * depth.next_multiple_of(2),
    };
    let part = if w.dtype() == Dtype::F32 { 0 } else { WIDENED_PART * PANEL };
    rows * PANEL + part + copied
}

/// One task: a block of rows through a few panels. `DOT`: products of bf16 pairs.
pub(super) struct Block<'a, 'b, const DOT: bool> {
    pub x: Floats<'a, Ix2>,
    pub w: &'b PackedLinear,
    pub tail: Tail<'a>,
    /// The first panel; as many as `out` is wide.
    pub panel: usize,
    pub out: FloatsMut<'a, Ix2>,
    pub room: &'b mut [f32],
}

impl<const DOT: bool> Kernel for Block<'_, '_, DOT> {
    type Output = ();
    const DOTS: bool = DOT;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Block { x, w, tail, panel, out, room } = self;
        let (tile, room) = room.split_at_mut(x.shape()[0] * PANEL);
        let layer = Layer { w, tail, panel };
        if DOT && S::DOTS {
            let Floats::Bf16(x) = x else { unreachable!("pairs are of bfloat16") };
            let x = Matrix::new(x);
            let x = match Pairs::of_rows(x) {
                Some(pairs) => pairs,
                None => paired(s, x, room),
            };
            layer.run(s, Dots::new(x, w), tile, out);
            return;
        }
        let (part, room) = room.split_at_mut(if w.dtype() == Dtype::F32 { 0 } else { WIDENED_PART * PANEL });
        if DOT {
            let Floats::Bf16(x) = x else { unreachable!("pairs are of bfloat16") };
            let x = turned(s, Matrix::new(x), room).apart();
            match x.rows() {
                ..=FEW => layer.run(s, Dots::new(WidePairs::of_columns(x), w), tile, out),
                _ => layer.run(s, Wide::<true>::new(x, w, part), tile, out),
            }
        } else {
            let x = each!(Floats, x, x => widened(s, Matrix::new(x), room));
            layer.run(s, Wide::<false>::new(x, w, part), tile, out);
        }
    }
}

/// A product of rows with a panel, part by part.
trait Product {
    /// Inputs a part.
    fn part(&self) -> usize;
    /// Goes on to inputs `first .. first + len` of a panel.
    fn load<S: Simd>(&mut self, s: S, panel: usize, first: usize, len: usize);
    /// Adds the part's products for `count` rows from `row` on.
    fn add<S: Simd>(&self, s: S, row: usize, count: usize, sink: &mut impl Sink<S>);
}

/// Rows of pairs, as they are or widened.
trait RowsOfPairs: Copy {
    /// Some pairs of all rows.
    fn slice_pairs(self, first: usize, len: usize) -> Self;
    /// Some rows times a panel.
    fn times<S: Simd>(self, s: S, row: usize, count: usize, weights: &[f32], sink: &mut impl Sink<S>);
}

macro_rules! rows_of_pairs {
    ($($rows:ident),*) => {$(
        impl RowsOfPairs for $rows<'_> {
            #[inline(always)]
            fn slice_pairs(self, first: usize, len: usize) -> Self {
                self.slice_pairs(first, len)
            }
            #[inline(always)]
            fn times<S: Simd>(self, s: S, row: usize, count: usize, weights: &[f32], sink: &mut impl Sink<S>) {
                multiply(s, self.slice_rows(row, count), weights, PANEL, sink);
            }
        }
    )*};
}

rows_of_pairs!(Pairs, WidePairs);

/// Pairs of bfloat16.
struct Dots<'a, X> {
    x: X,
    w: &'a PackedLinear,
    /// The present part of the rows and of the panel.
    columns: X,
    weights: &'a [f32],
}

impl<'a, X: RowsOfPairs> Dots<'a, X> {
    #[inline(always)]
    fn new(x: X, w: &'a PackedLinear) -> Self {
        Dots { x, w, columns: x, weights: &[] }
    }
}

impl<X: RowsOfPairs> Product for Dots<'_, X> {
    #[inline(always)]
    fn part(&self) -> usize {
        2 * PART
    }

    #[inline(always)]
    fn load<S: Simd>(&mut self, _: S, panel: usize, first: usize, len: usize) {
        let Panel::Bf16(weights) = self.w.panel(panel, first, len) else { unreachable!("pairs of weights") };
        self.weights = weights;
        self.columns = self.x.slice_pairs(first / 2, len.div_ceil(2));
    }

    #[inline(always)]
    fn add<S: Simd>(&self, s: S, row: usize, count: usize, sink: &mut impl Sink<S>) {
        self.columns.times(s, row, count, self.weights, sink);
    }
}

/// Everything in f32. `TURNED`: of bfloat16, the second number of every pair first, as [`Simd::dot_bf16`] has them.
struct Wide<'a, const TURNED: bool> {
    x: Matrix<'a>,
    w: &'a PackedLinear,
    /// Room for a part of a panel that is not f32.
    part: &'a mut [f32],
    /// The present part of the rows, and of the panel where it is f32.
    columns: Matrix<'a>,
    weights: Option<&'a [f32]>,
    /// What is read next: an address and bytes.
    next: (usize, usize),
}

impl<'a, const TURNED: bool> Wide<'a, TURNED> {
    #[inline(always)]
    fn new(x: Matrix<'a>, w: &'a PackedLinear, part: &'a mut [f32]) -> Self {
        Wide { x, w, part, columns: x, weights: None, next: (0, 0) }
    }
}

impl<const TURNED: bool> Product for Wide<'_, TURNED> {
    #[inline(always)]
    fn part(&self) -> usize {
        if self.part.is_empty() { PART } else { WIDENED_PART }
    }

    #[inline(always)]
    fn load<S: Simd>(&mut self, s: S, panel: usize, first: usize, len: usize) {
        self.columns = self.x.slice_cols(first, if TURNED { len.next_multiple_of(2) } else { len });
        match self.w.panel(panel, first, len) {
            Panel::F32(weights) => {
                self.weights = Some(weights);
                self.next = after(weights);
            }
            Panel::F16(weights) => {
                self.next = after(weights);
                for (to, from) in self.part.chunks_exact_mut(16).zip(weights.chunks_exact(16)) {
                    let mut i = 0;
                    while i < 16 {
                        s.store(s.load_f16(&from[i..]), &mut to[i..]);
                        i += S::LANES;
                    }
                }
            }
            Panel::Bf16(pairs) => {
                self.next = after(pairs);
                let (lower, upper) = if TURNED { (PANEL, 0) } else { (0, PANEL) };
                // The last of an odd end is a zero that no input meets, or another zero.
                for (to, from) in self.part.chunks_exact_mut(2 * PANEL).zip(pairs.chunks_exact(PANEL)) {
                    let mut i = 0;
                    while i < PANEL {
                        let pair = s.to_bits(s.load(&from[i..]));
                        s.store(s.lower_bf16(pair), &mut to[lower + i..]);
                        s.store(s.upper_bf16(pair), &mut to[upper + i..]);
                        i += S::LANES;
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn add<S: Simd>(&self, s: S, row: usize, count: usize, sink: &mut impl Sink<S>) {
        let weights = match self.weights {
            Some(weights) => weights,
            None => &*self.part,
        };
        let rows = self.columns.slice_rows(row, count);
        if S::MAY_ASK && s.asks_ahead() {
            let (next, bytes) = self.next;
            let each = bytes / self.columns.rows();
            multiply(
                s,
                Asking { of: rows, next: next + each * row, bytes: each * count },
                weights,
                PANEL,
                sink,
            );
        } else {
            multiply(s, rows, weights, PANEL, sink);
        }
    }
}

/// Where what follows some weights in memory begins, as the next part or panel does, and as many bytes.
#[inline(always)]
fn after<T>(weights: &[T]) -> (usize, usize) {
    (weights.as_ptr_range().end.addr(), size_of_val(weights))
}

/// What is done with the products.
struct Layer<'a> {
    w: &'a PackedLinear,
    tail: Tail<'a>,
    panel: usize,
}

/// Rows whose sums are finished together, while they lie in the first cache.
const FINISHED: usize = 24;

impl Layer<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S, mut product: impl Product, tile: &mut [f32], mut out: FloatsMut<Ix2>) {
        let Layer { w, tail, mut panel } = self;
        let (rows, outputs) = (out.shape()[0], out.shape()[1]);
        let (depth, columns, part) = (w.in_features(), w.columns(), product.part());
        let straight = columns == PANEL && depth <= part && out.strides()[1] == 1 && tail.is_straight();
        let mut col = 0;
        while col < outputs {
            let cols = columns.min(outputs - col);
            let at = panel * columns;
            if let FloatsMut::F32(out) = &mut out
                && straight
                && cols == PANEL
            {
                let out = MatrixMut::new(out.view_mut());
                let direct = Some(Direct { out, col, at, bias: w.bias(panel), tail: &tail });
                product.load(s, panel, 0, depth);
                product.add(s, 0, rows, &mut Sums { tile: &mut *tile, resumed: false, direct });
            } else {
                let mut first = 0;
                loop {
                    let len = part.min(depth - first);
                    product.load(s, panel, first, len);
                    let (resumed, last) = (first > 0, first + len == depth);
                    let mut row = 0;
                    while row < rows {
                        let count = FINISHED.min(rows - row);
                        // Sums that no other part resumes take the place of those before them.
                        let from = if resumed || !last { row * PANEL } else { 0 };
                        let tile = &mut tile[from..from + count * PANEL];
                        product.add(s, row, count, &mut Sums { tile: &mut *tile, resumed, direct: None });
                        if last {
                            let place = Place { row, col, at, cols, bias: w.bias(panel), outputs: columns };
                            finish_tile(s, &tail, tile, &mut out, place);
                        }
                        row += count;
                    }
                    if last {
                        break;
                    }
                    first += len;
                }
            }
            col += cols;
            panel += 1;
        }
    }
}

/// Where sums go: to the tile `[rows][32]`, whose chains a later part resumes, or with bias, gate and
/// residual straight to rows of the output.
struct Sums<'a, 'b> {
    tile: &'a mut [f32],
    resumed: bool,
    direct: Option<Direct<'a, 'b>>,
}

struct Direct<'a, 'b> {
    out: MatrixMut<'b>,
    col: usize,
    /// The column of the whole output that `col` is.
    at: usize,
    bias: &'a [f32],
    tail: &'a Tail<'a>,
}

impl Direct<'_, '_> {
    /// Writes a block of sums with what most often follows them: the bias alone, or a gate that its rows share and what
    /// the output holds. False, with nothing written, where something else does.
    #[inline(always)]
    fn put_block<S: Simd, const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: &[[S::F; NV]; MR],
    ) -> bool {
        let Some(follows) = self.tail.of_block(row, MR) else { return false };
        let Some(mut out) = self.out.block(row, self.col + lane, MR, NV * S::LANES) else { return false };
        let bias = &self.bias[lane..][..NV * S::LANES];
        match follows {
            None => {
                for r in 0..MR {
                    let out = out.row(r);
                    for v in 0..NV {
                        let i = v * S::LANES;
                        s.store(s.add(acc[r][v], s.load(&bias[i..])), &mut out[i..]);
                    }
                }
            }
            Some(gate) => {
                let gate = &gate[self.at + lane..][..NV * S::LANES];
                for r in 0..MR {
                    let out = out.row(r);
                    for v in 0..NV {
                        let i = v * S::LANES;
                        let y = s.add(acc[r][v], s.load(&bias[i..]));
                        let y = gated(s, Some(s.load(&gate[i..])), y, Some(s.load(&out[i..])));
                        s.store(y, &mut out[i..]);
                    }
                }
            }
        }
        true
    }

    /// Writes `width` sums of a row with whatever follows them.
    #[inline(always)]
    fn put_row<S: Simd>(&mut self, s: S, row: usize, lane: usize, width: usize, sums: &[f32]) {
        let Some(out) = self.out.row(row) else { unreachable!("rows of adjacent elements") };
        let out = &mut out[self.col + lane..];
        let (gate, base) = self.tail.straight(row);
        for i in (0..width).step_by(S::LANES) {
            let y = s.add(s.load(&sums[i..]), s.load(&self.bias[lane + i..]));
            let base = match base {
                Some(base) => Some(s.load(&base[self.at + lane + i..])),
                None if self.tail.adds_onto_out() => Some(s.load(&out[i..])),
                None => None,
            };
            let y = match gate {
                Some(gate) => gated(s, Some(s.load(&gate[self.at + lane + i..])), y, base),
                None => gated(s, None, y, base),
            };
            s.store(y, &mut out[i..]);
        }
    }
}

impl<S: Simd> Sink<S> for Sums<'_, '_> {
    #[inline(always)]
    fn start<const MR: usize, const NV: usize>(&self, s: S, row: usize, lane: usize) -> [[S::F; NV]; MR] {
        let mut acc = [[s.splat(0.0); NV]; MR];
        if self.resumed {
            for r in 0..MR {
                for v in 0..NV {
                    acc[r][v] = s.load(&self.tile[(row + r) * PANEL + lane + v * S::LANES..]);
                }
            }
        }
        acc
    }

    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        if let Some(direct) = &mut self.direct
            && direct.put_block(s, row, lane, &acc)
        {
            return;
        }
        for r in 0..MR {
            let tile = &mut self.tile[(row + r) * PANEL + lane..];
            for v in 0..NV {
                s.store(acc[r][v], &mut tile[v * S::LANES..]);
            }
        }
        if let Some(direct) = &mut self.direct {
            for row in row..row + MR {
                direct.put_row(s, row, lane, NV * S::LANES, &self.tile[row * PANEL + lane..]);
            }
        }
    }
}
