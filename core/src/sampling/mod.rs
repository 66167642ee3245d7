//! Samplers as tables, runs as values.
//!
//! A [`Plan`] is compiled from a process, a prediction, a grid, a solver and guidance
//! ([`PlanOptions`]). A [`Run`] asks for model evaluations ([`Run::ask`]) and is told their
//! outputs ([`Run::tell`]); the caller owns the model, the memory and the loop. [`sample`] and
//! [`drive`] are that loop with a callback.
//!
//! | file | idea |
//! |---|---|
//! | `options` | what a plan is made of |
//! | `process`, `grid`, `prediction` | noise levels, where the steps lie, what an output means |
//! | `table` | instructions, and the builder solvers write them with |
//! | `solvers/` | one file a family |
//! | `plan`, `run`, `codec` | compiled table, changing part, both as bytes |
//! | `exec`, `adaptive` | the interpreter, step-size control |
//! | `driver` | the callback loop |
//!
//! All coefficients are f64 and rounded once to f32; a linear combination is one FMA chain in
//! table order; random numbers of a row depend on its seed, purpose, step and element alone.

mod adaptive;
mod codec;
mod driver;
mod exec;
mod grid;
mod options;
mod plan;
mod prediction;
mod process;
mod run;
mod solvers;
mod table;
#[cfg(test)]
mod tests;

pub use driver::{drive, sample};
pub use options::{MAX_STEPS, PlanOptions, Prediction, Process, Solver, Spacing};
pub use plan::Plan;
pub use process::Node;
pub use run::{Ask, Counters, Request, Run};
pub use table::Role;
