//! The vector operations every level provides.

/// A proof that the processor has an instruction set, and the operations it gives.
///
/// `F` holds [`LANES`](Simd::LANES) f32, `I` as many 32-bit integers, `M` a truth value a lane.
/// Integer operations wrap.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Number of lanes.
    const LANES: usize;
    /// Whether [`dot_bf16`](Simd::dot_bf16) is an instruction. Else its numbers are better widened once than each time.
    const DOTS: bool = false;
    /// Whether [`asks_ahead`](Simd::asks_ahead) holds for some processors: else what asks need not be compiled.
    const MAY_ASK: bool = false;
    /// f32 lanes.
    type F: Copy;
    /// 32-bit integer lanes.
    type I: Copy;
    /// Truth values.
    type M: Copy;

    /// Whether weights that are read next are worth asking for while others are multiplied: where the last cache is far.
    #[inline(always)]
    fn asks_ahead(self) -> bool {
        debug_assert!(!Self::MAY_ASK);
        false
    }

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// The first `LANES` elements of `s`; panics when there are fewer.
    fn load(self, s: &[f32]) -> Self::F;
    /// Writes the first `LANES` elements of `s`; panics when there are fewer.
    fn store(self, v: Self::F, s: &mut [f32]);
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: the engine's one rule for NaN (the second operand wins).
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even, as f32.
    fn round(self, a: Self::F) -> Self::F;
    /// `a < b`
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// Lane by lane `if m { a } else { b }`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Whether any lane is true.
    fn any(self, m: Self::M) -> bool;

    /// Whether every lane is true.
    fn all(self, m: Self::M) -> bool;

    /// All lanes `x`.
    fn isplat(self, x: i32) -> Self::I;
    /// The first `LANES` elements of `s`; panics when there are fewer.
    fn iload(self, s: &[i32]) -> Self::I;
    /// `a + b`
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`
    fn isub(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    fn iand(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise or.
    fn ior(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I;
    /// Left shift by a constant below 32.
    fn ishl<const N: i32>(self, a: Self::I) -> Self::I;
    /// Logical right shift by a constant below 32.
    fn ishr<const N: i32>(self, a: Self::I) -> Self::I;
    /// Arithmetic right shift by a constant below 32.
    fn isar<const N: i32>(self, a: Self::I) -> Self::I;
    /// `a == b`
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M;
    /// High and low words of the unsigned 64-bit product.
    fn mulhilo(self, a: Self::I, b: Self::I) -> (Self::I, Self::I);
    /// The bits of `a` as integers.
    fn to_bits(self, a: Self::F) -> Self::I;
    /// The integers as f32 bits.
    fn bits_to_f32(self, a: Self::I) -> Self::F;
    /// Signed integer to f32, round to nearest even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// f32 to signed integer, round to nearest even. Lanes outside i32 are unspecified.
    fn to_i32(self, a: Self::F) -> Self::I;

    /// `x * 2^n` for whole `n` in [-150, 128] and `x` about 1, rounded once, into the subnormals too; NaN for NaN.
    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        let n = self.to_i32(n);
        let half = self.isar::<1>(n);
        self.mul(self.mul(x, self.power_of_two(half)), self.power_of_two(self.isub(n, half)))
    }

    /// `x * 2^n` for whole `n` where `x` is about 1 and the product a normal number, or infinity for `x` 1 and `n` 128;
    /// NaN for NaN. What it is elsewhere depends on the level.
    #[inline(always)]
    fn add_exponent(self, x: Self::F, n: Self::F) -> Self::F {
        // A NaN converts to 0 or i32::MIN, whose low nine bits are 0 on every level: x stays NaN.
        self.bits_to_f32(self.iadd(self.to_bits(x), self.ishl::<23>(self.to_i32(n))))
    }

    /// `2^k` of normal numbers.
    #[inline(always)]
    fn power_of_two(self, k: Self::I) -> Self::F {
        self.bits_to_f32(self.ishl::<23>(self.iadd(k, self.isplat(127))))
    }

    /// Writes the first lanes of the four vectors, then their second lanes, and so on: `4 * LANES` elements
    /// of `s`; panics when there are fewer.
    #[inline(always)]
    fn store_quads(self, v: [Self::F; 4], s: &mut [f32]) {
        let mut lanes = [[0.0f32; 16]; 4];
        for (lanes, v) in lanes.iter_mut().zip(v) {
            self.store(v, lanes);
        }
        for (i, quad) in s[..4 * Self::LANES].chunks_exact_mut(4).enumerate() {
            quad.copy_from_slice(&[lanes[0][i], lanes[1][i], lanes[2][i], lanes[3][i]]);
        }
    }

    /// The first lanes of both vectors, then their second lanes, and so on: two vectors.
    #[inline(always)]
    fn zip(self, v: [Self::F; 2]) -> [Self::F; 2] {
        let (mut lanes, mut all) = ([[0.0f32; 16]; 2], [0.0f32; 32]);
        for (lanes, v) in lanes.iter_mut().zip(v) {
            self.store(v, lanes);
        }
        for (i, two) in all[..2 * Self::LANES].chunks_exact_mut(2).enumerate() {
            two.copy_from_slice(&[lanes[0][i], lanes[1][i]]);
        }
        [self.load(&all), self.load(&all[Self::LANES..])]
    }

    /// Writes [`zip`](Simd::zip) of both vectors: `2 * LANES` elements of `s`; panics when there are fewer.
    #[inline(always)]
    fn store_twos(self, v: [Self::F; 2], s: &mut [f32]) {
        let s = &mut s[..2 * Self::LANES];
        let [a, b] = self.zip(v);
        self.store(a, s);
        self.store(b, &mut s[Self::LANES..]);
    }

    /// What [`store_twos`](Simd::store_twos) wrote; panics when `s` has fewer elements.
    #[inline(always)]
    fn load_twos(self, s: &[f32]) -> [Self::F; 2] {
        let s = &s[..2 * Self::LANES];
        self.unzip([self.load(s), self.load(&s[Self::LANES..])])
    }

    /// The even lanes of both vectors, one after the other, and the odd ones.
    #[inline(always)]
    fn unzip(self, v: [Self::F; 2]) -> [Self::F; 2] {
        let (mut all, mut lanes) = ([0.0f32; 32], [[0.0f32; 16]; 2]);
        self.store(v[0], &mut all);
        self.store(v[1], &mut all[Self::LANES..]);
        for (i, two) in all[..2 * Self::LANES].chunks_exact(2).enumerate() {
            (lanes[0][i], lanes[1][i]) = (two[0], two[1]);
        }
        [self.load(&lanes[0]), self.load(&lanes[1])]
    }

    /// The first `LANES` elements of `s` as integers, zero-extended; panics when there are fewer.
    #[inline(always)]
    fn load_u16(self, s: &[u16]) -> Self::I {
        let mut wide = [0i32; 16];
        for (to, &x) in wide[..Self::LANES].iter_mut().zip(&s[..Self::LANES]) {
            *to = i32::from(x);
        }
        self.iload(&wide)
    }

    /// The first `LANES` elements of `s` as integers, zero-extended; panics when there are fewer.
    #[inline(always)]
    fn load_u8(self, s: &[u8]) -> Self::I {
        let mut wide = [0i32; 16];
        for (to, &x) in wide[..Self::LANES].iter_mut().zip(&s[..Self::LANES]) {
            *to = i32::from(x);
        }
        self.iload(&wide)
    }

    /// The first `2 * LANES` elements of `s` in pairs, the first of each in the lower half of its
    /// lane; panics when there are fewer.
    #[inline(always)]
    fn load_pairs(self, s: &[u16]) -> Self::I {
        let mut pairs = [0i32; 16];
        for (to, x) in pairs.iter_mut().zip(s[..2 * Self::LANES].chunks_exact(2)) {
            *to = (u32::from(x[0]) | u32::from(x[1]) << 16) as i32;
        }
        self.iload(&pairs)
    }

    /// The first `LANES` elements of `s` become the lower, those of `t` the upper halves of lanes.
    #[inline(always)]
    fn interleave(self, s: &[u16], t: &[u16]) -> Self::I {
        self.ior(self.load_u16(s), self.ishl::<16>(self.load_u16(t)))
    }

    /// The first `LANES` bfloat16 numbers of `s`, exactly; panics when there are fewer.
    #[inline(always)]
    fn load_bf16(self, s: &[u16]) -> Self::F {
        self.bits_to_f32(self.ishl::<16>(self.load_u16(s)))
    }

    /// The first `LANES` half-precision numbers of `s`, exactly; panics when there are fewer.
    ///
    /// The bits of exponent and fraction, read as an f32, are 2^112 too small.
    #[inline(always)]
    fn load_f16(self, s: &[u16]) -> Self::F {
        let h = self.load_u16(s);
        let magnitude = self.ishl::<13>(self.iand(h, self.isplat(0x7fff)));
        let finite = self.mul(self.bits_to_f32(magnitude), self.bits_to_f32(self.isplat(0x7780_0000)));
        let special = self.bits_to_f32(self.ior(magnitude, self.isplat(0x7f80_0000)));
        let exponent = self.isplat(0x7c00);
        let x = self.select(self.ieq(self.iand(h, exponent), exponent), special, finite);
        let sign = self.ishl::<16>(self.iand(h, self.isplat(0x8000)));
        self.bits_to_f32(self.ior(self.to_bits(x), sign))
    }

    /// `acc` plus the products of two pairs of bfloat16 numbers a lane, the upper pair first:
    /// `fma(a.lower, b.lower, fma(a.upper, b.upper, acc))`.
    ///
    /// That is what VDPBF16PS computes, which also takes subnormal operands and results for zeros.
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::I, b: Self::I) -> Self::F {
        let acc = self.fma(self.upper_bf16(a), self.upper_bf16(b), acc);
        self.fma(self.lower_bf16(a), self.lower_bf16(b), acc)
    }

    /// The upper of each pair of bfloat16 numbers.
    #[inline(always)]
    fn upper_bf16(self, pairs: Self::I) -> Self::F {
        self.bits_to_f32(self.iand(pairs, self.isplat(-0x1_0000)))
    }

    /// The lower of each pair of bfloat16 numbers.
    #[inline(always)]
    fn lower_bf16(self, pairs: Self::I) -> Self::F {
        self.bits_to_f32(self.ishl::<16>(pairs))
    }

    /// The bits of `x`, the upper half of which is `x` rounded to bfloat16 (nearest, ties to even).
    /// Not for NaN, which may become a number.
    #[inline(always)]
    fn round_bf16(self, x: Self::F) -> Self::I {
        let bits = self.to_bits(x);
        let odd = self.iand(self.ishr::<16>(bits), self.isplat(1));
        self.iadd(bits, self.iadd(odd, self.isplat(0x7fff)))
    }

    /// Two vectors rounded by [`round_bf16`](Simd::round_bf16), `lower` in the lower halves of the
    /// lanes. Not for subnormal numbers either, which may become 0.
    #[inline(always)]
    fn pair_bf16(self, lower: Self::F, upper: Self::F) -> Self::I {
        let lower = self.ishr::<16>(self.round_bf16(lower));
        self.ior(lower, self.iand(self.round_bf16(upper), self.isplat(-0x1_0000)))
    }

    /// [`pair_bf16`](Simd::pair_bf16) of any numbers; NaN is quieted.
    #[inline(always)]
    fn pair_bf16_exactly(self, lower: Self::F, upper: Self::F) -> Self::I {
        let [lower, upper] = [self.round_bf16_exactly(lower), self.round_bf16_exactly(upper)];
        self.ior(self.ishr::<16>(lower), self.iand(upper, self.isplat(-0x1_0000)))
    }

    /// [`round_bf16`](Simd::round_bf16) of any number; NaN is quieted.
    #[inline(always)]
    fn round_bf16_exactly(self, x: Self::F) -> Self::I {
        let quiet = self.bits_to_f32(self.ior(self.to_bits(x), self.isplat(0x40_0000)));
        self.to_bits(self.select(self.eq(x, x), self.bits_to_f32(self.round_bf16(x)), quiet))
    }

    /// Rounds to bfloat16 and writes the first `LANES` elements of `s`; panics when there are fewer.
    #[inline(always)]
    fn store_bf16(self, v: Self::F, s: &mut [u16]) {
        let mut wide = [0.0f32; 16];
        self.store(v, &mut wide);
        for (to, x) in s[..Self::LANES].iter_mut().zip(wide) {
            *to = half::bf16::from_f32(x).to_bits();
        }
    }

    /// Rounds to half precision and writes the first `LANES` elements of `s`; panics when there are fewer.
    #[inline(always)]
    fn store_f16(self, v: Self::F, s: &mut [u16]) {
        let mut wide = [0.0f32; 16];
        self.store(v, &mut wide);
        for (to, x) in s[..Self::LANES].iter_mut().zip(wide) {
            *to = half::f16::from_f32(x).to_bits();
        }
    }

    /// Two vectors rounded to bfloat16, one after the other, as [`load_pairs`](Simd::load_pairs) reads them.
    #[inline(always)]
    fn pack_bf16(self, v: [Self::F; 2]) -> Self::I {
        let mut words = [0u16; 32];
        self.store_bf16(v[0], &mut words);
        self.store_bf16(v[1], &mut words[Self::LANES..]);
        self.load_pairs(&words)
    }

    /// Two vectors rounded to half precision, one after the other, as [`load_pairs`](Simd::load_pairs) reads
    /// them.
    #[inline(always)]
    fn pack_f16(self, v: [Self::F; 2]) -> Self::I {
        let mut words = [0u16; 32];
        self.store_f16(v[0], &mut words);
        self.store_f16(v[1], &mut words[Self::LANES..]);
        self.load_pairs(&words)
    }

    /// Writes what [`load_pairs`](Simd::load_pairs) reads; panics when `s` has fewer elements.
    #[inline(always)]
    fn store_pairs(self, v: Self::I, s: &mut [u16]) {
        let mut pairs = [0.0f32; 16];
        self.store(self.bits_to_f32(v), &mut pairs);
        for (to, pair) in s[..2 * Self::LANES].chunks_exact_mut(2).zip(pairs) {
            let bits = pair.to_bits();
            to.copy_from_slice(&[bits as u16, (bits >> 16) as u16]);
        }
    }

    /// Like [`store`](Simd::store), but past the caches where the processor can and the address is a multiple of
    /// 64: for what nobody reads soon. Before another thread does, [`settle`](Simd::settle).
    #[inline(always)]
    fn stream(self, v: Self::F, s: &mut [f32]) {
        self.store(v, s);
    }

    /// [`store_pairs`](Simd::store_pairs) as [`stream`](Simd::stream) does it.
    #[inline(always)]
    fn stream_pairs(self, v: Self::I, s: &mut [u16]) {
        self.store_pairs(v, s);
    }

    /// Lets what was written past the caches be seen before what is written from now on.
    #[inline(always)]
    fn settle(self) {}

    /// Like [`load`](Simd::load) for a slice shorter than a vector; missing lanes are `fill`.
    #[inline(always)]
    fn load_partial(self, s: &[f32], fill: f32) -> Self::F {
        if s.len() >= Self::LANES {
            return self.load(s);
        }
        let mut tmp = [fill; 16];
        tmp[..s.len()].copy_from_slice(s);
        self.load(&tmp)
    }

    /// Like [`store`](Simd::store) for a slice shorter than a vector.
    #[inline(always)]
    fn store_partial(self, v: Self::F, s: &mut [f32]) {
        if s.len() >= Self::LANES {
            return self.store(v, s);
        }
        let mut tmp = [0.0; 16];
        self.store(v, &mut tmp);
        s.copy_from_slice(&tmp[..s.len()]);
    }

    /// Like [`store_bf16`](Simd::store_bf16) for a slice no longer than a vector.
    #[inline(always)]
    fn store_bf16_partial(self, v: Self::F, s: &mut [u16]) {
        let mut words = [0u16; 16];
        self.store_bf16(v, &mut words);
        s.copy_from_slice(&words[..s.len()]);
    }

    /// Like [`store_f16`](Simd::store_f16) for a slice no longer than a vector.
    #[inline(always)]
    fn store_f16_partial(self, v: Self::F, s: &mut [u16]) {
        let mut words = [0u16; 16];
        self.store_f16(v, &mut words);
        s.copy_from_slice(&words[..s.len()]);
    }

    /// Absolute value (clears the sign bit).
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        self.bits_to_f32(self.iand(self.to_bits(a), self.isplat(0x7fff_ffff)))
    }

    /// Negation (flips the sign bit).
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.bits_to_f32(self.ixor(self.to_bits(a), self.isplat(i32::MIN)))
    }

    /// `4 * LANES` bytes by fours: lane `i` holds bytes `4 i` (lowest) to `4 i + 3`.
    #[inline(always)]
    fn load_quads(self, s: &[i8]) -> Self::I {
        let mut wide = [0i32; 16];
        for (to, x) in wide[..Self::LANES].iter_mut().zip(s[..4 * Self::LANES].chunks_exact(4)) {
            *to = i32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8]);
        }
        self.iload(&wide)
    }

    /// The first `LANES` bytes of `s`, exactly; panics when there are fewer.
    #[inline(always)]
    fn load_i8(self, s: &[i8]) -> Self::F {
        let mut wide = [0i32; 16];
        for (to, &x) in wide[..Self::LANES].iter_mut().zip(&s[..Self::LANES]) {
            *to = i32::from(x);
        }
        self.to_f32(self.iload(&wide))
    }

    /// The square of the first `LANES` vectors with rows and columns exchanged; the others are
    /// left as they are.
    fn transpose(self, rows: [Self::F; 16]) -> [Self::F; 16];

    /// The columns of eight rows one after the other, eight lanes each: `8 * LANES` numbers, a vector after the other.
    #[inline(always)]
    fn columns(self, rows: [Self::F; 8]) -> [Self::F; 8] {
        gathered::<Self, 1>(self, rows)
    }

    /// [`columns`](Simd::columns) of twos: a column is two lanes of each row.
    #[inline(always)]
    fn columns_of_twos(self, rows: [Self::F; 8]) -> [Self::F; 8] {
        gathered::<Self, 2>(self, rows)
    }

    /// Like [`load_bf16`](Simd::load_bf16) for a slice shorter than a vector; missing lanes are 0.
    #[inline(always)]
    fn load_bf16_partial(self, s: &[u16]) -> Self::F {
        self.load_bf16(&filled::<u16, 16>(s))
    }

    /// Like [`load_f16`](Simd::load_f16) for a slice shorter than a vector; missing lanes are 0.
    #[inline(always)]
    fn load_f16_partial(self, s: &[u16]) -> Self::F {
        self.load_f16(&filled::<u16, 16>(s))
    }

    /// Like [`load_i8`](Simd::load_i8) for a slice shorter than a vector; missing lanes are 0.
    #[inline(always)]
    fn load_i8_partial(self, s: &[i8]) -> Self::F {
        self.load_i8(&filled::<i8, 16>(s))
    }

    /// Like [`load_pairs`](Simd::load_pairs) for a slice shorter than that; missing words are 0.
    #[inline(always)]
    fn load_pairs_partial(self, s: &[u16]) -> Self::I {
        self.load_pairs(&filled::<u16, 32>(s))
    }

    /// Like [`load_quads`](Simd::load_quads) for a slice shorter than that; missing bytes are 0.
    #[inline(always)]
    fn load_quads_partial(self, s: &[i8]) -> Self::I {
        self.load_quads(&filled::<i8, 64>(s))
    }

    /// Asks for the cache line of the first element; changes nothing.
    #[inline(always)]
    fn prefetch<T>(self, s: &[T]) {
        self.prefetch_at(s.as_ptr().addr());
    }

    /// Asks for the cache line of an address, which need not be anybody's; changes nothing.
    #[inline(always)]
    fn prefetch_at(self, _address: usize) {}

    /// The same for the second cache, for what is needed later: many more such requests can be on their
    /// way at a time than of those for the first.
    #[inline(always)]
    fn prefetch_later_at(self, _address: usize) {}
}

/// Columns of `N` lanes by way of memory.
#[inline(always)]
fn gathered<S: Simd, const N: usize>(s: S, mut rows: [S::F; 8]) -> [S::F; 8] {
    let (mut lanes, mut all) = ([0.0f32; 16], [0.0f32; 8 * 16]);
    for (i, &row) in rows.iter().enumerate() {
        s.store(row, &mut lanes);
        for (column, from) in lanes[..S::LANES].as_chunks::<N>().0.iter().enumerate() {
            all[(column * 8 + i) * N..][..N].copy_from_slice(from);
        }
    }
    for (row, all) in rows.iter_mut().zip(all.chunks_exact(S::LANES)) {
        *row = s.load(all);
    }
    rows
}

/// `s` and zeros behind it.
#[inline(always)]
fn filled<T: Copy + Default, const N: usize>(s: &[T]) -> [T; N] {
    let mut full = [T::default(); N];
    full[..s.len()].copy_from_slice(s);
    full
}
