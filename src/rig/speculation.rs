//! Speculative decoding: how many drafts each pass has accepted, and what such a pass costs.
//!
//! Whether a draft is accepted is chance; what is simulated is its mean. Every row carries the fraction of a token that its
//! passes have accepted beyond whole ones, so that after n passes an answer has n tokens and the whole part of n times
//! the mean more. No step differs from its mean by a whole token, and any number of passes is summed in closed form.

/// Binary digits below one token.
const BITS: u32 = 32;
const ONE: u64 = 1 << BITS;

/// How fast answers grow: one token for each pass, and the drafts that are accepted on average.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Gain {
    /// Accepted drafts for each pass, in units of 2^-32 tokens.
    accepted: u64,
}

impl Gain {
    /// Returns the gain when `accepted` drafts are accepted for each pass, to the nearest 2^-32.
    ///
    /// # Panics
    /// When that is negative, not a number, or more than anybody drafts.
    pub fn new(accepted: f64) -> Gain {
        assert!((0.0..1e6).contains(&accepted), "{accepted} drafts a pass");
        Gain {
            accepted: (accepted * ONE as f64).round() as u64,
        }
    }

    /// Returns the tokens that each pass adds on average.
    pub fn mean(self) -> f64 {
        1.0 + self.accepted as f64 / ONE as f64
    }

    /// Returns how many tokens `passes` passes add to a row with that fraction over.
    pub fn tokens(self, fraction: u64, passes: u64) -> u64 {
        let accepted = u128::from(fraction) + u128::from(self.accepted) * u128::from(passes);
        passes + (accepted >> BITS) as u64
    }

    /// Returns the fraction that is over after `passes` passes.
    pub fn fraction(self, fraction: u64, passes: u64) -> u64 {
        let accepted = u128::from(fraction) + u128::from(self.accepted) * u128::from(passes);
        accepted as u64 & (ONE - 1)
    }

    /// Returns the least number of passes that add at least that many tokens.
    pub fn passes(self, fraction: u64, tokens: u64) -> u64 {
        // With x tokens wanted, p (1 + a) + f must reach x; flooring only the part below a token changes nothing,
        // because p is whole.
        let wanted = (u128::from(tokens) << BITS).saturating_sub(u128::from(fraction));
        let each = u128::from(self.accepted) + u128::from(ONE);
        wanted.div_ceil(each) as u64
    }

    /// Returns the accepted drafts a row has had before each of `passes` successive passes, summed over the passes.
    pub fn summed(self, fraction: u64, passes: u64) -> u128 {
        if self.accepted == 0 {
            return 0;
        }
        floor_sum(
            u128::from(passes),
            u128::from(self.accepted),
            u128::from(fraction),
        )
    }
}

/// Returns the sum of `floor((a i + b) / 2^32)` over all i below n: Euclid's algorithm on the slope.
fn floor_sum(mut n: u128, mut a: u128, mut b: u128) -> u128 {
    let mut modulus = u128::from(ONE);
    let mut sum = 0;
    while n > 0 {
        sum += n * (n - 1) / 2 * (a / modulus) + n * (b / modulus);
        a %= modulus;
        b %= modulus;
        let reach = a * n + b;
        if reach < modulus {
            break;
        }
        // Count the lattice points below the line from the other axis.
        n = reach / modulus;
        b = reach % modulus;
        std::mem::swap(&mut a, &mut modulus);
    }
    sum
}

/// Where drafts come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drafter {
    /// A head of the model itself, or one trained for it, of about one layer.
    Head,
    /// Another, smaller model.
    Model,
    /// Text that was there before: nothing is computed.
    Ngram,
}

/// What passes cost with so many drafts to verify, relative to one without. llama.cpp, RTX 5090, a dense 27B at four bits with
/// its MTP head: 76.7 passes a second without, 60.5, 54.4, 47.6 and 43.1 with 1 to 4 (llama.cpp issue 28196). Drafting
/// is part of it.
const MEASURED: [f64; 4] = [1.27, 1.41, 1.61, 1.78];
/// The mean of the last three steps of [`MEASURED`], by which each further draft is taken to cost more: an estimate.
const EACH_MORE: f64 = 0.17;
/// The most drafts for which a cost is given: with eight rows and more, kernels change.
pub const MOST_DRAFTS: u64 = 7;
/// The share of all weights that a head reads for a draft: its layer and the output matrix, 1.2 of 15.65 GiB in the
/// measured model. An estimate from its shape.
const HEAD_SHARE: f64 = 0.08;

/// Returns what a pass of one row costs that verifies `drafts` drafts, relative to one that verifies none.
///
/// What a model of its own costs to run is not in it.
///
/// # Panics
/// When there are no drafts, or more than [`MOST_DRAFTS`].
pub fn relative_cost(drafts: u64, drafter: Drafter) -> f64 {
    assert!(
        (1..=MOST_DRAFTS).contains(&drafts),
        "no cost is known for {drafts} drafts"
    );
    let known = drafts.min(MEASURED.len() as u64);
    let with_head = MEASURED[known as usize - 1] + EACH_MORE * (drafts - known) as f64;
    match drafter {
        Drafter::Head => with_head,
        Drafter::Model | Drafter::Ngram => with_head - HEAD_SHARE * drafts as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Awkward means, near and at whole tokens.
    fn gains() -> impl Iterator<Item = Gain> {
        [0.0, 1e-9, 0.3, 0.5, 1.0, 1.999_999_99, 2.371_9, 3.0, 6.4]
            .into_iter()
            .map(Gain::new)
    }

    #[test]
    fn passes_made_at_once_are_those_made_one_by_one() {
        for gain in gains() {
            for start in [0, 1, ONE / 3, ONE - 1] {
                let (mut fraction, mut tokens, mut summed) = (start, 0, 0);
                for passes in 0..200 {
                    assert_eq!(gain.tokens(start, passes), tokens);
                    assert_eq!(gain.fraction(start, passes), fraction);
                    assert_eq!(gain.summed(start, passes), summed);
                    assert!(gain.passes(start, tokens) <= passes);
                    let next = gain.tokens(fraction, 1);
                    assert_eq!(gain.passes(start, tokens + next), passes + 1);
                    summed += u128::from(tokens - passes);
                    tokens += next;
                    fraction = gain.fraction(fraction, 1);
                }
            }
        }
    }

    #[test]
    fn the_mean_is_kept_to_within_a_token_however_long_the_answer() {
        let gain = Gain::new(1.37);
        let tokens = gain.tokens(0, 1_000_000);
        assert!(tokens.abs_diff(2_370_000) <= 1, "{tokens}");
    }

    #[test]
    fn passes_cost_what_was_measured() {
        let plain = 76.7;
        for (drafts, passes) in [(1, 60.5), (2, 54.4), (3, 47.6), (4, 43.1)] {
            let cost = relative_cost(drafts, Drafter::Head);
            assert!((cost - plain / passes).abs() < 0.006, "{drafts}: {cost}");
        }
        let mut last = 1.0;
        for drafts in 1..=MOST_DRAFTS {
            let ngram = relative_cost(drafts, Drafter::Ngram);
            assert!(ngram > last && ngram < relative_cost(drafts, Drafter::Head));
            last = ngram;
        }
    }
}
