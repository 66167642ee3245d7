//! `y = residual + gate * act(x w^T + b)`.

use ndarray::{ArrayView2, ArrayViewMut2, Ix2};

use super::backend::{Backend, backend};
use super::block::{Block, MAX_ROWS, room_len};
use super::check_strides;
use super::epilogue::{Finish, Tail};
use super::options::LinearOptions;
use super::packed::{PANEL, PackedLinear};
use crate::arch::{Matrix, MatrixMut, blas, dispatch, dispatch_at, dots_at, level};
use crate::error::{Error, Result, check_shape};
use crate::tensor::{Dtype, Element, Floats, FloatsMut};
use crate::threads;

/// `out[m][n] = act(sum over k of x[m][k] * w[n][k] + b[n])`, then what [`LinearOptions`] say.
///
/// `x` is `[rows, in]`, `out` `[rows, out]`, each f32, f16 or bf16; strides are free except that they
/// may not be negative and that elements of `out` must be apart. `out` is untouched on error.
///
/// With `x` and weights of bf16, products are of bf16 pairs with sums in f32 (twice as fast on processors of AMD with
/// AVX512-BF16, about as fast as in f32 elsewhere). Any other mix is widened exactly and computed in f32.
/// The result is rounded once, to nearest, ties to even: the bits are those of this layer with an output of
/// f32, followed by [`swiglu`](crate::nn::swiglu) or [`geglu`](crate::nn::geglu) where the layer is
/// [gated](PackedLinear::pack_gated), and by [`gate_residual`](crate::nn::gate_residual).
///
/// # Errors
/// [`Error::Shape`] and [`Error::Stride`] name the argument that does not fit.
///
/// ```
/// use dgm_core::linalg::{Activation, PackedLinear, linear};
/// use dgm_core::tensor::bf16;
/// use ndarray::{Array2, array};
/// let weight = array![[1.0f32, 2.0], [3.0, 4.0]];
/// let w = PackedLinear::pack(weight.view(), Some(array![0.5f32, 0.0].view().into()))?;
/// let mut y = Array2::<f32>::zeros((1, 2));
/// linear(array![[1.0f32, 1.0]].view(), &w, Activation::None, y.view_mut())?;
/// assert_eq!(y, array![[3.5, 7.0]]);
///
/// let w = PackedLinear::pack(weight.mapv(bf16::from_f32).view(), None)?;
/// let mut y = Array2::from_elem((1, 2), bf16::ZERO);
/// linear(Array2::from_elem((1, 2), bf16::ONE).view(), &w, Activation::None, y.view_mut())?;
/// assert_eq!(y.mapv(f32::from), array![[3.0, 7.0]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn linear<'a, 'e, 'o>(
    x: impl Into<Floats<'a, Ix2>>,
    w: &PackedLinear,
    options: impl Into<LinearOptions<'e>>,
    out: impl Into<FloatsMut<'o, Ix2>>,
) -> Result<()> {
    let (x, options, out): (Floats<_>, LinearOptions, FloatsMut<_>) = (x.into(), options.into(), out.into());
    let rows = x.shape()[0];
    if x.shape()[1] != w.in_features() {
        return Err(Error::shape("x", x.shape(), format!("[rows, {}]", w.in_features())));
    }
    check_shape("out", out.shape(), &[rows, w.out_features()])?;
    check_strides("x", x.shape(), x.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    options.check(rows, w.out_features())?;
    run(x.reborrow(), w, Tail::new(options, rows), out.reborrow());
    Ok(())
}

/// [`linear`] on contiguous rows; panics when a slice is too short or the options do not fit.
pub(crate) fn linear_rows<'e, X: Element, Y: Element>(
    x: &[X],
    rows: usize,
    w: &PackedLinear,
    options: impl Into<LinearOptions<'e>>,
    out: &mut [Y],
) {
    let options: LinearOptions = options.into();
    let (inputs, outputs) = (w.in_features(), w.out_features());
    let x = ArrayView2::from_shape((rows, inputs), &x[..rows * inputs]).expect("as many as counted");
    let out = &mut out[..rows * outputs];
    let out = ArrayViewMut2::from_shape((rows, outputs), out).expect("as many as counted");
    options.check(rows, outputs).expect("options of this layer");
    run(X::floats(x), w, Tail::new(options, rows), Y::floats_mut(out));
}

/// Rows that the microkernel takes at once where vectors are of 16 lanes.
const AT_ONCE: usize = 12;

/// Rows a task: of a short depth the block of x stays in L2 while panels stream past it, of a long one a panel is read
/// for as many rows as that is worth. A copy of x takes no more memory than it has to. Blocks are as even as multiples
/// of 12 allow; there is at least a row.
fn block_rows(rows: usize, depth: usize, copied: bool) -> usize {
    const BLOCK_FLOATS: usize = 128 * 1024;
    let most =
        (BLOCK_FLOATS / depth.max(1) / AT_ONCE * AT_ONCE).clamp(if copied { 24 } else { 48 }, MAX_ROWS);
    rows.div_ceil(rows.div_ceil(most)).next_multiple_of(AT_ONCE).min(rows)
}

/// About how many floating-point operations the time of reading a weight from memory would allow.
const READ: usize = 16;

/// Panels a task: enough work to be worth handing to a thread, more where none waits for it, and to be worth a copy of
/// `x`.
fn block_panels(rows: usize, depth: usize, copied: bool, shared: bool) -> usize {
    let task_work = if shared { 2_000_000 } else { 8_000_000 };
    let panel = PANEL * depth.max(1) * (2 * rows.max(1) + READ);
    (task_work / panel).max(if copied { 8 } else { 1 })
}

struct Task<'a> {
    /// Its first row.
    row: usize,
    x: Floats<'a, Ix2>,
    panel: usize,
    out: FloatsMut<'a, Ix2>,
}

/// Cuts the output into blocks of `rows` by `columns`: through all rows before the next columns, so that weights are
/// read once, or through all columns before the next rows, so that inputs are. The last strip of blocks is cut into
/// blocks of `last_rows`, so that no thread waits long for the others in the end.
struct Tasks<'a> {
    x: Floats<'a, Ix2>,
    rows: usize,
    columns: usize,
    last_rows: usize,
    /// Outputs a panel.
    panel: usize,
    down: bool,
    /// Where the next block begins.
    row: usize,
    column: usize,
    /// What is left of the present row or column of blocks; the others.
    strip: Option<FloatsMut<'a, Ix2>>,
    rest: Option<FloatsMut<'a, Ix2>>,
}

/// The first `at` of an axis, and the rest where there is one.
fn cut(out: FloatsMut<Ix2>, axis: usize, at: usize) -> (FloatsMut<Ix2>, Option<FloatsMut<Ix2>>) {
    let (first, rest) = {
        let at = at.min(out.shape()[axis]);
        out.split_at(axis, at)
    };
    (first, (rest.shape()[axis] > 0).then_some(rest))
}

impl<'a> Iterator for Tasks<'a> {
    type Item = Task<'a>;

    fn next(&mut self) -> Option<Task<'a>> {
        let (across, along) = if self.down { (1, 0) } else { (0, 1) };
        let strip = match self.strip.take() {
            Some(strip) => strip,
            None => {
                let rest = self.rest.take()?;
                if rest.shape()[across] <= [self.rows, self.columns][across] {
                    self.rows = self.last_rows;
                }
                let (strip, rest) = cut(rest, across, [self.rows, self.columns][across]);
                self.rest = rest;
                strip
            }
        };
        let (out, strip) = cut(strip, along, [self.rows, self.columns][along]);
        let (row, column) = (self.row, self.column);
        let (rows, columns) = (out.shape()[0], out.shape()[1]);
        (self.row, self.column) = match (self.down, strip.is_some()) {
            (true, true) => (row + rows, column),
            (true, false) => (0, column + columns),
            (false, true) => (row, column + columns),
            (false, false) => (row + rows, 0),
        };
        self.strip = strip;
        let x = self.x.clone().split_at(0, row).1.split_at(0, rows).0;
        Some(Task { row, x, panel: column / self.panel, out })
    }
}

/// `count` parts of the rows.
fn parts<'a>(
    x: Floats<'a, Ix2>,
    out: FloatsMut<'a, Ix2>,
    count: usize,
) -> impl Iterator<Item = (usize, Floats<'a, Ix2>, FloatsMut<'a, Ix2>)> {
    let each = x.shape()[0].div_ceil(count).next_multiple_of(AT_ONCE);
    threads::pieces((0, x, out), move |(first, x, out)| {
        let at = each.min(x.shape()[0]);
        let ((x, next), (out, below)) = (x.split_at(0, at), out.split_at(0, at));
        let rest = (below.shape()[0] > 0).then_some((first + at, next, below));
        ((first, x, out), rest)
    })
}

fn run<'a>(x: Floats<'a, Ix2>, w: &PackedLinear, tail: Tail<'a>, mut out: FloatsMut<'a, Ix2>) {
    let [rows, depth] = *x.shape() else { unreachable!("two axes") };
    let outputs = out.shape()[1];
    if rows == 0 || outputs == 0 {
        return;
    }
    // The product would take the place of what is added to.
    if backend() == Backend::Blas
        && !tail.adds_onto_out()
        && let (Floats::F32(x), FloatsMut::F32(out), Some(plain)) = (&x, &mut out, w.plain())
        && blas::product(Matrix::new(*x), plain, &mut MatrixMut::new(out.view_mut()))
    {
        return finish(w, tail, MatrixMut::new(out.view_mut()));
    }
    let level = level();
    let (pairs, dots) = (x.dtype() == Dtype::Bf16 && w.dtype() == Dtype::Bf16, dots_at(level));
    let copied = match pairs && dots {
        true => x.strides()[1] != 1 || depth % 2 != 0,
        false => x.dtype() != Dtype::F32,
    };
    let work = {
        let work = rows as u64 * 2 + READ as u64 * rows.div_ceil(block_rows(rows, depth, copied)) as u64;
        // A gated layer has a second half.
        let sums = outputs as u64 * (PANEL / w.columns()) as u64;
        work * (depth as u64 + 1) * sums
    };
    // A part for each thread where each is worth it.
    let count = threads::parts(work).min(rows / MAX_ROWS).max(1);
    let parallel = threads::is_parallel(work);
    let tasks = parts(x, out, count).map(|(first, x, out)| {
        let rows = x.shape()[0];
        let block = block_rows(rows, depth, copied);
        let panels = block_panels(block, depth, copied, parallel && count == 1).min(w.panels());
        // A gated layer has twice as many weights.
        let (panel, down) = (w.columns(), rows < w.panels() * PANEL);
        let tasks = Tasks {
            x,
            rows: block,
            columns: panels * panel,
            last_rows: if parallel { block.min(2 * AT_ONCE) } else { block },
            panel,
            down,
            row: 0,
            column: 0,
            strip: None,
            rest: Some(out),
        };
        tasks.map(move |task| Task { row: first + task.row, ..task })
    });
    threads::for_each_in(tasks, work, |Task { row, x, panel, out }| {
        let tail = tail.after(row);
        threads::with_scratch(room_len(&x, w, dots), |room| match pairs {
            true => dispatch_at(level, Block::<true> { x, w, tail, panel, out, room }),
            false => dispatch_at(level, Block::<false> { x, w, tail, panel, out, room }),
        });
    });
}

/// All that follows a product that lies in `out`, by blocks of rows.
fn finish(w: &PackedLinear, tail: Tail, out: MatrixMut) {
    const ROWS: usize = 32;
    const WORK: u64 = 32; // operations an element, about, of an activation
    let work = WORK * out.rows() as u64 * out.cols() as u64;
    let blocks = threads::pieces(out, |out| {
        let at = ROWS.min(out.rows());
        let (block, below) = out.split_rows(at);
        (block, (below.rows() > 0).then_some(below))
    });
    let blocks = (0..).step_by(ROWS).zip(blocks);
    threads::for_each(blocks, work, |(row, out)| dispatch(Finish { w, tail: tail.after(row), out }));
}
