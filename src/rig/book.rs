//! The requests an engine has taken in, and where each fraction of their time went.
//!
//! Engines decide; the book keeps count. Time is added in engine fractions and rounded to nanoseconds once, when a
//! request ends, so that its parts sum to its duration exactly.

use super::fine::Fine;
use super::meter::{BOUNDS, Bound, Mark, Meter, Sums};
use super::speculation::Gain;
use crate::call::{BoundBy, Call, CallParts, Outcome, Reply, TokenClasses};
use crate::units::{Span, Tokens};

/// A request's place in the [`Book`].
pub type SeqId = usize;

/// Where time can go, in the order of [`CallParts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Queue,
    Transfer,
    New,
    Evicted,
    Uncached,
    Broken,
    Decode,
    Contention,
}

const PARTS: usize = 8;

/// Why prompt tokens have to be computed, as positions in the prompt: each class ends where the next begins.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Bounds {
    cached: u64,
    evicted: u64,
    uncached: u64,
    broken: u64,
    new: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Seq {
    /// What was asked.
    pub call: Call,
    /// Tokens whose state the engine holds for it.
    pub computed: u64,
    /// Tokens of the answer so far.
    pub generated: u64,
    /// Tokens of the answer at which it ends.
    pub output_limit: u64,
    submitted: Fine,
    admitted: Option<Fine>,
    /// Up to when its time is accounted for.
    accounted: Fine,
    first_token: Option<Fine>,
    bounds: Bounds,
    /// Positions below this had been computed for this request before it was preempted.
    lost: u64,
    spent: [Fine; PARTS],
    /// Whether any of its prompt has been computed.
    begun: bool,
    /// How its answer grows.
    gain: Gain,
    /// What its passes have accepted beyond whole tokens.
    fraction: u64,
    /// Tokens that the decode passes charged last added.
    grown: u64,
    /// Tokens that the last one of them added.
    grown_last: u64,
    /// What bound its time up to `mark`, and whether the engine has it in since then.
    bound: Sums,
    mark: Mark,
    inside: bool,
}

impl Seq {
    /// Returns whether nothing has been computed for the request so far: its next chunk is its first.
    pub fn untouched(&self) -> bool {
        !self.begun
    }

    /// Returns when the request was made.
    pub fn submitted(&self) -> Fine {
        self.submitted
    }

    /// Returns whether the engine has worked on the request.
    pub fn admitted(&self) -> bool {
        self.admitted.is_some()
    }

    /// Returns the number of tokens whose state must be there before the next token can be sampled.
    pub fn known(&self) -> u64 {
        self.call.prompt_tokens.0 + self.generated
    }

    /// Returns whether every known token but the last sampled one has been computed.
    pub fn decoding(&self) -> bool {
        self.generated > 0 && self.computed + 1 == self.known()
    }

    /// Returns whether the answer is complete.
    pub fn finished(&self) -> bool {
        self.generated >= self.output_limit && self.computed >= self.call.prompt_tokens.0
    }

    /// Returns how many tokens `passes` decode passes add to the answer; the last one is cut where it ends.
    pub fn after(&self, passes: u64) -> u64 {
        self.gain.tokens(self.fraction, passes).min(self.left())
    }

    /// Returns how many decode passes the rest of the answer takes.
    pub fn passes_left(&self) -> u64 {
        self.gain.passes(self.fraction, self.left())
    }

    /// Returns how many tokens the decode passes that were charged last added.
    pub fn grown(&self) -> u64 {
        self.grown
    }

    /// Returns how many tokens were computed before the last pass.
    pub fn before_last_pass(&self) -> u64 {
        self.computed - self.grown_last
    }

    /// Returns what its passes have accepted beyond whole tokens, in the units of [`Gain`], where they verify drafts.
    pub fn fraction(&self) -> Option<u64> {
        (self.gain != Gain::default()).then_some(self.fraction)
    }

    /// Returns how many more tokens the answer has.
    pub fn left(&self) -> u64 {
        self.output_limit.saturating_sub(self.generated)
    }

    /// Takes note of what has passed since the last time; from now on it is inside the engine, or not.
    fn fold(&mut self, meter: &Meter, at: Fine, inside: bool) {
        meter.add_since(&self.mark, self.inside, &mut self.bound);
        self.mark = meter.mark(at);
        self.inside = inside;
    }

    fn spend(&mut self, part: Part, amount: Fine) {
        self.spent[part as usize] += amount;
    }
}

/// All requests that have not ended.
#[derive(Clone, Default, Debug)]
pub struct Book {
    seqs: Vec<Option<Seq>>,
    unused: Vec<SeqId>,
    gain: Gain,
    /// What the rig is busy with.
    pub meter: Meter,
}

impl Book {
    /// Returns an empty book whose passes gain this much.
    pub fn new(gain: Gain) -> Book {
        Book {
            gain,
            ..Book::default()
        }
    }

    /// Takes in a request.
    pub fn open(&mut self, call: Call, at: Fine) -> SeqId {
        let seq = Seq {
            call,
            computed: 0,
            generated: 0,
            output_limit: call.output_tokens.0,
            submitted: at,
            admitted: None,
            accounted: at,
            first_token: None,
            bounds: Bounds::default(),
            lost: 0,
            spent: [Fine::ZERO; PARTS],
            begun: false,
            gain: self.gain,
            fraction: 0,
            grown: 0,
            grown_last: 0,
            bound: [Fine::ZERO; BOUNDS],
            mark: self.meter.mark(at),
            inside: false,
        };
        if let Some(id) = self.unused.pop() {
            self.seqs[id] = Some(seq);
            id
        } else {
            self.seqs.push(Some(seq));
            self.seqs.len() - 1
        }
    }

    /// Returns the request.
    ///
    /// # Panics
    /// When it has ended.
    pub fn seq(&self, id: SeqId) -> &Seq {
        self.seqs[id].as_ref().expect("the request has not ended")
    }

    /// Returns the request, to change it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn seq_mut(&mut self, id: SeqId) -> &mut Seq {
        self.seqs[id].as_mut().expect("the request has not ended")
    }

    /// Returns the requests that have not ended.
    pub fn iter(&self) -> impl Iterator<Item = (SeqId, &Seq)> {
        let all = self.seqs.iter().enumerate();
        all.filter_map(|(id, seq)| Some((id, seq.as_ref()?)))
    }

    /// Returns how many requests have not ended.
    pub fn len(&self) -> usize {
        self.seqs.len() - self.unused.len()
    }

    /// Returns whether every request has ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes that the engine works on a request from `at` on, of whose prompt `cached` tokens need no computing.
    ///
    /// `stored` is how far the engine's cache would have reached, had it lost nothing this conversation had stored.
    pub fn admit(&mut self, id: SeqId, at: Fine, cached: u64, stored: u64) {
        let seq = self.seqs[id].as_mut().expect("the request has not ended");
        seq.fold(&self.meter, at, true);
        seq.computed = cached;
        seq.spend(Part::Queue, at.saturating_sub(seq.accounted));
        seq.accounted = seq.accounted.max(at);
        if seq.admitted.is_some() {
            // Back after a preemption: what it had is read again, and was lost.
            return;
        }
        seq.admitted = Some(at);
        let prompt = seq.call.prompt_tokens.0;
        let evicted = stored.clamp(cached, prompt);
        let uncached = seq.call.seen.0.clamp(evicted, prompt);
        let broken = (uncached + seq.call.again.0).min(prompt);
        seq.bounds = Bounds {
            cached,
            evicted,
            uncached,
            broken,
            new: prompt,
        };
    }

    /// Notes that the engine dropped all state of a request, which waits to be admitted again.
    pub fn preempt(&mut self, id: SeqId) {
        let seq = self.seqs[id].as_mut().expect("the request has not ended");
        seq.fold(&self.meter, seq.accounted, false);
        seq.lost = seq.lost.max(seq.computed);
        seq.computed = 0;
        (seq.grown, seq.grown_last) = (0, 0);
    }

    /// Charges a prompt chunk of a step that lasted `step` and would have lasted `alone` without anybody else; the
    /// request has `tokens` more computed afterwards.
    pub fn charge_chunk(&mut self, id: SeqId, tokens: u64, alone: Fine, step: Fine, end: Fine) {
        let seq = self.seq_mut(id);
        let alone = alone.min(step);
        let from = seq.computed;
        let to = from + tokens;
        seq.split(from, to, alone);
        seq.spend(Part::Contention, step - alone);
        seq.computed = to;
        seq.accounted = end;
        seq.begun = true;
        if to == seq.known() && seq.output_limit > seq.generated {
            seq.generated += 1;
            seq.first_token.get_or_insert(end);
        }
    }

    /// Charges `times` decode steps that lasted `steps` together and would have lasted `alone` without anybody else;
    /// the answer has one more token for each of them afterwards, and the drafts that were accepted.
    pub fn charge_decode(&mut self, id: SeqId, times: u64, alone: Fine, steps: Fine, end: Fine) {
        let seq = self.seq_mut(id);
        let alone = alone.min(steps);
        seq.spend(Part::Decode, alone);
        seq.spend(Part::Contention, steps - alone);
        let tokens = seq.after(times);
        (seq.grown, seq.grown_last) = (tokens, tokens - seq.after(times - 1));
        seq.fraction = seq.gain.fraction(seq.fraction, times);
        seq.computed += tokens;
        seq.generated += tokens;
        seq.accounted = end;
    }

    /// Charges time in which an admitted request had no part in the engine's steps.
    pub fn charge_standing(&mut self, id: SeqId, end: Fine) {
        let seq = self.seq_mut(id);
        seq.spend(Part::Contention, end.saturating_sub(seq.accounted));
        seq.accounted = seq.accounted.max(end);
    }

    /// Charges time in which a request's state moved between memory tiers.
    pub fn charge_transfer(&mut self, id: SeqId, end: Fine) {
        let seq = self.seq_mut(id);
        seq.spend(Part::Transfer, end.saturating_sub(seq.accounted));
        seq.accounted = seq.accounted.max(end);
    }

    /// Ends a request that was answered, and says how it went.
    pub fn close(&mut self, id: SeqId, at: Fine) -> Reply {
        let mut seq = self.seqs[id].take().expect("a request ends once");
        self.unused.push(id);
        seq.fold(&self.meter, at, false);
        seq.reply(at)
    }

    /// Ends a request that is not served.
    pub fn refuse(&mut self, id: SeqId, at: Fine, outcome: Outcome) -> Reply {
        let seq = self.seqs[id].take().expect("a request ends once");
        self.unused.push(id);
        let (submitted, finished) = (seq.submitted.time(), at.max(seq.submitted).time());
        Reply {
            call: seq.call.id,
            retry_after: None,
            prompt: seq.call.prompt_tokens,
            outcome,
            submitted,
            admitted: None,
            first_token: None,
            finished,
            cached: Tokens::ZERO,
            output: Tokens::ZERO,
            classes: TokenClasses::default(),
            parts: CallParts {
                client: finished - submitted,
                ..CallParts::default()
            },
            bound: Some(BoundBy {
                overhead: finished - submitted,
                ..BoundBy::default()
            }),
        }
    }
}

impl Seq {
    /// Splits `amount` over the classes of the prompt tokens from `from` to `to`, in proportion to their number.
    fn split(&mut self, from: u64, to: u64, amount: Fine) {
        let bounds = self.bounds;
        // What was lost to a preemption comes first; answer tokens computed again count the same way.
        let lost = self.lost.clamp(from, to);
        let overlap = |start: u64, end: u64| end.min(to).saturating_sub(start.max(lost));
        let shares = [
            (Part::Evicted, (lost - from) + overlap(0, bounds.evicted)),
            (Part::Uncached, overlap(bounds.evicted, bounds.uncached)),
            (Part::Broken, overlap(bounds.uncached, bounds.broken)),
            (Part::New, overlap(bounds.broken, u64::MAX)),
        ];
        let tokens = u128::from((to - from).max(1));
        let mut left = amount;
        let mut largest = shares[3];
        for (part, share) in shares {
            let mine = Fine(amount.0 * u128::from(share) / tokens);
            left = left - mine;
            self.spend(part, mine);
            if share > largest.1 {
                largest = (part, share);
            }
        }
        self.spend(largest.0, left);
    }

    fn reply(&self, at: Fine) -> Reply {
        debug_assert_eq!(
            self.accounted, at,
            "all of a request's time is accounted for"
        );
        let bounds = self.bounds;
        let (submitted, finished) = (self.submitted.time(), at.time());
        let parts = self.parts(finished - submitted);
        Reply {
            call: self.call.id,
            retry_after: None,
            prompt: self.call.prompt_tokens,
            outcome: if self.generated < self.call.output_tokens.0 {
                Outcome::Truncated
            } else {
                Outcome::Ok
            },
            submitted,
            admitted: self.admitted.map(Fine::time),
            first_token: self.first_token.map(Fine::time),
            finished,
            cached: Tokens(bounds.cached),
            output: Tokens(self.generated),
            classes: TokenClasses {
                evicted: Tokens(bounds.evicted - bounds.cached),
                uncached: Tokens(bounds.uncached - bounds.evicted),
                broken: Tokens(bounds.broken - bounds.uncached),
                new: Tokens(bounds.new - bounds.broken),
            },
            parts,
            bound: Some(self.bound_by(&parts)),
        }
    }

    /// Rounds the bounds to whole nanoseconds, so that they sum to the call's duration.
    ///
    /// What the accounts do not see - a wait for state that is loaded while nothing else happens - is a transfer. What
    /// was read again because it had been lost is charged to the memory that was too small, not to the arithmetic.
    fn bound_by(&self, parts: &CallParts) -> BoundBy {
        let mut sums = self.bound;
        let seen: Fine = sums.iter().copied().sum();
        let whole: Fine = self.spent.iter().copied().sum();
        sums[Bound::Transfer as usize] += whole.saturating_sub(seen);
        let mut excess = seen.saturating_sub(whole);
        for sum in &mut sums {
            let taken = (*sum).min(excess);
            *sum = *sum - taken;
            excess = excess - taken;
        }
        let nanos = rounded(sums, parts.total());
        let of = |bound: Bound| nanos[bound as usize];
        let mut bound = BoundBy {
            weights: of(Bound::Weights),
            kv: of(Bound::Kv),
            compute: of(Bound::Compute),
            overhead: of(Bound::Overhead),
            transfer: of(Bound::Transfer),
            slots: of(Bound::Slots),
            kv_memory: of(Bound::Memory),
            turn: of(Bound::Turn),
        };
        let mut lost = parts.reread_evicted;
        for from in [&mut bound.compute, &mut bound.weights] {
            let taken = lost.min(*from);
            *from -= taken;
            bound.kv_memory += taken;
            lost -= taken;
        }
        bound
    }

    /// Rounds the parts to whole nanoseconds, so that they sum to `total`.
    fn parts(&self, total: Span) -> CallParts {
        let nanos = rounded(self.spent, total);
        let of = |part: Part| nanos[part as usize];
        CallParts {
            client: Span::ZERO,
            queue: of(Part::Queue),
            kv_transfer: of(Part::Transfer),
            prefill_new: of(Part::New),
            reread_evicted: of(Part::Evicted),
            reread_uncached: of(Part::Uncached),
            reread_broken: of(Part::Broken),
            decode: of(Part::Decode),
            contention: of(Part::Contention),
        }
    }
}

/// Rounds amounts to whole nanoseconds by largest remainder, so that they sum to `total`.
///
/// # Panics
/// When `total` is less than the amounts, or there are none of which it could be.
fn rounded<const N: usize>(amounts: [Fine; N], total: Span) -> [Span; N] {
    let mut nanos = amounts.map(Fine::floor_span);
    let given: Span = nanos.into_iter().sum();
    let mut missing = (total - given).0;
    let mut order: Vec<usize> = (0..N)
        .filter(|&place| amounts[place] > Fine::ZERO)
        .collect();
    order.sort_by_key(|&place| (std::cmp::Reverse(amounts[place].remainder()), place));
    // A request that took no time at all has no part to round up.
    for &place in order.iter().cycle().take(if order.is_empty() {
        0
    } else {
        missing as usize
    }) {
        nanos[place] += Span(1);
        missing -= 1;
    }
    assert_eq!(missing, 0, "{missing} ns of a request are in no part");
    nanos
}
