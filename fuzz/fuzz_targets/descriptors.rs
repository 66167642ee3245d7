//! Arbitrary descriptors through the C interface: a status, no crash, nothing written or read
//! beside the tensors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dgm_fuzz::kernels::one(&mut dgm_fuzz::Bytes(data)));
