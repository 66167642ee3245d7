//! The layout of the public structs is the one that C programs assert (tests/c/layout.h).

use std::fmt::Write;

use crate::attention::dgm_attention_options;
use crate::cache::{dgm_kv_cache, dgm_rope_options};
use crate::flux::dgm_flux_info;
use crate::linear::dgm_linear_options;
use crate::llama::dgm_llama_info;
use crate::model::dgm_model_info;
use crate::operations::{dgm_operation, dgm_term};
use crate::options::dgm_plan_options;
use crate::run::dgm_request;
use crate::sd3::dgm_sd3_info;
use crate::tensor::dgm_tensor;

/// Appends a struct as it stands in the list. A field that is not named here does not compile.
macro_rules! layout {
    ($text:ident, $name:ident { $($field:ident),+ $(,)? }) => {
        let _ = |$name { $($field: _),+ }: $name| ();
        writeln!($text, "SIZE({}, {})", stringify!($name), size_of::<$name>()).unwrap();
        $(writeln!($text, "FIELD({}, {}, {})", stringify!($name), stringify!($field), std::mem::offset_of!($name, $field)).unwrap();)+
    };
}

#[test]
fn structs_lie_as_c_sees_them() {
    let mut text = String::new();
    layout!(
        text,
        dgm_attention_options {
            struct_size,
            scale,
            causal,
            kv_lengths,
            window_left,
            window_right,
            alibi_slopes,
            sinks,
            bias,
            mask,
            soft_cap,
            reserved
        }
    );
    layout!(text, dgm_kv_cache { struct_size, k, v, k_scale, v_scale, block_table, lengths });
    layout!(text, dgm_linear_options { struct_size, gate, residual, activation, reserved });
    layout!(text, dgm_rope_options { struct_size, cos, sin, interleaved, reserved });
    layout!(
        text,
        dgm_tensor {
            data,
            device_type,
            device_id,
            ndim,
            dtype_code,
            dtype_bits,
            dtype_lanes,
            shape,
            strides,
            byte_offset
        }
    );
    layout!(
        text,
        dgm_plan_options {
            struct_size,
            process,
            prediction,
            solver,
            spacing,
            steps,
            shift,
            eta,
            guidance,
            clip,
            beta_start,
            beta_end,
            train_steps,
            rtol,
            atol,
            h_init,
            times,
            times_len,
            max_evals,
            order,
            sde_eta,
            sigma_min,
            sigma_max,
            sigma_data,
            rho,
            zero_snr,
            final_sigma,
            steps_offset,
            shift_type,
            guidance_mode,
            shift_power,
            shift_terminal,
            s_churn,
            s_tmin,
            s_tmax,
            s_noise,
            guidance_rescale,
            guidance_start,
            guidance_end,
            apg_eta,
            apg_norm,
            apg_momentum,
            zero_init_steps,
            noise,
            variance,
            threshold_ratio,
            threshold_max,
            start_step,
            start_sigma,
            inpaint,
            compat,
            original_steps,
            time_scale,
            sigmas,
            sigmas_len,
            betas,
            betas_len,
            restart,
            restart_len,
            per_row,
            reserved,
            snr,
            corrector_steps,
            guidance_weak,
            t_start,
            t_end,
            controller,
            controller_len,
            save_at,
            save_at_len,
            likelihood,
            non_finite,
            step_size,
            leapfrog,
            warmup,
            target_accept,
            stop_at,
            stop_at_len
        }
    );
    layout!(
        text,
        dgm_request {
            struct_size,
            done,
            role,
            eval_id,
            step,
            stage,
            slot,
            t,
            sigma,
            alpha,
            rows,
            elements,
            active_rows,
            uniform_t,
            roles,
            t_to
        }
    );
    layout!(text, dgm_term { source, index, purpose, draw, coefficient, measured, reserved });
    layout!(text, dgm_operation { kind, target, index, mask, first_term, terms, clip, p0, p1, p2 });
    layout!(
        text,
        dgm_model_info {
            struct_size,
            channels,
            height,
            width,
            out_channels,
            num_classes,
            tokens,
            width_d,
            depth,
            heads,
            packed_bytes
        }
    );
    layout!(
        text,
        dgm_llama_info {
            struct_size,
            vocab,
            hidden,
            mlp_hidden,
            depth,
            heads,
            kv_heads,
            head_dim,
            cache_heads,
            max_positions,
            packed_bytes,
        }
    );
    layout!(
        text,
        dgm_sd3_info {
            struct_size,
            channels,
            out_channels,
            patch,
            hidden,
            depth,
            heads,
            text,
            pooled,
            positions,
            packed_bytes,
        }
    );
    layout!(
        text,
        dgm_flux_info {
            struct_size,
            channels,
            out_channels,
            hidden,
            depth,
            single_depth,
            heads,
            text,
            pooled,
            axes,
            guidance,
            packed_bytes,
        }
    );
    let listed = include_str!("../../tests/c/layout.h");
    let listed: String = listed.lines().filter(|l| l.ends_with(')')).flat_map(|l| [l, "\n"]).collect();
    assert_eq!(text, listed);
}
