//! Rows of a table by their numbers.

use ndarray::{Ix2, Ix4};

use super::lanes::{Operand, Same, Target, ask, fill_asking};
use super::rows::{PART, SHORT, goes_past, task_size};
use super::stored::{Rows, RowsMut};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::tensor::{Floats, FloatsMut, Row, RowMut};
use crate::threads;

/// `out[n] = table[indices[n]]`, with `table` `[V, d]` and `out` `[N, d]`, f32, f16 or bf16 each.
///
/// Where the types are the same this is a copy, else numbers are widened exactly and rounded once.
///
/// ```
/// use ndarray::{Array2, array};
/// let table = array![[1.0, 2.0], [3.0, 4.0]];
/// let mut out = Array2::<f32>::zeros((3, 2));
/// dgm_core::nn::embedding(table.view(), &[1, 0, 1], out.view_mut())?;
/// assert_eq!(out, array![[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `out` is not `[N, d]`; [`Error::Range`] for an index outside the table.
pub fn embedding<'a, 'o>(
    table: impl Into<Floats<'a, Ix2>>,
    indices: &[i64],
    out: impl Into<FloatsMut<'o, Ix2>>,
) -> Result<()> {
    copy_rows(table.into(), indices, out.into())
}

fn copy_rows(table: Floats<Ix2>, indices: &[i64], out: FloatsMut<Ix2>) -> Result<()> {
    let &[rows, d] = table.shape() else { unreachable!("two axes") };
    check_shape("out", out.shape(), &[indices.len(), d])?;
    let inside = |i: i64| usize::try_from(i).is_ok_and(|i| i < rows);
    if let Some(at) = indices.iter().position(|&i| !inside(i)) {
        let got = format!("{} (element {at})", indices[at]);
        return Err(Error::range("indices", got, format!("numbers of rows, 0 to {}", rows as i64 - 1)));
    }
    if indices.is_empty() || d == 0 {
        return Ok(());
    }
    let table = table.insert_axis().insert_axis();
    let out = out.insert_axis().insert_axis();
    let past = goes_past(&out) && d * out.dtype().size() >= SHORT;
    let count = (task_size(past) / d).max(1);
    let work = 2 * (indices.len() * d) as u64;
    // Neighbouring tasks are of one thread, unless another helps, so that one asks for the first rows of the next.
    let share = indices.len().div_ceil(threads::parts(work));
    let tasks = cut((indices, out), share).map(|part| cut(part, count));
    threads::for_each_in(tasks, work, |(indices, out)| dispatch(Copy { table: &table, indices, out, past }));
    Ok(())
}

/// Rows of an output, and the indices of those and of all that follow.
type Lookup<'i, 'o> = (&'i [i64], FloatsMut<'o, Ix4>);

/// Cuts into parts of at most `count` rows.
fn cut<'i, 'o>(rows: Lookup<'i, 'o>, count: usize) -> impl Iterator<Item = Lookup<'i, 'o>> {
    threads::pieces(rows, move |(indices, out)| {
        if out.shape()[2] <= count {
            return ((indices, out), None);
        }
        let (part, behind) = out.split_at(2, count);
        ((indices, part), Some((&indices[count..], behind)))
    })
}

/// Bytes of rows between the one that is copied and the one that is asked for: they may lie anywhere, and so may the
/// tables by which the processor finds their pages.
const AHEAD: usize = 32 * 1024;

struct Copy<'r, 'a, 'o> {
    table: &'r Floats<'a, Ix4>,
    /// Those of the rows of `out`, and of some that follow.
    indices: &'r [i64],
    out: FloatsMut<'o, Ix4>,
    past: bool,
}

impl Kernel for Copy<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Copy { table, indices, mut out, past } = self;
        // A copy of what lies apart is read again at once.
        let past = past && out.strides()[3] == 1;
        let (rows, d) = (out.shape()[2], table.shape()[3]);
        let copied = table.strides()[3] != 1 || out.strides()[3] != 1;
        let ahead = AHEAD.div_ceil(d * table.dtype().size());
        let (table, mut out) = (Rows::new(table, [0, 0]), RowsMut::new(&mut out, [0, 0]));
        let (mut room, mut for_out) = ([0.0; PART], [0.0; PART]);
        let part = if copied { PART } else { d };
        for (n, &index) in indices[..rows].iter().enumerate() {
            let next = indices.get(n + ahead).filter(|_| !copied);
            let next = next.map(|&next| table.row((next as usize, 0, d), &mut [], false));
            let mut from = 0;
            while from < d {
                let len = part.min(d - from);
                // The index was checked.
                let numbers = table.row((index as usize, from, len), &mut room, false);
                let mut to = Target { row: out.row((n, from, len), &mut for_out), past };
                put(s, numbers, &mut to, next);
                out.put_back((n, from, len), &mut for_out);
                from += len;
            }
        }
        if past {
            s.settle();
        }
    }
}

/// A row of the table in the type of the output, and a request for another row.
#[inline(always)]
fn put<S: Simd>(s: S, from: Row, to: &mut Target, next: Option<Row>) {
    let past = to.past;
    let head = if past { to.row.before_a_line() } else { 0 };
    let (from, to) = match (from, &mut to.row) {
        (Row::F16(from), RowMut::F16(to)) | (Row::Bf16(from), RowMut::Bf16(to)) => (&from[..to.len()], to),
        _ => return fill_asking(s, Same, [Operand::Row(from)], to, next),
    };
    let end = to.len() - (to.len() - head) % (2 * S::LANES);
    for at in (head..end).step_by(2 * S::LANES) {
        if let Some(next) = next {
            ask(s, next.slice(at, 2 * S::LANES));
        }
        let (pairs, to) = (s.load_pairs(&from[at..]), &mut to[at..]);
        if past { s.stream_pairs(pairs, to) } else { s.store_pairs(pairs, to) }
    }
    to[..head].copy_from_slice(&from[..head]);
    to[end..].copy_from_slice(&from[end..]);
}
