//! Where a helper wakes up: beside the caller, not behind it.
//!
//! Linux may wake a thread on the processor where it ran last although the caller keeps that one busy
//! and another is idle: on machines of few processors that were busy lately it does not look for an
//! idle one, and where the last one is busy with another program it prefers the caller's. Both then
//! share a processor for milliseconds, until the load is balanced. So a caller takes its own processor
//! out of a helper's set before it wakes it, and the helper puts it back once it runs: on machines of
//! few processors always, else where the helper fell asleep on that one. Other systems are left alone.

#[cfg(target_os = "linux")]
pub(super) use linux::Place;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Place;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::c_int;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The processors a thread may run on, one bit each: as many as the C library's `cpu_set_t` has.
    type Set = [u64; 16];

    // From the C library, which the standard library links.
    unsafe extern "C" {
        fn gettid() -> c_int;
        fn sched_getcpu() -> c_int;
        fn sched_getaffinity(thread: c_int, bytes: usize, set: *mut Set) -> c_int;
        fn sched_setaffinity(thread: c_int, bytes: usize, set: *const Set) -> c_int;
    }

    const NONE: c_int = -1;

    /// As many processors are few.
    const FEW: usize = 4;

    /// Where a helper is.
    #[derive(Debug)]
    pub struct Place {
        /// 0 before the helper has started.
        thread: AtomicI32,
        /// The processor where it fell asleep.
        slept_on: AtomicI32,
        /// The processor that was taken out of its set.
        avoided: AtomicI32,
    }

    impl Place {
        pub const fn new() -> Self {
            Place { thread: AtomicI32::new(0), slept_on: AtomicI32::new(NONE), avoided: AtomicI32::new(NONE) }
        }

        /// The helper: about to sleep.
        pub fn leave(&self) {
            // A caller may have come too late the last time.
            self.settle();
            self.slept_on.store(processor(), Ordering::Relaxed);
            // SAFETY: takes nothing and cannot fail.
            self.thread.store(unsafe { gettid() }, Ordering::Release);
        }

        /// The caller: about to wake the helper, which should not come here.
        pub fn avoid(&self) {
            let here = processor();
            let thread = self.thread.load(Ordering::Acquire);
            let may_come = self.slept_on.load(Ordering::Relaxed) == here || few();
            if thread == 0 || here == NONE || !may_come {
                return;
            }
            let changed = change(thread, here, |set, bit| {
                *set &= !bit;
            });
            if changed {
                self.avoided.store(here, Ordering::Release);
            }
        }

        /// The helper: awake.
        pub fn settle(&self) {
            let avoided = self.avoided.swap(NONE, Ordering::Acquire);
            if avoided != NONE {
                // Thread 0 is the one that calls.
                change(0, avoided, |set, bit| *set |= bit);
            }
        }
    }

    /// Whether this process has few processors.
    fn few() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| std::thread::available_parallelism().is_ok_and(|n| n.get() <= FEW))
    }

    fn processor() -> c_int {
        // SAFETY: takes nothing; -1 where the system does not tell.
        unsafe { sched_getcpu() }
    }

    /// Changes the bit of a processor in the set of a thread; false, with nothing changed, where that is
    /// not possible or no processor would be left.
    fn change(thread: c_int, processor: c_int, f: impl Fn(&mut u64, u64)) -> bool {
        let mut set: Set = [0; 16];
        // SAFETY: `set` has as many writable bytes as said. A thread that is no more is an error.
        if unsafe { sched_getaffinity(thread, size_of::<Set>(), &mut set) } != 0 {
            return false;
        }
        let Some(word) = usize::try_from(processor).ok().and_then(|n| set.get_mut(n / 64)) else {
            return false;
        };
        f(word, 1 << (processor % 64));
        // SAFETY: as many readable bytes as said; only where threads of this process run is changed.
        set != [0; 16] && unsafe { sched_setaffinity(thread, size_of::<Set>(), &set) } == 0
    }

    #[cfg(test)]
    mod tests {
        use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
        use std::thread;
        use std::time::{Duration, Instant};

        use super::super::super::team::Team;
        use super::*;

        /// The processors this thread may run on.
        fn own_set() -> Set {
            let mut set = [0; 16];
            // SAFETY: as in `change`.
            assert_eq!(unsafe { sched_getaffinity(0, size_of::<Set>(), &mut set) }, 0);
            set
        }

        /// Lets this thread run on these processors only.
        fn stay_on(set: &Set) {
            // SAFETY: as in `change`.
            assert_eq!(unsafe { sched_setaffinity(0, size_of::<Set>(), set) }, 0);
        }

        /// On a thread of its own, which it moves from processor to processor.
        #[test]
        fn a_helper_is_woken_beside_the_caller() {
            let test = || {
                let all = own_set();
                if all.iter().map(|w| w.count_ones()).sum::<u32>() < 2 {
                    return; // Nowhere to go.
                }
                let team = Team::start(1).unwrap();
                let me = thread::current().id();
                let last = AtomicI32::new(processor());
                let mut behind = 0;
                for _ in 0..50 {
                    // The caller goes where the helper has been and falls asleep.
                    let mut here: Set = [0; 16];
                    let n = last.load(Ordering::Relaxed) as usize;
                    here[n / 64] = 1 << (n % 64);
                    stay_on(&here);
                    thread::sleep(Duration::from_millis(2));
                    let (came, start) = (AtomicBool::new(false), Instant::now());
                    team.run(true, &|| {
                        if thread::current().id() != me {
                            last.store(processor(), Ordering::Relaxed);
                            assert_eq!(own_set(), all, "the helper may go anywhere again");
                            came.store(true, Ordering::Release);
                        } else {
                            while !came.load(Ordering::Acquire) && start.elapsed() < Duration::from_secs(60) {
                                std::hint::spin_loop();
                            }
                        }
                    });
                    assert!(came.into_inner());
                    behind += usize::from(last.load(Ordering::Relaxed) as usize == n);
                }
                // On a busy machine it may have been moved again before it could tell.
                assert!(behind < 10, "{behind} of 50 times it was behind the caller");
            };
            thread::scope(|s| s.spawn(test).join().unwrap());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Nothing.
    #[derive(Debug)]
    pub struct Place;

    impl Place {
        pub const fn new() -> Self {
            Place
        }
        pub fn leave(&self) {}
        pub fn avoid(&self) {}
        pub fn settle(&self) {}
    }
}
