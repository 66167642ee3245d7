//! What random numbers, walks and models must keep.

use std::sync::{Mutex, MutexGuard, PoisonError};

use dgm_conformance::{ROWS, Source, at_own_times, run_cases, runs_text};
use dgm_core::{arch, threads};

/// Level and pool belong to the process: tests that set them take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn same_bits_for_any_threads_and_level() {
    let _turn = alone();
    let (level, pool) = (arch::level(), threads::num_threads());
    let rows: Vec<usize> = (0..ROWS).collect();
    for case in run_cases() {
        let want = case.run(&rows, false);
        for level in arch::available_levels() {
            for count in [1, 2, 3, 7] {
                // Software FMA is slow; one pool shows it as well as four.
                if level == arch::Level::Portable && count != 2 && matches!(case.source, Source::Model(_)) {
                    continue;
                }
                arch::set_level(level).unwrap();
                threads::set_num_threads(count).unwrap();
                assert!(case.run(&rows, false) == want, "{} {} {count}", case.name, level.name());
            }
        }
        arch::set_level(level).unwrap();
        threads::set_num_threads(pool).unwrap();
    }
}

#[test]
fn same_bits_alone_and_shuffled_in_64() {
    let _turn = alone();
    for case in run_cases() {
        // 37 is a unit modulo 64: every row once.
        let shuffled: Vec<usize> = (0..64).map(|i| (i * 37 + 11) % 64).collect();
        let all = case.run(&shuffled, false);
        for (at, &row) in shuffled.iter().enumerate().step_by(7) {
            assert!(case.run(&[row], false)[0] == all[at], "{} row {row}", case.name);
        }
    }
}

#[test]
fn same_bits_when_exported_and_resumed_at_every_ask() {
    let _turn = alone();
    let mut walks = 0;
    for case in run_cases() {
        if matches!(case.source, Source::Plan(_)) {
            assert!(case.run(&[2, 0, 5], true) == case.run(&[2, 0, 5], false), "{}", case.name);
            walks += 1;
        }
    }
    assert!(walks > dgm_core::sampling::Solver::ALL.len());
}

/// A pyramid, one row after the other, and an order without a pattern: the bits of the walk together.
#[test]
fn rows_at_their_own_times() {
    let _turn = alone();
    let rows = [0, 1, 2, 7];
    let mut checked = 0;
    for case in run_cases() {
        let Source::Plan(options) = &case.source else { continue };
        if !options.per_row {
            continue;
        }
        let together = case.run(&rows, false);
        let results = [
            at_own_times(&case, &rows, |round, row| round >= row),
            at_own_times(&case, &rows, |round, row| round / 20 == row),
            at_own_times(&case, &rows, |round, row| (round * 7 + row * 3) % 5 < 2),
        ];
        for result in results {
            for (all, own) in together.iter().zip(&result) {
                assert!(all.ends_with(own), "{}", case.name);
            }
        }
        checked += 1;
    }
    assert!(checked >= 2);
}

#[test]
fn published_runs_are_up_to_date() {
    let _turn = alone();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runs.txt");
    assert!(std::fs::read_to_string(file).unwrap() == runs_text(), "run cargo run -p dgm-conformance");
}
