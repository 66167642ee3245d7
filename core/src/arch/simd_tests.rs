//! The leaves of every instruction set against plain loops.

use super::{Kernel, Simd, available_levels, dispatch_at, dots_at};

/// Every 16-bit pattern, widened.
struct Widen {
    half: bool,
}

impl Kernel for Widen {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let mut out = vec![0.0; 1 << 16];
        for (i, to) in out.chunks_exact_mut(S::LANES).enumerate() {
            let mut from = [0u16; 16];
            for (j, x) in from[..S::LANES].iter_mut().enumerate() {
                *x = (i * S::LANES + j) as u16;
            }
            s.store(if self.half { s.load_f16(&from) } else { s.load_bf16(&from) }, to);
        }
        out
    }
}

#[test]
fn every_sixteen_bit_number_widens_exactly() {
    for level in available_levels() {
        for half in [false, true] {
            for (i, x) in (0..=u16::MAX).zip(dispatch_at(level, Widen { half })) {
                let want = match half {
                    true => half::f16::from_bits(i).to_f32(),
                    false => half::bf16::from_bits(i).to_f32(),
                };
                assert!(x.to_bits() == want.to_bits() || x.is_nan() && want.is_nan(), "{level:?} {i:#x}");
            }
        }
    }
}

/// The operations that move lanes, each against plain indexing.
struct Moves<const WITH: bool>;

impl<const WITH: bool> Kernel for Moves<WITH> {
    type Output = ();
    const BF16: bool = WITH;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = S::LANES;
        let get = |x: S::F| {
            let mut to = [0.0; 16];
            s.store(x, &mut to);
            to
        };
        let mut rows = [s.splat(0.0); 16];
        for (i, row) in rows[..n].iter_mut().enumerate() {
            let from: [f32; 16] = std::array::from_fn(|j| (100 * i + j) as f32);
            *row = s.load(&from);
        }
        for (j, &row) in s.transpose(rows)[..n].iter().enumerate() {
            for (i, &x) in get(row)[..n].iter().enumerate() {
                assert_eq!(x, (100 * i + j) as f32);
            }
        }
        let eight = std::array::from_fn(|i| rows[i % n]);
        for (width, columns) in [(1, s.columns(eight)), (2, s.columns_of_twos(eight))] {
            for (at, x) in columns.into_iter().flat_map(|x| get(x).into_iter().take(n)).enumerate() {
                let (column, row, lane) = (at / (8 * width), at / width % 8, at % width);
                assert_eq!(x, (100 * (row % n) + column * width + lane) as f32, "{width} at {at}");
            }
        }
        let twos: [f32; 32] = std::array::from_fn(|i| i as f32);
        let [even, odd] = s.load_twos(&twos);
        for i in 0..n {
            assert_eq!((get(even)[i], get(odd)[i]), (2.0 * i as f32, 2.0 * i as f32 + 1.0));
        }
        let mut back = [-1.0; 32];
        s.store_twos([even, odd], &mut back);
        assert_eq!(back[..2 * n], twos[..2 * n]);
        assert!(back[2 * n..].iter().all(|x| *x == -1.0));
        for (i, x) in s.zip([even, odd]).into_iter().flat_map(|v| get(v).into_iter().take(n)).enumerate() {
            assert_eq!(x, i as f32);
        }
        let words: [u16; 32] = std::array::from_fn(|i| (i * 40_961) as u16);
        for (i, x) in get(s.bits_to_f32(s.load_pairs(&words)))[..n].iter().enumerate() {
            assert_eq!(x.to_bits(), u32::from(words[2 * i]) | u32::from(words[2 * i + 1]) << 16);
        }
        for start in (0..256).step_by(64) {
            let bytes: [i8; 64] = std::array::from_fn(|i| (start + i) as u8 as i8);
            for (i, x) in get(s.bits_to_f32(s.load_quads(&bytes)))[..n].iter().enumerate() {
                assert_eq!(x.to_bits().to_le_bytes().map(|b| b as i8), bytes[4 * i..4 * i + 4]);
            }
            for (i, x) in get(s.load_i8(&bytes))[..n].iter().enumerate() {
                assert_eq!(*x, f32::from(bytes[i]));
            }
        }
        for len in 0..n {
            let zero = |x: [f32; 16]| x[len..n].iter().all(|x| x.to_bits() == 0);
            for partial in [
                (get(s.load_bf16_partial(&words[..len])), get(s.load_bf16(&words))),
                (get(s.load_f16_partial(&words[..len])), get(s.load_f16(&words))),
                (get(s.load_i8_partial(&[-3; 64][..len])), [-3.0; 16]),
                (get(s.load_partial(&[7.5; 64][..len], 0.0)), [7.5; 16]),
            ] {
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&partial.0[..len]), bits(&partial.1[..len]));
                assert!(zero(partial.0));
            }
            assert_eq!(get(s.load_partial(&[7.5; 64][..len], 2.5))[n - 1], 2.5);
        }
        for len in 0..4 * n {
            let whole: [i8; 64] = std::array::from_fn(|i| if i < len { 90 - i as i8 } else { 0 });
            let want = get(s.bits_to_f32(s.load_quads(&whole)));
            let got = get(s.bits_to_f32(s.load_quads_partial(&whole[..len])));
            assert_eq!(got.map(f32::to_bits), want.map(f32::to_bits));
        }
        for len in 0..2 * n {
            let whole: [u16; 32] = std::array::from_fn(|i| if i < len { words[i] } else { 0 });
            let want = get(s.bits_to_f32(s.load_pairs(&whole)));
            let got = get(s.bits_to_f32(s.load_pairs_partial(&whole[..len])));
            assert_eq!(got.map(f32::to_bits), want.map(f32::to_bits));
        }
        // Pairs, of numbers that are neither subnormal nor NaN.
        let numbers: [f32; 32] =
            std::array::from_fn(|i| [1.003_906_3, 1.011_718_8, 0.0, -3e-8][i % 4] * i as f32);
        let pairs = s.pair_bf16(s.load(&numbers), s.load(&numbers[n..]));
        let (lower, upper) = (get(s.lower_bf16(pairs)), get(s.upper_bf16(pairs)));
        for i in 0..n {
            let rounded = |x: f32| half::bf16::from_f32(x).to_f32().to_bits();
            assert_eq!(lower[i].to_bits(), rounded(numbers[i]));
            assert_eq!(upper[i].to_bits(), rounded(numbers[n + i]));
        }
        // Numbers that round up, down and to even, subnormal ones, and some that are none.
        // Those without a subnormal one may be rounded by another instruction.
        let edges = [1.003_906_3, 1.011_718_8, -1e-41, 3e-8, 65_519.9, 3e38, f32::NAN, f32::NEG_INFINITY];
        let normal = [1.003_906_3, 1.011_718_8, -0.0, 3e-8, 65_519.9, f32::MIN_POSITIVE, f32::NAN, -3.4e38];
        let mut numbers = [0.0f32; 32];
        let mut both = [s.splat(0.0); 2];
        for edges in [normal, edges] {
            numbers = std::array::from_fn(|i| edges[i % 8] * (1.0 + (i / 8) as f32));
            both = [s.load(&numbers), s.load(&numbers[n..])];
            let packed = |pairs: S::I, one: fn(f32) -> u16| {
                /// At the beginning of a line.
                #[repr(align(64))]
                struct Line([u16; 64]);
                let mut words = [7u16; 34];
                s.store_pairs(pairs, &mut words[1..]);
                for at in [0, 1] {
                    let mut streamed = Line([7; 64]);
                    s.stream_pairs(pairs, &mut streamed.0[at..]);
                    s.settle();
                    assert_eq!(words[1..][..2 * n], streamed.0[at..][..2 * n]);
                    assert!(streamed.0[..at].iter().chain(&streamed.0[at + 2 * n..]).all(|x| *x == 7));
                }
                assert!(words[0] == 7 && words[2 * n + 1..].iter().all(|x| *x == 7));
                for (x, &w) in numbers[..2 * n].iter().zip(&words[1..]) {
                    assert!(one(*x) == w, "{x} {w:#x}");
                }
            };
            packed(s.pack_bf16(both), |x| half::bf16::from_f32(x).to_bits());
            packed(s.pack_f16(both), |x| half::f16::from_f32(x).to_bits());
            let pairs = s.pair_bf16_exactly(both[0], both[1]);
            let (lower, upper) = (get(s.lower_bf16(pairs)), get(s.upper_bf16(pairs)));
            for i in 0..n {
                let rounded = |x: f32| u32::from(half::bf16::from_f32(x).to_bits()) << 16;
                assert_eq!(lower[i].to_bits(), rounded(numbers[i]));
                assert_eq!(upper[i].to_bits(), rounded(numbers[n + i]));
            }
            for len in 0..=n {
                let (mut b, mut h) = ([7u16; 17], [7u16; 17]);
                s.store_bf16_partial(both[0], &mut b[..len]);
                s.store_f16_partial(both[0], &mut h[..len]);
                for i in 0..17 {
                    let (x, inside) = (numbers[i], i < len);
                    assert_eq!(b[i], if inside { half::bf16::from_f32(x).to_bits() } else { 7 });
                    assert_eq!(h[i], if inside { half::f16::from_f32(x).to_bits() } else { 7 });
                }
            }
        }
        #[repr(align(64))]
        struct Lines([f32; 33]);
        for at in 0..2 {
            let mut lines = Lines([7.0; 33]);
            s.stream(both[1], &mut lines.0[at..]);
            s.settle();
            assert_eq!(
                lines.0[at..at + n].iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                numbers[n..2 * n].iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            );
            assert!(lines.0[at + n..].iter().all(|x| *x == 7.0));
        }
        for power in -150..=128 {
            for x in [1.0f32, 0.71, 1.42, 1.000_000_1] {
                let exact = f64::from(x) * libm::exp2(f64::from(power));
                let (x, n) = (s.splat(x), s.splat(power as f32));
                assert_eq!(get(s.scale(x, n))[0], exact as f32, "{exact} {power}");
                if exact >= f64::from(f32::MIN_POSITIVE) && exact <= f64::from(f32::MAX) {
                    assert_eq!(get(s.add_exponent(x, n))[0], exact as f32, "{exact} {power}");
                }
            }
        }
        let nan = s.splat(f32::NAN);
        assert!(get(s.scale(nan, nan))[0].is_nan() && get(s.add_exponent(nan, nan))[0].is_nan());
        assert_eq!(get(s.add_exponent(s.splat(1.0), s.splat(128.0)))[0], f32::INFINITY);
        s.prefetch::<f32>(&[]);
        s.prefetch_later_at(1);
    }
}

#[test]
fn lanes_move_where_they_should() {
    for level in available_levels() {
        dispatch_at(level, Moves::<false>);
        dispatch_at(level, Moves::<true>);
    }
}

/// Whether products of pairs are instructions.
struct OfPairs;

impl Kernel for OfPairs {
    type Output = bool;
    const DOTS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        S::DOTS
    }
}

#[test]
fn callers_know_how_pairs_are_multiplied() {
    for level in available_levels() {
        assert_eq!(dispatch_at(level, OfPairs), dots_at(level), "{level:?}");
    }
}
