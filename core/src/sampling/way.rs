//! The ways between evaluations that one pass goes, in place or from one state to another.

use super::exec::beside;
use super::pass::{MAX_LINS, MAX_OUTPUTS, Told, pass, pass_apart};
use super::plan::Plan;
use super::run::Run;
use super::table::{Eval, Lin, Operand, Role, Row};

/// The rows from a position to the next evaluation and its position, where all of them are done to every element:
/// by far the most segments, which need no sorting.
fn plain(plan: &Plan, from: usize) -> Option<(&[Row], usize)> {
    let rows = plan.table().rows.get(from..)?;
    let each = |row: &&Row| matches!(row, Row::Lin(_) | Row::LearnedNoise { .. } | Row::Noisy(_));
    let count = rows.iter().take_while(each).count();
    matches!(rows.get(count), None | Some(Row::Eval(_))).then(|| (&rows[..count], from + count))
}

/// The rows between the evaluation at a position and the one `count` after it, where one pass can do them; and the
/// state tensor that only carries outputs from each of those evaluations to the next.
fn joined<'a>(
    plan: &'a Plan,
    eval: &Eval,
    position: usize,
    count: usize,
) -> Option<(&'a [Row], usize, Option<u8>)> {
    let (mut at, mut held) = (position + 1, None);
    for _ in 1..count {
        let (rows, next) = plain(plan, at)?;
        for row in rows {
            let Row::Lin(Lin { dst: Operand::Slot(slot), clamp: f32::INFINITY, mask: None, .. }) = row else {
                return None;
            };
            if *held.get_or_insert(*slot) != *slot {
                return None;
            }
        }
        at = next + 1;
    }
    let (_, next) = plain(plan, at)?;
    let rows = &plan.table().rows[position + 1..next];
    // Evaluations told before or after these read or write the tensor.
    let whole = eval.role == Role::Cond && count == eval.roles.count_ones() as usize;
    (count <= MAX_OUTPUTS && rows.len() < MAX_LINS + count).then_some((rows, next, held.filter(|_| whole)))
}

/// A way to the next request that one pass can go: all of its rows are done to every element.
pub(super) struct Way<'a> {
    rows: &'a [Row],
    next: usize,
    /// As [`joined`] says.
    held: Option<u8>,
    /// Outputs told.
    count: usize,
}

impl<'a> Way<'a> {
    /// The way past the evaluations whose outputs have so many numbers together.
    pub(super) fn of(run: &Run, plan: &'a Plan, told: usize) -> Option<Way<'a>> {
        if !run.places.is_empty() {
            return None;
        }
        let count = told / (run.rows() * run.elements * plan.outputs());
        let (rows, next, held) = match count {
            1 => plain(plan, run.position + 1).map(|(rows, next)| (rows, next, None))?,
            _ => joined(plan, plan.eval_at(run.position)?, run.position, count)?,
        };
        Some(Way { rows, next, held, count })
    }

    /// Whether a pass from one state to another is all that it needs.
    pub(super) fn goes_apart(&self, plan: &Plan) -> bool {
        plan.slots() == plan.table().slots
    }

    /// Whether such a pass sees all there is of the outputs.
    pub(super) fn sees_all(&self, plan: &Plan) -> bool {
        self.count == 1 || plan.outputs() == 1
    }

    /// Whether it writes every state tensor that has to be, so that none is copied from one state to another.
    pub(super) fn writes_all(&self, plan: &Plan) -> bool {
        let mut written = self.held.map_or(0u32, |slot| 1 << slot);
        for row in self.rows {
            written |= match row {
                Row::Lin(Lin { dst: Operand::Slot(slot), .. }) => 1 << slot,
                Row::Noisy(noisy) => 1 << noisy.dst,
                Row::LearnedNoise { .. } => 1,
                _ => 0,
            };
        }
        written.count_ones() as usize == plan.slots()
    }

    fn told<'y>(&self, y: &'y [f32]) -> Told<'y> {
        Told::together(y, y.len() / self.count, self.held)
    }

    /// Carries the state along, in place.
    pub(super) fn walk(&self, run: &Run, plan: &Plan, state: &mut [f32], y: &[f32], active: &[bool]) {
        let Some(eval) = plan.eval_at(run.position) else { return };
        pass(run, plan, eval, state, self.told(y), self.rows, active, &[], None, &mut []);
    }

    /// Writes the state at its end to `to`; see [`pass_apart`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn walk_apart(
        &self,
        run: &Run,
        plan: &Plan,
        from: &[f32],
        to: &mut [f32],
        y: &[f32],
        active: &[bool],
        looks: bool,
        blank: bool,
    ) -> bool {
        let Some(eval) = plan.eval_at(run.position) else { return false };
        pass_apart(run, plan, eval, from, to, self.told(y), self.rows, active, looks, blank)
    }

    /// Carries the run to its end.
    pub(super) fn arrive(&self, run: &mut Run, plan: &Plan, told: &[f64], active: &[bool]) {
        let Some(eval) = plan.eval_at(run.position) else { return };
        beside(run, plan, eval, self.rows, active, told);
        run.counters.evals += self.count as u64;
        run.position = self.next;
    }
}
