//! Pictures of sampling plans as SVG: where the steps lie, and where samples go.
//!
//! ```
//! use dgm_core::sampling::{Plan, PlanOptions, Process, Spacing};
//! let plan = Plan::compile(&PlanOptions { steps: 8, ..Default::default() })?;
//! assert!(dgm_plots::grid(&plan)?.starts_with("<svg"));
//! let paths = dgm_plots::walk(&plan, &[1, 2], 1)?;
//! assert_eq!((paths.len(), paths[0].len()), (2, 9));
//! assert!(dgm_plots::trajectories(&plan, &paths)?.ends_with("</svg>\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod draw;
mod gallery;
mod mixture;

pub use draw::{grid, trajectories};
pub use gallery::{gallery, gallery_cases};
pub use mixture::walk;

/// Whatever goes wrong is a sentence for people.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where one sample was at the start of every step and at the end: one or two numbers each.
pub type Path = Vec<Vec<f64>>;
