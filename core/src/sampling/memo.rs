//! Encoded runs read again and again: what a door does between two steps.
//!
//! A run travels as bytes, and every call would check and decode them anew. Each thread remembers the
//! last run it decoded or encoded, with its bytes: equal bytes need no second look. Nothing depends on
//! what is remembered but the time.

use std::cell::Cell;

use super::plan::Plan;
use super::run::Run;
use crate::error::Result;

/// Longest header worth remembering; the time of a longer one is in its rows.
const LONGEST: usize = 4096;

struct Memo {
    plan: *const Plan,
    bytes: Vec<u8>,
    run: Run,
}

thread_local! {
    static LAST: Cell<Option<Box<Memo>>> = const { Cell::new(None) };
}

/// The run of `bytes`: remembered, or decoded.
#[inline]
fn recall(last: Option<Box<Memo>>, plan: &Plan, bytes: &[u8]) -> Result<Box<Memo>> {
    if let Some(memo) = last
        && memo.plan == std::ptr::from_ref(plan)
        // A plan may lie where an earlier one lay.
        && memo.run.check_plan(plan).is_ok()
        && bytes.get(..memo.bytes.len()) == Some(&memo.bytes)
    {
        return Ok(memo);
    }
    let run = Run::decode(plan, bytes)?;
    let len = Run::header_len(plan, run.rows())?;
    let bytes = if len > LONGEST { Vec::new() } else { bytes[..len].to_vec() };
    Ok(Box::new(Memo { plan, bytes, run }))
}

fn remember(last: &Cell<Option<Box<Memo>>>, memo: Box<Memo>) {
    if !memo.bytes.is_empty() {
        last.set(Some(memo));
    }
}

impl Run {
    /// What `look` finds in the run that [`encode`](Run::encode) wrote to `bytes`: [`decode`](Run::decode),
    /// but without the work where this thread has just read or written the same bytes.
    ///
    /// # Errors
    /// Those of [`decode`](Run::decode), and of `look`.
    pub fn read<R>(plan: &Plan, bytes: &[u8], look: impl FnOnce(&Run) -> Result<R>) -> Result<R> {
        LAST.with(|last| {
            let memo = recall(last.take(), plan, bytes)?;
            let found = look(&memo.run);
            remember(last, memo);
            found
        })
    }

    /// Changes the run that [`encode`](Run::encode) wrote to `bytes`, which are untouched on error.
    ///
    /// # Errors
    /// Those of [`decode`](Run::decode), and of `change`.
    pub fn rewrite<R>(
        plan: &Plan,
        bytes: &mut [u8],
        change: impl FnOnce(&mut Run) -> Result<R>,
    ) -> Result<R> {
        LAST.with(|last| {
            let mut memo = recall(last.take(), plan, bytes)?;
            let rows = memo.run.rows();
            // After an error, or a panic of `change`, nothing is remembered.
            let found = change(&mut memo.run)?;
            memo.run.check_plan(plan)?;
            if memo.run.rows() != rows {
                memo.bytes.clear();
            }
            if memo.bytes.is_empty() {
                memo.run.encode(plan, bytes)?;
            } else {
                // As many as were compared.
                let bytes = &mut bytes[..memo.bytes.len()];
                memo.run.write(plan, bytes);
                memo.bytes.copy_from_slice(bytes);
            }
            remember(last, memo);
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::{Ask, PlanOptions};

    fn encoded(plan: &Plan, seeds: &[u64]) -> (Vec<u8>, Vec<f32>) {
        let mut state = vec![0.0; plan.state_len(seeds.len(), 3).unwrap()];
        let run = Run::start(plan, seeds, 3, None, &mut state).unwrap();
        let mut bytes = vec![0; Run::header_len(plan, seeds.len()).unwrap()];
        run.encode(plan, &mut bytes).unwrap();
        (bytes, state)
    }

    fn id(plan: &Plan, bytes: &[u8]) -> Option<u64> {
        let ask = Run::read(plan, bytes, |run| run.ask(plan)).unwrap();
        assert_eq!(Run::decode(plan, bytes).unwrap().ask(plan).unwrap(), ask);
        match ask {
            Ask::Eval(request) => Some(request.eval_id),
            Ask::Done => None,
        }
    }

    #[test]
    fn what_is_remembered_is_what_the_bytes_say() {
        let plan = |steps| Plan::compile(&PlanOptions { steps, ..Default::default() }).unwrap();
        let (first, second) = (plan(3), plan(4));
        let (mut a, mut x) = encoded(&first, &[1, 2]);
        let (mut b, mut y) = encoded(&second, &[3]);
        for step in 1..=3 {
            assert_eq!((id(&first, &a), id(&second, &b)), (Some(step), Some(step)));
            assert!(Run::read(&second, &a, |_| Ok(())).is_err(), "another plan's run");
            let told = Run::rewrite(&first, &mut a, |run| run.tell(&first, &mut x, step, &[0.5; 6]));
            assert_eq!((told, id(&first, &a)), (Ok(()), (step < 3).then_some(step + 1)));
            // An error leaves the bytes, and is not remembered as a change.
            let before = b.clone();
            let early = Run::rewrite(&second, &mut b, |run| {
                run.tell(&second, &mut y, step, &[0.5; 3])?;
                run.tell(&second, &mut y.clone(), step, &[0.5; 3])
            });
            assert!(early.is_err() && b == before);
            assert_eq!(id(&second, &b), Some(step));
            Run::rewrite(&second, &mut b, |run| run.tell(&second, &mut y, step, &[0.5; 3])).unwrap();
        }
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let plan = Plan::compile(&PlanOptions { steps: 3, ..Default::default() }).unwrap();
        let (bytes, _) = encoded(&plan, &[1, 2]);
        for at in 0..bytes.len() {
            assert_eq!(id(&plan, &bytes), Some(1));
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(Run::read(&plan, &damaged, |_| Ok(())).is_err(), "byte {at}");
            assert_eq!(id(&plan, &bytes), Some(1));
            assert!(Run::read(&plan, &bytes[..at], |_| Ok(())).is_err(), "cut at {at}");
        }
    }

    /// A change may put another run in its place.
    #[test]
    fn another_run_takes_its_own_bytes() {
        let plan = Plan::compile(&PlanOptions { steps: 3, ..Default::default() }).unwrap();
        let (small, _) = encoded(&plan, &[1]);
        let (mut bytes, _) = encoded(&plan, &[1, 2]);
        let one = Run::decode(&plan, &small).unwrap();
        let put = |bytes: &mut [u8], other: &Run| {
            Run::rewrite(&plan, bytes, |run| {
                run.clone_from(other);
                Ok(())
            })
        };
        put(&mut bytes, &one).unwrap();
        assert_eq!(bytes[..small.len()], small);
        assert_eq!(Run::read(&plan, &bytes, |run| Ok(run.clone())), Ok(one));
        let two = Run::start_detached(&plan, &[3, 4], 3).unwrap();
        let before = bytes[..small.len()].to_vec();
        let short = put(&mut bytes[..small.len()], &two);
        assert_eq!((short.unwrap_err().code(), &bytes[..small.len()]), (-200, &before[..]));
    }

    /// Runs of many rows are decoded every time, with the same result.
    #[test]
    fn long_headers_work() {
        let plan = Plan::compile(&PlanOptions { steps: 2, ..Default::default() }).unwrap();
        let seeds: Vec<u64> = (0..1000).collect();
        let (mut bytes, mut state) = encoded(&plan, &seeds);
        for step in 1..=2 {
            assert_eq!(id(&plan, &bytes), Some(step));
            Run::rewrite(&plan, &mut bytes, |run| run.tell(&plan, &mut state, step, &[0.5; 3000])).unwrap();
        }
        assert_eq!(id(&plan, &bytes), None);
    }
}
