//! Model files from arbitrary bytes: an error, or a network that works.
#![no_main]

use dgm_core::models::Dit;
use dgm_core::sampling::Plan;
use ndarray::Array4;

/// Bytes of tensors that a header may ask for.
const MOST: u64 = 1 << 20;

/// A file with this header and as many bytes of tensors as it says: small floats.
fn file(header: &[u8]) -> Vec<u8> {
    let end = serde_json::from_slice::<serde_json::Value>(header).ok().and_then(|json| {
        let ends = json.as_object()?.values().filter_map(|t| t.get("data_offsets")?.get(1)?.as_u64());
        ends.max()
    });
    let len = end.filter(|&n| n <= MOST).unwrap_or(0) as usize;
    let numbers = (0..len / 4).flat_map(|i| ((i * 37 % 101) as f32 / 400.0 - 0.125).to_le_bytes());
    let mut all = (header.len() as u64).to_le_bytes().to_vec();
    all.extend_from_slice(header);
    all.extend(numbers);
    all.resize(8 + header.len() + len, 0);
    all
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let loaded = if kind % 4 == 0 { Dit::from_bytes(rest) } else { Dit::from_bytes(&file(rest)) };
    let Ok(model) = loaded else { return };
    let c = model.config().clone();
    if let Ok(options) = model.plan_options() {
        let _ = Plan::compile(&options);
    }
    let _ = model.bytes();
    let Ok(workspace) = model.workspace_len(1) else { return };
    if workspace > 1 << 20 || c.flops() > 1 << 26 || c.channels * c.height * c.width > 1 << 18 {
        return;
    }
    let x = Array4::from_elem((1, c.channels, c.height, c.width), 0.5);
    let mut out = Array4::zeros((1, c.out_channels, c.height, c.width));
    let mut scratch = vec![0.0; workspace];
    for label in [0, c.num_classes as i64] {
        model.forward(x.view(), &[0.5], &[label], &mut scratch, out.view_mut()).expect("a forward pass");
    }
    let wrong = model.forward(x.view(), &[0.5], &[c.num_classes as i64 + 1], &mut scratch, out.view_mut());
    assert!(wrong.is_err());
});
