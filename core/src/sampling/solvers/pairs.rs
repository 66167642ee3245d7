//! Embedded Runge-Kutta pairs whose last stage is the first of the next step.

/// A pair with its interpolant.
pub(in crate::sampling) struct Pair {
    /// Rows of `a`, below the diagonal; the last one is also `b`.
    pub a: &'static [&'static [f64]],
    pub c: &'static [f64],
    /// Weights of the error estimate.
    pub e: &'static [f64],
    /// Order of the error of a step: that of the embedded method, plus 1.
    pub order: f64,
    /// The stage in whose tensor the last slope is kept: one that is spent by then, or the last itself.
    pub last: usize,
    /// Most growth of a step.
    pub grow: f64,
    /// First step: a twentieth of the span, else from the slopes (Hairer, Norsett & Wanner I, II.4).
    pub twentieth: bool,
    /// Exponents of the last three errors.
    pub exponents: [f64; 3],
    dense: fn(f64) -> Dense,
}

/// Weights of x at the two ends of a step, and of `h` times its slopes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::sampling) struct Dense {
    pub from: f64,
    pub to: f64,
    pub slopes: [f64; 7],
}

impl Pair {
    /// The interpolant a fraction of the way through a step.
    pub(in crate::sampling) fn dense(&self, fraction: f64) -> Dense {
        (self.dense)(fraction)
    }

    /// Evaluations of a step, the first one shared with the step before.
    pub(in crate::sampling) fn stages(&self) -> usize {
        self.c.len()
    }
}

/// Bogacki & Shampine 3(2) (1989); its interpolant is the cubic Hermite polynomial.
pub(in crate::sampling) const BOSH3: Pair = Pair {
    a: &[&[], &[0.5], &[0.0, 0.75], &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
    c: &[0.0, 0.5, 0.75, 1.0],
    e: &[-5.0 / 72.0, 1.0 / 12.0, 1.0 / 9.0, -0.125],
    order: 3.0,
    last: 1,
    grow: 5.0,
    twentieth: true,
    exponents: [0.7, -0.4, 0.0],
    dense: |t| {
        let s = t - 1.0;
        let mut slopes = [0.0; 7];
        (slopes[0], slopes[1]) = (t * s * s, t * t * s);
        let to = t * t * (3.0 - 2.0 * t);
        Dense { from: 1.0 - to, to, slopes }
    },
};

/// Dormand & Prince 5(4) (1980); interpolant of order 4 (Hairer, Norsett & Wanner I, II.6).
pub(in crate::sampling) const DOPRI5: Pair = Pair {
    a: &[
        &[],
        &[1.0 / 5.0],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
        &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
        &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
    ],
    c: &[0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
    e: &[71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0],
    order: 5.0,
    last: 1,
    grow: 10.0,
    twentieth: false,
    exponents: [1.0, 0.0, 0.0],
    dense: |t| {
        let d = [
            -12715105075.0 / 11282082432.0,
            0.0,
            87487479700.0 / 32700410799.0,
            -10690763975.0 / 1880347072.0,
            701980252875.0 / 199316789632.0,
            -1453857185.0 / 822651844.0,
            69997945.0 / 29380423.0,
        ];
        // The fifth polynomial beside the Hermite one, which it leaves as it is at both ends.
        let s = t - 1.0;
        let bump = t * t * s * s;
        let mut slopes = d.map(|d| bump * d);
        slopes[0] += t * s * s;
        slopes[6] += t * t * s;
        // The last slope lies where the second was.
        slopes[1] = slopes[6];
        slopes[6] = 0.0;
        let to = t * t * (3.0 - 2.0 * t);
        Dense { from: 1.0 - to, to, slopes }
    },
};

/// Tsitouras 5(4) (2011) with its interpolant of order 4.
pub(in crate::sampling) const TSIT5: Pair = Pair {
    a: &[
        &[],
        &[0.161],
        &[-0.008480655492356989, 0.335480655492357],
        &[2.8971530571054935, -6.359448489975075, 4.3622954328695815],
        &[5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525],
        &[5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383],
        &[
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ],
    ],
    c: &[0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0],
    e: &[
        -0.001780011052225777,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1.0 / 66.0,
    ],
    order: 5.0,
    last: 6,
    grow: 10.0,
    twentieth: false,
    exponents: [1.0, 0.0, 0.0],
    dense: |t| {
        let s = t * t;
        let slopes = [
            -1.0530884977290216
                * t
                * (t - 1.329989018975141)
                * (s - 1.4364028541716352 * t + 0.7139816917074209),
            0.1017 * s * (s - 2.1966568338249752 * t + 1.294985250737463),
            2.490627285651253 * s * (s - 2.3853564547206165 * t + 1.5780346820809248),
            -16.548102889244902 * (t - 1.2171292729553325) * (t - 0.6162040603780009) * s,
            47.37952196281928 * (t - 1.2030712083723627) * (t - 0.6580472926535473) * s,
            -34.87065786149661 * (t - 1.2) * (t - 0.6666666666666666) * s,
            2.5 * (t - 1.0) * (t - 0.6) * s,
        ];
        Dense { from: 1.0, to: 0.0, slopes }
    },
};
