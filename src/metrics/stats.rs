//! Quantiles of spans, exactly and in whole nanoseconds.
//!
//! A quantile is the linear interpolation between the two order statistics around it: the p-th percentile of n sorted
//! values lies at position p/100 x (n - 1), counted from zero (the definition that `NumPy` and spreadsheets use by
//! default). It is computed in integers and rounded to the nearest nanosecond, so it is the same on every machine.

use crate::units::Span;

/// A handful of figures that say how a quantity is spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quantiles {
    /// The arithmetic mean.
    pub mean: Span,
    /// The median.
    pub p50: Span,
    /// The 90th percentile.
    pub p90: Span,
    /// The 95th percentile.
    pub p95: Span,
    /// The 99th percentile.
    pub p99: Span,
    /// The largest value.
    pub max: Span,
}

impl Quantiles {
    /// Returns the figures for `values`, which it sorts; nothing when there are none.
    pub fn of(values: &mut [Span]) -> Option<Quantiles> {
        values.sort_unstable();
        let &max = values.last()?;
        let sum: u128 = values.iter().map(|span| u128::from(span.0)).sum();
        Some(Quantiles {
            mean: Span(rounded(sum, values.len() as u128)),
            p50: percentile(values, 50),
            p90: percentile(values, 90),
            p95: percentile(values, 95),
            p99: percentile(values, 99),
            max,
        })
    }

    /// Returns the figures with the names they have in result documents, in their order there.
    pub fn named(&self) -> [(&'static str, Span); 6] {
        [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("max", self.max),
        ]
    }
}

/// Returns the `percent`-th percentile of values in ascending order.
///
/// # Panics
/// When there are no values, or `percent` is above 100.
pub fn percentile(sorted: &[Span], percent: u32) -> Span {
    assert!(
        !sorted.is_empty() && percent <= 100,
        "no {percent}th percentile of {} values",
        sorted.len()
    );
    let hundredths = (sorted.len() as u128 - 1) * u128::from(percent);
    let (below, rest) = ((hundredths / 100) as usize, hundredths % 100);
    let low = sorted[below].0;
    let high = sorted.get(below + 1).map_or(low, |span| span.0);
    Span(low + rounded(u128::from(high - low) * rest, 100))
}

/// Divides and rounds to the nearest whole number, halves upwards.
fn rounded(dividend: u128, divisor: u128) -> u64 {
    u64::try_from((dividend + divisor / 2) / divisor).expect("a mean is not above the largest")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::Rng;

    #[test]
    fn quantiles_interpolate_between_order_statistics() {
        let mut values: Vec<Span> = [40, 10, 30, 20].map(Span).to_vec();
        let found = Quantiles::of(&mut values).unwrap();
        assert_eq!(found.mean, Span(25));
        assert_eq!(found.p50, Span(25));
        assert_eq!(found.p90, Span(37));
        assert_eq!(found.max, Span(40));
    }

    #[test]
    fn one_value_is_every_quantile_and_none_has_none() {
        let found = Quantiles::of(&mut [Span(7)]).unwrap();
        assert!(found.named().iter().all(|(_, span)| *span == Span(7)));
        assert_eq!(Quantiles::of(&mut []), None);
    }

    #[test]
    fn quantiles_agree_with_floating_interpolation_over_a_sort() {
        let mut random = rng::stream(7, "stats", 0);
        for n in 1..200_usize {
            let mut values: Vec<Span> = (0..n)
                .map(|_| Span(random.next_u64() % 1_000_000_007))
                .collect();
            let mut oracle: Vec<f64> = values.iter().map(|span| span.0 as f64).collect();
            oracle.sort_by(f64::total_cmp);
            let found = Quantiles::of(&mut values).unwrap();
            let at = |p: f64| {
                let place = p / 100.0 * (n - 1) as f64;
                let low = oracle[place.floor() as usize];
                low + (oracle[place.ceil() as usize] - low) * place.fract()
            };
            for (found, expected) in [
                (found.p50, at(50.0)),
                (found.p90, at(90.0)),
                (found.p95, at(95.0)),
                (found.p99, at(99.0)),
                (found.max, at(100.0)),
                (found.mean, oracle.iter().sum::<f64>() / n as f64),
            ] {
                assert!(
                    (found.0 as f64 - expected).abs() < 0.6,
                    "{n}: {found:?} {expected}"
                );
            }
        }
    }
}
