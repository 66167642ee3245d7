//! Functions of one 16-bit number as tables: there are only 65,536 such numbers, and a value may be read in half the
//! time in which it is computed.

use std::sync::OnceLock;

use ndarray::{ArrayView1, ArrayViewMut1};

use super::lanes::{Lanes, Operand, Target};
use super::rows::{RowOp, for_elements, lend};
use crate::arch::{FpEnv, Simd};
use crate::tensor::{Dtype, Element, Row, RowMut, bf16, f16};

/// How many 16-bit numbers there are.
const NUMBERS: usize = 1 << 16;

type Values = Box<[u16; NUMBERS]>;

/// The values of a function of one number, rounded to the type of the number. They are those that the function's own
/// kernel gives, so which of the two is asked changes no bit.
pub(super) struct Tables {
    f16: OnceLock<Option<Values>>,
    bf16: OnceLock<Option<Values>>,
}

impl Tables {
    pub(super) const fn new() -> Self {
        Tables { f16: OnceLock::new(), bf16: OnceLock::new() }
    }

    /// The table of `f` from `from` to `to` where there is one for these types and reading so many elements pays for
    /// making it, which the first such call does.
    pub(super) fn of(&self, f: impl Lanes<1>, from: Dtype, to: Dtype, shape: &[usize]) -> Option<Lookup<'_>> {
        if from != to || shape.iter().product::<usize>() < 2 * NUMBERS {
            return None;
        }
        let values = match from {
            Dtype::F16 => once(&self.f16, || values(f, f16::from_bits, f16::to_bits)),
            Dtype::Bf16 => once(&self.bf16, || values(f, bf16::from_bits, bf16::to_bits)),
            _ => return None,
        };
        values.as_ref().map(|values| Lookup { values })
    }
}

/// What a cell holds; where it holds nothing yet, what `make` makes. Threads that come at once all make it: a lock held
/// while it is made would stay with a process that is forked meanwhile.
fn once(cell: &OnceLock<Option<Values>>, make: impl FnOnce() -> Option<Values>) -> &Option<Values> {
    if let Some(values) = cell.get() {
        return values;
    }
    let made = make();
    cell.get_or_init(|| made)
}

fn values<T: Element>(f: impl Lanes<1>, number: fn(u16) -> T, bits: fn(T) -> u16) -> Option<Values> {
    let numbers: Vec<T> = (0..=u16::MAX).map(number).collect();
    let mut out = numbers.clone();
    // As helpers compute, whatever this thread is set to.
    let _environment = FpEnv::enter();
    let to = T::floats_mut(ArrayViewMut1::from(&mut out));
    for_elements(f, [lend(T::floats(ArrayView1::from(&numbers)))], to.into_dyn()).ok()?;
    let out: Vec<u16> = out.into_iter().map(bits).collect();
    out.try_into().ok()
}

/// Every number becomes its value.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    values: &'a [u16; NUMBERS],
}

/// Values put together in pairs at a time: a store a value would be what takes longest.
const TOGETHER: usize = 1024;

impl RowOp<1> for Lookup<'_> {
    const COST: u64 = 32;
    const ELEMENTWISE: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S, [from]: [Operand; 1], _: Option<Target>, out: Target, _: &mut [f32]) {
        let head = if out.past { out.row.before_a_line() } else { 0 };
        let (RowMut::F16(to) | RowMut::Bf16(to)) = out.row else { unreachable!("of 16 bits") };
        let x = match from {
            Operand::Row(Row::F16(x) | Row::Bf16(x)) => Some(&x[..to.len()]),
            Operand::Held => None,
            _ => unreachable!("of 16 bits"),
        };
        let end = to.len() - (to.len() - head) % (2 * S::LANES);
        let mut together = [0; TOGETHER / 2];
        for at in (head..end).step_by(TOGETHER) {
            let len = TOGETHER.min(end - at);
            let numbers = match x {
                Some(x) => &x[at..at + len],
                None => &to[at..at + len],
            };
            for (pair, &[lower, upper]) in together.iter_mut().zip(numbers.as_chunks().0) {
                *pair = i32::from(self.value(lower)) | i32::from(self.value(upper)) << 16;
            }
            for i in (0..len).step_by(2 * S::LANES) {
                let (pairs, to) = (s.iload(&together[i / 2..]), &mut to[at + i..]);
                if out.past { s.stream_pairs(pairs, to) } else { s.store_pairs(pairs, to) }
            }
        }
        for at in (0..head).chain(end..to.len()) {
            to[at] = self.value(match x {
                Some(x) => x[at],
                None => to[at],
            });
        }
    }
}

impl Lookup<'_> {
    #[inline(always)]
    fn value(self, x: u16) -> u16 {
        self.values[usize::from(x)]
    }
}
