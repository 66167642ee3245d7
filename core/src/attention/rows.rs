//! Rows of memory to lanes and back, a square block of vectors at a time.

use ndarray::{ArrayView3, ArrayViewMut3, Axis};

use crate::arch::{Kernel, Matrix, MatrixMut, Simd};
use crate::linalg::rows::{load, load_pairs, store};
use crate::tensor::Element;

/// Brings the queries `[heads, rows, D]` of a tile into lanes, `to[d][lane]`; lanes without a row
/// get zeros.
pub(super) struct Pack<'a, 'b, T> {
    pub q: ArrayView3<'a, T>,
    /// What the queries are multiplied by. Without it they stay what they are, in pairs of
    /// bfloat16: `to[d / 2][lane]`, a zero after an odd end.
    pub factor: Option<f32>,
    pub width: usize,
    pub to: &'b mut [f32],
}

impl<T: Element> Kernel for Pack<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pack { q, factor, width, to } = self;
        let (heads, queries, dim) = q.dim();
        let depth = if factor.is_some() { dim } else { dim.div_ceil(2) };
        let by = s.splat(factor.unwrap_or(1.0));
        let mut head = Matrix::new(q.index_axis_move(Axis(0), 0));
        let (mut at, mut row) = (0, 0);
        let mut lane = 0;
        while lane < width {
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
            if gathered {
                scattered(&q, block, S::LANES, factor, &mut to[lane..], width);
            } else {
                let mut d = 0;
                while d < depth {
                    let mut m = [s.splat(0.0); 16];
                    for i in 0..S::LANES {
                        m[i] = match factor {
                            Some(_) => s.mul(load(s, rows[i], d), by),
                            None => load_pairs(s, rows[i], d),
                        };
                    }
                    s.transpose(&mut m);
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

/// One block of lanes from rows whose elements are apart, element by element.
fn scattered<T: Element>(
    q: &ArrayView3<T>,
    (mut head, mut row): (usize, usize),
    lanes: usize,
    factor: Option<f32>,
    to: &mut [f32],
    width: usize,
) {
    let (heads, queries, dim) = q.dim();
    for lane in 0..lanes {
        let get = |d: usize| if head < heads && d < dim { q[[head, row, d]].to_f32() } else { 0.0 };
        match factor {
            Some(factor) => {
                for d in 0..dim {
                    to[d * width + lane] = get(d) * factor;
                }
            }
            None => {
                for pair in 0..dim.div_ceil(2) {
                    let bits = |d: usize| get(d).to_bits();
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

/// Divides the lanes `from[d][lane]` by their sums and writes them as rows `[heads, rows, Dv]`.
pub(super) struct Unpack<'a, 'b, T> {
    pub from: &'b [f32],
    /// The sum of each lane; 0 makes the row 0.
    pub sums: &'b [f32],
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
                let l = s.load(&sums[first..]);
                let empty = s.eq(l, zero);
                let inverse = s.div(one, l);
                let mut d = 0;
                while d < dim {
                    let mut m = [zero; 16];
                    for i in 0..S::LANES.min(dim - d) {
                        // Adding +0 turns a negative zero, which could depend on trimming, into +0.
                        let o = s.fma(s.load(&from[(d + i) * width + first..]), inverse, zero);
                        m[i] = s.select(empty, zero, o);
                    }
                    s.transpose(&mut m);
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
