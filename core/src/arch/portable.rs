//! The level that needs no instruction set: the definition of every operation.

use super::simd::Simd;

const N: usize = 8;

/// Arrays and loops over them.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

#[inline(always)]
fn map<A: Copy, R: Copy + Default>(a: [A; N], f: impl Fn(A) -> R) -> [R; N] {
    let mut r = [R::default(); N];
    for i in 0..N {
        r[i] = f(a[i]);
    }
    r
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R: Copy + Default>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> R) -> [R; N] {
    let mut r = [R::default(); N];
    for i in 0..N {
        r[i] = f(a[i], b[i]);
    }
    r
}

#[inline(always)]
fn first<T: Copy>(s: &[T]) -> [T; N] {
    let mut r = [s[0]; N];
    r.copy_from_slice(&s[..N]);
    r
}

impl Simd for Plain {
    const LANES: usize = N;
    type F = [f32; N];
    type I = [i32; N];
    type M = [bool; N];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; N]
    }
    #[inline(always)]
    fn load(self, s: &[f32]) -> Self::F {
        first(s)
    }
    #[inline(always)]
    fn store(self, v: Self::F, s: &mut [f32]) {
        s[..N].copy_from_slice(&v);
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        let mut r = c;
        for i in 0..N {
            r[i] = a[i].mul_add(b[i], c[i]);
        }
        r
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        zip(a, b, |x, y| x < y)
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        zip(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        let mut r = b;
        for i in 0..N {
            if m[i] {
                r[i] = a[i];
            }
        }
        r
    }
    #[inline(always)]
    fn any(self, m: Self::M) -> bool {
        m.into_iter().any(|x| x)
    }
    #[inline(always)]
    fn all(self, m: Self::M) -> bool {
        m.into_iter().all(|x| x)
    }

    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        [x; N]
    }
    #[inline(always)]
    fn iload(self, s: &[i32]) -> Self::I {
        first(s)
    }
    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x | y)
    }
    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |x, y| x ^ y)
    }
    #[inline(always)]
    fn ishl<const K: i32>(self, a: Self::I) -> Self::I {
        map(a, |x| x << K)
    }
    #[inline(always)]
    fn ishr<const K: i32>(self, a: Self::I) -> Self::I {
        map(a, |x| ((x as u32) >> K) as i32)
    }
    #[inline(always)]
    fn isar<const K: i32>(self, a: Self::I) -> Self::I {
        map(a, |x| x >> K)
    }
    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        zip(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn mulhilo(self, a: Self::I, b: Self::I) -> (Self::I, Self::I) {
        let p = |x: i32, y: i32| u64::from(x as u32) * u64::from(y as u32);
        (zip(a, b, |x, y| (p(x, y) >> 32) as i32), zip(a, b, |x, y| p(x, y) as i32))
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        map(a, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn bits_to_f32(self, a: Self::I) -> Self::F {
        map(a, |x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        map(a, |x| x as f32)
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        map(a, |x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn transpose(self, r: [Self::F; 16]) -> [Self::F; 16] {
        let mut t = r;
        for i in 0..N {
            for j in 0..N {
                t[i][j] = r[j][i];
            }
        }
        t
    }
}
