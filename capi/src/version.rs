//! Versions, threads, processor.

use std::ffi::{CStr, c_char};

use dgm_core::linalg::{Backend, set_backend};
use dgm_core::{Error, arch, info, threads};

use crate::fence::entry;
use crate::memory::{text, write_text};

/// Version of this interface that a header describes; compare with dgm_abi_version().
pub const DGM_ABI_VERSION: i32 = 1;

/// Version of the binary interface. It changes only when an existing declaration does; a program
/// may compare it with DGM_ABI_VERSION of the header it was built with.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_abi_version() -> i32 {
    DGM_ABI_VERSION
}

/// Version of the numeric definitions: it changes when the bits of any result may.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_numerics_version() -> i32 {
    info::NUMERICS_VERSION
}

/// Version of the library, "major.minor.patch", static.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => panic!("the version has no NUL inside"),
        };
    VERSION.as_ptr()
}

/// Sets how many threads (the caller included) a call may use, 1 to 1024. Results never depend
/// on it. The default is DGM_NUM_THREADS or the number of processors this process may use.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_set_num_threads(threads: i32) -> i32 {
    entry(|| {
        let count = usize::try_from(threads)
            .map_err(|_| Error::range("threads", threads, format!("1 to {}", threads::MAX_THREADS)))?;
        threads::set_num_threads(count)
    })
}

/// How many threads (the caller included) a call may use; a negative status on failure.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_num_threads() -> i32 {
    let mut count = 0;
    let status = entry(|| {
        count = threads::num_threads() as i32; // at most MAX_THREADS
        Ok(())
    });
    if status == 0 { count } else { status }
}

/// Name of the instruction set in use, static: "avx512", "avx2", "neon" or "portable". The
/// environment variable DGM_ISA chooses another before the first call. Results never depend on it.
#[unsafe(no_mangle)]
pub extern "C" fn dgm_isa() -> *const c_char {
    let mut name = c"portable";
    entry(|| {
        name = match arch::level() {
            arch::Level::Portable => c"portable",
            arch::Level::Neon => c"neon",
            arch::Level::Avx2 => c"avx2",
            arch::Level::Avx512 => c"avx512",
        };
        Ok(())
    });
    name.as_ptr()
}

/// Chooses what multiplies in linear layers and in attention with large f32 tiles, for the whole process:
/// "native", the default and the same bits everywhere, or "blas", the machine's BLAS, whose bits are its
/// own (in attention each thread calls it: tell it to use one of its own). The environment
/// variable DGM_BACKEND chooses before the first call, DGM_BLAS_LIBRARY names the library;
/// dgm_cpu_info() says what runs.
///
/// @return DGM_ERROR_ARGUMENT for any other name, and for "blas" where there is none
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_set_backend(backend: *const c_char) -> i32 {
    // SAFETY: the caller gives a NUL-terminated text or NULL.
    entry(|| unsafe { set_backend(Backend::from_name(text("backend", backend)?)?) })
}

/// Writes one line of `name=value` pairs: version, numerics, isa, available, threads, backend,
/// target. NUL-terminated.
///
/// @param buf    receives the text; NULL (with cap 0) only asks for the size
/// @param cap    bytes of buf
/// @param needed receives the bytes needed, the NUL included; may be NULL
/// @return DGM_ERROR_RANGE when buf is too small (buf untouched, needed set)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_cpu_info(buf: *mut c_char, cap: usize, needed: *mut usize) -> i32 {
    entry(|| {
        let text = info::cpu_info();
        // SAFETY: the caller gives `cap` writable bytes or NULL, and a valid `needed` or NULL.
        unsafe { write_text("buf", &text, buf, cap, needed) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fits_exactly_what_it_asks_for() {
        let mut needed = 0;
        // SAFETY: NULL asks for the size; then the buffer has that size.
        unsafe {
            assert_eq!(dgm_cpu_info(std::ptr::null_mut(), 0, &mut needed), 0);
            let mut buf = vec![7 as c_char; needed];
            assert_eq!(dgm_cpu_info(buf.as_mut_ptr(), needed - 1, &mut needed), -500);
            assert!(buf.iter().all(|&c| c == 7));
            assert_eq!(dgm_cpu_info(buf.as_mut_ptr(), needed, std::ptr::null_mut()), 0);
            let text = CStr::from_ptr(buf.as_ptr()).to_str().unwrap();
            assert_eq!(text.len() + 1, needed);
            assert!(text.contains("isa="));
        }
    }

    #[test]
    fn backends_are_checked() {
        // SAFETY: NUL-terminated texts, or NULL.
        unsafe {
            assert_eq!(dgm_set_backend(c"native".as_ptr()), 0);
            assert_eq!(dgm_set_backend(c"cuda".as_ptr()), -101);
            assert_eq!(dgm_set_backend(std::ptr::null()), -100);
        }
    }

    #[test]
    fn thread_counts_are_checked() {
        assert_eq!(dgm_set_num_threads(-1), -500);
        assert_eq!(dgm_set_num_threads(0), -500);
        assert_eq!(dgm_set_num_threads(2), 0);
        assert_eq!(dgm_num_threads(), 2);
    }
}
