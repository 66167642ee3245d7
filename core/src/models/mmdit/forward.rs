//! Times, texts and image tokens through the blocks.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayView5, Axis};

use super::{Block, FREQUENCIES, Heads, Rest, Space, Stream, Trunk};
use crate::attention::{AttentionOptions, attention};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, Residual, check_strides, linear, linear_rows};
use crate::models::dit::gated;
use crate::models::views::{internal, view2, view2_mut, view3, view3_mut, view4, view4_mut};
use crate::nn::{self, Rope};

/// The epsilon of every norm of the architecture.
const EPS: f32 = 1e-6;

/// Which parts of a modulation are shift and scale: a block's first norm, its second one, and a last norm.
pub(in crate::models) const FIRST: [usize; 2] = [0, 1];
const SECOND: [usize; 2] = [3, 4];
const SCALE_SHIFT: [usize; 2] = [1, 0];

/// What one image of a batch comes with.
pub(in crate::models) struct Inputs<'a> {
    /// 0 to 1000.
    pub t: f64,
    /// As `t`, where the network has an embedding of it.
    pub guidance: Option<f64>,
    /// `[S, text]`.
    pub text: ArrayView2<'a, f32>,
    /// `[1, pooled]`.
    pub pooled: ArrayView2<'a, f32>,
}

/// Checks times, texts and pooled texts of a batch.
pub(in crate::models) fn check_batch(
    trunk: &Trunk,
    batch: usize,
    t: &[f32],
    text: &ArrayView3<'_, f32>,
    pooled: &ArrayView2<'_, f32>,
) -> Result<()> {
    check_shape("t", &[t.len()], &[batch])?;
    check_shape("text", text.shape(), &[batch, text.dim().1, trunk.shape.text])?;
    check_shape("pooled", pooled.shape(), &[batch, trunk.shape.pooled])?;
    // Of one image: the batch may lie as it likes.
    check_strides("text", &text.shape()[1..], &text.strides()[1..], false)?;
    check_strides("pooled", &pooled.shape()[1..], &pooled.strides()[1..], false)?;
    finite("t", t)
}

/// Refuses numbers that are not finite.
pub(in crate::models) fn finite(arg: &'static str, numbers: &[f32]) -> Result<()> {
    match numbers.iter().position(|t| !t.is_finite()) {
        Some(row) => Err(Error::range(arg, format!("{} in row {row}", numbers[row]), "a finite number")),
        None => Ok(()),
    }
}

impl Trunk {
    /// What stands before the blocks: the embeddings, and the text behind `image` numbers of image tokens.
    pub fn begin(&self, inputs: &Inputs, image: usize, space: &mut Space) -> Result<()> {
        let d = self.shape.hidden;
        let text = view2_mut(&mut space.now[image..], inputs.text.nrows(), d)?;
        linear(inputs.text, &self.context, Activation::None, text)?;
        self.condition(inputs, space.cond, space.wide)
    }

    /// SiLU of the sum of the embeddings of times and pooled text: all that the blocks see of them.
    fn condition(&self, inputs: &Inputs, cond: &mut [f32], wide: &mut [f32]) -> Result<()> {
        let d = self.shape.hidden;
        let (frequencies, hidden) = wide.split_at_mut(FREQUENCIES);
        let hidden = &mut hidden[..d];
        nn::embed_time(inputs.t, &self.frequencies, frequencies);
        linear_rows(frequencies, 1, &self.time[0], Activation::Silu, hidden);
        linear_rows(hidden, 1, &self.time[1], Activation::None, cond);
        if let (Some(guidance), Some(layers)) = (inputs.guidance, &self.guidance) {
            nn::embed_time(guidance, &self.frequencies, frequencies);
            linear_rows(frequencies, 1, &layers[0], Activation::Silu, hidden);
            linear_rows(hidden, 1, &layers[1], Residual::Out, cond);
        }
        linear(inputs.pooled, &self.pooled[0], Activation::Silu, view2_mut(hidden, 1, d)?)?;
        linear_rows(hidden, 1, &self.pooled[1], Residual::Out, cond);
        nn::silu_inplace(cond)
    }

    /// All blocks of two streams; the first `image` numbers of the tokens are the image's.
    pub fn run(&self, image: usize, rope: Option<&Rope>, space: &mut Space) -> Result<()> {
        self.blocks.iter().try_for_each(|block| block.run(image, rope, space))
    }

    /// The last norm of the image tokens, into `normed`.
    pub fn end(&self, image: usize, space: &mut Space) -> Result<()> {
        let d = self.shape.hidden;
        let modulation = &mut space.modulations[..2 * d];
        linear_rows(space.cond, 1, &self.final_modulation, Activation::None, modulation);
        modulated(&space.now[..image], modulation, SCALE_SHIFT, d, &mut space.normed[..image])
    }
}

impl Block {
    fn run(&self, image: usize, rope: Option<&Rope>, space: &mut Space) -> Result<()> {
        let Space { cond, modulations, now, normed, wide, .. } = space;
        let (d, all) = (cond.len(), now.len());
        let streams = [(&self.image, 0..image), (&self.text, image..all)];
        // Queries, keys and values of both streams below one another.
        for ((stream, part), modulation) in streams.iter().zip(modulations.chunks_exact_mut(6 * d)) {
            let modulation = &mut modulation[..stream.modulation.out_features()];
            linear_rows(cond, 1, &stream.modulation, Activation::None, modulation);
            let normed = &mut normed[part.clone()];
            modulated(&now[part.clone()], modulation, stream.first(), d, normed)?;
            let places = rope.map(|rope| (rope, part.start / d));
            stream.heads.run(normed, places, &mut wide[3 * part.start..3 * part.end])?;
        }
        self.image.heads.attend(&wide[..3 * all], normed)?;
        for ((stream, part), modulation) in streams.iter().zip(modulations.chunks_exact(6 * d)) {
            if let Some(rest) = &stream.rest {
                rest.run(&mut now[part.clone()], modulation, &mut normed[part.clone()], wide)?;
            }
        }
        Ok(())
    }
}

impl Stream {
    fn first(&self) -> [usize; 2] {
        if self.rest.is_some() { FIRST } else { SCALE_SHIFT }
    }
}

impl Heads {
    /// Queries, keys and values `[rows, 3, heads, size]` of `normed` `[rows, d]`, which is room from then on;
    /// with tables queries and keys are turned, the first row as the table's row of that number.
    pub fn run(&self, normed: &mut [f32], places: Option<(&Rope, usize)>, qkv: &mut [f32]) -> Result<()> {
        let d = self.qkv.in_features();
        let (rows, heads, size) = (normed.len() / d, self.count, d / self.count);
        linear_rows(normed, rows, &self.qkv, Activation::None, qkv);
        if self.norms.is_none() && places.is_none() {
            return Ok(());
        }
        let shape = [rows, 3, heads, size];
        for i in 0..2 {
            let mut room = view3_mut(normed, rows, heads, size)?;
            let from = view4(qkv, shape)?.index_axis_move(Axis(1), i);
            match &self.norms {
                Some(norms) => {
                    let weight = Some(ArrayView1::from(&norms[i][..]).into());
                    nn::rms_norm(from, weight, EPS, room.view_mut())?;
                }
                None => room.assign(&from),
            }
            let mut to = view4_mut(qkv, shape)?.index_axis_move(Axis(1), i);
            match places {
                Some((rope, first)) => {
                    let from = view4(normed, [1, rows, heads, size])?.permuted_axes([0, 2, 1, 3]);
                    let to = to.insert_axis(Axis(0)).permuted_axes([0, 2, 1, 3]);
                    nn::rope(from, &[first], rope, to)?;
                }
                None => to.assign(&room),
            }
        }
        Ok(())
    }

    /// Attention of all tokens to each other: `qkv` `[tokens, 3, heads, size]`, heads side by side in `out`.
    pub fn attend(&self, qkv: &[f32], out: &mut [f32]) -> Result<()> {
        let (d, heads) = (self.qkv.in_features(), self.count);
        let (tokens, size) = (qkv.len() / (3 * d), d / heads);
        let qkv = ArrayView5::from_shape((1, tokens, 3, heads, size), qkv).map_err(internal)?;
        let qkv = qkv.permuted_axes([2, 0, 3, 1, 4]);
        attention(
            qkv.index_axis(Axis(0), 0),
            qkv.index_axis(Axis(0), 1),
            qkv.index_axis(Axis(0), 2),
            &AttentionOptions::default(),
            view4_mut(out, [1, tokens, heads, size])?.permuted_axes([0, 2, 1, 3]),
            None,
        )
    }
}

impl Rest {
    /// From the heads' results in `mixed` to the end of the block.
    fn run(&self, x: &mut [f32], modulation: &[f32], mixed: &mut [f32], wide: &mut [f32]) -> Result<()> {
        let d = self.out.out_features();
        let rows = x.len() / d;
        linear_rows(mixed, rows, &self.out, gated(part(modulation, 2, d)?), x);
        modulated(x, modulation, SECOND, d, mixed)?;
        let hidden = &mut wide[..rows * self.fc1.out_features()];
        linear_rows(mixed, rows, &self.fc1, Activation::GeluTanh, hidden);
        linear_rows(hidden, rows, &self.fc2, gated(part(modulation, 5, d)?), x);
        Ok(())
    }
}

/// Layer norm of `x` `[rows, d]`, then its modulation by two parts.
pub(in crate::models) fn modulated(
    x: &[f32],
    modulation: &[f32],
    [shift, scale]: [usize; 2],
    d: usize,
    out: &mut [f32],
) -> Result<()> {
    let rows = x.len() / d;
    let (shift, scale) = (part(modulation, shift, d)?, part(modulation, scale, d)?);
    nn::layer_norm_modulate(view3(x, 1, rows, d)?, shift, scale, EPS, view3_mut(out, 1, rows, d)?)
}

/// Part `i` of a modulation, `[1, d]`.
pub(in crate::models) fn part(modulation: &[f32], i: usize, d: usize) -> Result<ArrayView2<'_, f32>> {
    view2(&modulation[i * d..(i + 1) * d], 1, d)
}
