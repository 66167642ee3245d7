//! The interpreter again, in f64 and with obvious loops: for convergence orders below the rounding of
//! f32, and to hold the real one against.

use super::*;
use crate::sampling::table::{At, Operand, Row, Scale};

/// A whole walk from `start` under a plan without random numbers; `model(node, role, x)` for one number.
pub(super) fn walk64(plan: &Plan, start: &[f64], model: impl Fn(&Node, Role, f64) -> f64) -> Vec<f64> {
    let n = start.len();
    let mut slots = vec![vec![0.0; n]; plan.slots()];
    slots[0].copy_from_slice(start);
    let (mut registers, mut y) = (vec![vec![0.0; n]; 3], vec![0.0; n]);
    for row in &plan.table().rows {
        match row {
            Row::Eval(eval) => {
                let At::Node(node) = eval.at else { panic!("an adaptive plan") };
                y = slots[usize::from(eval.slot)].iter().map(|&x| model(&node, eval.role, x)).collect();
            }
            Row::Lin(lin) => {
                let mut sum = vec![0.0; n];
                for term in plan.table().terms(lin) {
                    assert!(term.scale == Scale::One);
                    let source = match term.operand {
                        Operand::Slot(i) => &slots[usize::from(i)],
                        Operand::Reg(i) => &registers[usize::from(i)],
                        Operand::Model => &y,
                        Operand::Earlier(_) | Operand::Second => unreachable!("one output"),
                        Operand::Noise | Operand::Draw(_) => continue,
                    };
                    sum.iter_mut().zip(source).for_each(|(s, v)| *s += term.coefficient * v);
                }
                let bound = f64::from(lin.clamp);
                sum.iter_mut().for_each(|v| *v = v.clamp(-bound, bound));
                match lin.dst {
                    Operand::Slot(i) => slots[usize::from(i)] = sum,
                    Operand::Reg(i) => registers[usize::from(i)] = sum,
                    other => panic!("{other:?} is written"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
    slots.swap_remove(0)
}

impl Gaussian {
    /// This model for [`walk64`].
    pub(super) fn model64(self, plan: &Plan) -> impl Fn(&Node, Role, f64) -> f64 {
        let prediction = plan.options().prediction;
        move |node, _, x| self.predict(prediction, node, x / input_scale(prediction, node))
    }
}

/// The engine is its oracle up to rounding, for every plan without random numbers.
#[test]
fn the_engine_agrees_with_the_oracle() {
    let start = [-1.5, -0.4, 0.1, 0.9, 1.7];
    let mut checked = 0;
    for &solver in Solver::ALL {
        for process in [Process::Flow, Process::VpLinear, Process::VpCosine, Process::Edm, Process::TrigFlow]
        {
            // Langevin steps are as long as the data says.
            let by_data = solver.is_adaptive() || solver == Solver::PredictorCorrector;
            if !fits(solver, process) || by_data || solver.is_inverse() {
                continue;
            }
            let sigmas = match process {
                Process::Flow => vec![0.9, 0.7, 0.4, 0.2, 0.1, 0.0],
                Process::TrigFlow => vec![1.3, 1.0, 0.7, 0.4, 0.2, 0.0],
                _ => vec![4.0, 2.0, 1.0, 0.5, 0.2, 0.0],
            };
            for clip in [None, Some(0.9)] {
                let guidance = if clip.is_none() { 1.0 } else { 1.7 };
                let o = base(process);
                let plan = compile(PlanOptions {
                    solver,
                    sigmas: Some(sigmas.clone()),
                    clip,
                    guidance,
                    s_noise: 0.0,
                    ..o.clone()
                });
                let single: Vec<f32> = start.iter().map(|x| *x as f32).collect();
                let x = walk(&plan, &[0], Some(&single), start.len(), GAUSSIAN.model(&plan));
                let wide: Vec<f64> = single.iter().map(|x| f64::from(*x)).collect();
                let exact = walk64(&plan, &wide, GAUSSIAN.model64(&plan));
                for (a, b) in x.iter().zip(&exact) {
                    let size = b.abs().max(1.0);
                    assert!(
                        (f64::from(*a) - b).abs() < 2e-5 * size,
                        "{} {}: {a} {b}",
                        process.name(),
                        solver.name()
                    );
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 200);
}
