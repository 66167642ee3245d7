//! Linear layers with packed weights.

use dgm_core::Error;
use dgm_core::linalg::{Activation, PackedLinear, linear as forward};
use ndarray::{Ix1, Ix2};

use crate::fence::entry;
use crate::memory::{free_handle, handle, put_handle};
use crate::tensor::{Tensor, dgm_tensor};

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
            let weight = Tensor::read("weight", weight, Some(2), "[out_features, in_features]")?;
            let bias = Tensor::read_optional("bias", bias, 1, "[out_features]")?;
            let bias = bias.as_ref().map(Tensor::view::<Ix1>).transpose()?;
            PackedLinear::pack(weight.view::<Ix2>()?, bias).map(dgm_linear)
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
        let x = Tensor::read("x", x, Some(2), "[rows, in_features]")?;
        let out = Tensor::read("out", out, Some(2), "[rows, out_features]")?;
        let target = out.output::<Ix2>(&[&x])?;
        forward(x.view::<Ix2>()?, &layer.0, activation, target)
    })
}
