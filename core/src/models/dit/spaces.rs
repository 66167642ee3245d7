//! Space for the parts of a batch, cut from the caller's workspace.

use std::sync::{Mutex, PoisonError};

/// Spaces that wait at a time to be taken again: as many as there are threads, on most machines.
const MOST: usize = 64;

/// Hands out space for parts of a batch. What was given back last is taken next, most often by the thread that has it
/// in its caches, so that no more is written than there are threads.
pub(super) struct Spaces<'a>(Mutex<Free<'a>>);

struct Free<'a> {
    /// Spaces of `len` floats, of which `count` wait.
    waiting: [Option<&'a mut [f32]>; MOST],
    count: usize,
    len: usize,
    rest: &'a mut [f32],
}

impl<'a> Spaces<'a> {
    /// Of a workspace that has room for all parts, each of at most `len` floats.
    pub fn new(workspace: &'a mut [f32], len: usize) -> Self {
        let waiting = [const { None }; MOST];
        Spaces(Mutex::new(Free { waiting, count: 0, len, rest: workspace }))
    }

    /// Calls `f` with at least `len` floats, of which there may be no more than a part has.
    pub fn with<R>(&self, len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
        let space = self.locked(|free| {
            let last = free.count.checked_sub(1);
            if let Some(space) = last.and_then(|last| free.waiting[last].take()) {
                free.count -= 1;
                return space;
            }
            let (space, rest) = std::mem::take(&mut free.rest).split_at_mut(len);
            free.rest = rest;
            space
        });
        let done = f(&mut *space);
        self.locked(|free| {
            // What is shorter is not for everyone, and what is left out is cut anew: there is room for every part.
            if space.len() == free.len && free.count < MOST {
                free.waiting[free.count] = Some(space);
                free.count += 1;
            }
        });
        done
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Free<'a>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_last_is_taken_next_and_the_short_end_is_not_mistaken() {
        let mut workspace: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let spaces = Spaces::new(&mut workspace, 3);
        spaces.with(3, |a| {
            assert_eq!(a, [0.0, 1.0, 2.0]);
            spaces.with(3, |b| assert_eq!(b, [3.0, 4.0, 5.0]));
            spaces.with(3, |b| {
                assert_eq!(b, [3.0, 4.0, 5.0]);
                spaces.with(2, |c| assert_eq!(c, [6.0, 7.0]));
            });
        });
        spaces.with(2, |a| assert_eq!(a, [0.0, 1.0, 2.0]));
    }
}
