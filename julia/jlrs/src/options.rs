//! Options: a `NamedTuple` in the place of keyword arguments.

use jlrs::data::layout::tuple::Tuple;
use jlrs::data::managed::named_tuple::NamedTuple;
use jlrs::prelude::{Array, LocalScope, Managed, Nothing, Symbol, Value};
use jlrs::weak_handle_unchecked;

use crate::failure::Failure;

/// Options of a call, all of them known.
pub struct Options<'s>(Option<NamedTuple<'s, 'static>>);

impl<'s> Options<'s> {
    /// No options: the defaults.
    pub const NONE: Options<'static> = Options(None);

    /// Reads a `NamedTuple` whose fields are among `known`.
    pub fn new(value: Value<'s, 'static>, known: &[&str]) -> Result<Self, Failure> {
        if !value.is::<NamedTuple>() {
            let found = value.display_string_or("unprintable");
            return Err(Failure::argument(format!(
                "options is {found}, expected a NamedTuple such as (; steps = 8)"
            )));
        }
        // SAFETY: it is a NamedTuple.
        let tuple = unsafe { value.cast_unchecked::<NamedTuple>() };
        for name in tuple.field_names() {
            let name = name.as_str()?;
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(Failure::argument(format!("unknown option {name}, expected one of {known}")));
            }
        }
        Ok(Options(Some(tuple)))
    }

    /// A field, if it is there and not `nothing`.
    fn get(&self, name: &str) -> Option<Value<'s, 'static>> {
        // SAFETY: only Julia calls exported functions. An array or a symbol belongs to the tuple, an
        // argument; a boxed number is read before anything else is allocated.
        let value = unsafe { self.0?.get(self.0?.unrooted_target(), name)?.as_value() };
        (!value.is::<Nothing>()).then_some(value)
    }

    /// Whether a field is there, `nothing` or not.
    pub fn contains(&self, name: &str) -> bool {
        self.0.is_some_and(|tuple| tuple.contains(name))
    }

    /// A number of any of Julia's usual types.
    pub fn number(&self, name: &str) -> Result<Option<f64>, Failure> {
        self.get(name).map(|value| number(name, value)).transpose()
    }

    /// An integer from 0.
    pub fn count(&self, name: &str) -> Result<Option<usize>, Failure> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        if number.fract() != 0.0 || !(0.0..=9_007_199_254_740_992.0).contains(&number) {
            return Err(Failure::argument(format!("{name} is {number}, expected an integer from 0")));
        }
        Ok(Some(number as usize))
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let flag = value.unbox::<bool>().map_err(|_| unlike(name, value, "true or false"))?;
        Ok(Some(flag.as_bool()))
    }

    /// The name in a symbol.
    pub fn symbol(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let symbol = value.cast::<Symbol>().map_err(|_| unlike(name, value, "a symbol"))?;
        Ok(Some(symbol.as_str()?.to_string()))
    }

    /// Whether a field holds a symbol.
    pub fn is_symbol(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.is::<Symbol>())
    }

    /// `(left, right)`, each `nothing` or an integer from 0.
    pub fn window(&self, name: &str) -> Result<(Option<usize>, Option<usize>), Failure> {
        let Some(value) = self.get(name) else { return Ok((None, None)) };
        let wrong = || unlike(name, value, "(left, right), each nothing or an integer from 0");
        if !value.is::<Tuple>() || value.n_fields() != 2 {
            return Err(wrong());
        }
        let side = |i| {
            // SAFETY: only Julia calls exported functions; a boxed number is read at once.
            let handle = unsafe { weak_handle_unchecked!() };
            handle.local_scope::<_, 1>(|mut frame| {
                let side = value.get_nth_field(&mut frame, i).map_err(|_| wrong())?;
                if side.is::<Nothing>() {
                    return Ok(None);
                }
                let keys = side.unbox::<i64>().ok().and_then(|n| usize::try_from(n).ok());
                keys.map(Some).ok_or_else(wrong)
            })
        };
        Ok((side(0)?, side(1)?))
    }

    /// An array.
    pub fn array(&self, name: &str) -> Result<Option<Array<'s, 'static>>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        Ok(Some(value.cast::<Array>().map_err(|_| unlike(name, value, "an Array"))?))
    }
}

fn number(name: &str, value: Value<'_, 'static>) -> Result<f64, Failure> {
    let number = if value.is::<f64>() {
        value.unbox::<f64>()
    } else if value.is::<f32>() {
        value.unbox::<f32>().map(f64::from)
    } else if value.is::<i32>() {
        value.unbox::<i32>().map(f64::from)
    } else {
        value.unbox::<i64>().map(|n| n as f64)
    };
    number.map_err(|_| unlike(name, value, "a number"))
}

fn unlike(name: &str, value: Value<'_, 'static>, expected: &str) -> Failure {
    Failure::argument(format!("{name} is {}, expected {expected}", value.display_string_or("unprintable")))
}
