//! Measurements of engines as plain rows: what was timed, at which sizes, and where that is written.
//!
//! Benchmarks report rates, means and percentiles of many kinds; a row is what they have in common. Values in, values
//! out: [`read`] takes text, and files are opened elsewhere.

pub mod read;

mod llama_bench;
mod serving;
mod tables;

/// What was timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Reading `prompt` tokens after `depth` others, for each sequence in turn, by the engine alone.
    Prefill,
    /// Writing `answer` tokens in every sequence together, each from a context of `depth` on.
    Decode,
    /// Calls of one size sent together to an empty engine, until the last has ended.
    Batch,
    /// One answer, from its first token to its last, while the other sequences come and go: a closed loop.
    Steady,
    /// A call's wait for its first token: taking it in, and reading `prompt` tokens after `depth` others.
    FirstToken,
    /// As many answers as there are sequences, in a closed loop: what a throughput says.
    Throughput,
}

impl What {
    /// Returns the word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            What::Prefill => "prefill",
            What::Decode => "decode",
            What::Batch => "batch",
            What::Steady => "steady decode",
            What::FirstToken => "first token",
            What::Throughput => "throughput",
        }
    }
}

/// What a file says about the thing it measured; nothing where it does not.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Of {
    /// The machine, by a name of the catalogue.
    pub hardware: Option<String>,
    /// The engine, by a name of the catalogue.
    pub engine: Option<String>,
    /// The engine's version.
    pub version: Option<String>,
    /// The model and its quantisation.
    pub model: Option<String>,
}

/// A time that was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What was timed.
    pub what: What,
    /// Tokens of each sequence's prompt that were computed.
    pub prompt: u64,
    /// Tokens that were there before.
    pub depth: u64,
    /// Tokens of each sequence's answer.
    pub answer: u64,
    /// Sequences at a time.
    pub sequences: u64,
    /// The most prompt tokens that the engine reads in one pass, where the file says so.
    pub chunk: Option<u64>,
    /// How long it took.
    pub seconds: f64,
    /// What was measured.
    pub of: Of,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl Row {
    /// Returns where the row is written.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Returns the sizes in words.
    pub fn sizes(&self) -> String {
        let mut words = vec![self.what.word().to_string()];
        let mut size = |count: u64, what: &str| {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        };
        size(self.prompt, "prompt");
        size(self.depth, "deep");
        size(self.answer, "answer");
        if self.sequences > 1 {
            words.push(format!("x {}", self.sequences));
        }
        words.join(" ")
    }
}

/// Which tool wrote a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// llama.cpp's `llama-bench`.
    LlamaBench,
    /// llama.cpp's `llama-batched-bench`.
    BatchedBench,
    /// `vllm bench serve`; SGLang's serving benchmark writes the same names.
    VllmServe,
    /// NVIDIA's AIPerf, and GenAI-Perf before it.
    AiPerf,
    /// guidellm.
    GuideLlm,
    /// A result document of this program.
    Result,
    /// A table of this program, as in `docs/measurements`.
    Table,
}

impl Format {
    /// Returns the name used in reports.
    pub fn title(self) -> &'static str {
        match self {
            Format::LlamaBench => "llama-bench",
            Format::BatchedBench => "llama-batched-bench",
            Format::VllmServe => "vllm bench serve",
            Format::AiPerf => "AIPerf",
            Format::GuideLlm => "guidellm",
            Format::Result => "laptime.result/1",
            Format::Table => "measurement table",
        }
    }
}

/// What a file held.
#[derive(Clone, PartialEq, Debug)]
pub struct Read {
    /// Who wrote it.
    pub format: Format,
    /// The times in it.
    pub rows: Vec<Row>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// Why a file could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing known looks like it.
    #[error(
        "{file}: not a benchmark result that is known here; found {found}, expected the output of llama-bench, \
         llama-batched-bench, vllm bench serve, AIPerf or guidellm, a laptime.result/1, or a measurement table"
    )]
    Unknown {
        /// The file.
        file: String,
        /// How it begins.
        found: String,
    },
    /// A line of a known format is wrong.
    #[error("{file}:{line}: {found}; expected {expected}")]
    Wrong {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The format is known, and there is nothing in it.
    #[error(
        "{file}: a {title} file without a single time that can be used{}",
        because(notes)
    )]
    Empty {
        /// The file.
        file: String,
        /// Who wrote it.
        title: &'static str,
        /// What was passed over.
        notes: Vec<String>,
    },
}

fn because(notes: &[String]) -> String {
    if notes.is_empty() {
        String::new()
    } else {
        format!(": {}", notes.join("; "))
    }
}
