//! The floating-point environment of the calling thread.

/// Sets round-to-nearest without flush-to-zero or denormals-are-zero, and restores what the
/// thread had when dropped.
///
/// Hosts (a BEAM linked with fast-math code, a Julia with `set_zero_subnormals`) may run with
/// another mode; the engine's bits must not depend on it.
#[derive(Debug)]
pub struct FpEnv {
    saved: u64,
}

impl FpEnv {
    /// Enters the engine's environment.
    #[inline]
    pub fn enter() -> Self {
        let saved = read();
        let wanted = (saved & !MASK) | DEFAULT;
        if saved != wanted {
            write(wanted);
        }
        FpEnv { saved }
    }
}

impl Drop for FpEnv {
    #[inline]
    fn drop(&mut self) {
        // A library that was loaded meanwhile may have changed it.
        if read() & MASK != self.saved & MASK {
            write(self.saved);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use std::arch::asm;

    // Rounding control, FTZ, DAZ and the exception masks; exceptions stay masked.
    pub const MASK: u64 = 0xffc0;
    pub const DEFAULT: u64 = 0x1f80;

    #[inline]
    pub fn read() -> u64 {
        let mut mxcsr = 0u32;
        // SAFETY: stmxcsr writes four bytes to the given valid address and nothing else.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack, preserves_flags)) };
        u64::from(mxcsr)
    }

    #[inline]
    pub fn write(value: u64) {
        let mxcsr = value as u32;
        // SAFETY: ldmxcsr reads four bytes from a valid address. The bits written were read
        // from the register or lie in MASK, so no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, preserves_flags, readonly)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use std::arch::asm;

    // FPCR: FZ16 (19), RMode (22-23), FZ (24), DN (25), and FIZ/AH (0-1).
    pub const MASK: u64 = (1 << 19) | (3 << 22) | (1 << 24) | (1 << 25) | 3;
    pub const DEFAULT: u64 = 0;

    #[inline]
    pub fn read() -> u64 {
        let fpcr: u64;
        // SAFETY: reading FPCR has no side effect.
        unsafe { asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags)) };
        fpcr
    }

    #[inline]
    pub fn write(value: u64) {
        // SAFETY: the value is what the register held with the documented mode bits cleared.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    pub const MASK: u64 = 0;
    pub const DEFAULT: u64 = 0;

    pub fn read() -> u64 {
        0
    }

    pub fn write(_: u64) {}
}

use imp::{DEFAULT, MASK, read, write};

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn mode_is_set_and_restored() {
        let before = read();
        write(before | 0x8040 | 0x6000); // FTZ, DAZ, round toward zero
        {
            let _env = FpEnv::enter();
            assert_eq!(read() & MASK, DEFAULT);
        }
        assert_eq!(read() & MASK, (before | 0x8040 | 0x6000) & MASK);
        write(before);
    }
}
