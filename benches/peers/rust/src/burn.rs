//! burn-flex: burn's own CPU back end. Its `attention` chooses between a plain and a tiled kernel.

use burn_flex::{FlexTensor, ops::attention::attention};
use burn_std::{DType, ops::AttentionModuleOptions};

use crate::{Bytes, Case, Peer};

pub struct Flex {
    case: Case,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: Option<FlexTensor>,
}

impl Flex {
    pub fn new(case: Case, bytes: &Bytes) -> Result<Self, String> {
        if case.heads != case.kv_heads {
            return Err("burn-flex has no grouped queries".into());
        }
        let dtype = [DType::F32, DType::F16, DType::BF16][case.dtype as usize];
        let tensor = |b: &[u8], shape: [usize; 4]| {
            FlexTensor::from_data(burn_std::TensorData::from_bytes_vec(b.to_vec(), shape, dtype))
        };
        Ok(Self {
            case,
            q: tensor(bytes.q, case.q_shape()),
            k: tensor(bytes.k, case.k_shape()),
            v: tensor(bytes.v, case.v_shape()),
            out: None,
        })
    }
}

impl Peer for Flex {
    fn run(&mut self) -> Result<(), String> {
        let case = &self.case;
        let options = AttentionModuleOptions {
            scale: Some(f64::from(case.scale)),
            softcap: (case.soft_cap != 0.0).then(|| f64::from(case.soft_cap)),
            is_causal: case.causal != 0,
            ..Default::default()
        };
        // Cloning a tensor clones a reference.
        self.out = Some(attention(self.q.clone(), self.k.clone(), self.v.clone(), None, None, options));
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>, String> {
        let data = self.out.clone().ok_or("not run yet")?.into_data();
        data.convert::<f32>().try_to_vec().map_err(|e| format!("{e:?}"))
    }
}
