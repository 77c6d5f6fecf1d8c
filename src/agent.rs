//! One run of a session: the closed loop as a state machine.
//!
//! An agent is told what happened and when ([`Input`]) and says what it needs next ([`Need`]): a call to the model, or
//! to be woken at some moment. Each of its conversations has at most one need outstanding. It knows no clock, no socket
//! and no hardware, so the simulator and the live client drive the very same one.

mod conduct;

use crate::call::Outcome;
use crate::event::{GapParts, RunOutcome};
use crate::trace::{Join, Session, Spawn};
use crate::units::{Span, Time, Tokens};
pub use conduct::{Conduct, History, OnRefusal, Pace, Retries};

/// What an agent is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The run begins.
    Start,
    /// The moment a conversation asked for has come.
    Wake {
        /// Which conversation.
        thread: u32,
    },
    /// A conversation's call has ended.
    Answer {
        /// Which conversation.
        thread: u32,
        /// How.
        outcome: Outcome,
        /// How long the answer became.
        output: Tokens,
        /// How long the engine asked to be left alone before the call is made again.
        retry_after: Option<Span>,
    },
}

/// What an agent needs, or has to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A conversation calls the model.
    Call {
        /// Which conversation.
        thread: u32,
        /// Which of its recorded steps.
        step: u32,
        /// Its lap.
        lap: u32,
        /// How much of the prompt at most the engine can have seen: calls that failed left nothing.
        seen_limit: Tokens,
        /// How much of that at most it has computed.
        computed_limit: Tokens,
        /// For the first call of a sub-agent: the conversation and the step after which it was started.
        parent: Option<(u32, u32)>,
    },
    /// A conversation wants to be woken.
    Wake {
        /// Which conversation.
        thread: u32,
        /// When.
        at: Time,
    },
    /// A conversation's lap has ended.
    LapEnded {
        /// Which conversation.
        thread: u32,
        /// Its lap.
        lap: u32,
        /// Where the time since the answer went.
        gap: GapParts,
        /// What the idle cap cut off.
        cut: Span,
    },
    /// The run has ended.
    RunEnded {
        /// How.
        outcome: RunOutcome,
    },
}

/// Where a conversation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not started; a sub-agent waits for its parent's step.
    Asleep,
    /// Due to be started.
    Starting,
    /// A call is out.
    Calling,
    /// Its call failed for now and will be made again.
    Retrying { since: Time },
    /// Children must end first.
    Joining { since: Time },
    /// A gap passes.
    Waiting {
        since: Time,
        parts: GapParts,
        cut: Span,
    },
    /// Nothing more to do.
    Ended,
}

/// One conversation of the run.
#[derive(Clone, Debug)]
struct Conversation {
    phase: Phase,
    /// The next step to call, or the one being called.
    step: u32,
    lap: u32,
    attempts: u32,
    /// Pauses before retries in this lap.
    retried: Span,
    /// How far the engine can have got: the longest prompt and answer that succeeded.
    reached: Tokens,
    /// The same without an answer's last token, whose state no engine computes.
    computed: Tokens,
    /// The conversation and the step after which it was started.
    parent: Option<(u32, u32)>,
}

/// One run of a session.
#[derive(Clone, Debug)]
pub struct Agent {
    conversations: Vec<Conversation>,
    stopped: bool,
    ended: bool,
}

impl Agent {
    /// Returns a run of `session` that has not begun.
    pub fn new(session: &Session) -> Agent {
        let asleep = Conversation {
            phase: Phase::Asleep,
            step: 0,
            lap: 0,
            attempts: 0,
            retried: Span::ZERO,
            reached: Tokens::ZERO,
            computed: Tokens::ZERO,
            parent: None,
        };
        Agent {
            conversations: vec![asleep; session.threads.len()],
            stopped: false,
            ended: false,
        }
    }

    /// Returns whether no conversation has anything outstanding, detached ones included.
    pub fn idle(&self) -> bool {
        self.conversations
            .iter()
            .all(|one| matches!(one.phase, Phase::Asleep | Phase::Ended))
    }

    /// Takes in what happened at `now` and appends what the run needs now.
    pub fn step(
        &mut self,
        session: &Session,
        conduct: &Conduct,
        now: Time,
        input: Input,
        needs: &mut Vec<Need>,
    ) {
        match input {
            Input::Start => {
                assert_eq!(
                    self.conversations[0].phase,
                    Phase::Asleep,
                    "a run starts once"
                );
                self.conversations[0].phase = Phase::Starting;
                needs.push(Need::Wake { thread: 0, at: now });
            }
            Input::Wake { thread } => {
                self.woken(session, now, thread, needs);
                if self.conversations[thread as usize].phase == Phase::Ended {
                    // Parents that waited for this child go on.
                    for parent in 0..self.conversations.len() as u32 {
                        self.pass_gap(session, conduct, now, parent, needs);
                    }
                }
            }
            Input::Answer {
                thread,
                outcome,
                output,
                retry_after,
            } => {
                if !self.again(conduct, now, thread, (outcome, retry_after), needs) {
                    self.answered(session, conduct, now, thread, (outcome, output), needs);
                }
            }
        }
        self.note_end(session, needs);
    }

    /// The moment a conversation asked for has come: it calls, or it has ended.
    fn woken(&mut self, session: &Session, now: Time, thread: u32, needs: &mut Vec<Need>) {
        let steps = session.threads[thread as usize].steps.len() as u32;
        let stopped = self.stopped;
        let one = &mut self.conversations[thread as usize];
        match one.phase {
            Phase::Starting => {}
            Phase::Retrying { since } => one.retried += now - since,
            Phase::Waiting { since, parts, cut } => {
                let mut gap = parts;
                // A driver in real time may wake late; being late is the client's doing.
                gap.client +=
                    (now - since).saturating_sub(parts.total() - parts.subagent) + one.retried;
                needs.push(Need::LapEnded {
                    thread,
                    lap: one.lap,
                    gap,
                    cut,
                });
                one.retried = Span::ZERO;
                one.lap += 1;
                one.step += 1;
                if one.step == steps || stopped {
                    one.phase = Phase::Ended;
                    return;
                }
            }
            // The run stopped before the moment came.
            Phase::Ended if stopped => return,
            Phase::Asleep | Phase::Calling | Phase::Joining { .. } | Phase::Ended => {
                unreachable!("thread {thread} was woken while {:?}", one.phase)
            }
        }
        one.phase = Phase::Calling;
        let first = one.step == 0 && one.attempts == 0;
        needs.push(Need::Call {
            thread,
            step: one.step,
            lap: one.lap,
            seen_limit: one.reached,
            computed_limit: one.computed,
            parent: one.parent.filter(|_| first),
        });
    }

    /// Returns whether a call that failed for now is made again, and sees to it.
    fn again(
        &mut self,
        conduct: &Conduct,
        now: Time,
        thread: u32,
        (outcome, retry_after): (Outcome, Option<Span>),
        needs: &mut Vec<Need>,
    ) -> bool {
        let one = &mut self.conversations[thread as usize];
        let again = outcome.passing() && one.attempts < conduct.retries.limit;
        if !again || self.stopped {
            return false;
        }
        let own = Span(conduct.retries.pause.0 << one.attempts.min(16));
        let asked = retry_after.unwrap_or_default().min(conduct.retries.longest);
        one.attempts += 1;
        one.phase = Phase::Retrying { since: now };
        needs.push(Need::Wake {
            thread,
            at: now + own.max(asked),
        });
        true
    }

    /// A call has ended, and its gap begins.
    fn answered(
        &mut self,
        session: &Session,
        conduct: &Conduct,
        now: Time,
        thread: u32,
        (outcome, output): (Outcome, Tokens),
        needs: &mut Vec<Need>,
    ) {
        let one = &mut self.conversations[thread as usize];
        assert_eq!(
            one.phase,
            Phase::Calling,
            "thread {thread} got an answer it did not ask for"
        );
        one.attempts = 0;
        let step = &session.threads[thread as usize].steps[one.step as usize];
        let stops = outcome.failed() && conduct.on_refusal == OnRefusal::Stop;
        if !outcome.failed() {
            // An answer that the next prompt does not carry, or not all of, is not seen again.
            let said = match conduct.history {
                History::Said => output.min(step.output_tokens),
                History::Recorded => Tokens::ZERO,
            };
            one.reached = one.reached.max(step.prompt_tokens + said);
            let computed = step.prompt_tokens + said.saturating_sub(Tokens(1));
            one.computed = one.computed.max(computed);
        }
        let at = one.step;
        self.conversations[thread as usize].phase = Phase::Joining { since: now };
        if stops && !self.stopped {
            self.stop(now, needs);
            for parent in 0..self.conversations.len() as u32 {
                self.pass_gap(session, conduct, now, parent, needs);
            }
            return;
        }
        if !self.stopped {
            for spawn in &step.gap.spawns {
                let child = &mut self.conversations[spawn.thread as usize];
                assert_eq!(child.phase, Phase::Asleep, "a child starts once");
                child.phase = Phase::Starting;
                child.parent = Some((thread, at));
                let (offset, _) = conduct.offset(spawn);
                needs.push(Need::Wake {
                    thread: spawn.thread,
                    at: now + offset,
                });
            }
        }
        self.pass_gap(session, conduct, now, thread, needs);
    }

    /// Ends every conversation that waits for a moment to come; calls that are out are waited for.
    fn stop(&mut self, now: Time, needs: &mut Vec<Need>) {
        self.stopped = true;
        for (thread, one) in self.conversations.iter_mut().enumerate() {
            let (mut gap, cut) = match one.phase {
                Phase::Starting => {
                    one.phase = Phase::Ended;
                    continue;
                }
                Phase::Retrying { since } => {
                    one.retried += now - since;
                    (GapParts::default(), Span::ZERO)
                }
                Phase::Waiting { since, parts, cut } => (passed(&parts, now - since), cut),
                Phase::Asleep | Phase::Calling | Phase::Joining { .. } | Phase::Ended => continue,
            };
            gap.client += one.retried;
            one.phase = Phase::Ended;
            needs.push(Need::LapEnded {
                thread: thread as u32,
                lap: one.lap,
                gap,
                cut,
            });
        }
    }

    /// Lets the gap pass once no joined child is left to wait for.
    fn pass_gap(
        &mut self,
        session: &Session,
        conduct: &Conduct,
        now: Time,
        thread: u32,
        needs: &mut Vec<Need>,
    ) {
        let one = &self.conversations[thread as usize];
        let Phase::Joining { since } = one.phase else {
            return;
        };
        let gap = &session.threads[thread as usize].steps[one.step as usize].gap;
        let under_way = |child: u32| {
            !matches!(
                self.conversations[child as usize].phase,
                Phase::Ended | Phase::Asleep
            )
        };
        let blocks = |spawn: &Spawn| blocks(session, thread, spawn.thread);
        let children = gap.spawns.iter().filter(|spawn| blocks(spawn));
        let children = children.map(|spawn| spawn.thread);
        if gap.joins.iter().copied().chain(children).any(under_way) {
            return;
        }
        let (mut parts, cut) = if self.stopped {
            Default::default()
        } else {
            conduct.waits(gap)
        };
        needs.push(Need::Wake {
            thread,
            at: now + parts.total(),
        });
        parts.subagent = now - since;
        self.conversations[thread as usize].phase = Phase::Waiting {
            since: now,
            parts,
            cut,
        };
    }

    fn note_end(&mut self, session: &Session, needs: &mut Vec<Need>) {
        if self.ended || self.conversations[0].phase != Phase::Ended {
            return;
        }
        let waited_for = |(index, one): (usize, &Conversation)| {
            session.threads[index].join != Join::Detached
                && !matches!(one.phase, Phase::Asleep | Phase::Ended)
        };
        if !self.conversations.iter().enumerate().any(waited_for) {
            self.ended = true;
            let outcome = if self.stopped {
                RunOutcome::Stopped
            } else {
                RunOutcome::Completed
            };
            needs.push(Need::RunEnded { outcome });
        }
    }
}

/// Returns what has passed of a gap `elapsed` after its children had ended: tools come first, people last.
fn passed(gap: &GapParts, elapsed: Span) -> GapParts {
    let mut left = elapsed;
    let mut take = |part: Span| {
        let taken = part.min(left);
        left = left.saturating_sub(taken);
        taken
    };
    let (tool, client, wait) = (take(gap.tool), take(gap.client), take(gap.wait));
    GapParts {
        client: client + left,
        tool,
        wait,
        subagent: gap.subagent,
    }
}

/// Returns whether `parent` stands still from the start of `child` to its end: a blocking child that no step of its
/// parent names as joined.
fn blocks(session: &Session, parent: u32, child: u32) -> bool {
    let joined = || {
        let mut steps = session.threads[parent as usize].steps.iter();
        steps.any(|step| step.gap.joins.contains(&child))
    };
    session.threads[child as usize].join == Join::Blocking && !joined()
}
