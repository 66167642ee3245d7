//! The methods, one file a family. A solver turns a grid into table rows; what the output
//! means, guidance and clipping are the builder's business.

mod adaptive;
mod ddim;
mod ddpm;
mod dpmpp;
mod runge_kutta;
mod unipc;

use super::options::Solver;
use super::process::Node;
use super::table::Builder;
use crate::error::Result;

pub(super) fn build(solver: Solver, b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    match solver {
        Solver::Euler => runge_kutta::build(b, grid, &runge_kutta::EULER),
        Solver::Midpoint => runge_kutta::build(b, grid, &runge_kutta::MIDPOINT),
        Solver::Heun => runge_kutta::build(b, grid, &runge_kutta::HEUN),
        Solver::Rk4 => runge_kutta::build(b, grid, &runge_kutta::RK4),
        Solver::Ddpm => ddpm::build(b, grid),
        Solver::Ddim => ddim::build(b, grid),
        Solver::DpmPP2M => dpmpp::build(b, grid),
        Solver::UniPC => unipc::build(b, grid),
        Solver::Bosh3 => adaptive::build(b, grid),
    }
}
