//! Status numbers and their names.

use std::ffi::c_char;

/// Success.
pub const DGM_OK: i32 = 0;
/// A required pointer or handle is NULL.
pub const DGM_ERROR_NULL: i32 = -100;
/// An argument has no meaning: an unknown enum value, an unsupported combination.
pub const DGM_ERROR_ARGUMENT: i32 = -101;
/// A tensor has the wrong rank or dimensions.
pub const DGM_ERROR_SHAPE: i32 = -200;
/// A tensor has strides or an alignment that cannot be used.
pub const DGM_ERROR_STRIDE: i32 = -201;
/// A tensor has the wrong element type or device.
pub const DGM_ERROR_DTYPE: i32 = -300;
/// An output shares memory with another argument.
pub const DGM_ERROR_ALIAS: i32 = -400;
/// A number lies outside its range.
pub const DGM_ERROR_RANGE: i32 = -500;
/// A size computation leaves the address space.
pub const DGM_ERROR_OVERFLOW: i32 = -501;
/// A file cannot be read or written.
pub const DGM_ERROR_IO: i32 = -600;
/// Bytes do not follow their format (a weights file, an exported run).
pub const DGM_ERROR_FORMAT: i32 = -601;
/// A call does not fit the state of a run: told twice, stale, finished, another plan.
pub const DGM_ERROR_STATE: i32 = -700;
/// The caller stopped the call.
pub const DGM_ERROR_CANCELLED: i32 = -800;
/// A bug of the engine.
pub const DGM_ERROR_INTERNAL: i32 = -900;

/// A short name of a status, static: "ok", "shape", ... "unknown status" for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_status_string(status: i32) -> *const c_char {
    match status {
        DGM_OK => c"ok",
        DGM_ERROR_NULL => c"null pointer",
        DGM_ERROR_ARGUMENT => c"bad argument",
        DGM_ERROR_SHAPE => c"wrong shape",
        DGM_ERROR_STRIDE => c"unusable strides or alignment",
        DGM_ERROR_DTYPE => c"wrong element type or device",
        DGM_ERROR_ALIAS => c"overlapping memory",
        DGM_ERROR_RANGE => c"out of range",
        DGM_ERROR_OVERFLOW => c"too large",
        DGM_ERROR_IO => c"input/output",
        DGM_ERROR_FORMAT => c"bad format",
        DGM_ERROR_STATE => c"wrong state",
        DGM_ERROR_CANCELLED => c"cancelled",
        DGM_ERROR_INTERNAL => c"internal error",
        _ => c"unknown status",
    }
    .as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dgm_core::Error;

    #[test]
    fn numbers_are_those_of_the_engine() {
        let text = String::new;
        let shape = Error::shape("x", &[], "");
        let cases = [
            (Error::Null { arg: "x", expected: "" }, DGM_ERROR_NULL),
            (Error::argument("x", "", ""), DGM_ERROR_ARGUMENT),
            (shape, DGM_ERROR_SHAPE),
            (Error::Stride { arg: "x", got: text(), expected: text() }, DGM_ERROR_STRIDE),
            (Error::Dtype { arg: "x", got: text(), expected: text() }, DGM_ERROR_DTYPE),
            (Error::Alias { arg: "x", other: "y" }, DGM_ERROR_ALIAS),
            (Error::range("x", "", ""), DGM_ERROR_RANGE),
            (Error::Overflow { arg: "x", got: text() }, DGM_ERROR_OVERFLOW),
            (Error::Io { path: text(), message: text() }, DGM_ERROR_IO),
            (Error::Format { what: text(), message: text() }, DGM_ERROR_FORMAT),
            (Error::State(text()), DGM_ERROR_STATE),
            (Error::Cancelled, DGM_ERROR_CANCELLED),
            (Error::Internal(text()), DGM_ERROR_INTERNAL),
        ];
        let unknown = dgm_status_string(1);
        for (error, code) in cases {
            assert_eq!(error.code(), code);
            assert_ne!(dgm_status_string(code), unknown);
        }
    }
}
