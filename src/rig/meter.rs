//! What a rig was busy with: each step's time by the resource that its terms stand for, and why requests waited.
//!
//! Kept as running sums, so that a request needs only the sums at two moments to know what its time was bound by, and a
//! step costs the same however many requests see it. Power is told from the same accounts, by phase.

use super::cost::{FEATURE_NAMES, Graph, StepCost};
use super::fine::Fine;
use crate::catalog::Thermal;
use crate::units::Span;

/// What a request's time can be bound by, in the order of [`crate::call::BoundBy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Reading weights from memory.
    Weights,
    /// Reading keys and values from memory.
    Kv,
    /// Arithmetic.
    Compute,
    /// Launching, sampling, taking requests in.
    Overhead,
    /// Moving state between memory tiers.
    Transfer,
    /// Waiting for a slot.
    Slots,
    /// Waiting for room for keys and values.
    Memory,
    /// Waiting for the step under way, or for prompts that stand before in the batch.
    Turn,
}

/// How many bounds there are.
pub const BOUNDS: usize = 8;

/// The bounds, and the attention of prompts, which is arithmetic but draws less on some machines.
const TERMS: usize = BOUNDS + 1;
const PROMPT_ATTENTION: usize = BOUNDS;

/// Time by what bound it.
pub type Sums = [Fine; BOUNDS];

/// How long a rig was busy, by the phases that draw different power. The rest of a replay it was idle.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Busy {
    /// Passes that read prompts, but for attention.
    pub prefill: Span,
    /// The attention of prompts.
    pub prompt_attention: Span,
    /// Passes that only write, but for attention.
    pub decode: Span,
    /// The attention of rows that write.
    pub row_attention: Span,
    /// Moving state between memory tiers.
    pub transfer: Span,
}

/// What limits how much an engine takes in, where it is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Requests that are served at the same time.
    pub slots: Option<u64>,
    /// Tokens of one step.
    pub step_tokens: Option<u64>,
}

/// The running sums of one rig.
#[derive(Clone, Default, Debug)]
pub struct Meter {
    /// What requests inside the engine saw pass.
    work: Sums,
    /// What requests before the engine saw pass.
    wait: Sums,
    /// Why requests wait during the step under way, and since when it is.
    under_way: Option<(Bound, Fine)>,
    prefill: Fine,
    prompt_attention: Fine,
    decode: Fine,
    row_attention: Fine,
    transfer: Fine,
}

/// The sums at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    work: Sums,
    wait: Sums,
}

impl Meter {
    /// Returns the sums as they stand at `at`.
    pub fn mark(&self, at: Fine) -> Mark {
        let mut mark = Mark {
            work: self.work,
            wait: self.wait,
        };
        if let Some((why, from)) = self.under_way {
            mark.wait[why as usize] += at.saturating_sub(from);
        }
        mark
    }

    /// Adds to `sums` what has passed since `mark` for a request inside the engine, or before it.
    pub fn add_since(&self, mark: &Mark, inside: bool, sums: &mut Sums) {
        let (now, then) = if inside {
            (&self.work, &mark.work)
        } else {
            (&self.wait, &mark.wait)
        };
        for (sum, (now, then)) in sums.iter_mut().zip(now.iter().zip(then)) {
            *sum += now.saturating_sub(*then);
        }
    }

    /// Notes that a step begins, and why requests that are not part of it wait.
    pub fn begin(&mut self, from: Fine, why: Bound) {
        self.under_way = Some((why, from));
    }

    /// Notes time in which state moved and nothing else happened.
    pub fn moved(&mut self, length: Fine) {
        self.work[Bound::Transfer as usize] += length;
        self.wait[Bound::Turn as usize] += length;
        self.transfer += length;
    }

    /// Notes the end of a step of these passes, made `times` times over `length`.
    ///
    /// Everything but the shares of one pass is integer arithmetic on the same grid as the cost itself, so that a run
    /// of steps adds what its steps would have added one by one.
    pub fn end(&mut self, cost: &StepCost, graphs: &[Graph], times: u64, length: Fine) {
        if let Some((why, _)) = self.under_way.take() {
            self.wait[why as usize] += length;
        }
        let mut shares = [Fine::ZERO; TERMS];
        let mut reading_prompts = false;
        for graph in graphs {
            reading_prompts |= !graph.chunks.is_empty();
            let blind = Graph {
                rows: graph.rows,
                chunks: graph.chunks.clone(),
                overlapped: graph.overlapped,
                ..Graph::default()
            };
            let blind_pass = cost.step(std::slice::from_ref(&blind));
            let passes = cost.steps(std::slice::from_ref(graph), times);
            let kv = passes.saturating_sub(blind_pass * times);
            for (sum, share) in shares.iter_mut().zip(of_pass(cost, &blind, blind_pass)) {
                *sum += share * times;
            }
            shares[Bound::Kv as usize] += kv;
        }
        let whole: Fine = shares.iter().copied().sum();
        if whole != length {
            // The machine was warm, and everything took longer.
            shares = divided(length, &shares.map(Fine::secs));
        }
        for (sum, share) in self.work.iter_mut().zip(shares) {
            *sum += share;
        }
        let (rows, prompts) = (shares[Bound::Kv as usize], shares[PROMPT_ATTENTION]);
        self.work[Bound::Compute as usize] += prompts;
        self.row_attention += rows;
        self.prompt_attention += prompts;
        *(if reading_prompts {
            &mut self.prefill
        } else {
            &mut self.decode
        }) += length - rows - prompts;
    }

    /// Returns how long the rig was busy so far.
    pub fn busy(&self) -> Busy {
        Busy {
            prefill: self.prefill.floor_span(),
            prompt_attention: self.prompt_attention.floor_span(),
            decode: self.decode.floor_span(),
            row_attention: self.row_attention.floor_span(),
            transfer: self.transfer.floor_span(),
        }
    }
}

/// Returns the time of a pass that reads no context, by the resource that its terms stand for.
fn of_pass(cost: &StepCost, pass: &Graph, length: Fine) -> [Fine; TERMS] {
    let coefficients = cost.coefficients();
    let features = pass.features(1, &coefficients.form());
    let mut secs = [0.0; TERMS];
    for (name, (feature, coefficient)) in FEATURE_NAMES
        .iter()
        .zip(features.iter().zip(coefficients.linear()))
    {
        let place = match *name {
            "attention_s" => PROMPT_ATTENTION,
            name => bound_of(name) as usize,
        };
        secs[place] += feature * coefficient;
    }
    divided(length, &secs)
}

/// Returns the resource that a term of the cost of a step stands for.
fn bound_of(feature: &str) -> Bound {
    match feature {
        "weights_s" | "experts_s" => Bound::Weights,
        "kv_s" | "kv_short_s" => Bound::Kv,
        "token_s" => Bound::Compute,
        name if name.contains("link") => Bound::Transfer,
        _ => Bound::Overhead,
    }
}

/// Divides `length` in these proportions; what rounding leaves goes to the largest.
fn divided<const N: usize>(length: Fine, proportions: &[f64; N]) -> [Fine; N] {
    let total: f64 = proportions.iter().sum();
    let mut shares = [Fine::ZERO; N];
    let mut largest = Bound::Overhead as usize;
    let mut left = length;
    if total > 0.0 {
        for (place, part) in proportions.iter().enumerate() {
            // Rounded down to the grid, so that no more is given than there is.
            let share = Fine((length.0 as f64 * (part / total)).floor() as u128);
            shares[place] = Fine(share.0.min(left.0));
            left = left - shares[place];
            if *part > proportions[largest] {
                largest = place;
            }
        }
    }
    shares[largest] += left;
    shares
}

/// How warm a machine is that slows under sustained prefill: seconds of prefill beyond those it has rested.
#[derive(Clone, Debug)]
pub struct Heat {
    after: Fine,
    /// How many thousandths as long prefill takes once it is warm.
    slowed: u64,
    level: Fine,
    at: Fine,
}

impl Heat {
    /// Returns a machine that has rested.
    pub fn new(thermal: &Thermal) -> Heat {
        Heat {
            after: Fine::from_secs(thermal.after.value.secs()),
            slowed: (thermal.prefill_time.value * 1000.0).round() as u64,
            level: Fine::ZERO,
            at: Fine::ZERO,
        }
    }

    /// Returns how many thousandths as long a step of prefill takes that begins at `from`.
    pub fn stretch(&self, from: Fine) -> u64 {
        let level = self.level.saturating_sub(from.saturating_sub(self.at));
        if level >= self.after {
            self.slowed
        } else {
            1000
        }
    }

    /// Notes a step of prefill. Whatever else happens is rest; heat beyond twice the threshold is not stored.
    pub fn worked(&mut self, from: Fine, end: Fine) {
        let rested = self.level.saturating_sub(from.saturating_sub(self.at));
        self.level = (rested + (end - from)).min(self.after * 2);
        self.at = end;
    }
}

/// Returns `length` at that many thousandths.
pub fn stretched(length: Fine, thousandths: u64) -> Fine {
    match thousandths {
        1000 => length,
        _ => Fine(length.0 * u128::from(thousandths) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_divided_is_divided_whole() {
        let mut proportions = [0.0; BOUNDS];
        (proportions[0], proportions[2], proportions[3]) = (0.1, 0.7, 0.2);
        let shares = divided(Fine(1_000_003), &proportions);
        assert_eq!(shares.into_iter().sum::<Fine>(), Fine(1_000_003));
        assert!(shares[2] > Fine(700_000) && shares[1] == Fine::ZERO);
        let nothing = divided(Fine(7), &[0.0; BOUNDS]);
        assert_eq!(nothing[Bound::Overhead as usize], Fine(7));
    }

    #[test]
    fn a_machine_slows_after_sustained_prefill_and_recovers_with_rest() {
        let second = |secs: u64| Fine::from_secs(secs as f64);
        let mut heat = Heat {
            after: second(60),
            slowed: 1270,
            level: Fine::ZERO,
            at: Fine::ZERO,
        };
        heat.worked(Fine::ZERO, second(59));
        assert_eq!(heat.stretch(second(59)), 1000);
        heat.worked(second(59), second(61));
        assert_eq!(heat.stretch(second(61)), 1270);
        assert_eq!(heat.stretch(second(63)), 1000);
        assert_eq!(stretched(Fine(1000), 1270), Fine(1270));
    }
}
