//! A function that panics on purpose, for the test of the fence from outside (tests/c/fence.c).

use dgm_core::Error;

use crate::fence::entry;

/// A payload that panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Panics in the way that `kind` names; DGM_ERROR_ARGUMENT for an unknown one.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_test_panic(kind: i32) -> i32 {
    entry(|| {
        let empty: &[i32] = std::hint::black_box(&[]);
        match kind {
            0 => panic!("on purpose"),
            1 => std::hint::black_box(empty[std::hint::black_box(3)]),
            2 => *empty.first().expect("an element"),
            3 => std::panic::panic_any(Bomb),
            4 => std::thread::spawn(|| panic!("in a thread")).join().expect("the thread to return"),
            5 => std::hint::black_box(1) / std::hint::black_box(empty.len() as i32),
            _ => return Err(Error::argument("kind", kind, "0 to 5")),
        };
        Ok(())
    })
}
