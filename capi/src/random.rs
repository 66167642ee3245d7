//! Noise: a pure function of (row seed, purpose, draw, element).

use dgm_core::Result;
use dgm_core::random::{categorical, normal, row_seeds, uniform};
use ndarray::{ArrayViewMut2, Ix2};

use crate::fence::entry;
use crate::memory::{slice, slice_mut};
use crate::tensor::{Tensor, dgm_tensor};

/// Stream of the initial noise.
pub const DGM_PURPOSE_INITIAL: u32 = 0;
/// Stream of the noise of a step.
pub const DGM_PURPOSE_STEP: u32 = 1;
/// Stream of churn noise.
pub const DGM_PURPOSE_CHURN: u32 = 2;
/// Stream of inpainting noise.
pub const DGM_PURPOSE_INPAINT: u32 = 3;
/// Stream of acceptance tests.
pub const DGM_PURPOSE_ACCEPT: u32 = 4;
/// Stream of Gumbel and categorical draws.
pub const DGM_PURPOSE_GUMBEL: u32 = 5;
/// Stream of draft tokens.
pub const DGM_PURPOSE_DRAFT: u32 = 6;
/// Stream of residual draws.
pub const DGM_PURPOSE_RESIDUAL: u32 = 7;
/// Stream of Brownian paths.
pub const DGM_PURPOSE_BROWNIAN: u32 = 8;
/// Stream for the caller's own use.
pub const DGM_PURPOSE_USER: u32 = 9;
/// Stream of the probes of stochastic traces.
pub const DGM_PURPOSE_PROBE: u32 = 10;
/// Stream of the exchanges between neighbouring temperatures.
pub const DGM_PURPOSE_EXCHANGE: u32 = 11;

type Fill = fn(&[u64], u32, u32, ArrayViewMut2<'_, f32>) -> Result<()>;

unsafe fn fill(
    seeds: *const u64,
    rows: usize,
    purpose: u32,
    draw: u32,
    out: *mut dgm_tensor,
    f: Fill,
) -> Result<()> {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let seeds = slice("seeds", seeds, rows)?;
        let out = Tensor::read("out", out, Some(2), "[rows, elements]")?;
        out.check_separate("seeds", seeds)?;
        f(seeds, purpose, draw, out.output::<Ix2>(&[])?)
    }
}

/// Uniform numbers in (0, 1), Philox4x32-10. Row r depends on seeds[r] only.
///
/// @param seeds   one 64-bit seed for each row
/// @param rows    number of seeds
/// @param purpose which stream, DGM_PURPOSE_...
/// @param draw    which draw of that stream (a step number, a counter)
/// @param out     [rows, elements]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_random_uniform(
    seeds: *const u64,
    rows: usize,
    purpose: u32,
    draw: u32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives `rows` seeds and a valid descriptor, or NULL.
    entry(|| unsafe { fill(seeds, rows, purpose, draw, out, uniform) })
}

/// Standard normal numbers, Philox4x32-10 and Box-Muller. Row r depends on seeds[r] only.
///
/// @param seeds   one 64-bit seed for each row
/// @param rows    number of seeds
/// @param purpose which stream, DGM_PURPOSE_...
/// @param draw    which draw of that stream
/// @param out     [rows, elements]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_random_normal(
    seeds: *const u64,
    rows: usize,
    purpose: u32,
    draw: u32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives `rows` seeds and a valid descriptor, or NULL.
    entry(|| unsafe { fill(seeds, rows, purpose, draw, out, normal) })
}

/// One draw from softmax(logits) for each row.
///
/// @param logits  [rows, classes]
/// @param seeds   one 64-bit seed for each row
/// @param rows    number of seeds and of results
/// @param purpose which stream, DGM_PURPOSE_...
/// @param draw    which draw of that stream
/// @param out     receives rows class numbers from 0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_random_categorical(
    logits: *const dgm_tensor,
    seeds: *const u64,
    rows: usize,
    purpose: u32,
    draw: u32,
    out: *mut i64,
) -> i32 {
    // SAFETY: the caller gives a valid descriptor, `rows` seeds and places, or NULL.
    entry(|| unsafe {
        let logits = Tensor::read("logits", logits, Some(2), "[rows, classes]")?;
        let seeds = slice("seeds", seeds, rows)?;
        crate::memory::separate("out", out, rows, "seeds", seeds.as_ptr(), rows)?;
        let out = slice_mut("out", out, rows)?;
        logits.check_separate("out", out)?;
        categorical(logits.view::<Ix2>()?, seeds, purpose, draw, out)
    })
}

/// One well-mixed seed for each row of a batch from one seed; row r is the same in any batch size.
///
/// @param seed any number
/// @param rows number of rows
/// @param out  receives rows seeds
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_row_seeds(seed: u64, rows: usize, out: *mut u64) -> i32 {
    // SAFETY: the caller gives `rows` places or NULL.
    entry(|| unsafe {
        let out = slice_mut("out", out, rows)?;
        out.copy_from_slice(&row_seeds(seed, rows));
        Ok(())
    })
}
