//! candle: its CPU flash attention and the usual composition of products and a softmax.

use candle_core::{DType, Device, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};

use crate::{Bytes, Case, Peer};

fn tensor(case: Case, bytes: &[u8], shape: [usize; 4]) -> candle_core::Result<Tensor> {
    let dtype = [DType::F32, DType::F16, DType::BF16][case.dtype as usize];
    Tensor::from_raw_buffer(bytes, dtype, &shape, &Device::Cpu)
}

fn text(e: candle_core::Error) -> String {
    e.to_string()
}

fn floats(t: Option<&Tensor>) -> Result<Vec<f32>, String> {
    let t = t.ok_or("not run yet")?;
    (|| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1())().map_err(text)
}

/// `candle_nn::attention::flash_attn`; tensors lie as [batch, length, heads, dim].
pub struct Flash {
    case: Case,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Option<Tensor>,
}

impl Flash {
    pub fn new(case: Case, bytes: &Bytes) -> Result<Self, String> {
        let make = |b, shape| tensor(case, b, shape)?.transpose(1, 2)?.contiguous();
        Ok(Self {
            case,
            q: make(bytes.q, case.q_shape()).map_err(text)?,
            k: make(bytes.k, case.k_shape()).map_err(text)?,
            v: make(bytes.v, case.v_shape()).map_err(text)?,
            out: None,
        })
    }

    fn call<T: candle_core::WithDType + num_traits::Float>(&self) -> candle_core::Result<Tensor> {
        let case = &self.case;
        // One query against a cache goes the causal way: candle's decode kernel lies there.
        let mask = if case.causal != 0 || case.queries == 1 {
            AttnMask::causal_with_offset(case.keys - case.queries)
        } else {
            AttnMask::None
        };
        let cap = (case.soft_cap != 0.0).then_some(case.soft_cap);
        flash_attn::<T>(&self.q, &self.k, &self.v, case.scale, mask, None, cap)
    }
}

impl Peer for Flash {
    fn run(&mut self) -> Result<(), String> {
        let out = match self.case.dtype {
            0 => self.call::<f32>(),
            1 => self.call::<half::f16>(),
            _ => self.call::<half::bf16>(),
        };
        self.out = Some(out.map_err(text)?);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>, String> {
        floats(self.out.as_ref())
    }
}

/// softmax(q k^T) v by three operations, without a mask and with as many key heads as query heads.
pub struct Naive {
    case: Case,
    q: Tensor,
    kt: Tensor,
    v: Tensor,
    out: Option<Tensor>,
}

impl Naive {
    pub fn new(case: Case, bytes: &Bytes) -> Result<Self, String> {
        if case.causal != 0 || case.heads != case.kv_heads || case.soft_cap != 0.0 {
            return Err("the composition is only written for plain attention".into());
        }
        let k = tensor(case, bytes.k, case.k_shape()).and_then(|k| k.transpose(2, 3));
        Ok(Self {
            case,
            q: tensor(case, bytes.q, case.q_shape()).map_err(text)?,
            kt: k.map_err(text)?,
            v: tensor(case, bytes.v, case.v_shape()).map_err(text)?,
            out: None,
        })
    }

    fn call(&self) -> candle_core::Result<Tensor> {
        let scores = (self.q.matmul(&self.kt)? * f64::from(self.case.scale))?;
        candle_nn::ops::softmax_last_dim(&scores)?.matmul(&self.v)
    }
}

impl Peer for Naive {
    fn run(&mut self) -> Result<(), String> {
        self.out = Some(self.call().map_err(text)?);
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>, String> {
        floats(self.out.as_ref())
    }
}
