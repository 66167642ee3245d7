//! Exported runs continue with the same bits; damaged or foreign blocks are refused.

use super::*;
use crate::Error;

/// Stops at every ask, moves the run through its bytes into fresh memory, and goes on.
#[test]
fn every_plan_survives_export_at_every_ask() {
    let (seeds, n) = ([9, 8, 7], 21);
    for plan in catalogue() {
        let expected = walk(&plan, &seeds, None, n, toy);
        let mut state = vec![0.0; plan.state_len(3, n).unwrap()];
        let mut run = Run::start(&plan, &seeds, n, None, &mut state).unwrap();
        let (mut t, mut y) = (vec![0.0; 3], vec![0.0; 3 * n * plan.outputs()]);
        loop {
            let block = run.export(&plan, &state).unwrap();
            let again = Plan::from_bytes(&plan.to_bytes()).unwrap();
            assert_eq!(Run::peek(&block).unwrap(), (3, n));
            let mut fresh = vec![f32::NAN; state.len()];
            let imported = Run::import(&again, &block, &mut fresh).unwrap();
            assert_eq!(imported, run);
            (run, state) = (imported, fresh);
            let Ask::Eval(r) = run.ask(&plan).unwrap() else { break };
            run.row_times(&plan, &mut t).unwrap();
            toy(&r, run.input(&plan, &state).unwrap(), &t, &mut y).unwrap();
            run.tell_with(&plan, &mut state, r.eval_id, &y, &vec![-0.5; r.rows * plan.numbers()]).unwrap();
        }
        assert_eq!(run.result(&plan, &state).unwrap(), expected, "{plan}");
    }
}

fn exported(solver: Solver) -> (Plan, Vec<u8>, Vec<f32>) {
    let plan = compile(PlanOptions { solver, steps: 3, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(2, 5).unwrap()];
    let run = Run::start(&plan, &[1, 2], 5, None, &mut state).unwrap();
    let block = run.export(&plan, &state).unwrap();
    assert_eq!(block.len(), run.export_len(&plan).unwrap());
    (plan, block, state)
}

#[test]
fn damage_is_found() {
    for solver in [Solver::Euler, Solver::Bosh3] {
        let (plan, block, state) = exported(solver);
        let mut target = vec![7.0; state.len()];
        for len in 0..block.len() {
            assert!(Run::import(&plan, &block[..len], &mut target).is_err(), "cut to {len}");
        }
        for i in 0..block.len() {
            for bit in [0, 5, 7] {
                let mut damaged = block.clone();
                damaged[i] ^= 1 << bit;
                assert!(Run::import(&plan, &damaged, &mut target).is_err(), "byte {i} bit {bit}");
            }
        }
        let mut long = block.clone();
        long.push(0);
        assert!(matches!(Run::import(&plan, &long, &mut target), Err(Error::Format { .. })));
        let short = state.len() - 1;
        assert!(matches!(Run::import(&plan, &block, &mut target[..short]), Err(Error::Shape { .. })));
        assert!(target.iter().all(|v| *v == 7.0), "untouched on error");
        Run::import(&plan, &block, &mut target).unwrap();
        assert_eq!(target, state);
    }
}

#[test]
fn a_foreign_plan_is_refused() {
    let (_, block, mut state) = exported(Solver::Euler);
    let other = compile(PlanOptions { steps: 3, guidance: 1.5, ..Default::default() });
    let error = Run::import(&other, &block, &mut state).unwrap_err();
    assert!(matches!(&error, Error::State(m) if m.contains("belongs to plan")), "{error}");
}

/// Sealed again after the change, so that only the content is wrong.
#[test]
fn consistent_nonsense_is_refused() {
    let (plan, block, _) = exported(Solver::Bosh3);
    let len = Run::header_len(&plan, 2).unwrap();
    let patched = |at: usize, value: u64| {
        let mut header = block[..len].to_vec();
        header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let crc = u64::from(crc32fast::hash(&header[..len - 8]));
        header[len - 8..].copy_from_slice(&crc.to_le_bytes());
        Run::decode(&plan, &header)
    };
    assert!(patched(56, 3).is_ok(), "a counter may have any value that can still grow");
    for (at, value) in [
        (40, u64::MAX),                 // evaluations
        (64, (1 << 62) + 1),            // rejects
        (16, 0),                        // rows
        (16, u64::MAX),                 //
        (24, 0),                        // elements
        (24, u64::MAX),                 //
        (32, 1),                        // a position that is no evaluation
        (32, u64::MAX),                 //
        (88, 2.0f64.to_bits()),         // t past the start
        (88, f64::NAN.to_bits()),       //
        (96, (-1.0f64).to_bits()),      // h
        (104, f64::INFINITY.to_bits()), // error
        (104, (-0.5f64).to_bits()),     // which would make the next step NaN
        (104, 1.5f64.to_bits()),        // of a step that was never accepted
        (112, 4),                       // flags
    ] {
        assert!(
            matches!(patched(at, value), Err(Error::Format { .. } | Error::Overflow { .. })),
            "{at} {value}"
        );
    }
}

/// Whoever makes room for an import asks for the sizes first: they never exceed the block.
#[test]
fn sizes_that_the_block_cannot_hold_are_refused() {
    let (_, block, _) = exported(Solver::Heun);
    assert_eq!(Run::peek(&block).unwrap(), (2, 5));
    for (at, value) in [(16, 1 << 20), (16, u64::MAX), (24, 1 << 33), (24, 1 << 61), (24, u64::MAX)] {
        let mut damaged = block.clone();
        damaged[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        assert!(matches!(Run::peek(&damaged), Err(Error::Format { .. })), "{at} {value}");
    }
}

#[test]
fn headers_are_small_and_plans_round_trip() {
    for plan in catalogue() {
        assert!(Run::header_len(&plan, 0).unwrap() <= 4096);
        assert!(Run::header_len(&plan, 1000).unwrap() <= 4096 + 1000 * 128);
        assert!(Run::header_len(&plan, usize::MAX).is_err());
        let again = Plan::from_bytes(&plan.to_bytes()).unwrap();
        assert_eq!((again.hash(), again.options()), (plan.hash(), plan.options()));
    }
    let plan = compile(PlanOptions { times: Some(vec![0.9, 0.5, 0.1]), ..Default::default() });
    let bytes = plan.to_bytes();
    assert_eq!(Plan::from_bytes(&bytes).unwrap().options(), plan.options());
    for len in 0..bytes.len() {
        assert!(matches!(Plan::from_bytes(&bytes[..len]), Err(Error::Format { .. })));
    }
    let mut state = vec![0.0; plan.state_len(1, 2).unwrap()];
    let run = Run::start(&plan, &[1], 2, None, &mut state).unwrap();
    assert!(matches!(run.encode(&plan, &mut [0; 10]), Err(Error::Shape { .. })));
    let mut buffer = [0xff; 200];
    let len = run.encode(&plan, &mut buffer).unwrap();
    assert_eq!(len, Run::header_len(&plan, 1).unwrap());
    assert_eq!(Run::decode(&plan, &buffer).unwrap(), run, "bytes after the header do not matter");
}
