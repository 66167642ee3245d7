//! What stands between a caller in another language and the engine.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dgm_core::arch::FpEnv;
use dgm_core::{Error, Result};

use crate::status::DGM_OK;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs one exported function: sets the floating-point environment, catches panics, keeps the
/// error text for [`dgm_last_error`] and returns the status.
pub(crate) fn entry(f: impl FnOnce() -> Result<()>) -> i32 {
    let _env = FpEnv::enter();
    guarded(f)
}

/// [`entry`] without the floating-point environment: for functions that compute with no such number.
#[inline]
pub(crate) fn guarded(f: impl FnOnce() -> Result<()>) -> i32 {
    let error = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => return DGM_OK,
        Ok(Err(error)) => error,
        Err(payload) => {
            let error = Error::Internal(message(&*payload));
            // Dropping a payload runs foreign code that may panic again; leaking it cannot.
            std::mem::forget(payload);
            error
        }
    };
    remember(&error);
    error.code()
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

fn remember(error: &Error) {
    let text = CString::new(error.to_string().replace('\0', "\u{fffd}")).unwrap_or_default();
    // A thread that is being torn down has no slot any more; the status still tells the cause.
    let _ = LAST_ERROR.try_with(|slot| {
        if let Ok(mut slot) = slot.try_borrow_mut() {
            *slot = text;
        }
    });
}

/// The text of this thread's last failure: argument, what it was, what it should be.
///
/// Empty before the first failure; a later success does not clear it. The text stays valid until
/// the next failing call on the same thread: read it at once. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_last_error() -> *const c_char {
    const EMPTY: &CStr = c"";
    LAST_ERROR
        .try_with(|slot| slot.try_borrow().map(|text| text.as_ptr()))
        .ok()
        .and_then(std::result::Result::ok)
        .unwrap_or(EMPTY.as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the pointer is a live NUL-terminated text of this thread.
        unsafe { CStr::from_ptr(dgm_last_error()) }.to_str().unwrap().into()
    }

    #[test]
    fn success_is_zero_and_keeps_the_text() {
        assert_eq!(entry(|| Err(Error::Cancelled)), -800);
        assert_eq!(entry(|| Ok(())), 0);
        assert_eq!(last(), "cancelled");
    }

    #[test]
    fn errors_give_their_code_and_text() {
        assert_eq!(entry(|| Err(Error::range("eta", 2, "0 to 1"))), -500);
        assert_eq!(last(), "eta is 2, expected 0 to 1");
    }

    #[test]
    fn panics_become_internal_errors() {
        assert_eq!(entry(|| panic!("broken {}", 7)), -900);
        assert_eq!(last(), "internal error: broken 7");
        assert_eq!(entry(|| panic!("plain")), -900);
        assert_eq!(last(), "internal error: plain");
        assert_eq!(entry(|| std::panic::panic_any(5u8)), -900);
        assert_eq!(last(), "internal error: panic");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        assert_eq!(entry(|| std::panic::panic_any(Bomb)), -900);
    }

    #[test]
    fn text_with_nul_survives() {
        assert_eq!(entry(|| Err(Error::State("a\0b".into()))), -700);
        assert_eq!(last(), "a\u{fffd}b");
    }

    #[test]
    fn every_thread_has_its_own_text() {
        entry(|| Err(Error::Cancelled));
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
        assert_eq!(last(), "cancelled");
    }
}
