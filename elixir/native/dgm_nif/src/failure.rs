//! The engine's errors as Elixir terms.

use std::ops::Deref;

use dgm_core::Error;
use rustler::{Decoder, Encoder, Env, NifException, NifResult, Resource, ResourceArc, Term};

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

/// A wrong argument found before a NIF's body runs: raised at once, as Elixir's own exception.
#[derive(NifException)]
#[module = "ArgumentError"]
struct Refused {
    message: String,
}

/// What a resource is called in errors.
pub trait Named: Resource {
    const ARG: &'static str;
    const EXPECTED: &'static str;
}

/// A resource argument. Rustler's own decoder would raise an `ArgumentError` that names nothing.
pub struct Handle<T: Named>(ResourceArc<T>);

impl<'a, T: Named> Decoder<'a> for Handle<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        term.decode().map(Handle).map_err(|_| {
            let message = Error::argument(T::ARG, format!("{term:?}"), T::EXPECTED).to_string();
            rustler::Error::RaiseTerm(Box::new(Refused { message }))
        })
    }
}

impl<T: Named> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
