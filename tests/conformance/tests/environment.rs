//! A host that flushes subnormals or rounds another way changes no bit and gets its mode back.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;

use dgm_conformance::{kernels, run_cases};
use dgm_core::{arch::FpEnv, threads};

fn mode() -> u32 {
    let mut mode = 0u32;
    // SAFETY: stmxcsr writes four bytes to the given valid address.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut mode, options(nostack, preserves_flags)) };
    mode
}

fn set_mode(mode: u32) {
    // SAFETY: ldmxcsr reads four valid bytes; only FTZ, DAZ and the rounding bits differ from what
    // the register held.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &mode, options(nostack, preserves_flags, readonly)) };
}

/// The hashes of all that is listed, computed as every entry of the C interface does it.
fn results() -> Vec<Vec<u32>> {
    // Helpers inherit the mode of the thread that starts them, unless they set their own: start them anew.
    threads::set_num_threads(1).unwrap();
    threads::set_num_threads(3).unwrap();
    let _env = FpEnv::enter();
    let cases = kernels().flat_map(|k| k.expand().into_iter().map(move |c| (k, c)));
    let kernels = cases.map(|(kernel, case)| {
        // Subnormal beside normal numbers, or flushing would change nothing.
        let mut inputs = case.inputs();
        inputs.iter_mut().for_each(|x| x.iter_mut().step_by(5).for_each(|v| *v *= 1e-39));
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        case.run(kernel, &views).unwrap().iter().map(|v| v.to_bits()).collect()
    });
    let runs = run_cases().into_iter().map(|c| c.run(&[0, 1, 2], false).concat());
    kernels.chain(runs).collect()
}

#[test]
fn the_mode_of_the_host_changes_nothing_and_is_restored() {
    const FLUSH: u32 = 0x8040;
    let before = mode();
    let want = results();
    for bits in [FLUSH, 0x2000, 0x4000, 0x6000 | FLUSH] {
        set_mode(before & !0x6000 | bits);
        let got = results();
        let after = mode();
        set_mode(before);
        assert!(got == want, "mode {bits:#x} changed the results");
        assert_eq!(after & 0xe040, bits & 0xe040, "mode {bits:#x} was not restored");
    }
}
