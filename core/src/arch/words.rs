//! Half-precision numbers as the 16 bits they are.

use half::{bf16, f16};

/// A slice of half-precision numbers, seen as bits. The crate `half` has the same, by calls across which no
/// vector register keeps its value.
pub(crate) trait Words {
    fn words(&self) -> &[u16];
    fn words_mut(&mut self) -> &mut [u16];
}

macro_rules! words {
    ($($T:ty),+) => {$(
        impl Words for [$T] {
            #[inline(always)]
            fn words(&self) -> &[u16] {
                // SAFETY: the type is a transparent u16, and every pattern of 16 bits is one.
                unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len()) }
            }

            #[inline(always)]
            fn words_mut(&mut self) -> &mut [u16] {
                // SAFETY: as above, and the borrow is exclusive.
                unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len()) }
            }
        }
    )+};
}

words!(f16, bf16);

/// Room for numbers of one type, lent to numbers of another.
pub(crate) trait Lend: Sized {
    /// Twice as many in the place of as many f32 for those of half precision.
    fn lend(room: &mut [f32]) -> &mut [Self];
}

impl Lend for f32 {
    fn lend(room: &mut [f32]) -> &mut [f32] {
        room
    }
}

macro_rules! lend {
    ($($T:ty),+) => {$(
        impl Lend for $T {
            fn lend(room: &mut [f32]) -> &mut [$T] {
                // SAFETY: a transparent u16, of which two take the place of an f32; every pattern of bits is a number
                // of both types, and the borrow is exclusive.
                unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), 2 * room.len()) }
            }
        }
    )+};
}

lend!(f16, bf16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_numbers() {
        let mut x = [1.0, -2.5, f32::INFINITY].map(bf16::from_f32);
        assert_eq!(x.words(), x.map(bf16::to_bits));
        x.words_mut()[0] = 0x4040;
        assert_eq!(x[0].to_f32(), 3.0);
        assert_eq!([f16::NAN, f16::ONE].words(), [f16::NAN.to_bits(), f16::ONE.to_bits()]);
    }

    #[test]
    fn room_holds_twice_as_many_halves() {
        let mut room = [0.0f32; 3];
        let halves = bf16::lend(&mut room);
        assert_eq!(halves.len(), 6);
        halves.fill(bf16::ONE);
        assert!(room.iter().all(|x| x.to_bits() == 0x3f80_3f80));
        assert_eq!(f32::lend(&mut room).len(), 3);
    }
}
