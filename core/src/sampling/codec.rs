//! Plans and runs as bytes: little-endian, versioned, checksummed.
//!
//! | run header, byte | content |
//! |---|---|
//! | 0 | `DGMR` |
//! | 4 | version u32 |
//! | 8 | plan hash u64 |
//! | 16 | rows u64, elements u64 |
//! | 32 | position u64 |
//! | 40 | evaluations, rounds, accepts, rejects u64 |
//! | 72 | a seed u64 a row |
//! | | adaptive plans: t, h, error f64 (two of them for a controller of three exponents) and flags u64 a row |
//! | | plans with `per_row`: position and flags u64 a row |
//! | | plans with likelihood: an f64 a state tensor, a row |
//! | | chains with a test: that too; step, mean log step, miss f64 and accepted u64 a row |
//! | end - 8 | CRC-32 of all before, as u64 |
//!
//! An export is the header, the state as f32, and the CRC-32 of the state as u64.

use super::adaptive::Control;
use super::chain::Chain;
use super::options::{PlanOptions, Prediction, Process, Solver, Spacing};
use super::plan::Plan;
use super::rows::Place;
use super::run::{Counters, Run, other_plan};
use crate::error::{Error, Result};

const PLAN_MAGIC: &[u8; 4] = b"DGMP";
const RUN_MAGIC: &[u8; 4] = b"DGMR";
const VERSION: u32 = 1;
/// Plans with an option that version 1 does not have.
const LATER_PLAN: u32 = 2;
const FIXED: usize = 72;
/// Magic and version of a run, as the first word of its header.
const HEAD: u64 = u32::from_le_bytes(*RUN_MAGIC) as u64 | (VERSION as u64) << 32;
const CRC: usize = 8;
const CONTROL: usize = 32;
/// Two errors are remembered.
const MEMORY: usize = 8;
const PLACE: usize = 16;
const CHAIN: usize = 32;
/// What no counter of a run that was really made reaches: from here it can count on for ever.
const MOST_COUNTED: u64 = 1 << 62;

/// FNV-1a, 64 bits.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Appends little-endian values.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn size(&mut self, v: usize) {
        self.u64(v as u64);
    }
    fn f64(&mut self, v: f64) {
        self.u64(v.to_bits());
    }
    fn seal(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0);
        self.u64(u64::from(crc));
        self.0
    }
}

/// Reads little-endian values from bytes whose length was checked.
struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or_else(|| bad(self.what, "it is cut short"))?;
        self.bytes = tail;
        Ok(head)
    }
    fn u32(&mut self) -> Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
    fn u64(&mut self) -> Result<u64> {
        self.words().map(|[v]| v)
    }
    /// The next `N` numbers.
    fn words<const N: usize>(&mut self) -> Result<[u64; N]> {
        let (words, _) = self.take(8 * N)?.as_chunks::<8>();
        Ok(std::array::from_fn(|i| u64::from_le_bytes(words[i])))
    }
    fn size(&mut self) -> Result<usize> {
        let v = self.u64()?;
        usize::try_from(v).map_err(|_| bad(self.what, format!("the number {v} does not fit this machine")))
    }
    fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_bits(self.u64()?))
    }
    /// A count and so many numbers.
    fn list(&mut self) -> Result<Vec<f64>> {
        let count = self.size()?;
        if self.bytes.len() < count.saturating_mul(8) {
            let found = format!("{} bytes follow where {count} numbers were announced", self.bytes.len());
            return Err(bad(self.what, found));
        }
        (0..count).map(|_| self.f64()).collect()
    }
    /// The magic and a version of 1 to `newest`.
    fn head(&mut self, magic: &[u8; 4], newest: u32) -> Result<u32> {
        if self.take(4)? != magic {
            return Err(bad(self.what, format!("it does not begin with {}", String::from_utf8_lossy(magic))));
        }
        match self.u32()? {
            v if (VERSION..=newest).contains(&v) => Ok(v),
            v => Err(bad(self.what, format!("its version is {v}, this library reads {newest}"))),
        }
    }
}

fn bad(what: &str, message: impl ToString) -> Error {
    Error::Format { what: what.to_string(), message: message.to_string() }
}

/// Checks the CRC in the last eight bytes and returns what it covers.
fn unseal<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let at = bytes.len().checked_sub(CRC).ok_or_else(|| bad(what, "it is cut short"))?;
    let (body, crc) = bytes.split_at(at);
    let stored = Reader { what, bytes: crc }.u64()?;
    if stored != u64::from(crc32fast::hash(body)) {
        return Err(bad(what, "its checksum does not match its content"));
    }
    Ok(body)
}

const PLAN: &str = "serialised plan";
const RUN: &str = "encoded run";
const EXPORT: &str = "exported run";

pub(super) fn plan_bytes(o: &PlanOptions) -> Vec<u8> {
    let later = o.later_fields();
    let mut w = Writer::default();
    w.0.extend_from_slice(PLAN_MAGIC);
    w.u32(if later.is_empty() { VERSION } else { LATER_PLAN });
    for code in [o.process.code(), o.prediction.code(), o.solver.code(), o.spacing.code()] {
        w.u32(code);
    }
    w.size(o.steps);
    for v in [o.shift, o.eta, o.guidance, o.clip.unwrap_or(0.0), o.beta_start, o.beta_end] {
        w.f64(v);
    }
    w.size(o.train_steps);
    for v in [o.rtol, o.atol, o.h_init] {
        w.f64(v);
    }
    w.size(o.max_evals);
    let times = o.times.as_deref().unwrap_or_default();
    w.size(times.len());
    for &t in times {
        w.f64(t);
    }
    if !later.is_empty() {
        w.size(later.len());
        for (id, words) in later {
            w.size(id as usize);
            w.size(words.len());
            words.into_iter().for_each(|v| w.f64(v));
        }
    }
    w.seal()
}

pub(super) fn plan_options(bytes: &[u8]) -> Result<PlanOptions> {
    let mut r = Reader { what: PLAN, bytes: unseal(PLAN, bytes)? };
    let version = r.head(PLAN_MAGIC, LATER_PLAN)?;
    let mut o = PlanOptions {
        process: Process::from_code(r.u32()?)?,
        prediction: Prediction::from_code(r.u32()?)?,
        solver: Solver::from_code(r.u32()?)?,
        spacing: Spacing::from_code(r.u32()?)?,
        steps: r.size()?,
        shift: r.f64()?,
        eta: r.f64()?,
        guidance: r.f64()?,
        clip: Some(r.f64()?).filter(|c| *c != 0.0),
        beta_start: r.f64()?,
        beta_end: r.f64()?,
        train_steps: r.size()?,
        rtol: r.f64()?,
        atol: r.f64()?,
        h_init: r.f64()?,
        max_evals: r.size()?,
        ..PlanOptions::default()
    };
    o.times = Some(r.list()?).filter(|times| !times.is_empty());
    if version == LATER_PLAN {
        for _ in 0..r.size()? {
            let id = u32::try_from(r.size()?).unwrap_or(u32::MAX);
            let words = r.list()?;
            o.set_later(id, &words).map_err(|e| bad(PLAN, e))?;
        }
    }
    match r.bytes.len() {
        0 => Ok(o),
        n => Err(bad(PLAN, format!("{n} bytes follow its end"))),
    }
}

/// The rows and elements that the bytes of a run begin with.
fn sizes(bytes: &[u8]) -> Result<(usize, usize)> {
    let mut r = Reader { what: RUN, bytes };
    r.head(RUN_MAGIC, VERSION)?;
    r.u64()?;
    Ok((r.size()?, r.size()?))
}

impl Run {
    /// Bytes of the header of a run with this many rows: what [`encode`](Run::encode) writes.
    ///
    /// # Errors
    /// [`Error::Overflow`] when that many rows cannot be addressed.
    pub fn header_len(plan: &Plan, rows: usize) -> Result<usize> {
        let kept = 8 * plan.kept() + if plan.is_tested() { CHAIN } else { 0 };
        let control = match (plan.is_adaptive(), plan.remembers()) {
            (false, _) => 0,
            (true, false) => CONTROL,
            (true, true) => CONTROL + MEMORY,
        };
        let row = 8 + kept + control + if plan.options().per_row { PLACE } else { 0 };
        rows.checked_mul(row)
            .and_then(|n| n.checked_add(FIXED + CRC))
            .filter(|&n| n <= isize::MAX as usize)
            .ok_or_else(|| Error::Overflow { arg: "rows", got: rows.to_string() })
    }

    /// Writes the run, without its state, to the start of `out`; returns the bytes written.
    ///
    /// # Errors
    /// [`Error::Shape`] when `out` is shorter than [`header_len`](Run::header_len);
    /// [`Error::State`] under another plan.
    pub fn encode(&self, plan: &Plan, out: &mut [u8]) -> Result<usize> {
        self.check_plan(plan)?;
        let len = Run::header_len(plan, self.rows())?;
        if out.len() < len {
            return Err(Error::shape("run", &[out.len()], format!("at least {len} bytes")));
        }
        self.write(plan, &mut out[..len]);
        Ok(len)
    }

    /// [`encode`](Run::encode) under its own plan to as many bytes as the header has.
    pub(super) fn write(&self, plan: &Plan, out: &mut [u8]) {
        let (body, crc) = out.split_at_mut(out.len() - CRC);
        let (fixed, a_row) = body.split_at_mut(FIXED);
        let c = &self.counters;
        let [rows, elements, position] = [self.rows(), self.elements, self.position].map(|n| n as u64);
        let words = [HEAD, self.plan, rows, elements, position, c.evals, c.rounds, c.accepts, c.rejects];
        for (place, word) in fixed.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        let mut places = a_row.as_chunks_mut::<8>().0.iter_mut();
        let mut put = |v: u64| {
            if let Some(place) = places.next() {
                *place = v.to_le_bytes();
            }
        };
        self.seeds.iter().for_each(|&seed| put(seed));
        for c in &self.control {
            for v in [c.t, c.h, c.errors[0]] {
                put(v.to_bits());
            }
            if plan.remembers() {
                put(c.errors[1].to_bits());
            }
            put(u64::from(c.done) | u64::from(c.rejected) << 1);
        }
        for p in &self.places {
            put(p.position as u64);
            put(u64::from(p.selected) | u64::from(p.moving) << 1);
        }
        self.numbers.iter().for_each(|number| put(number.to_bits()));
        for chain in &self.chains {
            for v in [chain.step, chain.log_mean, chain.miss] {
                put(v.to_bits());
            }
            put(chain.accepted);
        }
        debug_assert!(places.next().is_none());
        crc.copy_from_slice(&u64::from(crc32fast::hash(body)).to_le_bytes());
    }

    /// Reads what [`encode`](Run::encode) wrote; bytes after the header are ignored.
    ///
    /// # Errors
    /// [`Error::Format`] when the bytes are not a run, are cut short or damaged;
    /// [`Error::State`] when the run belongs to another plan.
    pub fn decode(plan: &Plan, bytes: &[u8]) -> Result<Run> {
        let (rows, elements) = sizes(bytes)?;
        // Rows that no memory holds are a corrupted number here, not a wish of the caller.
        let len = Run::header_len(plan, rows).map_err(|e| bad(RUN, e))?;
        let mut r = Reader { what: RUN, bytes };
        r.take(8)?;
        let hash = r.u64()?;
        if hash != plan.hash() {
            return Err(other_plan(hash, plan));
        }
        let header = bytes.get(..len).ok_or_else(|| bad(RUN, "it is cut short"))?;
        let mut r = Reader { what: RUN, bytes: unseal(RUN, header)? };
        r.take(32)?;
        let position = r.size()?;
        if position != plan.table().rows.len() && plan.eval_at(position).is_none() {
            return Err(bad(RUN, format!("its position {position} is no evaluation of the plan")));
        }
        let [evals, rounds, accepts, rejects] = r.words()?;
        let counters = Counters { evals, rounds, accepts, rejects };
        let c = &counters;
        if [c.evals, c.rounds, c.accepts, c.rejects].iter().any(|&n| n > MOST_COUNTED) {
            return Err(bad(RUN, "its counters are out of range"));
        }
        let (seeds, _) = r.take(8 * rows)?.as_chunks::<8>();
        let seeds = seeds.iter().map(|seed| u64::from_le_bytes(*seed)).collect();
        let mut control = Vec::new();
        if plan.is_adaptive() {
            let ((start, end), rule, stops) = (plan.ends(), plan.control(), plan.stops());
            for row in 0..rows {
                let (t, h, error) = (r.f64()?, r.f64()?, r.f64()?);
                let errors = [error, if plan.remembers() { r.f64()? } else { 1.0 }];
                let flags = r.u64()?;
                let fits = (end.min(start)..=end.max(start)).contains(&t)
                    && h >= 0.0
                    && h.is_finite()
                    && errors.iter().all(|e| rule.remembers(*e))
                    && flags < 4;
                if !fits {
                    return Err(bad(RUN, format!("the controller of row {row} is out of range")));
                }
                let (done, rejected) = (flags & 1 != 0, flags & 2 != 0);
                let mut c = Control { t, h, errors, end, goal: end, done, rejected };
                c.aim(&stops);
                control.push(c);
            }
        }
        let mut places = Vec::new();
        if plan.options().per_row {
            let end = plan.table().rows.len();
            for row in 0..rows {
                let (position, flags) = (r.size()?, r.u64()?);
                let place = Place { position, selected: flags & 1 != 0, moving: flags & 2 != 0 };
                let stands = position == end || plan.eval_at(position).is_some();
                let moves =
                    if place.moving { place.selected && position < end } else { plan.starts_step(position) };
                if flags >= 4 || !stands || !moves {
                    return Err(bad(RUN, format!("the place of row {row} is out of range")));
                }
                places.push(place);
            }
        }
        let numbers: Vec<f64> = (0..rows * plan.kept()).map(|_| r.f64()).collect::<Result<_>>()?;
        if numbers.iter().any(|v| v.is_nan()) {
            return Err(bad(RUN, "its numbers are not numbers"));
        }
        let mut chains = Vec::new();
        for row in 0..if plan.is_tested() { rows } else { 0 } {
            let (step, log_mean, miss, accepted) = (r.f64()?, r.f64()?, r.f64()?, r.u64()?);
            let fits = step > 0.0 && step.is_finite() && log_mean.is_finite() && miss.abs() <= 1.0;
            if !fits || accepted > MOST_COUNTED {
                return Err(bad(RUN, format!("the chain of row {row} is out of range")));
            }
            chains.push(Chain { step, log_mean, miss, accepted });
        }
        plan.state_len(rows, elements).map_err(|e| bad(RUN, e))?;
        let mut run =
            Run { plan: hash, elements, position, counters, seeds, control, places, numbers, chains };
        if plan.options().per_row {
            run.settle(plan);
            if run.position != position {
                return Err(bad(RUN, format!("its position {position} is that of no row to ask for")));
            }
        }
        Ok(run)
    }

    /// The `(rows, elements)` of an exported run, without its plan: never more than the block could
    /// hold, so that a corrupted one cannot make a reader ask for memory without end.
    ///
    /// # Errors
    /// [`Error::Format`] when the bytes do not begin with a run or are fewer than it needs.
    pub fn peek(bytes: &[u8]) -> Result<(usize, usize)> {
        let (rows, elements) = sizes(bytes)?;
        // A seed and at least one state tensor.
        let row = elements.checked_mul(size_of::<f32>()).and_then(|n| n.checked_add(8));
        let least = row.and_then(|n| n.checked_mul(rows)).and_then(|n| n.checked_add(FIXED + 2 * CRC));
        if least.is_none_or(|n| n > bytes.len()) {
            let message = format!("{} bytes cannot hold {rows} rows of {elements} elements", bytes.len());
            return Err(bad(EXPORT, message));
        }
        Ok((rows, elements))
    }

    /// Bytes of an [`export`](Run::export).
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Overflow`] when the export cannot be addressed.
    pub fn export_len(&self, plan: &Plan) -> Result<usize> {
        self.check_plan(plan)?;
        let state = plan.state_len(self.rows(), self.elements)?;
        let header = Run::header_len(plan, self.rows())?;
        (state * size_of::<f32>())
            .checked_add(header + CRC)
            .ok_or_else(|| Error::Overflow { arg: "export", got: format!("{state} elements") })
    }

    /// The run and its state as one block: a checkpoint that [`import`](Run::import) continues,
    /// on any machine, with the same bits.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Shape`] when `state` has the wrong length.
    pub fn export(&self, plan: &Plan, state: &[f32]) -> Result<Vec<u8>> {
        self.check(plan, state.len())?;
        let mut out = vec![0; self.export_len(plan)?];
        self.export_to(plan, state, &mut out)?;
        Ok(out)
    }

    /// [`export`](Run::export) into the caller's bytes; returns how many were written.
    ///
    /// # Errors
    /// As [`export`](Run::export); [`Error::Shape`] when `out` is too short.
    pub fn export_to(&self, plan: &Plan, state: &[f32], out: &mut [u8]) -> Result<usize> {
        self.check(plan, state.len())?;
        let len = self.export_len(plan)?;
        if out.len() < len {
            return Err(Error::shape("export", &[out.len()], format!("at least {len} bytes")));
        }
        let header = self.encode(plan, out)?;
        let (body, crc) = out[header..len].split_at_mut(len - header - CRC);
        for (bytes, v) in body.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&v.to_le_bytes());
        }
        crc.copy_from_slice(&u64::from(crc32fast::hash(body)).to_le_bytes());
        Ok(len)
    }

    /// Reads an [`export`](Run::export): fills `state` and returns the run.
    /// [`peek`](Run::peek) tells how long `state` must be.
    ///
    /// # Errors
    /// [`Error::Format`] when the block is not an export, is cut short, too long or damaged;
    /// [`Error::State`] when it belongs to another plan; [`Error::Shape`] when `state` has the
    /// wrong length. `state` is untouched on error.
    pub fn import(plan: &Plan, bytes: &[u8], state: &mut [f32]) -> Result<Run> {
        let run = Run::decode(plan, bytes)?;
        let len = run.export_len(plan)?;
        if bytes.len() != len {
            return Err(bad(EXPORT, format!("it has {} bytes where {len} are needed", bytes.len())));
        }
        run.check(plan, state.len())?;
        let body = unseal(EXPORT, &bytes[Run::header_len(plan, run.rows())?..])?;
        for (v, b) in state.iter_mut().zip(body.chunks_exact(4)) {
            *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        Ok(run)
    }
}
