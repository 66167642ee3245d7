//! The one thread pool of the library, and thread-owned scratch.
//!
//! Work is cut into tasks that own disjoint outputs, so which thread runs a task never
//! changes a bit. The calling thread always takes part, and works alone where the helpers are
//! busy with another caller. Work below [`MIN_PARALLEL_WORK`] stays on the caller, and work below
//! [`MIN_WAKING_WORK`] is shared only with helpers that are still awake, because waking a thread
//! costs more than it saves.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::arch::{Team, number};
use crate::error::{Error, Result};

/// Floating-point operations below which a call stays on the calling thread.
pub const MIN_PARALLEL_WORK: u64 = 400_000;

/// Floating-point operations below which a call wakes nobody.
pub const MIN_WAKING_WORK: u64 = 4_000_000;

/// Largest pool size accepted.
pub const MAX_THREADS: usize = 1024;

struct Pool {
    threads: usize,
    /// `threads - 1` helpers; none when a single thread is wanted.
    helpers: Option<Arc<Team>>,
}

static POOL: RwLock<Option<Pool>> = RwLock::new(None);

thread_local! {
    /// True inside a parallel region: nested calls run serially on their thread.
    static NESTED: Cell<bool> = const { Cell::new(false) };
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn default_threads() -> usize {
    std::env::var("DGM_NUM_THREADS")
        .ok()
        .and_then(|v| v.trim().parse().ok())
        .filter(|n| (1..=MAX_THREADS).contains(n))
        // Respects cgroup limits and the affinity mask.
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

fn build(threads: usize) -> Result<Pool> {
    let helpers = if threads > 1 {
        let team = Team::start(threads - 1)
            .map_err(|e| Error::Internal(format!("cannot start {threads} threads: {e}")))?;
        Some(Arc::new(team))
    } else {
        None
    };
    Ok(Pool { threads, helpers })
}

/// Sets how many threads (the caller included) a call may use, 1 to [`MAX_THREADS`].
///
/// Results never depend on it. Calls under way keep the pool they started with.
///
/// # Errors
/// [`Error::Range`] outside the range; [`Error::Internal`] when threads cannot be started.
pub fn set_num_threads(threads: usize) -> Result<()> {
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::range("threads", threads, format!("1 to {MAX_THREADS}")));
    }
    let same = |pool: &Pool| pool.threads == threads;
    if POOL.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(same) {
        return Ok(());
    }
    let pool = build(threads)?;
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = Some(pool);
    Ok(())
}

/// How many threads (the caller included) a call may use.
pub fn num_threads() -> usize {
    current().0
}

fn current() -> (usize, Option<Arc<Team>>) {
    if let Some(p) = POOL.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
        return (p.threads, p.helpers.clone());
    }
    let mut slot = POOL.write().unwrap_or_else(PoisonError::into_inner);
    let pool = slot.get_or_insert_with(|| {
        // A machine that cannot start helpers still computes, alone.
        build(default_threads()).unwrap_or(Pool { threads: 1, helpers: None })
    });
    (pool.threads, pool.helpers.clone())
}

/// Whether [`for_each`] would use helpers for this amount of work on this thread.
pub(crate) fn is_parallel(work: u64) -> bool {
    work >= MIN_PARALLEL_WORK && !NESTED.get() && num_threads() > 1
}

/// Runs `f` once for every item. `work` is the total in floating-point operations.
///
/// Items are handed out in order, one at a time, to whichever thread is free; each must own
/// the memory it writes. A single item stays with its caller. Nested calls run on the thread that makes them.
pub(crate) fn for_each<T: Send>(mut items: impl Iterator<Item = T> + Send, work: u64, f: impl Fn(T) + Sync) {
    if work < MIN_PARALLEL_WORK || NESTED.get() {
        return items.for_each(f);
    }
    let Some(helpers) = current().1 else { return items.for_each(f) };
    let Some(first) = items.next() else { return };
    let Some(second) = items.next() else {
        // Nothing to share: a helper that took it would only fetch from afar what this thread has at hand.
        let _nested = NestedGuard::enter();
        return f(first);
    };
    let queue = Mutex::new([first, second].into_iter().chain(items));
    let drain = || {
        let _nested = NestedGuard::enter();
        take_all(&queue, &f);
    };
    if !helpers.run(work >= MIN_WAKING_WORK, &drain) {
        drain();
    }
}

/// Runs `f` for one item after the other until there are no more.
fn take_all<T>(queue: &Mutex<impl Iterator<Item = T>>, f: &impl Fn(T)) {
    loop {
        let item = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        match item {
            Some(item) => f(item),
            None => break,
        }
    }
}

/// The pieces of what `cut` takes the first of, as long as there is a rest.
pub(crate) fn pieces<T>(whole: T, mut cut: impl FnMut(T) -> (T, Option<T>)) -> impl Iterator<Item = T> {
    let mut rest = Some(whole);
    std::iter::from_fn(move || {
        let (piece, behind) = cut(rest.take()?);
        rest = behind;
        Some(piece)
    })
}

/// Most parts that [`for_each_in`] takes.
const MAX_PARTS: usize = 16;

/// How many parts [`for_each_in`] should have for this amount of work: one for each thread.
pub(crate) fn parts(work: u64) -> usize {
    if is_parallel(work) { num_threads().min(MAX_PARTS) } else { 1 }
}

/// A queue in lines of its own (two, which some processors fetch together): what one thread writes at every item is
/// not beside what another reads.
#[repr(align(128))]
struct Queue<P>(Mutex<P>);

/// [`for_each`] of the items of all parts. Each thread begins with the part of its number, and then helps with the
/// others: calls that cut what they share in the same places find it in the caches of the thread that wrote it.
/// There are at most as many as [`parts`] says.
pub(crate) fn for_each_in<T: Send>(
    mut parts: impl Iterator<Item = impl Iterator<Item = T> + Send>,
    work: u64,
    f: impl Fn(T) + Sync,
) {
    let Some(first) = parts.next() else { return };
    let Some(second) = parts.next() else { return for_each(first, work, f) };
    let mut queues = [const { None }; MAX_PARTS];
    let mut count = 0;
    for part in [first, second].into_iter().chain(parts) {
        queues[count] = Some(Queue(Mutex::new(part)));
        count += 1;
    }
    let (threads, helpers) = current();
    let drain = || {
        let _nested = NestedGuard::enter();
        // Of fewer parts than threads, neighbours begin with the same.
        let own = number() * count / threads.max(count);
        for i in 0..count {
            if let Some(Queue(queue)) = &queues[(own + i) % count] {
                take_all(queue, &f);
            }
        }
    };
    match helpers {
        Some(helpers) if helpers.run(work >= MIN_WAKING_WORK, &drain) => {}
        _ => drain(),
    }
}

struct NestedGuard(bool);

impl NestedGuard {
    fn enter() -> Self {
        NestedGuard(NESTED.replace(true))
    }
}

impl Drop for NestedGuard {
    fn drop(&mut self) {
        NESTED.set(self.0);
    }
}

/// Lends `f` a buffer of `len` floats, 64-byte aligned, owned by this thread and reused.
///
/// Its contents are whatever the last user left. Nested use gets a fresh allocation, so
/// kernels should ask once and split.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    const ALIGN: usize = 16; // floats: 64 bytes, one cache line
    let mut buf = SCRATCH.take();
    if buf.len() < len + ALIGN {
        buf.resize(len + ALIGN, 0.0);
    }
    let start = buf.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(ALIGN);
    let out = f(&mut buf[start..start + len]);
    SCRATCH.set(buf);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_runs_once_on_any_pool_size() {
        for threads in [1, 2, 3, 7] {
            set_num_threads(threads).unwrap();
            let mut out = vec![0u32; 1000];
            let calls = AtomicUsize::new(0);
            for_each(out.iter_mut().enumerate(), u64::MAX, |(i, o)| {
                calls.fetch_add(1, Ordering::Relaxed);
                *o += i as u32 + 1;
            });
            assert_eq!(calls.load(Ordering::Relaxed), 1000);
            assert!(out.iter().enumerate().all(|(i, &o)| o == i as u32 + 1));
        }
    }

    #[test]
    fn every_item_of_every_part_runs_once_and_the_caller_begins_with_the_first() {
        for threads in [1, 2, 3, 7, 40] {
            set_num_threads(threads).unwrap();
            for length in [1, 2, 100] {
                let mut out = vec![0u32; 1000];
                let count = threads.min(MAX_PARTS);
                let parts = out.chunks_mut(1000usize.div_ceil(count)).enumerate();
                // The caller looks into its own part, the first, before any other.
                let looked = Mutex::new(Vec::new());
                let looked = &looked;
                let parts = parts.map(|(part, out)| {
                    out.chunks_mut(length).inspect(move |_| {
                        if number() == 0 {
                            looked.lock().unwrap().push(part);
                        }
                    })
                });
                for_each_in(parts, u64::MAX, |out| out.iter_mut().for_each(|x| *x += 1));
                assert!(looked.lock().unwrap().is_sorted());
                assert!(out.iter().all(|&x| x == 1));
            }
        }
        for_each_in(std::iter::empty::<std::iter::Empty<()>>(), u64::MAX, |()| unreachable!("no parts"));
        let empty = || std::iter::empty::<()>();
        for_each_in([empty(), empty()].into_iter(), u64::MAX, |()| unreachable!("no items"));
    }

    #[test]
    fn a_single_item_stays_with_its_caller() {
        set_num_threads(2).unwrap();
        let me = std::thread::current().id();
        for _ in 0..100 {
            for_each(std::iter::once(()), u64::MAX, |()| assert_eq!(std::thread::current().id(), me));
        }
        for_each(std::iter::empty::<()>(), u64::MAX, |()| unreachable!("no items"));
    }

    #[test]
    fn nested_calls_stay_on_their_thread() {
        set_num_threads(2).unwrap();
        for_each(0..8, u64::MAX, |_| {
            let me = std::thread::current().id();
            for_each(0..8, u64::MAX, |_| assert_eq!(std::thread::current().id(), me));
        });
    }

    #[test]
    fn pool_size_is_checked() {
        assert_eq!(set_num_threads(0).unwrap_err().code(), -500);
        assert_eq!(set_num_threads(MAX_THREADS + 1).unwrap_err().code(), -500);
    }

    #[test]
    fn scratch_is_aligned_and_nests() {
        with_scratch(100, |a| {
            assert_eq!(a.len(), 100);
            assert_eq!(a.as_ptr() as usize % 64, 0);
            a.fill(1.0);
            with_scratch(50, |b| b.fill(2.0));
            assert!(a.iter().all(|&x| x == 1.0));
        });
    }
}
