//! The memory of results.
//!
//! A large result lies in memory that is used again once the VM has dropped its binary: the first
//! touch of fresh pages costs more than a sampling step. To Elixir it is a binary like any other.

use std::alloc::{Layout, alloc_zeroed};
use std::mem::take;
use std::sync::{Mutex, PoisonError};

use dgm_core::{Error, Result};
use rustler::{Binary, Env, OwnedBinary, Resource, ResourceArc};

use crate::tensor::{allocate, floats_mut};

/// Floats from which memory is used again: 1 MiB.
const LARGE: usize = 1 << 18;
/// Most floats that wait to be used again: 256 MiB.
const MOST_WAITING: usize = 1 << 26;

static WAITING: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// The memory of a large binary; the binary keeps it alive.
struct Recycled(Vec<f32>);

#[rustler::resource_impl]
impl Resource for Recycled {}

impl Drop for Recycled {
    fn drop(&mut self) {
        give_back(take(&mut self.0));
    }
}

/// Floats of a result: the VM's own memory, or a large piece that is used again.
pub enum Memory {
    Vm(OwnedBinary),
    Large(Vec<f32>),
}

impl Memory {
    /// Zeros; memory that cannot be had is an error, not an abort.
    pub fn zeroed(arg: &'static str, len: usize) -> Result<Self> {
        if len < LARGE {
            return Ok(Memory::Vm(allocate(arg, len)?));
        }
        let mut memory = large(arg, len)?;
        memory.fill(0.0);
        Ok(Memory::Large(memory))
    }

    /// Numbers of any value, all of which the caller overwrites.
    pub fn stale(arg: &'static str, len: usize) -> Result<Self> {
        Ok(if len < LARGE { Memory::Vm(allocate(arg, len)?) } else { Memory::Large(large(arg, len)?) })
    }

    /// Its floats.
    pub fn floats(&mut self) -> Result<&mut [f32]> {
        match self {
            Memory::Vm(binary) => floats_mut(binary),
            Memory::Large(floats) => Ok(floats),
        }
    }

    /// Hands the memory to the VM.
    pub fn into_binary(self, env: Env<'_>) -> Binary<'_> {
        match self {
            Memory::Vm(binary) => Binary::from_owned(binary, env),
            Memory::Large(floats) => {
                ResourceArc::new(Recycled(floats)).make_binary(env, |memory| bytemuck::cast_slice(&memory.0))
            }
        }
    }
}

/// `len` floats, left over from an earlier result of that size or new.
fn large(arg: &'static str, len: usize) -> Result<Vec<f32>> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = waiting.iter().position(|memory| memory.len() == len) {
        return Ok(waiting.swap_remove(at));
    }
    drop(waiting);
    fresh(len)
        .ok_or_else(|| Error::Overflow { arg, got: format!("{len} numbers, more than this machine gives") })
}

/// Zeros that nobody has touched yet: their pages come with the first write, to each thread its own.
fn fresh(len: usize) -> Option<Vec<f32>> {
    let layout = Layout::array::<f32>(len).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc_zeroed(layout) };
    // SAFETY: memory of the global allocator with the layout of `len` floats, all of them zero; nobody else's.
    (!memory.is_null()).then(|| unsafe { Vec::from_raw_parts(memory.cast(), len, len) })
}

/// Keeps memory for later, in the place of what has waited longest.
fn give_back(memory: Vec<f32>) {
    if memory.len() > MOST_WAITING {
        return;
    }
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut old = Vec::new(); // released without the lock
    while waiting.iter().map(Vec::len).sum::<usize>() + memory.len() > MOST_WAITING {
        old.push(waiting.remove(0));
    }
    waiting.push(memory);
    drop(waiting);
    drop(old);
}
