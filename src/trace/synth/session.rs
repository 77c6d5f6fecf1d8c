//! One session: turns that append, waits by cause, breaks by chance, a full context, sub-agents.

use super::preset::{Agents, HeadPart, Kind, ModelTime, Turn};
use super::row::{Row, Session, Walk, normal, score};
use super::{child_name, head_segment};
use crate::rng::Stream;
use crate::trace::record::{
    AgentRecord, GapRecord, OutputRecord, Piece, PromptEdit, Record, Segment, SessionRecord,
    StepRecord, TimingRecord,
};
use rand::RngExt;

/// The largest prompt, whatever was drawn: what the format allows with its answer.
const LARGEST: u64 = 4_000_000_000;

/// Makes one session.
pub(super) struct Maker<'a> {
    kind: &'a Kind,
    stream: &'a mut Stream,
    id: String,
    version: u32,
    /// The prompt at which the context is full.
    full: f64,
    with_agents: bool,
    session: Session,
    /// What is taken from all scores, so that those of all requests together are as drawn.
    centre: Centre,
    output: Walk,
    growth: Walk,
    wait: Walk,
    siblings: Option<Siblings>,
    /// Microseconds since the session began.
    clock_us: u64,
}

/// A prompt, the answer before it and what becomes of both.
struct Thread {
    agent: Option<String>,
    prompt: u64,
    edit: PromptEdit,
    joins: Vec<String>,
}

/// A wait by cause, in seconds.
#[derive(Clone, Copy, Default)]
struct Wait {
    tool: f64,
    client: f64,
    human: f64,
    unknown: f64,
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        kind: &'a Kind,
        index: u64,
        session: Session,
        stream: &'a mut Stream,
    ) -> Maker<'a> {
        let full = match &kind.compaction {
            Some(of) if session.large < of.large => of.large_full,
            Some(of) => of.full.quantile(session.full),
            None => LARGEST as f64,
        };
        let agents = kind.agents.as_ref();
        Maker {
            kind,
            id: format!("{}-{}", kind.name, index + 1),
            version: stream.random_range(0..1_000_000),
            full,
            with_agents: agents.is_some_and(|agents| session.agents < agents.sessions),
            session,
            centre: Centre::new(kind),
            output: Walk::new(session.output, stream),
            growth: Walk::new(session.growth, stream),
            wait: Walk::new(session.wait, stream),
            siblings: None,
            clock_us: 0,
            stream,
        }
    }

    /// Hands over the records of the session in their order.
    pub(super) fn make(mut self, put: &mut dyn FnMut(Record)) {
        let kind = self.kind;
        put(Record::Session(Box::new(SessionRecord {
            id: self.id.clone(),
            resumed: kind.resumed,
            model: kind.model.clone(),
            ..SessionRecord::default()
        })));
        let turns = self.turns();
        let first = whole(kind.first.quantile(self.session.first)).clamp(1, LARGEST);
        if first as f64 >= self.full
            && let Some(of) = &kind.compaction
        {
            // Who begins beyond the usual window has a larger one.
            self.full = of.large_full;
        }
        let mut main = Thread {
            agent: None,
            prompt: first,
            edit: self.beginning(&kind.name, &kind.head, first, &[]),
            joins: Vec::new(),
        };
        let mut left = self.run();
        let window = kind.window.unwrap_or(LARGEST);
        for turn in 1..=turns {
            left = left.saturating_sub(1);
            let (answer_z, growth_z) = self.scores(turn);
            let answer = whole(kind.output.place(answer_z)).max(1);
            let last = turn == turns || main.prompt + answer >= window;
            let handed_back = left == 0 || last;
            if left == 0 {
                left = self.run();
            }
            let id = turn.to_string();
            let how = match &kind.user_turn {
                Some(user) if handed_back => user,
                _ => &kind.tool_turn,
            };
            let wait_z = self
                .wait
                .next(self.stream, kind.alike.session, kind.alike.before);
            let mut wait = waited(how, wait_z, self.stream);
            let (next, slow) = self.next_edit(how, main.prompt, answer, growth_z, wait);
            if let Some(secs) = slow {
                wait = Wait {
                    unknown: secs,
                    ..Wait::default()
                };
            }
            let agents = kind
                .agents
                .as_ref()
                .filter(|_| self.with_agents && !handed_back);
            let started = agents.filter(|agents| self.stream.random::<f64>() < agents.chance);
            if let Some(agents) = started {
                wait = Wait {
                    unknown: agents.resume.draw(self.stream),
                    ..Wait::default()
                };
            }
            let after = (!last).then_some(wait);
            self.step(&mut main, &id, answer, after, handed_back, put);
            if last {
                break;
            }
            main.edit = next;
            if let Some(agents) = started {
                let reports = self.children(agents, &id, &mut main, put);
                // The reports are what is new, and the answer stays.
                let kept = main.prompt + answer;
                main.edit = append(kept, reports);
            }
            self.clock_us += micros(wait.sum());
            main.prompt = main.edit.tokens;
        }
    }

    /// Returns how many requests there are: sessions whose prompts grow fast, or begin large, end sooner.
    fn turns(&mut self) -> u64 {
        let alike = &self.kind.alike;
        let (growth, first) = (alike.growth_and_turns, alike.first_and_turns);
        let own = (1.0 - growth * growth - first * first).max(0.0).sqrt();
        let z = growth * alike.growth(self.output.session(), self.growth.session())
            + first * score(self.session.first)
            + own * score(self.session.turns);
        whole(self.kind.turns.place(z)).max(1)
    }

    /// Returns how many requests a person's next message takes.
    fn run(&mut self) -> u64 {
        let drawn = self
            .kind
            .run
            .as_ref()
            .map(|run| whole(run.draw(self.stream)).max(1));
        drawn.unwrap_or(u64::MAX)
    }

    /// Returns the scores of an answer and of how the prompt grows, which depend on each other.
    fn scores(&mut self, turn: u64) -> (f64, f64) {
        let alike = &self.kind.alike;
        let answer = self.output.next(self.stream, alike.session, alike.before);
        let own = self.growth.next(self.stream, alike.session, alike.before);
        let early = self.kind.early.as_ref();
        let more = early.filter(|early| turn <= early.requests);
        (
            answer - self.centre.answer,
            alike.growth(answer, own) + more.map_or(0.0, |early| early.more) - self.centre.growth,
        )
    }

    /// Returns the first prompt: the head's version that fits, pieces, and the rest.
    fn beginning(
        &mut self,
        owner: &str,
        head: &[HeadPart],
        tokens: u64,
        pieces: &[(String, u64)],
    ) -> PromptEdit {
        let shared: u64 = pieces.iter().map(|(_, tokens)| tokens).sum();
        let versions = head
            .iter()
            .map(|part| part.versions.max(1))
            .max()
            .unwrap_or(1);
        let drawn = self.version % versions;
        let sizes = |version: u32| {
            head.iter()
                .map(move |part| head_segment(owner, part, version))
        };
        let fits =
            |version: &u32| sizes(*version).map(|(_, size)| size).sum::<u64>() + shared < tokens;
        let version = (0..=drawn).rev().find(fits);
        let mut append: Vec<Piece> = Vec::new();
        let mut filled = 0;
        let heads = version.into_iter().flat_map(sizes);
        for (id, size) in heads.chain(pieces.iter().cloned()) {
            if filled + size < tokens {
                filled += size;
                append.push(Piece {
                    seg: Some(id),
                    ..Piece::default()
                });
            }
        }
        append.push(Piece {
            tokens: Some(tokens - filled),
            ..Piece::default()
        });
        PromptEdit {
            tokens,
            append,
            ..PromptEdit::default()
        }
    }

    /// Returns the next prompt, and a wait that what happened brings with it.
    fn next_edit(
        &mut self,
        how: &Turn,
        prompt: u64,
        answer: u64,
        growth_z: f64,
        wait: Wait,
    ) -> (PromptEdit, Option<f64>) {
        let new = whole(how.new.place(growth_z)).max(1);
        if let Some(of) = &self.kind.compaction
            && (prompt + answer) as f64 >= self.full
        {
            let kept = whole(of.kept.draw(self.stream)).min(prompt);
            let size = (prompt as f64 * of.size.draw(self.stream)) as u64;
            let edit = broken("compaction", kept, size.max(kept + 1), 0);
            return (edit, Some(of.wait.draw(self.stream)));
        }
        let secs = wait.sum();
        let often = self.kind.alike.breaks;
        let often = libm::exp(often * score(self.session.breaks) - 0.5 * often * often);
        for of in &self.kind.breaks {
            let chance = of
                .chance
                .iter()
                .find(|(below, _)| secs < *below)
                .map_or(0.0, |found| found.1);
            if self.stream.random::<f64>() >= chance * often {
                continue;
            }
            let kept = match (&of.kept, &of.lost) {
                (Some(kept), _) => whole(kept.place(normal(self.stream))),
                (None, Some(lost)) => prompt.saturating_sub(whole(lost.draw(self.stream)).max(1)),
                (None, None) => 0,
            };
            let kept = kept.min(prompt.saturating_sub(1));
            let grown = match &of.size {
                Some(size) => (prompt as f64 * size.draw(self.stream)) as u64,
                None => prompt + new,
            };
            let most = (self.full as u64).max(prompt).min(LARGEST);
            let size = grown.min(most).max(kept + 1);
            let again = if of.again {
                (prompt - kept).min(size - kept)
            } else {
                0
            };
            return (broken(&of.name, kept, size, again), None);
        }
        // What is new beyond the prompt holds the answer, where that stays.
        if new > answer {
            (append(prompt + answer, new - answer), None)
        } else {
            (broken("reasoning-dropped", prompt, prompt + new, 0), None)
        }
    }

    /// Writes a request and moves the clock to the end of its answer.
    fn step(
        &mut self,
        thread: &mut Thread,
        id: &str,
        answer: u64,
        wait: Option<Wait>,
        handed_back: bool,
        put: &mut dyn FnMut(Record),
    ) {
        let model_us = self
            .kind
            .model_time
            .as_ref()
            .map(|time| micros(time.secs(thread.edit.tokens, answer, self.stream)));
        put(Record::Step(Box::new(StepRecord {
            id: id.to_string(),
            session: Some(self.id.clone()),
            agent: thread.agent.clone(),
            prompt: thread.edit.clone(),
            output: OutputRecord {
                tokens: answer,
                ..OutputRecord::default()
            },
            gap: wait.and_then(Wait::record),
            finish: Some(
                if handed_back {
                    "end-of-turn"
                } else {
                    "tool-call"
                }
                .to_string(),
            ),
            timing: model_us.map(|model_us| TimingRecord {
                sent_us: Some(self.clock_us),
                model_us: Some(model_us),
                how: Some("derived".to_string()),
                ..TimingRecord::default()
            }),
            joins: std::mem::take(&mut thread.joins),
            ..StepRecord::default()
        })));
        self.clock_us += model_us.unwrap_or(0);
    }

    /// Writes the conversations that a step starts; returns how long their reports are together.
    fn children(
        &mut self,
        agents: &Agents,
        parent_step: &str,
        main: &mut Thread,
        put: &mut dyn FnMut(Record),
    ) -> u64 {
        let siblings = match self.siblings.take() {
            Some(known) => known,
            None => self.first_children(agents, put),
        };
        let began_us = self.clock_us;
        let (mut ended_us, mut reports) = (began_us, 0);
        for number in 1..=whole(agents.group.draw(self.stream)).max(1) {
            let name = format!("{parent_step}.{number}");
            put(Record::Agent(Box::new(AgentRecord {
                id: name.clone(),
                session: self.id.clone(),
                spawn_step: Some(parent_step.to_string()),
                join: Some("blocking".to_string()),
                kind: Some(agents.kind.clone()),
                ..AgentRecord::default()
            })));
            self.clock_us = began_us;
            reports += self.child(agents, &name, &siblings, put);
            ended_us = ended_us.max(self.clock_us);
            main.joins.push(name);
        }
        self.clock_us = ended_us;
        self.siblings = Some(siblings);
        reports
    }

    /// Draws the beginning that the sub-agents of a session share, and writes what of it is the session's own.
    fn first_children(&mut self, agents: &Agents, put: &mut dyn FnMut(Record)) -> Siblings {
        let owner = child_name(&self.kind.name);
        let first = whole(agents.first.draw(self.stream)).max(2);
        let heads = agents
            .head
            .iter()
            .map(|part| head_segment(&owner, part, self.version).1);
        let task = whole(agents.task.draw(self.stream)).max(1);
        let own = first.saturating_sub(heads.sum::<u64>() + task);
        let project = (own > 0).then(|| (format!("{}/project", self.id), own));
        if let Some((id, tokens)) = &project {
            put(Record::Segment(Box::new(Segment {
                id: id.clone(),
                kind: "project-memory".to_string(),
                tokens: *tokens,
                ..Segment::default()
            })));
        }
        Siblings { first, project }
    }

    /// Writes one sub-agent; returns how long its report is.
    fn child(
        &mut self,
        agents: &Agents,
        name: &str,
        siblings: &Siblings,
        put: &mut dyn FnMut(Record),
    ) -> u64 {
        let owner = child_name(&self.kind.name);
        let pieces: Vec<(String, u64)> = siblings.project.iter().cloned().collect();
        let mut thread = Thread {
            agent: Some(name.to_string()),
            prompt: siblings.first,
            edit: self.beginning(&owner, &agents.head, siblings.first, &pieces),
            joins: Vec::new(),
        };
        let report = whole(agents.report.draw(self.stream)).max(1);
        let turns = whole(agents.turns.draw(self.stream)).max(1);
        for turn in 1..=turns {
            let last = turn == turns;
            let answer = if last {
                report
            } else {
                whole(agents.output.draw(self.stream)).max(1)
            };
            let wait = waited(&agents.turn, normal(self.stream), self.stream);
            self.step(
                &mut thread,
                &format!("{name}/{turn}"),
                answer,
                (!last).then_some(wait),
                last,
                put,
            );
            let new = whole(agents.turn.new.draw(self.stream));
            thread.edit = append(thread.prompt + answer, new.saturating_sub(answer).max(1));
            thread.prompt = thread.edit.tokens;
            if !last {
                self.clock_us += micros(wait.sum());
            }
        }
        report
    }
}

/// How much higher scores would be, over all requests, than those of the rows they are placed in.
struct Centre {
    answer: f64,
    growth: f64,
}

impl Centre {
    /// Sessions that grow slowly have more requests than others, and all of them have early ones.
    fn new(kind: &Kind) -> Centre {
        let alike = &kind.alike;
        let slow = alike.session.sqrt() * alike.growth_and_turns * kind.turns.mean_score();
        let early = kind.early.as_ref().map_or(0.0, |early| {
            let share = early.requests as f64 / kind.turns.mean();
            early.more * share.min(1.0)
        });
        Centre {
            answer: slow * alike.growth_and_output,
            growth: slow + early,
        }
    }
}

/// What the sub-agents of a session begin with.
struct Siblings {
    first: u64,
    project: Option<(String, u64)>,
}

impl Wait {
    fn sum(self) -> f64 {
        self.tool + self.client + self.human + self.unknown
    }

    fn record(self) -> Option<GapRecord> {
        let some = |secs: f64| (secs > 0.0).then(|| micros(secs));
        let gap = GapRecord {
            tool_us: some(self.tool),
            client_us: some(self.client),
            human_us: some(self.human),
            unknown_us: some(self.unknown),
            tool_how: None,
        };
        (gap != GapRecord::default()).then_some(gap)
    }
}

impl ModelTime {
    /// Returns how long a request takes.
    fn secs(&self, prompt: u64, answer: u64, stream: &mut Stream) -> f64 {
        let (prompt, answer) = (prompt as f64 / 1e3, answer as f64);
        let reading = self.prompt * prompt + self.prompt_squared * prompt * prompt;
        let writing = answer * (self.output + self.output_prompt * prompt);
        let spread = self.spread.as_ref().map_or(1.0, |row| row.draw(stream));
        (self.base + reading + writing) * spread
    }
}

/// Draws a wait. What has several causes takes the score for the longest of them, an unknown one or a person's.
fn waited(how: &Turn, z: f64, stream: &mut Stream) -> Wait {
    let single = |row: &Option<Row>| row.as_ref().map_or(0.0, |row| row.place(z));
    let client = how.client.as_ref().map_or(0.0, |row| row.draw(stream));
    Wait {
        tool: single(&how.tool),
        client,
        human: single(&how.human),
        unknown: single(&how.unknown),
    }
}

/// Returns a prompt that goes on where the one before and its answer ended.
fn append(keep: u64, new: u64) -> PromptEdit {
    let new = new.min(LARGEST.saturating_sub(keep)).max(1);
    PromptEdit {
        tokens: keep + new,
        keep,
        append: vec![Piece {
            tokens: Some(new),
            ..Piece::default()
        }],
        ..PromptEdit::default()
    }
}

/// Returns a prompt that keeps less than all, and has some of it again behind.
fn broken(name: &str, keep: u64, tokens: u64, again: u64) -> PromptEdit {
    let pieces = [(again, true), (tokens - keep - again, false)];
    let pieces = pieces.into_iter().filter(|(tokens, _)| *tokens > 0);
    PromptEdit {
        tokens,
        keep,
        append: pieces
            .map(|(tokens, again)| Piece {
                tokens: Some(tokens),
                again,
                ..Piece::default()
            })
            .collect(),
        break_at: Some("recorded".to_string()),
        break_class: Some(name.to_string()),
        ..PromptEdit::default()
    }
}

fn whole(value: f64) -> u64 {
    value.round().clamp(0.0, LARGEST as f64) as u64
}

fn micros(secs: f64) -> u64 {
    // Two months: nobody waits longer, and the waits of a session must stay believable.
    (secs.clamp(0.0, 5e6) * 1e6).round() as u64
}
