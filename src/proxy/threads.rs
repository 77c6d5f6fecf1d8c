//! Which conversation a request belongs to, told by what it says: agents do not say it themselves.
//!
//! A request that begins like an earlier one beyond tools and system goes on with that conversation. One that begins
//! anew is a sub-agent's when it repeats what a waiting conversation told a tool, or when its tools overlap with those
//! of the only one waiting; else it is a session of its own. `docs/record.md` has the rules in full.

use super::asked::{Asked, Kind, ToolCall};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

/// A conversation's place in the list.
pub type ThreadNo = usize;

/// The shortest text by which an argument of a tool is recognised in a prompt.
const TELLING: usize = 24;

/// How a conversation waits for one that it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A session of its own.
    Session,
    /// Started by a tool call of this conversation, which may wait for it.
    SubAgent(ThreadNo),
    /// Asked on the side of this conversation; nobody waits.
    Side(ThreadNo),
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its session.
    pub session: usize,
    /// Where it came from.
    pub origin: Origin,
    /// What its latest prompt held.
    pub keys: Vec<u64>,
    /// The key of the latest answer.
    pub answer: Option<u64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests that were answered.
    pub steps: u32,
    /// Tools that the latest answer called.
    pub pending: Vec<ToolCall>,
    /// When the latest answer was complete.
    pub ended_us: u64,
    tools: Vec<String>,
    head: Vec<u64>,
    hint: Option<String>,
    /// What a person last said.
    person: String,
}

impl Thread {
    /// Returns whether it stands still until a tool has answered.
    pub fn waits(&self) -> bool {
        self.in_flight == 0 && !self.pending.is_empty()
    }
}

/// Where a request belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The next step of a conversation.
    Next(ThreadNo),
    /// The first step of another.
    First(ThreadNo),
}

impl Place {
    /// Returns the conversation.
    pub fn thread(self) -> ThreadNo {
        match self {
            Place::Next(thread) | Place::First(thread) => thread,
        }
    }
}

/// All conversations so far.
#[derive(Clone, Default, Debug)]
pub struct Threads {
    list: Vec<Thread>,
    sessions: usize,
    /// Conversations whose prompt begins so, by a hash over its items.
    begins: FxHashMap<u64, Vec<ThreadNo>>,
    /// Which conversation gave an answer that the engine keeps.
    answers: FxHashMap<String, ThreadNo>,
}

impl Threads {
    /// Returns a conversation.
    pub fn get(&self, thread: ThreadNo) -> &Thread {
        &self.list[thread]
    }

    /// Returns a conversation, to change it.
    pub fn get_mut(&mut self, thread: ThreadNo) -> &mut Thread {
        &mut self.list[thread]
    }

    /// Returns the conversation that gave an answer.
    pub fn by_answer(&self, id: &str) -> Option<ThreadNo> {
        self.answers.get(id).copied()
    }

    /// Notes which conversation gave an answer.
    pub fn note_answer(&mut self, id: String, thread: ThreadNo) {
        self.answers.insert(id, thread);
    }

    /// Finds the place of a request and counts it as under way there.
    pub fn place(&mut self, asked: &Asked) -> Place {
        let keys: Vec<u64> = asked.items.iter().map(|item| item.key).collect();
        let place = match self.continued(asked, &keys) {
            Some(thread) => Place::Next(thread),
            None => Place::First(self.begin(asked, &keys)),
        };
        let thread = &mut self.list[place.thread()];
        thread.in_flight += 1;
        thread.tools.clone_from(&asked.tools);
        let person = asked
            .items
            .iter()
            .rev()
            .find(|item| item.kind == Kind::User);
        if let Some(person) = person {
            thread.person.clone_from(&person.text);
        }
        place
    }

    /// Notes what the latest prompt of a conversation held, so that later ones are recognised by it.
    pub fn note_prompt(&mut self, thread: ThreadNo, keys: Vec<u64>) {
        let mut hash = 0;
        for &key in &keys {
            hash = chained(hash, key);
            let known = self.begins.entry(hash).or_default();
            if !known.contains(&thread) {
                known.push(thread);
            }
        }
        self.list[thread].keys = keys;
    }

    /// Returns the conversation that a request goes on with.
    fn continued(&self, asked: &Asked, keys: &[u64]) -> Option<ThreadNo> {
        if let Some(thread) = asked.previous.as_ref().and_then(|id| self.by_answer(id)) {
            return (self.list[thread].in_flight == 0).then_some(thread);
        }
        let hashes: Vec<u64> = keys
            .iter()
            .scan(0, |hash, &key| {
                *hash = chained(*hash, key);
                Some(*hash)
            })
            .collect();
        // Whose answer is repeated goes before who merely has nothing more than what is repeated, and that before whom
        // the prefix broke for; a first prompt that comes again is somebody who begins alike.
        let answered = |thread: &Thread, depth: usize| {
            let whole = thread.keys.len() == depth;
            whole && thread.answer.is_some() && keys.get(depth).copied() == thread.answer
        };
        let whole =
            |thread: &Thread, depth: usize| thread.keys.len() == depth && depth < keys.len();
        let broken = |thread: &Thread, _| thread.keys != keys || thread.steps != 1;
        let rules: [Rule<'_>; 3] = [&answered, &whole, &broken];
        for rule in rules {
            for depth in (asked.head + 1..=keys.len()).rev() {
                let known = self.begins.get(&hashes[depth - 1]);
                let known = known.into_iter().flatten().copied();
                let fits = |no: &ThreadNo| {
                    let thread = &self.list[*no];
                    thread.in_flight == 0 && rule(thread, depth)
                };
                if let Some(best) = known.filter(fits).min_by_key(|&no| self.list[no].ended_us) {
                    return Some(best);
                }
            }
        }
        self.compacted(asked, keys)
    }

    /// Returns the conversation whose history was written anew: the head is the same, and something later on.
    fn compacted(&self, asked: &Asked, keys: &[u64]) -> Option<ThreadNo> {
        if asked.head == 0 {
            return None;
        }
        let later: FxHashSet<u64> = keys[asked.head..].iter().skip(1).copied().collect();
        let alike = |thread: &&(ThreadNo, &Thread)| {
            let thread = thread.1;
            let kept = thread
                .keys
                .iter()
                .skip(asked.head + 1)
                .any(|key| later.contains(key));
            let told = thread.hint.is_some() && thread.hint == asked.hint && thread.steps > 1;
            thread.in_flight == 0 && thread.head == keys[..asked.head] && (kept || told)
        };
        let all = self.list.iter().enumerate();
        let found = all
            .filter(|thread| alike(&thread))
            .max_by_key(|(_, thread)| thread.ended_us);
        found.map(|(no, _)| no)
    }

    fn begin(&mut self, asked: &Asked, keys: &[u64]) -> ThreadNo {
        let origin = self.origin(asked, keys);
        let session = match origin {
            Origin::Session => {
                self.sessions += 1;
                self.sessions - 1
            }
            Origin::SubAgent(parent) | Origin::Side(parent) => self.list[parent].session,
        };
        self.list.push(Thread {
            session,
            origin,
            keys: Vec::new(),
            answer: None,
            in_flight: 0,
            steps: 0,
            pending: Vec::new(),
            ended_us: 0,
            tools: Vec::new(),
            head: keys[..asked.head].to_vec(),
            hint: asked.hint.clone(),
            person: String::new(),
        });
        self.list.len() - 1
    }

    fn origin(&self, asked: &Asked, keys: &[u64]) -> Origin {
        let said: Vec<&str> = asked.items[asked.head..]
            .iter()
            .map(|item| item.text.as_str())
            .collect();
        let repeats =
            |text: &str| text.len() >= TELLING && said.iter().any(|said| said.contains(text));
        let told = |thread: &Thread| thread.pending.iter().any(|call| argument(call, &repeats));
        let waiting = || {
            self.list
                .iter()
                .enumerate()
                .filter(|(_, thread)| thread.waits())
        };
        if let Some((parent, _)) = waiting().find(|(_, thread)| told(thread)) {
            return Origin::SubAgent(parent);
        }
        let head = &keys[..asked.head];
        let overlaps = |thread: &Thread| {
            let tool = thread.tools.iter().any(|tool| asked.tools.contains(tool));
            let system = thread.head.iter().any(|key| head.contains(key));
            (tool || system) && thread.head != head
        };
        let mut sessions: Vec<usize> = waiting().map(|(_, thread)| thread.session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let one = sessions.len() == 1;
        let hinted = |thread: &Thread| thread.hint.is_some() && thread.hint == asked.hint;
        let parent = waiting().find(|(_, thread)| overlaps(thread) && (one || hinted(thread)));
        if let Some((parent, _)) = parent {
            return Origin::SubAgent(parent);
        }
        // A question about what a person said, or in the session's own name, without any tools.
        let aside = |thread: &Thread| {
            let quotes = !thread.person.is_empty() && repeats(&thread.person);
            thread.steps > 0 && (quotes || hinted(thread))
        };
        let main = self.list.iter().position(aside);
        main.filter(|_| asked.tools.is_empty() || asked.hint.is_some())
            .map_or(Origin::Session, Origin::Side)
    }
}

/// Whether a conversation, of whose prompt so many items are repeated, may be the one.
type Rule<'r> = &'r dyn Fn(&Thread, usize) -> bool;

/// Returns whether any text among a call's arguments is such.
fn argument(call: &ToolCall, such: &impl Fn(&str) -> bool) -> bool {
    fn any(value: &Value, such: &impl Fn(&str) -> bool) -> bool {
        match value {
            Value::String(text) => such(text),
            Value::Array(list) => list.iter().any(|value| any(value, such)),
            Value::Object(fields) => fields.values().any(|value| any(value, such)),
            _ => false,
        }
    }
    serde_json::from_str(&call.arguments).is_ok_and(|value| any(&value, such))
}

fn chained(hash: u64, key: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&key.to_le_bytes(), hash)
}
