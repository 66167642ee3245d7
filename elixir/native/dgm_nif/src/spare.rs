//! Workspaces that a network keeps for its next call.

use std::sync::{Mutex, PoisonError};

use dgm_core::{Error, Result};

/// Workspaces of finished calls: as many as ever ran at once, freed with their network.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<f32>>>);

impl Spare {
    /// Calls `f` with a workspace of `needed` floats, or more; `arg` is what asks for so many.
    pub fn with<R>(
        &self,
        needed: usize,
        arg: &'static str,
        f: impl FnOnce(&mut [f32]) -> Result<R>,
    ) -> Result<R> {
        let mut workspace = self.all().pop().unwrap_or_default();
        if workspace.len() < needed {
            workspace
                .try_reserve_exact(needed - workspace.len())
                .map_err(|_| Error::Overflow { arg, got: format!("no memory for {needed} floats") })?;
            workspace.resize(needed, 0.0);
        }
        let result = f(&mut workspace);
        self.all().push(workspace);
        result
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
