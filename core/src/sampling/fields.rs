//! Options by name, for the doors and for the serialised plan: one list, so that no door forgets one.

use std::fmt;

use super::options::PlanOptions;
use crate::error::{Error, Result};

/// The value of an option as a foreign language passes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: an optional field is left empty.
    None,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number from 0.
    Count(usize),
    /// A number.
    Number(f64),
    /// A choice by its name.
    Name(String),
    /// Numbers.
    List(Vec<f64>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => write!(f, "nothing"),
            Value::Flag(v) => write!(f, "{v}"),
            Value::Count(v) => write!(f, "{v}"),
            Value::Number(v) => write!(f, "{v}"),
            Value::Name(v) => write!(f, "{v}"),
            Value::List(v) => write!(f, "{v:?}"),
        }
    }
}

/// The type of an option.
pub(super) trait Field: Sized {
    fn read(arg: &'static str, value: Value) -> Result<Self>;
    fn value(&self) -> Value;
    /// The field as numbers, exactly.
    fn words(&self) -> Vec<f64>;
    fn from_words(arg: &'static str, words: &[f64]) -> Result<Self>;
}

fn one(arg: &'static str, words: &[f64]) -> Result<f64> {
    match words {
        [v] => Ok(*v),
        _ => Err(Error::argument(arg, format!("{words:?}"), "one number")),
    }
}

impl Field for f64 {
    fn read(arg: &'static str, value: Value) -> Result<f64> {
        match value {
            Value::Number(v) => Ok(v),
            Value::Count(v) => Ok(v as f64),
            other => Err(Error::argument(arg, other, "a number")),
        }
    }
    fn value(&self) -> Value {
        Value::Number(*self)
    }
    fn words(&self) -> Vec<f64> {
        vec![*self]
    }
    fn from_words(arg: &'static str, words: &[f64]) -> Result<f64> {
        one(arg, words)
    }
}

/// Greatest whole number up to which f64 has them all.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Field for usize {
    fn read(arg: &'static str, value: Value) -> Result<usize> {
        match value {
            Value::Count(v) => Ok(v),
            Value::Number(v) if v.fract() == 0.0 && (0.0..=EXACT).contains(&v) => Ok(v as usize),
            other => Err(Error::argument(arg, other, "a non-negative integer")),
        }
    }
    fn value(&self) -> Value {
        Value::Count(*self)
    }
    fn words(&self) -> Vec<f64> {
        vec![*self as f64]
    }
    fn from_words(arg: &'static str, words: &[f64]) -> Result<usize> {
        usize::read(arg, Value::Number(one(arg, words)?))
    }
}

impl Field for bool {
    fn read(arg: &'static str, value: Value) -> Result<bool> {
        match value {
            Value::Flag(v) => Ok(v),
            other => Err(Error::argument(arg, other, "true or false")),
        }
    }
    fn value(&self) -> Value {
        Value::Flag(*self)
    }
    fn words(&self) -> Vec<f64> {
        vec![f64::from(u8::from(*self))]
    }
    fn from_words(arg: &'static str, words: &[f64]) -> Result<bool> {
        match one(arg, words)? {
            0.0 => Ok(false),
            1.0 => Ok(true),
            other => Err(Error::argument(arg, other, "0 or 1")),
        }
    }
}

impl Field for Option<f64> {
    fn read(arg: &'static str, value: Value) -> Result<Self> {
        if value == Value::None { Ok(None) } else { f64::read(arg, value).map(Some) }
    }
    fn value(&self) -> Value {
        self.map_or(Value::None, Value::Number)
    }
    fn words(&self) -> Vec<f64> {
        self.iter().copied().collect::<Vec<f64>>()
    }
    fn from_words(arg: &'static str, words: &[f64]) -> Result<Self> {
        if words.is_empty() { Ok(None) } else { one(arg, words).map(Some) }
    }
}

impl Field for Option<Vec<f64>> {
    fn read(arg: &'static str, value: Value) -> Result<Self> {
        match value {
            Value::None => Ok(None),
            Value::List(v) => Ok(Some(v)),
            other => Err(Error::argument(arg, other, "a list of numbers")),
        }
    }
    fn value(&self) -> Value {
        self.clone().map_or(Value::None, Value::List)
    }
    fn words(&self) -> Vec<f64> {
        self.clone().unwrap_or_default()
    }
    fn from_words(_: &'static str, words: &[f64]) -> Result<Self> {
        Ok(Some(words.to_vec()).filter(|w| !w.is_empty()))
    }
}

/// Number of fields of the first version of the serialised plan.
const FIRST_VERSION: u32 = 17;

macro_rules! fields {
    ($($name:ident = $id:literal),+ $(,)?) => {
        impl PlanOptions {
            /// The names of all options, in the order of their numbers.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Sets an option by name.
            ///
            /// ```
            /// use dgm_core::sampling::{OptionValue, PlanOptions};
            /// let mut options = PlanOptions::default();
            /// options.set("solver", OptionValue::Name("heun".into()))?;
            /// assert_eq!(options.get("solver")?, OptionValue::Name("heun".into()));
            /// # Ok::<(), dgm_core::Error>(())
            /// ```
            ///
            /// # Errors
            /// [`Error::Argument`] for an unknown name or a value of the wrong kind.
            pub fn set(&mut self, name: &str, value: Value) -> Result<()> {
                match name {
                    $(stringify!($name) => self.$name = Field::read(stringify!($name), value)?,)+
                    other => return Err(unknown(other)),
                }
                Ok(())
            }

            /// An option by name.
            ///
            /// # Errors
            /// [`Error::Argument`] for an unknown name.
            pub fn get(&self, name: &str) -> Result<Value> {
                match name {
                    $(stringify!($name) => Ok(self.$name.value()),)+
                    other => Err(unknown(other)),
                }
            }

            /// The fields that the first version of the serialised plan did not have and that differ from the default.
            pub(super) fn later_fields(&self) -> Vec<(u32, Vec<f64>)> {
                let default = PlanOptions::default();
                let mut all = Vec::new();
                $(if $id > FIRST_VERSION && self.$name != default.$name {
                    all.push(($id, self.$name.words()));
                })+
                all
            }

            /// Sets one of [`later_fields`](Self::later_fields).
            pub(super) fn set_later(&mut self, id: u32, words: &[f64]) -> Result<()> {
                match id {
                    $($id if $id > FIRST_VERSION => self.$name = Field::from_words(stringify!($name), words)?,)+
                    other => return Err(Error::argument("option", other, "the number of an option")),
                }
                Ok(())
            }
        }
    };
}

fn unknown(name: &str) -> Error {
    Error::argument("option", name, PlanOptions::NAMES.join(", "))
}

// The numbers are written into serialised plans: they are never used again.
fields! {
    process = 1, prediction = 2, solver = 3, steps = 4, spacing = 5, shift = 6, times = 7, eta = 8,
    guidance = 9, clip = 10, beta_start = 11, beta_end = 12, train_steps = 13, rtol = 14, atol = 15,
    h_init = 16, max_evals = 17, order = 18, betas = 19, sigma_min = 20, sigma_max = 21,
    sigma_data = 22, rho = 23, zero_snr = 24, steps_offset = 25, final_sigma = 26, shift_type = 27,
    shift_power = 28, shift_terminal = 29, sigmas = 30, s_churn = 31, s_tmin = 32, s_tmax = 33, s_noise = 34,
    guidance_mode = 35, guidance_rescale = 36, guidance_start = 37, guidance_end = 38, apg_eta = 39,
    apg_norm = 40, apg_momentum = 41, zero_init_steps = 42, noise = 43, threshold_ratio = 44,
    threshold_max = 45, variance = 46, start_step = 47, start_sigma = 48, restart = 49, inpaint = 50,
    original_steps = 51, time_scale = 52, compat = 53,
    sde_eta = 54, per_row = 55, snr = 56, corrector_steps = 57, guidance_weak = 58,
    t_start = 59, t_end = 60, controller = 61, save_at = 62, likelihood = 63,
    step_size = 64, leapfrog = 65, warmup = 66, target_accept = 67, non_finite = 68, stop_at = 69,
}
