//! The diffusion transformer.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dgm_core::models::{self, Dit};
use dgm_core::{Error, Result as EngineResult};
use jlrs::data::managed::array::TypedArrayRet;
use jlrs::data::managed::string::{JuliaString, StringRet};
use jlrs::data::managed::value::typed::{TypedValue, TypedValueRet};
use jlrs::prelude::*;
use jlrs::weak_handle_unchecked;
use ndarray::Ix4;

use crate::array::{Input, JlArray, Output, filled};
use crate::failure::{Failure, Reply, engine, fence, string};
use crate::plan::JlPlan;

/// A network and the workspaces of finished calls: as many as ever ran at once.
#[derive(OpaqueType)]
pub struct DiT {
    net: Dit,
    spare: Mutex<Vec<Vec<f32>>>,
}

/// A network that Julia owns.
pub type JlModel<'s> = TypedValue<'s, 'static, DiT>;

impl DiT {
    pub fn load(path: JuliaString) -> Reply<TypedValueRet<DiT>> {
        fence(|| {
            let path = path.as_str()?.to_string();
            let net = engine(|| Dit::load(Path::new(&path)))?;
            // SAFETY: only Julia calls exported functions; the model is returned to it at once.
            let handle = unsafe { weak_handle_unchecked!() };
            Ok(TypedValue::new(&handle, DiT { net, spare: Mutex::default() }).leak())
        })
    }

    pub fn metadata(&self, key: JuliaString) -> Reply<StringRet> {
        fence(|| {
            let (key, entries) = (key.as_str()?, self.net.metadata());
            entries.get(key).map(|text| string(text)).ok_or_else(|| {
                let known: Vec<_> = entries.keys().map(String::as_str).collect();
                Failure::argument(format!("key is {key:?}, expected one of {}", known.join(", ")))
            })
        })
    }

    /// The network itself.
    pub fn net(&self) -> &Dit {
        &self.net
    }

    /// Calls `f` with a workspace for `batch` images.
    fn with_workspace(
        &self,
        batch: usize,
        f: impl FnOnce(&mut [f32]) -> EngineResult<()>,
    ) -> EngineResult<()> {
        let needed = self.net.workspace_len(batch)?;
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = spare().pop().unwrap_or_default();
        if workspace.len() < needed {
            workspace
                .try_reserve_exact(needed - workspace.len())
                .map_err(|_| Error::Overflow { arg: "x", got: format!("a batch of {batch}") })?;
            workspace.resize(needed, 0.0);
        }
        let result = f(&mut workspace);
        spare().push(workspace);
        result
    }
}

pub fn forward(out: JlArray, model: JlModel, x: JlArray, t: JlArray, labels: JlArray) -> Reply<Nothing> {
    fence(|| {
        let x = Input::<f32>::new("x", x, Some(4), "(W, H, C, B)")?;
        let t = Input::<f32>::vector("t", t)?;
        let labels = Input::<i64>::vector("labels", labels)?;
        let mut out = Output::<f32>::new("out", out, Some(4), "(W, H, Cout, B)")?;
        // SAFETY: a DiT is never changed but for its workspaces, which a lock guards.
        let model = unsafe { model.track_shared() }?;
        let (x, out) = (x.view::<Ix4>()?, out.view::<Ix4>()?);
        engine(|| {
            model.with_workspace(x.dim().0, |scratch| {
                model.net.forward(x, t.slice(), labels.slice(), scratch, out)
            })
        })?;
        Ok(Nothing)
    })
}

pub fn generate(seeds: JlArray, model: JlModel, plan: JlPlan, labels: JlArray) -> Reply<TypedArrayRet<f32>> {
    fence(|| {
        let seeds = Input::<u64>::vector("seeds", seeds)?;
        let labels = Input::<i64>::vector("labels", labels)?;
        // SAFETY: a DiT is never changed but for its workspaces, which a lock guards.
        let model = unsafe { model.track_shared() }?;
        // SAFETY: a Plan is never changed.
        let plan = unsafe { plan.track_shared() }?;
        let c = model.net.config();
        let size = [c.width, c.height, c.channels, labels.slice().len()];
        filled::<f32>(&size, |images| {
            let mut images = Output::<f32>::new("out", images, Some(4), "")?;
            let images = images.view::<Ix4>()?;
            engine(|| models::generate(&model.net, &plan.0, seeds.slice(), labels.slice(), images))
        })
    })
}
