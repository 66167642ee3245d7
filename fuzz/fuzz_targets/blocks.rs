//! Serialised plans and exported runs from arbitrary bytes, with and without a right checksum: an
//! error, or a plan and a run that work.
#![no_main]

use dgm_core::sampling::{Plan, PlanOptions, Run, Solver};
use dgm_fuzz::{Bytes, plans};

/// Floats of state up to which a run is carried on.
const MOST: usize = 1 << 14;

/// The bytes with their CRC-32 behind them, as both formats have it.
fn sealed(body: &[u8]) -> Vec<u8> {
    let crc = u64::from(crc32fast::hash(body));
    [body, &crc.to_le_bytes()].concat()
}

fn plan_block(b: &mut Bytes, bytes: &[u8]) {
    let Ok(plan) = Plan::from_bytes(bytes) else { return };
    // Equal but for what says the same twice, such as a negative zero.
    let again = Plan::from_bytes(&plan.to_bytes()).expect("what was written");
    assert_eq!(again.to_bytes(), plan.to_bytes());
    assert_eq!(again.hash(), plan.hash());
    assert!(!plan.describe().is_empty());
    start(b, &plan);
}

/// Starts a run under the plan, carries it on and checks its checkpoint.
fn start(b: &mut Bytes, plan: &Plan) {
    let (rows, elements) = (1 + b.below(3), 1 + b.below(40));
    let seeds: Vec<u64> = (0..rows as u64).collect();
    let mut state = vec![0.0; plan.state_len(rows, elements).expect("a small state")];
    let mut run = Run::start(plan, &seeds, elements, None, &mut state).expect("a run of a plan");
    let most = b.below(40);
    plans::carry(b, plan, &mut run, &mut state, most);
    plans::round_trip(plan, &run, &state);
}

/// Imports a block under the plan and carries the run on.
fn run_block(b: &mut Bytes, plan: &Plan, block: &[u8]) {
    let decoded = Run::decode(plan, block);
    let Ok((rows, elements)) = Run::peek(block) else { return };
    if let Ok(run) = decoded {
        assert_eq!((rows, elements), (run.rows(), run.elements()));
    }
    let Ok(len) = plan.state_len(rows, elements) else { return };
    if len > MOST {
        assert!(Run::import(plan, block, &mut []).is_err());
        return;
    }
    let mut state = vec![7.0; len];
    match Run::import(plan, block, &mut state) {
        Err(_) => assert!(state.iter().all(|&x| x == 7.0), "a state changed by an error"),
        Ok(mut run) => {
            assert_eq!(plans::round_trip(plan, &run, &state), block, "a block has one form");
            plans::carry(b, plan, &mut run, &mut state, 40);
            plans::round_trip(plan, &run, &state);
        }
    }
}

/// A plan that the block may belong to.
fn fixed(n: usize) -> Plan {
    let options = PlanOptions { solver: Solver::ALL[n % Solver::ALL.len()], steps: 4, ..Default::default() };
    let ddpm = PlanOptions { process: dgm_core::sampling::Process::VpLinear, ..options.clone() };
    Plan::compile(&options).or_else(|_| Plan::compile(&ddpm)).expect("a plan")
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    // The first bytes of a block also steer what is done with what they give.
    let mut b = Bytes(rest);
    let plan = fixed(usize::from(kind / 8));
    match kind % 8 {
        0 => plan_block(&mut b, rest),
        1 | 2 => plan_block(&mut b, &sealed(rest)),
        3 => {
            let options = plans::options(&mut b);
            if let Ok(plan) = Plan::compile(&options) {
                assert_eq!(Plan::from_bytes(&plan.to_bytes()).expect("what was written").hash(), plan.hash());
                start(&mut b, &plan);
            }
        }
        4 => run_block(&mut b, &plan, rest),
        // A header and a state with right checksums, of this plan.
        5 | 6 => {
            let mut body = rest.to_vec();
            if let Some(hash) = body.get_mut(8..16) {
                hash.copy_from_slice(&plan.hash().to_le_bytes());
            }
            // The rows stand in bytes 16 to 23; small ones, or the header would be all there is.
            let rows = body.get(16).copied().unwrap_or(0).into();
            let header = Run::header_len(&plan, rows).map_or(0, |n| n - 8).min(body.len());
            let block = [sealed(&body[..header]), sealed(&body[header..])].concat();
            run_block(&mut b, &plan, &block);
        }
        // A good export with a few bytes changed.
        _ => {
            let (rows, elements) = (1 + b.below(3), 1 + b.below(20));
            let mut state = vec![0.0; plan.state_len(rows, elements).expect("a small state")];
            let seeds: Vec<u64> = (0..rows).map(|_| b.u64()).collect();
            let mut run = Run::start(&plan, &seeds, elements, None, &mut state).expect("a run");
            let most = b.below(20);
            plans::carry(&mut b, &plan, &mut run, &mut state, most);
            let mut block = plans::round_trip(&plan, &run, &state);
            let header = Run::header_len(&plan, rows).expect("a small run");
            for _ in 0..1 + b.below(3) {
                let at = b.u32() as usize % block.len();
                block[at] = b.u8();
            }
            if b.rarely(2) {
                let (head, body) = block.split_at(header);
                block = [sealed(&head[..header - 8]), sealed(&body[..body.len() - 8])].concat();
            }
            if b.rarely(8) {
                block.truncate(b.u32() as usize % block.len());
            }
            run_block(&mut b, &plan, &block);
        }
    }
});
