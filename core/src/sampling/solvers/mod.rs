//! The methods, one file a family. A solver turns a grid into table rows; what the output
//! means, guidance and clipping are the builder's business.

pub(super) mod adaptive;
mod ancestral;
mod chains;
mod common;
mod consistency;
mod ddim;
mod ddpm;
pub(super) mod dpm_adaptive;
mod dpmpp;
mod er_sde;
mod exponential;
mod ito;
mod langevin;
mod multistep;
pub(super) mod pairs;
mod runge_kutta;
mod sa;
mod singlestep;
mod unipc;
mod unipc_any;
mod weights;

use super::builder::Builder;
use super::options::{Compat, Process, Solver};
use super::process::Node;
use crate::error::Result;
use exponential::{Method, Rule as Integral};
use multistep::Rule as Slopes;
use singlestep::Form;

pub(super) fn build(solver: Solver, b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (order, eta) = (b.order(), b.options().sde_eta);
    let theirs = b.options().compat == Compat::Diffusers;
    let rule = if theirs { Integral::Halved } else { Integral::Midpoint };
    let midpoint = |eta| Method { rule, order, eta };
    let fixed = |rule, order, eta| Method { rule, order, eta };
    match solver {
        Solver::Euler => runge_kutta::build(b, grid, &runge_kutta::EULER),
        Solver::Midpoint => runge_kutta::build(b, grid, &runge_kutta::MIDPOINT),
        Solver::Heun => runge_kutta::build(b, grid, &runge_kutta::HEUN),
        Solver::Rk4 => runge_kutta::build(b, grid, &runge_kutta::RK4),
        Solver::Dpm2 => runge_kutta::build(b, grid, &runge_kutta::DPM2),
        Solver::Ddpm => ddpm::build(b, grid),
        Solver::Ddim => ddim::build(b, grid),
        Solver::DdimInverse => ddim::inverse(b, grid),
        Solver::DpmPP2M => dpmpp::build(b, grid),
        Solver::UniPC if order == 2 => unipc::build(b, grid),
        Solver::UniPC => unipc_any::build(b, grid, false),
        Solver::UniPCBh1 => unipc_any::build(b, grid, true),
        Solver::Bosh3 => adaptive::build(b, grid, &pairs::BOSH3),
        Solver::Dopri5 => adaptive::build(b, grid, &pairs::DOPRI5),
        Solver::Tsit5 => adaptive::build(b, grid, &pairs::TSIT5),
        Solver::Dpm12 => dpm_adaptive::build(b, grid, 2),
        Solver::Dpm23 => dpm_adaptive::build(b, grid, 3),
        Solver::EulerMaruyama => ito::euler_maruyama(b, grid),
        Solver::Milstein => ito::milstein(b, grid),
        Solver::StochasticHeun => ito::heun(b, grid),
        Solver::Sra1 => ito::sra1(b, grid),
        Solver::Sriw1 => ito::sriw1(b, grid),
        Solver::Ula => chains::ula(b, grid),
        Solver::Mala => chains::hmc(b, grid, 1),
        Solver::Hmc => chains::hmc(b, grid, b.options().leapfrog),
        Solver::AnnealedLangevin => chains::annealed(b, grid),
        Solver::Rk5 => runge_kutta::build(b, grid, &runge_kutta::RK5),
        Solver::Lms => multistep::build(b, grid, Slopes::Grid),
        Solver::Ipndm => multistep::build(b, grid, Slopes::Even),
        Solver::GradientEstimation => multistep::build(b, grid, Slopes::Extrapolated),
        Solver::Plms => multistep::plms(b, grid),
        Solver::Pndm => multistep::pndm(b, grid),
        Solver::EulerAncestral => ancestral::euler(b, grid),
        Solver::EulerAncestralRf => ancestral::euler_rf(b, grid),
        Solver::Dpm2Ancestral => ancestral::dpm2(b, grid),
        Solver::DpmPP2SAncestral => ancestral::dpmpp_2s(b, grid),
        Solver::DpmPPSde => ancestral::dpmpp_sde(b, grid),
        Solver::Dpm => exponential::in_noise(b, grid, midpoint(0.0)),
        Solver::DpmPP | Solver::DpmPPInverse => exponential::in_data(b, grid, midpoint(0.0)),
        Solver::PredictorCorrector => langevin::build(b, grid),
        Solver::DpmSde => exponential::in_noise(b, grid, midpoint(eta)),
        Solver::Deis => exponential::in_noise(b, grid, fixed(Integral::Exact, order, 0.0)),
        Solver::ResMultistep => exponential::in_data(b, grid, fixed(Integral::Exact, 2, 0.0)),
        Solver::DpmPP2MSde => exponential::in_data(b, grid, fixed(Integral::Midpoint, 2, eta)),
        Solver::DpmPP2MSdeHeun => exponential::in_data(b, grid, fixed(Integral::Exact, 2, eta)),
        Solver::DpmPP3MSde => exponential::in_data(b, grid, fixed(Integral::Exact, 3, eta)),
        Solver::DpmSingle => singlestep::build(b, grid, Form::Noise),
        Solver::DpmPPSingle => singlestep::build(b, grid, Form::Data),
        Solver::Res2S => singlestep::res_2s(b, grid),
        Solver::Seeds2 => singlestep::seeds(b, grid, &[0.5]),
        Solver::Seeds3 => singlestep::seeds(b, grid, &[1.0 / 3.0, 2.0 / 3.0]),
        Solver::SaSolver => sa::build(b, grid),
        Solver::ErSde => er_sde::build(b, grid),
        Solver::Consistency => {
            let known = matches!(b.options().process, Process::Ve | Process::Edm);
            let least = if known { b.levels.level_range().0 } else { 0.0 };
            consistency::jump(b, grid, least)
        }
        Solver::Scm => consistency::jump(b, grid, 0.0),
        Solver::Lcm => consistency::lcm(b, grid),
        Solver::Tcd => consistency::tcd(b, grid),
        Solver::FlowMap => consistency::flow_map(b, grid),
    }
}
