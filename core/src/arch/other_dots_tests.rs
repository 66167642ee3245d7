//! Tests of bfloat16 once more, in a process where its pairs are multiplied as this processor would not.

use std::process::Command;
use std::sync::OnceLock;

use super::level::{Level, available_levels, dots_at};

const VARIABLE: &str = "DGM_TEST_SLOW_DOTS";

/// Whether products of pairs are to be taken for slow, where a test chose.
pub(super) fn chosen() -> Option<bool> {
    static CHOSEN: OnceLock<Option<bool>> = OnceLock::new();
    *CHOSEN.get_or_init(|| Some(std::env::var(VARIABLE).ok()? == "1"))
}

#[test]
fn pairs_have_the_same_bits_however_they_are_multiplied() {
    if chosen().is_some() || !available_levels().contains(&Level::Avx512) {
        return;
    }
    let slow = if dots_at(Level::Avx512) { "1" } else { "0" };
    let child = Command::new(std::env::current_exe().unwrap())
        .env(VARIABLE, slow)
        .args(["dot_tests", "linalg::storage_tests", "attention::storage_tests", "callers_know"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && !said.contains(" 0 passed"), "{VARIABLE}={slow}: {said}");
}
