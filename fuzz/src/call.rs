//! One call on the arena, and everything that must be true of it.

use std::ffi::CStr;

use dgm::fence::dgm_last_error;
use dgm::tensor::dgm_tensor;

use crate::{Arena, Bytes, Footprint, Tensor};

/// What a byte of the arena is to a call.
const READ: u8 = 1;
const WRITTEN: u8 = 2;

/// The status numbers of the header but DGM_ERROR_INTERNAL, which is a bug.
const STATUS: [i32; 13] = [0, -100, -101, -200, -201, -300, -400, -500, -501, -600, -601, -700, -800];

/// Checks that a status is one of the header and that an error has a text.
pub fn check_status(status: i32) {
    // SAFETY: never NULL, and valid until the next failing call of this thread.
    let text = unsafe { CStr::from_ptr(dgm_last_error()) }.to_string_lossy();
    assert!(STATUS.contains(&status), "status {status}: {text}");
    assert!(status == 0 || !text.is_empty(), "status {status} without a text");
}

/// The tensors of one call.
pub struct Call {
    arena: Arena,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// An input may be the very view that is written.
    pub elementwise: bool,
}

impl Call {
    pub fn new(b: &mut Bytes) -> Self {
        let special = b.rarely(3);
        let arena = Arena::new(b.u64(), special);
        Call { arena, inputs: Vec::new(), outputs: Vec::new(), elementwise: false }
    }

    /// Adds an input; its descriptor. `types` are (code, bits).
    pub fn input(&mut self, b: &mut Bytes, shape: &[usize], types: &[(u8, u8)]) -> *mut dgm_tensor {
        self.inputs.push(self.arena.tensor(b, shape, types));
        &mut *self.inputs.last_mut().expect("pushed").raw
    }

    /// Adds an input that is absent one time in two.
    pub fn optional(&mut self, b: &mut Bytes, shape: &[usize], types: &[(u8, u8)]) -> *mut dgm_tensor {
        if b.rarely(2) { self.input(b, shape, types) } else { std::ptr::null_mut() }
    }

    /// Adds an output.
    pub fn output(&mut self, b: &mut Bytes, shape: &[usize], types: &[(u8, u8)]) -> *mut dgm_tensor {
        self.outputs.push(self.arena.tensor(b, shape, types));
        &mut *self.outputs.last_mut().expect("pushed").raw
    }

    /// Makes the first output the very view of an input, now and then.
    pub fn in_place(&mut self, b: &mut Bytes) {
        if !b.rarely(4) || self.inputs.is_empty() {
            return;
        }
        let input = &self.inputs[b.below(self.inputs.len())];
        let output = &mut self.outputs[0];
        *output.raw = dgm_tensor { ..*input.raw };
        output.take(input);
    }

    /// How many inputs there are so far.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// The type of an input as the function sees it, if it is one of `types`; else the first of these.
    pub fn dtype(&self, input: usize, types: &[(u8, u8)]) -> (u8, u8) {
        let raw = &self.inputs[input].raw;
        let seen = (raw.dtype_code, raw.dtype_bits);
        if types.contains(&seen) { seen } else { types[0] }
    }

    /// The shape of the n-th input, as the function sees it.
    pub fn shape(&self, n: usize) -> Vec<i64> {
        self.inputs[n].shape().to_vec()
    }

    /// The shape of the n-th output.
    pub fn output_shape(&self, n: usize) -> Vec<i64> {
        self.outputs[n].shape().to_vec()
    }

    /// `len` floats inside the arena that the function reads, or NULL.
    pub fn floats(&mut self, b: &mut Bytes, len: i64) -> *const f32 {
        let len = usize::try_from(len).unwrap_or(0);
        if !b.rarely(3) || len > 1000 {
            return std::ptr::null();
        }
        self.input(b, &[len], &[(2, 32)]);
        let t = self.inputs.last().expect("pushed");
        // An array is contiguous and aligned, or it is not passed.
        let good = matches!(&t.footprint, Footprint::Inside(at) if at.windows(2).all(|w| w[1] == w[0] + 4));
        if !good || t.shape() != [len as i64] {
            self.inputs.pop();
            return std::ptr::null();
        }
        t.raw.data.cast::<u8>().wrapping_add(t.raw.byte_offset as usize).cast()
    }

    /// Makes the call and checks it. `fits`: whether the shapes agree, by the target's own
    /// reckoning; a call that does not fit must fail.
    pub fn check(&mut self, fits: bool, call: impl Fn() -> i32) {
        let all = || self.inputs.iter().chain(&self.outputs);
        if all().any(|t| t.footprint == Footprint::Outside) {
            return;
        }
        let refused = all().any(|t| t.footprint == Footprint::Refused);
        let must_fail = refused || !fits;
        let mut sizes: Vec<usize> = self.inputs.iter().map(Tensor::count).collect();
        sizes.sort_unstable();
        let work = sizes.iter().rev().take(2).product::<usize>();
        if !must_fail && (work > 1 << 20 || all().any(|t| t.footprint == Footprint::Heavy)) {
            return; // correct, and slow
        }

        let before = self.arena.bytes().to_vec();
        let status = call();
        check_status(status);
        if status != 0 {
            assert!(self.arena.bytes() == before, "memory changed although the status is {status}");
            return;
        }
        let wrong: Vec<_> = all().filter(|t| t.footprint == Footprint::Refused).map(Tensor::text).collect();
        assert!(!refused, "a descriptor that has no meaning was accepted: {wrong:?}");
        assert!(fits, "shapes that do not agree were accepted");
        let map = self.map();
        let changed = |(i, (a, b)): (usize, (&u8, &u8))| (a != b && map[i] & WRITTEN == 0).then_some(i);
        let stray = self.arena.bytes().iter().zip(&before).enumerate().find_map(changed);
        assert!(stray.is_none(), "byte {stray:?} changed, which no output covers");

        // Whatever lies between the inputs, and in the output, has no part in the result.
        let result = self.arena.bytes().to_vec();
        for (i, byte) in self.arena.bytes_mut().iter_mut().enumerate() {
            *byte = if map[i] & READ != 0 { before[i] } else { !before[i] };
        }
        assert_eq!(call(), 0, "the same call failed");
        for t in &self.outputs {
            let Footprint::Inside(places) = &t.footprint else { continue };
            for &at in places {
                let read = |bytes: &[u8]| bytes[at..at + t.element()].to_vec();
                let (a, b) = (read(&result), read(self.arena.bytes()));
                let equal = a == b || is_nan(&a, t) && is_nan(&b, t);
                assert!(equal, "the result at byte {at} depends on memory that is not an input");
            }
        }
    }

    /// What each byte is. Checks that outputs are apart from each other and from the inputs.
    fn map(&self) -> Vec<u8> {
        let mut map = vec![0u8; self.arena.bytes().len()];
        for t in &self.inputs {
            t.mark(&mut map, |byte| *byte |= READ);
        }
        for (n, t) in self.outputs.iter().enumerate() {
            let shared = n == 0 && self.elementwise && self.inputs.iter().any(|i| i.is_same_view(t));
            t.mark(&mut map, |byte| {
                assert!(*byte & WRITTEN == 0, "two elements of outputs share memory");
                assert!(shared || *byte & READ == 0, "an output over an input was accepted");
                *byte |= WRITTEN;
            });
        }
        map
    }
}

fn is_nan(bytes: &[u8], t: &Tensor) -> bool {
    let wide = |bits: u16| u32::from(bits) << 16;
    match (t.raw.dtype_code, bytes) {
        (2, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).is_nan(),
        (2, &[a, b]) => u16::from_le_bytes([a, b]) & 0x7fff > 0x7c00,
        (4, &[a, b]) => f32::from_bits(wide(u16::from_le_bytes([a, b]))).is_nan(),
        _ => false,
    }
}
