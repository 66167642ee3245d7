//! Tensors in one piece of memory, and what they cover by a reckoning of their own: in i128 and
//! byte by byte, with nothing of the engine's.

use dgm::tensor::dgm_tensor;

use crate::Bytes;

/// Bytes of the arena.
pub const SIZE: usize = 1 << 16;
/// Bytes between two tensors that are placed one after the other.
const GAP: usize = 64;
/// Elements up to which a tensor is looked at one by one.
pub const MOST: i128 = 1 << 14;

/// Memory for the tensors of one call. It lies on the heap, where the address sanitizer guards
/// both ends.
pub struct Arena {
    memory: Box<[u64]>,
    used: usize,
}

/// What a descriptor refers to.
#[derive(Clone, PartialEq, Debug)]
pub enum Footprint {
    /// Nothing: it must be refused.
    Refused,
    /// No element.
    Empty,
    /// The first bytes of all elements, inside the arena, as offsets.
    Inside(Vec<usize>),
    /// Many elements inside the arena, by strides that visit memory more than once.
    Heavy,
    /// Memory outside: the descriptor lies and may not be passed.
    Outside,
}

/// A descriptor with its shape and strides.
pub struct Tensor {
    pub raw: Box<dgm_tensor>,
    shape: Box<[i64; 8]>,
    strides: Box<[i64; 8]>,
    /// Bytes of an element by the declared type; 0 for a type that no function knows.
    element: usize,
    /// Whether the function takes this type here.
    typed: bool,
    pub footprint: Footprint,
}

impl Arena {
    /// Memory full of numbers that the seed chooses: ordinary ones, with some NaN, infinities and
    /// subnormals when `special`.
    pub fn new(seed: u64, special: bool) -> Self {
        let mut z = seed | 1;
        let mut word = || {
            z ^= z << 13;
            z ^= z >> 7;
            z ^= z << 17;
            z
        };
        let float = |w: u32| match w & 0xff {
            0 if special => f32::from_bits(w | 0x7f80_0000),
            1 if special => f32::from_bits(w & 0x807f_ffff),
            _ => (w >> 8) as f32 / 4_194_304.0 - 2.0,
        };
        let pair = |w: u64| {
            u64::from(float(w as u32).to_bits()) << 32 | u64::from(float((w >> 32) as u32).to_bits())
        };
        Arena { memory: (0..SIZE / 8).map(|_| pair(word())).collect(), used: GAP }
    }

    pub fn base(&mut self) -> *mut u8 {
        self.memory.as_mut_ptr().cast()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words of the box, as bytes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), SIZE) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), SIZE) }
    }

    /// A place of its own for so many bytes, or the beginning when the arena is full.
    fn place(&mut self, bytes: usize) -> usize {
        let at = self.used;
        match at.checked_add(bytes).filter(|&end| end + GAP <= SIZE) {
            Some(end) => {
                self.used = (end + GAP).next_multiple_of(16);
                at
            }
            None => 0,
        }
    }

    /// A tensor that is well formed (contiguous, of this shape, apart from the others) where the
    /// bytes are 0, and anything else where they are not.
    ///
    /// `types`: the (code, bits) that the function takes here.
    pub fn tensor(&mut self, b: &mut Bytes, shape: &[usize], types: &[(u8, u8)]) -> Tensor {
        let (code, bits) = types[b.below(types.len())];
        let count = shape.iter().product::<usize>();
        let at = self.place(count * usize::from(bits / 8));
        let base = self.base();
        let mut t = Tensor {
            raw: Box::new(dgm_tensor {
                data: base.wrapping_add(at).cast(),
                device_type: 1,
                device_id: 0,
                ndim: shape.len() as i32,
                dtype_code: code,
                dtype_bits: bits,
                dtype_lanes: 1,
                shape: std::ptr::null_mut(),
                strides: std::ptr::null_mut(),
                byte_offset: 0,
            }),
            shape: Box::new(std::array::from_fn(|i| shape.get(i).map_or(1, |&d| d as i64))),
            strides: Box::new([1; 8]),
            element: 0,
            typed: true,
            footprint: Footprint::Empty,
        };
        t.raw.shape = t.shape.as_mut_ptr();
        let changes = if b.rarely(3) { 1 + b.below(3) } else { 0 };
        for _ in 0..changes {
            t.change(b, base);
        }
        t.measure(types, base);
        t
    }
}

impl Tensor {
    fn change(&mut self, b: &mut Bytes, base: *mut u8) {
        let axis = b.below(8);
        match b.below(16) {
            0 => self.shape[axis] = b.number(),
            1 => self.shape[axis] = b.number(),
            // Strides in any order of the axes, some of them broadcast or reversed.
            2 | 3 | 4 => {
                self.raw.strides = self.strides.as_mut_ptr();
                let mut step = 1 + i64::from(b.rarely(4));
                let rank = (self.raw.ndim.clamp(0, 8)) as usize;
                let turn = b.below(8);
                for i in 0..rank {
                    let axis = (rank - 1 - i + turn) % rank;
                    self.strides[axis] = match b.u8() % 8 {
                        7 => 0,
                        6 => -step,
                        _ => step,
                    };
                    step = step.saturating_mul(self.shape[axis].max(1));
                }
            }
            5 => {
                self.raw.strides = self.strides.as_mut_ptr();
                self.strides[axis] = b.number();
            }
            6 => self.raw.data = base.wrapping_add(b.below(64) * 16 + b.below(9)).cast(),
            7 => self.raw.data = base.wrapping_add(b.u32() as usize % SIZE & !3).cast(),
            8 => self.raw.byte_offset = b.number() as u64,
            9 => self.raw.ndim = b.number() as i32,
            10 => self.raw.dtype_code = b.u8() % 8,
            11 => self.raw.dtype_bits = b.u8(),
            12 => self.raw.dtype_lanes = u16::from(b.u8() % 3),
            13 => self.raw.device_type = b.number() as i32,
            14 => match b.below(3) {
                0 => self.raw.data = std::ptr::null_mut(),
                1 => self.raw.shape = std::ptr::null_mut(),
                _ => self.raw.strides = self.strides.as_mut_ptr(),
            },
            _ => {
                let other = b.below(8);
                self.shape.swap(axis, other);
                self.strides.swap(axis, other);
            }
        }
    }

    /// The dimensions, as far as there are any.
    pub fn shape(&self) -> &[i64] {
        &self.shape[..self.raw.ndim.clamp(0, 8) as usize]
    }

    /// Strides in elements, those that stand for NULL included.
    fn strides(&self) -> Vec<i128> {
        let shape = self.shape();
        if !self.raw.strides.is_null() {
            return self.strides[..shape.len()].iter().map(|&s| i128::from(s)).collect();
        }
        let mut all = vec![1i128; shape.len()];
        for i in (0..shape.len().saturating_sub(1)).rev() {
            all[i] = all[i + 1].saturating_mul(i128::from(shape[i + 1]).max(1));
        }
        all
    }

    fn measure(&mut self, types: &[(u8, u8)], base: *mut u8) {
        let raw = &self.raw;
        self.element = usize::from(raw.dtype_bits / 8);
        self.typed = raw.dtype_lanes == 1 && types.contains(&(raw.dtype_code, raw.dtype_bits));
        self.footprint = self.look(base);
    }

    /// What a message says of it.
    pub fn text(&self) -> String {
        let raw = &self.raw;
        let dtype = (raw.dtype_code, raw.dtype_bits, raw.dtype_lanes);
        let (shape, strides) = (self.shape(), self.strides());
        format!("{:?} + {} type {dtype:?} shape {shape:?} strides {strides:?}", raw.data, raw.byte_offset)
    }

    fn look(&self, base: *mut u8) -> Footprint {
        let raw = &self.raw;
        let ranked = (0..=8).contains(&raw.ndim);
        if !ranked || !self.typed || raw.device_type != 1 || (raw.ndim > 0 && raw.shape.is_null()) {
            return Footprint::Refused;
        }
        let shape: Vec<i128> = self.shape().iter().map(|&d| i128::from(d)).collect();
        let size = self.element as i128;
        let limit = isize::MAX as i128;
        let product = shape.iter().fold(1i128, |p, &d| p.saturating_mul(d.max(1)));
        if shape.iter().any(|&d| d < 0) || product.saturating_mul(size) > limit {
            return Footprint::Refused;
        }
        if shape.contains(&0) {
            return Footprint::Empty;
        }
        let start = raw.data as i128 + i128::from(raw.byte_offset);
        if raw.data.is_null() || start % size != 0 || start >= 1 << 64 {
            return Footprint::Refused;
        }
        let strides = self.strides();
        let (mut low, mut high) = (start, start + size);
        for (&d, &s) in shape.iter().zip(&strides) {
            let reach = (d - 1).saturating_mul(s).saturating_mul(size);
            low = low.saturating_add(reach.min(0));
            high = high.saturating_add(reach.max(0));
        }
        if high.saturating_sub(low) > limit || low < 0 || high >= 1 << 64 {
            return Footprint::Refused;
        }
        let base = base as i128;
        if low < base || high > base + SIZE as i128 {
            return Footprint::Outside;
        }
        if product > MOST {
            return Footprint::Heavy;
        }
        let mut all = vec![(start - base) as i64];
        for (&d, &s) in shape.iter().zip(&strides) {
            let step = (s * size) as i64;
            all = all.iter().flat_map(|&at| (0..d as i64).map(move |i| at + i * step)).collect();
        }
        Footprint::Inside(all.into_iter().map(|at| at as usize).collect())
    }

    pub fn element(&self) -> usize {
        self.element
    }

    /// The same elements in the same order at the same addresses.
    pub fn is_same_view(&self, other: &Tensor) -> bool {
        self.element == other.element && self.shape() == other.shape() && self.footprint == other.footprint
    }

    /// Becomes the view of another tensor, whose descriptor was copied already.
    pub fn take(&mut self, other: &Tensor) {
        (*self.shape, *self.strides) = (*other.shape, *other.strides);
        (self.element, self.typed) = (other.element, other.typed);
        self.footprint = other.footprint.clone();
    }

    /// Elements that were looked at one by one.
    pub fn count(&self) -> usize {
        match &self.footprint {
            Footprint::Inside(places) => places.len(),
            _ => 0,
        }
    }

    /// Visits the bytes of every element in a map of the arena.
    pub fn mark(&self, map: &mut [u8], mut visit: impl FnMut(&mut u8)) {
        if let Footprint::Inside(places) = &self.footprint {
            for &at in places {
                map[at..at + self.element].iter_mut().for_each(&mut visit);
            }
        }
    }
}
