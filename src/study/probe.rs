//! How many agents a real engine carries: which size to measure next, and what is known once time is up.
//!
//! A measurement takes minutes and comes out a little different every time. So sizes are doubled until one fails, the gap is
//! halved until the edge is found, and what time is left goes into repeats of the two sizes at the edge.

use super::size::{Range, Search};
use std::collections::BTreeMap;

/// A size whose strain is this far from 1, or its inverse, does not change sides when it is measured again.
const NEAR: f64 = 1.35;

/// The strain of each size, as often as it was measured.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Curve {
    /// By size.
    pub strains: BTreeMap<u32, Vec<f64>>,
}

fn mean(strains: &[f64]) -> f64 {
    strains.iter().sum::<f64>() / strains.len() as f64
}

fn ends(strains: &[f64]) -> (f64, f64) {
    let low = strains.iter().copied().fold(f64::INFINITY, f64::min);
    (low, strains.iter().copied().fold(0.0, f64::max))
}

impl Curve {
    /// Notes what a size has shown once more.
    pub fn add(&mut self, size: u32, strain: f64) {
        self.strains.entry(size).or_default().push(strain);
    }

    /// Returns the mean strain of each size.
    pub fn means(&self) -> Search {
        let means = self.strains.iter();
        Search {
            strains: means.map(|(size, all)| (*size, mean(all))).collect(),
        }
    }

    /// Returns how often a size was measured.
    pub fn times(&self, size: u32) -> u32 {
        self.strains.get(&size).map_or(0, |all| all.len() as u32)
    }

    /// Returns the size to measure next, none more often than `repeats`; nothing where all is known.
    pub fn next(&self, max: u32, repeats: u32) -> Option<u32> {
        let means = self.means();
        let best = means.best().unwrap_or(0);
        let edge = means
            .strains
            .range(best + 1..)
            .next()
            .map(|(size, _)| *size);
        match edge {
            None if best < max => return Some((best * 2).clamp(1, max)),
            Some(edge) if edge - best > 1 => return Some(best + (edge - best) / 2),
            _ => {}
        }
        let open = |size: &u32| {
            let strain = means.strains.get(size).copied();
            let near = strain.is_some_and(|strain| (1.0 / NEAR..NEAR).contains(&strain));
            near && self.times(*size) < repeats
        };
        let at_edge = [Some(best), edge].into_iter().flatten();
        at_edge.filter(open).min_by_key(|size| self.times(*size))
    }

    /// Returns how far apart repeats of one size were, as a share of their mean; nothing without repeats.
    pub fn spread(&self) -> Option<f64> {
        let repeated = self.strains.values().filter(|all| all.len() > 1);
        let apart = repeated.map(|all| {
            let ((low, high), middle) = (ends(all), mean(all));
            (high / middle - 1.0).max(1.0 - low / middle)
        });
        apart.filter(|apart| apart.is_finite()).reduce(f64::max)
    }

    /// Returns the sizes that the engine may carry, if every size is as far off as repeats were apart. Nothing without repeats.
    pub fn range(&self) -> Option<Range> {
        let spread = self.spread()?;
        let reach = |all: &Vec<f64>| {
            let ((low, high), middle) = (ends(all), mean(all));
            (
                low.min(middle * (1.0 - spread)),
                high.max(middle * (1.0 + spread)),
            )
        };
        let sizes: Vec<(u32, (f64, f64))> = self
            .strains
            .iter()
            .map(|(size, all)| (*size, reach(all)))
            .collect();
        let largest = |holds: &dyn Fn(&(f64, f64)) -> bool| {
            let held = sizes.iter().rev().find(|(_, strain)| holds(strain));
            held.map_or(0, |(size, _)| *size)
        };
        let low = largest(&|(_, worst)| *worst <= 1.0);
        let held = largest(&|(mildest, _)| *mildest <= 1.0);
        // Sizes in between that nobody measured may hold as well.
        let beyond = sizes.iter().find(|(size, _)| *size > held);
        Some(Range {
            low,
            high: beyond.map_or(held, |(size, _)| size - 1),
            by: "its repeats were",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::Rng;

    /// Measures until all is known; returns the curve and how many measurements it took.
    fn probed(max: u32, mut measure: impl FnMut(u32) -> f64) -> (Curve, u32) {
        let (mut curve, mut tries) = (Curve::default(), 0);
        while let Some(size) = curve.next(max, 3) {
            curve.add(size, measure(size));
            tries += 1;
            assert!(tries < 100, "it never ends: {curve:?}");
        }
        (curve, tries)
    }

    #[test]
    fn the_edge_is_found_in_few_measurements() {
        for edge in 0..=64 {
            let (curve, tries) = probed(64, |n| f64::from(n) / (f64::from(edge) + 0.5));
            assert_eq!(curve.means().best().unwrap_or(0), edge);
            assert!(tries <= 17, "{tries} measurements for an edge at {edge}");
        }
    }

    #[test]
    fn the_range_holds_the_edge_that_noise_hides() {
        let mut inside = 0;
        for seed in 0..200 {
            let mut random = rng::stream(seed, "probe", 0);
            // Up to 5 % off, either way.
            let (curve, _) = probed(64, |n| {
                let noise = (random.next_u64() % 1001) as f64 / 1000.0 - 0.5;
                f64::from(n) / 20.5 * (1.0 + noise / 10.0)
            });
            let range = curve.range().unwrap();
            assert!(
                range.low <= range.high && range.high <= 24 && range.low >= 16,
                "{range:?}"
            );
            inside += u32::from((range.low..=range.high).contains(&20));
        }
        assert!(inside >= 190, "{inside} of 200");
    }

    #[test]
    fn what_was_measured_before_is_not_measured_again() {
        let (whole, tries) = probed(64, |n| f64::from(n) / 11.5);
        let mut cut = whole.clone();
        cut.strains.remove(&11);
        assert_eq!(cut.next(64, 3), Some(11));
        assert!(whole.next(64, 3).is_none() && tries < 15);
        // Time was up before anything was known.
        assert_eq!(Curve::default().range(), None);
    }
}
