//! What every kernel of the list must keep.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dgm_conformance::{Case, Kernel, PATTERN, bad_cases, cases_text, hashes_text, kernels};
use dgm_core::{Error, arch, threads};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};

/// Level and pool belong to the process: tests that set them take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn views(inputs: &[ArrayD<f32>]) -> Vec<ArrayViewD<'_, f32>> {
    inputs.iter().map(|x| x.view()).collect()
}

#[track_caller]
fn same_bits(got: &ArrayViewD<f32>, want: &ArrayViewD<f32>, what: &str) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let differ = got.iter().zip(want).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(differ, None, "{what}: first element that differs");
}

/// Runs `test` on every case with its inputs and the output that the others are compared to.
fn every_case(mut test: impl FnMut(&Kernel, &Case, &[ArrayD<f32>], &ArrayD<f32>)) {
    let mut ran = 0;
    for kernel in kernels() {
        let cases = kernel.expand();
        assert!(!cases.is_empty(), "{} has no case", kernel.call);
        for case in cases {
            let inputs = case.inputs();
            let want = case.run(kernel, &views(&inputs)).unwrap();
            test(kernel, &case, &inputs, &want);
            ran += 1;
        }
    }
    assert!(ran >= kernels().count() && ran > 0);
}

#[test]
fn oracle() {
    let _turn = alone();
    every_case(|kernel, case, inputs, got| {
        let wide: Vec<_> = inputs.iter().map(|x| x.mapv(f64::from)).collect();
        let want = (kernel.oracle)(&wide, &case.args, &case.output().shape);
        assert_eq!(want.len(), got.len(), "{}", case.name);
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(*got) - want).abs() / want.abs().max(1.0);
            assert!(error <= kernel.bound, "{}: element {i} is {got}, not {want}: {error:e}", case.name);
        }
    });
}

#[test]
fn same_bits_for_any_threads_and_level() {
    let _turn = alone();
    let (level, pool) = (arch::level(), threads::num_threads());
    every_case(|kernel, case, inputs, want| {
        for level in arch::available_levels() {
            for count in [1, 2, 3, 7] {
                arch::set_level(level).unwrap();
                threads::set_num_threads(count).unwrap();
                let got = case.run(kernel, &views(inputs)).unwrap();
                same_bits(&got.view(), &want.view(), &format!("{} {} {count}", case.name, level.name()));
            }
        }
        arch::set_level(level).unwrap();
        threads::set_num_threads(pool).unwrap();
    });
}

#[test]
fn same_bits_for_rows_alone_and_in_another_order() {
    let _turn = alone();
    every_case(|kernel, case, inputs, want| {
        if case.args.by_row() {
            return;
        }
        let batch = case.output().symbols[0];
        let rows = case.output().shape[0];
        let pick = |index: &[usize]| -> Vec<ArrayD<f32>> {
            let tensors = inputs.iter().zip(&case.tensors);
            tensors
                .map(|(x, t)| if t.symbols[0] == batch { x.select(Axis(0), index) } else { x.clone() })
                .collect()
        };
        let reversed: Vec<usize> = (0..rows).rev().collect();
        let alone = (0..rows).map(|r| vec![r]);
        for index in alone.chain([reversed]) {
            let mut got = ArrayD::from_elem(want.select(Axis(0), &index).raw_dim(), f32::NAN);
            (kernel.run)(&views(&pick(&index)), &case.args, got.view_mut()).unwrap();
            same_bits(&got.view(), &want.select(Axis(0), &index).view(), &format!("{} {index:?}", case.name));
        }
    });
}

#[test]
fn same_bits_from_and_to_strided_memory() {
    let _turn = alone();
    every_case(|kernel, case, inputs, want| {
        let every_second = |shape: &[usize]| {
            let mut wide = shape.to_vec();
            wide[0] *= 2;
            ArrayD::from_elem(IxDyn(&wide), PATTERN)
        };
        let step = Slice::new(0, None, 2);
        let mut wide: Vec<_> = inputs.iter().map(|x| every_second(x.shape())).collect();
        for (w, x) in wide.iter_mut().zip(inputs) {
            w.slice_axis_mut(Axis(0), step).assign(x);
        }
        let sliced: Vec<_> = wide.iter().map(|w| w.slice_axis(Axis(0), step)).collect();
        let mut out = every_second(want.shape());
        (kernel.run)(&sliced, &case.args, out.slice_axis_mut(Axis(0), step)).unwrap();
        same_bits(&out.slice_axis(Axis(0), step), &want.view(), &case.name);
        let between = out.slice_axis(Axis(0), Slice::new(1, None, 2));
        assert!(between.iter().all(|&v| v == PATTERN), "{}: wrote between its rows", case.name);
    });
}

#[test]
fn mismatched_shapes_are_named_and_outputs_untouched() {
    let _turn = alone();
    for kernel in kernels() {
        let bad = bad_cases(kernel);
        assert!(!bad.is_empty(), "{}: no dimension is shared", kernel.call);
        for bad in bad {
            let Error::Shape { arg, .. } = &bad.error else { panic!("{}: {}", bad.name, bad.error) };
            assert!(bad.case.tensors.iter().any(|t| t.name == *arg), "{}: {}", bad.name, bad.error);
            assert!(bad.error.to_string().contains(arg), "{}: {}", bad.name, bad.error);
            assert!(bad.out.iter().all(|&v| v == PATTERN), "{}: output touched", bad.name);
        }
    }
}

#[test]
fn published_files_are_up_to_date() {
    let _turn = alone();
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(here.join(name)).unwrap();
    assert!(read("cases.txt") == cases_text(), "run cargo run -p dgm-conformance");
    assert!(read("../../docs/HASHES.md") == hashes_text(), "run cargo run -p dgm-conformance");
}
