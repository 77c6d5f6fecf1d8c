//! Non-negative least squares: the active-set method of Lawson and Hanson.
//!
//! Problems here have a dozen columns, or some thirty as triangles, so each subproblem is solved afresh by Householder reflections. The same
//! input gives the same bits everywhere: plain arithmetic in a fixed order.

/// Returns x >= 0 that minimises |A x - b|, with A given by its columns.
///
/// # Panics
/// When the columns are not as long as `target`.
pub fn solve(columns: &[Vec<f64>], target: &[f64]) -> Vec<f64> {
    let count = columns.len();
    assert!(columns.iter().all(|column| column.len() == target.len()));
    // Unit columns, so that one tolerance fits all.
    let lengths: Vec<f64> = columns.iter().map(|column| norm(column)).collect();
    let unit: Vec<Vec<f64>> = columns
        .iter()
        .zip(&lengths)
        .map(|(column, &length)| {
            let scale = if length > 0.0 { length } else { 1.0 };
            column.iter().map(|value| value / scale).collect()
        })
        .collect();
    let mut x = vec![0.0; count];
    let mut passive = vec![false; count];
    let tolerance = 1e-12 * norm(target).max(f64::MIN_POSITIVE);
    // Each round frees one column; far more rounds than columns would be a cycle.
    for _ in 0..64 * count.max(1) {
        let residual = residual(&unit, target, &x);
        let steepest = (0..count)
            .filter(|&at| !passive[at] && lengths[at] > 0.0)
            .map(|at| (inner(&unit[at], &residual), at))
            .filter(|(slope, _)| *slope > tolerance)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, entering)) = steepest else {
            break;
        };
        passive[entering] = true;
        if !settle(&unit, target, &mut x, &mut passive, entering) {
            passive[entering] = false;
            break;
        }
    }
    x.iter()
        .zip(&lengths)
        .map(|(value, &length)| if length > 0.0 { value / length } else { 0.0 })
        .collect()
}

/// Moves `x` to the best point of the passive columns, giving up those that would turn negative on the way.
///
/// Returns false when the column that has just entered does not help, which rounding can cause.
fn settle(
    unit: &[Vec<f64>],
    target: &[f64],
    x: &mut [f64],
    passive: &mut [bool],
    entering: usize,
) -> bool {
    loop {
        let chosen: Vec<usize> = (0..x.len()).filter(|&at| passive[at]).collect();
        let part: Vec<&[f64]> = chosen.iter().map(|&at| unit[at].as_slice()).collect();
        let best = least_squares(&part, target);
        let entered = chosen.iter().position(|&at| at == entering);
        if x[entering] == 0.0 && entered.is_some_and(|at| best[at] <= 0.0) {
            return false;
        }
        let blocked = chosen
            .iter()
            .zip(&best)
            .filter(|(_, value)| **value <= 0.0)
            .map(|(&at, value)| x[at] / (x[at] - value))
            .min_by(f64::total_cmp);
        let Some(step) = blocked else {
            for (&at, value) in chosen.iter().zip(best) {
                x[at] = value;
            }
            return true;
        };
        for (&at, value) in chosen.iter().zip(best) {
            x[at] += step * (value - x[at]);
            if x[at] <= 1e-14 {
                x[at] = 0.0;
                passive[at] = false;
            }
        }
    }
}

/// Returns the x that minimises |A x - b| by Householder reflections; 0 for columns that depend on earlier ones.
pub fn least_squares(columns: &[&[f64]], target: &[f64]) -> Vec<f64> {
    let (rows, count) = (target.len(), columns.len());
    let mut a: Vec<Vec<f64>> = columns.iter().map(|column| column.to_vec()).collect();
    let mut b = target.to_vec();
    let mut diagonal = vec![0.0; count];
    for at in 0..count.min(rows) {
        let length = norm(&a[at][at..]);
        if length <= 1e-13 {
            continue;
        }
        let alpha = if a[at][at] > 0.0 { -length } else { length };
        diagonal[at] = alpha;
        a[at][at] -= alpha;
        let mirror = a[at][at..].to_vec();
        let square = inner(&mirror, &mirror);
        for column in a.iter_mut().skip(at + 1) {
            reflect(&mirror, square, &mut column[at..]);
        }
        reflect(&mirror, square, &mut b[at..]);
    }
    let mut x = vec![0.0; count];
    for at in (0..count.min(rows)).rev() {
        if diagonal[at] != 0.0 {
            let known: f64 = (at + 1..count).map(|later| a[later][at] * x[later]).sum();
            x[at] = (b[at] - known) / diagonal[at];
        }
    }
    x
}

fn reflect(mirror: &[f64], square: f64, values: &mut [f64]) {
    let scale = 2.0 * inner(mirror, values) / square;
    for (value, part) in values.iter_mut().zip(mirror) {
        *value -= scale * part;
    }
}

fn residual(columns: &[Vec<f64>], target: &[f64], x: &[f64]) -> Vec<f64> {
    let mut left = target.to_vec();
    for (column, &value) in columns.iter().zip(x) {
        if value != 0.0 {
            for (rest, part) in left.iter_mut().zip(column) {
                *rest -= part * value;
            }
        }
    }
    left
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn norm(values: &[f64]) -> f64 {
    inner(values, values).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;
    use rand::RngExt as _;

    /// Tries every subset of columns, which is certain and slow.
    fn brute_force(columns: &[Vec<f64>], target: &[f64]) -> f64 {
        let mut best = norm(target);
        for subset in 1u32..1 << columns.len() {
            let part: Vec<&[f64]> = columns
                .iter()
                .enumerate()
                .filter(|(at, _)| subset >> at & 1 == 1)
                .map(|(_, column)| column.as_slice())
                .collect();
            let x = least_squares(&part, target);
            if x.iter().all(|value| *value >= 0.0) {
                let kept: Vec<Vec<f64>> = part.iter().map(|column| column.to_vec()).collect();
                best = best.min(norm(&residual(&kept, target, &x)));
            }
        }
        best
    }

    #[test]
    fn it_is_as_good_as_trying_every_subset() {
        let mut random = rng::stream(7, "nnls", 0);
        for _ in 0..200 {
            let mut vector = || (0..12).map(|_| random.random::<f64>() - 0.4).collect();
            let columns: Vec<Vec<f64>> = (0..5).map(|_| vector()).collect();
            let target: Vec<f64> = vector();
            let x = solve(&columns, &target);
            assert!(x.iter().all(|value| *value >= 0.0), "{x:?}");
            let (found, best) = (
                norm(&residual(&columns, &target, &x)),
                brute_force(&columns, &target),
            );
            assert!((found - best).abs() < 1e-9, "{found} {best}");
        }
    }

    #[test]
    fn a_column_of_zeros_gets_nothing() {
        let x = solve(&[vec![0.0, 0.0], vec![1.0, 1.0]], &[2.0, 4.0]);
        assert!(x[0] == 0.0 && (x[1] - 3.0).abs() < 1e-12, "{x:?}");
    }
}
