//! Bad arguments.

use ndarray::{Array2, Axis, s};

use super::machine;
use crate::error::Error;
use crate::models::Rbm;

fn named<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(what), "{message} does not name {what}");
}

#[test]
fn bad_machines_are_refused() {
    let w = Array2::<f32>::zeros((3, 2));
    let new = |w: &Array2<f32>, b: &[f32], c: &[f32]| Rbm::new(w.view(), b, c);
    named(new(&Array2::zeros((0, 2)), &[], &[0.0; 2]), "weights has shape [0, 2]");
    named(new(&Array2::zeros((3, 0)), &[0.0; 3], &[]), "weights has shape [3, 0]");
    named(new(&w, &[0.0; 2], &[0.0; 2]), "visible_bias has shape [2], expected [3]");
    named(new(&w, &[0.0; 3], &[0.0; 3]), "hidden_bias has shape [3], expected [2]");
    named(new(&w, &[0.0, f32::NAN, 0.0], &[0.0; 2]), "visible_bias is NaN at 1");
    named(new(&w, &[0.0; 3], &[0.0, f32::INFINITY]), "hidden_bias is inf at 1");
    let mut bad = w.clone();
    bad[[1, 1]] = f32::NAN;
    named(new(&bad, &[0.0; 3], &[0.0; 2]), "weights is NaN at [1, 1]");
    bad.fill(1e38);
    named(new(&bad, &[0.0; 3], &[0.0; 2]), "visible unit 0");
    named(new(&bad.slice(s![.., ..1]).to_owned(), &[0.0; 3], &[0.0]), "hidden unit 0");
    let mut reversed = w.view();
    reversed.invert_axis(Axis(0));
    named(Rbm::new(reversed, &[0.0; 3], &[0.0; 2]), "weights has strides");
    // Columns side by side are fine.
    Rbm::new(Array2::zeros((2, 3)).t(), &[0.0; 3], &[0.0; 2]).unwrap();
}

#[test]
fn bad_units_are_refused() {
    let rbm = machine(3, 2, 1.0).rbm;
    let (v, mut p) = (Array2::<f32>::zeros((4, 3)), Array2::<f32>::zeros((4, 2)));
    named(rbm.hidden_probabilities(p.view(), v.clone().view_mut()), "v has shape [4, 2], expected [rows, 3]");
    named(rbm.visible_probabilities(v.view(), p.view_mut()), "h has shape [4, 3], expected [rows, 2]");
    named(rbm.hidden_probabilities(v.view(), v.clone().view_mut()), "out has shape");
    named(rbm.hidden_probabilities(Array2::zeros((3, 4)).t(), p.view_mut()), "v has strides");
    named(
        rbm.hidden_probabilities(v.view(), Array2::zeros((2, 4)).view_mut().reversed_axes()),
        "out has strides",
    );
    let mut bad = v.clone();
    for (x, shown) in [(f32::NAN, "NaN"), (-0.1, "-0.1"), (1.5, "1.5"), (f32::INFINITY, "inf")] {
        bad[[2, 1]] = x;
        let shown = format!("is {shown} at row 2, unit 1, expected numbers from 0 to 1");
        named(rbm.hidden_probabilities(bad.view(), p.view_mut()), &shown);
        named(rbm.free_energy(bad.view(), &mut [0.0; 4]), &shown);
        named(rbm.energy(bad.view(), p.view(), &mut [0.0; 4]), &shown);
        let out = (&mut Array2::zeros((3, 2)), &mut [0.0; 3], &mut [0.0; 2]);
        named(rbm.cd_gradient(bad.view(), v.view(), out.0.view_mut(), out.1, out.2), &shown);
        named(rbm.cd_gradient(v.view(), bad.view(), out.0.view_mut(), out.1, out.2), &shown);
    }
    named(rbm.free_energy(v.view(), &mut [0.0; 3]), "free_energy has shape [3], expected [4]");
    named(rbm.energy(v.view(), Array2::zeros((3, 2)).view(), &mut [0.0; 4]), "h has shape [3, 2]");
    named(rbm.energy(v.view(), p.view(), &mut [0.0; 5]), "energy has shape [5]");
    named(rbm.energy(v.view(), (&p + 2.0).view(), &mut [0.0; 4]), "h is 2");
    let (mut w, mut b, mut c) = (Array2::<f32>::from_elem((3, 2), 7.0), [7.0; 3], [7.0; 2]);
    let none = Array2::<f32>::zeros((0, 3));
    named(rbm.cd_gradient(none.view(), v.view(), w.view_mut(), &mut b, &mut c), "v_data has shape [0, 3]");
    named(rbm.cd_gradient(v.view(), none.view(), w.view_mut(), &mut b, &mut c), "v_chain has shape [0, 3]");
    named(rbm.cd_gradient(p.view(), v.view(), w.view_mut(), &mut b, &mut c), "v_data has shape [4, 2]");
    named(rbm.cd_gradient(v.view(), v.view(), p.view_mut(), &mut b, &mut c), "weights has shape [4, 2]");
    named(
        rbm.cd_gradient(v.view(), v.view(), w.view_mut(), &mut c, &mut [0.0; 2]),
        "visible_bias has shape [2]",
    );
    named(
        rbm.cd_gradient(v.view(), v.view(), w.view_mut(), &mut b, &mut [0.0; 3]),
        "hidden_bias has shape [3]",
    );
    assert!(w.iter().chain(&b).chain(&c).all(|x| *x == 7.0), "untouched");
    // No rows are nothing to do.
    rbm.hidden_probabilities(none.view(), Array2::zeros((0, 2)).view_mut()).unwrap();
    rbm.free_energy(none.view(), &mut []).unwrap();
}

#[test]
fn bad_chains_are_refused() {
    let rbm = machine(3, 2, 1.0).rbm;
    let (mut v, seeds) = (Array2::<f32>::ones((4, 3)), [1, 2, 3, 4]);
    named(rbm.gibbs(Array2::ones((4, 2)).view_mut(), &seeds, 0, 1, &[], None), "v has shape [4, 2]");
    named(
        rbm.gibbs(Array2::ones((3, 4)).view_mut().reversed_axes(), &seeds, 0, 1, &[], None),
        "v has strides",
    );
    named(rbm.gibbs(v.view_mut(), &[1; 5], 0, 1, &[], None), "seeds has shape [5], expected [4]");
    named(rbm.gibbs(v.view_mut(), &seeds, 1 << 31, 1, &[], None), "steps is 1 after the first 2147483648");
    named(rbm.gibbs(v.view_mut(), &seeds, u32::MAX, u32::MAX, &[], None), "steps");
    named(rbm.gibbs(v.view_mut(), &seeds, 0, 1, &[1.0; 3], None), "inverse_temperatures has shape [3]");
    for bad in [f64::NAN, -0.5, f64::INFINITY, 1e39] {
        let shown = format!("inverse_temperatures is {bad} at 1");
        named(rbm.gibbs(v.view_mut(), &seeds, 0, 1, &[1.0, bad], None), &shown);
    }
    let mut h = Array2::from_elem((4, 2), 7.0);
    named(rbm.gibbs(v.view_mut(), &seeds, 0, 0, &[], Some(h.view_mut())), "steps is 0");
    named(
        rbm.gibbs(v.view_mut(), &seeds, 0, 1, &[], Some(h.view_mut().reversed_axes())),
        "hidden has shape [2, 4]",
    );
    let mut across = Array2::zeros((2, 4));
    named(
        rbm.gibbs(v.view_mut(), &seeds, 0, 1, &[], Some(across.view_mut().reversed_axes())),
        "hidden has strides",
    );
    assert!(v.iter().all(|x| *x == 1.0) && h.iter().all(|x| *x == 7.0), "untouched");
    for (x, shown) in [(0.5, "v is 0.5 at row 1, unit 2, expected 0 or 1"), (f32::NAN, "v is NaN")] {
        v[[1, 2]] = x;
        named(rbm.gibbs(v.view_mut(), &seeds, 0, 1, &[], None), shown);
    }
    rbm.gibbs(Array2::zeros((0, 3)).view_mut(), &[], 0, 9, &[1.0, 0.5], None).unwrap();
}
