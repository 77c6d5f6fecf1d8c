//! What an engine does while a benchmark times it: the passes behind a measured row.
//!
//! Benchmarks that send nothing through a server have no schedule to simulate: their passes follow from their sizes.

use crate::measured::{Row, What};
use crate::rig::cost::{Chunk, Graph};

/// How an engine reads prompts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The most prompt tokens in one pass.
    pub chunk: u64,
    /// Whether prompts are read in the same pass as answers are written.
    pub mixes: bool,
}

impl Reading {
    /// Returns how an engine reads unless it was told otherwise.
    pub fn usual(engine: &str) -> Reading {
        match engine {
            "llama.cpp" | "ollama" | "lm-studio" => Reading {
                chunk: 512,
                mixes: true,
            },
            "mlx-lm" => Reading {
                chunk: 2048,
                mixes: false,
            },
            _ => Reading {
                chunk: 8192,
                mixes: true,
            },
        }
    }
}

/// Returns the passes that a row timed, each with how often in a row.
pub fn of(row: &Row, usual: Reading) -> Vec<(Graph, u64)> {
    let reading = Reading {
        chunk: row.chunk.unwrap_or(usual.chunk).max(1),
        ..usual
    };
    let mut passes = Vec::new();
    match row.what {
        What::Prefill => {
            for _ in 0..row.sequences {
                read(row, reading, false, &mut passes);
            }
        }
        What::FirstToken => {
            for _ in 0..row.sequences {
                read(row, reading, true, &mut passes);
            }
        }
        What::Decode => passes.push((rows(row.sequences, row.depth), row.answer)),
        What::Batch => {
            for _ in 0..row.sequences {
                read(row, reading, true, &mut passes);
            }
            // The pass that ends a prompt gives the first token.
            if row.answer > 1 {
                let from = row.depth + row.prompt + 1;
                passes.push((rows(row.sequences, from), row.answer - 1));
            }
        }
        What::Steady => closed_loop(row, row.sequences - 1, reading, &mut passes),
        What::Throughput => closed_loop(row, row.sequences, reading, &mut passes),
    }
    passes
}

/// Adds the passes that read one prompt.
fn read(row: &Row, reading: Reading, first: bool, passes: &mut Vec<(Graph, u64)>) {
    let mut done = 0;
    while done < row.prompt {
        let tokens = reading.chunk.min(row.prompt - done);
        passes.push((chunk(tokens, row.depth + done, first && done == 0), 1));
        done += tokens;
    }
}

fn chunk(tokens: u64, depth: u64, first: bool) -> Graph {
    Graph {
        chunks: vec![Chunk {
            tokens,
            depth,
            first,
        }],
        ..Graph::default()
    }
}

fn rows(count: u64, context: u64) -> Graph {
    let mut graph = Graph::default();
    for _ in 0..count {
        graph.add_row(context);
    }
    graph
}

/// Adds the passes of one answer among others that begin and end evenly: meanwhile `prompts` prompts are read.
fn closed_loop(row: &Row, prompts: u64, reading: Reading, passes: &mut Vec<(Graph, u64)>) {
    let middle = row.depth + row.prompt + row.answer / 2;
    let writing = rows(row.sequences, middle);
    let tokens = prompts * row.prompt;
    if !reading.mixes {
        for _ in 0..prompts {
            read(row, reading, true, passes);
        }
        passes.push((writing, row.answer));
        return;
    }
    // As many passes as the prompts need, or as there are: each carries an even share.
    let least = tokens.div_ceil(reading.chunk);
    let mixed = prompts.max(least).min(row.answer);
    for at in 0..mixed {
        let share = tokens * (at + 1) / mixed - tokens * at / mixed;
        let begun = prompts * (at + 1) / mixed - prompts * at / mixed;
        if share == 0 {
            passes.push((writing.clone(), 1));
            continue;
        }
        let mut graph = writing.clone();
        let parts = begun.max(1).min(share);
        for part in 0..parts {
            graph.chunks.push(Chunk {
                tokens: share * (part + 1) / parts - share * part / parts,
                // A prompt that takes several passes is half read on average.
                depth: if begun == 0 || mixed > prompts {
                    row.depth + row.prompt.saturating_sub(share) / 2
                } else {
                    row.depth
                },
                first: part < begun,
            });
        }
        passes.push((graph, 1));
    }
    if row.answer > mixed {
        passes.push((writing, row.answer - mixed));
    }
}
