//! Random numbers of other systems.

use std::ffi::c_void;

use dgm_core::random::compat::jax::{self, Key, Layout};
use dgm_core::random::compat::{Algorithm, BrownianTree, Generator, STATE_BYTES};
use dgm_core::tensor::Dtype;
use dgm_core::{Error, Result};
use ndarray::{ArrayViewMutD, Ix2, IxDyn};

use crate::fence::entry;
use crate::memory::{separate, slice, slice_mut};
use crate::tensor::{Tensor, dgm_tensor};

/// Bytes of the state of a generator: numbers in the caller's memory, the same on every machine, to be kept,
/// copied or sent as they are.
pub const DGM_COMPAT_STATE_SIZE: usize = 2560;

/// PyTorch on the CPU: torch.manual_seed().
pub const DGM_COMPAT_TORCH_CPU: u32 = 0;
/// PyTorch on CUDA devices: normal numbers in f32 only.
pub const DGM_COMPAT_TORCH_CUDA: u32 = 1;
/// numpy.random.default_rng().
pub const DGM_COMPAT_NUMPY_PCG64: u32 = 2;
/// numpy.random.Generator(numpy.random.Philox()).
pub const DGM_COMPAT_NUMPY_PHILOX: u32 = 3;
/// numpy.random.RandomState() and numpy.random.seed(): seeds below 2^32.
pub const DGM_COMPAT_NUMPY_RANDOM_STATE: u32 = 4;

/// JAX with jax_threefry_partitionable, its default.
pub const DGM_COMPAT_JAX_PARTITIONABLE: u32 = 0;
/// JAX with jax_threefry_partitionable=False.
pub const DGM_COMPAT_JAX_ORIGINAL: u32 = 1;
/// Nx.Random.
pub const DGM_COMPAT_NX: u32 = 2;

const _: () = assert!(DGM_COMPAT_STATE_SIZE == STATE_BYTES);

/// Makes the state of a generator at the start of the stream of a seed.
///
/// @param algorithm  DGM_COMPAT_TORCH_CPU, ...
/// @param seed       as the other system takes it; a negative seed is its two's complement
/// @param state      receives DGM_COMPAT_STATE_SIZE bytes
/// @param state_size bytes at state, DGM_COMPAT_STATE_SIZE
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_seed(
    algorithm: u32,
    seed: u64,
    state: *mut c_void,
    state_size: usize,
) -> i32 {
    // SAFETY: the caller gives memory of the size said, or NULL.
    entry(|| unsafe {
        let generator = Generator::new(Algorithm::from_number(algorithm)?, seed)?;
        let state = state_bytes(state, state_size)?;
        state.copy_from_slice(&generator.to_bytes());
        Ok(())
    })
}

unsafe fn state_bytes<'a>(state: *mut c_void, size: usize) -> Result<&'a mut [u8]> {
    if size != STATE_BYTES {
        return Err(Error::range("state_size", size, format!("DGM_COMPAT_STATE_SIZE ({STATE_BYTES})")));
    }
    // SAFETY: the caller's promise, passed on.
    unsafe { slice_mut("state", state.cast(), size) }
}

/// The elements of a tensor in row-major order, which is how generators fill one.
fn contiguous<'a, T>(view: &'a mut ArrayViewMutD<'_, T>) -> Result<&'a mut [T]> {
    let got = format!("{:?}", view.strides());
    view.as_slice_mut().ok_or_else(|| Error::Stride {
        arg: "out",
        got,
        expected: "contiguous row-major elements".into(),
    })
}

type Fill<T> = fn(&mut Generator, &mut [T]) -> Result<()>;

unsafe fn draw(
    state: *mut c_void,
    size: usize,
    out: *mut dgm_tensor,
    narrow: Fill<f32>,
    wide: Fill<f64>,
) -> Result<()> {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let bytes = state_bytes(state, size)?;
        let mut generator = Generator::from_bytes(bytes)?;
        let out = Tensor::read_any("out", out, None, "any shape", &[Dtype::F32, Dtype::F64])?;
        out.check_separate("state", bytes)?;
        match out.dtype() {
            Dtype::F64 => wide(&mut generator, contiguous(&mut out.output_of::<f64, IxDyn>(&[])?)?)?,
            _ => narrow(&mut generator, contiguous(&mut out.output_of::<f32, IxDyn>(&[])?)?)?,
        }
        bytes.copy_from_slice(&generator.to_bytes());
        Ok(())
    }
}

/// The next tensor of normal numbers, as torch.randn(), numpy's standard_normal() or randn() would
/// return it: one call a tensor, in the same order as there. On failure the state is as it was.
///
/// @param state      made by dgm_compat_seed(); moves on
/// @param state_size DGM_COMPAT_STATE_SIZE
/// @param out        f32 or f64, any shape, contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_normal(
    state: *mut c_void,
    state_size: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives memory of the size said and a valid descriptor, or NULL.
    entry(|| unsafe { draw(state, state_size, out, Generator::normal, Generator::normal_f64) })
}

/// The next tensor of uniform numbers in [0, 1), as torch.rand(), numpy's random() or random_sample()
/// would return it. Otherwise as dgm_compat_normal().
///
/// @param state      made by dgm_compat_seed(); moves on
/// @param state_size DGM_COMPAT_STATE_SIZE
/// @param out        f32 or f64, any shape, contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_uniform(
    state: *mut c_void,
    state_size: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives memory of the size said and a valid descriptor, or NULL.
    entry(|| unsafe { draw(state, state_size, out, Generator::uniform, Generator::uniform_f64) })
}

/// The noise of torchsde's Brownian tree, which k-diffusion's SDE samplers add.
///
/// Row r is the path of seeds[r]: k-diffusion's BatchedBrownianTree with a list of seeds. With one
/// seed for a whole batch there, give the batch as one row here.
///
/// @param seeds      one seed for each row
/// @param rows       number of seeds
/// @param t0         one end of the tree, between -1e6 and 1e6
/// @param t1         its other end
/// @param ta         where the increment begins
/// @param tb         where it ends; ta > tb changes the sign
/// @param normalized 0 for the increment W(tb) - W(ta); 1 for what BrownianTreeNoiseSampler returns, the
///                   increment over sqrt(|tb - ta|)
/// @param out        [rows, elements], f32, rows contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_brownian(
    seeds: *const u64,
    rows: usize,
    t0: f64,
    t1: f64,
    ta: f64,
    tb: f64,
    normalized: u32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives `rows` seeds and a valid descriptor, or NULL.
    entry(|| unsafe {
        let seeds = slice("seeds", seeds, rows)?;
        let out = Tensor::read("out", out, Some(2), "[rows, elements]")?;
        out.check_separate("seeds", seeds)?;
        let tree = BrownianTree::new(t0, t1)?;
        match normalized {
            0 => tree.increment(seeds, ta, tb, out.output::<Ix2>(&[])?),
            1 => tree.noise(seeds, ta, tb, out.output::<Ix2>(&[])?),
            other => Err(Error::argument("normalized", other, "0 or 1")),
        }
    })
}

unsafe fn read_key(key: *const u32) -> Result<Key> {
    // SAFETY: the caller's promise, passed on.
    let words = unsafe { slice("key", key, 2) }?;
    Ok([words[0], words[1]])
}

/// jax.random.PRNGKey(seed), Nx.Random.key(seed): the upper and the lower word of the seed.
///
/// @param key receives two words
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_jax_key(seed: u64, key: *mut u32) -> i32 {
    // SAFETY: the caller gives two places or NULL.
    entry(|| unsafe {
        slice_mut("key", key, 2)?.copy_from_slice(&jax::key(seed));
        Ok(())
    })
}

/// jax.random.fold_in(key, data).
///
/// @param key  two words
/// @param data a number
/// @param out  receives two words; may be key
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_jax_fold_in(key: *const u32, data: u32, out: *mut u32) -> i32 {
    // SAFETY: the caller gives two words and two places, or NULL.
    entry(|| unsafe {
        let new = jax::fold_in(read_key(key)?, data);
        slice_mut("out", out, 2)?.copy_from_slice(&new);
        Ok(())
    })
}

/// jax.random.split(key, count), Nx.Random.split(key, count).
///
/// @param key    two words
/// @param layout DGM_COMPAT_JAX_PARTITIONABLE, ...
/// @param count  number of new keys
/// @param out    receives 2 count words, a key after the other
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_jax_split(
    key: *const u32,
    layout: u32,
    count: usize,
    out: *mut u32,
) -> i32 {
    // SAFETY: the caller gives two words and 2 * count places, or NULL.
    entry(|| unsafe {
        let parent = read_key(key)?;
        let words = count.checked_mul(2);
        let words = words.ok_or_else(|| Error::Overflow { arg: "count", got: format!("{count} keys") })?;
        separate("out", out, words, "key", key, 2)?;
        let out = slice_mut("out", out, words)?;
        jax::split(parent, Layout::from_number(layout)?, out.as_chunks_mut().0)
    })
}

unsafe fn draw_jax(
    key: *const u32,
    layout: u32,
    out: *mut dgm_tensor,
    f: fn(Key, Layout, &mut [f32]) -> Result<()>,
) -> Result<()> {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let (key, layout) = (read_key(key)?, Layout::from_number(layout)?);
        let out = Tensor::read("out", out, None, "any shape")?;
        f(key, layout, contiguous(&mut out.output::<IxDyn>(&[])?)?)
    }
}

/// jax.random.normal(key, shape), Nx.Random.normal(key, shape: shape), in f32.
///
/// @param key    two words
/// @param layout DGM_COMPAT_JAX_PARTITIONABLE, ...
/// @param out    any shape, contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_jax_normal(key: *const u32, layout: u32, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives two words and a valid descriptor, or NULL.
    entry(|| unsafe { draw_jax(key, layout, out, jax::normal) })
}

/// jax.random.uniform(key, shape), Nx.Random.uniform(key, shape: shape), in f32: numbers in [0, 1).
///
/// @param key    two words
/// @param layout DGM_COMPAT_JAX_PARTITIONABLE, ...
/// @param out    any shape, contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_compat_jax_uniform(key: *const u32, layout: u32, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives two words and a valid descriptor, or NULL.
    entry(|| unsafe { draw_jax(key, layout, out, jax::uniform) })
}
