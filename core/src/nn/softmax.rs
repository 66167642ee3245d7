//! Softmax and its logarithm.

use ndarray::{Dimension, IxDyn};

use super::lanes::{Lanes, Operand, Target, fill, part, two};
use super::row_loop::Run;
use super::rows::{Input, RowOp, Several, for_rows, lend};
use super::sum::{Term, row_sum};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};
use crate::math::{exp_each, log};
use crate::tensor::{Floats, FloatsMut, Row};

#[derive(Clone, Copy)]
struct Softmax {
    /// Whether the logarithm is wanted.
    log: bool,
}

impl Softmax {
    fn of_rows(self, x: Input, out: FloatsMut<IxDyn>) -> Result<()> {
        for_rows(self, [x], None, out)
    }
}

impl RowOp<1> for Softmax {
    const COST: u64 = 50;
    fn task(task: Run<Self, 1>) {
        task.in_a_loop::<1>();
    }
    fn needs_room(self) -> bool {
        !self.log
    }
    /// What is subtracted.
    type Seen = f32;
    #[inline(always)]
    fn look<S: Simd>(self, s: S, rows: &impl Several, seen: &mut [f32]) {
        for (r, base) in seen.iter_mut().enumerate() {
            let largest = largest(s, rows.row(r));
            // A row of -infinity alone has nothing to subtract.
            *base = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
        }
    }
    #[inline(always)]
    fn run<S: Simd>(
        self,
        s: S,
        base: f32,
        [x]: [Operand; 1],
        _: Option<Target>,
        mut out: Target,
        room: &mut [f32],
    ) {
        let Operand::Row(x) = x else { unreachable!("softmax is not in place") };
        if self.log {
            let sum = row_sum(s, x, Powers { base, to: &mut [] });
            let mut logs = [0.0; 16];
            if sum != 0.0 {
                s.store(log(s, s.splat(sum)), &mut logs);
            }
            fill(s, Below(base, logs[0]), [Operand::Row(x)], &mut out);
        } else {
            let room = &mut room[..x.len()];
            let sum = row_sum(s, x, Powers { base, to: &mut *room });
            fill(s, Times(inverse(sum)), [Operand::Row(Row::F32(room))], &mut out);
        }
    }
}

/// What exponentials are multiplied by; 0 where there is none.
#[inline(always)]
fn inverse(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}

/// `x` times a number.
#[derive(Clone, Copy)]
struct Times(f32);

impl Lanes<1> for Times {
    const COST: u64 = 1;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x]: [[S::F; K]; 1]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.mul(x[k], s.splat(self.0));
        }
        x
    }
}

/// `x` less a number, and then another.
#[derive(Clone, Copy)]
struct Below(f32, f32);

impl Lanes<1> for Below {
    const COST: u64 = 2;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x]: [[S::F; K]; 1]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.sub(s.sub(x[k], s.splat(self.0)), s.splat(self.1));
        }
        x
    }
}

/// `e^(x - base)`, of the largest `x` or less; kept where there is a place.
struct Powers<'a> {
    base: f32,
    to: &'a mut [f32],
}

impl Term for Powers<'_> {
    const ANYWHERE: bool = false;
    #[inline(always)]
    fn neutral(&self) -> f32 {
        f32::NEG_INFINITY
    }
    #[inline(always)]
    fn add<S: Simd, const K: usize>(
        &mut self,
        s: S,
        mut sums: [S::F; K],
        mut x: [S::F; K],
        at: usize,
    ) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.sub(x[k], s.splat(self.base));
        }
        x = exp_each(s, x);
        for k in 0..K {
            sums[k] = s.add(sums[k], x[k]);
        }
        // One comparison for all: between them the vectors would be computed one after the other.
        let rest = self.to.get_mut(at..).unwrap_or_default();
        if rest.len() >= K * S::LANES {
            for k in 0..K {
                s.store(x[k], &mut rest[k * S::LANES..]);
            }
        } else if !rest.is_empty() {
            s.store_partial(x[0], rest);
        }
        sums
    }
}

/// The largest element that is not NaN.
#[inline(always)]
fn largest<S: Simd>(s: S, x: Row) -> f32 {
    let mut most = [s.splat(f32::NEG_INFINITY); 2];
    let mut at = 0;
    while at + 2 * S::LANES <= x.len() {
        let [a, b] = two(s, x, at);
        // The second operand wins over NaN.
        most = [s.max(a, most[0]), s.max(b, most[1])];
        at += 2 * S::LANES;
    }
    while at < x.len() {
        let count = S::LANES.min(x.len() - at);
        most[0] = s.max(part(s, x, at, count, f32::NEG_INFINITY), most[0]);
        at += count;
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    s.store(s.max(most[0], most[1]), &mut lanes);
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            if lanes[i + half] > lanes[i] {
                lanes[i] = lanes[i + half];
            }
        }
    }
    lanes[0]
}

fn apply<D: Dimension>(log: bool, x: Floats<D>, out: FloatsMut<D>) -> Result<()> {
    if x.shape().is_empty() {
        return Err(Error::shape("x", x.shape(), "at least one axis"));
    }
    check_shape("out", out.shape(), x.shape())?;
    Softmax { log }.of_rows(lend(x), out.into_dyn())
}

/// `e^x / sum e^x` over the last axis of `x`; `x` and `out` are f32, f16 or bf16 each.
///
/// The largest element is subtracted first, so no finite row overflows. A row of -infinity alone gives 0,
/// as attention does; a NaN or +infinity makes its row NaN.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::softmax(arr2(&[[1000.0, 1000.0]]).view(), out.view_mut())?;
/// assert_eq!(out, arr2(&[[0.5, 0.5]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has no axis or `out` not its shape.
pub fn softmax<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apply(false, x.into(), out.into())
}

/// `x - log sum e^x` over the last axis of `x`; `x` and `out` are f32, f16 or bf16 each.
///
/// A row of -infinity alone stays so; a NaN or +infinity makes its row NaN.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::log_softmax(arr2(&[[-7.0, -7.0]]).view(), out.view_mut())?;
/// assert_eq!(out, arr2(&[[-std::f32::consts::LN_2; 2]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has no axis or `out` not its shape.
pub fn log_softmax<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apply(true, x.into(), out.into())
}
