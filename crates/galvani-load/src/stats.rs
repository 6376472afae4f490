//! Whether two series differ by more than chance: means, effective sizes, Welch's test.
//!
//! Seconds of one run resemble their neighbours, so that sixty of them say less than sixty
//! independent ones would. The effective size takes that off (Geyer 1992, initial positive
//! sequence); Welch's test (1947) then takes the effective sizes for the sizes.

/// A series in figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Its mean.
    pub mean: f64,
    /// Its variance.
    pub variance: f64,
    /// As many independent values would say as much of the mean.
    pub effective: f64,
}

impl Series {
    /// Of at least two values.
    pub fn of(values: &[f64]) -> Option<Series> {
        if values.len() < 2 {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let variance = squares / (n - 1.0);
        let effective = match squares > 0.0 {
            true => n / (1.0 + 2.0 * correlation(values, mean, squares)),
            false => n,
        };
        Some(Series { mean, variance, effective: effective.clamp(1.0, n) })
    }

    /// The half width of the interval that holds the true mean with 95 %.
    pub fn margin(&self) -> f64 {
        1.96 * (self.variance / self.effective).sqrt()
    }
}

/// The sum of autocorrelations up to the first that is not positive.
fn correlation(values: &[f64], mean: f64, squares: f64) -> f64 {
    let mut sum = 0.0;
    for lag in 1..values.len() {
        let pairs = values.iter().zip(&values[lag..]);
        let rho = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / squares;
        if rho <= 0.0 {
            break;
        }
        sum += rho;
    }
    sum
}

/// The probability of means at least so far apart if the two do not differ (two-sided).
pub fn welch(one: &Series, other: &Series) -> f64 {
    let (a, b) = (one.variance / one.effective, other.variance / other.effective);
    let error = a + b;
    if error <= 0.0 {
        return if one.mean == other.mean { 1.0 } else { 0.0 };
    }
    let t = (one.mean - other.mean) / error.sqrt();
    let freedom = |effective: f64| (effective - 1.0).max(0.5);
    let parts = a * a / freedom(one.effective) + b * b / freedom(other.effective);
    let degrees = error * error / parts;
    student(t.abs(), degrees)
}

/// The two tails of Student's t beyond `t`.
fn student(t: f64, degrees: f64) -> f64 {
    incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t)).clamp(0.0, 1.0)
}

/// The regularised incomplete beta function, by its continued fraction (Abramowitz and Stegun
/// 26.5.8, evaluated as Lentz does).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln();
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let tiny = 1e-300;
    let away = |value: f64| if value.abs() < tiny { tiny } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..=200 {
        let m = f64::from(m);
        for coefficient in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / away(1.0 + coefficient * d);
            c = away(1.0 + coefficient / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-12 {
            break;
        }
    }
    ln_front.exp() * fraction / a
}

/// The logarithm of the gamma function of a positive number (Lanczos 1964).
fn ln_gamma(x: f64) -> f64 {
    let base = x + 5.5;
    let base = (x + 0.5) * base.ln() - base;
    let series = LANCZOS
        .iter()
        .enumerate()
        .fold(1.000_000_000_190_015, |sum, (index, term)| sum + term / (x + 1.0 + index as f64));
    base + (2.506_628_274_631_000_5 * series / x).ln()
}

const LANCZOS: [f64; 6] = [
    76.180_091_729_471_46,
    -86.505_320_329_416_77,
    24.014_098_240_830_91,
    -1.231_739_572_450_155,
    0.001_208_650_973_866_179,
    -0.000_005_395_239_384_953,
];

#[cfg(test)]
mod tests {
    use super::{Series, student, welch};
    use crate::random::Random;

    fn noise(seed: u64, mean: f64, count: usize) -> Vec<f64> {
        let mut random = Random::of(seed);
        (0..count).map(|_| mean + (0..12).map(|_| random.share()).sum::<f64>() - 6.0).collect()
    }

    #[test]
    fn tails_are_those_of_the_tables() {
        for (t, degrees, p) in
            [(2.228, 10.0, 0.05), (12.706, 1.0, 0.05), (2.750, 30.0, 0.01), (0.0, 5.0, 1.0)]
        {
            let got = student(t, degrees);
            assert!((got - p).abs() < 2e-4, "t {t} of {degrees}: {got} for {p}");
        }
    }

    #[test]
    fn a_difference_is_found_and_chance_is_not_called_one() {
        let series = |seed, mean| Series::of(&noise(seed, mean, 60)).expect("values");
        assert!(welch(&series(1, 10.0), &series(2, 11.0)) < 0.001);
        // One in twenty may look like a difference; of forty, not many more than two.
        let called = (0..40)
            .filter(|seed| welch(&series(100 + seed, 10.0), &series(200 + seed, 10.0)) < 0.05);
        assert!(called.count() <= 6);
    }

    #[test]
    fn neighbours_that_resemble_each_other_say_less() {
        let independent = Series::of(&noise(5, 0.0, 400)).expect("values");
        assert!(independent.effective > 200.0, "{independent:?}");
        let mut level = 0.0;
        let drift: Vec<f64> = noise(6, 0.0, 400)
            .into_iter()
            .map(|step| {
                level = 0.95 * level + step;
                level
            })
            .collect();
        let drift = Series::of(&drift).expect("values");
        assert!(drift.effective < 60.0, "{drift:?}");
    }

    #[test]
    fn constants_and_single_values_do_not_divide_by_zero() {
        assert_eq!(Series::of(&[1.0]), None);
        let series = |value: f64| Series::of(&[value; 5]).expect("values");
        assert_eq!(
            (welch(&series(1.0), &series(1.0)), welch(&series(1.0), &series(2.0))),
            (1.0, 0.0)
        );
        assert_eq!(series(1.0).margin(), 0.0);
    }
}
