//! One Brownian path over all noise levels, so that the noise of an interval is the same however
//! many steps cut it.
//!
//! Time is the angle `atan2(sigma, alpha) / (pi / 2)` of a level, cut at multiples of 2^-DEPTH.
//! The path is W(1) = N_1; the middle of an interval of length h is the mean of its ends plus
//! `sqrt(h) / 2` times the normal of its node. Node 1 is the whole, 2k and 2k + 1 are the halves of
//! k: the normals of node k at the top of a tree are draw k of the Brownian stream, W(1) is draw 0.

use super::process::Node;

/// Levels of the tree: intervals below 2^-20 of a quarter turn have no noise of their own.
const DEPTH: u32 = 20;

/// The increment of the path between two levels over its deviation, as draws and weights.
pub(super) fn increment(from: &Node, to: &Node) -> Vec<(u32, f64)> {
    let (a, b) = (tick(from), tick(to));
    if a == b {
        // Both levels are one place of the path: normals of that place.
        return vec![((1 << DEPTH) + a.min((1 << DEPTH) - 1), 1.0)];
    }
    let (low, high) = (a.min(b), a.max(b));
    let mut weights = position(high);
    for (draw, weight) in position(low) {
        match weights.iter_mut().find(|w| w.0 == draw) {
            Some(found) => found.1 -= weight,
            None => weights.push((draw, -weight)),
        }
    }
    let deviation = libm::sqrt(f64::from(high - low) / f64::from(1u32 << DEPTH));
    weights.retain(|w| w.1 != 0.0);
    weights.sort_unstable_by_key(|w| w.0);
    weights.iter_mut().for_each(|w| w.1 /= deviation);
    weights
}

fn tick(node: &Node) -> u32 {
    let angle = libm::atan2(node.sigma, node.alpha) / std::f64::consts::FRAC_PI_2;
    (angle * f64::from(1u32 << DEPTH)).round_ties_even() as u32
}

/// W at a place as weights of draws.
fn position(place: u32) -> Vec<(u32, f64)> {
    let whole = 1u32 << DEPTH;
    let mut weights = vec![(0, f64::from(place) / f64::from(whole))];
    let (mut low, mut high, mut node) = (0, whole, 1);
    while low < place && place < high {
        let middle = (low + high) / 2;
        // The bump of this node is a tent over its interval.
        let height = 0.5 * libm::sqrt(f64::from(high - low) / f64::from(whole));
        let share = if place <= middle {
            f64::from(place - low) / f64::from(middle - low)
        } else {
            f64::from(high - place) / f64::from(high - middle)
        };
        weights.push((node, height * share));
        if place == middle {
            break;
        }
        (low, high, node) =
            if place < middle { (low, middle, 2 * node) } else { (middle, high, 2 * node + 1) };
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(angle: f64) -> Node {
        let angle = angle * std::f64::consts::FRAC_PI_2;
        Node { t: angle, alpha: libm::cos(angle), sigma: libm::sin(angle) }
    }

    fn product(a: &[(u32, f64)], b: &[(u32, f64)]) -> f64 {
        a.iter().flat_map(|x| b.iter().filter(move |y| y.0 == x.0).map(move |y| x.1 * y.1)).sum()
    }

    #[test]
    fn increments_are_normal_independent_and_add_up() {
        let places = [1.0, 0.83, 0.61, 0.5, 0.3333, 0.1, 0.0];
        let parts: Vec<_> = places.windows(2).map(|p| increment(&node(p[0]), &node(p[1]))).collect();
        for (i, a) in parts.iter().enumerate() {
            for (j, b) in parts.iter().enumerate() {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product(a, b) - expected).abs() < 1e-9, "{i} {j}: {}", product(a, b));
            }
        }
        // Two steps and one step over the same levels see the same path.
        let whole = increment(&node(0.9), &node(0.3));
        let (first, second) = (increment(&node(0.9), &node(0.7)), increment(&node(0.7), &node(0.3)));
        let covered = product(&whole, &first) * libm::sqrt(0.2 / 0.6)
            + product(&whole, &second) * libm::sqrt(0.4 / 0.6);
        assert!((covered - 1.0).abs() < 1e-5, "{covered}");
        assert!(increment(&node(0.5), &node(0.5)).len() == 1);
    }
}
