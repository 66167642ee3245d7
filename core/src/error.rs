//! One error type for the whole engine, with stable numeric codes.

/// Result of every fallible entry of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong: the argument, what it was, what it should have been.
///
/// [`Error::code`] gives the number that crosses the C ABI. Numbers are never reused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A required pointer or handle is null (only reachable through a foreign interface).
    #[error("{arg} is null, expected {expected}")]
    Null {
        /// Name of the argument.
        arg: &'static str,
        /// What should have been passed.
        expected: &'static str,
    },
    /// An argument has no meaning: an unknown enum value, an unsupported combination.
    #[error("{arg} is {got}, expected {expected}")]
    Argument {
        /// Name of the argument.
        arg: &'static str,
        /// What was passed.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// A tensor has the wrong rank or dimensions.
    #[error("{arg} has shape {got}, expected {expected}")]
    Shape {
        /// Name of the argument.
        arg: &'static str,
        /// Its shape.
        got: String,
        /// The shape that fits the other arguments.
        expected: String,
    },
    /// A tensor has strides that the kernel cannot use.
    #[error("{arg} has strides {got}, expected {expected}")]
    Stride {
        /// Name of the argument.
        arg: &'static str,
        /// Its strides.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// A tensor has the wrong element type.
    #[error("{arg} has dtype {got}, expected {expected}")]
    Dtype {
        /// Name of the argument.
        arg: &'static str,
        /// Its dtype.
        got: String,
        /// The accepted dtypes.
        expected: String,
    },
    /// An output shares memory with another argument.
    #[error("{arg} overlaps {other}, expected separate memory")]
    Alias {
        /// Name of the output.
        arg: &'static str,
        /// The argument it overlaps.
        other: &'static str,
    },
    /// A number lies outside its range.
    #[error("{arg} is {got}, expected {expected}")]
    Range {
        /// Name of the argument.
        arg: &'static str,
        /// Its value.
        got: String,
        /// The accepted range.
        expected: String,
    },
    /// A size computation leaves the address space.
    #[error("{arg} is too large: {got}")]
    Overflow {
        /// Name of the argument.
        arg: &'static str,
        /// Its shape or size.
        got: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {message}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        message: String,
    },
    /// Bytes do not follow their format (a weights file, an exported run).
    #[error("{what}: {message}")]
    Format {
        /// What was read.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A call does not fit the state of a run: told twice, stale, finished, another plan.
    #[error("{0}")]
    State(String),
    /// The caller's cancel flag was set.
    #[error("cancelled")]
    Cancelled,
    /// A bug of the engine: a caught panic or a broken invariant.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The stable code of this error: negative, grouped by cause in hundreds.
    ///
    /// ```
    /// use dgm_core::Error;
    /// assert_eq!(Error::Cancelled.code(), -800);
    /// ```
    pub fn code(&self) -> i32 {
        match self {
            Error::Null { .. } => -100,
            Error::Argument { .. } => -101,
            Error::Shape { .. } => -200,
            Error::Stride { .. } => -201,
            Error::Dtype { .. } => -300,
            Error::Alias { .. } => -400,
            Error::Range { .. } => -500,
            Error::Overflow { .. } => -501,
            Error::Io { .. } => -600,
            Error::Format { .. } => -601,
            Error::State(_) => -700,
            Error::Cancelled => -800,
            Error::Internal(_) => -900,
        }
    }

    /// Builds [`Error::Argument`] from anything printable.
    pub fn argument(arg: &'static str, got: impl ToString, expected: impl ToString) -> Self {
        Error::Argument { arg, got: got.to_string(), expected: expected.to_string() }
    }

    /// Builds [`Error::Range`] from anything printable.
    pub fn range(arg: &'static str, got: impl ToString, expected: impl ToString) -> Self {
        Error::Range { arg, got: got.to_string(), expected: expected.to_string() }
    }

    /// Builds [`Error::Shape`] from the dimensions found and a description of those wanted.
    pub fn shape(arg: &'static str, got: &[usize], expected: impl ToString) -> Self {
        Error::Shape { arg, got: format!("{got:?}"), expected: expected.to_string() }
    }
}

/// `len` zeros, or an error where so many cannot be had: an allocation that a caller's numbers decide
/// may not end the process.
pub(crate) fn zeros(arg: &'static str, len: usize) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    let had = all.try_reserve_exact(len);
    had.map_err(|_| Error::Overflow { arg, got: format!("no memory for {len} floats") })?;
    all.resize(len, 0.0);
    Ok(all)
}

/// Checks that `got` equals `expected`, dimension by dimension.
pub(crate) fn check_shape(arg: &'static str, got: &[usize], expected: &[usize]) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::shape(arg, got, format!("{expected:?}"))) }
}
