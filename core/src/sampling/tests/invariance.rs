//! Same bits for any batch, order of rows, number of threads and instruction set.

use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::threads::set_num_threads;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_is_the_same_in_any_batch() {
    let n = 37;
    for plan in catalogue() {
        let all = bits(&walk(&plan, &[3, 1, 4, 15], None, n, toy));
        let permuted = bits(&walk(&plan, &[15, 3, 4], None, n, toy));
        assert_eq!(all[3 * n..], permuted[..n], "{plan}");
        assert_eq!(all[..n], permuted[n..2 * n], "{plan}");
        assert_eq!(all[2 * n..3 * n], permuted[2 * n..], "{plan}");
        assert_eq!(all[n..2 * n], bits(&walk(&plan, &[1], None, n, toy)), "{plan}");
    }
}

/// Lengths around vectors, chunks and tasks; enough elements that the work is shared out.
#[test]
fn threads_and_instruction_sets_change_nothing() {
    let before = level();
    for plan in catalogue().into_iter().step_by(7) {
        for (rows, n) in [(3, 1021), (2, 20_001), (5, 1)] {
            let seeds: Vec<u64> = (0..rows).collect();
            set_level(before).unwrap();
            let expected = bits(&walk(&plan, &seeds, None, n, toy));
            for level in available_levels() {
                set_level(level).unwrap();
                for threads in [1, 2, 3, 7] {
                    set_num_threads(threads).unwrap();
                    assert_eq!(
                        bits(&walk(&plan, &seeds, None, n, toy)),
                        expected,
                        "{level:?} {threads} {plan}"
                    );
                }
            }
        }
    }
    set_level(before).unwrap();
    // More work than one thread keeps for itself.
    let plan = compile(PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver: Solver::Ddpm,
        steps: 2,
        ..Default::default()
    });
    set_num_threads(1).unwrap();
    let expected = bits(&walk(&plan, &[1, 2, 3], None, 70_003, toy));
    for threads in [2, 3, 7] {
        set_num_threads(threads).unwrap();
        assert_eq!(bits(&walk(&plan, &[1, 2, 3], None, 70_003, toy)), expected, "{threads}");
    }
}

/// Each linear combination is the scalar FMA chain it is documented to be.
#[test]
fn a_step_is_the_documented_chain() {
    let plan = compile(PlanOptions { steps: 3, shift: 2.0, ..Default::default() });
    let start: Vec<f32> = (0..45).map(|i| (i as f32 - 20.0) / 7.0).collect();
    let mut expected = start.clone();
    for pair in plan.grid().windows(2) {
        let h = (pair[1].t - pair[0].t) as f32;
        expected.iter_mut().for_each(|x| *x = (x.abs() - 0.3f32).mul_add(h, *x));
    }
    let x = walk(&plan, &[0], Some(&start), 45, |_, x, _, y| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x.abs() - 0.3);
        Ok(())
    });
    assert_eq!(bits(&x), bits(&expected));
}
