//! The elementary functions on slices.

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::threads;

/// A function of one number, lane by lane.
pub(crate) trait Function: Copy + Send + Sync {
    /// Roughly how many floating-point operations a value costs.
    const COST: u64;
    /// The function, of vectors side by side. Implementations are `#[inline(always)]`.
    fn eval<S: Simd, const K: usize>(self, s: S, x: [S::F; K]) -> [S::F; K];
}

/// Names a type after a function of one vector or of each of several, so that it can be passed to [`map`].
macro_rules! functions {
    (@each $f:path, $s:ident, $x:ident) => {
        $f($s, $x)
    };
    (@one $f:path, $s:ident, $x:ident) => {{
        let mut y = $x;
        for k in 0..K {
            y[k] = $f($s, $x[k]);
        }
        y
    }};
    ($($(#[$doc:meta])* $name:ident = $how:ident $f:path, $cost:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        impl Function for $name {
            const COST: u64 = $cost;
            #[inline(always)]
            fn eval<S: Simd, const K: usize>(self, s: S, x: [S::F; K]) -> [S::F; K] {
                functions!(@$how $f, s, x)
            }
        }
    )*};
}

functions! {
    /// `2^x`
    Exp2 = one super::exp2, 20;
    /// `e^x`
    Exp = one super::exp, 24;
    /// `ln x`
    Log = one super::log, 32;
    /// Hyperbolic tangent.
    Tanh = one super::tanh, 50;
    /// Error function.
    Erf = one super::erf, 60;
    /// SiLU.
    Silu = each super::silu, 40;
    /// GELU by tanh.
    GeluTanh = each super::gelu_tanh, 44;
    /// GELU by erf.
    GeluErf = each super::gelu_erf, 44;
}

struct Map<'a, U>(U, &'a [f32], &'a mut [f32]);

impl<U: Function> Kernel for Map<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Map(f, x, out) = self;
        for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            let [y] = f.eval(s, [s.load_partial(x, 0.0)]);
            s.store_partial(y, out);
        }
    }
}

/// Values a task takes at a time: enough to hide the hand-out, small enough to share evenly.
const CHUNK: usize = 16 * 1024;

/// `out[i] = f(x[i])` for slices of equal length.
pub(crate) fn map<U: Function>(f: U, x: &[f32], out: &mut [f32]) {
    let work = U::COST * out.len() as u64;
    threads::for_each(x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)), work, |(x, out)| dispatch(Map(f, x, out)));
}

fn check_len(arg: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::shape(arg, &[got], format!("[{expected}], as x"))) }
}

macro_rules! slices {
    ($($(#[$doc:meta])* $name:ident = $f:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Shape`] when the lengths differ.
        pub fn $name(x: &[f32], out: &mut [f32]) -> Result<()> {
            check_len("out", out.len(), x.len())?;
            map($f, x, out);
            Ok(())
        }
    )*};
}

slices! {
    /// `out[i] = 2^x[i]`; results below 2^-126 are 0.
    ///
    /// ```
    /// let mut y = [0.0; 3];
    /// dgm_core::math::slice::exp2(&[-1.0, 0.0, 10.0], &mut y)?;
    /// assert_eq!(y, [0.5, 1.0, 1024.0]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    exp2 = Exp2;
    /// `out[i] = e^x[i]`.
    ///
    /// ```
    /// let mut y = [0.0; 2];
    /// dgm_core::math::slice::exp(&[0.0, 1.0], &mut y)?;
    /// assert_eq!(y, [1.0, std::f32::consts::E]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    exp = Exp;
    /// `out[i] = ln x[i]`; 0 gives -infinity, a negative number NaN.
    ///
    /// ```
    /// let mut y = [0.0; 2];
    /// dgm_core::math::slice::log(&[1.0, 2.0], &mut y)?;
    /// assert_eq!(y, [0.0, std::f32::consts::LN_2]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    log = Log;
    /// `out[i] = tanh x[i]`.
    ///
    /// ```
    /// let mut y = [0.0; 2];
    /// dgm_core::math::slice::tanh(&[0.0, f32::INFINITY], &mut y)?;
    /// assert_eq!(y, [0.0, 1.0]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    tanh = Tanh;
    /// `out[i] = erf x[i]`.
    ///
    /// ```
    /// let mut y = [0.0; 2];
    /// dgm_core::math::slice::erf(&[0.0, -10.0], &mut y)?;
    /// assert_eq!(y, [0.0, -1.0]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    erf = Erf;
}

struct SinCos<'a>(&'a [f32], &'a mut [f32], &'a mut [f32]);

impl Kernel for SinCos<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SinCos(x, sin, cos) = self;
        let outputs = sin.chunks_mut(S::LANES).zip(cos.chunks_mut(S::LANES));
        for (x, (sin, cos)) in x.chunks(S::LANES).zip(outputs) {
            let (a, b) = super::sincos(s, s.load_partial(x, 0.0));
            s.store_partial(a, sin);
            s.store_partial(b, cos);
        }
    }
}

/// `sin[i] = sin x[i]`, `cos[i] = cos x[i]`, for every finite `x`.
///
/// ```
/// let (mut sin, mut cos) = ([0.0; 2], [0.0; 2]);
/// dgm_core::math::slice::sincos(&[0.0, std::f32::consts::FRAC_PI_2], &mut sin, &mut cos)?;
/// assert_eq!((sin, cos[0]), ([0.0, 1.0], 1.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the lengths differ.
pub fn sincos(x: &[f32], sin: &mut [f32], cos: &mut [f32]) -> Result<()> {
    check_len("sin", sin.len(), x.len())?;
    check_len("cos", cos.len(), x.len())?;
    let work = 48 * x.len() as u64;
    let outputs = sin.chunks_mut(CHUNK).zip(cos.chunks_mut(CHUNK));
    threads::for_each(x.chunks(CHUNK).zip(outputs), work, |(x, (sin, cos))| dispatch(SinCos(x, sin, cos)));
    Ok(())
}
