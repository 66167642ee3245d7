//! Arrays long enough for whole vectors, squares of them and tables, against plain indexing.

use std::fmt::Debug;

use dgm_core::nn::{Gelu, Rope, gelu, gelu_inplace, patchify, rope, silu, silu_inplace};
use dgm_core::tensor::{Floats, FloatsMut, bf16, f16};
use ndarray::{
    Array1, Array2, Array3, Array4, ArrayView, ArrayViewMut, ArrayViewMut1, ArrayViewMut3, Axis, Dimension,
    Ix1, s,
};

/// One of the three types.
trait Element: Copy + PartialEq + Debug {
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
    fn floats<D: Dimension>(x: ArrayView<Self, D>) -> Floats<D>;
    fn floats_mut<D: Dimension>(x: ArrayViewMut<Self, D>) -> FloatsMut<D>;
}

macro_rules! element {
    ($($type:ty, $from:expr);*) => {$(
        impl Element for $type {
            fn to_f32(self) -> f32 {
                self.into()
            }
            fn from_f32(x: f32) -> Self {
                ($from)(x)
            }
            fn floats<D: Dimension>(x: ArrayView<Self, D>) -> Floats<D> {
                x.into()
            }
            fn floats_mut<D: Dimension>(x: ArrayViewMut<Self, D>) -> FloatsMut<D> {
                x.into()
            }
        }
    )*};
}

element!(f32, |x| x; bf16, bf16::from_f32; f16, f16::from_f32);

fn number(i: usize) -> f32 {
    ((i * 7919) % 4093) as f32 / 256.0 - 8.0
}

/// Patches of two by two, whose tokens have `4 * channels` numbers.
fn patches_of<T: Element>(channels: usize, height: usize, width: usize) {
    let x = Array4::from_shape_fn((2, channels, height, width), |(b, c, h, w)| {
        T::from_f32(number(((b * channels + c) * height + h) * width + w))
    });
    let shape = (2, height * width / 4, 4 * channels);
    // At the beginning of a cache line, and one element later.
    for start in 0..2 {
        let count = shape.0 * shape.1 * shape.2;
        let mut out = vec![T::from_f32(99.0); count + 64];
        let start = start + out.as_ptr().align_offset(64);
        let mut out = ArrayViewMut3::from_shape(shape, &mut out[start..start + count]).unwrap();
        patchify(T::floats(x.view()), 2, T::floats_mut(out.view_mut())).unwrap();
        for ((b, t, f), y) in out.indexed_iter() {
            let (row, column) = (t / (width / 2), t % (width / 2));
            assert_eq!(*y, x[[b, f / 4, 2 * row + f / 2 % 2, 2 * column + f % 2]], "{channels} {b} {t} {f}");
        }
    }
}

#[test]
fn patches_of_two_by_two_are_where_they_belong() {
    for channels in [1, 2, 3, 4, 5, 8, 16] {
        patches_of::<f32>(channels, 4, 70);
        patches_of::<bf16>(channels, 4, 70);
        patches_of::<f16>(channels, 2, 64);
    }
    // Past the caches: 38 MB.
    patches_of::<bf16>(4, 2048, 1152);
}

fn turned<X: Element, Y: Element>([batch, heads, tokens, dim]: [usize; 4], half: usize, interleaved: bool) {
    let x = Array4::from_shape_fn((batch, heads, tokens, dim), |(b, h, l, d)| {
        X::from_f32(number(((b * heads + h) * tokens + l) * dim + d))
    });
    let cos = Array2::from_shape_fn((tokens + 3, half), |(i, j)| number(i * half + j) / 8.0);
    let sin = Array2::from_shape_fn((tokens + 3, half), |(i, j)| number(i * half + j + 5) / 8.0);
    let tables = Rope { cos: cos.view(), sin: sin.view(), interleaved };
    let first: Vec<usize> = (0..batch).map(|b| 3 - b % 2).collect();
    let mut out = Array4::from_elem((batch, heads, tokens, dim), Y::from_f32(99.0));
    rope(X::floats(x.view()), &first, &tables, Y::floats_mut(out.view_mut())).unwrap();
    let (step, apart) = if interleaved { (2, 1) } else { (1, half) };
    for (((b, h, l), x), out) in
        ndarray::indices((batch, heads, tokens)).into_iter().zip(x.lanes(Axis(3))).zip(out.lanes(Axis(3)))
    {
        let mut want: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
        for i in 0..half {
            let (c, s) = (cos[[first[b] + l, i]], sin[[first[b] + l, i]]);
            let (p, q) = (want[step * i], want[step * i + apart]);
            (want[step * i], want[step * i + apart]) = (p * c - q * s, q * c + p * s);
        }
        let want: Vec<Y> = want.into_iter().map(Y::from_f32).collect();
        assert_eq!(out.to_vec(), want, "{b} {h} {l} of {dim}, {half}");
    }
}

#[test]
fn every_head_size_is_turned() {
    for interleaved in [false, true] {
        for (dim, half) in [(144, 72), (64, 32), (40, 20), (10, 3), (2, 1), (7, 0), (131, 50), (96, 48)] {
            turned::<f32, f32>([2, 3, 19, dim], half, interleaved);
            turned::<bf16, bf16>([1, 2, 19, dim], half, interleaved);
            turned::<f16, f16>([1, 2, 5, dim], half, interleaved);
            turned::<f32, bf16>([1, 2, 5, dim], half, interleaved);
            turned::<bf16, f32>([1, 2, 5, dim], half, interleaved);
        }
        // Heads longer than a block, outputs of many MB.
        turned::<f32, f32>([1, 1, 2, 5000], 2000, interleaved);
        turned::<f32, f32>([1, 16, 4000, 136], 68, interleaved);
    }
}

#[test]
fn strided_heads_are_turned_alike() {
    let x = Array4::from_shape_fn((1, 12, 3, 40), |(_, l, h, d)| number((l * 3 + h) * 40 + d));
    let cos = Array2::from_shape_fn((12, 40), |(i, j)| number(i + 40 * j) / 8.0);
    let (dense_cos, dense_sin) = (cos.slice(s![.., ..20]).to_owned(), cos.slice(s![.., 20..]).to_owned());
    let heads = x.view().permuted_axes([0, 2, 1, 3]);
    for interleaved in [false, true] {
        let mut want = Array4::<f32>::zeros((1, 3, 12, 40));
        let tables = Rope { cos: dense_cos.view(), sin: dense_sin.view(), interleaved };
        rope(heads.as_standard_layout().view(), &[0], &tables, want.view_mut()).unwrap();
        // Heads between tokens, numbers of a head apart, tables whose numbers lie apart.
        let mut out = Array4::<f32>::zeros((1, 12, 3, 40));
        rope(heads, &[0], &tables, out.view_mut().permuted_axes([0, 2, 1, 3])).unwrap();
        assert_eq!(out.permuted_axes([0, 2, 1, 3]), want);
        let apart = x.view().permuted_axes([0, 3, 1, 2]).as_standard_layout().to_owned();
        let apart = apart.view().permuted_axes([0, 3, 2, 1]);
        let (c, n) = (dense_cos.t().as_standard_layout().to_owned(), dense_sin.t().to_owned());
        let mut out = Array4::<f32>::zeros((1, 40, 12, 3));
        let tables = Rope { cos: c.t(), sin: n.t(), interleaved };
        rope(apart, &[0], &tables, out.view_mut().permuted_axes([0, 3, 2, 1])).unwrap();
        assert_eq!(out.permuted_axes([0, 3, 2, 1]), want);
    }
}

type Apply = (fn(Floats<Ix1>, FloatsMut<Ix1>), fn(FloatsMut<Ix1>));

/// Every number, four times over with one more in front: computed where there are few, looked up where there are
/// many, in place as well.
fn looked_up<T: Element>(number: fn(u16) -> T, bits: fn(T) -> u16) {
    let functions: [Apply; 3] = [
        (|x, out| silu(x, out).unwrap(), |x| silu_inplace(x).unwrap()),
        (|x, out| gelu(x, Gelu::Tanh, out).unwrap(), |x| gelu_inplace(x, Gelu::Tanh).unwrap()),
        (|x, out| gelu(x, Gelu::Erf, out).unwrap(), |x| gelu_inplace(x, Gelu::Erf).unwrap()),
    ];
    let x: Vec<T> = (0..1 + (4 << 16)).map(|i| number(i as u16)).collect();
    let x = Array1::from(x);
    let number_of = |x: &[T]| x.iter().map(|x| bits(*x)).collect::<Vec<_>>();
    for (apart, in_place) in functions {
        let mut want = x.clone();
        for (x, mut want) in x.axis_chunks_iter(Axis(0), 1000).zip(want.axis_chunks_iter_mut(Axis(0), 1000)) {
            apart(T::floats(x), T::floats_mut(want.view_mut()));
        }
        let want = number_of(want.as_slice().unwrap());
        for start in 0..2 {
            let mut out = vec![number(7); x.len() + start];
            apart(T::floats(x.view()), T::floats_mut(ArrayViewMut1::from(&mut out[start..])));
            assert!(number_of(&out[start..]) == want);
        }
        let mut held = x.clone();
        in_place(T::floats_mut(held.view_mut()));
        assert!(number_of(held.as_slice().unwrap()) == want);
        let mut apart_in_memory = Array2::from_elem((x.len(), 2), number(7));
        apart(T::floats(x.view()), T::floats_mut(apart_in_memory.column_mut(1)));
        assert!(number_of(&apart_in_memory.column(1).to_vec()) == want);
    }
}

#[test]
fn a_table_has_the_bits_of_the_function() {
    looked_up::<bf16>(bf16::from_bits, bf16::to_bits);
    looked_up::<f16>(f16::from_bits, f16::to_bits);
}

#[test]
fn a_long_output_of_sixteen_bits_is_looked_up_past_the_caches() {
    let x = Array3::from_shape_fn((2, 8400, 1001), |(i, j, k)| bf16::from_f32(number(i + j * 3 + k)));
    let mut out = x.mapv(|_| bf16::ZERO);
    gelu(x.view(), Gelu::Erf, out.view_mut()).unwrap();
    let few = x.slice(s![1, 100, ..]);
    let mut want = few.mapv(|_| bf16::ZERO);
    gelu(few, Gelu::Erf, want.view_mut()).unwrap();
    assert_eq!(out.slice(s![1, 100, ..]), want);
    let wide = x.mapv(f32::from);
    let mut unrounded = wide.clone();
    gelu(wide.view(), Gelu::Erf, unrounded.view_mut()).unwrap();
    assert!(out.iter().zip(&unrounded).all(|(x, y)| *x == bf16::from_f32(*y)));
}
