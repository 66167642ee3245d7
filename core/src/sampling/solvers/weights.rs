//! Weights of linear multistep methods: Lagrange's polynomial through the history, integrated exactly.

/// Largest number of points.
const MOST: usize = 5;

/// Coefficients of the Lagrange polynomials through `points`: `result[j][k]` belongs to `x^k`.
fn lagrange(points: &[f64]) -> Vec<[f64; MOST]> {
    let mut all = Vec::with_capacity(points.len());
    for (j, &p) in points.iter().enumerate() {
        let mut poly = [0.0; MOST];
        poly[0] = 1.0;
        let others = points.iter().enumerate().filter(|(i, _)| *i != j);
        for (degree, (_, &q)) in others.enumerate() {
            for k in (0..=degree + 1).rev() {
                let below = if k == 0 { 0.0 } else { poly[k - 1] };
                poly[k] = (below - q * poly[k]) / (p - q);
            }
        }
        all.push(poly);
    }
    all
}

fn weigh(points: &[f64], moment: impl Fn(usize) -> f64) -> Vec<f64> {
    debug_assert!(points.len() <= MOST);
    let moments: Vec<f64> = (0..points.len()).map(moment).collect();
    lagrange(points).iter().map(|poly| moments.iter().zip(poly).map(|(m, c)| m * c).sum()).collect()
}

/// `int_0^1 L_j(x) dx`: Adams-Bashforth for any steps, `points` in units of the step ahead, 0 its start.
pub(super) fn adams(points: &[f64]) -> Vec<f64> {
    weigh(points, |k| 1.0 / (k + 1) as f64)
}

/// `z int_0^1 exp(-z (1 - x)) L_j(x) dx`: the exponential Adams method; for negative `z` the one in eps.
pub(super) fn exponential(points: &[f64], z: f64) -> Vec<f64> {
    weigh(points, |k| moment(k, z))
}

/// `z int_0^1 exp(-z (1 - x)) x^k dx`
pub(super) fn moment(k: usize, z: f64) -> f64 {
    if z.abs() < 2.0 {
        // z sum_j (-z)^j k! / (k + j + 1)!, which does not cancel.
        let mut term = z / (k + 1) as f64;
        let mut sum = term;
        for j in 1..40 {
            term *= -z / (k + j + 1) as f64;
            sum += term;
        }
        return sum;
    }
    (1..=k).fold(-libm::expm1(-z), |m, k| 1.0 - k as f64 * m / z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_books() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&adams(&[0.0]), &[1.0]));
        assert!(close(&adams(&[0.0, -1.0]), &[1.5, -0.5]));
        assert!(close(&adams(&[0.0, -1.0, -2.0]), &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0]));
        let fourth = [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0];
        assert!(close(&adams(&[0.0, -1.0, -2.0, -3.0]), &fourth));
        // phi functions: one point is phi_1, two are exact for lines.
        for h in [1e-6, 0.1, 1.9, 2.1, 9.0, -0.3, -4.0] {
            let one = exponential(&[0.0], h)[0];
            assert!((one + libm::expm1(-h)).abs() < 1e-13 * one.abs().max(1.0));
            let two = exponential(&[0.0, -0.5], h);
            let slope = libm::expm1(-h) / h + 1.0;
            assert!((two[1] + 2.0 * slope).abs() < 1e-9, "{h}: {} {slope}", two[1]);
        }
        let (low, high) = (moment(3, 1.999_999), moment(3, 2.000_001));
        assert!((low - high).abs() < 1e-6);
    }
}
