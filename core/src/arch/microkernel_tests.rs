//! Products that ask for memory and products of pairs, each in every way, against plain loops.

use half::bf16;

use super::{Asking, Kernel, Matrix, Pairs, Simd, Store, WidePairs, available_levels, dispatch_at, multiply};

const ROWS: usize = 47;
const DEPTH: usize = 38;
const WIDTH: usize = 112;

/// Numbers that are exact in bfloat16.
fn numbers(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 11) % 61) as f32 / 8.0 - 3.0).collect()
}

/// Two neighbours of a row as the bits of one float; `at` tells where the numbers lie.
fn pairs(x: &[f32], at: impl Fn(usize, usize) -> usize, rows: usize, columns: usize) -> Vec<f32> {
    let bits = |i: usize| u32::from(bf16::from_f32(x[i]).to_bits());
    let pair = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        f32::from_bits(bits(at(row, 2 * column)) | bits(at(row, 2 * column + 1)) << 16)
    };
    (0..rows * columns).map(pair).collect()
}

/// The ways a product is computed.
struct Ways<const WITH: bool>;

impl<const WITH: bool> Kernel for Ways<WITH> {
    type Output = [Vec<f32>; 5];
    // With the instructions for bfloat16 even where products of pairs are slow.
    const BF16: bool = WITH;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (a, b) = (numbers(1, ROWS * DEPTH), numbers(2, DEPTH * WIDTH));
        let mut products = [(); 5].map(|()| vec![0.0; ROWS * WIDTH]);
        let [plain, asking, of_pairs, of_halves, asking_halves] = &mut products;
        let store = |to| Store { to, width: WIDTH, factor: None };
        let whole = Matrix::from_slice(&a, ROWS, DEPTH);
        // No memory is read from the address, wherever it is.
        let (next, bytes) = (a.as_ptr().addr(), 1 << 20);
        multiply(s, whole, &b, WIDTH, &mut store(plain));
        multiply(s, Asking { of: whole, next, bytes }, &b, WIDTH, &mut store(asking));

        let b = pairs(&b, |lane, k| k * WIDTH + lane, WIDTH, DEPTH / 2);
        let b: Vec<f32> = (0..b.len()).map(|i| b[i % WIDTH * (DEPTH / 2) + i / WIDTH]).collect();
        let exchanged: Vec<f32> = (0..a.len()).map(|i| a[i ^ 1]).collect();
        let halves = WidePairs::of_columns(Matrix::from_slice(&exchanged, ROWS, DEPTH));
        let a = pairs(&a, |row, k| row * DEPTH + k, ROWS, DEPTH / 2);
        multiply(s, Pairs::from_bits(&a, ROWS, DEPTH / 2), &b, WIDTH, &mut store(of_pairs));
        multiply(s, halves, &b, WIDTH, &mut store(of_halves));
        multiply(s, Asking { of: halves, next, bytes }, &b, WIDTH, &mut store(asking_halves));
        products
    }
}

#[test]
fn every_way_to_a_product_has_the_bits_of_its_definition() {
    let (a, b) = (numbers(1, ROWS * DEPTH), numbers(2, DEPTH * WIDTH));
    let chain = |i: usize, order: fn(usize) -> usize| {
        let step = |sum: f32, k: usize| a[i / WIDTH * DEPTH + k].mul_add(b[k * WIDTH + i % WIDTH], sum);
        (0..DEPTH).map(order).fold(0.0, step)
    };
    let define = |order| (0..ROWS * WIDTH).map(|i| chain(i, order)).collect::<Vec<f32>>();
    let (numbers, of_pairs) = (define(|k| k), define(|k| k ^ 1));
    for level in available_levels() {
        for products in [dispatch_at(level, Ways::<false>), dispatch_at(level, Ways::<true>)] {
            for (way, product) in products.iter().enumerate() {
                assert_eq!(product, if way < 2 { &numbers } else { &of_pairs }, "{level:?} {way}");
            }
        }
    }
}
