//! What a kind of session is like: rows of statistics with their sources, as the preset files hold them.

use super::row::Row;
use serde::{Deserialize, Serialize};

/// Kinds of sessions, each with its share.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix(pub(super) Vec<(f64, Kind)>);

/// A kind of session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name, and that of its files.
    pub name: String,
    /// What it is, in a sentence.
    pub about: String,
    /// The model recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether its sessions begin in mid-conversation.
    #[serde(default)]
    pub resumed: bool,
    /// Requests of a session.
    pub turns: Row,
    /// Tokens of the first prompt, head included.
    pub first: Row,
    /// The longest prompt with its answer; a session ends that would grow beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// Requests from one message of a person to the next; where there is none, a session has one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Row>,
    /// Tokens of an answer.
    pub output: Row,
    /// How requests that follow a tool call go on.
    pub tool_turn: Turn,
    /// How requests that follow a person's message go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_turn: Option<Turn>,
    /// What values of a session have in common.
    pub alike: Alike,
    /// How the first requests differ from all later ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early: Option<Early>,
    /// How long the model took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_time: Option<ModelTime>,
    /// What all sessions begin with.
    #[serde(default)]
    pub head: Vec<HeadPart>,
    /// Where prompts do not go on as they were.
    #[serde(default)]
    pub breaks: Vec<Break>,
    /// What happens when the context is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction: Option<Compaction>,
    /// Conversations that a session starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Agents>,
}

/// How a request follows the one before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Tokens beyond the prompt before: what stayed of its answer, and what came.
    pub new: Row,
    /// Measured tool time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<Row>,
    /// Measured overhead of the client in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Row>,
    /// A person's time in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<Row>,
    /// Time of unknown cause in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Row>,
}

/// How much values depend on their session, on the one before, and on each other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alike {
    /// Where the figures are from.
    pub source: String,
    /// The share of the variance of logarithms that lies between sessions.
    pub session: f64,
    /// The rank correlation of a value with the one before it in its session, beside the session's.
    pub before: f64,
    /// How much the growth of a prompt goes with the length of the answer before.
    pub growth_and_output: f64,
    /// How much a session's growth goes with how many requests it has.
    #[serde(default)]
    pub growth_and_turns: f64,
    /// The standard deviation between sessions of the logarithm of the chance of a break.
    #[serde(default)]
    pub breaks: f64,
    /// How much a session's first prompt goes with how many requests it has.
    #[serde(default)]
    pub first_and_turns: f64,
}

/// How the first requests of a session differ: what an agent reads to begin with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Early {
    /// Where the figures are from.
    pub source: String,
    /// How many requests after the first one.
    pub requests: u64,
    /// By how many standard deviations of the normal score more is new in them.
    pub more: f64,
}

impl Alike {
    /// Returns the score of growth, of that of an answer and one of its own.
    pub(super) fn growth(&self, answer: f64, own: f64) -> f64 {
        let common = self.growth_and_output;
        common * answer + (1.0 - common * common).sqrt() * own
    }
}

/// Seconds of a model: `base + prompt * P + prompt_squared * P² + output * O + output_prompt * O * P`, with P in thousands of tokens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTime {
    /// Where the figures are from.
    pub source: String,
    /// For each request.
    #[serde(default)]
    pub base: f64,
    /// For each thousand prompt tokens.
    #[serde(default)]
    pub prompt: f64,
    /// For the square of that.
    #[serde(default)]
    pub prompt_squared: f64,
    /// For each answer token.
    #[serde(default)]
    pub output: f64,
    /// For each answer token and thousand prompt tokens.
    #[serde(default)]
    pub output_prompt: f64,
    /// By what single times differ from the formula, as a factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<Row>,
}

/// A part of the head, in as many versions as there are releases of a client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadPart {
    /// `tools` or `system`.
    pub kind: String,
    /// Its sizes.
    pub tokens: Row,
    /// How many versions there are, spread over the sizes.
    pub versions: u32,
}

/// A way in which a prompt does not go on as it was.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// Its name, which steps carry.
    pub name: String,
    /// Where the chances are from.
    pub source: String,
    /// Its chance at a request after a wait shorter than so many seconds.
    pub chance: Vec<(f64, f64)>,
    /// Tokens that stay from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Row>,
    /// Tokens that go from the end, where `kept` does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Row>,
    /// The size of the prompt by that of the one before; it grows as always where this does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Row>,
    /// Whether what goes comes again behind.
    #[serde(default)]
    pub again: bool,
}

/// What happens when the context is full: the head stays, a summary follows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compaction {
    /// The prompt at which it happens, the same all session.
    pub full: Row,
    /// Where the next two figures are from.
    pub source: String,
    /// The share of sessions with a larger window.
    pub large: f64,
    /// The prompt at which it happens there.
    pub large_full: f64,
    /// Tokens that stay.
    pub kept: Row,
    /// The size of the prompt by that of the one before.
    pub size: Row,
    /// Seconds until the next request, the summary's own included.
    pub wait: Row,
}

/// Conversations that a session starts and waits for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// Where the next two figures are from.
    pub source: String,
    /// The share of sessions with any.
    pub sessions: f64,
    /// The chance of a request after a tool call to start some.
    pub chance: f64,
    /// What they call themselves.
    pub kind: String,
    /// How many start at once.
    pub group: Row,
    /// Their requests.
    pub turns: Row,
    /// Tokens of their first prompts.
    pub first: Row,
    /// What all of them begin with.
    pub head: Vec<HeadPart>,
    /// Tokens of their own task, behind what those of a session share.
    pub task: Row,
    /// How they go on.
    pub turn: Turn,
    /// Tokens of an answer.
    pub output: Row,
    /// Tokens of the last answer, which goes to the parent.
    pub report: Row,
    /// Seconds from the end of the last until the parent's next request.
    pub resume: Row,
}

const FILES: [&str; 6] = [
    include_str!("presets/claude-code-fresh.toml"),
    include_str!("presets/claude-code-resumed.toml"),
    include_str!("presets/local-minimal.toml"),
    include_str!("presets/pr-audit.toml"),
    include_str!("presets/ticket-triage.toml"),
    include_str!("presets/explore-fanout.toml"),
];

/// The share of fresh starts of 692 recorded sessions (387).
const FRESH: f64 = 0.5592;

impl Mix {
    /// Returns the names of all presets, with what they are.
    pub fn presets() -> Vec<(String, String)> {
        let both =
            "Claude Code as recorded: 56 % fresh sessions, 44 % that begin in mid-conversation";
        let kinds = FILES.iter().filter_map(|text| Kind::read(text).ok());
        std::iter::once(("claude-code".to_string(), both.to_string()))
            .chain(kinds.map(|kind| (kind.name, kind.about)))
            .collect()
    }

    /// Returns a preset.
    pub fn preset(name: &str) -> Option<Mix> {
        let kinds = || FILES.iter().filter_map(|text| Kind::read(text).ok());
        let kind = |name: &str| kinds().find(|kind| kind.name == name);
        if name == "claude-code" {
            let (fresh, resumed) = kind("claude-code-fresh").zip(kind("claude-code-resumed"))?;
            return Some(Mix(vec![(FRESH, fresh), (1.0 - FRESH, resumed)]));
        }
        kind(name).map(Mix::of)
    }

    /// Returns a mix of one kind.
    pub fn of(kind: Kind) -> Mix {
        Mix(vec![(1.0, kind)])
    }

    /// Returns kinds, each with its share.
    pub fn mixed(kinds: Vec<(f64, Kind)>) -> Mix {
        Mix(kinds)
    }
}

impl Kind {
    /// Reads a preset file; says what is wrong with it.
    pub fn read(text: &str) -> Result<Kind, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_file_can_be_read() {
        for text in FILES {
            let kind = Kind::read(text).unwrap();
            assert!(Mix::preset(&kind.name).is_some());
        }
        assert_eq!(Mix::presets().len(), FILES.len() + 1);
        assert!(Mix::preset("claude-code").is_some());
        assert!(Mix::preset("nothing").is_none());
    }
}
