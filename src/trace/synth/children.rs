//! What the sub-agents of given sessions are like, as far as their parents wait for them.

use super::fit::Follow;
use super::preset::{Agents, HeadPart};
use super::row::Row;
use crate::trace::content::{Content, ROOT};
use crate::trace::{Ending, Session, Thread};

/// Values of sub-agents, gathered session by session.
#[derive(Default)]
pub(super) struct Children {
    sessions: f64,
    with: f64,
    /// Requests of all sessions after which some could start, and after which some did.
    chances: f64,
    launches: f64,
    group: Vec<f64>,
    turns: Vec<f64>,
    first: Vec<f64>,
    heads: Vec<f64>,
    task: Vec<f64>,
    output: Vec<f64>,
    report: Vec<f64>,
    resume: Vec<f64>,
    follow: Follow,
}

impl Children {
    pub(super) fn session(&mut self, content: &Content, session: &Session) {
        self.sessions += 1.0;
        let Some((main, _)) = session.threads.split_first() else {
            return;
        };
        let tools = main.steps.iter();
        self.chances += tools
            .filter(|step| step.gap.after == Ending::ToolCall)
            .count() as f64;
        let joined = |step: &crate::trace::Step| -> Vec<u32> {
            let spawned = step.gap.spawns.iter().map(|spawn| spawn.thread);
            spawned
                .filter(|child| step.gap.joins.contains(child))
                .collect()
        };
        if main.steps.iter().all(|step| joined(step).is_empty()) {
            return;
        }
        self.with += 1.0;
        let mut before: Option<&Thread> = None;
        for step in &main.steps {
            let group = joined(step);
            if group.is_empty() {
                continue;
            }
            self.launches += 1.0;
            self.group.push(group.len() as f64);
            self.resume
                .push((step.gap.unknown + step.gap.tool + step.gap.client).secs());
            for child in group {
                let child = &session.threads[child as usize];
                self.child(content, child, before);
                before = Some(child);
            }
        }
    }

    fn child(&mut self, content: &Content, child: &Thread, before: Option<&Thread>) {
        let first = &child.steps[0];
        self.turns.push(child.steps.len() as f64);
        self.first.push(first.prompt_tokens.as_f64());
        let head = content.upwards(first.prompt);
        let head = head.into_iter().find(|&node| content.is_head(node));
        self.heads.push(content.end(head.unwrap_or(ROOT)).as_f64());
        if let Some(before) = before {
            let shared = content.meeting(before.steps[0].prompt, first.prompt);
            self.task
                .push((first.prompt_tokens - content.end(shared)).as_f64());
        }
        let (last, others) = child.steps.split_last().expect("a thread has steps");
        self.report.push(last.output_tokens.as_f64());
        self.output
            .extend(others.iter().map(|step| step.output_tokens.as_f64()));
        for pair in child.steps.windows(2) {
            let new = pair[1].prompt_tokens.as_f64() - pair[0].prompt_tokens.as_f64();
            if new > 0.0 {
                self.follow.new.push(new);
            }
            self.follow.waits(&pair[0].gap);
        }
    }

    /// Returns what they are like; nothing where there are none.
    pub(super) fn agents(mut self, said: &str) -> Option<Agents> {
        let said = format!("{said}; {} sub-agents", self.turns.len());
        let row = |values: Vec<f64>| Row::of(&said, values);
        // An only child shares with nobody: what it is asked is what no other would be.
        let alone = self.first.clone();
        let head = row(self.heads).map(|tokens| HeadPart {
            kind: "system".to_string(),
            tokens,
            versions: 1,
        });
        let report = row(self.report)?;
        let with = self.with / self.sessions;
        if self.follow.new.is_empty() {
            // Who answers at once goes on in no way; any will do.
            self.follow.new.push(1.0);
        }
        Some(Agents {
            sessions: with,
            // Sessions drawn with any are as long as all others, so that much likelier it is that one starts some.
            chance: (self.launches / (self.chances * with).max(1.0)).min(1.0),
            kind: "sub-agent".to_string(),
            group: row(self.group)?,
            turns: row(self.turns)?,
            first: row(self.first)?,
            head: head.into_iter().collect(),
            task: row(self.task).or_else(|| row(alone))?,
            turn: self.follow.turn(&said)?,
            output: row(self.output).unwrap_or_else(|| report.clone()),
            report,
            resume: row(self.resume)?,
            source: said,
        })
    }
}
