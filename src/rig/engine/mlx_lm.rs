//! mlx-lm's server, and LM Studio's MLX engine, which is built on the same batches.
//!
//! Facts from mlx-lm d78bf58e, `server.py`, `generate.py`, `models/cache.py`, and LM Studio's mlx-engine 08f0c07: one
//! decode step for everybody who writes, then one piece of every prompt that is read, in turns; the last token of a
//! prompt is computed with the decode step. While somebody is served, new requests are looked for every half second.
//! mlx-lm keeps whole sequences, LM Studio chunks of 256 tokens.

use super::{Engine, Row, Step};
use crate::call::{Call, Outcome};
use crate::ids::{NodeId, ThreadId};
use crate::rig::book::{Book, Seq, SeqId};
use crate::rig::cost::{Chunk, Graph};
use crate::rig::fine::Fine;
use crate::rig::kv::blocks::BlockPool;
use crate::rig::kv::deepest_shared;
use crate::rig::kv::pool::Pool;
use crate::rig::kv::sequences::{Class, Rules, Sequences};
use crate::rig::kv::slots::Tokens;
use crate::trace::content::{Content, ROOT};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use thin_vec::ThinVec;

/// Seconds for which a server under load does not look for new requests.
const POLL_S: f64 = 0.5;
/// Tokens with which a chat template asks for the answer, after what a person said: an estimate.
const GENERATION_PROMPT: u64 = 4;
/// Chunks for which there is room on disk: more than anybody fills.
const DISK_CHUNKS: u64 = 1 << 30;

/// What is kept of prompts and answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// Nothing.
    Off,
    /// Whole sequences.
    Sequences(Rules),
    /// Chunks of so many tokens, each with the state at its end.
    Chunks(u64),
}

/// The server's settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Rows of the decode batch, those whose prompt is read included.
    pub decode_concurrency: u64,
    /// Prompts that are read together.
    pub prompt_concurrency: u64,
    /// Tokens of each prompt in one step.
    pub prefill_step_size: u64,
    /// Whether a server under load looks for new requests only now and then.
    pub polls: bool,
    /// What is kept.
    pub cache: Cache,
    /// The longest prompt and answer; nothing where no limit is set.
    pub context: Option<u64>,
    /// Bytes for the keys, values and state of a request.
    pub room_bytes: u64,
    /// Bytes of keys and values for one token.
    pub kv_bytes: u64,
    /// Bytes of a recurrent state.
    pub state_bytes: u64,
}

#[derive(Clone, Debug)]
enum Store {
    Off,
    Sequences(Sequences),
    Chunks(BlockPool, u64),
}

/// mlx-lm's server.
#[derive(Clone, Debug)]
pub struct MlxLm {
    settings: Settings,
    content: Arc<Content>,
    store: Store,
    waiting: VecDeque<SeqId>,
    /// Requests whose prompt is read.
    reading: Vec<SeqId>,
    /// Requests that take part in decode steps.
    writing: Vec<SeqId>,
    /// Since when somebody has been served.
    since: Fine,
    /// Ends of sequences that a conversation ever had stored.
    kept: FxHashMap<ThreadId, ThinVec<(NodeId, u64)>>,
}

impl MlxLm {
    /// Returns a server that has stored nothing.
    pub fn new(settings: Settings, content: Arc<Content>) -> MlxLm {
        let store = match settings.cache {
            Cache::Off => Store::Off,
            Cache::Sequences(rules) => Store::Sequences(Sequences::new(rules)),
            Cache::Chunks(tokens) => Store::Chunks(BlockPool::new(DISK_CHUNKS, true, 0), tokens),
        };
        MlxLm {
            settings,
            content,
            store,
            waiting: VecDeque::new(),
            reading: Vec::new(),
            writing: Vec::new(),
            since: Fine::ZERO,
            kept: FxHashMap::default(),
        }
    }

    /// Returns whether the server has looked since the request was made.
    ///
    /// It looks half a second after it looked last, at the end of a step; here on a grid that begins with the load.
    fn has_seen(&self, id: SeqId, at: Fine, book: &Book) -> bool {
        let submitted = book.seq(id).submitted();
        if !self.settings.polls || submitted <= self.since {
            return true;
        }
        let looks = |until: Fine| until.saturating_sub(self.since).0 / Fine::from_secs(POLL_S).0;
        looks(at) > looks(submitted)
    }

    fn has_seat(&self) -> bool {
        let reading = self.reading.len() as u64;
        let all = reading + self.writing.len() as u64;
        reading < self.settings.prompt_concurrency && all < self.settings.decode_concurrency
    }

    fn admit(&mut self, at: Fine, book: &mut Book) {
        while self.has_seat() {
            let Some(&id) = self.waiting.front() else {
                break;
            };
            if !self.has_seen(id, at, book) {
                break;
            }
            self.waiting.pop_front();
            let call = book.seq(id).call;
            if call.warm.0 > 0 {
                self.keep(&call, call.warm.0, Class::Answer, book);
            }
            let cached = match &self.store {
                Store::Off => 0,
                Store::Sequences(sequences) => sequences.reach(&call, &self.content),
                Store::Chunks(pool, chunk) => {
                    let path = BlockPool::path(&call, &self.content, *chunk);
                    pool.look_up(&path, (call.prompt_tokens.0 - 1) / chunk).0 * chunk
                }
            };
            let stored = self.stored(&call).max(cached);
            book.admit(id, at, cached, stored);
            self.reading.push(id);
        }
        let last_token = |id: &SeqId| book.seq(*id).computed + 1 == book.seq(*id).known();
        self.writing
            .extend(self.reading.iter().copied().filter(last_token));
        self.reading.retain(|id| !last_token(id));
    }

    /// Returns how far the store would reach for this call, had it lost nothing of its conversation.
    fn stored(&self, call: &Call) -> u64 {
        let limit = call.seen_computed.0.min(call.prompt_tokens.0 - 1);
        match self.settings.cache {
            Cache::Off => 0,
            Cache::Sequences(rules) if rules.trims => limit,
            Cache::Sequences(_) => {
                let kept = self
                    .kept
                    .get(&call.thread)
                    .map_or(&[][..], ThinVec::as_slice);
                deepest_shared(kept, call.prompt, limit, &self.content)
            }
            Cache::Chunks(chunk) => limit / chunk * chunk,
        }
    }

    /// Stores the leading `len` tokens of a call's prompt and answer.
    fn keep(&mut self, call: &Call, len: u64, class: Class, book: &Book) {
        let bytes = len * self.settings.kv_bytes + self.settings.state_bytes;
        let live: u64 = self
            .reading
            .iter()
            .chain(&self.writing)
            .map(|&id| book.seq(id).computed * self.settings.kv_bytes + self.settings.state_bytes)
            .sum();
        match &mut self.store {
            Store::Off => {}
            Store::Sequences(sequences) => {
                let tokens = Tokens::of(call, len, Vec::new());
                sequences.store(tokens, bytes, class, live, &self.content);
                let named = call.output_shared || len <= call.prompt_tokens.0;
                if named
                    && !matches!(
                        self.settings.cache,
                        Cache::Sequences(Rules { trims: true, .. })
                    )
                {
                    let tip = if call.output_shared {
                        call.output
                    } else {
                        call.prompt
                    };
                    self.kept.entry(call.thread).or_default().push((tip, len));
                }
            }
            Store::Chunks(pool, chunk) => {
                let path = BlockPool::path(call, &self.content, *chunk);
                let full = len / *chunk;
                let (found, _) = pool.look_up(&path, full);
                let mut holding = pool.take_hit(&path, found);
                pool.grow(&mut holding, full);
                pool.register(&path, &mut holding, full);
                pool.release(&path, holding);
            }
        }
    }

    /// Stores the system part and what the person said once a conversation's first prompt has been read.
    ///
    /// The server does so whenever the last message is a person's; later ones cannot be told from tool results here.
    fn keep_segments(&mut self, call: &Call, book: &Book) {
        if call.seen.0 > 0 || !matches!(self.settings.cache, Cache::Sequences(_)) {
            return;
        }
        let mut head = call.prompt;
        while head != ROOT && !self.content.is_head(head) {
            head = self.content.parent(head);
        }
        let system = self.content.end(head).0;
        let user = call.prompt_tokens.0.saturating_sub(GENERATION_PROMPT);
        if system > 0 && system < user {
            self.keep(call, system, Class::System, book);
        }
        self.keep(call, user, Class::User, book);
    }
}

/// Returns whether a row computes the last token of a prompt, which belongs to the decode step.
fn starts(seq: &Seq, tokens: u64) -> bool {
    seq.computed + tokens == seq.known() && tokens == 1
}

impl Engine for MlxLm {
    fn arrive(&mut self, seq: SeqId, book: &mut Book) -> Result<(), Outcome> {
        let request = book.seq_mut(seq);
        let prompt = request.call.prompt_tokens.0;
        let context = self.settings.context.unwrap_or(u64::MAX);
        if prompt >= context {
            return Err(Outcome::RefusedContext);
        }
        let room = self
            .settings
            .room_bytes
            .saturating_sub(self.settings.state_bytes);
        let room = room / self.settings.kv_bytes.max(1);
        if prompt >= room {
            return Err(Outcome::RefusedMemory);
        }
        request.output_limit = request.output_limit.min(room.min(context) - prompt);
        self.waiting.push_back(seq);
        Ok(())
    }

    fn plan(&mut self, at: Fine, book: &mut Book, step: &mut Step) {
        if self.reading.is_empty() && self.writing.is_empty() {
            self.since = at;
        }
        self.admit(at, book);
        for &id in &self.writing {
            let decoding = book.seq(id).decoding();
            let chunk = if decoding { None } else { Some(1) };
            step.rows.push(Row { seq: id, chunk });
        }
        let decoding = step.rows.iter().all(|row| row.chunk.is_none());
        for &id in &self.reading {
            let seq = book.seq(id);
            let rest = seq.known() - 1 - seq.computed;
            let chunk = Some(rest.min(self.settings.prefill_step_size));
            step.rows.push(Row { seq: id, chunk });
        }
        let shut = self.waiting.is_empty() || !self.has_seat();
        step.repeat = if decoding && self.reading.is_empty() && shut {
            let left = self.writing.iter().map(|&id| book.seq(id).passes_left());
            let left = left.min();
            left.unwrap_or(1).max(1)
        } else {
            1
        };
    }

    fn one_pass(&self) -> bool {
        false
    }

    fn graphs(&self, rows: &[Row], book: &Book, graphs: &mut Vec<Graph>) {
        let (mut decode, mut prefill) = (Graph::default(), Graph::default());
        for row in rows {
            let seq = book.seq(row.seq);
            let chunk = |tokens: u64| Chunk {
                tokens,
                depth: seq.computed,
                first: seq.untouched(),
            };
            match row.chunk {
                Some(tokens) if !starts(seq, tokens) => prefill.chunks.push(chunk(tokens)),
                Some(tokens) if seq.untouched() => decode.chunks.push(chunk(tokens)),
                _ => decode.add_seq(seq),
            }
        }
        // Prompts are padded to the longest piece.
        let longest = prefill.chunks.iter().map(|chunk| chunk.tokens).max();
        for chunk in &mut prefill.chunks {
            chunk.tokens = longest.unwrap_or(0);
        }
        let work = |graph: &Graph| graph.rows > 0 || !graph.chunks.is_empty();
        graphs.extend([decode, prefill].into_iter().filter(work));
    }

    fn settle(&mut self, step: &Step, _times: u64, book: &mut Book, complete: &mut Vec<SeqId>) {
        for row in &step.rows {
            let seq = book.seq(row.seq);
            let (call, computed) = (seq.call, seq.computed);
            let finished = seq.finished();
            if row.chunk.is_some() && computed >= call.prompt_tokens.0 {
                self.keep_segments(&call, book);
            }
            if finished {
                complete.push(row.seq);
            }
        }
        self.writing.retain(|id| !complete.contains(id));
        for &id in complete.iter() {
            let seq = book.seq(id);
            self.keep(&seq.call, seq.computed, Class::Answer, book);
        }
    }

    fn content(&mut self) -> &mut Arc<Content> {
        &mut self.content
    }

    fn withdraw(&mut self, seq: SeqId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|&other| other != seq);
        self.waiting.len() < before
    }

    fn check(&self, book: &Book) {
        let admitted = self.reading.len() + self.writing.len();
        assert_eq!(admitted + self.waiting.len(), book.len());
        assert!(admitted as u64 <= self.settings.decode_concurrency);
        match &self.store {
            Store::Off => {}
            Store::Sequences(sequences) => {
                if let Cache::Sequences(rules) = self.settings.cache {
                    assert!(sequences.len() as u64 <= rules.count);
                }
            }
            Store::Chunks(pool, _) => {
                pool.check();
                assert_eq!(pool.free(), pool.capacity(), "nobody holds chunks");
            }
        }
    }
}
