//! Rows of memory to lanes and back, a square block of vectors at a time.

use ndarray::{ArrayView3, ArrayViewMut3, Axis};

use crate::arch::{Kernel, Matrix, MatrixMut, Simd};
use crate::linalg::rows::{self, store, store_row};
use crate::tensor::Element;

/// What can be brought into lanes.
pub(super) trait Lane: Copy {
    /// The number that takes its place.
    fn number(self) -> f32;
    /// Numbers of a row from `at` on; after its end those of zeros.
    fn load<S: Simd>(s: S, row: &[Self], at: usize) -> S::F;
    /// Pairs of a row of bfloat16 from pair `at` on, as bits, zeros after its end.
    fn load_pairs<S: Simd>(_: S, _: &[Self], _: usize) -> S::F {
        unreachable!("pairs are of bfloat16")
    }
}

impl<T: Element> Lane for T {
    #[inline(always)]
    fn number(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, row: &[T], at: usize) -> S::F {
        rows::load(s, row, at)
    }
    #[inline(always)]
    fn load_pairs<S: Simd>(s: S, row: &[T], at: usize) -> S::F {
        rows::load_pairs(s, row, at)
    }
}

/// A mask: -inf where it is 0, else 0.
impl Lane for u8 {
    #[inline(always)]
    fn number(self) -> f32 {
        if self == 0 { f32::NEG_INFINITY } else { 0.0 }
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, row: &[u8], at: usize) -> S::F {
        let rest = row.get(at..).unwrap_or_default();
        let mut full = [0; 16];
        let rest = if rest.len() >= S::LANES {
            rest
        } else {
            full[..rest.len()].copy_from_slice(rest);
            &full
        };
        let x = s.load_u8(rest);
        s.select(s.ieq(x, s.isplat(0)), s.splat(f32::NEG_INFINITY), s.splat(0.0))
    }
}

/// Asks for the rows of a matrix, which will be read soon: a few requests at a time would wait for
/// the memory a few times.
pub(super) struct Fetch<'a, T>(pub Matrix<'a, T>);

impl<T: Copy> Kernel for Fetch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const LINE: usize = 64;
        /// More would push each other out.
        const LINES: usize = 256;
        let step = LINE / size_of::<T>();
        let lines = self.0.cols().div_ceil(step).max(1);
        let mut row = 0;
        while row < self.0.rows().min(LINES / lines) {
            if let Some(row) = self.0.row(row) {
                let mut at = 0;
                while at < row.len() {
                    s.prefetch(&row[at..]);
                    at += step;
                }
            }
            row += 1;
        }
    }
}

/// Brings the queries `[heads, rows, D]` of a tile into lanes, `to[d][lane]`; lanes without a row
/// get zeros.
pub(super) struct Pack<'a, 'b, T> {
    pub q: ArrayView3<'a, T>,
    /// How many elements of each row are brought; a few of those that follow are asked for.
    pub columns: usize,
    /// What the queries are multiplied by. Without it they stay what they are, in pairs of
    /// bfloat16: `to[d / 2][lane]`, a zero after an odd end.
    pub factor: Option<f32>,
    pub width: usize,
    pub to: &'b mut [f32],
}

impl<T: Lane> Kernel for Pack<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pack { q, columns: dim, factor, width, to } = self;
        let (heads, queries, _) = q.dim();
        let depth = if factor.is_some() { dim } else { dim.div_ceil(2) };
        let by = s.splat(factor.unwrap_or(1.0));
        let mut head = Matrix::new(q.index_axis_move(Axis(0), 0));
        let (mut at, mut row) = (0, 0);
        let mut lane = 0;
        while lane < width {
            let mut d = 0;
            if at < heads && row + S::LANES <= queries {
                d = squares(s, &head, row, dim, factor, &mut to[lane..], width);
            }
            // The rows of this block of lanes; one that is missing is empty.
            let mut rows = [&[][..]; 16];
            let mut gathered = false;
            let block = (at, row);
            for i in 0..S::LANES {
                if at == heads {
                    break;
                }
                match head.row(row) {
                    Some(r) => rows[i] = r,
                    None => gathered = true,
                }
                row += 1;
                if row == queries {
                    (at, row) = (at + 1, 0);
                    if at < heads {
                        head = Matrix::new(q.index_axis_move(Axis(0), at));
                    }
                }
            }
            if d >= depth {
                // Done.
            } else if gathered {
                scattered(&q, dim, block, S::LANES, factor, &mut to[lane..], width);
            } else {
                while d < depth {
                    let mut m = [s.splat(0.0); 16];
                    for i in 0..S::LANES {
                        m[i] = match factor {
                            Some(_) => s.mul(T::load(s, rows[i], d), by),
                            None => T::load_pairs(s, rows[i], d),
                        };
                        if let Some(next) = rows[i].get(dim + d..) {
                            s.prefetch_later_at(next.as_ptr().addr());
                        }
                    }
                    m = s.transpose(m);
                    for i in 0..S::LANES.min(depth - d) {
                        s.store(m[i], &mut to[(d + i) * width + lane..]);
                    }
                    d += S::LANES;
                }
            }
            lane += S::LANES;
        }
    }
}

/// The whole squares of one block of lanes, all of whose rows are there; returns the depth they reach.
#[inline(always)]
fn squares<S: Simd, T: Lane>(
    s: S,
    rows: &Matrix<T>,
    first: usize,
    dim: usize,
    factor: Option<f32>,
    to: &mut [f32],
    width: usize,
) -> usize {
    // Elements a lane takes.
    let (depth, step) = if factor.is_some() { (dim, 1) } else { (dim / 2, 2) };
    let by = s.splat(factor.unwrap_or(1.0));
    let follows = rows.cols() > dim;
    let mut d = 0;
    while d + S::LANES <= depth {
        let Some(square) = rows.block(first, step * d, S::LANES, step * S::LANES) else { break };
        let mut m = [s.splat(0.0); 16];
        for i in 0..S::LANES {
            let row = square.row(i);
            m[i] = match factor {
                Some(_) => s.mul(T::load(s, row, 0), by),
                None => T::load_pairs(s, row, 0),
            };
            if follows {
                s.prefetch_later_at(row.as_ptr().wrapping_add(dim).addr());
            }
        }
        m = s.transpose(m);
        for i in 0..S::LANES {
            s.store(m[i], &mut to[(d + i) * width..]);
        }
        d += S::LANES;
    }
    d
}

/// One block of lanes from rows whose elements are apart, element by element.
fn scattered<T: Lane>(
    q: &ArrayView3<T>,
    dim: usize,
    (mut head, mut row): (usize, usize),
    lanes: usize,
    factor: Option<f32>,
    to: &mut [f32],
    width: usize,
) {
    let (heads, queries, _) = q.dim();
    for lane in 0..lanes {
        if head == heads {
            for row in to.chunks_mut(width) {
                row[lane] = 0.0;
            }
            continue;
        }
        let m = Matrix::new(q.index_axis(Axis(0), head));
        match factor {
            Some(factor) => {
                for d in 0..dim {
                    to[d * width + lane] = m.get(row, d).number() * factor;
                }
            }
            None => {
                for pair in 0..dim.div_ceil(2) {
                    let bits = |d: usize| if d < dim { m.get(row, d).number().to_bits() } else { 0 };
                    let both = bits(2 * pair) >> 16 | bits(2 * pair + 1) & 0xffff_0000;
                    to[pair * width + lane] = f32::from_bits(both);
                }
            }
        }
        row += 1;
        if row == queries {
            (head, row) = (head + 1, 0);
        }
    }
}

/// Writes the lanes `from[d][lane]`, divided by their sums, as rows `[heads, rows, Dv]`.
pub(super) struct Unpack<'a, 'b, T> {
    pub from: &'b [f32],
    /// The sum of each lane; 0 makes the row 0. Without sums the numbers stay what they are.
    pub sums: Option<&'b [f32]>,
    pub width: usize,
    pub out: ArrayViewMut3<'a, T>,
}

impl<T: Element> Kernel for Unpack<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Unpack { from, sums, width, mut out } = self;
        let (_, queries, dim) = out.dim();
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let mut lane = 0;
        for head in out.outer_iter_mut() {
            let mut head = MatrixMut::new(head);
            let end = lane + queries;
            let mut row = 0;
            while lane < end {
                // Blocks begin where a vector of lanes does; a head may begin inside of one.
                let first = lane / S::LANES * S::LANES;
                let count = (first + S::LANES).min(end) - lane;
                let l = match sums {
                    Some(sums) => s.load(&sums[first..]),
                    None => one,
                };
                let empty = s.eq(l, zero);
                let inverse = s.div(one, l);
                let mut d = 0;
                while d < dim {
                    let mut m = [zero; 16];
                    for i in 0..S::LANES.min(dim - d) {
                        let o = s.load(&from[(d + i) * width + first..]);
                        m[i] = match sums {
                            // Adding +0 turns a negative zero, which could depend on trimming, into +0.
                            Some(_) => s.select(empty, zero, s.fma(o, inverse, zero)),
                            None => o,
                        };
                    }
                    m = s.transpose(m);
                    if count == S::LANES
                        && let Some(mut square) = head.block(row, d, S::LANES, S::LANES)
                    {
                        for i in 0..S::LANES {
                            store_row(s, m[i], square.row(i));
                        }
                        d += S::LANES;
                        continue;
                    }
                    for i in 0..count {
                        store(s, m[lane - first + i], &mut head, row + i, d);
                    }
                    d += S::LANES;
                }
                row += count;
                lane += count;
            }
        }
    }
}
