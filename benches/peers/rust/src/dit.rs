//! A DiT (W. Peebles and S. Xie, arXiv:2212.09748) of candle's layers, its CPU flash attention among them.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};
use candle_nn::ops::layer_norm;
use candle_nn::{LayerNorm, Linear, VarBuilder, linear};

use crate::Peer;

/// Sizes that the tensors do not tell, and those of the input.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    width: usize,
    blocks: usize,
    heads: usize,
    hidden: usize,
    patch: usize,
    channels: usize,
    out_channels: usize,
    side: usize,
    classes: usize,
    frequencies: usize,
    time_scale: f64,
    pub batch: usize,
}

impl Config {
    pub fn x_len(&self) -> usize {
        self.batch * self.channels * self.side * self.side
    }
}

const EPS: f32 = 1e-6;

struct Block {
    modulation: Linear,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(c: &Config, vb: VarBuilder) -> Result<Self> {
        let d = c.width;
        Ok(Self {
            modulation: linear(d, 6 * d, vb.pp("adaLN_modulation.1"))?,
            qkv: linear(d, 3 * d, vb.pp("attn.qkv"))?,
            proj: linear(d, d, vb.pp("attn.proj"))?,
            fc1: linear(d, c.hidden, vb.pp("mlp.fc1"))?,
            fc2: linear(c.hidden, d, vb.pp("mlp.fc2"))?,
        })
    }
}

/// The network and its inputs, in f32.
pub struct Dit {
    config: Config,
    embed: Linear,
    positions: Tensor,
    time: [Linear; 2],
    classes: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// Whether one row of shift and scale is for all: then they are the parameters of the norm.
    single: bool,
    modulation: Linear,
    last: Linear,
    x: Tensor,
    t: Tensor,
    labels: Tensor,
    out: Option<Tensor>,
}

impl Dit {
    pub fn new(path: &str, c: Config, x: &[f32], t: &[f32], labels: &[i64]) -> Result<Self> {
        let device = &Device::Cpu;
        let data = std::fs::read(path)?;
        let vb = VarBuilder::from_buffered_safetensors(data, DType::F32, device)?;
        let (d, cut) = (c.width, c.channels * c.patch * c.patch);
        let embed = vb.pp("x_embedder.proj");
        let weight = embed.get((d, c.channels, c.patch, c.patch), "weight")?.reshape((d, cut))?;
        let tokens = (c.side / c.patch).pow(2);
        let (t_mlp, last) = (vb.pp("t_embedder.mlp"), vb.pp("final_layer"));
        Ok(Self {
            config: c,
            embed: Linear::new(weight, Some(embed.get(d, "bias")?)),
            positions: vb.get((1, tokens, d), "pos_embed")?,
            time: [linear(c.frequencies, d, t_mlp.pp("0"))?, linear(d, d, t_mlp.pp("2"))?],
            classes: vb.get((c.classes + 1, d), "y_embedder.embedding_table.weight")?,
            blocks: (0..c.blocks)
                .map(|i| Block::new(&c, vb.pp(format!("blocks.{i}"))))
                .collect::<Result<_>>()?,
            // candle has no norm without weights that is a single operation.
            norm: LayerNorm::new(
                Tensor::ones(d, DType::F32, device)?,
                Tensor::zeros(d, DType::F32, device)?,
                f64::from(EPS),
            ),
            single: c.batch == 1,
            modulation: linear(d, 2 * d, last.pp("adaLN_modulation.1"))?,
            last: linear(d, c.out_channels * c.patch * c.patch, last.pp("linear"))?,
            x: Tensor::from_slice(x, (c.batch, c.channels, c.side, c.side), device)?,
            t: Tensor::from_slice(t, c.batch, device)?,
            labels: Tensor::from_slice(labels, c.batch, device)?,
            out: None,
        })
    }

    fn condition(&self) -> Result<Tensor> {
        let half = self.config.frequencies / 2;
        // The logarithm of the longest period, 10,000.
        let rate = -4.0 * std::f64::consts::LN_10 / half as f64;
        let frequencies = (Tensor::arange(0.0, half as f32, &Device::Cpu)? * rate)?.exp()?.unsqueeze(0)?;
        let angles = (&self.t * self.config.time_scale)?.unsqueeze(1)?.matmul(&frequencies)?;
        let sines = Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?;
        let time = self.time[1].forward(&self.time[0].forward(&sines)?.silu()?)?;
        (time + self.classes.index_select(&self.labels, 0)?)?.silu()
    }

    /// The norm of `x`, times `1 + scale`, plus `shift`, which have a row for each image.
    fn modulated(&self, x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let scale = (scale + 1.0)?;
        if self.single {
            return layer_norm(x, &scale.squeeze(0)?, &shift.squeeze(0)?.contiguous()?, EPS);
        }
        self.norm.forward(x)?.broadcast_mul(&scale.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
    }

    fn attend(&self, block: &Block, x: &Tensor) -> Result<Tensor> {
        let (b, t, d) = x.dims3()?;
        let size = d / self.config.heads;
        let qkv = block.qkv.forward(x)?.reshape((b, t, 3, self.config.heads, size))?;
        let part = |i: usize| qkv.i((.., .., i));
        let scale = 1.0 / (size as f32).sqrt();
        let out = flash_attn::<f32>(&part(0)?, &part(1)?, &part(2)?, scale, AttnMask::None, None, None)?;
        block.proj.forward(&out.transpose(1, 2)?.reshape((b, t, d))?)
    }

    fn forward(&self) -> Result<Tensor> {
        let Config { patch: p, side, channels, out_channels, batch: b, .. } = self.config;
        let grid = side / p;
        let cut = self.x.reshape(&[b, channels, grid, p, grid, p][..])?.permute([0, 2, 4, 1, 3, 5])?;
        let cut = cut.reshape((b, grid * grid, channels * p * p))?;
        let mut h = self.embed.forward(&cut)?.broadcast_add(&self.positions)?;
        let condition = self.condition()?;
        for block in &self.blocks {
            let parts = block.modulation.forward(&condition)?.chunk(6, D::Minus1)?;
            let y = self.attend(block, &self.modulated(&h, &parts[0], &parts[1])?)?;
            h = (h + y.broadcast_mul(&parts[2].unsqueeze(1)?)?)?;
            let y = block.fc1.forward(&self.modulated(&h, &parts[3], &parts[4])?)?.gelu()?;
            h = (h + block.fc2.forward(&y)?.broadcast_mul(&parts[5].unsqueeze(1)?)?)?;
        }
        let parts = self.modulation.forward(&condition)?.chunk(2, D::Minus1)?;
        let tokens = self.last.forward(&self.modulated(&h, &parts[0], &parts[1])?)?;
        let tokens = tokens.reshape(&[b, grid, grid, p, p, out_channels][..])?;
        tokens.permute([0, 5, 1, 3, 2, 4])?.reshape((b, out_channels, side, side))
    }
}

impl Peer for Dit {
    fn run(&mut self) -> std::result::Result<(), String> {
        self.out = Some(self.forward().map_err(|e| e.to_string())?);
        Ok(())
    }

    fn output(&self) -> std::result::Result<Vec<f32>, String> {
        let out = self.out.as_ref().ok_or("it has not run")?;
        out.flatten_all().and_then(|out| out.to_vec1()).map_err(|e| e.to_string())
    }
}
