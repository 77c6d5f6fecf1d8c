//! The records of the native trace format: what one line of a trace file says.
//!
//! Importers turn foreign files into these records and [`super::compile`] turns them into a [`super::Trace`], so a
//! foreign file replays exactly as its imported twin. Absent is not zero: every optional quantity is an `Option`. Times
//! are integer microseconds, relative to the start of the session. Fields that this version does not know are kept.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fields that this version does not know, kept so that reading and writing loses nothing.
pub type Extra = BTreeMap<String, serde_json::Value>;

/// One line of a trace file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "kebab-case")]
pub enum Record {
    /// The first line.
    Header(Box<Header>),
    /// A piece of content that steps refer to.
    Segment(Box<Segment>),
    /// A recorded session.
    Session(Box<SessionRecord>),
    /// A conversation of a session.
    Agent(Box<AgentRecord>),
    /// One request to the model.
    Step(Box<StepRecord>),
    /// One tool call.
    Tool(Box<ToolRecord>),
    /// Anything else that happened.
    Event(Box<EventRecord>),
}

/// What the file is and where it came from.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Always `laptime-trace`.
    pub format: String,
    /// The version of the format: 1.
    pub version: u32,
    /// The program and version that wrote the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The format the recording had before it was imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_format: Option<String>,
    /// The files it was imported from, with their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFile>,
    /// The licence of the recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whether people or scripts took the model's turns, and anything else a reader must know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Absolute start in microseconds since 1970, where it may be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_unix_us: Option<u64>,
    /// The resolution of recorded moments, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_us: Option<u64>,
    /// `full`, `redacted`, `hashed` or `sizes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<String>,
    /// The tokenizer that counted, and whether its counts are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// What the engine of the recording was, and how it was set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded_on: Option<String>,
    /// What the source lacked or said ambiguously.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A file that was imported.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name.
    pub name: String,
    /// `xxh3:` and the 128-bit digest of its bytes.
    pub digest: String,
}

/// A piece of content, stored once.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// The name by which steps refer to it; equal names in one file are equal content.
    pub id: String,
    /// What it is: `tools`, `system`, `user`, `tool-output`, `repo-read`, `test-failure`, ...
    pub kind: String,
    /// Its length in tokens.
    pub tokens: u64,
    /// Its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// A hash of its content that means the same in other files, as 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The token ids themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
    /// A number from which stand-in text can be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Its length before it was truncated, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_from: Option<u64>,
    /// Where it came from: a path, a class of command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ref: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A recorded session.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The source's own name for it.
    pub id: String,
    /// When it began, in microseconds after the first session of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_us: Option<u64>,
    /// Whether it begins in mid-conversation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// The session it continues or was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Where equal block ids mean equal content: `session`, or a name that several sessions of the file share; the
    /// whole file when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_scope: Option<String>,
    /// The model that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it was about and how it ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A conversation of a session. The first agent of a session is its main thread.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Its name, unique in its session.
    pub id: String,
    /// The session it belongs to.
    pub session: String,
    /// The agent that started it; absent for the main thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The parent's step after whose answer it starts, by step id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_step: Option<String>,
    /// How long after that answer it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_offset_us: Option<u64>,
    /// `blocking` (default), `async` or `detached`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// What kind of agent it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The model it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One request to the model.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its name, unique in its session.
    pub id: String,
    /// The session it belongs to; may be left out in a file of one session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The agent that asked; the main thread when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The prompt, as an edit of an earlier step's prompt and answer.
    pub prompt: PromptEdit,
    /// The answer.
    pub output: OutputRecord,
    /// What came between this answer and the next request, by cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<GapRecord>,
    /// What came between the conversation's previous answer and this request, from a writer who learns it only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<GapRecord>,
    /// When things happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<TimingRecord>,
    /// Token counts as the provider or engine reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageRecord>,
    /// `tool-call`, `end-of-turn`, `length`, `error`; absent when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<String>,
    /// Agents that must have ended before this request is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<String>,
    /// The model, where it is not the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A prompt as an edit: keep the beginning of an earlier prompt and its answer, then append.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct PromptEdit {
    /// The whole prompt's length in tokens: `keep` plus everything appended.
    pub tokens: u64,
    /// The step that is edited, by id; the agent's previous step when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// How many tokens of the base's prompt followed by its answer stay.
    #[serde(default)]
    pub keep: u64,
    /// What follows.
    #[serde(default)]
    pub append: Vec<Piece>,
    /// `recorded` or `estimated`: how the place of a break is known. Absent when there is none.
    #[serde(rename = "break_at", skip_serializing_if = "Option::is_none")]
    pub break_at: Option<String>,
    /// What broke the prefix: `compaction`, `reasoning-dropped`, `edit`, ...
    #[serde(rename = "break", skip_serializing_if = "Option::is_none")]
    pub break_class: Option<String>,
}

/// Appended content: exactly one of `seg`, `blocks` or plain `tokens`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// A segment of the dictionary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seg: Option<String>,
    /// Ids of hashed blocks, hexadecimal, `a-f` for a run of successive ids, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
    /// The size of a block in tokens; needed with `blocks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// Content that equals nothing else, by its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// What the content is, where there is no segment to say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether the conversation had this content before, at another place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// An answer.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Its length in tokens, reasoning included.
    pub tokens: u64,
    /// How much of it was reasoning, which comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Its content, where known, in order; what is left of `tokens` equals nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segs: Vec<String>,
}

/// What came between an answer and the next request, in microseconds by cause; absent is unknown to be there.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GapRecord {
    /// Measured tool time, parallel calls counted once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_us: Option<u64>,
    /// How the tool time is known: `measured`, or `derived` from stamps that hold approvals too. Absent means measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_how: Option<String>,
    /// Measured overhead of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_us: Option<u64>,
    /// Time a person took, approvals included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human_us: Option<u64>,
    /// Time whose cause is not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_us: Option<u64>,
}

/// When things happened, in microseconds after the session's start.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TimingRecord {
    /// When the request was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_us: Option<u64>,
    /// From request to first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_us: Option<u64>,
    /// From request to the end of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_us: Option<u64>,
    /// `measured` or `derived`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// Token counts as reported, brought to one meaning: the prompt includes what was cached.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Prompt tokens, cached ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<u64>,
    /// Prompt tokens read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<u64>,
    /// Prompt tokens written to a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Answer tokens, reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
}

/// One tool call. Replay takes its time from the step's gap; this says what the gap was made of.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ToolRecord {
    /// The step that asked for it, by id.
    pub step: String,
    /// The session, where the file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The call's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How long it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// What the duration means: `internal`, `wall` or `wall-with-approval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// When it began, in microseconds after the session's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_us: Option<u64>,
    /// Its exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The arguments, or a class of command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// The size of its result in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_chars: Option<u64>,
    /// The segment that holds its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Anything else that happened: compaction, a rewind, a rate limit, a person's pause.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct EventRecord {
    /// The session, where the file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The agent it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What happened: `compaction`, `user-wait`, `rewind`, `model-switch`, `rate-limit`, `note`, ...
    pub what: String,
    /// When, in microseconds after the session's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_us: Option<u64>,
    /// Unknown fields.
    #[serde(flatten)]
    pub extra: Extra,
}
