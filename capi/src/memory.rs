//! Raw pointers of the caller: checked for NULL, alignment and size before they are used.

use std::ffi::{CStr, c_char};

use dgm_core::tensor::Span;
use dgm_core::{Error, Result};

/// Largest option struct accepted; anything above is an uninitialised `struct_size`.
const MAX_STRUCT: usize = 4096;

#[inline]
fn check<T>(arg: &'static str, ptr: *const T, len: usize, expected: &'static str) -> Result<()> {
    if ptr.is_null() {
        return Err(Error::Null { arg, expected });
    }
    if !ptr.is_aligned() {
        return Err(misaligned(arg, ptr as usize, align_of::<T>()));
    }
    span(arg, ptr, len).map(|_| ())
}

#[cold]
pub(crate) fn misaligned(arg: &'static str, address: usize, align: usize) -> Error {
    Error::Stride {
        arg,
        got: format!("address {address:#x}"),
        expected: format!("an address that is a multiple of {align}"),
    }
}

/// Checks two spans that must not share memory. `T` and `U` slices of `a_len`, `b_len` elements.
pub(crate) fn separate<T, U>(
    arg: &'static str,
    a: *const T,
    a_len: usize,
    other: &'static str,
    b: *const U,
    b_len: usize,
) -> Result<()> {
    if span(arg, a, a_len)?.overlaps(span(other, b, b_len)?) {
        return Err(Error::Alias { arg, other });
    }
    Ok(())
}

/// The addresses of `len` elements.
#[inline]
fn span<T>(arg: &'static str, ptr: *const T, len: usize) -> Result<Span> {
    let bytes = len.checked_mul(size_of::<T>()).filter(|&b| b <= isize::MAX as usize);
    bytes
        .and_then(|b| Span::new(ptr as usize, b))
        .ok_or_else(|| Error::Overflow { arg, got: format!("{len} elements of {} bytes", size_of::<T>()) })
}

/// Borrows `len` elements. NULL is fine when there are none.
///
/// # Safety
/// A pointer that is not NULL must be valid for reading `len` elements during `'a`.
pub(crate) unsafe fn slice<'a, T>(arg: &'static str, ptr: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check(arg, ptr, len, "an array")?;
    // SAFETY: not NULL, aligned, the size fits; validity is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// Borrows `len` elements for writing. NULL is fine when there are none.
///
/// # Safety
/// As [`slice`], valid for reading and writing, and not borrowed elsewhere during `'a`.
pub(crate) unsafe fn slice_mut<'a, T>(arg: &'static str, ptr: *mut T, len: usize) -> Result<&'a mut [T]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check(arg, ptr, len, "an array")?;
    // SAFETY: not NULL, aligned, the size fits; validity is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(ptr, len) })
}

/// Borrows an object behind a handle.
///
/// # Safety
/// A pointer that is not NULL must come from the matching constructor and not be freed yet.
#[inline]
pub(crate) unsafe fn handle<'a, T>(arg: &'static str, ptr: *const T) -> Result<&'a T> {
    check(arg, ptr, 1, "a handle")?;
    // SAFETY: not NULL, aligned; validity is the caller's promise.
    Ok(unsafe { &*ptr })
}

/// Writes one value through an output pointer.
///
/// # Safety
/// A pointer that is not NULL must be valid for writing.
pub(crate) unsafe fn put<T>(arg: &'static str, ptr: *mut T, value: T) -> Result<()> {
    // SAFETY: not NULL, aligned; validity is the caller's promise.
    unsafe { place(arg, ptr)?.write(value) };
    Ok(())
}

/// Checks an output pointer that is written later.
pub(crate) fn place<T>(arg: &'static str, ptr: *mut T) -> Result<*mut T> {
    check(arg, ptr, 1, "a place for the result").map(|()| ptr)
}

/// Makes a handle from what `make` returns; NULL in `*out` when it fails.
///
/// # Safety
/// As [`put`].
pub(crate) unsafe fn put_handle<T>(
    arg: &'static str,
    out: *mut *mut T,
    make: impl FnOnce() -> Result<T>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { put(arg, out, std::ptr::null_mut()) }?;
    let object = Box::new(make()?);
    // SAFETY: the caller's promise.
    unsafe { put(arg, out, Box::into_raw(object)) }
}

/// Releases a handle; NULL does nothing.
///
/// # Safety
/// A pointer that is not NULL must come from [`put_handle`] and is released for the first time.
pub(crate) unsafe fn free_handle<T>(ptr: *mut T) {
    crate::fence::entry(|| {
        if !ptr.is_null() {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(ptr) });
        }
        Ok(())
    });
}

/// Reads a NUL-terminated UTF-8 text.
///
/// # Safety
/// A pointer that is not NULL must point to a NUL-terminated text.
pub(crate) unsafe fn text<'a>(arg: &'static str, ptr: *const c_char) -> Result<&'a str> {
    check(arg, ptr, 1, "a text")?;
    // SAFETY: not NULL; termination is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(ptr) };
    bytes.to_str().map_err(|_| Error::argument(arg, bytes.to_string_lossy(), "UTF-8 text"))
}

/// Writes `text` and a NUL; see the header for what `cap` and `needed` mean.
///
/// # Safety
/// `buf` must be NULL or valid for writing `cap` bytes, `needed` NULL or valid for writing.
pub(crate) unsafe fn write_text(
    arg: &'static str,
    text: &str,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> Result<()> {
    let size = text.len() + 1;
    if !needed.is_null() {
        // SAFETY: not NULL; validity is the caller's promise.
        unsafe { put("needed", needed, size) }?;
    }
    if buf.is_null() && cap == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let out = unsafe { slice_mut(arg, buf.cast::<u8>(), cap) }?;
    if cap < size {
        return Err(Error::range("cap", cap, format!("at least {size} bytes")));
    }
    out[..text.len()].copy_from_slice(text.as_bytes());
    out[text.len()] = 0;
    Ok(())
}

/// A struct of the interface whose first field is `size_t struct_size`.
///
/// # Safety
/// `repr(C)`, first field `usize`, no padding, every bit pattern of the other fields valid.
pub(crate) unsafe trait Versioned: Copy {}

/// Reads the `struct_size` of a caller's struct.
#[inline]
unsafe fn struct_size<T: Versioned>(arg: &'static str, ptr: *const T) -> Result<usize> {
    check(arg, ptr, 1, "an initialised struct")?;
    // SAFETY: not NULL, aligned; every versioned struct starts with its size.
    let size = unsafe { ptr.cast::<usize>().read() };
    if size < size_of::<usize>() || size > MAX_STRUCT || !size.is_multiple_of(align_of::<T>()) {
        return Err(odd_size(arg, size, size_of::<T>()));
    }
    Ok(size)
}

#[cold]
fn odd_size(arg: &'static str, size: usize, here: usize) -> Error {
    let expected = format!("struct_size = sizeof (here {here})");
    Error::argument(arg, format!("a struct with struct_size {size}"), expected)
}

/// Reads an option struct of any version: fields that an older caller does not have keep the
/// value of `default`; fields of a newer caller that this library does not know must be zero.
///
/// # Safety
/// A pointer that is not NULL must be valid for reading as many bytes as its `struct_size` says.
pub(crate) unsafe fn read_struct<T: Versioned>(arg: &'static str, ptr: *const T, default: T) -> Result<T> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(arg, ptr) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are readable by the caller's promise.
    let tail = unsafe { std::slice::from_raw_parts(ptr.cast::<u8>().add(known), size - known) };
    if tail.iter().any(|&b| b != 0) {
        return Err(Error::argument(
            arg,
            format!("a struct of {size} bytes with options this library does not know"),
            format!("zeros after byte {}", size_of::<T>()),
        ));
    }
    let mut value = default;
    // SAFETY: `known` bytes are readable there and writable here, and any bits are valid.
    unsafe { std::ptr::copy_nonoverlapping(ptr.cast::<u8>(), (&raw mut value).cast::<u8>(), known) };
    Ok(value)
}

/// Fills a caller's struct of any version, all but its `struct_size`.
///
/// # Safety
/// A pointer that is not NULL must be valid for writing as many bytes as its `struct_size` says.
#[inline(always)]
pub(crate) unsafe fn write_struct<T: Versioned>(
    arg: &'static str,
    ptr: *mut T,
    value: impl FnOnce() -> T,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let size = unsafe { struct_size(arg, ptr) }?;
    // SAFETY: as above.
    unsafe { fill(ptr, size, value) };
    Ok(())
}

/// Initialises a caller's struct of `size` bytes with defaults and its size.
///
/// # Safety
/// A pointer that is not NULL must be valid for writing `size` bytes.
pub(crate) unsafe fn init_struct<T: Versioned>(
    arg: &'static str,
    ptr: *mut T,
    size: usize,
    default: T,
) -> Result<()> {
    check(arg, ptr, 1, "a struct to initialise")?;
    if size < size_of::<usize>() || size > MAX_STRUCT || !size.is_multiple_of(align_of::<T>()) {
        return Err(Error::range("struct_size", size, format!("sizeof (here {})", size_of::<T>())));
    }
    // SAFETY: `size` bytes are writable by the caller's promise.
    unsafe {
        ptr.cast::<usize>().write(size);
        fill(ptr, size, || default);
    }
    Ok(())
}

/// Copies all but the first field; zeros what a newer caller has beyond.
#[inline(always)]
unsafe fn fill<T: Versioned>(ptr: *mut T, size: usize, value: impl FnOnce() -> T) {
    if size != size_of::<T>() {
        // SAFETY: the caller's promise.
        return unsafe { fill_other(ptr, size, value()) };
    }
    // By far the most: fields that are written as they are found. The size is the caller's own.
    // SAFETY: `size` bytes are writable at `ptr`, aligned, and begin with the size.
    unsafe {
        ptr.write(value());
        ptr.cast::<usize>().write(size);
    }
}

/// [`fill`] of an older or newer caller's struct.
// Out of line, and of a value of its own, so that `fill` needs no address of its one.
#[cold]
#[inline(never)]
unsafe fn fill_other<T: Versioned>(ptr: *mut T, size: usize, value: T) {
    let known = size.min(size_of::<T>());
    let first = size_of::<usize>();
    // SAFETY: `size` bytes are writable at `ptr`, `known` of them readable from `value`.
    unsafe {
        let (to, from) = (ptr.cast::<u8>(), (&raw const value).cast::<u8>());
        std::ptr::copy_nonoverlapping(from.add(first), to.add(first), known - first);
        std::ptr::write_bytes(to.add(known), 0, size - known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Options {
        struct_size: usize,
        a: i64,
        b: f64,
    }
    // SAFETY: repr(C), size first, no padding, plain numbers.
    unsafe impl Versioned for Options {}

    const DEFAULT: Options = Options { struct_size: 24, a: 1, b: 2.0 };

    fn read(words: &[u64]) -> Result<Options> {
        // SAFETY: the tests pass at least as many bytes as the size says.
        unsafe { read_struct("options", words.as_ptr().cast(), DEFAULT) }
    }

    #[test]
    fn older_and_newer_callers_are_read() {
        let b = 5.0f64.to_bits();
        assert_eq!(read(&[24, 9, b]).unwrap(), Options { struct_size: 24, a: 9, b: 5.0 });
        assert_eq!(read(&[16, 9]).unwrap(), Options { struct_size: 16, a: 9, b: 2.0 });
        assert_eq!(read(&[8]).unwrap(), Options { struct_size: 8, ..DEFAULT });
        assert_eq!(read(&[40, 9, b, 0, 0]).unwrap().a, 9);
        assert_eq!(read(&[40, 9, b, 0, 1]).unwrap_err().code(), -101);
        for size in [0, 7, 12, 1 << 20, u64::MAX] {
            assert_eq!(read(&[size, 0, 0]).unwrap_err().code(), -101, "{size}");
        }
    }

    #[test]
    fn structs_are_filled_to_their_size() {
        for size in [8usize, 16, 24, 32] {
            let mut words = [77u64; 5];
            // SAFETY: `words` has 40 bytes.
            unsafe { init_struct("options", words.as_mut_ptr().cast(), size, DEFAULT) }.unwrap();
            let full = [size as u64, 1, 2.0f64.to_bits(), 0, 77];
            let n = size / 8;
            assert_eq!(words[..n], full[..n]);
            assert!(words[n..].iter().all(|&w| w == 77));
        }
    }

    #[test]
    fn bad_arrays_are_errors() {
        let bytes = [0u64; 2];
        let odd = bytes.as_ptr().cast::<u8>().wrapping_add(1).cast::<f32>();
        // SAFETY: none of these is dereferenced.
        unsafe {
            assert_eq!(slice::<f32>("x", std::ptr::null(), 1).unwrap_err().code(), -100);
            assert!(slice::<f32>("x", std::ptr::null(), 0).unwrap().is_empty());
            assert_eq!(slice("x", odd, 1).unwrap_err().code(), -201);
            assert_eq!(slice("x", bytes.as_ptr(), usize::MAX / 2).unwrap_err().code(), -501);
            assert_eq!(put("x", std::ptr::null_mut(), 1u8).unwrap_err().code(), -100);
        }
    }

    #[test]
    fn handles_are_made_and_released() {
        let mut out = std::ptr::dangling_mut::<String>();
        // SAFETY: `out` is a valid place; the handle is released once.
        unsafe {
            assert!(put_handle("out", &mut out, || Err(Error::Cancelled)).is_err());
            assert!(out.is_null());
            put_handle("out", &mut out, || Ok("made".into())).unwrap();
            assert_eq!(handle("h", out).unwrap(), "made");
            free_handle(out);
            free_handle::<String>(std::ptr::null_mut());
            assert_eq!(handle::<String>("h", std::ptr::null()).unwrap_err().code(), -100);
        }
    }

    #[test]
    fn shared_memory_is_seen() {
        let a = [0f32; 8];
        assert!(separate("a", a.as_ptr(), 4, "b", a[4..].as_ptr(), 4).is_ok());
        assert_eq!(separate("a", a.as_ptr(), 5, "b", a[4..].as_ptr(), 4).unwrap_err().code(), -400);
    }
}
