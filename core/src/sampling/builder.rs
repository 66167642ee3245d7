//! Writes a table. Solvers say what to evaluate and combine; guidance, clipping, masks and the
//! meaning of the output are settled here, so no solver branches on them.

use super::brownian;
use super::options::{Guidance, NoiseKind, PlanOptions, Prediction};
use super::prediction::{self, Map, Meaning};
use super::process::{Levels, Node};
use super::table::{
    At, Draw, Eval, KNOWN, Lin, MASK, MAX_SLOTS, MAX_TERMS, Measure, Operand, Role, Row, Scale, Sum, Table, X,
};
use crate::error::{Error, Result};
use crate::random::Purpose;

/// Registers: 0 the guided output, 1 the clipped x0, 2 free for the solver.
const GUIDED: Operand = Operand::Reg(0);
const CLIPPED: Operand = Operand::Reg(1);
pub(super) const FREE: Operand = Operand::Reg(2);

/// Draws of one step are this far apart, so that no step reaches them by its number.
const STAGE: u32 = 1 << 20;

pub(super) struct Builder<'a> {
    options: &'a PlanOptions,
    pub levels: &'a Levels,
    table: Table,
    /// Slots in use; a restart uses those of the segment before again.
    used: usize,
    /// Holds the conditional output while the unconditional one is asked for.
    guide: Option<Operand>,
    /// APG's difference.
    difference: Option<Operand>,
    /// The state times the scale at which the model reads it.
    scaled: Option<Operand>,
    /// x0 while it is thresholded.
    bounded: Option<Operand>,
    /// Model times of the grid, for the requests.
    times: Vec<f64>,
    /// Steps of the whole walk, and number of the first of this segment.
    steps: usize,
    first: usize,
    /// Whether the last evaluation asked for both outputs.
    split: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(options: &'a PlanOptions, levels: &'a Levels, steps: usize) -> Self {
        let mut b = Builder {
            options,
            levels,
            table: Table { slots: 1, ..Default::default() },
            used: 1,
            guide: None,
            difference: None,
            scaled: None,
            bounded: None,
            times: Vec::new(),
            steps,
            first: 0,
            split: false,
        };
        if options.inpaint {
            let slots = (b.slot(), b.slot());
            debug_assert_eq!(slots, (KNOWN, Operand::Slot(MASK)));
        }
        if options.guidance != 1.0 || options.guidance_weak != 1.0 {
            b.guide = Some(b.slot());
            if options.guidance_mode == Guidance::Apg {
                b.difference = Some(b.slot());
            }
        }
        let reads_scaled = options.prediction.reads_scaled();
        b.scaled = reads_scaled.then(|| b.slot());
        b.bounded = (options.threshold_ratio != 0.0).then(|| b.slot());
        b
    }

    /// Begins a walk over these nodes; solvers count its steps from 0.
    pub(super) fn begin(&mut self, nodes: &[Node], first: usize) {
        self.times = nodes.iter().map(|n| n.t).collect();
        self.first = first;
    }

    /// State tensors in use, to [`release`](Self::release) those that come after.
    pub(super) fn mark(&self) -> usize {
        self.used
    }

    pub(super) fn release(&mut self, mark: usize) {
        self.used = mark;
    }

    pub(super) fn finish(mut self, end: &Node) -> Table {
        self.blend(end, self.steps as u32);
        self.table
    }

    pub(super) fn options(&self) -> &'a PlanOptions {
        self.options
    }

    /// The order asked for, or the solver's own.
    pub(super) fn order(&self) -> usize {
        let own = self.options.solver.orders().map_or(1, |(_, own)| own);
        if self.options.order == 0 { own } else { self.options.order }
    }

    /// A further state tensor.
    pub(super) fn slot(&mut self) -> Operand {
        debug_assert!(self.used < MAX_SLOTS);
        self.used += 1;
        self.table.slots = self.table.slots.max(self.used);
        Operand::Slot((self.used - 1) as u8)
    }

    pub(super) fn push(&mut self, row: Row) {
        self.table.rows.push(row);
    }

    pub(super) fn position(&self) -> u32 {
        self.table.rows.len() as u32
    }

    /// `dst = sum`
    pub(super) fn lin(&mut self, dst: Operand, sum: Sum) {
        self.write(dst, sum, f32::INFINITY, None);
    }

    fn write(&mut self, dst: Operand, sum: Sum, clamp: f32, mask: Option<u8>) {
        let first = self.table.terms.len() as u32;
        // A zero coefficient would still turn an infinity into a NaN.
        self.table.terms.extend(sum.0.into_iter().filter(|t| t.coefficient != 0.0));
        let count = (self.table.terms.len() - first as usize) as u8;
        debug_assert!(usize::from(count) <= MAX_TERMS);
        self.push(Row::Lin(Lin { first, count, dst, clamp, mask }));
    }

    /// Puts the known parts, noised to a level, where the mask says so. Not before the first evaluation.
    fn blend(&mut self, node: &Node, number: u32) {
        if !self.options.inpaint || self.table.rows.is_empty() {
            return;
        }
        let noise = self.draw(Draw::One { purpose: Purpose::Inpaint, number });
        self.write(X, Sum::of(KNOWN, node.alpha).plus(noise, node.sigma), f32::INFINITY, Some(MASK));
    }

    fn draw(&mut self, draw: Draw) -> Operand {
        self.table.draws.push(draw);
        Operand::Draw((self.table.draws.len() - 1) as u32)
    }

    /// Normals for the noise that carries a state from one level towards another. A step that
    /// draws more than once counts its stages.
    pub(super) fn noise(&mut self, step: usize, stage: u32, from: &Node, to: &Node) -> Operand {
        match self.options.noise {
            NoiseKind::Brownian => {
                let path = brownian::increment(from, to);
                self.draw(Draw::Path(path))
            }
            NoiseKind::Independent if stage == 0 => Operand::Noise,
            NoiseKind::Independent => self.fresh(step, stage),
        }
    }

    /// Normals that belong to no way between levels: those of a stage of a step, from 1.
    pub(super) fn fresh(&mut self, step: usize, stage: u32) -> Operand {
        let number = (self.first + step) as u32 + stage * STAGE;
        self.draw(Draw::One { purpose: Purpose::Step, number })
    }

    /// Normals that raise the noise level before a step.
    pub(super) fn churn(&mut self, number: usize) -> Operand {
        self.draw(Draw::One { purpose: Purpose::Churn, number: number as u32 })
    }

    /// Whether this is the last step of the walk.
    pub(super) fn is_last(&self, step: usize) -> bool {
        self.first + step + 1 == self.steps
    }

    /// Number of a step in the whole walk.
    pub(super) fn number(&self, step: usize) -> usize {
        self.first + step
    }

    /// Asks the model at `at` for the state in `slot`; returns where the (guided) output is.
    ///
    /// # Errors
    /// As [`data`](Self::data), for guidance on x0.
    pub(super) fn eval(&mut self, at: At, step: usize, stage: u16, slot: Operand) -> Result<Operand> {
        let number = self.first + step;
        if let (At::Node(node), 0, X) = (at, stage, slot) {
            self.blend(&node, number as u32);
        }
        let mut read = slot;
        if let (Some(scaled), At::Node(node)) = (self.scaled, at) {
            self.lin(scaled, Sum::of(slot, self.raw().input_scale(&node)));
            read = scaled;
        }
        let Operand::Slot(index) = read else { unreachable!("the model reads state tensors") };
        let to = self.times.get(step + 1).copied().unwrap_or(f64::NAN);
        let eval = |role| {
            Row::Eval(Eval { at, step: number as u32, stage, slot: index, role, roles: role.bit(), to })
        };
        self.push(eval(Role::Cond));
        let o = self.options;
        let fraction = number as f64 / self.steps.max(1) as f64;
        let inside = o.guidance_start <= fraction && (fraction < o.guidance_end || o.guidance_end == 1.0);
        self.split = false;
        if self.guide.is_some() && number < o.zero_init_steps {
            self.lin(GUIDED, Sum::default());
            return Ok(GUIDED);
        }
        let Some(guide) = self.guide.filter(|_| inside) else {
            if self.difference.is_some() {
                let data = self.raw_data(at, slot)?;
                self.lin(GUIDED, data);
                return Ok(GUIDED);
            }
            return Ok(Operand::Model);
        };
        self.split = true;
        if let Some(difference) = self.difference {
            let data = self.raw_data(at, slot)?;
            self.lin(guide, data);
            self.push(eval(Role::Uncond));
            let data = self.raw_data(at, slot)?;
            let sum = Sum::of(guide, 1.0).plus_sum(&data, -1.0).plus(difference, o.apg_momentum);
            self.lin(difference, sum);
            let what = Measure::Adaptive { g: o.guidance, eta: o.apg_eta, norm: o.apg_norm };
            self.push(Row::Measure { what, a: difference, b: guide });
            self.lin(
                GUIDED,
                Sum::default().scaled(guide, 1.0, Scale::Row(1)).scaled(difference, 1.0, Scale::Row(0)),
            );
            return Ok(GUIDED);
        }
        if o.guidance_weak != 1.0 {
            self.push_both(guide, eval);
            return Ok(GUIDED);
        }
        self.lin(guide, Sum::of(Operand::Model, 1.0));
        let second = if o.guidance_mode == Guidance::Auto { Role::Weak } else { Role::Uncond };
        self.push(eval(second));
        let g = o.guidance;
        let mut sum = Sum::of(guide, g).plus(Operand::Model, 1.0 - g);
        if o.guidance_mode == Guidance::CfgZero {
            self.push(Row::Measure { what: Measure::Project, a: guide, b: Operand::Model });
            sum = Sum::of(guide, g).scaled(Operand::Model, 1.0 - g, Scale::Row(0));
        } else if o.guidance_rescale != 0.0 {
            let what = Measure::Rescale { g, phi: o.guidance_rescale };
            self.push(Row::Measure { what, a: guide, b: Operand::Model });
            sum =
                Sum::default().scaled(guide, g, Scale::Row(0)).scaled(Operand::Model, 1.0 - g, Scale::Row(0));
        }
        self.lin(GUIDED, sum);
        Ok(GUIDED)
    }

    /// Classifier-free guidance and autoguidance: `(g + w - 1) c + (1 - g) u + (1 - w) k`.
    fn push_both(&mut self, guide: Operand, eval: impl Fn(Role) -> Row) {
        let (g, w) = (self.options.guidance, self.options.guidance_weak);
        self.lin(guide, Sum::of(Operand::Model, g + w - 1.0));
        if g != 1.0 {
            self.push(eval(Role::Uncond));
            self.lin(guide, Sum::of(guide, 1.0).plus(Operand::Model, 1.0 - g));
        }
        self.push(eval(Role::Weak));
        self.lin(GUIDED, Sum::of(guide, 1.0).plus(Operand::Model, 1.0 - w));
    }

    /// What the model's own output means.
    fn raw(&self) -> Meaning {
        Meaning::new(self.options, self.options.prediction)
    }

    /// x0 of the output just told, before guidance.
    fn raw_data(&self, at: At, x: Operand) -> Result<Sum> {
        let At::Node(node) = at else { unreachable!("adaptive plans guide outputs") };
        let map = self.raw().data(&node);
        if !map.is_defined() {
            return Err(undefined(self.options.prediction, &node));
        }
        Ok(Sum::of(x, map.x).plus(Operand::Model, map.y))
    }

    /// What `eval` returns means: the prediction, or x0 where guidance works on that.
    fn meaning(&self) -> Meaning {
        if self.difference.is_some() { Meaning::new(self.options, Prediction::X0) } else { self.raw() }
    }

    /// The predicted x0 at `node`, as a sum of the state in `x` and the output in `y`.
    ///
    /// # Errors
    /// [`Error::Argument`] where the prediction does not determine x0 (eps where alpha is 0).
    pub(super) fn data(&mut self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        let meaning = self.meaning();
        let map = meaning.data(node);
        if !map.is_defined() {
            return Err(undefined(meaning.prediction, node));
        }
        let sum = Sum::of(x, map.x).plus(y, map.y);
        if let Some(Operand::Slot(slot)) = self.bounded {
            self.lin(Operand::Slot(slot), sum);
            let (ratio, most) = (self.options.threshold_ratio, self.options.threshold_max);
            self.push(Row::Threshold { slot, ratio, most });
            return Ok(Sum::of(Operand::Slot(slot), 1.0));
        }
        Ok(match self.options.clip {
            None => sum,
            Some(c) => {
                self.write(CLIPPED, sum, c as f32, None);
                Sum::of(CLIPPED, 1.0)
            }
        })
    }

    /// Whether x0 is bounded before anything follows from it.
    fn bounds(&self) -> bool {
        self.options.clip.is_some() || self.bounded.is_some()
    }

    /// What slopes and noise are taken from: the output, or the bounded x0.
    fn source(&self) -> Meaning {
        if self.bounds() { Meaning::new(self.options, Prediction::X0) } else { self.meaning() }
    }

    /// `map` of the output, or of the bounded x0.
    fn mapped(&mut self, map: Map, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        if !map.is_defined() {
            return Err(undefined(self.source().prediction, node));
        }
        if self.bounds() {
            let data = self.data(node, x, y)?;
            return Ok(Sum::of(x, map.x).plus_sum(&data, map.y));
        }
        Ok(Sum::of(x, map.x).plus(y, map.y))
    }

    /// The derivative at `node` along the ODE coordinate.
    ///
    /// # Errors
    /// [`Error::Argument`] where the prediction does not determine it.
    pub(super) fn derivative(&mut self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        self.mapped(self.source().derivative(node), node, x, y)
    }

    /// The predicted eps at `node`.
    ///
    /// # Errors
    /// As [`derivative`](Self::derivative).
    pub(super) fn eps(&mut self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        self.mapped(self.source().noise(node), node, x, y)
    }

    /// The predicted eps before x0 is bounded.
    ///
    /// # Errors
    /// As [`derivative`](Self::derivative).
    pub(super) fn free_eps(&self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        let map = self.meaning().noise(node);
        if !map.is_defined() {
            return Err(undefined(self.meaning().prediction, node));
        }
        Ok(Sum::of(x, map.x).plus(y, map.y))
    }

    /// The eps that a step back to noise uses: of the unconditional output under CFG++, else of
    /// the x0 in `data`.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub(super) fn renoise(&mut self, node: &Node, x: Operand, data: &Sum) -> Result<Sum> {
        if self.options.guidance_mode == Guidance::CfgPlusPlus && self.split {
            let map = self.raw().noise(node);
            if !map.is_defined() {
                return Err(undefined(self.options.prediction, node));
            }
            return Ok(Sum::of(x, map.x).plus(Operand::Model, map.y));
        }
        Ok(Sum::of(x, 1.0 / node.sigma).plus_sum(data, -node.alpha / node.sigma))
    }

    /// Whether guidance separates x0 from eps.
    pub(super) fn separates(&self) -> bool {
        self.guide.is_some() && self.options.guidance_mode == Guidance::CfgPlusPlus
    }

    /// Whether [`derivative`](Self::derivative) is defined at `node`.
    pub(super) fn has_derivative(&self, node: &Node) -> bool {
        self.levels.knows(node) && self.source().derivative(node).is_defined()
    }

    /// Whether eps is defined at `node`.
    pub(super) fn has_noise(&self, node: &Node) -> bool {
        self.levels.knows(node) && self.source().noise(node).is_defined()
    }

    /// The derivative at each row's own level, for adaptive plans.
    pub(super) fn row_derivative(&mut self, x: Operand, y: Operand) -> Sum {
        self.row_sum(x, y, Scale::SlopeX, Scale::SlopeY)
    }

    /// The predicted eps at each row's own level.
    pub(super) fn row_eps(&mut self, x: Operand, y: Operand) -> Sum {
        self.row_sum(x, y, Scale::NoiseX, Scale::NoiseY)
    }

    /// A sum of the state and of the output, or of the x0 that was clipped.
    fn row_sum(&mut self, x: Operand, y: Operand, of_x: Scale, of_y: Scale) -> Sum {
        let slope = |y| Sum::default().scaled(x, 1.0, of_x).scaled(y, 1.0, of_y);
        match self.options.clip {
            None => slope(y),
            Some(c) => {
                let data = Sum::default().scaled(x, 1.0, Scale::DataX).scaled(y, 1.0, Scale::DataY);
                self.write(CLIPPED, data, c as f32, None);
                slope(CLIPPED)
            }
        }
    }

    /// The error for a level where the derivative is missing.
    pub(super) fn undefined(&self, node: &Node) -> Error {
        undefined(self.source().prediction, node)
    }
}

/// The maps a row of an adaptive plan uses at its own level: x0, derivative, eps.
pub(super) fn row_maps(options: &PlanOptions, node: &Node) -> [Map; 3] {
    let source = Meaning::new(options, prediction::derivative_source(options));
    let data = Meaning::new(options, options.prediction).data(node);
    [data, source.derivative(node), source.noise(node)]
}

fn undefined(prediction: Prediction, node: &Node) -> Error {
    let (got, why) = match prediction {
        Prediction::X0 => (
            "x0 (predicted, guided or clipped)",
            "sigma is 0 there, so the state says nothing about the noise",
        ),
        other => (other.name(), "alpha is 0 there, so the state holds nothing but the noise"),
    };
    Error::argument(
        "prediction",
        format!("{got} at t = {} (alpha {}, sigma {})", node.t, node.alpha, node.sigma),
        format!("another prediction, or times that avoid this level: {why}"),
    )
}
