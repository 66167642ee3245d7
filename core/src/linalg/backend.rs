//! Which code multiplies in linear layers and in attention with large tiles.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::arch;
use crate::error::{Error, Result};

/// Who multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Backend {
    /// The engine itself: the same bits everywhere. The default.
    Native = 1,
    /// `cblas_sgemm` of the machine (on Apple systems Accelerate, by the default feature
    /// `accelerate`): outside the promise of equal bits. It multiplies in linear layers, and in
    /// attention of f32 with at least 256 queries and 256 keys (1024 if causal), without a window,
    /// whose keys and values have rows of adjacent elements (and only finite values where a mask, bias
    /// or `causal` hides some). All else stays native, to the bit. In attention every thread of the
    /// pool calls it by itself: a BLAS with threads of its own should be told to use one.
    Blas = 2,
}

impl Backend {
    /// The name that `DGM_BACKEND` accepts.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Native => "native",
            Backend::Blas => "blas",
        }
    }

    /// The backend of a name.
    ///
    /// # Errors
    /// [`Error::Argument`] for any other.
    pub fn from_name(name: &str) -> Result<Backend> {
        [Backend::Native, Backend::Blas]
            .into_iter()
            .find(|b| b.name() == name)
            .ok_or_else(|| Error::argument("backend", name, "native or blas"))
    }
}

/// 0 until first use; then a `Backend`. Relaxed is enough: the value is all that is shared.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// The backend in use: native, unless `DGM_BACKEND` or [`set_backend`] chose another.
///
/// `DGM_BACKEND=blas` without any BLAS is ignored; `info::cpu_info` says what runs.
pub fn backend() -> Backend {
    match ACTIVE.load(Ordering::Relaxed) {
        1 => Backend::Native,
        2 => Backend::Blas,
        _ => {
            let wanted = std::env::var("DGM_BACKEND").ok().and_then(|v| Backend::from_name(v.trim()).ok());
            let blas = wanted == Some(Backend::Blas) && arch::blas::library().is_some();
            let chosen = if blas { Backend::Blas } else { Backend::Native };
            ACTIVE.store(chosen as u8, Ordering::Relaxed);
            chosen
        }
    }
}

/// Chooses the backend for the whole process.
///
/// The BLAS is the one that `DGM_BLAS_LIBRARY` names, or else the first of the usual ones. Each
/// layer keeps a second copy of its weights from its first product with it.
///
/// # Errors
/// [`Error::Argument`] when there is no BLAS.
pub fn set_backend(backend: Backend) -> Result<()> {
    if backend == Backend::Blas && arch::blas::library().is_none() {
        let why = match (cfg!(feature = "blas"), std::env::var("DGM_BLAS_LIBRARY")) {
            (false, _) => "native: this build is without the feature blas".to_string(),
            (true, Ok(file)) => format!("native: DGM_BLAS_LIBRARY, {file}, has no cblas_sgemm"),
            (true, Err(_)) => "native: no BLAS was found, DGM_BLAS_LIBRARY can name one".to_string(),
        };
        return Err(Error::argument("backend", "blas", why));
    }
    ACTIVE.store(backend as u8, Ordering::Relaxed);
    Ok(())
}

/// What multiplies, in a word: `native`, or `blas:` and the file of the library.
pub(crate) fn described() -> String {
    match (backend(), arch::blas::library()) {
        (Backend::Blas, Some(file)) => format!("blas:{}", file.replace(char::is_whitespace, "_")),
        _ => "native".to_string(),
    }
}
