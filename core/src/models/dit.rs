//! The diffusion transformer with adaLN-Zero conditioning.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use ndarray::{ArrayView1, ArrayView2, ArrayView4, ArrayViewMut4, Axis, s};

use super::config::DitConfig;
use super::views::{internal, view2, view2_mut, view3, view3_mut};
use super::weights::WeightFile;
use crate::attention::{AttentionOptions, attention};
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, LinearOptions, PackedLinear, Residual, linear_rows};
use crate::nn;
use crate::threads;

/// The epsilon of every layer norm of the architecture.
const EPS: f32 = 1e-6;
/// The longest period of the sinusoidal time embedding.
const MAX_PERIOD: f32 = 10_000.0;
/// Rows of a linear layer that are worth reading its weights for.
const FEWEST_ROWS: usize = 128;

struct Block {
    modulation: PackedLinear,
    qkv: PackedLinear,
    proj: PackedLinear,
    fc1: PackedLinear,
    fc2: PackedLinear,
}

/// A class-conditional diffusion transformer (DiT, adaLN-Zero), weights packed for [`linear`](crate::linalg::linear).
///
/// Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023. Tensor names are
/// those of the official checkpoints. Immutable after loading: share it between threads.
pub struct Dit {
    config: DitConfig,
    metadata: BTreeMap<String, String>,
    patch_embed: PackedLinear,
    pos_embed: Vec<f32>,
    time1: PackedLinear,
    time2: PackedLinear,
    class_table: Vec<f32>,
    blocks: Vec<Block>,
    final_modulation: PackedLinear,
    final_linear: PackedLinear,
}

impl std::fmt::Debug for Dit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dit").field("config", &self.config).field("bytes", &self.bytes()).finish()
    }
}

impl Dit {
    /// Loads a safetensors file. Weights are packed tensor by tensor.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is not a
    /// well-formed safetensors file or not a DiT; the message names the tensor.
    pub fn load(path: &Path) -> Result<Self> {
        Self::read(WeightFile::open(path)?)
    }

    /// Like [`Dit::load`] from the bytes of a file.
    ///
    /// # Errors
    /// As [`Dit::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read(WeightFile::from_bytes(bytes)?)
    }

    fn read<R: Read + Seek>(mut file: WeightFile<R>) -> Result<Self> {
        let metadata = file.metadata();
        let config = DitConfig::read(&file, &metadata)?;
        let (d, f, h) = (config.hidden, config.frequency_embedding, config.mlp_hidden);
        let patch_in = config.channels * config.patch * config.patch;
        let patch_out = config.out_channels * config.patch * config.patch;
        // The patch embedding is a convolution with stride = kernel: a linear layer on patches.
        let weight = file.f32("x_embedder.proj.weight", &[d, config.channels, config.patch, config.patch])?;
        let bias = file.f32("x_embedder.proj.bias", &[d])?;
        let patch_embed = pack(&weight, &bias, d, patch_in)?;
        let mut layer = |name: String, out: usize, inputs: usize| -> Result<PackedLinear> {
            let weight = file.f32(&format!("{name}.weight"), &[out, inputs])?;
            let bias = file.f32(&format!("{name}.bias"), &[out])?;
            pack(&weight, &bias, out, inputs)
        };
        let mut blocks = Vec::with_capacity(config.depth);
        for i in 0..config.depth {
            blocks.push(Block {
                modulation: layer(format!("blocks.{i}.adaLN_modulation.1"), 6 * d, d)?,
                qkv: layer(format!("blocks.{i}.attn.qkv"), 3 * d, d)?,
                proj: layer(format!("blocks.{i}.attn.proj"), d, d)?,
                fc1: layer(format!("blocks.{i}.mlp.fc1"), h, d)?,
                fc2: layer(format!("blocks.{i}.mlp.fc2"), d, h)?,
            });
        }
        let time1 = layer("t_embedder.mlp.0".to_string(), d, f)?;
        let time2 = layer("t_embedder.mlp.2".to_string(), d, d)?;
        let final_modulation = layer("final_layer.adaLN_modulation.1".to_string(), 2 * d, d)?;
        let final_linear = layer("final_layer.linear".to_string(), patch_out, d)?;
        Ok(Dit {
            pos_embed: file.f32("pos_embed", &[1, config.tokens(), d])?,
            class_table: file.f32("y_embedder.embedding_table.weight", &[config.num_classes + 1, d])?,
            config,
            metadata,
            patch_embed,
            time1,
            time2,
            blocks,
            final_modulation,
            final_linear,
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The file's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let layers = self.blocks.iter().flat_map(|b| [&b.modulation, &b.qkv, &b.proj, &b.fc1, &b.fc2]);
        let ends = [&self.patch_embed, &self.time1, &self.time2, &self.final_modulation, &self.final_linear];
        let tables = (self.pos_embed.len() + self.class_table.len()) * size_of::<f32>();
        layers.chain(ends).map(PackedLinear::bytes).sum::<usize>() + tables
    }

    /// Floats of workspace that [`Dit::forward`] needs for a batch.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the size leaves the address space.
    pub fn workspace_len(&self, batch: usize) -> Result<usize> {
        Sizes::new(&self.config)
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
        let per_image = Sizes::new(c).per_image();
        let items = x
            .axis_chunks_iter(Axis(0), chunk)
            .zip(t.chunks(chunk))
            .zip(labels.chunks(chunk))
            .zip(workspace.chunks_mut(chunk * per_image))
            .zip(out.axis_chunks_iter_mut(Axis(0), chunk));
        let failure = std::sync::Mutex::new(None);
        let run = |((((x, t), labels), workspace), out)| {
            if let Err(e) = self.forward_part(x, t, labels, workspace, out) {
                failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e);
            }
        };
        if chunk == batch {
            items.for_each(run);
        } else {
            threads::for_each(items, work, run);
        }
        // Shapes were checked above, so a layer can only fail through a bug of this function.
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(e) => Err(Error::Internal(format!("forward pass: {e}"))),
            None => Ok(()),
        }
    }

    fn forward_part(
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
        let mut space = Sizes::new(c).split(workspace, b);

        self.condition(t, labels, &mut space)?;
        let Space { cond, modulation, stream, normed, wide, .. } = space;

        let patches = c.channels * c.patch * c.patch;
        nn::patchify(x, c.patch, view3_mut(&mut wide[..rows * patches], b, tokens, patches)?)?;
        let positions = Residual::Rows(view2(&self.pos_embed, tokens, d)?.into());
        linear_rows(&wide[..rows * patches], rows, &self.patch_embed, positions, stream);

        for block in &self.blocks {
            linear_rows(cond, b, &block.modulation, Activation::None, modulation);
            let parts = view2(modulation, b, 6 * d)?;
            let part = |i: usize| parts.slice_move(s![.., i * d..(i + 1) * d]);

            nn::layer_norm_modulate(
                view3(stream, b, tokens, d)?,
                part(0),
                part(1),
                EPS,
                view3_mut(normed, b, tokens, d)?,
            )?;
            self.attend(block, normed, &mut wide[..rows * 3 * d], b)?;
            linear_rows(normed, rows, &block.proj, gated(part(2)), stream);

            nn::layer_norm_modulate(
                view3(stream, b, tokens, d)?,
                part(3),
                part(4),
                EPS,
                view3_mut(normed, b, tokens, d)?,
            )?;
            let hidden = &mut wide[..rows * c.mlp_hidden];
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
            view3_mut(normed, b, tokens, d)?,
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
    fn attend(&self, block: &Block, normed: &mut [f32], qkv: &mut [f32], b: usize) -> Result<()> {
        let (tokens, d, heads) = (self.config.tokens(), self.config.hidden, self.config.heads);
        let size = d / heads;
        let rows = b * tokens;
        linear_rows(normed, rows, &block.qkv, Activation::None, qkv);
        // [b, T, 3, heads, size] in memory; each of q, k, v as [b, heads, T, size] by strides.
        let qkv = ndarray::ArrayView5::from_shape((b, tokens, 3, heads, size), qkv).map_err(internal)?;
        let qkv = qkv.permuted_axes([2, 0, 3, 1, 4]);
        let out = ArrayViewMut4::from_shape((b, tokens, heads, size), normed).map_err(internal)?;
        attention(
            qkv.index_axis(Axis(0), 0),
            qkv.index_axis(Axis(0), 1),
            qkv.index_axis(Axis(0), 2),
            &AttentionOptions::default(),
            out.permuted_axes([0, 2, 1, 3]),
            None,
        )
    }
}

fn pack(weight: &[f32], bias: &[f32], out: usize, inputs: usize) -> Result<PackedLinear> {
    PackedLinear::pack(view2(weight, out, inputs)?, Some(ArrayView1::from(bias).into()))
}

/// What a layer adds onto its output: `gate * y`, with a row of `gate` for each image.
pub(super) fn gated(gate: ArrayView2<'_, f32>) -> LinearOptions<'_> {
    LinearOptions { gate: Some(gate.into()), residual: Residual::Out, ..Default::default() }
}

/// Floats of workspace of one image, buffer by buffer.
struct Sizes {
    frequencies: usize,
    cond: usize,
    modulation: usize,
    tokens: usize,
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
    fn new(c: &DitConfig) -> Self {
        let patch = c.patch * c.patch * c.channels.max(c.out_channels);
        Sizes {
            frequencies: c.frequency_embedding,
            cond: c.hidden,
            modulation: 6 * c.hidden,
            tokens: c.tokens() * c.hidden,
            // Shared by patches, q/k/v and the MLP's hidden layer, which live one after another.
            wide: c.tokens() * patch.max(3 * c.hidden).max(c.mlp_hidden),
        }
    }

    fn per_image(&self) -> usize {
        1 + self.frequencies + self.cond + self.modulation + 2 * self.tokens + self.wide
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
            normed: take(self.tokens),
            wide: take(self.wide),
        }
    }
}
