//! How many tokens each part of a logged prompt has, and what it keeps of an earlier one: told by usage, checked by cache.
//!
//! Reported prompt lengths always win; texts are scaled to fill what they leave. Of the first prompt, what the logged
//! text cannot fill is the unlogged head (system prompt, tools). A prompt keeps what the log says stayed in place; where
//! the provider read more from its cache than that, the rebuilt prefix was too short and is extended; both are counted.

use super::chat::{Body, Call, Part, Thread};
use super::notes::Notes;

/// Characters per token where no usage tells.
pub(super) const USUAL_RATIO: f64 = 3.5;
/// No tokenizer makes shorter or longer tokens of text and code: below it, growth is more than the logged text.
const SHORTEST: f64 = 2.5;
const LONGEST: f64 = 6.0;
/// So many tokens of growth are needed before they tell how texts and tokens relate.
const ENOUGH: u64 = 400;
/// A cache that has less than the rebuilt prefix by so many tokens, and a twentieth of it, missed.
const SLACK: u64 = 1_024;

/// A stretch of a prompt.
pub(super) struct Stretch {
    pub(super) part: Part,
    pub(super) tokens: u64,
    /// Whether the conversation had it before at another place.
    pub(super) again: bool,
}

/// A prompt with its sizes, as an edit of an earlier call's.
pub(super) struct Sizing {
    pub(super) prompt: u64,
    pub(super) output: u64,
    pub(super) base: Option<usize>,
    pub(super) keep: u64,
    /// The class of the break, and whether its place is estimated.
    pub(super) broken: Option<(&'static str, bool)>,
    pub(super) stretches: Vec<Stretch>,
}

/// What a prompt keeps.
struct Kept {
    prompt: u64,
    keep: u64,
    again: u64,
    broken: Option<(&'static str, bool)>,
}

/// Sizes the calls of a thread one after the other.
pub(super) struct Sizer<'a> {
    pub(super) notes: &'a mut Notes,
    pub(super) ratio: f64,
    sizes: Vec<(u64, u64)>,
}

/// Returns the characters and tokens by which prompts grew where nothing else can have made them grow.
pub(super) fn growth(thread: &Thread) -> (u64, u64) {
    let (mut chars, mut tokens) = (0, 0);
    for pair in thread.calls.windows(2) {
        let told = |call: &Call| call.usage.and_then(|usage| usage.prompt.zip(usage.output));
        let (Some((before, output)), Some((after, _))) = (told(&pair[0]), told(&pair[1])) else {
            continue;
        };
        let mut said = 0;
        let mut at = pair[1].prompt;
        while at > pair[0].answer {
            if let Body::Input(part) = thread.nodes[at].body {
                said += part.chars;
            }
            at = thread.nodes[at].parent;
        }
        let grown = after.checked_sub(before + output);
        if let Some(grown) = grown.filter(|_| at == pair[0].answer && said > 0) {
            chars += said;
            tokens += grown;
        }
    }
    (chars, tokens)
}

/// Returns the fewest characters a token can have for the logged text of a thread's first prompt to fit into it.
pub(super) fn least(thread: &Thread) -> Option<f64> {
    let first = thread.calls.first()?;
    let prompt = first.usage?.prompt?;
    let mut chars = 0;
    let mut at = first.prompt;
    while at != 0 {
        if let Body::Input(part) = thread.nodes[at].body {
            chars += part.chars;
        }
        at = thread.nodes[at].parent;
    }
    Some((chars as f64 / prompt.max(1) as f64).min(LONGEST))
}

/// Returns how many characters a token has, from what prompts grew by; nothing where too little tells.
pub(super) fn ratio(chars: u64, tokens: u64) -> Option<f64> {
    (tokens >= ENOUGH && chars >= ENOUGH)
        .then(|| (chars as f64 / tokens as f64).clamp(SHORTEST, LONGEST))
}

/// Shares tokens out in proportion to weights; what rounding leaves goes where it falls.
pub(super) fn share(tokens: u64, weights: &[u64]) -> Vec<u64> {
    let whole: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let (mut upto, mut given) = (0_u128, 0_u64);
    let portion = |&weight: &u64| {
        upto += u128::from(weight);
        let end = (u128::from(tokens) * upto).checked_div(whole).unwrap_or(0) as u64;
        let own = end - given;
        given = end;
        own
    };
    weights.iter().map(portion).collect()
}

impl<'a> Sizer<'a> {
    pub(super) fn new(notes: &'a mut Notes, ratio: f64) -> Sizer<'a> {
        Sizer {
            notes,
            ratio,
            sizes: Vec::new(),
        }
    }

    fn estimate(&self, chars: u64) -> u64 {
        (chars as f64 / self.ratio).ceil() as u64
    }

    /// Sizes the next call.
    pub(super) fn next(&mut self, thread: &mut Thread) -> Sizing {
        let at = self.sizes.len();
        let (fresh, base) = fresh(thread, thread.calls[at].prompt);
        let chars: Vec<u64> = fresh.iter().map(|&(_, part)| part.chars).collect();
        let asked = chars.iter().map(|&chars| self.estimate(chars)).sum();
        let call = &thread.calls[at];
        let usage = call.usage.unwrap_or_default();
        let known = usage.prompt.or(call.shares.map(|shares| shares.0));
        let output = usage.output.or(call.shares.map(|shares| shares.1));
        let output = output.unwrap_or_else(|| self.estimate(call.said + call.thought));
        self.notes.unsized_calls += u64::from(known.is_none());
        let first = thread.nodes[base].call.is_none();
        let mut kept = if first {
            self.begin(thread, at, known, asked)
        } else {
            self.follow(thread, at, base, known, asked)
        };
        kept.prompt = kept.prompt.max(1);
        let base_call = thread.nodes[base].call.filter(|_| !first);
        if let Some(base_call) = base_call {
            self.check(&mut kept, base_call, usage.cached);
        }
        self.sizes.push((kept.prompt, output));
        let call = &thread.calls[at];
        let (prompt, answer) = (kept.prompt, call.answer);
        thread.nodes[answer].call = Some(at);
        thread.nodes[answer].end = prompt + output;
        let head = if first { thread.nodes[0].end } else { 0 };
        let stretches = fill(thread, at, &kept, head, &fresh, &chars);
        Sizing {
            prompt,
            output,
            base: base_call,
            keep: kept.keep,
            broken: kept.broken,
            stretches,
        }
    }

    /// Sizes a thread's first prompt: what the logged text cannot fill is its head.
    fn begin(&mut self, thread: &mut Thread, at: usize, known: Option<u64>, asked: u64) -> Kept {
        let cached = thread.calls[at].usage.and_then(|usage| usage.cached);
        let prompt = known.unwrap_or(asked).max(1);
        let head = if thread.complete {
            0
        } else {
            self.notes.heads += u64::from(known.is_some());
            self.notes.squeezed += u64::from(prompt < asked);
            // What is read from a cache before anything was said is older than the conversation.
            let old = cached.unwrap_or(0).min(prompt);
            prompt.saturating_sub(asked).max(old)
        };
        thread.nodes[0].end = head;
        thread.nodes[0].call = Some(at);
        Kept {
            prompt,
            keep: 0,
            again: 0,
            broken: None,
        }
    }

    /// Sizes a prompt that follows a place of the conversation.
    fn follow(
        &mut self,
        thread: &Thread,
        at: usize,
        base: usize,
        known: Option<u64>,
        asked: u64,
    ) -> Kept {
        let Body::Answer(before) = thread.nodes[base].body else {
            let end = thread.nodes[base].end;
            let prompt = known.unwrap_or(end + asked);
            let why = thread.calls[at].broken.unwrap_or("edit");
            return Kept {
                prompt,
                keep: end.min(prompt),
                again: 0,
                broken: Some((why, known.is_some())),
            };
        };
        let (prompt, output) = self.sizes[before];
        let (whole, last) = (prompt + output, &thread.calls[before]);
        let silent = last.usage.and_then(|usage| usage.reasoning);
        let silent = silent.or((last.thought > 0).then(|| self.estimate(last.thought)));
        let silent = silent.map(|tokens| tokens.min(output));
        let aloud =
            output - silent.unwrap_or_else(|| output - self.estimate(last.said).min(output));
        let never = last.resends_thoughts == Some(false) && silent.is_some_and(|some| some > 0);
        let all = |prompt| Kept {
            prompt,
            keep: whole,
            again: 0,
            broken: None,
        };
        let Some(known) = known else {
            return if never {
                dropped(prompt + aloud + asked, prompt, aloud, false)
            } else {
                all(whole + asked)
            };
        };
        let Some(grown) = known.checked_sub(prompt) else {
            self.notes.shrunk += 1;
            let cached = thread.calls[at].usage.and_then(|usage| usage.cached);
            let keep = thread.nodes[0].end.max(cached.unwrap_or(0));
            let keep = keep.min(known).min(whole);
            let left = (known - keep).saturating_sub(asked);
            return Kept {
                prompt: known,
                keep,
                again: (whole - keep).min(left),
                broken: Some((thread.calls[at].broken.unwrap_or("shrunk"), true)),
            };
        };
        if never {
            return dropped(known, prompt, aloud.min(grown), false);
        }
        let cached = thread.calls[at].usage.and_then(|usage| usage.cached);
        let proven = cached.is_some_and(|cached| cached > prompt + aloud);
        let off = |kept: u64| grown.abs_diff(kept + asked);
        let likely = (output - aloud) * 4 > output + 64 && off(aloud) < off(output) && !proven;
        // Shares of a total tell nothing of what was dropped.
        let may = last.resends_thoughts != Some(true) && last.usage.is_some();
        if grown < output || (likely && may) {
            self.notes.dropped += 1;
            return dropped(known, prompt, aloud.min(grown), true);
        }
        all(known)
    }

    /// Holds the rebuilt prefix against what the provider read from its cache.
    fn check(&mut self, kept: &mut Kept, base: usize, cached: Option<u64>) {
        let (prompt, output) = self.sizes[base];
        let whole = (prompt + output).min(kept.prompt);
        kept.keep = kept.keep.min(whole);
        let Some(cached) = cached else {
            return;
        };
        self.notes.checked += 1;
        self.notes.cached_tokens += cached;
        if cached > kept.keep {
            self.notes.longer += 1;
            self.notes.beyond += u64::from(cached > whole);
            let longer = cached.min(whole);
            let more = longer - kept.keep;
            self.notes.extended += u64::from(more > 0);
            self.notes.extended_tokens += more;
            kept.keep = longer;
            kept.again = kept.again.saturating_sub(more);
            if longer == prompt + output {
                kept.broken = None;
            }
        } else if kept.keep - cached > SLACK.max(kept.keep / 20) {
            self.notes.missed += 1;
            self.notes.missed_tokens += kept.keep - cached;
        }
    }
}

fn dropped(prompt: u64, keep: u64, again: u64, estimated: bool) -> Kept {
    Kept {
        prompt,
        keep,
        again,
        broken: Some(("reasoning-dropped", estimated)),
    }
}

/// Returns the parts that no earlier prompt had, in order, and the place they follow.
fn fresh(thread: &Thread, prompt: usize) -> (Vec<(usize, Part)>, usize) {
    let mut fresh = Vec::new();
    let mut at = prompt;
    while at != 0 && thread.nodes[at].call.is_none() {
        if let Body::Input(part) = thread.nodes[at].body {
            fresh.push((at, part));
        }
        at = thread.nodes[at].parent;
    }
    fresh.reverse();
    (fresh, at)
}

/// Fills a prompt beyond what it keeps with the parts that were said.
fn fill(
    thread: &mut Thread,
    call: usize,
    kept: &Kept,
    head: u64,
    fresh: &[(usize, Part)],
    chars: &[u64],
) -> Vec<Stretch> {
    let unseen = |kind, tokens, again| Stretch {
        part: Part {
            kind,
            hash: 0,
            chars: 0,
        },
        tokens,
        again,
    };
    let mut stretches = Vec::new();
    if head > 0 {
        stretches.push(unseen("system", head, false));
    }
    let again = kept.again.min(kept.prompt - kept.keep);
    if again > 0 {
        stretches.push(unseen("assistant-text", again, true));
    }
    let rest = kept.prompt - kept.keep - again - head.min(kept.prompt - kept.keep - again);
    let mut end = kept.prompt - rest;
    let shares = share(rest, chars);
    for (&(node, part), tokens) in fresh.iter().zip(shares) {
        end += tokens;
        thread.nodes[node].call = Some(call);
        thread.nodes[node].end = end;
        stretches.push(Stretch {
            part,
            tokens,
            again: false,
        });
    }
    if end < kept.prompt {
        stretches.push(unseen("other", kept.prompt - end, false));
    }
    stretches.retain(|stretch| stretch.tokens > 0);
    stretches
}
