//! Coefficients mode: plain array arithmetic over the listed operations gives the bits of ask and tell.

use super::*;
use crate::Error;
use crate::random::{Purpose, normal};

/// What a caller with tensors of its own does; every tensor `[rows, elements]`.
struct Host {
    seeds: Vec<u64>,
    elements: usize,
    state: Vec<Vec<f32>>,
    registers: Vec<Vec<f32>>,
    /// The numbers measured last, of every row.
    measured: Vec<[f64; 2]>,
}

impl Host {
    fn new(plan: &Plan, seeds: &[u64], elements: usize) -> Host {
        let zeros = || vec![0.0f32; seeds.len() * elements];
        let mut host = Host {
            seeds: seeds.to_vec(),
            elements,
            state: (0..plan.slots()).map(|_| zeros()).collect(),
            registers: (0..Plan::REGISTERS).map(|_| zeros()).collect(),
            measured: Vec::new(),
        };
        let sigma = plan.start().sigma as f32;
        let start = host.read(Source::Noise { purpose: Purpose::Initial, draw: 0 }, &[]);
        host.state[0] = start.iter().map(|v| v * sigma).collect();
        host
    }

    fn read(&self, source: Source, y: &[f32]) -> Vec<f32> {
        match source {
            Source::State(i) => self.state[i].clone(),
            Source::Register(i) => self.registers[i].clone(),
            Source::Output => {
                let row = y.len() / self.seeds.len();
                y.chunks(row).flat_map(|y| &y[..self.elements]).copied().collect()
            }
            Source::Noise { purpose, draw } => {
                let mut out = ndarray::Array2::zeros((self.seeds.len(), self.elements));
                normal(&self.seeds, purpose as u32, draw, out.view_mut()).unwrap();
                out.into_raw_vec_and_offset().0
            }
        }
    }

    fn apply(&mut self, operation: &Operation, y: &[f32]) {
        let n = self.elements;
        match operation {
            Operation::Combine { target, terms, clip, mask } => {
                let mut sum = vec![0.0f32; self.seeds.len() * n];
                for term in terms {
                    for (i, (s, v)) in sum.iter_mut().zip(self.read(term.source, y)).enumerate() {
                        let factor = term.measured.map_or(1.0, |m| self.measured[i / n][m]);
                        *s = v.mul_add((term.coefficient * factor) as f32, *s);
                    }
                }
                if let Some(c) = clip {
                    sum.iter_mut().for_each(|v| *v = v.clamp(-c, *c));
                }
                if let (Some(mask), Target::State(old)) = (mask, target) {
                    for (i, v) in sum.iter_mut().enumerate() {
                        let m = self.state[*mask][i];
                        *v = m.mul_add(*v, (1.0 - m) * self.state[*old][i]);
                    }
                }
                match *target {
                    Target::State(i) => self.state[i] = sum,
                    Target::Register(i) => self.registers[i] = sum,
                }
            }
            Operation::Measure { what, a, b } => {
                let (a, b) = (self.read(*a, y), self.read(*b, y));
                self.measured = a.chunks(n).zip(b.chunks(n)).map(|(a, b)| measure(*what, a, b)).collect();
            }
            Operation::Threshold { state, ratio, most } => {
                for row in self.state[*state].chunks_mut(n) {
                    let mut sizes: Vec<f64> = row.iter().map(|v| f64::from(v.abs())).collect();
                    sizes.sort_by(f64::total_cmp);
                    let place = ratio * (n - 1) as f64;
                    let low = sizes[place as usize];
                    let high = sizes[(place as usize + 1).min(n - 1)];
                    let bound = (low + (place - place.floor()) * (high - low)).max(1.0).min(*most) as f32;
                    row.iter_mut().for_each(|v| *v = v.clamp(-bound, bound) / bound);
                }
            }
            Operation::LearnedNoise { base, slope, noise } => {
                let noise = self.read(*noise, y);
                for (i, x) in self.state[0].iter_mut().enumerate() {
                    let w = f64::from(y[(i / n * 2 + 1) * n + i % n]);
                    *x += (libm::exp(base + slope * w) * f64::from(noise[i])) as f32;
                }
            }
        }
    }
}

fn measure(what: Measure, a: &[f32], b: &[f32]) -> [f64; 2] {
    let n = a.len() as f64;
    let dot = |p: &[f32], q: &[f32]| p.iter().zip(q).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
    let deviation = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / n;
        libm::sqrt(v.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n)
    };
    match what {
        Measure::Rescale { g, phi } => {
            let guided: Vec<f64> =
                a.iter().zip(b).map(|(a, b)| g * f64::from(*a) + (1.0 - g) * f64::from(*b)).collect();
            let cond: Vec<f64> = a.iter().map(|a| f64::from(*a)).collect();
            [1.0 - phi + phi * deviation(&cond) / deviation(&guided), 0.0]
        }
        Measure::Project => [dot(a, b) / (dot(b, b) + 1e-8), 0.0],
        Measure::Langevin { snr } => {
            let q = (2.0 * snr * snr * n / dot(a, a)).min(1.0);
            [q, libm::sqrt(2.0 * q)]
        }
        Measure::Adaptive { g, eta, norm } => {
            let length = libm::sqrt(dot(a, a));
            let k = if norm > 0.0 { (norm / length).min(1.0) } else { 1.0 };
            [(g - 1.0) * k, 1.0 - (g - 1.0) * (1.0 - eta) * k * dot(a, b) / dot(b, b)]
        }
    }
}

/// Elements of a row: more than a chunk of the interpreter.
const ELEMENTS: usize = 1030;

#[test]
fn array_arithmetic_gives_the_bits_of_tell() {
    let seeds = [7, 8];
    let (mut exact, mut near, mut drawn) = (0, 0, 0);
    for plan in super::catalogue().iter().filter(|plan| plan.check_listed().is_ok()) {
        let mut state = vec![0.0; plan.state_len(2, ELEMENTS).unwrap()];
        let mut run = Run::start(plan, &seeds, ELEMENTS, None, &mut state).unwrap();
        let mut host = Host::new(plan, &seeds, ELEMENTS);
        let mut detached = Run::start_detached(plan, &seeds, ELEMENTS).unwrap();
        if plan.options().inpaint {
            let known: Vec<f32> = (0..2 * ELEMENTS).map(|i| (i % 5) as f32 - 2.0).collect();
            let mask: Vec<f32> = (0..2 * ELEMENTS).map(|i| (i % 4) as f32 / 3.0).collect();
            run.set_known(plan, &mut state, &known, &mask).unwrap();
            (host.state[1], host.state[2]) = (known, mask);
        }
        let mut rounded = false;
        let mut apply = |host: &mut Host, id: u64, y: &[f32]| {
            for operation in plan.operations(id).unwrap() {
                if let Operation::Combine { terms, .. } = &operation {
                    drawn += terms.iter().filter(|t| matches!(t.source, Source::Noise { .. })).count();
                } else {
                    // Sums over a row and exp are in another order here.
                    rounded = true;
                }
                host.apply(&operation, y);
            }
        };
        apply(&mut host, 0, &[]);
        let (mut y, mut t) = (vec![0.0; 2 * ELEMENTS * plan.outputs()], [0.0; 2]);
        while let Ask::Eval(request) = run.ask(plan).unwrap() {
            assert_eq!(detached.ask(plan).unwrap(), Ask::Eval(request), "{}", plan.options().solver.name());
            run.row_times(plan, &mut t).unwrap();
            toy(&request, run.input(plan, &state).unwrap(), &t, &mut y).unwrap();
            run.tell(plan, &mut state, request.eval_id, &y).unwrap();
            toy(&request, &host.state[request.slot], &t, &mut y).unwrap();
            apply(&mut host, request.eval_id, &y);
            detached.advance(plan, request.eval_id).unwrap();
        }
        assert_eq!(run, detached, "a detached run differs in nothing");
        let all = host.state.concat();
        if rounded {
            near += 1;
            for (a, b) in state.iter().zip(&all) {
                assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{plan}: {a} {b}");
            }
        } else {
            exact += 1;
            assert!(state.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "{plan}");
        }
    }
    assert!(exact > 100 && near > 20 && drawn > 500, "{exact} {near} {drawn}");
}

/// A detached run and the caller's tensors can go on by ask and tell, and the other way round.
#[test]
fn a_run_changes_between_the_modes() {
    let plan = compile(PlanOptions { solver: Solver::DpmPP2MSde, steps: 6, ..base(Process::Flow) });
    let expected = walk(&plan, &[3], None, 5, toy);
    let mut host = Host::new(&plan, &[3], 5);
    let mut run = Run::start_detached(&plan, &[3], 5).unwrap();
    for _ in 0..3 {
        let Ask::Eval(r) = run.ask(&plan).unwrap() else { panic!("done") };
        let mut y = vec![0.0; 5];
        toy(&r, &host.state[r.slot], &[r.t as f32], &mut y).unwrap();
        for operation in plan.operations(r.eval_id).unwrap() {
            host.apply(&operation, &y);
        }
        run.advance(&plan, r.eval_id).unwrap();
    }
    let mut state = host.state.concat();
    let block = run.export(&plan, &state).unwrap();
    run = Run::import(&plan, &block, &mut state).unwrap();
    drive(&plan, &mut run, &mut state, toy).unwrap();
    assert_eq!(run.result(&plan, &state).unwrap(), expected);
}

#[test]
fn misuse_is_refused() {
    let plan = compile(PlanOptions { steps: 2, ..Default::default() });
    assert!(matches!(plan.operations(3), Err(Error::Range { arg: "eval_id", .. })));
    assert!(matches!(plan.operations(u64::MAX), Err(Error::Range { arg: "eval_id", .. })));
    assert!(matches!(Run::start_detached(&plan, &[], 1), Err(Error::Range { arg: "rows", .. })));
    assert!(matches!(Run::start_detached(&plan, &[1], 0), Err(Error::Range { arg: "elements", .. })));
    let mut run = Run::start_detached(&plan, &[1], 1).unwrap();
    let before = run.clone();
    assert!(matches!(run.advance(&plan, 2), Err(Error::State(_))));
    assert!(matches!(run.advance(&plan, 0), Err(Error::State(_))));
    assert_eq!(run, before);
    run.advance(&plan, 1).unwrap();
    assert!(matches!(run.advance(&plan, 1), Err(Error::State(_))));
    run.advance(&plan, 2).unwrap();
    assert!(run.is_done(&plan) && matches!(run.advance(&plan, 3), Err(Error::State(_))));
    let adaptive = compile(PlanOptions { solver: Solver::Bosh3, ..Default::default() });
    assert!(matches!(adaptive.operations(0), Err(Error::Argument { arg: "solver", .. })));
    assert!(matches!(Run::start_detached(&adaptive, &[1], 1), Err(Error::Argument { arg: "solver", .. })));
}
