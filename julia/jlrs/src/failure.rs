//! What stands between Julia and the engine: its errors and panics become Julia exceptions.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dgm_core::Error;
use dgm_core::arch::FpEnv;
use jlrs::data::managed::string::{JuliaString, StringRet};
use jlrs::data::managed::value::ValueRet;
use jlrs::error::JlrsError;
use jlrs::memory::gc::gc_safe;
use jlrs::prelude::*;
use jlrs::weak_handle_unchecked;

/// What an exported function returns: a value, or the exception that jlrs throws.
pub type Reply<T> = Result<T, ValueRet>;

/// Why a call fails.
pub struct Failure {
    /// The exception type, of Base.
    kind: &'static str,
    text: String,
}

impl Failure {
    /// An argument that has no meaning.
    pub fn argument(text: impl Into<String>) -> Self {
        Failure { kind: "ArgumentError", text: text.into() }
    }

    /// An array whose size does not fit.
    pub fn dimensions(text: impl Into<String>) -> Self {
        Failure { kind: "DimensionMismatch", text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.code() {
            -299..=-200 => Failure::dimensions(format!("{error} (in row-major order)")),
            -599..=-100 => Failure::argument(error.to_string()),
            code => Failure { kind: "ErrorException", text: format!("{error} (code {code})") },
        }
    }
}

impl From<Box<JlrsError>> for Failure {
    fn from(error: Box<JlrsError>) -> Self {
        Failure { kind: "ErrorException", text: error.to_string() }
    }
}

impl From<Box<dyn Any + Send>> for Failure {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        // Dropping a payload runs foreign code that may panic again; leaking it cannot.
        std::mem::forget(payload);
        Error::Internal(text.unwrap_or_else(|| "panic".into())).into()
    }
}

/// Runs the body of an exported function; no panic passes.
pub fn fence<T>(f: impl FnOnce() -> Result<T, Failure>) -> Reply<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| Err(payload.into())).map_err(|e| exception(&e))
}

/// Runs the engine, in its own floating-point environment, while Julia's garbage collector may
/// run too: `f` must not touch Julia.
pub fn engine<T>(f: impl FnOnce() -> dgm_core::Result<T>) -> Result<T, Failure> {
    let run = move || {
        let _env = FpEnv::enter();
        f()
    };
    // SAFETY: only Julia calls exported functions, so this thread is Julia's; `f` is plain Rust.
    Ok(unsafe { gc_safe(run) }?)
}

/// A Julia string.
pub fn string(text: &str) -> StringRet {
    // SAFETY: only Julia calls exported functions; the string is returned to it at once.
    let handle = unsafe { weak_handle_unchecked!() };
    JuliaString::new(&handle, text).leak()
}

fn exception(failure: &Failure) -> ValueRet {
    // SAFETY: as in `string`.
    let handle = unsafe { weak_handle_unchecked!() };
    handle.local_scope::<_, 2>(|mut frame| {
        let text = JuliaString::new(&mut frame, &failure.text).as_value();
        let Ok(kind) = Module::base(&frame).global(&mut frame, failure.kind) else {
            return text.leak(); // Julia throws any value; Base always has these types
        };
        // SAFETY: the constructors of these exceptions do nothing but keep the text.
        match unsafe { kind.call(&frame, [text]) } {
            Ok(exception) => exception.leak(),
            Err(exception) => exception.leak(),
        }
    })
}
