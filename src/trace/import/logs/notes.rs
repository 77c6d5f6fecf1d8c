//! What is counted while a log is read, and said in its loss report.

use super::super::Feed;
use std::collections::BTreeMap;

/// Counts over one file.
#[derive(Default)]
pub(in crate::trace::import) struct Notes {
    /// When the first session of the file began.
    pub(super) start_us: Option<i64>,
    /// What is true of every file of the format.
    pub(super) always: Vec<&'static str>,
    pub(super) sessions: u64,
    pub(super) calls: u64,
    /// Calls whose sizes nothing tells.
    pub(super) unsized_calls: u64,
    /// The ratio that texts were scaled by: smallest and largest of the threads, and whether usage told it.
    pub(super) ratio: Option<(f64, f64)>,
    pub(super) usual_ratio: bool,
    pub(super) heads: u64,
    pub(super) squeezed: u64,
    pub(super) shrunk: u64,
    pub(super) dropped: u64,
    pub(super) checked: u64,
    pub(super) cached_tokens: u64,
    /// Calls that read more from the cache than the rebuilt prefix.
    pub(super) longer: u64,
    pub(super) beyond: u64,
    pub(super) extended: u64,
    pub(super) extended_tokens: u64,
    pub(super) missed: u64,
    pub(super) missed_tokens: u64,
    pub(super) measured_tools: u64,
    pub(super) derived_tools: u64,
    pub(super) timeless_tools: u64,
    pub(super) backwards: u64,
    pub(super) unpaired: u64,
    /// Anything else, by what is said of it.
    pub(super) other: BTreeMap<String, u64>,
}

impl Notes {
    /// Counts something that is told at the end as `<what>: N`.
    pub(super) fn count(&mut self, what: &str) {
        if self.other.len() < 24 || self.other.contains_key(what) {
            *self.other.entry(what.to_string()).or_default() += 1;
        }
    }

    /// Tells everything.
    pub(in crate::trace::import) fn report(self, feed: &mut Feed<'_>) {
        for sentence in &self.always {
            feed.losses.push((*sentence).to_string());
        }
        self.sizes(feed);
        self.prefixes(feed);
        self.breaks(feed);
        self.times(feed);
        for (what, number) in &self.other {
            feed.losses.push(format!("{what}: {number}"));
        }
    }

    fn sizes(&self, feed: &mut Feed<'_>) {
        let losses = &mut feed.losses;
        if let Some((least, most)) = self.ratio {
            let range = if most - least < 0.05 {
                format!("{least:.1}")
            } else {
                format!("{least:.1} to {most:.1}")
            };
            let source = match (self.usual_ratio, self.unsized_calls < self.calls) {
                (true, false) => "assumed, no usage tells",
                (true, true) => "assumed where usage tells too little",
                _ => "from how prompts grew",
            };
            losses.push(format!(
                "texts have no token counts of their own: they are estimated at {range} characters a token ({source}) and \
                 scaled to the reported prompt"
            ));
        }
        let calls = self.calls;
        tell(
            losses,
            self.unsized_calls,
            &format!(
                "calls of {calls} that report no prompt tokens, so that their prompts are estimated from the logged text alone"
            ),
        );
        tell(
            losses,
            self.heads,
            "conversations whose unlogged head (system prompt, tools) is sized as the first prompt less the logged text",
        );
        tell(
            losses,
            self.squeezed,
            "first prompts reported shorter than their logged text seems, so that the text was scaled down",
        );
    }

    fn prefixes(&self, feed: &mut Feed<'_>) {
        let losses = &mut feed.losses;
        let (checked, tokens) = (self.checked, self.extended_tokens);
        if checked > 0 && self.cached_tokens == 0 {
            losses.push(format!(
                "none of {checked} calls that follow another report cached tokens: the rebuilt prefixes could not be checked"
            ));
            return;
        }
        if checked > 0 {
            let agree = checked - self.longer - self.missed;
            losses.push(format!(
                "the rebuilt prefix agrees with the cached tokens of {agree} of {checked} calls that follow another"
            ));
        }
        tell(
            losses,
            self.extended,
            &format!(
                "calls that read more from the cache than the rebuilt prefix, which was extended by {tokens} tokens in all"
            ),
        );
        tell(
            losses,
            self.beyond,
            "calls that read more from the cache than the conversation had by then, so that what they share cannot be told",
        );
        tell(
            losses,
            self.missed,
            &format!(
                "calls that read less from the cache than the rebuilt prefix holds ({} tokens in all; the provider missed, or \
                 the prompt changed where the log does not say so)",
                self.missed_tokens
            ),
        );
    }

    fn breaks(&self, feed: &mut Feed<'_>) {
        let losses = &mut feed.losses;
        tell(
            losses,
            self.dropped,
            "prompts that grew by less than the answer and the logged text before them, so that its reasoning counts as dropped (estimated)",
        );
        tell(
            losses,
            self.shrunk,
            "prompts shorter than the one before without a logged reason, so that the place of the break is estimated",
        );
    }

    fn times(&self, feed: &mut Feed<'_>) {
        let (measured, derived, none) =
            (self.measured_tools, self.derived_tools, self.timeless_tools);
        if measured + derived + none > 0 {
            feed.losses.push(format!(
                "tool times: {measured} measured by the log, {derived} derived from stamps (approvals included), {none} unknown"
            ));
        }
        if self.unpaired > 0 {
            let number = self.unpaired;
            feed.losses.push(format!(
                "tool results that name no logged call, so that their time is part of an unknown wait: {number}"
            ));
        }
        if self.backwards > 0 {
            let number = self.backwards;
            feed.losses.push(format!(
                "requests that begin before the answer before them has ended, so that the wait is 0: {number}"
            ));
        }
    }
}

/// Tells a count, where there is something to tell.
fn tell(losses: &mut Vec<String>, number: u64, what: &str) {
    if number > 0 {
        losses.push(format!("{what}: {number}"));
    }
}
