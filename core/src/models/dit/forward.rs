//! The forward pass.

use std::sync::{Mutex, PoisonError};

use half::bf16;
use ndarray::{ArrayView2, ArrayView4, ArrayViewMut4, Axis, s};

use super::spaces::Spaces;
use super::{Block, Dit};
use crate::arch::Lend;
use crate::attention::{AttentionOptions, attention};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, LinearOptions, Residual, linear_rows};
use crate::models::DitConfig;
use crate::models::views::{internal, view2, view2_mut, view3, view3_mut};
use crate::nn;
use crate::tensor::Element;
use crate::threads;

/// The epsilon of every layer norm of the architecture.
const EPS: f32 = 1e-6;
/// The longest period of the sinusoidal time embedding.
const MAX_PERIOD: f32 = 10_000.0;
/// Rows of a linear layer that are worth reading its weights for.
const FEWEST_ROWS: usize = 256;

impl Dit {
    /// Floats of workspace that [`Dit::forward`] needs for a batch.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space.
    pub fn workspace_len(&self, batch: usize) -> Result<usize> {
        self.sizes()
            .per_image()
            .checked_mul(batch)
            .filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
            .ok_or_else(|| Error::Overflow { arg: "batch", got: batch.to_string() })
    }

    /// The network's output for a batch.
    ///
    /// * `x` `[B, C, H, W]`: the noisy images.
    /// * `t` `[B]`: the process's time of each image (flow: 0 to 1).
    /// * `labels` `[B]`: class of each image, `num_classes` for the null class.
    /// * `workspace`: at least [`Dit::workspace_len`] floats, contents irrelevant before and after.
    /// * `out` `[B, C_out, H, W]`.
    ///
    /// An image's result does not depend on the other images of the batch.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Range`] naming the argument; `out` is untouched then.
    pub fn forward(
        &self,
        x: ArrayView4<'_, f32>,
        t: &[f32],
        labels: &[i64],
        workspace: &mut [f32],
        mut out: ArrayViewMut4<'_, f32>,
    ) -> Result<()> {
        let c = &self.config;
        let batch = x.dim().0;
        check_shape("x", x.shape(), &[batch, c.channels, c.height, c.width])?;
        check_shape("out", out.shape(), &[batch, c.out_channels, c.height, c.width])?;
        check_shape("t", &[t.len()], &[batch])?;
        check_shape("labels", &[labels.len()], &[batch])?;
        for (row, &label) in labels.iter().enumerate() {
            if usize::try_from(label).map_or(true, |l| l > c.num_classes) {
                return Err(Error::range(
                    "labels",
                    format!("{label} in row {row}"),
                    format!("0 to {} ({} is the null class)", c.num_classes, c.num_classes),
                ));
            }
        }
        for (row, &time) in t.iter().enumerate() {
            if !time.is_finite() {
                return Err(Error::range("t", format!("{time} in row {row}"), "a finite time"));
            }
        }
        let needed = self.workspace_len(batch)?;
        if workspace.len() < needed {
            return Err(Error::shape("workspace", &[workspace.len()], format!("at least [{needed}]")));
        }
        if batch == 0 {
            return Ok(());
        }

        // Images are independent, so a batch is split over threads as a whole: one fork for
        // the forward instead of one a layer. A small batch leaves the layers to the threads.
        let work = c.flops().saturating_mul(batch as u64);
        let threads = threads::num_threads();
        let chunk = if threads::is_parallel(work) && batch >= threads {
            // Several parts a thread even the load, but few rows read all weights for little work.
            let rows_enough = FEWEST_ROWS.div_ceil(c.tokens());
            batch.div_ceil(4 * threads).max(rows_enough.min(batch.div_ceil(threads)))
        } else {
            batch
        };
        let per_image = self.sizes().per_image();
        let items = x
            .axis_chunks_iter(Axis(0), chunk)
            .zip(t.chunks(chunk))
            .zip(labels.chunks(chunk))
            .zip(out.axis_chunks_iter_mut(Axis(0), chunk));
        let spaces = Spaces::new(workspace, chunk * per_image);
        let failure = Mutex::new(None);
        let run = |(((x, t), labels), out): (((ArrayView4<f32>, &[f32]), _), _)| {
            let done = spaces.with(t.len() * per_image, |space| match self.multiplies_bf16() {
                true => self.forward_part::<bf16>(x, t, labels, space, out),
                false => self.forward_part::<f32>(x, t, labels, space, out),
            });
            if let Err(e) = done {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        };
        if chunk == batch {
            items.for_each(run);
        } else {
            threads::for_each(items, work, run);
        }
        // Shapes were checked above, so a layer can only fail through a bug of this function.
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(Error::Internal(format!("forward pass: {e}"))),
            None => Ok(()),
        }
    }

    fn sizes(&self) -> Sizes {
        let size = if self.multiplies_bf16() { size_of::<bf16>() } else { size_of::<f32>() };
        Sizes::new(&self.config, size)
    }

    /// Some images; layers multiply numbers of type `T`.
    fn forward_part<T: Element + Lend>(
        &self,
        x: ArrayView4<'_, f32>,
        t: &[f32],
        labels: &[i64],
        workspace: &mut [f32],
        out: ArrayViewMut4<'_, f32>,
    ) -> Result<()> {
        let c = &self.config;
        let (b, tokens, d) = (t.len(), c.tokens(), c.hidden);
        let rows = b * tokens;
        let mut space = self.sizes().split(workspace, b);

        self.condition(t, labels, &mut space)?;
        let Space { cond, modulation, stream, normed, wide, .. } = space;
        let normed = &mut T::lend(normed)[..rows * d];
        let wider = T::lend(wide);

        let patches = c.channels * c.patch * c.patch;
        let cut = T::floats_mut(view3_mut(&mut wider[..rows * patches], b, tokens, patches)?);
        nn::patchify(x, c.patch, cut)?;
        let positions = Residual::Rows(view2(&self.pos_embed, tokens, d)?.into());
        linear_rows(&wider[..rows * patches], rows, &self.patch_embed, positions, stream);

        for block in &self.blocks {
            linear_rows(cond, b, &block.modulation, Activation::None, modulation);
            let parts = view2(modulation, b, 6 * d)?;
            let part = |i: usize| parts.slice_move(s![.., i * d..(i + 1) * d]);

            nn::layer_norm_modulate(
                view3(stream, b, tokens, d)?,
                part(0),
                part(1),
                EPS,
                T::floats_mut(view3_mut(normed, b, tokens, d)?),
            )?;
            self.attend(block, normed, &mut wider[..rows * 3 * d], b)?;
            linear_rows(normed, rows, &block.proj, gated(part(2)), stream);

            nn::layer_norm_modulate(
                view3(stream, b, tokens, d)?,
                part(3),
                part(4),
                EPS,
                T::floats_mut(view3_mut(normed, b, tokens, d)?),
            )?;
            let hidden = &mut wider[..rows * c.mlp_hidden];
            linear_rows(normed, rows, &block.fc1, Activation::GeluTanh, hidden);
            linear_rows(hidden, rows, &block.fc2, gated(part(5)), stream);
        }

        let modulation = &mut modulation[..b * 2 * d];
        linear_rows(cond, b, &self.final_modulation, Activation::None, modulation);
        let parts = view2(modulation, b, 2 * d)?;
        nn::layer_norm_modulate(
            view3(stream, b, tokens, d)?,
            parts.slice(s![.., ..d]),
            parts.slice(s![.., d..]),
            EPS,
            T::floats_mut(view3_mut(normed, b, tokens, d)?),
        )?;
        let patches = c.out_channels * c.patch * c.patch;
        let wide = &mut wide[..rows * patches];
        linear_rows(normed, rows, &self.final_linear, Activation::None, wide);
        nn::unpatchify(view3(wide, b, tokens, patches)?, c.patch, out)
    }

    /// SiLU of the sum of time and class embedding: all that the blocks see of either.
    fn condition(&self, t: &[f32], labels: &[i64], space: &mut Space<'_>) -> Result<()> {
        let (b, d, f) = (t.len(), self.config.hidden, self.config.frequency_embedding);
        for (scaled, &t) in space.times.iter_mut().zip(t) {
            *scaled = t * self.config.time_scale;
        }
        nn::timestep_embedding(&*space.times, MAX_PERIOD, view2_mut(space.frequencies, b, f)?)?;
        let hidden = &mut space.modulation[..b * d];
        linear_rows(space.frequencies, b, &self.time1, Activation::Silu, hidden);
        linear_rows(hidden, b, &self.time2, Activation::None, space.cond);
        for (row, &label) in space.cond.chunks_exact_mut(d).zip(labels) {
            // The label was checked to lie in 0..=num_classes.
            let class = &self.class_table[label as usize * d..][..d];
            row.iter_mut().zip(class).for_each(|(x, e)| *x += e);
        }
        nn::silu_inplace(&mut *space.cond)?;
        Ok(())
    }

    /// Attention of one block: reads and overwrites `normed` `[b*T, d]`; `qkv` is scratch.
    fn attend<T: Element>(&self, block: &Block, normed: &mut [T], qkv: &mut [T], b: usize) -> Result<()> {
        let (tokens, d, heads) = (self.config.tokens(), self.config.hidden, self.config.heads);
        let size = d / heads;
        let rows = b * tokens;
        linear_rows(normed, rows, &block.qkv, Activation::None, qkv);
        // [b, T, 3, heads, size] in memory; each of q, k, v as [b, heads, T, size] by strides.
        let qkv = ndarray::ArrayView5::from_shape((b, tokens, 3, heads, size), qkv).map_err(internal)?;
        let qkv = qkv.permuted_axes([2, 0, 3, 1, 4]);
        let part = |i: usize| T::floats(qkv.index_axis(Axis(0), i));
        let out = ArrayViewMut4::from_shape((b, tokens, heads, size), normed).map_err(internal)?;
        let out = T::floats_mut(out.permuted_axes([0, 2, 1, 3]));
        attention(part(0), part(1), part(2), &AttentionOptions::default(), out, None)
    }
}

/// What a layer adds onto its output: `gate * y`, with a row of `gate` for each image.
pub(in crate::models) fn gated(gate: ArrayView2<'_, f32>) -> LinearOptions<'_> {
    LinearOptions { gate: Some(gate.into()), residual: Residual::Out, ..Default::default() }
}

/// Floats of workspace of one image, buffer by buffer.
struct Sizes {
    frequencies: usize,
    cond: usize,
    modulation: usize,
    tokens: usize,
    normed: usize,
    wide: usize,
}

/// The buffers of a part of the batch.
struct Space<'a> {
    times: &'a mut [f32],
    frequencies: &'a mut [f32],
    cond: &'a mut [f32],
    modulation: &'a mut [f32],
    stream: &'a mut [f32],
    normed: &'a mut [f32],
    wide: &'a mut [f32],
}

impl Sizes {
    /// `size` bytes for a number that layers multiply.
    fn new(c: &DitConfig, size: usize) -> Self {
        let floats = |numbers: usize| (numbers * size).div_ceil(size_of::<f32>());
        let (patch_in, patch_out) = (c.patch * c.patch * c.channels, c.patch * c.patch * c.out_channels);
        Sizes {
            frequencies: c.frequency_embedding,
            cond: c.hidden,
            modulation: 6 * c.hidden,
            tokens: c.tokens() * c.hidden,
            normed: floats(c.tokens() * c.hidden),
            // Shared by patches, q/k/v and the MLP's hidden layer, which live one after another.
            wide: floats(c.tokens() * patch_in.max(3 * c.hidden).max(c.mlp_hidden))
                .max(c.tokens() * patch_out),
        }
    }

    fn per_image(&self) -> usize {
        1 + self.frequencies + self.cond + self.modulation + self.tokens + self.normed + self.wide
    }

    fn split<'a>(&self, workspace: &'a mut [f32], b: usize) -> Space<'a> {
        let mut rest = workspace;
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n * b);
            rest = tail;
            head
        };
        Space {
            times: take(1),
            frequencies: take(self.frequencies),
            cond: take(self.cond),
            modulation: take(self.modulation),
            stream: take(self.tokens),
            normed: take(self.normed),
            wide: take(self.wide),
        }
    }
}
