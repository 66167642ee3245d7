//! Packed latents, text and times to a prediction.

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, s};

use super::{Flux, Single};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, check_strides, linear, linear_rows};
use crate::models::dit::gated;
use crate::models::mmdit::{FIRST, Inputs, Sizes, Space, check_batch, finite, modulated, part};
use crate::models::views::{view2, view2_mut};
use crate::nn::{self, Rope};

/// From the time of a flow, or from a guidance, to what the network was trained with.
const TIME_SCALE: f64 = 1000.0;

/// What [`Flux::forward`] computes from: B images of N tokens, and S tokens of text each.
#[derive(Debug, Clone, Copy)]
pub struct FluxInputs<'a> {
    /// `[B, N, C]`: the noisy latents, packed: a token has the channels of 2 x 2 neighbours, which is what
    /// [`patchify`](crate::nn::patchify()) with a patch of 2 gives.
    pub x: ArrayView3<'a, f32>,
    /// `[B]`: the time of each image, 0 to 1, as a flow plan has it.
    pub t: &'a [f32],
    /// `[B]`: the guidance of each image, such as 3.5, where the network has an embedding of it; else none.
    pub guidance: Option<&'a [f32]>,
    /// `[B, S, text]`: the tokens of each prompt.
    pub text: ArrayView3<'a, f32>,
    /// `[B, pooled]`: each prompt as a whole.
    pub pooled: ArrayView2<'a, f32>,
    /// `[N, axes]`: the place of each image token, those of FLUX.1 0, row, column.
    pub ids: ArrayView2<'a, f32>,
    /// `[S, axes]`: the place of each text token; without it all are 0, as in FLUX.1.
    pub text_ids: Option<ArrayView2<'a, f32>>,
}

impl Flux {
    /// Floats of workspace that [`Flux::forward`] needs for images of so many tokens and so many text tokens,
    /// whatever the batch: the activations of one block for one image.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space.
    pub fn workspace_len(&self, tokens: usize, text_tokens: usize) -> Result<usize> {
        let sizes = self.sizes(tokens, text_tokens).and_then(|s| s.total());
        sizes.ok_or_else(|| Error::Overflow {
            arg: "tokens",
            got: format!("{tokens} and {text_tokens} of text"),
        })
    }

    fn sizes(&self, tokens: usize, text_tokens: usize) -> Option<Sizes> {
        let (d, all) = (self.config.hidden, tokens.checked_add(text_tokens)?);
        Sizes::new(d, all, self.config.head_dim() / 2, all.checked_mul(4)?.checked_mul(d))
    }

    /// The network's output for a batch: the velocity of the flow, `out` `[B, N, C_out]`.
    ///
    /// `workspace` has at least [`Flux::workspace_len`] floats, contents irrelevant before and after. An image's
    /// result does not depend on the other images of the batch.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`], [`Error::Range`] or (a guidance too many or missing)
    /// [`Error::Argument`] naming the argument; `out` is untouched then.
    ///
    /// ```
    /// use dgm_core::models::{Flux, FluxInputs};
    /// use ndarray::{Array2, Array3};
    /// let model = Flux::load("../tests/golden/tiny_flux_dev".as_ref())?;
    /// let c = model.config();
    /// let (x, text) = (Array3::zeros((1, 6, c.channels)), Array3::zeros((1, 5, c.text)));
    /// let pooled = Array2::zeros((1, c.pooled));
    /// // Two rows of three tokens.
    /// let ids = Array2::from_shape_fn((6, 3), |(n, axis)| [0, n / 3, n % 3][axis] as f32);
    /// let inputs = FluxInputs {
    ///     x: x.view(),
    ///     t: &[0.5],
    ///     guidance: Some(&[3.5]),
    ///     text: text.view(),
    ///     pooled: pooled.view(),
    ///     ids: ids.view(),
    ///     text_ids: None,
    /// };
    /// let mut out = Array3::zeros((1, 6, c.out_channels));
    /// model.forward(&inputs, &mut vec![0.0; model.workspace_len(6, 5)?], out.view_mut())?;
    /// assert!(out.iter().all(|y: &f32| y.is_finite()));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn forward(
        &self,
        inputs: &FluxInputs<'_>,
        workspace: &mut [f32],
        mut out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let FluxInputs { x, t, guidance, text, pooled, ids, text_ids } = *inputs;
        let (tokens, text_tokens) = (x.dim().1, text.dim().1);
        self.check(inputs)?;
        check_shape("out", out.shape(), &[x.dim().0, tokens, self.config.out_channels])?;
        check_strides("out", out.shape(), out.strides(), true)?;
        let needed = self.workspace_len(tokens, text_tokens)?;
        if workspace.len() < needed {
            return Err(Error::shape("workspace", &[workspace.len()], format!("at least [{needed}]")));
        }
        // All was checked above, so a layer can only fail through a bug of this function.
        let internal = |e: Error| Error::Internal(format!("forward pass: {e}"));
        let sizes = self.sizes(tokens, text_tokens);
        let sizes = sizes.ok_or_else(|| Error::Internal("sizes that were counted before".into()))?;
        let (mut space, tables) = sizes.split(workspace);
        let rope = self.places(ids, text_ids, text_tokens, tables).map_err(internal)?;
        for (b, &t) in t.iter().enumerate() {
            let one = Inputs {
                t: TIME_SCALE * f64::from(t),
                guidance: guidance.map(|guidance| TIME_SCALE * f64::from(guidance[b])),
                text: text.index_axis_move(Axis(0), b),
                pooled: pooled.slice_move(s![b..b + 1, ..]),
            };
            let x = x.index_axis_move(Axis(0), b);
            self.image(x, &one, &rope, &mut space, out.index_axis_mut(Axis(0), b)).map_err(internal)?;
        }
        Ok(())
    }

    fn check(&self, inputs: &FluxInputs<'_>) -> Result<()> {
        let c = &self.config;
        let FluxInputs { x, t, guidance, text, pooled, ids, text_ids } = inputs;
        let (batch, tokens, _) = x.dim();
        check_shape("x", x.shape(), &[batch, tokens, c.channels])?;
        check_strides("x", &x.shape()[1..], &x.strides()[1..], false)?;
        check_batch(&self.trunk, batch, t, text, pooled)?;
        match (guidance, c.guidance) {
            (Some(guidance), true) => {
                check_shape("guidance", &[guidance.len()], &[batch])?;
                finite("guidance", guidance)?;
            }
            (None, false) => {}
            (given, _) => {
                let got = if given.is_some() { "given" } else { "missing" }.to_string();
                let expected = if c.guidance { "a number for each image" } else { "none for this network" };
                return Err(Error::Argument { arg: "guidance", got, expected: expected.to_string() });
            }
        }
        check_places("ids", ids, tokens, c.axes.len())?;
        match text_ids {
            Some(ids) => check_places("text_ids", ids, text.dim().1, c.axes.len()),
            None => Ok(()),
        }
    }

    /// The rotary tables of all tokens, image before text.
    fn places<'a>(
        &self,
        ids: ArrayView2<'_, f32>,
        text_ids: Option<ArrayView2<'_, f32>>,
        text_tokens: usize,
        [cos, sin]: [&'a mut [f32]; 2],
    ) -> Result<Rope<'a>> {
        let (tokens, half) = (ids.nrows(), self.config.head_dim() / 2);
        let fill = |ids: ArrayView2<f32>, cos: ArrayViewMut2<f32>, sin: ArrayViewMut2<f32>| {
            nn::fill_axial_tables(ids, &self.config.axes, &self.frequencies, cos, sin);
        };
        let ([c0, c1], [s0, s1]) = (halves(cos, tokens * half), halves(sin, tokens * half));
        fill(ids, view2_mut(c0, tokens, half)?, view2_mut(s0, tokens, half)?);
        match text_ids {
            Some(ids) => fill(ids, view2_mut(c1, text_tokens, half)?, view2_mut(s1, text_tokens, half)?),
            None => {
                c1.fill(1.0);
                s1.fill(0.0);
            }
        }
        let all = tokens + text_tokens;
        Ok(Rope { cos: view2(cos, all, half)?, sin: view2(sin, all, half)?, interleaved: true })
    }

    fn image(
        &self,
        x: ArrayView2<'_, f32>,
        inputs: &Inputs,
        rope: &Rope,
        space: &mut Space,
        out: ArrayViewMut2<'_, f32>,
    ) -> Result<()> {
        let (d, n) = (self.config.hidden, x.nrows());
        linear(x, &self.embed, Activation::None, view2_mut(&mut space.now[..n * d], n, d)?)?;
        self.trunk.begin(inputs, n * d, space)?;
        self.trunk.run(n * d, Some(rope), space)?;
        for single in &self.singles {
            single.run(rope, space)?;
        }
        self.trunk.end(n * d, space)?;
        linear(view2(&space.normed[..n * d], n, d)?, &self.trunk.final_linear, Activation::None, out)
    }
}

impl Single {
    fn run(&self, rope: &Rope, space: &mut Space) -> Result<()> {
        let Space { cond, modulations, now, normed, wide } = space;
        let (d, rows) = (cond.len(), now.len() / cond.len());
        let modulation = &mut modulations[..3 * d];
        linear_rows(cond, 1, &self.modulation, Activation::None, modulation);
        modulated(now, modulation, FIRST, d, normed)?;
        // One after the other in the same room: what comes first does not change `normed`.
        let hidden = &mut wide[..4 * now.len()];
        linear_rows(normed, rows, &self.fc1, Activation::GeluTanh, hidden);
        linear_rows(hidden, rows, &self.outputs[0], gated(part(modulation, 2, d)?), now);
        let qkv = &mut wide[..3 * now.len()];
        self.heads.run(normed, Some((rope, 0)), qkv)?;
        self.heads.attend(qkv, normed)?;
        linear_rows(normed, rows, &self.outputs[1], gated(part(modulation, 2, d)?), now);
        Ok(())
    }
}

fn check_places(arg: &'static str, ids: &ArrayView2<'_, f32>, tokens: usize, axes: usize) -> Result<()> {
    check_shape(arg, ids.shape(), &[tokens, axes])?;
    match ids.indexed_iter().find(|(_, id)| !id.is_finite()) {
        Some(((row, _), id)) => Err(Error::range(arg, format!("{id} in row {row}"), "finite numbers")),
        None => Ok(()),
    }
}

fn halves(all: &mut [f32], first: usize) -> [&mut [f32]; 2] {
    let (a, b) = all.split_at_mut(first);
    [a, b]
}
