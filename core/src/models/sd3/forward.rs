//! Latents, text and time to a prediction.

use ndarray::{ArrayView2, ArrayView3, ArrayView4, ArrayViewMut4, Axis, s};

use super::Sd3;
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, Residual, linear_rows};
use crate::models::mmdit::{Inputs, Sizes, check_batch};
use crate::models::views::{view3, view3_mut};
use crate::nn;

impl Sd3 {
    /// Floats of workspace that [`Sd3::forward`] needs for latents of this size and so many text tokens, whatever
    /// the batch: the activations of one block for one image.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space; [`Error::Range`] for a size that is not a
    /// multiple of the patch or larger than the table of positions.
    pub fn workspace_len(&self, height: usize, width: usize, tokens: usize) -> Result<usize> {
        let [h, w] = self.grid(height, width)?;
        self.sizes(h * w, tokens)
            .and_then(|s| s.total())
            .ok_or_else(|| Error::Overflow { arg: "text", got: format!("{tokens} tokens") })
    }

    fn sizes(&self, image: usize, text: usize) -> Option<Sizes> {
        let (c, d) = (&self.config, self.config.hidden);
        let patches = c.patch.checked_mul(c.patch)?.checked_mul(c.channels.max(c.out_channels))?;
        let hidden = image.max(text).checked_mul(4)?.checked_mul(d)?;
        let wide = image.checked_mul(patches).map(|patches| patches.max(hidden));
        Sizes::new(d, image.checked_add(text)?, 0, wide)
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
        check_batch(&self.trunk, batch, t, &text, &pooled)?;
        let [h, w] = self.grid(height, width)?;
        let needed = self.workspace_len(height, width, text.dim().1)?;
        if workspace.len() < needed {
            return Err(Error::shape("workspace", &[workspace.len()], format!("at least [{needed}]")));
        }
        for (b, &t) in t.iter().enumerate() {
            let one = |b: usize| b..b + 1;
            let text = text.index_axis(Axis(0), b);
            let inputs =
                Inputs { t: f64::from(t), guidance: None, text, pooled: pooled.slice(s![one(b), ..]) };
            let (x, out) = (x.slice(s![one(b), .., .., ..]), out.slice_mut(s![one(b), .., .., ..]));
            // Shapes were checked above, so a layer can only fail through a bug of this function.
            self.image(x, &inputs, [h, w], workspace, out)
                .map_err(|e| Error::Internal(format!("forward pass: {e}")))?;
        }
        Ok(())
    }

    fn image(
        &self,
        x: ArrayView4<'_, f32>,
        inputs: &Inputs,
        [h, w]: [usize; 2],
        workspace: &mut [f32],
        out: ArrayViewMut4<'_, f32>,
    ) -> Result<()> {
        let (c, d, n) = (&self.config, self.config.hidden, h * w);
        let sizes = self.sizes(n, inputs.text.nrows());
        let sizes = sizes.ok_or_else(|| Error::Internal("sizes that were counted before".into()))?;
        let (mut space, _) = sizes.split(workspace);

        let patches = c.channels * c.patch * c.patch;
        nn::patchify(x, c.patch, view3_mut(&mut space.wide[..n * patches], 1, n, patches)?)?;
        self.place(&space.wide[..n * patches], [h, w], &mut space.now[..n * d])?;
        self.trunk.begin(inputs, n * d, &mut space)?;
        self.trunk.run(n * d, None, &mut space)?;
        self.trunk.end(n * d, &mut space)?;
        let patches = c.out_channels * c.patch * c.patch;
        let wide = &mut space.wide[..n * patches];
        linear_rows(space.normed, n, &self.trunk.final_linear, Activation::None, wide);
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
}
