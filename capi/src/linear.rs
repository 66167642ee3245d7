//! Linear layers with packed weights.

use dgm_core::Error;
use dgm_core::linalg::{Activation, PackedLinear, linear as forward};
use ndarray::{Ix1, Ix2};

use crate::fence::entry;
use crate::memory::{free_handle, handle, put_handle};
use crate::tensor::{FLOATS, Tensor, dgm_tensor};

/// No activation.
pub const DGM_ACTIVATION_NONE: i32 = 0;
/// SiLU after the bias.
pub const DGM_ACTIVATION_SILU: i32 = 1;
/// GELU (tanh) after the bias.
pub const DGM_ACTIVATION_GELU_TANH: i32 = 2;
/// GELU (erf) after the bias.
pub const DGM_ACTIVATION_GELU_ERF: i32 = 3;

/// Weights and bias of a linear layer, packed for the engine. Immutable.
pub struct dgm_linear(PackedLinear);

/// Packs a weight matrix; the originals are not needed afterwards.
///
/// Weights stay f32, f16 or bf16 in memory; the bias, of any of these types, becomes f32.
///
/// @param weight [out_features, in_features], the layout of PyTorch
/// @param bias   [out_features]; NULL for none
/// @param out    receives the handle (NULL on failure); release with dgm_linear_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_pack(
    weight: *const dgm_tensor,
    bias: *const dgm_tensor,
    out: *mut *mut dgm_linear,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL, and a valid place or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            let weight = Tensor::read_any("weight", weight, Some(2), "[out_features, in_features]", FLOATS)?;
            let bias = match bias.is_null() {
                true => None,
                false => Some(Tensor::read_any("bias", bias, Some(1), "[out_features]", FLOATS)?),
            };
            let bias = bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
            PackedLinear::pack(weight.floats::<Ix2>()?, bias).map(dgm_linear)
        })
    })
}

/// Releases a packed layer; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_free(linear: *mut dgm_linear) {
    // SAFETY: the caller gives a handle of dgm_linear_pack() for the last time, or NULL.
    unsafe { free_handle(linear) }
}

/// y = activation(x weight^T + bias).
///
/// x and out are f32, f16 or bf16, each for itself. With x and weights of bf16 products are of bf16
/// pairs, every other mix is widened to f32; sums are f32, and the result is rounded once.
///
/// @param linear     from dgm_linear_pack()
/// @param x          [rows, in_features], no negative stride
/// @param activation DGM_ACTIVATION_NONE, ...
/// @param out        [rows, out_features]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_linear_forward(
    linear: *const dgm_linear,
    x: *const dgm_tensor,
    activation: i32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid descriptors, or NULL.
    entry(|| unsafe {
        let layer = handle("linear", linear)?;
        let activation = match activation {
            DGM_ACTIVATION_NONE => Activation::None,
            DGM_ACTIVATION_SILU => Activation::Silu,
            DGM_ACTIVATION_GELU_TANH => Activation::GeluTanh,
            DGM_ACTIVATION_GELU_ERF => Activation::GeluErf,
            _ => return Err(Error::argument("activation", activation, "0 to 3")),
        };
        let x = Tensor::read_any("x", x, Some(2), "[rows, in_features]", FLOATS)?;
        let out = Tensor::read_any("out", out, Some(2), "[rows, out_features]", FLOATS)?;
        let target = out.output_floats::<Ix2>(&[&x])?;
        forward(x.floats::<Ix2>()?, &layer.0, activation, target)
    })
}
