//! Element types, with the numbers DLPack gives them.

use std::fmt;

use crate::error::{Error, Result};

/// The type of one tensor element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// IEEE half precision.
    F16,
    /// bfloat16: the upper half of a single.
    Bf16,
    /// Signed 8-bit integer.
    I8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// One byte, 0 or 1.
    Bool,
}

const ALL: [Dtype; 11] = [
    Dtype::F32,
    Dtype::F64,
    Dtype::F16,
    Dtype::Bf16,
    Dtype::I8,
    Dtype::I32,
    Dtype::I64,
    Dtype::U8,
    Dtype::U32,
    Dtype::U64,
    Dtype::Bool,
];

impl Dtype {
    /// DLPack's (type code, bits).
    pub fn dlpack(self) -> (u8, u8) {
        match self {
            Dtype::F32 => (2, 32),
            Dtype::F64 => (2, 64),
            Dtype::F16 => (2, 16),
            Dtype::Bf16 => (4, 16),
            Dtype::I8 => (0, 8),
            Dtype::I32 => (0, 32),
            Dtype::I64 => (0, 64),
            Dtype::U8 => (1, 8),
            Dtype::U32 => (1, 32),
            Dtype::U64 => (1, 64),
            Dtype::Bool => (6, 8),
        }
    }

    /// The type of a DLPack (type code, bits, lanes); only one lane is known.
    ///
    /// # Errors
    /// [`Error::Dtype`] for every other combination.
    pub fn from_dlpack(arg: &'static str, code: u8, bits: u8, lanes: u16) -> Result<Self> {
        ALL.into_iter().find(|d| d.dlpack() == (code, bits) && lanes == 1).ok_or_else(|| Error::Dtype {
            arg,
            got: format!("code {code}, {bits} bits, {lanes} lanes"),
            expected: "one lane of a known type (f32 is code 2, 32 bits, 1 lane)".into(),
        })
    }

    /// Bytes of one element, which is also its alignment.
    pub fn size(self) -> usize {
        usize::from(self.dlpack().1) / 8
    }

    /// The short name: `f32`, `bf16`, `i64`, ...
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I8 => "i8",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
            Dtype::U8 => "u8",
            Dtype::U32 => "u32",
            Dtype::U64 => "u64",
            Dtype::Bool => "bool",
        }
    }

    /// Checks that the type is `expected`.
    ///
    /// # Errors
    /// [`Error::Dtype`] otherwise.
    pub fn expect(self, arg: &'static str, expected: Dtype) -> Result<()> {
        if self == expected {
            Ok(())
        } else {
            Err(Error::Dtype { arg, got: self.to_string(), expected: expected.to_string() })
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_round_trip() {
        for d in ALL {
            let (code, bits) = d.dlpack();
            assert_eq!(Dtype::from_dlpack("x", code, bits, 1), Ok(d));
            assert_eq!(d.size() * 8, usize::from(bits));
        }
    }

    #[test]
    fn unknown_types_are_named() {
        let e = Dtype::from_dlpack("q", 2, 32, 4).unwrap_err();
        assert_eq!(e.code(), -300);
        assert!(e.to_string().starts_with("q has dtype code 2, 32 bits, 4 lanes"), "{e}");
        assert!(Dtype::from_dlpack("q", 5, 64, 1).is_err());
        assert!(Dtype::from_dlpack("q", 2, 0, 1).is_err());
        assert_eq!(Dtype::F64.expect("x", Dtype::F32).unwrap_err().code(), -300);
    }
}
