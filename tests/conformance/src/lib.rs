//! Kernels from tensors to a tensor, each listed once ([`kernels`]); tests, `cases.txt` and `docs/HASHES.md`
//! follow from it. Random numbers, walks of the solvers and models are listed in [`run_cases`] and published in
//! `runs.txt`.

mod kernels;
mod oracle;
mod publish;
mod runs;
mod storage;

use dgm_core::Result;
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn};

pub use kernels::kernels;
pub use publish::{BadCase, PATTERN, bad_cases, cases_text, hashes_text, sha256};
pub use runs::{ROWS, RunCase, Source, at_own_times, run_cases, runs_text};

/// A kernel in f64: inputs, options and the output's shape to the output, row-major.
pub type Oracle = fn(&[ArrayD<f64>], &Args, &[usize]) -> Vec<f64>;

/// A call into the engine: inputs, options, output.
pub type Call = fn(&[ArrayViewD<f32>], &Args, ArrayViewMutD<f32>) -> Result<()>;

/// One kernel: symbolic shapes, concrete cases, an oracle and the call.
pub struct Kernel {
    /// Entry name as in `dgm.h`, without `dgm_`.
    pub call: &'static str,
    /// Tensors with the names of their dimensions, inputs before `->`, the output after it.
    pub signature: &'static str,
    /// The concrete cases.
    pub cases: &'static [CaseSpec],
    /// Largest accepted |kernel - oracle| / max(1, |oracle|).
    pub bound: f64,
    /// The same function in f64, with obvious loops; returns the output, row-major.
    pub oracle: Oracle,
    /// The call into the engine.
    pub run: Call,
}

/// A case as it stands in the list.
pub struct CaseSpec {
    /// Name, unique within the kernel.
    pub name: &'static str,
    /// Value of every symbol: `B=2 D=40`.
    pub sizes: &'static str,
    /// Scalars and options: `causal=1`.
    pub args: &'static str,
}

/// Scalars and options by name.
pub struct Args(pub Vec<(&'static str, &'static str)>);

impl Args {
    /// The text of an option that may be absent.
    pub fn find(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|a| a.0 == name).map(|a| a.1)
    }

    /// The text of an option.
    pub fn text(&self, name: &str) -> &'static str {
        self.find(name).unwrap_or_else(|| panic!("no argument {name}"))
    }

    /// Whether an argument is a list with something for each row of the batch, or their number: then
    /// rows cannot be taken from the tensors alone.
    #[must_use]
    pub fn by_row(&self) -> bool {
        self.0.iter().any(|a| {
            matches!(a.0, "batch" | "first" | "kv_lengths" | "q_offsets" | "indices" | "groups_of_rows")
        })
    }

    /// The text of an option that not every case has.
    pub fn text_or(&self, name: &str, otherwise: &'static str) -> &'static str {
        self.0.iter().find(|a| a.0 == name).map_or(otherwise, |a| a.1)
    }

    /// The value of a number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> T {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is not a number"))
    }

    /// The value of a number that may be absent.
    pub fn optional<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.find(name).map(|_| self.number(name))
    }

    /// The values of `1,2,3`.
    pub fn list<T: std::str::FromStr>(&self, name: &str) -> Vec<T> {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is not a number"));
        self.text(name).split(',').map(number).collect()
    }
}

/// A tensor of a case.
#[derive(Clone)]
pub struct Tensor {
    /// Name of the argument.
    pub name: &'static str,
    /// Names of its dimensions.
    pub symbols: Vec<&'static str>,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Seed of its values; see [`values`].
    pub seed: u32,
}

/// A case with every size filled in.
pub struct Case {
    /// `kernel/case`.
    pub name: String,
    /// Inputs, then the output.
    pub tensors: Vec<Tensor>,
    /// Scalars and options.
    pub args: Args,
}

fn pairs(text: &'static str) -> Vec<(&'static str, &'static str)> {
    text.split_whitespace().map(|p| p.split_once('=').expect("name=value")).collect()
}

impl Kernel {
    /// The cases of this kernel.
    pub fn expand(&self) -> Vec<Case> {
        self.cases.iter().map(|spec| self.case(spec)).collect()
    }

    fn case(&self, spec: &CaseSpec) -> Case {
        let sizes = pairs(spec.sizes);
        let size = |symbol: &str| -> usize {
            let found = sizes.iter().find(|s| s.0 == symbol);
            found.unwrap_or_else(|| panic!("{}: no size {symbol}", spec.name)).1.parse().expect("a size")
        };
        let words = self.signature.split_whitespace().filter(|w| *w != "->");
        let tensors = words.zip(7..).map(|(word, seed)| {
            let (name, dims) = word.trim_end_matches(']').split_once('[').expect("name[dims]");
            let symbols: Vec<_> = dims.split(',').collect();
            let shape = symbols.iter().map(|s| size(s)).collect();
            Tensor { name, symbols, shape, seed }
        });
        Case {
            name: format!("{}/{}", self.call, spec.name),
            tensors: tensors.collect(),
            args: Args(pairs(spec.args)),
        }
    }
}

impl Case {
    /// The inputs, filled.
    pub fn inputs(&self) -> Vec<ArrayD<f32>> {
        self.tensors[..self.tensors.len() - 1].iter().map(values).collect()
    }

    /// The output tensor.
    pub fn output(&self) -> &Tensor {
        self.tensors.last().expect("a kernel has an output")
    }

    /// Runs the kernel on `inputs` into a new array of the output's shape.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn run(&self, kernel: &Kernel, inputs: &[ArrayViewD<f32>]) -> Result<ArrayD<f32>> {
        let mut out = ArrayD::from_elem(IxDyn(&self.output().shape), f32::NAN);
        (kernel.run)(inputs, &self.args, out.view_mut())?;
        Ok(out)
    }
}

/// Values in [-1, 1), a pure function of seed and index that every language can repeat exactly.
pub fn values(t: &Tensor) -> ArrayD<f32> {
    let mut i = 0u32;
    ArrayD::from_shape_simple_fn(IxDyn(&t.shape), || {
        i = i.wrapping_add(1);
        let mut h = i.wrapping_mul(0x9E37_79B1).wrapping_add(t.seed.wrapping_mul(0x85EB_CA77));
        h = (h ^ (h >> 16)).wrapping_mul(0x21F0_AAAD);
        h = (h ^ (h >> 15)).wrapping_mul(0x735A_2D97);
        h ^= h >> 15;
        (h >> 8) as f32 / 8_388_608.0 - 1.0
    })
}
