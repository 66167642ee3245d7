//! Latents, text and time to a prediction.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut4, Axis, s};

use super::{FREQUENCIES, Rest, Sd3, Stream};
use crate::attention::{AttentionOptions, attention};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, Residual, check_strides, linear, linear_rows};
use crate::models::dit::gated;
use crate::models::views::{internal, view2, view2_mut, view3, view3_mut, view4, view4_mut};
use crate::nn;

/// The epsilon of every norm of the architecture.
const EPS: f32 = 1e-6;
/// The longest period of the sinusoidal time embedding.
const MAX_PERIOD: f32 = 10_000.0;

impl Sd3 {
    /// Floats of workspace that [`Sd3::forward`] needs for latents of this size and so many text tokens, whatever
    /// the batch: the activations of one block for one image.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space; [`Error::Range`] for a size that is not a
    /// multiple of the patch or larger than the table of positions.
    pub fn workspace_len(&self, height: usize, width: usize, tokens: usize) -> Result<usize> {
        let [h, w] = self.grid(height, width)?;
        Sizes::new(self, h * w, tokens)
            .and_then(|s| s.total())
            .filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
            .ok_or_else(|| Error::Overflow { arg: "text", got: format!("{tokens} tokens") })
    }

    /// Patches of a latent, rows and columns.
    fn grid(&self, height: usize, width: usize) -> Result<[usize; 2]> {
        let c = &self.config;
        for (arg, n) in [("height", height), ("width", width)] {
            if n == 0 || n % c.patch != 0 || n / c.patch > c.positions {
                let most = c.patch.saturating_mul(c.positions);
                return Err(Error::range(arg, n, format!("a multiple of {} up to {most}", c.patch)));
            }
        }
        Ok([height / c.patch, width / c.patch])
    }

    /// The network's output for a batch.
    ///
    /// * `x` `[B, C, H, W]`: the noisy latents, `H` and `W` multiples of the patch.
    /// * `t` `[B]`: the time of each image, 0 to 1000: 1000 times the `t` of a flow plan.
    /// * `text` `[B, S, text]`: the tokens of each prompt.
    /// * `pooled` `[B, pooled]`: each prompt as a whole.
    /// * `workspace`: at least [`Sd3::workspace_len`] floats, contents irrelevant before and after.
    /// * `out` `[B, C_out, H, W]`.
    ///
    /// An image's result does not depend on the other images of the batch.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Range`] naming the argument; `out` is untouched then.
    ///
    /// ```
    /// use dgm_core::models::Sd3;
    /// use ndarray::{Array2, Array3, Array4};
    /// let model = Sd3::load("../tests/golden/tiny_sd3".as_ref())?;
    /// let c = model.config();
    /// let (x, text) = (Array4::zeros((2, c.channels, 8, 6)), Array3::zeros((2, 5, c.text)));
    /// let mut out = x.clone();
    /// let mut workspace = vec![0.0; model.workspace_len(8, 6, 5)?];
    /// let pooled = Array2::zeros((2, c.pooled));
    /// model.forward(x.view(), &[500.0, 20.0], text.view(), pooled.view(), &mut workspace, out.view_mut())?;
    /// assert!(out.iter().all(|y: &f32| y.is_finite()));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn forward(
        &self,
        x: ArrayView4<'_, f32>,
        t: &[f32],
        text: ArrayView3<'_, f32>,
        pooled: ArrayView2<'_, f32>,
        workspace: &mut [f32],
        mut out: ArrayViewMut4<'_, f32>,
    ) -> Result<()> {
        let c = &self.config;
        let (batch, _, height, width) = x.dim();
        check_shape("x", x.shape(), &[batch, c.channels, height, width])?;
        check_shape("out", out.shape(), &[batch, c.out_channels, height, width])?;
        check_shape("t", &[t.len()], &[batch])?;
        check_shape("text", text.shape(), &[batch, text.dim().1, c.text])?;
        check_shape("pooled", pooled.shape(), &[batch, c.pooled])?;
        // Of one image: the batch may lie as it likes.
        check_strides("text", &text.shape()[1..], &text.strides()[1..], false)?;
        check_strides("pooled", &pooled.shape()[1..], &pooled.strides()[1..], false)?;
        if let Some(row) = t.iter().position(|t| !t.is_finite()) {
            return Err(Error::range("t", format!("{} in row {row}", t[row]), "a finite time"));
        }
        let [h, w] = self.grid(height, width)?;
        let needed = self.workspace_len(height, width, text.dim().1)?;
        if workspace.len() < needed {
            return Err(Error::shape("workspace", &[workspace.len()], format!("at least [{needed}]")));
        }
        for (b, &t) in t.iter().enumerate() {
            let one = |b: usize| b..b + 1;
            let image = Image {
                x: x.slice(s![one(b), .., .., ..]),
                t,
                text: text.index_axis(Axis(0), b),
                pooled: pooled.slice(s![one(b), ..]),
            };
            // Shapes were checked above, so a layer can only fail through a bug of this function.
            self.image(image, [h, w], workspace, out.slice_mut(s![one(b), .., .., ..]))
                .map_err(|e| Error::Internal(format!("forward pass: {e}")))?;
        }
        Ok(())
    }

    fn image(
        &self,
        Image { x, t, text, pooled }: Image<'_>,
        [h, w]: [usize; 2],
        workspace: &mut [f32],
        out: ArrayViewMut4<'_, f32>,
    ) -> Result<()> {
        let (c, d) = (&self.config, self.config.hidden);
        let (n, all) = (h * w, h * w + text.nrows());
        let Space { cond, modulations, now, normed, wide } = Sizes::new(self, n, all - n)
            .ok_or_else(|| Error::Internal("sizes that were counted before".into()))?
            .split(workspace);

        let patches = c.channels * c.patch * c.patch;
        nn::patchify(x, c.patch, view3_mut(&mut wide[..n * patches], 1, n, patches)?)?;
        self.place(&wide[..n * patches], [h, w], &mut now[..n * d])?;
        linear(text, &self.context, Activation::None, view2_mut(&mut now[n * d..], all - n, d)?)?;
        self.condition(t, pooled, cond, wide)?;

        for block in &self.blocks {
            let streams = [(&block.image, 0..n * d), (&block.text, n * d..all * d)];
            // Queries, keys and values of both streams below one another.
            for ((stream, part), modulation) in streams.iter().zip(modulations.chunks_exact_mut(6 * d)) {
                let modulation = &mut modulation[..stream.modulation.out_features()];
                linear_rows(cond, 1, &stream.modulation, Activation::None, modulation);
                let normed = &mut normed[part.clone()];
                modulated(&now[part.clone()], modulation, stream.first(), d, normed)?;
                let qkv = &mut wide[3 * part.start..3 * part.end];
                linear_rows(normed, part.len() / d, &stream.qkv, Activation::None, qkv);
                self.norm_heads(stream, qkv, normed)?;
            }
            self.attend(&wide[..3 * all * d], normed)?;
            for ((stream, part), modulation) in streams.iter().zip(modulations.chunks_exact(6 * d)) {
                if let Some(rest) = &stream.rest {
                    rest.run(&mut now[part.clone()], modulation, &mut normed[part.clone()], wide)?;
                }
            }
        }

        let modulation = &mut modulations[..2 * d];
        linear_rows(cond, 1, &self.final_modulation, Activation::None, modulation);
        modulated(&now[..n * d], modulation, SCALE_SHIFT, d, &mut normed[..n * d])?;
        let patches = c.out_channels * c.patch * c.patch;
        let wide = &mut wide[..n * patches];
        linear_rows(&normed[..n * d], n, &self.final_linear, Activation::None, wide);
        nn::unpatchify(view3(wide, 1, n, patches)?, c.patch, out)
    }

    /// Patches to tokens at their places: those of the middle of the table.
    fn place(&self, patches: &[f32], [h, w]: [usize; 2], tokens: &mut [f32]) -> Result<()> {
        let (d, side) = (self.config.hidden, self.config.positions);
        let [top, left] = [(side - h) / 2, (side - w) / 2];
        for (y, row) in tokens.chunks_exact_mut(w * d).enumerate() {
            let from = ((top + y) * side + left) * d;
            row.copy_from_slice(&self.pos_embed[from..from + w * d]);
        }
        linear_rows(patches, h * w, &self.patch_embed, Residual::Out, tokens);
        Ok(())
    }

    /// SiLU of the sum of the embeddings of time and pooled text: all that the blocks see of either.
    fn condition(
        &self,
        t: f32,
        pooled: ArrayView2<'_, f32>,
        cond: &mut [f32],
        wide: &mut [f32],
    ) -> Result<()> {
        let d = self.config.hidden;
        let (frequencies, hidden) = wide.split_at_mut(FREQUENCIES);
        let hidden = &mut hidden[..d];
        nn::timestep_embedding(ArrayView1::from(&[t]), MAX_PERIOD, view2_mut(frequencies, 1, FREQUENCIES)?)?;
        linear_rows(frequencies, 1, &self.time[0], Activation::Silu, hidden);
        linear_rows(hidden, 1, &self.time[1], Activation::None, cond);
        linear(pooled, &self.pooled[0], Activation::Silu, view2_mut(hidden, 1, d)?)?;
        linear_rows(hidden, 1, &self.pooled[1], Residual::Out, cond);
        nn::silu_inplace(&mut *cond)
    }

    /// RMS norm of each head's queries and keys in `qkv` `[rows, 3, heads, size]`, through `room`.
    fn norm_heads(&self, stream: &Stream, qkv: &mut [f32], room: &mut [f32]) -> Result<()> {
        let Some(norms) = &stream.norms else { return Ok(()) };
        let (d, heads) = (self.config.hidden, self.config.heads);
        let rows = qkv.len() / (3 * d);
        for (i, norm) in norms.iter().enumerate() {
            let shape = [rows, 3, heads, d / heads];
            let mut normed = view3_mut(&mut room[..rows * d], rows, heads, d / heads)?;
            let from = view4(qkv, shape)?;
            let weight = Some(ArrayView1::from(&norm[..]).into());
            nn::rms_norm(from.index_axis(Axis(1), i), weight, EPS, normed.view_mut())?;
            view4_mut(qkv, shape)?.index_axis_mut(Axis(1), i).assign(&normed);
        }
        Ok(())
    }

    /// Attention of all tokens to each other: `qkv` `[tokens, 3, heads, size]`, heads side by side in `out`.
    fn attend(&self, qkv: &[f32], out: &mut [f32]) -> Result<()> {
        let (d, heads) = (self.config.hidden, self.config.heads);
        let (tokens, size) = (qkv.len() / (3 * d), d / heads);
        let qkv = ndarray::ArrayView5::from_shape((1, tokens, 3, heads, size), qkv).map_err(internal)?;
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

/// One image of a batch and its prompt.
struct Image<'a> {
    x: ArrayView4<'a, f32>,
    t: f32,
    text: ArrayView2<'a, f32>,
    pooled: ArrayView2<'a, f32>,
}

/// Which parts of a modulation are shift and scale: a block's first norm, its second one, and a last norm.
const FIRST: [usize; 2] = [0, 1];
const SECOND: [usize; 2] = [3, 4];
const SCALE_SHIFT: [usize; 2] = [1, 0];

impl Stream {
    fn first(&self) -> [usize; 2] {
        if self.rest.is_some() { FIRST } else { SCALE_SHIFT }
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
fn modulated(
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
fn part(modulation: &[f32], i: usize, d: usize) -> Result<ArrayView2<'_, f32>> {
    view2(&modulation[i * d..(i + 1) * d], 1, d)
}

/// Floats of workspace, buffer by buffer.
struct Sizes {
    hidden: usize,
    tokens: usize,
    wide: usize,
}

/// The buffers of a call.
struct Space<'a> {
    cond: &'a mut [f32],
    modulations: &'a mut [f32],
    now: &'a mut [f32],
    normed: &'a mut [f32],
    wide: &'a mut [f32],
}

impl Sizes {
    fn new(model: &Sd3, image: usize, text: usize) -> Option<Self> {
        let (c, d) = (&model.config, model.config.hidden);
        let tokens = image.checked_add(text)?.checked_mul(d)?;
        let patches = c.patch.checked_mul(c.patch)?.checked_mul(c.channels.max(c.out_channels))?;
        // Shared by patches, the time's frequencies, q/k/v and the MLPs' hidden layers, one after another.
        let wide = image.checked_mul(patches)?.max(FREQUENCIES + d);
        let wide = wide.max(tokens.checked_mul(3)?).max(image.max(text).checked_mul(4)?.checked_mul(d)?);
        Some(Sizes { hidden: d, tokens, wide })
    }

    fn total(&self) -> Option<usize> {
        self.hidden.checked_mul(13)?.checked_add(self.tokens.checked_mul(2)?)?.checked_add(self.wide)
    }

    fn split<'a>(&self, workspace: &'a mut [f32]) -> Space<'a> {
        let mut rest = workspace;
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            head
        };
        Space {
            cond: take(self.hidden),
            modulations: take(12 * self.hidden),
            now: take(self.tokens),
            normed: take(self.tokens),
            wide: take(self.wide),
        }
    }
}
