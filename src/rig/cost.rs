//! How long an engine step takes, given what is in it.
//!
//! A step is one or more *graphs* (forward passes). Every term is physical and linear in its coefficient, and none of
//! them falls when rows or tokens are added: see `docs/model.md` for the equation, its units and its sources. While a
//! batch only decodes, its cost is affine in the number of steps made, so a run of steps has a closed form.

mod drafts;

use super::book::Seq;
use super::fine::Fine;
use super::speculation::Gain;
pub use crate::catalog::rig::Coefficients;
pub use drafts::Speculation;

/// The number of linear coefficients.
pub const FEATURES: usize = 11;

/// The names of the linear coefficients, in the order of [`Graph::features`].
pub const FEATURE_NAMES: [&str; FEATURES] = [
    "weights_s",
    "experts_s",
    "row_s",
    "second_row_s",
    "kv_s",
    "kv_short_s",
    "token_s",
    "attention_s",
    "request_s",
    "matrix_s",
    "intake_token_s",
];

/// The place of what is no part of a graph: taking in a token of a prompt; see [`super::intake`].
pub const INTAKE: usize = 10;

/// Shape parameters that the features depend on other than linearly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Form {
    /// See [`Coefficients::half_tokens`].
    pub half_tokens: f64,
    /// See [`Coefficients::expert_share`].
    pub expert_share: f64,
    /// See [`Coefficients::kv_imbalance`].
    pub kv_imbalance: f64,
    /// See [`Coefficients::short_tokens`]; 0 where single rows have no kernel of their own.
    pub short_tokens: u64,
    /// See [`Coefficients::overlap`].
    pub overlap: f64,
    /// See [`Coefficients::vector_tokens`].
    pub vector_tokens: u64,
}

impl Coefficients {
    /// Returns the parameters that are not linear.
    pub fn form(&self) -> Form {
        Form {
            half_tokens: self.half_tokens,
            expert_share: self.expert_share,
            kv_imbalance: self.kv_imbalance,
            short_tokens: if self.kv_short_s.is_some() {
                self.short_tokens
            } else {
                0
            },
            overlap: self.overlap,
            vector_tokens: self.vector_tokens,
        }
    }

    /// Returns the linear coefficients in the order of [`FEATURE_NAMES`].
    pub fn linear(&self) -> [f64; FEATURES] {
        [
            self.weights_s,
            self.experts_s,
            self.row_s,
            self.second_row_s,
            self.kv_s,
            self.kv_short_s.unwrap_or(0.0),
            self.token_s,
            self.attention_s,
            self.request_s,
            self.matrix_s,
            self.intake_token_s,
        ]
    }

    /// Returns the coefficients with these linear values and this form.
    pub fn from_linear(linear: [f64; FEATURES], form: Form) -> Coefficients {
        let [
            weights_s,
            experts_s,
            row_s,
            second_row_s,
            kv_s,
            kv_short_s,
            token_s,
            attention_s,
            request_s,
            matrix_s,
            intake_token_s,
        ] = linear;
        Coefficients {
            weights_s,
            experts_s,
            row_s,
            second_row_s,
            kv_s,
            kv_short_s: (form.short_tokens > 0).then_some(kv_short_s),
            short_tokens: form.short_tokens,
            kv_imbalance: form.kv_imbalance,
            token_s,
            half_tokens: form.half_tokens,
            attention_s,
            request_s,
            matrix_s,
            vector_tokens: form.vector_tokens,
            expert_share: form.expert_share,
            overlap: form.overlap,
            link_token_s: 0.0,
            intake_token_s,
        }
    }
}

/// Prompt tokens of one request in one graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// How many.
    pub tokens: u64,
    /// How many come before them.
    pub depth: u64,
    /// Whether it is the first of its request, which pays for taking the request in.
    pub first: bool,
}

/// One forward pass.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Graph {
    /// Decode rows.
    pub rows: u64,
    /// The rows' contexts, summed.
    pub contexts: u64,
    /// The longest row's context.
    pub longest: u64,
    /// By how many tokens the contexts grow in all when the pass is made again.
    pub growth: u64,
    /// Prompt chunks.
    pub chunks: Vec<Chunk>,
    /// Whether the next graph's work overlaps this one's, on hardware that can.
    pub overlapped: bool,
    /// What each row's passes have accepted beyond whole tokens, where drafts are verified; see [`Gain`].
    pub fractions: Vec<u64>,
    /// That of the longest row.
    pub longest_fraction: u64,
}

impl Graph {
    /// Adds a decode row that attends to `context` tokens.
    pub fn add_row(&mut self, context: u64) {
        self.rows += 1;
        self.growth += 1;
        self.contexts += context;
        self.longest = self.longest.max(context);
    }

    /// Adds a decode row for a request.
    pub fn add_seq(&mut self, seq: &Seq) {
        self.add_row_at(seq.known(), seq.fraction());
    }

    /// Adds a decode row that attends to `context` tokens; `fraction` is what its passes have accepted beyond whole
    /// tokens, where they verify drafts.
    pub fn add_row_at(&mut self, context: u64, fraction: Option<u64>) {
        if let Some(fraction) = fraction {
            if (context, fraction) > (self.longest, self.longest_fraction) {
                self.longest_fraction = fraction;
            }
            self.fractions.push(fraction);
        }
        self.add_row(context);
    }

    /// Returns whether a single short row is all there is, for which some engines have a kernel of its own.
    fn single_short(&self, form: &Form) -> bool {
        self.rows == 1 && self.chunks.is_empty() && self.contexts < form.short_tokens
    }

    /// Returns what each linear coefficient is multiplied with, for `times` successive passes of this shape.
    ///
    /// # Panics
    /// When a pass with prompt chunks is to be repeated.
    pub fn features(&self, times: u64, form: &Form) -> [f64; FEATURES] {
        assert!(
            times == 1 || self.chunks.is_empty(),
            "only decode passes repeat"
        );
        if self.single_short(form) && times > 1 && self.contexts + times > form.short_tokens {
            // The run crosses into the other kernel's range.
            let short = form.short_tokens - self.contexts;
            let mut long = Graph::default();
            long.add_row(form.short_tokens);
            let (a, b) = (
                self.features(short, form),
                long.features(times - short, form),
            );
            return std::array::from_fn(|index| a[index] + b[index]);
        }
        let k = times as f64;
        let chunk_tokens: u64 = self.chunks.iter().map(|chunk| chunk.tokens).sum();
        let tokens = (self.rows + chunk_tokens) as f64;
        let factor = if self.overlapped { form.overlap } else { 1.0 };
        let spread = 1.0 - power(1.0 - form.expert_share, self.rows + chunk_tokens);
        let rows = self.rows as f64;
        let growth = self.growth as f64 * (k * (k - 1.0) / 2.0);
        let even = self.contexts as f64 * k + growth;
        let longest = rows * (self.longest as f64 * k) + growth;
        let kv = even + form.kv_imbalance * (longest - even);
        let attention: f64 = self
            .chunks
            .iter()
            .map(|chunk| chunk.tokens as f64 * (chunk.depth as f64 + chunk.tokens as f64 / 2.0))
            .sum();
        let requests = self.chunks.iter().filter(|chunk| chunk.first).count() as f64;
        let (kv, kv_short) = if self.single_short(form) {
            (0.0, kv)
        } else {
            (kv, 0.0)
        };
        [
            k * factor,
            k * factor * spread,
            k * factor * rows,
            if self.rows > 1 { k * factor } else { 0.0 },
            kv,
            kv_short,
            k * factor * (tokens * tokens / (tokens + form.half_tokens)),
            factor * attention,
            requests,
            if tokens > form.vector_tokens as f64 {
                k * factor
            } else {
                0.0
            },
            // Calls are taken in before any pass holds them.
            0.0,
        ]
    }
}

/// Returns `base` to the power of `exponent` by repeated squaring: the same bits everywhere.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

/// The cost of steps on one rig.
#[derive(Clone, Debug)]
pub struct StepCost {
    coefficients: Coefficients,
    form: Form,
    /// Row counts for which the engine has captured graphs; a batch is padded up to the next one.
    captured: Vec<u64>,
    kv: Kv,
    kv_short: Kv,
    /// What a decode pass costs before it reads any context, by its rows: asked for at every step, for every row.
    fixed: Vec<Fine>,
    /// Drafts that decode passes verify, where there are any.
    speculation: Option<Speculation>,
    /// What the model that writes them reads of its own keys and values, and when a row is short to it.
    draft_kv: Option<(Kv, Kv, Form)>,
}

/// How many rows a decode pass is usually asked about.
const USUAL_ROWS: u64 = 512;

/// The cost of one context token, split into what a row reads itself and what it waits for the longest.
#[derive(Clone, Copy, Debug)]
struct Kv {
    own: Fine,
    longest: Fine,
}

impl Kv {
    fn new(per_token_s: f64, imbalance: f64) -> Kv {
        Kv {
            own: Fine::from_secs(per_token_s * (1.0 - imbalance)),
            longest: Fine::from_secs(per_token_s * imbalance),
        }
    }

    /// Returns the cost of `times` passes of this shape, each over contexts that have grown by what those before gained.
    fn steps(self, graph: &Graph, times: u64, gain: Gain) -> Fine {
        let k = u128::from(times);
        let growth = u128::from(graph.growth) * (k * (k - 1) / 2);
        let mut even = u128::from(graph.contexts) * k + growth;
        let mut most = u128::from(graph.rows) * u128::from(graph.longest) * k + growth;
        if times > 1 && gain != Gain::default() {
            // Contexts grow by accepted drafts too. Rows whose attention scans one stream grow by those of all.
            let each = graph.fractions.iter();
            let accepted: u128 = each.map(|&fraction| gain.summed(fraction, times)).sum();
            let rows = u128::from(graph.rows);
            let one_stream = graph.growth > graph.rows;
            even += accepted * if one_stream { rows } else { 1 };
            most += rows
                * if one_stream {
                    accepted
                } else {
                    // Who is longest stays longest: all grow alike, and the fraction decides between equals.
                    gain.summed(graph.longest_fraction, times)
                };
        }
        Fine(self.own.0 * even + self.longest.0 * most)
    }
}

/// Returns what decode passes read of keys and values, where a single row below some length has a kernel of its own.
fn kv_steps(long: Kv, short: Kv, form: &Form, graph: &Graph, times: u64, gain: Gain) -> Fine {
    if !graph.single_short(form) {
        return long.steps(graph, times, gain);
    }
    let fraction = graph.longest_fraction;
    let below = times.min(gain.passes(fraction, form.short_tokens - graph.contexts));
    let mut kv = short.steps(graph, below, gain);
    if times > below {
        let context = graph.contexts + gain.tokens(fraction, below);
        let mut rest = Graph::default();
        rest.add_row_at(context, Some(gain.fraction(fraction, below)));
        kv += long.steps(&rest, times - below, gain);
    }
    kv
}

impl StepCost {
    /// Returns the cost model with these coefficients.
    pub fn new(coefficients: Coefficients, captured: Vec<u64>) -> StepCost {
        let mut cost = StepCost {
            coefficients,
            form: coefficients.form(),
            captured,
            fixed: Vec::new(),
            kv: Kv::new(coefficients.kv_s, coefficients.kv_imbalance),
            kv_short: Kv::new(
                coefficients.kv_short_s.unwrap_or(coefficients.kv_s),
                coefficients.kv_imbalance,
            ),
            speculation: None,
            draft_kv: None,
        };
        cost.note_usual();
        cost
    }

    fn note_usual(&mut self) {
        let fixed = (1..=USUAL_ROWS).map(|rows| self.decode_fixed(rows, false));
        // A pass of no rows is never made.
        self.fixed = std::iter::once(Fine::ZERO).chain(fixed).collect();
    }

    /// Returns how fast answers grow.
    pub fn gain(&self) -> Gain {
        self.speculation
            .map_or(Gain::default(), |speculation| speculation.gain)
    }

    /// Returns the coefficients.
    pub fn coefficients(&self) -> &Coefficients {
        &self.coefficients
    }

    /// Returns how long the graphs of one step take.
    pub fn step(&self, graphs: &[Graph]) -> Fine {
        graphs.iter().map(|graph| self.graph(graph)).sum()
    }

    /// Returns how long `times` successive steps take; only decode graphs repeat.
    pub fn steps(&self, graphs: &[Graph], times: u64) -> Fine {
        if times == 1 {
            return self.step(graphs);
        }
        assert!(
            graphs.iter().all(|graph| graph.chunks.is_empty()),
            "only decode passes repeat"
        );
        graphs.iter().map(|graph| self.decode(graph, times)).sum()
    }

    /// Returns how long `times` decode steps take for one row alone, from this context on.
    ///
    /// # Panics
    /// When passes verify drafts: how far an answer has come decides what they accept.
    pub fn decode_alone(&self, context: u64, times: u64) -> Fine {
        assert!(self.one_token(), "passes verify drafts");
        if times == 1 {
            // Asked for every row of every step.
            let short = context < self.form.short_tokens;
            let kv = if short { self.kv_short } else { self.kv };
            return self.fixed[1] + Fine((kv.own.0 + kv.longest.0) * u128::from(context));
        }
        let mut graph = Graph::default();
        graph.add_row(context);
        self.decode(&graph, times)
    }

    /// Returns whether a decode pass adds one token to each answer: no drafts are verified.
    pub fn one_token(&self) -> bool {
        self.speculation.is_none()
    }

    fn graph(&self, graph: &Graph) -> Fine {
        if graph.chunks.is_empty() {
            return self.decode(graph, 1);
        }
        // Decode rows that ride along cost their keys and values on the same grid as in a pure decode pass.
        let mut features = graph.features(1, &self.form);
        (features[4], features[5]) = (0.0, 0.0);
        let linear = self.coefficients.linear();
        let secs: f64 = features
            .iter()
            .zip(linear)
            .map(|(feature, coefficient)| feature * coefficient)
            .sum();
        let prompts: u64 = graph.chunks.iter().map(|chunk| chunk.tokens).sum();
        let secs = secs + self.coefficients.link_token_s * (graph.rows + prompts) as f64;
        let chunks = self.draft_chunks_secs(graph) + self.draft_secs(graph.rows, graph.overlapped);
        let decoding = Graph {
            chunks: Vec::new(),
            ..graph.clone()
        };
        let kv = self.kv.steps(graph, 1, Gain::default());
        Fine::from_secs(secs + chunks) + kv + self.draft_kv_steps(&decoding, 1)
    }

    fn decode(&self, graph: &Graph, times: u64) -> Fine {
        let usual = self
            .fixed
            .get(graph.rows as usize)
            .filter(|_| !graph.overlapped);
        let fixed = match usual {
            Some(&fixed) => fixed,
            None => self.decode_fixed(graph.rows, graph.overlapped),
        } * times;
        let gain = self.gain();
        let kv = if self.speculation.is_some() {
            // Several tokens of one row are no single row to a kernel.
            self.kv.steps(graph, times, gain)
        } else {
            kv_steps(self.kv, self.kv_short, &self.form, graph, times, gain)
        };
        fixed + kv + self.draft_kv_steps(graph, times)
    }

    /// Returns how many rows a batch is padded to.
    fn padded(&self, rows: u64) -> u64 {
        let mut sizes = self.captured.iter().copied();
        sizes.find(|&size| size >= rows).unwrap_or(rows)
    }

    /// Returns what a decode pass of `rows` rows costs before it reads any context.
    fn decode_fixed(&self, rows: u64, overlapped: bool) -> Fine {
        let plain = decode_secs(&self.coefficients, rows, self.padded(rows), overlapped);
        Fine::from_secs(plain + self.draft_secs(rows, overlapped))
    }
}

/// Returns the seconds of a decode pass of `rows` rows, padded to `padded`, before it reads any context.
fn decode_secs(c: &Coefficients, rows: u64, padded: u64, overlapped: bool) -> f64 {
    let tokens = rows as f64;
    let spread = 1.0 - power(1.0 - c.expert_share, padded);
    let factor = if overlapped { c.overlap } else { 1.0 };
    let secs = c.weights_s
        + c.experts_s * spread
        + c.row_s * padded as f64
        + if rows > 1 { c.second_row_s } else { 0.0 }
        + if rows > c.vector_tokens {
            c.matrix_s
        } else {
            0.0
        }
        + c.token_s * (tokens * tokens / (tokens + c.half_tokens));
    secs * factor + c.link_token_s * tokens
}

#[cfg(test)]
mod tests;
