//! Attention of candle and burn-flex, linear layers of Rust libraries and a DiT of candle, behind a C interface.
//!
//! `rust_peer_new` copies q, k and v into tensors of the peer, in the layout it likes best, outside
//! the timed region, `rust_linear_new` x, w and b, `rust_dit_new` reads a file; `rust_peer_run` is what is timed; `rust_peer_output` copies the last result.

mod burn;
mod candle;
mod dit;
mod linear;

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice::from_raw_parts;

/// What to compute. Tensors are contiguous [batch, heads, length, dim].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    value_dim: usize,
    /// 0 f32, 1 f16, 2 bf16.
    dtype: i32,
    causal: i32,
    scale: f32,
    /// 0: none.
    soft_cap: f32,
}

impl Case {
    fn q_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.queries, self.dim]
    }

    fn k_shape(&self) -> [usize; 4] {
        [self.batch, self.kv_heads, self.keys, self.dim]
    }

    fn v_shape(&self) -> [usize; 4] {
        [self.batch, self.kv_heads, self.keys, self.value_dim]
    }

    fn element_size(&self) -> usize {
        if self.dtype == 0 { 4 } else { 2 }
    }
}

/// A peer with its tensors.
trait Peer {
    fn run(&mut self) -> Result<(), String>;
    /// The last result in f32: [batch, heads, queries, value_dim], [rows, outputs] or [batch, channels, side, side].
    fn output(&self) -> Result<Vec<f32>, String>;
}

/// What the caller holds.
pub struct Handle(Box<dyn Peer>);

/// The raw bytes of q, k and v.
struct Bytes<'a> {
    q: &'a [u8],
    k: &'a [u8],
    v: &'a [u8],
}

fn make(name: &str, case: Case, bytes: &Bytes) -> Result<Box<dyn Peer>, String> {
    Ok(match name {
        "candle flash" => Box::new(candle::Flash::new(case, bytes)?),
        "candle naive" => Box::new(candle::Naive::new(case, bytes)?),
        "burn-flex" => Box::new(burn::Flex::new(case, bytes)?),
        _ => return Err(format!("no peer is called {name}")),
    })
}

/// Runs `f`; a failure or a panic is printed and gives `None`.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(text)) => {
            eprintln!("rust peer: {text}");
            None
        }
        Err(_) => None,
    }
}

/// A handle, or NULL.
///
/// # Safety
///
/// `name` is a NUL-terminated string, `case` is valid, q, k and v hold what it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_peer_new(
    name: *const c_char,
    case: *const Case,
    q: *const u8,
    k: *const u8,
    v: *const u8,
) -> *mut Handle {
    // SAFETY: the caller's promise.
    let (name, case) = unsafe { (CStr::from_ptr(name), *case) };
    let bytes = |shape: [usize; 4]| shape.iter().product::<usize>() * case.element_size();
    // SAFETY: the caller's promise.
    let bytes = unsafe {
        Bytes {
            q: from_raw_parts(q, bytes(case.q_shape())),
            k: from_raw_parts(k, bytes(case.k_shape())),
            v: from_raw_parts(v, bytes(case.v_shape())),
        }
    };
    guarded(|| make(name.to_str().map_err(|e| e.to_string())?, case, &bytes))
        .map_or(std::ptr::null_mut(), |peer| Box::into_raw(Box::new(Handle(peer))))
}

/// A linear layer's handle, or NULL; see [`linear::Layer`].
///
/// # Safety
///
/// `name` is a NUL-terminated string, `shape` is valid, x, w and b hold what it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_linear_new(
    name: *const c_char,
    shape: *const linear::Shape,
    x: *const f32,
    w: *const f32,
    b: *const f32,
) -> *mut Handle {
    // SAFETY: the caller's promise.
    let (name, layer) = unsafe { (CStr::from_ptr(name), linear::Layer::new(*shape, x, w, b)) };
    guarded(|| linear::make(name.to_str().map_err(|e| e.to_string())?, layer))
        .map_or(std::ptr::null_mut(), |peer| Box::into_raw(Box::new(Handle(peer))))
}

/// A DiT's handle, or NULL.
///
/// # Safety
///
/// `path` is a NUL-terminated string, `config` is valid, `x` [batch, channels, side, side], `t` and `labels` [batch]
/// hold what it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_dit_new(
    path: *const c_char,
    config: *const dit::Config,
    x: *const f32,
    t: *const f32,
    labels: *const i64,
) -> *mut Handle {
    // SAFETY: the caller's promise.
    let (path, config) = unsafe { (CStr::from_ptr(path), *config) };
    // SAFETY: the caller's promise.
    let (x, t, labels) = unsafe {
        (
            from_raw_parts(x, config.x_len()),
            from_raw_parts(t, config.batch),
            from_raw_parts(labels, config.batch),
        )
    };
    guarded(|| {
        let path = path.to_str().map_err(|e| e.to_string())?;
        dit::Dit::new(path, config, x, t, labels).map_err(|e| e.to_string())
    })
    .map_or(std::ptr::null_mut(), |peer| Box::into_raw(Box::new(Handle(Box::new(peer)))))
}

/// 0, or -1 after a failure.
///
/// # Safety
///
/// `peer` comes from one of the three functions that make one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_peer_run(peer: *mut Handle) -> i32 {
    // SAFETY: the caller's promise.
    let peer = unsafe { &mut *peer };
    guarded(|| peer.0.run()).map_or(-1, |()| 0)
}

/// Writes the last result as f32; 0, or -1 after a failure.
///
/// # Safety
///
/// `peer` comes from one of the three; `out` has room for `len` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_peer_output(peer: *mut Handle, out: *mut f32, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    let (peer, out) = unsafe { (&mut *peer, std::slice::from_raw_parts_mut(out, len)) };
    let Some(values) = guarded(|| peer.0.output()) else { return -1 };
    if values.len() != len {
        return -1;
    }
    out.copy_from_slice(&values);
    0
}

/// Releases a handle.
///
/// # Safety
///
/// `peer` comes from one of the three and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rust_peer_free(peer: *mut Handle) {
    if !peer.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(peer) });
    }
}
