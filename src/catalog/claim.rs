//! Published claims of speed: what somebody wrote that a box does, in figures only.
//!
//! They are there to be checked against physics and are never calibrated on.

/// What a claim is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Metric {
    /// Tokens of answers a second, of one stream.
    Decode,
    /// Tokens of answers a second, of several streams together.
    Aggregate,
    /// Prompt tokens a second.
    Prefill,
    /// Seconds to the first token of a prompt.
    FirstToken,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 4] = [
        Metric::Decode,
        Metric::Aggregate,
        Metric::Prefill,
        Metric::FirstToken,
    ];

    /// Returns the word used in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Metric::Decode => "decode",
            Metric::Aggregate => "aggregate",
            Metric::Prefill => "prefill",
            Metric::FirstToken => "ttft",
        }
    }

    /// Returns the unit of its figures.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::FirstToken => "s",
            _ => "tok/s",
        }
    }
}

/// A figure that somebody published, or typed.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    /// The hardware's name; nothing when it is asked of every box.
    pub hardware: Option<String>,
    /// The model's name.
    pub model: String,
    /// What is claimed.
    pub metric: Metric,
    /// The figure, or the lower end of its range.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many streams share the box.
    pub streams: u64,
    /// Tokens that each stream has in its context.
    pub context: u64,
    /// What else was said.
    pub conditions: Option<String>,
    /// Where it was published.
    pub source: String,
}
