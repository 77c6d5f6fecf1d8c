//! What decode passes cost that verify drafts: what was measured of one row, and what more rows and a drafting model add.

use super::{Coefficients, Graph, Kv, StepCost, decode_secs, kv_steps, power};
use crate::rig::fine::Fine;
use crate::rig::speculation::{Drafter, Gain, relative_cost};

/// Decode passes that verify drafts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Speculation {
    /// Drafts that a row's pass verifies.
    pub drafts: u64,
    /// How fast answers grow.
    pub gain: Gain,
    /// Where the drafts come from.
    pub drafter: Drafter,
    /// What a step of the model that writes them costs, where they come from one.
    pub model: Option<Coefficients>,
}

impl StepCost {
    /// Returns the cost of the same steps when every decode pass verifies drafts.
    #[must_use]
    pub fn speculating(mut self, speculation: Speculation) -> StepCost {
        self.draft_kv = speculation.model.map(|model| {
            let drafts = speculation.drafts as f64;
            let kv = |secs: f64| Kv::new(drafts * secs, model.kv_imbalance);
            let long = kv(model.kv_s);
            (long, model.kv_short_s.map_or(long, kv), model.form())
        });
        self.speculation = Some(speculation);
        self.note_usual();
        self
    }

    /// Returns what a model that writes drafts needs to read the prompts of a pass.
    pub(super) fn draft_chunks_secs(&self, graph: &Graph) -> f64 {
        let Some(model) = self.speculation.and_then(|speculation| speculation.model) else {
            return 0.0;
        };
        let prompts = Graph {
            chunks: graph.chunks.clone(),
            ..Graph::default()
        };
        let features = prompts.features(1, &model.form());
        let each = features.iter().zip(model.linear());
        each.map(|(feature, coefficient)| feature * coefficient)
            .sum()
    }

    /// Returns what drafts and their verification add to a pass of `rows` rows, contexts apart.
    ///
    /// One row's pass costs what was measured; with more, the drafts' own experts and arithmetic come on top.
    pub(super) fn draft_secs(&self, rows: u64, overlapped: bool) -> f64 {
        let Some(speculation) = self.speculation.filter(|_| rows > 0) else {
            return 0.0;
        };
        let c = &self.coefficients;
        let plain = decode_secs(c, rows, self.padded(rows), overlapped);
        let measured = relative_cost(speculation.drafts, speculation.drafter) - 1.0;
        let all = rows * (1 + speculation.drafts);
        let missed = |tokens: u64| power(1.0 - c.expert_share, tokens);
        let large = |tokens: f64| tokens * tokens / (tokens + c.half_tokens);
        let more = c.experts_s * (missed(rows) - missed(all))
            + c.token_s * (large(all as f64) - large(rows as f64));
        let factor = if overlapped { c.overlap } else { 1.0 };
        let model = speculation.model.map_or(0.0, |model| {
            speculation.drafts as f64 * decode_secs(&model, rows, rows, false)
        });
        let sent = c.link_token_s * (all - rows) as f64;
        plain * measured + factor * more + sent + model
    }

    /// Returns what a model that writes drafts reads of its own keys and values.
    pub(super) fn draft_kv_steps(&self, graph: &Graph, times: u64) -> Fine {
        let Some((long, short, form)) = &self.draft_kv else {
            return Fine::ZERO;
        };
        kv_steps(*long, *short, form, graph, times, self.gain())
    }
}
