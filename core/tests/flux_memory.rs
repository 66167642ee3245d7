//! What a Flux transformer takes of the heap in a call: lists of tasks.

use dgm_core::models::{Flux, FluxInputs};
use dgm_core::threads;
use ndarray::{Array2, Array3};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

#[test]
fn a_call_takes_less_than_the_activations_of_two_tokens() {
    threads::set_num_threads(2).unwrap();
    let model = Flux::load("../tests/golden/tiny_flux_dev".as_ref()).unwrap();
    let c = model.config();
    let (x, text) = (Array3::from_elem((2, 240, c.channels), 0.25), Array3::ones((2, 30, c.text)));
    let pooled = Array2::ones((2, c.pooled));
    let ids = Array2::from_shape_fn((240, 3), |(n, axis)| [0, n / 16, n % 16][axis] as f32);
    let inputs = FluxInputs {
        x: x.view(),
        t: &[0.5, 0.25],
        guidance: Some(&[3.5, 1.0]),
        text: text.view(),
        pooled: pooled.view(),
        ids: ids.view(),
        text_ids: None,
    };
    let mut workspace = vec![0.0; model.workspace_len(240, 30).unwrap()];
    let mut out = Array3::zeros((2, 240, c.out_channels));
    let mut most = 0;
    // What threads keep for their tiles comes with the first calls.
    for _ in 0..3 {
        let now = HEAP.current_usage();
        HEAP.reset_peak_usage();
        model.forward(&inputs, &mut workspace, out.view_mut()).unwrap();
        most = HEAP.peak_usage() - now;
    }
    // However many tokens.
    let tokens = 2 * 4 * (model.workspace_len(240, 30).unwrap() - model.workspace_len(239, 30).unwrap());
    println!("most {most} of {tokens}");
    assert!(most < tokens, "{most} of {tokens}");
}
