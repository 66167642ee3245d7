//! Helper threads that join a caller's work within a microsecond while they are awake.
//!
//! One job at a time: [`Team::run`] opens it, works on it itself, closes it and waits for the
//! helpers that came. A helper that is asleep or busy does not come, and nobody waits for it: the
//! caller can do all the work. After a job helpers look out for the next one for a short while
//! before they sleep, because waking a thread costs tens of microseconds.
//!
//! A process made by `fork` has no helpers; its jobs are done by the caller.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

use super::fpenv::FpEnv;
use super::place::Place;

/// What threads work on together; each calls it once.
type Job = dyn Fn() + Sync;

/// Looks a helper takes before it sleeps; each pauses for some tens of cycles.
const LOOKS: u32 = 1500;

/// The lower bits of [`Shared::state`] count the helpers inside the job, the next says whether more
/// may come, the upper half numbers the jobs.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const NUMBER: u64 = 1 << 32;

thread_local! {
    /// The number of a helper, from 1 on.
    static NUMBERED: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread among those of a job: 0 for its caller, from 1 on for helpers.
pub(crate) fn number() -> usize {
    NUMBERED.get()
}

struct Shared {
    state: AtomicU64,
    /// Set while a caller has the team.
    taken: AtomicBool,
    closing: AtomicBool,
    /// Written by the caller that has the team while the job is closed and nobody is inside; read
    /// by helpers inside.
    job: UnsafeCell<Option<*const Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only part that is not Sync by itself. It is written only while no helper
// can read it (see there), and what it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while `Team::run` borrows the job.
unsafe impl Send for Shared {}

struct Helper {
    thread: Thread,
    sleep: Arc<Sleep>,
}

struct Sleep {
    asleep: AtomicBool,
    place: Place,
}

/// Helper threads; they end when it is dropped.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Helper>,
}

impl Team {
    /// Starts `count` helpers.
    ///
    /// # Errors
    /// What the system says when it has no more threads; those already started end.
    pub(crate) fn start(count: usize) -> std::io::Result<Team> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            taken: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
        });
        let mut team = Team { shared, helpers: Vec::with_capacity(count) };
        for i in 0..count {
            let sleep = Arc::new(Sleep { asleep: AtomicBool::new(false), place: Place::new() });
            let (shared, mine) = (team.shared.clone(), sleep.clone());
            let handle = thread::Builder::new().name(format!("dgm-{i}")).spawn(move || {
                let _environment = FpEnv::enter();
                NUMBERED.set(i + 1);
                shared.help(&mine);
            })?;
            team.helpers.push(Helper { thread: handle.thread().clone(), sleep });
        }
        Ok(team)
    }

    /// Calls `job` on this thread and on every helper that comes before this thread is done with
    /// it; returns when all of them are. Wakes sleeping helpers only if `wake`. False, with nothing
    /// called, where another caller has the team.
    pub(crate) fn run(&self, wake: bool, job: &(dyn Fn() + Sync)) -> bool {
        let shared = &*self.shared;
        if shared.taken.swap(true, Ordering::Acquire) {
            return false;
        }
        // SAFETY: only the lifetime is changed. The pointer is read by helpers inside, and
        // `Closing` waits until the last has left before this function returns or unwinds.
        let erased = unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const Job>(job) };
        // SAFETY: this caller has the team, the former job is closed and nobody is inside.
        unsafe { *shared.job.get() = Some(erased) };
        // SeqCst: a helper either sees the new number before it sleeps or is seen asleep below.
        let number = (shared.state.load(Ordering::Relaxed) & !(NUMBER - 1)).wrapping_add(NUMBER);
        shared.state.store(number | OPEN, Ordering::SeqCst);
        let closing = Closing(shared);
        if wake {
            for helper in &self.helpers {
                if helper.sleep.asleep.swap(false, Ordering::SeqCst) {
                    helper.sleep.place.avoid();
                    helper.thread.unpark();
                }
            }
        }
        job();
        drop(closing);
        true
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for helper in &self.helpers {
            helper.thread.unpark();
        }
    }
}

/// Closes the job, waits for the helpers inside and passes on the panic of one.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        shared.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut looks = 0u32;
        while shared.state.load(Ordering::Acquire) & INSIDE != 0 {
            looks = looks.saturating_add(1);
            if looks < LOOKS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.taken.store(false, Ordering::Release);
        if let Some(panic) = panic
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// The life of a helper.
    fn help(&self, sleep: &Sleep) {
        let mut done = 0;
        let mut looks = 0;
        while !self.closing.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            let number = state & !(NUMBER - 1);
            if state & OPEN != 0 && number != done {
                let entered =
                    self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if entered.is_ok() {
                    self.work();
                    (done, looks) = (number, 0);
                }
            } else if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                sleep.place.leave();
                sleep.asleep.store(true, Ordering::SeqCst);
                let now = self.state.load(Ordering::SeqCst);
                if now & !(NUMBER - 1) == number && !self.closing.load(Ordering::SeqCst) {
                    thread::park();
                }
                sleep.asleep.store(false, Ordering::SeqCst);
                sleep.place.settle();
                looks = 0;
            }
        }
    }

    /// Calls the job this helper is inside of, and leaves it.
    fn work(&self) {
        // SAFETY: being inside, this thread sees the pointer that was stored before the job was
        // opened, and the caller keeps what it points to until this thread has left.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe {
            if let Some(job) = *self.job.get() {
                (*job)();
            }
        }));
        if let Err(panic) = result {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        self.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    #[test]
    fn every_job_is_done_whoever_comes() {
        for helpers in [0, 1, 3] {
            let team = Team::start(helpers).unwrap();
            for round in 0..2000 {
                let next = AtomicUsize::new(0);
                let sum = AtomicUsize::new(0);
                let ran = team.run(round % 3 == 0, &|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= 100 {
                            break;
                        }
                        sum.fetch_add(i, Ordering::Relaxed);
                    }
                });
                assert!(ran);
                assert_eq!(sum.load(Ordering::Relaxed), 4950);
            }
        }
    }

    #[test]
    fn sleeping_helpers_are_woken() {
        let team = Team::start(1).unwrap();
        let me = thread::current().id();
        let came = AtomicBool::new(false);
        thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        team.run(true, &|| {
            if thread::current().id() == me {
                while !came.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(60) {
                    thread::yield_now();
                }
            } else {
                came.store(true, Ordering::Relaxed);
            }
        });
        assert!(came.into_inner());
    }

    #[test]
    fn a_taken_team_sends_the_second_caller_away() {
        let team = Team::start(1).unwrap();
        team.run(false, &|| assert!(!team.run(false, &|| unreachable!("the team is taken"))));
        assert!(team.run(false, &|| ()));
    }

    #[test]
    fn panics_of_caller_and_helpers_reach_the_caller() {
        let team = Team::start(2).unwrap();
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| team.run(true, &|| panic!("in a job"))));
            assert!(caught.is_err());
        }
        let me = thread::current().id();
        let entered = AtomicBool::new(false);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            team.run(true, &|| {
                if thread::current().id() != me {
                    entered.store(true, Ordering::Relaxed);
                    panic!("in a helper");
                }
                while !entered.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"in a helper"));
        assert!(team.run(true, &|| ()), "the team goes on");
    }
}
