//! Samplers as tables, runs as values.
//!
//! A [`Plan`] is compiled from a process, a prediction, a grid, a solver and guidance
//! ([`PlanOptions`]). A [`Run`] asks for model evaluations ([`Run::ask`]) and is told their
//! outputs ([`Run::tell`]); the caller owns the model, the memory and the loop. [`sample`] and
//! [`drive`] are that loop with a callback.
//!
//! | file | idea |
//! |---|---|
//! | `options`, `choices`, `fields`, `validate` | what a plan is made of, by name, and whether it has a meaning |
//! | `process`, `betas` | noise levels |
//! | `grid`, `spacing`, `gits` | where the steps lie |
//! | `prediction` | what an output means |
//! | `table`, `builder` | instructions, and what solvers write them with: guidance, clipping, masks |
//! | `brownian` | one path of noise for any number of steps |
//! | `restart` | walks that go back |
//! | `solvers/` | one file a family |
//! | `plan`, `run`, `start`, `tell`, `codec`, `memo` | compiled table, changing part, how it begins and goes on, both as bytes |
//! | `rows` | rows at times of their own |
//! | `density` | log densities along an ode |
//! | `chain`, `diagnostics` | tests of Markov chains, and how well these have mixed |
//! | `exchange` | chains at neighbouring temperatures |
//! | `operations` | the table as data, for tensors on other devices |
//! | `exec`, `lanes`, `measure`, `adaptive`, `walk`, `dense` | the interpreter, its arithmetic, numbers of whole rows, step-size control, where steps lie and must end, x between steps |
//! | `catalogue`, `presets` | the page that lists all methods, options by model |
//! | `driver`, `blocks`, `combine` | the callback loop, the same a block of rows at a time, guidance for loops without a plan |
//!
//! All coefficients are f64 and rounded once to f32; a linear combination is one FMA chain in
//! table order; random numbers of a row depend on its seed, purpose, step and element alone.

mod adaptive;
mod betainc;
mod betas;
mod blocks;
mod brownian;
mod builder;
mod catalogue;
mod chain;
mod choices;
mod codec;
mod combine;
mod dense;
mod density;
mod diagnostics;
mod driver;
mod exchange;
mod exec;
mod fields;
mod gits;
mod grid;
mod lanes;
mod measure;
mod memo;
mod operations;
mod options;
mod pass;
mod plan;
mod prediction;
mod presets;
mod process;
mod restart;
mod rows;
mod run;
mod solvers;
mod spacing;
mod start;
mod table;
mod tell;
#[cfg(test)]
mod tests;
mod validate;
mod walk;
mod way;

pub use blocks::{RowModel, drive_rows};
pub use catalogue::catalogue;
pub use combine::cfg_combine;
pub use density::{bits_per_dimension, normal_log_density};
pub use diagnostics::{effective_sample_size, split_r_hat};
pub use driver::{drive, drive_with, sample};
pub(crate) use exchange::check_inverse_temperatures;
pub use exchange::replica_exchange;
pub use fields::Value as OptionValue;
pub use operations::{Operation, OperationTerm, Source, Target};
pub use options::{
    Compat, FinalSigma, Guidance, Likelihood, MAX_STEPS, NoiseKind, NonFinite, PlanOptions, Prediction,
    Process, ShiftType, Solver, Spacing, Variance,
};
pub use plan::Plan;
pub(crate) use prediction::weights;
pub use process::Node;
pub use run::{Ask, Counters, Request, Run};
pub use spacing::dynamic_shift;
pub use table::{Measure, Role};
