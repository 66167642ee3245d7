//! The BLAS of the machine, looked for when it is first wanted; nothing is linked.
//!
//! Its sums run in an order of its own, so results differ in the last bits from the engine's and
//! may depend on threads and machine.

use super::{Matrix, MatrixMut};

/// `out = x w^T` for `w` `[out.cols()][x.cols()]`, row after row.
///
/// `false` and untouched when there is no BLAS or when it cannot take these shapes and strides.
pub(crate) fn product(x: Matrix, w: &[f32], out: &mut MatrixMut) -> bool {
    let (m, n, k) = (x.rows(), out.cols(), x.cols());
    assert!(out.rows() == m && k.checked_mul(n).is_some_and(|len| len <= w.len()));
    let ld = |rows: usize, cols: usize, row_stride: isize, col_stride: isize| {
        // A single row or column has no stride to respect.
        let row_stride = if rows == 1 { cols as isize } else { row_stride };
        let side_by_side = col_stride == 1 || cols == 1;
        i32::try_from(row_stride).ok().filter(|&s| side_by_side && s as isize >= cols as isize)
    };
    let Some(blas) = find::blas().filter(|_| m > 0 && n > 0 && k > 0) else { return false };
    let (Some(lda), Some(ldc)) =
        (ld(m, k, x.row_stride, x.col_stride), ld(m, n, out.row_stride, out.col_stride))
    else {
        return false;
    };
    let (Ok(m), Ok(n), Ok(k)) = (i32::try_from(m), i32::try_from(n), i32::try_from(k)) else { return false };
    const ROW_MAJOR: i32 = 101;
    const AS_IT_IS: i32 = 111;
    const TRANSPOSED: i32 = 112;
    // SAFETY: `x` and `out` have rows of adjacent elements at the distances `lda` and `ldc`, `w` has
    // n rows of k (all checked); `out` is exclusively borrowed, so it is apart from the others.
    unsafe {
        (blas.sgemm)(
            ROW_MAJOR,
            AS_IT_IS,
            TRANSPOSED,
            m,
            n,
            k,
            1.0,
            x.ptr,
            lda,
            w.as_ptr(),
            k,
            0.0,
            out.ptr,
            ldc,
        );
    }
    true
}

/// The file of the BLAS that [`product`] uses, if there is one.
pub(crate) fn library() -> Option<&'static str> {
    find::blas().map(|blas| blas.file.as_str())
}

/// `cblas_sgemm` with 32-bit integers.
type Sgemm = unsafe extern "C" fn(
    order: i32,
    trans_a: i32,
    trans_b: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: f32,
    a: *const f32,
    lda: i32,
    b: *const f32,
    ldb: i32,
    beta: f32,
    c: *mut f32,
    ldc: i32,
);

struct Blas {
    sgemm: Sgemm,
    file: String,
}

#[cfg(all(feature = "blas", unix))]
mod find {
    use std::ffi::{CString, c_char, c_int, c_void};
    use std::sync::OnceLock;

    use super::{Blas, Sgemm};

    // From the C library, which the standard library links.
    unsafe extern "C" {
        fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void;
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    const RTLD_NOW: c_int = 2;
    const RTLD_LOCAL: c_int = if cfg!(target_vendor = "apple") { 4 } else { 0 };

    const ACCELERATE: &[&str] = if cfg!(all(feature = "accelerate", target_vendor = "apple")) {
        &["/System/Library/Frameworks/Accelerate.framework/Accelerate"]
    } else {
        &[]
    };

    const USUAL: &[&str] = if cfg!(target_vendor = "apple") {
        &["libopenblas.dylib", "libblis.dylib"]
    } else {
        &["libopenblas.so.0", "libmkl_rt.so.2", "libblis.so.4", "libcblas.so.3", "libblas.so.3"]
    };

    static FOUND: OnceLock<Blas> = OnceLock::new();

    /// The BLAS; a failure to find one is not remembered.
    pub fn blas() -> Option<&'static Blas> {
        if let Some(blas) = FOUND.get() {
            return Some(blas);
        }
        let blas = match std::env::var("DGM_BLAS_LIBRARY") {
            Ok(file) => open(&file),
            Err(_) => ACCELERATE.iter().chain(USUAL).find_map(|file| open(file)),
        }?;
        Some(FOUND.get_or_init(|| blas))
    }

    fn open(file: &str) -> Option<Blas> {
        let name = CString::new(file).ok()?;
        // SAFETY: both texts end with NUL; a library that is named runs its own initialisers, which
        // is what naming it asks for. It stays loaded.
        let sgemm = unsafe {
            let library = dlopen(name.as_ptr(), RTLD_NOW | RTLD_LOCAL);
            if library.is_null() {
                return None;
            }
            dlsym(library, c"cblas_sgemm".as_ptr())
        };
        if sgemm.is_null() {
            return None;
        }
        // SAFETY: every CBLAS declares this function so.
        let sgemm = unsafe { std::mem::transmute::<*mut c_void, Sgemm>(sgemm) };
        Some(Blas { sgemm, file: file.to_string() })
    }
}

#[cfg(not(all(feature = "blas", unix)))]
mod find {
    use super::Blas;

    /// This build does not look for any.
    pub fn blas() -> Option<&'static Blas> {
        None
    }
}
