//! What breaks prefixes, as habits of an agent and its template: the same trace as it would have been with them.
//!
//! A habit changes which content is the same, and nothing else: lengths, answers and waits stay as recorded, except that
//! prompts are longer or shorter by the reasoning that `agent.reasoning` sends or does not. What a conversation had
//! computed and can no longer reach counts as content that it had before at another place, so its cost shows as
//! `reread_broken`; what a lifetime ended had been stored and was lost, so that shows as `reread_evicted`.
//!
//! - `agent.timestamp=system` or `system:TOKENS`: the system prompt carries the time of each call, at its very start or
//!   after that many tokens; nothing from there on is common to any two calls of a run.
//! - `agent.rerender=tool-calls`: an answer that calls tools is not sent back as it was generated but written anew by the
//!   template, the same way in all later prompts: each is broken once, where it began. An answer counts as one that
//!   calls tools unless it is known to have ended a turn.
//! - `agent.tools=late:N`: the tool list, which stands before all else, changes before the main conversation's Nth call:
//!   that prompt has nothing in common with those before it. Sub-agents have tool lists of their own.
//! - `agent.reasoning=kept`, `dropped` or `turn`: the reasoning of earlier answers is sent again, never, or until a person
//!   speaks. The trace must say how much of its answers was reasoning.
//! - `agent.breakpoints=LIFETIME`: what is cached lives so long after its conversation last used it, as behind providers'
//!   cache breakpoints.
//! - `agent.prefix=kept`: nothing breaks a prefix. What a conversation had computed before at another place is found where
//!   it was; no other habit goes with it. This is what the breaks of a recording cost.

mod reasoning;

use crate::catalog::suggest::{question, suggest};
use crate::ids::NodeId;
use crate::trace::content::{Content, ContentBuilder, ContentError, ROOT};
use crate::trace::{Ending, Step, Trace, note_what_was_seen};
use crate::units::{Span, Tokens};
pub use reasoning::Reasoning;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a habit cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HabitError {
    /// There is no habit of that name.
    #[error("unknown setting `{key}`{hint}")]
    Unknown {
        /// What was asked for.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// The habit has no such form.
    #[error("`{key}={value}` is not known; expected {expected}")]
    Value {
        /// The habit.
        key: String,
        /// What was asked for.
        value: String,
        /// What there is.
        expected: &'static str,
    },
    /// The trace does not say how much of its answers was reasoning.
    #[error(
        "`agent.reasoning` needs to know how much of every answer was reasoning, and {unknown} of {all} answers that a \
         prompt follows do not say, the first in session `{session}`; give `output.reasoning` in the trace, or leave \
         the setting out"
    )]
    Reasoning {
        /// Answers that do not say.
        unknown: u64,
        /// Answers that a prompt follows.
        all: u64,
        /// Where the first of them is.
        session: String,
    },
    /// The changed trace is too large.
    #[error("with these `agent.` settings the trace has {0}")]
    Content(#[from] ContentError),
}

/// How the name of every habit begins.
pub const PREFIX: &str = "agent.";

const TIMESTAMP: &str = "agent.timestamp";
const RERENDER: &str = "agent.rerender";
const TOOLS: &str = "agent.tools";
const KEPT: &str = "agent.prefix";
const REASONING: &str = "agent.reasoning";
const BREAKPOINTS: &str = "agent.breakpoints";

/// Habits that break prefixes; by default there are none beyond what was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Habits {
    /// After how many tokens each prompt carries the time of its call.
    pub timestamp: Option<Tokens>,
    /// Whether answers that call tools are written anew when they are sent back.
    pub rerender: bool,
    /// Before which of the main conversation's calls, counted from 1, the tool list changes.
    pub late_tools: Option<u64>,
    /// Whether nothing breaks a prefix, not even what did when it was recorded.
    pub kept: bool,
    /// What becomes of earlier reasoning, where that is not what was recorded.
    pub reasoning: Option<Reasoning>,
    /// How long what is cached lives after its last use.
    pub breakpoints: Option<Span>,
}

impl Habits {
    /// Reads the settings whose keys begin with [`PREFIX`]; the last of a key holds.
    pub fn parse(settings: &[(String, String)]) -> Result<Habits, HabitError> {
        let mut habits = Habits::default();
        for (key, value) in settings {
            let wrong = |expected| HabitError::Value {
                key: key.clone(),
                value: value.clone(),
                expected,
            };
            match key.as_str() {
                TIMESTAMP => {
                    let expected = "none, system, or system:TOKENS";
                    habits.timestamp = match value.as_str() {
                        "none" => None,
                        "system" => Some(Tokens::ZERO),
                        other => Some(Tokens(
                            numbered(other, "system:").ok_or_else(|| wrong(expected))?,
                        )),
                    };
                }
                RERENDER => {
                    habits.rerender = match value.as_str() {
                        "none" => false,
                        "tool-calls" => true,
                        _ => return Err(wrong("none or tool-calls")),
                    };
                }
                TOOLS => {
                    let expected = "recorded, or late:N with N of at least 2";
                    habits.late_tools = match value.as_str() {
                        "recorded" => None,
                        other => Some(
                            numbered(other, "late:")
                                .filter(|&call| call >= 2)
                                .ok_or_else(|| wrong(expected))?,
                        ),
                    };
                }
                KEPT => {
                    habits.kept = match value.as_str() {
                        "recorded" => false,
                        "kept" => true,
                        _ => return Err(wrong("recorded or kept")),
                    };
                }
                REASONING => {
                    let named = |one: &Reasoning| one.word() == value;
                    habits.reasoning = match value.as_str() {
                        "recorded" => None,
                        _ => Some(
                            Reasoning::ALL
                                .into_iter()
                                .find(named)
                                .ok_or_else(|| wrong("recorded, kept, dropped or turn"))?,
                        ),
                    };
                }
                BREAKPOINTS => {
                    let expected = "none, or how long what is cached lives: 5m, 1h";
                    habits.breakpoints = match value.as_str() {
                        "none" => None,
                        other => Some(
                            Span::parse(other)
                                .ok()
                                .filter(|&lifetime| lifetime > Span::ZERO)
                                .ok_or_else(|| wrong(expected))?,
                        ),
                    };
                }
                _ => {
                    return Err(HabitError::Unknown {
                        key: key.clone(),
                        hint: question(&suggest(
                            key,
                            [TIMESTAMP, RERENDER, TOOLS, KEPT, REASONING, BREAKPOINTS],
                        )),
                    });
                }
            }
        }
        habits.agreeing()
    }

    /// Returns the habits, unless one rules out another.
    fn agreeing(self) -> Result<Habits, HabitError> {
        let habits = self;
        let only = Habits {
            kept: true,
            ..Habits::default()
        };
        if habits.kept && habits != only {
            let (key, value) = (KEPT.to_string(), "kept".to_string());
            let expected = "no other `agent.` setting beside it";
            return Err(HabitError::Value {
                key,
                value,
                expected,
            });
        }
        Ok(habits)
    }

    /// Returns the settings that differ from what was recorded.
    pub fn settings(&self) -> BTreeMap<String, String> {
        let timestamp = self.timestamp.map(|at| format!("system:{}", at.0));
        let rerender = self.rerender.then(|| "tool-calls".to_string());
        let tools = self.late_tools.map(|call| format!("late:{call}"));
        let kept = self.kept.then(|| "kept".to_string());
        let reasoning = self.reasoning.map(|how| how.word().to_string());
        let breakpoints = self.breakpoints.map(|lifetime| lifetime.to_string());
        let all = [
            (TIMESTAMP, timestamp),
            (RERENDER, rerender),
            (TOOLS, tools),
            (KEPT, kept),
            (REASONING, reasoning),
            (BREAKPOINTS, breakpoints),
        ];
        all.into_iter()
            .filter_map(|(key, value)| Some((key.to_string(), value?)))
            .collect()
    }

    /// Returns the trace as it would have been with these habits.
    pub fn applied(&self, mut trace: Trace) -> Result<Trace, HabitError> {
        if let Some(how) = self.reasoning {
            trace = reasoning::applied(how, trace)?;
        }
        let others = Habits {
            reasoning: None,
            breakpoints: None,
            ..*self
        };
        if others == Habits::default() {
            return Ok(trace);
        }
        let old = Arc::clone(&trace.content);
        let mut writer = Writer {
            old: &old,
            new: ContentBuilder::default(),
            copies: FxHashMap::default(),
        };
        for session in &mut trace.sessions {
            for (thread, conversation) in session.threads.iter_mut().enumerate() {
                let mut last = None;
                for (place, step) in conversation.steps.iter_mut().enumerate() {
                    let late = self.late_tools.filter(|_| thread == 0);
                    let tools = u32::from(late.is_some_and(|call| place as u64 + 1 >= call));
                    match last.filter(|_| self.kept) {
                        Some(tip) => writer.keep(step, tip)?,
                        None => self.rewrite(step, tools, &mut writer)?,
                    }
                    last = Some(step.output);
                }
            }
        }
        let content = writer.new.finish();
        for thread in trace.sessions.iter_mut().flat_map(|one| &mut one.threads) {
            let had: Vec<(Tokens, Tokens)> = thread
                .steps
                .iter()
                .map(|step| (step.seen, step.again))
                .collect();
            note_what_was_seen(&content, &mut thread.steps);
            for (step, (seen, again)) in thread.steps.iter_mut().zip(had) {
                let elsewhere = (seen + again).saturating_sub(step.seen);
                step.again = elsewhere.min(step.prompt_tokens - step.seen);
            }
        }
        trace.content = content.into();
        Ok(trace)
    }

    /// Gives a step its place in the new tree, with the first or the second tool list.
    fn rewrite(&self, step: &mut Step, tools: u32, to: &mut Writer<'_>) -> Result<(), HabitError> {
        let (prompt, own) = match self.timestamp {
            Some(at) => {
                let before = to.beginning(step.prompt, at, tools)?;
                let rest = step.prompt_tokens - to.new.end(before);
                (to.new.opaque(before, rest)?, true)
            }
            None => (to.copy(step.prompt, tools)?, false),
        };
        let anew = self.rerender && step.gap.after != Ending::EndOfTurn;
        step.output = if own || anew {
            to.new.opaque(prompt, step.output_tokens)?
        } else {
            to.copy(step.output, tools)?
        };
        step.prompt = prompt;
        Ok(())
    }
}

/// Reads the number behind a word.
fn numbered(text: &str, word: &str) -> Option<u64> {
    text.strip_prefix(word)?.parse().ok()
}

/// Copies parts of one tree to another.
struct Writer<'c> {
    old: &'c Content,
    new: ContentBuilder,
    /// Where nodes of the old tree stand in the new one, behind the first or the second tool list.
    copies: FxHashMap<(NodeId, u32), NodeId>,
}

impl Writer<'_> {
    /// Lets a prompt begin with as much of the conversation so far, which ends at `tip`, as it had computed before.
    fn keep(&mut self, step: &mut Step, tip: NodeId) -> Result<(), ContentError> {
        let computed = step.seen + step.again;
        let len = computed.min(self.new.end(tip)).min(step.prompt_tokens);
        let begin = if len == Tokens::ZERO {
            ROOT
        } else {
            self.new.cut(tip, len)?
        };
        let rest = step.prompt_tokens - len;
        step.prompt = self.new.opaque(begin, rest)?;
        step.output = self.new.opaque(step.prompt, step.output_tokens)?;
        Ok(())
    }

    fn copy(&mut self, tip: NodeId, tools: u32) -> Result<NodeId, ContentError> {
        let mut missing = Vec::new();
        let mut at = ROOT;
        for node in self.old.upwards(tip) {
            if let Some(&copy) = self.copies.get(&(node, tools)) {
                at = copy;
                break;
            }
            missing.push(node);
        }
        for node in missing.into_iter().rev() {
            let len = self.old.end(node) - self.old.start(node);
            at = self.new.opaque(at, len)?;
            if self.old.is_head(node) {
                self.new.mark_head(at);
            }
            self.copies.insert((node, tools), at);
        }
        Ok(at)
    }

    /// Copies the first `len` tokens of the path to `tip`, or all of it where there are fewer.
    fn beginning(&mut self, tip: NodeId, len: Tokens, tools: u32) -> Result<NodeId, ContentError> {
        let Some(last) = self
            .old
            .upwards(tip)
            .find(|&node| self.old.start(node) < len)
        else {
            return Ok(ROOT);
        };
        let copy = self.copy(last, tools)?;
        let len = len.min(self.old.end(last));
        self.new.cut(copy, len)
    }
}
