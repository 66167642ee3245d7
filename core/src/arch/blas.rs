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
    let w = Matrix::from_slice(w, n, k);
    assert!(out.rows() == m);
    let Some(blas) = Blas::find().filter(|_| m > 0 && n > 0 && k > 0) else { return false };
    let (Some(x), Some(w), Some(ldc)) =
        (Operand::new(x), Operand::new(w), ld(m, n, out.row_stride, out.col_stride))
    else {
        return false;
    };
    // SAFETY: `out` is `m` rows of `n` adjacent elements at the distance `ldc` (checked) and
    // exclusively borrowed.
    unsafe { blas.sgemm(x, w.transposed(), 0.0, out.ptr, ldc) };
    true
}

/// The distance of rows of adjacent elements, where that is what the strides say.
fn ld(rows: usize, cols: usize, row_stride: isize, col_stride: isize) -> Option<i32> {
    // A single row or column has no stride to respect.
    let row_stride = if rows == 1 { cols as isize } else { row_stride };
    let side_by_side = col_stride == 1 || cols == 1;
    let fits = i32::try_from(rows).is_ok() && i32::try_from(cols).is_ok();
    i32::try_from(row_stride).ok().filter(|&s| fits && side_by_side && s as isize >= cols as isize)
}

/// A matrix that a BLAS can read: rows of adjacent elements, all sizes in 32 bits. It may be meant
/// transposed.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    /// As it lies in memory.
    stored: Matrix<'a>,
    ld: i32,
    transposed: bool,
}

impl<'a> Operand<'a> {
    /// `None` where a BLAS cannot read it.
    pub(crate) fn new(stored: Matrix<'a>) -> Option<Self> {
        let ld = ld(stored.rows(), stored.cols(), stored.row_stride, stored.col_stride)?;
        Some(Operand { stored, ld, transposed: false })
    }

    /// `rows` rows of `cols` elements that begin every `step` elements of `data`; panics where they
    /// do not fit.
    pub(crate) fn rows_of(data: &'a [f32], rows: usize, cols: usize, step: usize) -> Self {
        let whole = Matrix::from_slice(data, rows, step);
        assert!(0 < cols && cols <= step && i32::try_from(rows.max(step)).is_ok());
        Operand { stored: whole.slice_cols(0, cols), ld: step as i32, transposed: false }
    }

    /// The same memory, meant transposed.
    pub(crate) fn transposed(self) -> Self {
        Operand { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as meant.
    fn shape(&self) -> (usize, usize) {
        let (rows, cols) = (self.stored.rows(), self.stored.cols());
        if self.transposed { (cols, rows) } else { (rows, cols) }
    }
}

/// The BLAS of this process.
#[derive(Clone, Copy)]
pub(crate) struct Blas(&'static Library);

impl Blas {
    /// `None` without one.
    pub(crate) fn find() -> Option<Self> {
        find::library().map(Blas)
    }

    /// `out = a b + beta out`, the rows of `out` beginning every `step` elements. With `beta` 0 what
    /// `out` holds is not read. Panics where sizes do not fit.
    pub(crate) fn multiply(self, a: Operand, b: Operand, beta: f32, out: &mut [f32], step: usize) {
        let (rows, cols) = (a.shape().0, b.shape().1);
        assert!(cols <= step && rows.checked_mul(step).is_some_and(|n| n <= out.len()));
        let ldc = i32::try_from(step).expect("a step in 32 bits");
        // SAFETY: `out` has `rows` rows at the distance `ldc` with room for `cols` elements (checked)
        // and is exclusively borrowed.
        unsafe { self.sgemm(a, b, beta, out.as_mut_ptr(), ldc) };
    }

    /// # Safety
    /// `out` must be valid for writing, and with `beta` not 0 for reading, as many rows as `a` has at
    /// the distance `ldc`, each of as many elements as `b` has columns, and overlap neither.
    unsafe fn sgemm(self, a: Operand, b: Operand, beta: f32, out: *mut f32, ldc: i32) {
        const ROW_MAJOR: i32 = 101;
        let order = |x: &Operand| if x.transposed { 112 } else { 111 };
        let ((m, k), (same, n)) = (a.shape(), b.shape());
        assert!(k == same && m > 0 && n > 0 && k > 0);
        // SAFETY: the operands have rows of adjacent elements at the distances `ld` and sizes in 32 bits
        // (by construction); the caller answers for `out`.
        unsafe {
            (self.0.sgemm)(
                ROW_MAJOR,
                order(&a),
                order(&b),
                m as i32,
                n as i32,
                k as i32,
                1.0,
                a.stored.ptr,
                a.ld,
                b.stored.ptr,
                b.ld,
                beta,
                out,
                ldc,
            );
        }
    }
}

/// The file of the BLAS, if there is one.
pub(crate) fn library() -> Option<&'static str> {
    find::library().map(|library| library.file.as_str())
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

struct Library {
    sgemm: Sgemm,
    file: String,
}

#[cfg(all(feature = "blas", unix))]
mod find {
    use std::ffi::{CString, c_char, c_int, c_void};
    use std::sync::OnceLock;

    use super::{Library, Sgemm};

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

    static FOUND: OnceLock<Library> = OnceLock::new();

    /// The BLAS; a failure to find one is not remembered.
    pub fn library() -> Option<&'static Library> {
        if let Some(blas) = FOUND.get() {
            return Some(blas);
        }
        let blas = match std::env::var("DGM_BLAS_LIBRARY") {
            Ok(file) => open(&file),
            Err(_) => ACCELERATE.iter().chain(USUAL).find_map(|file| open(file)),
        }?;
        Some(FOUND.get_or_init(|| blas))
    }

    fn open(file: &str) -> Option<Library> {
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
        Some(Library { sgemm, file: file.to_string() })
    }
}

#[cfg(not(all(feature = "blas", unix)))]
mod find {
    use super::Library;

    /// This build does not look for any.
    pub fn library() -> Option<&'static Library> {
        None
    }
}
