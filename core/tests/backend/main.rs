//! Linear layers and attention through a BLAS, with a library made for the test, in processes of their own,
//! because the choice belongs to the process.
#![cfg(all(feature = "blas", unix))]

mod attention;

use std::path::{Path, PathBuf};
use std::process::Command;

use dgm_core::info::cpu_info;
use dgm_core::linalg::{
    Activation, Backend, LinearOptions, PackedLinear, Residual, backend, linear, set_backend,
};
use ndarray::{Array1, Array2, s};

fn library() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libtestblas.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backend/cblas.c");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(cc).args(["-shared", "-fPIC", "-O2", "-o"]).arg(&out).arg(source).status();
    assert!(status.expect("a C compiler").success());
    out
}

/// Runs one of the tests below, ignored by themselves, in a process with these variables; under the emulator
/// `DGM_TEST_RUNNER`, if this process is emulated itself.
fn run_with(test: &str, blas_library: &Path) {
    let own = std::env::current_exe().unwrap();
    let mut command = match std::env::var_os("DGM_TEST_RUNNER") {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(own);
            command
        }
        None => Command::new(own),
    };
    let status = command
        .args([test, "--exact", "--ignored"])
        .envs([("DGM_BACKEND", "blas".as_ref()), ("DGM_BLAS_LIBRARY", blas_library)])
        .status();
    assert!(status.unwrap().success(), "{test}");
}

fn numbers(rows: usize, cols: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, cols), |(i, j)| ((i * 31 + j * 17 + 1) * seed % 1999) as f32 / 999.5 - 1.0)
}

#[test]
fn the_variables_choose_the_backend() {
    run_with("a_missing_library_is_named", Path::new("/nowhere/libblas.so"));
    let library = library();
    run_with("a_blas_multiplies_when_it_is_asked_to", &library);
    run_with("attention::a_blas_multiplies_large_tiles", &library);
    run_with("attention::other_calls_stay_native_to_the_bit", &library);
}

#[test]
#[ignore = "run in a process of its own"]
fn a_missing_library_is_named() {
    // What is asked for but not there: the variable is ignored, the call says why.
    assert_eq!(backend(), Backend::Native);
    let error = set_backend(Backend::Blas).unwrap_err();
    assert!(error.code() == -101 && error.to_string().contains("/nowhere/libblas.so"), "{error}");
    attention::without_a_blas_the_native_kernel_runs();
    assert!(Backend::from_name("cuda").unwrap_err().to_string().contains("cuda"));
}

#[test]
#[ignore = "run in a process of its own"]
fn a_blas_multiplies_when_it_is_asked_to() {
    assert_eq!(backend(), Backend::Blas);
    for (m, k, n) in [(1, 1, 1), (1, 70, 33), (70, 33, 1), (5, 64, 32), (131, 40, 97), (3, 0, 4)] {
        let (x, w) = (numbers(m, k, 7), numbers(n, k, 13));
        let bias = Array1::from_iter((0..n).map(|i| i as f32 / 7.0));
        let layer = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
        for act in [Activation::None, Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            set_backend(Backend::Native).unwrap();
            assert!(cpu_info().contains("backend=native"));
            let mut want = Array2::<f32>::zeros((m, n));
            linear(x.view(), &layer, act, want.view_mut()).unwrap();

            set_backend(Backend::Blas).unwrap();
            let library = std::env::var("DGM_BLAS_LIBRARY").unwrap();
            let name = library.rsplit('/').next().unwrap();
            assert!(cpu_info().contains("backend=blas:") && cpu_info().contains(name), "{}", cpu_info());
            let mut got = Array2::from_elem((m, n), f32::NAN);
            linear(x.view(), &layer, act, got.view_mut()).unwrap();
            assert!(
                got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs())),
                "{m} {k} {n}"
            );
            // The sums of the test's own library are in double and differ in some last bit: it was called.
            let own = name == "libtestblas.so";
            assert!(!own || m * k * n < 1000 || act != Activation::None || got != want);

            // Rows apart go through it too; columns apart cannot and stay native, to the bit.
            let mut wide = Array2::from_elem((m, n + 3), 7.0f32);
            linear(x.view(), &layer, act, wide.slice_mut(s![.., ..n])).unwrap();
            assert_eq!(wide.slice(s![.., ..n]), got);
            assert!(wide.slice(s![.., n..]).iter().all(|&v| v == 7.0), "gaps stay untouched");
            if n > 1 {
                let mut apart = Array2::from_elem((m, 2 * n), 7.0f32);
                linear(x.view(), &layer, act, apart.slice_mut(s![.., ..;2])).unwrap();
                assert_eq!(apart.slice(s![.., ..;2]), want);
            }

            // Gate and residual follow the library's product; what adds onto its output stays native.
            let (gate, residual) = (numbers(1, n, 5), numbers(m, n, 11));
            let options =
                |residual| LinearOptions { activation: act, gate: Some(gate.view().into()), residual };
            let mut ends = Array2::from_elem((m, n), f32::NAN);
            linear(x.view(), &layer, options(Residual::Rows(residual.view().into())), ends.view_mut())
                .unwrap();
            let mut onto = residual.clone();
            linear(x.view(), &layer, options(Residual::Out), onto.view_mut()).unwrap();
            for ((i, j), &r) in residual.indexed_iter() {
                assert_eq!(ends[[i, j]], gate[[0, j]].mul_add(got[[i, j]], r));
                assert_eq!(onto[[i, j]], gate[[0, j]].mul_add(want[[i, j]], r));
            }
        }
    }
    set_backend(Backend::Native).unwrap();
    assert_eq!(backend(), Backend::Native);
}
