//! The engine's errors as Elixir terms.

use dgm_core::Error;
use rustler::{Encoder, Env, Term};

/// An engine error on its way to Elixir: `{code, message}`.
pub struct Failure(Error);

/// What every fallible NIF returns.
pub type Reply<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure(error)
    }
}

impl Encoder for Failure {
    fn encode<'a>(&self, env: Env<'a>) -> Term<'a> {
        (self.0.code(), self.0.to_string()).encode(env)
    }
}
