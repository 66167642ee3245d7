//! `y = act(x w^T + b)`.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::backend::{Backend, backend};
use super::check_strides;
use super::packed::{PANEL, PackedLinear};
use crate::arch::{Kernel, Matrix, MatrixMut, Simd, Sink, blas, dispatch, multiply};
use crate::error::{Error, Result, check_shape};
use crate::math::slice::{Function, GeluErf, GeluTanh, Silu};
use crate::threads;

/// What follows the bias of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `x * sigmoid(x)` (arXiv 1702.03118).
    Silu,
    /// GELU with the tanh approximation (arXiv 1606.08415).
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
}

/// `out[m][n] = act(sum over k of x[m][k] * w[n][k] + b[n])`.
///
/// `x` is `[rows, in]`, `out` `[rows, out]`; strides are free except that they may not be
/// negative and that elements of `out` must be apart. `out` is untouched on error.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Stride`] name the argument that does not fit.
///
/// ```
/// use dgm_core::linalg::{Activation, PackedLinear, linear};
/// use ndarray::{Array2, array};
/// let w = PackedLinear::pack(array![[1.0, 2.0], [3.0, 4.0]].view(), Some(array![0.5, 0.0].view()))?;
/// let mut y = Array2::zeros((1, 2));
/// linear(array![[1.0, 1.0]].view(), &w, Activation::None, y.view_mut())?;
/// assert_eq!(y, array![[3.5, 7.0]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn linear(x: ArrayView2<f32>, w: &PackedLinear, act: Activation, out: ArrayViewMut2<f32>) -> Result<()> {
    if x.ncols() != w.in_features() {
        return Err(Error::shape("x", x.shape(), format!("[rows, {}]", w.in_features())));
    }
    check_shape("out", out.shape(), &[x.nrows(), w.out_features()])?;
    check_strides("x", x.shape(), x.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    run(Matrix::new(x), w, act, MatrixMut::new(out));
    Ok(())
}

/// [`linear`] on contiguous rows; panics when a slice is too short.
pub(crate) fn linear_rows(x: &[f32], rows: usize, w: &PackedLinear, act: Activation, out: &mut [f32]) {
    run(
        Matrix::from_slice(x, rows, w.in_features()),
        w,
        act,
        MatrixMut::from_slice(out, rows, w.out_features()),
    );
}

/// Rows a task: the block of x stays in L2 while panels stream past it.
fn block_rows(depth: usize) -> usize {
    const BLOCK_FLOATS: usize = 128 * 1024;
    (BLOCK_FLOATS / depth.max(1) / 12 * 12).clamp(24, 96)
}

/// Panels a task: enough work to be worth handing to a thread.
fn block_panels(rows: usize, depth: usize) -> usize {
    const TASK_WORK: usize = 2_000_000;
    (TASK_WORK / (2 * PANEL * rows.max(1) * depth.max(1))).max(1)
}

struct Task<'a> {
    row: usize,
    panel: usize,
    out: MatrixMut<'a>,
}

/// Cuts the output into blocks of `rows` by `panels`.
struct Tasks<'a> {
    rows: usize,
    panels: usize,
    row: usize,
    panel: usize,
    /// What is left of the present row of blocks, and the rows below it.
    right: Option<MatrixMut<'a>>,
    below: Option<MatrixMut<'a>>,
}

impl<'a> Iterator for Tasks<'a> {
    type Item = Task<'a>;

    fn next(&mut self) -> Option<Task<'a>> {
        let right = match self.right.take() {
            Some(right) => right,
            None => {
                let below = self.below.take()?;
                let (top, rest) = {
                    let at = self.rows.min(below.rows());
                    below.split_rows(at)
                };
                self.below = (rest.rows() > 0).then_some(rest);
                top
            }
        };
        let at = (self.panels * PANEL).min(right.cols());
        let (out, rest) = right.split_cols(at);
        let task = Task { row: self.row, panel: self.panel, out };
        if rest.cols() > 0 {
            self.panel += self.panels;
            self.right = Some(rest);
        } else {
            self.row += self.rows;
            self.panel = 0;
        }
        Some(task)
    }
}

fn run(x: Matrix, w: &PackedLinear, act: Activation, mut out: MatrixMut) {
    if out.rows() == 0 || out.cols() == 0 {
        return;
    }
    if backend() == Backend::Blas && blas::product(x, w.plain(), &mut out) {
        return finish(w, act, out);
    }
    let rows = block_rows(x.cols()).min(x.rows());
    let panels = block_panels(rows, x.cols()).min(w.panels());
    let work = 2 * (x.rows() as u64) * (x.cols() as u64 + 1) * (w.out_features() as u64);
    let tasks = Tasks { rows, panels, row: 0, panel: 0, right: None, below: Some(out) };
    threads::for_each(tasks, work, |task: Task| {
        let x = x.slice_rows(task.row, task.out.rows());
        dispatch(Block { x, w, act, panel: task.panel, out: task.out });
    });
}

/// Bias and activation of a product, by blocks of rows.
fn finish(w: &PackedLinear, act: Activation, out: MatrixMut) {
    const ROWS: usize = 32;
    const WORK: u64 = 32; // operations an element, about, of an activation
    let work = WORK * out.rows() as u64 * out.cols() as u64;
    let mut rest = Some(out);
    let blocks = std::iter::from_fn(|| {
        let out = rest.take()?;
        let (block, below) = {
            let at = ROWS.min(out.rows());
            out.split_rows(at)
        };
        rest = (below.rows() > 0).then_some(below);
        Some(block)
    });
    threads::for_each(blocks, work, |out| dispatch(Finish { w, act, out }));
}

struct Finish<'a> {
    w: &'a PackedLinear,
    act: Activation,
    out: MatrixMut<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for panel in 0..self.w.panels() {
            let col = panel * PANEL;
            let len = PANEL.min(self.out.cols() - col);
            for r in 0..self.out.rows() {
                for (i, bias) in self.w.bias(panel)[..len].iter().enumerate() {
                    let sum = self.out.get(r, col + i) + bias;
                    self.out.set(r, col + i, sum);
                }
            }
            activate(s, self.act, &mut self.out, col, len);
        }
    }
}

/// One task: a block of rows through a few panels.
struct Block<'a> {
    x: Matrix<'a>,
    w: &'a PackedLinear,
    act: Activation,
    panel: usize,
    out: MatrixMut<'a>,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut col = 0;
        let mut panel = self.panel;
        while col < self.out.cols() {
            let len = PANEL.min(self.out.cols() - col);
            let mut sink = Store { out: &mut self.out, bias: self.w.bias(panel), col, len };
            multiply(s, self.x, self.w.panel(panel), PANEL, &mut sink);
            activate(s, self.act, &mut self.out, col, len);
            col += len;
            panel += 1;
        }
    }
}

/// Adds the bias and writes the columns of one panel.
struct Store<'a, 'b> {
    out: &'a mut MatrixMut<'b>,
    bias: &'a [f32],
    col: usize,
    len: usize,
}

impl<S: Simd> Sink<S> for Store<'_, '_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            if self.len == PANEL
                && let Some(out) = self.out.row(row + r)
            {
                let out = &mut out[self.col + lane..];
                for v in 0..NV {
                    let bias = s.load(&self.bias[lane + v * S::LANES..]);
                    s.store(s.add(acc[r][v], bias), &mut out[v * S::LANES..]);
                }
                continue;
            }
            // A narrow panel or separated columns: through a buffer.
            let mut tmp = [0.0; 64];
            for v in 0..NV {
                let bias = s.load(&self.bias[lane + v * S::LANES..]);
                s.store(s.add(acc[r][v], bias), &mut tmp[v * S::LANES..]);
            }
            let mut i = 0;
            while i < NV * S::LANES && lane + i < self.len {
                self.out.set(row + r, self.col + lane + i, tmp[i]);
                i += 1;
            }
        }
    }
}

/// Applies the activation to the columns just written, while they are in L1.
#[inline(always)]
fn activate<S: Simd>(s: S, act: Activation, out: &mut MatrixMut, col: usize, len: usize) {
    match act {
        Activation::None => {}
        Activation::Silu => map(s, out, col, len, Silu),
        Activation::GeluTanh => map(s, out, col, len, GeluTanh),
        Activation::GeluErf => map(s, out, col, len, GeluErf),
    }
}

#[inline(always)]
fn map<S: Simd>(s: S, out: &mut MatrixMut, col: usize, len: usize, f: impl Function) {
    let mut tmp = [0.0; PANEL];
    for r in 0..out.rows() {
        // A full row of the panel stays where it is; others go through a buffer.
        let direct = len == PANEL && out.row(r).is_some();
        if !direct {
            for i in 0..len {
                tmp[i] = out.get(r, col + i);
            }
        }
        let values = match out.row(r) {
            Some(row) if direct => &mut row[col..col + PANEL],
            _ => &mut tmp[..],
        };
        let mut i = 0;
        while i < PANEL {
            let v = s.load(&values[i..]);
            s.store(f.eval(s, v), &mut values[i..]);
            i += S::LANES;
        }
        if !direct {
            for i in 0..len {
                out.set(r, col + i, tmp[i]);
            }
        }
    }
}
