//! From a call to what is sent: the content tree made into token ids or into messages, with what the engine really said.
//!
//! A prompt is the path to its node. What an earlier prompt of the conversation began with is kept as it was sent; what is
//! new is drawn from the tree, or is what the engine answered. The recorded length always wins: where an answer came out
//! shorter or longer than recorded, the newest content makes up for it.

use super::words::{OPENING, Vocabulary, beginning, realm_of};
use crate::agent::History;
use crate::call::Call;
use crate::ids::{NodeId, RunId, ThreadId};
use crate::trace::content::Content;
use crate::trace::{Join, Session, Trace};
use crate::units::Tokens;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Who speaks in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The head: system prompt and tools.
    System,
    /// Everything that is new to the model.
    User,
    /// What the model said.
    Assistant,
}

/// What is sent as a prompt.
#[derive(Clone, PartialEq, Debug)]
pub enum Prompt {
    /// Token ids, as they are.
    Ids(Vec<u32>),
    /// Messages, for the engine's template and tokenizer.
    Messages(Vec<(Role, String)>),
}

impl Prompt {
    /// Returns about how many bytes it is.
    pub fn size(&self) -> usize {
        match self {
            Prompt::Ids(ids) => ids.len() * 5,
            Prompt::Messages(messages) => messages.iter().map(|(_, text)| text.len()).sum(),
        }
    }
}

/// How prompts are put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As token ids.
    Ids,
    /// As messages.
    Messages,
}

/// What the engine's template adds to words, in tokens; measured before a replay begins.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Overhead {
    /// A single message of a user.
    pub base: i64,
    /// A message of the system before it.
    pub system: i64,
    /// An answer and the next message of a user.
    pub turn: i64,
    /// Whether the engine takes messages of the system.
    pub takes_system: bool,
}

/// What the engine said, as far as it is known.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// Its token ids; empty where the engine does not tell them.
    pub ids: Vec<u32>,
    /// How many tokens the text is under the engine's tokenizer.
    pub tokens: Option<u64>,
}

/// The content of one node as it is sent.
#[derive(Clone, Debug)]
struct Piece {
    node: NodeId,
    role: Role,
    text: Arc<str>,
    ids: Arc<[u32]>,
    /// What the text costs, in thousandths of a token.
    milli: i64,
}

/// What a conversation's last prompt was made of.
#[derive(Debug, Default)]
struct Conversation {
    pieces: Vec<Piece>,
    /// By how many tokens the engine counted more than was expected.
    bias: i64,
    expected: i64,
}

/// Makes prompts of calls.
#[derive(Debug)]
pub struct Prompter {
    content: Arc<Content>,
    form: Form,
    vocabulary: Vocabulary,
    overhead: Overhead,
    history: History,
    seed: u64,
    /// For the nodes of answers: where the answer begins.
    answers: FxHashMap<NodeId, Tokens>,
    conversations: FxHashMap<(RunId, ThreadId), Conversation>,
    /// What was said or made to fit, by run, and by realm for runs that share it.
    fixed: FxHashMap<(Owner, NodeId), Piece>,
    path: Vec<NodeId>,
    /// Whether sub-agents of a session, by its place, may outlive its run.
    outlived: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Owner {
    Run(RunId),
    Realm(u32),
}

impl Prompter {
    /// Returns a prompter for calls of `trace`.
    pub fn new(
        trace: &Trace,
        form: Form,
        vocabulary: Vocabulary,
        overhead: Overhead,
        history: History,
        seed: u64,
    ) -> Prompter {
        let mut answers = FxHashMap::default();
        for step in trace
            .sessions
            .iter()
            .flat_map(|session| &session.threads)
            .flat_map(|thread| &thread.steps)
        {
            let after = trace.content.upwards(step.output);
            for node in after.take_while(|&node| node != step.prompt) {
                answers.entry(node).or_insert(step.prompt_tokens);
            }
        }
        Prompter {
            content: Arc::clone(&trace.content),
            form,
            vocabulary,
            overhead,
            history,
            seed,
            answers,
            conversations: FxHashMap::default(),
            fixed: FxHashMap::default(),
            path: Vec::new(),
            outlived: trace.sessions.iter().map(detaches).collect(),
        }
    }

    /// Returns the prompt of `call`.
    pub fn prompt(&mut self, call: &Call) -> Prompt {
        let key = (call.run, call.thread);
        let mut conversation = self.conversations.remove(&key).unwrap_or_default();
        let mut path = std::mem::take(&mut self.path);
        self.content.path(call.prompt, &mut path);
        let kept = conversation.pieces.iter().zip(&path);
        let kept = kept
            .take_while(|(piece, node)| piece.node == **node)
            .count();
        conversation.pieces.truncate(kept);
        for &node in &path[kept..] {
            conversation.pieces.push(self.piece(call, node));
        }
        self.path = path;
        let prompt = match self.form {
            Form::Ids => {
                let pieces = conversation.pieces.iter();
                Prompt::Ids(pieces.flat_map(|piece| piece.ids.iter().copied()).collect())
            }
            Form::Messages => {
                self.fit(call, &mut conversation, kept);
                Prompt::Messages(Self::messages(&conversation.pieces))
            }
        };
        self.conversations.insert(key, conversation);
        prompt
    }

    /// Takes in what the engine said to `call`, and how long it counted the prompt.
    pub fn heard(&mut self, call: &Call, said: &Said, counted: Option<Tokens>) {
        if let (Some(counted), Some(conversation)) = (
            counted,
            self.conversations.get_mut(&(call.run, call.thread)),
        ) {
            conversation.bias += counted.0.cast_signed() - conversation.expected;
        }
        if self.history == History::Recorded {
            return;
        }
        let content = Arc::clone(&self.content);
        let after = content.upwards(call.output);
        for node in after.take_while(|&node| node != call.prompt) {
            let from = content.start(node) - call.prompt_tokens;
            let to = content.end(node) - call.prompt_tokens;
            let whole = to == call.output_tokens && from == Tokens::ZERO;
            let piece = self.spoken(call, node, said, (from, to), whole);
            self.fix(call, piece);
        }
    }

    /// Forgets what only this run could still need. Sub-agents that outlive their run need it for longer.
    pub fn run_ended(&mut self, run: RunId) {
        if self.outlived[run.index() % self.outlived.len()] {
            return;
        }
        self.conversations.retain(|key, _| key.0 != run);
        self.fixed.retain(|(owner, _), _| *owner != Owner::Run(run));
    }

    fn fix(&mut self, call: &Call, piece: Piece) {
        let realm = realm_of(self.content.is_head(piece.node), call.realms);
        // What belongs to one run alone is nobody else's.
        if call.realms.private == 0 {
            self.fixed
                .entry((Owner::Realm(realm), piece.node))
                .or_insert_with(|| piece.clone());
        }
        self.fixed.insert((Owner::Run(call.run), piece.node), piece);
    }

    /// Returns the part of an answer that a node holds, filled up where less was said than was recorded.
    fn spoken(
        &self,
        call: &Call,
        node: NodeId,
        said: &Said,
        (from, to): (Tokens, Tokens),
        whole: bool,
    ) -> Piece {
        let mut piece = Piece {
            node,
            role: Role::Assistant,
            text: "".into(),
            ids: [].into(),
            milli: 0,
        };
        match self.form {
            Form::Ids => {
                let end = said.ids.len().min(to.0 as usize);
                let mut ids = said.ids[end.min(from.0 as usize)..end].to_vec();
                let missing = Tokens((to - from).0 - ids.len() as u64);
                let realm = realm_of(false, call.realms);
                self.vocabulary
                    .ids(self.seed, node, realm, missing, &mut ids);
                piece.ids = ids.into();
            }
            Form::Messages => {
                let tokens = said.tokens.unwrap_or(call.output_tokens.0).cast_signed();
                let text = if whole {
                    said.text.as_str()
                } else {
                    share(&said.text, from.0, to.0, call.output_tokens.0)
                };
                // Where only a part is kept, its share of the characters stands for its share of the tokens.
                let of = said.text.len().max(1).cast_signed() as i64;
                piece.milli = tokens * 1000 * text.len().cast_signed() as i64 / of;
                piece.text = text.into();
            }
        }
        piece
    }

    /// Returns the content of a node that is new to the conversation.
    fn piece(&self, call: &Call, node: NodeId) -> Piece {
        let realm = realm_of(self.content.is_head(node), call.realms);
        let known = self.fixed.get(&(Owner::Run(call.run), node));
        if let Some(piece) = known.or_else(|| self.fixed.get(&(Owner::Realm(realm), node))) {
            return piece.clone();
        }
        let role = match (self.answers.contains_key(&node), self.content.is_head(node)) {
            (true, _) => Role::Assistant,
            (false, true) if self.overhead.takes_system => Role::System,
            (false, _) => Role::User,
        };
        self.drawn(
            node,
            role,
            realm,
            self.content.end(node) - self.content.start(node),
        )
    }

    fn drawn(&self, node: NodeId, role: Role, realm: u32, tokens: Tokens) -> Piece {
        let (mut text, mut milli, mut ids) = (String::new(), 0, Vec::new());
        match self.form {
            Form::Ids => self
                .vocabulary
                .ids(self.seed, node, realm, tokens, &mut ids),
            Form::Messages => {
                (text, milli) = self.vocabulary.text(self.seed, node, realm, tokens);
            }
        }
        Piece {
            node,
            role,
            text: text.into(),
            ids: ids.into(),
            milli: milli.cast_signed(),
        }
    }

    /// Makes the newest content of a prompt as long as brings the prompt to its recorded length.
    fn fit(&mut self, call: &Call, conversation: &mut Conversation, kept: usize) {
        let want = call.prompt_tokens.0.cast_signed();
        let mut over = self.expected(conversation) - want;
        for place in (kept..conversation.pieces.len()).rev() {
            let piece = &conversation.pieces[place];
            let last = place + 1 == conversation.pieces.len();
            // Heads stay as others have them, unless there is nothing else.
            if over == 0 || piece.role == Role::Assistant || (piece.role == Role::System && !last) {
                continue;
            }
            let (node, role) = (piece.node, piece.role);
            let now = piece.milli / 1000;
            let tokens = (now - over).max(0);
            let realm = realm_of(self.content.is_head(node), call.realms);
            let fitted = self.drawn(node, role, realm, Tokens(tokens as u64));
            over += fitted.milli / 1000 - now;
            conversation.pieces[place] = fitted.clone();
            if role == Role::User {
                self.fixed.insert((Owner::Run(call.run), node), fitted);
            }
        }
        self.shorten(call, &mut conversation.pieces[kept..], over);
        conversation.expected = self.expected(conversation);
    }

    /// Cuts new answers by `over` tokens, where one that reads longer than it was recorded leaves nothing else to give.
    ///
    /// A text may be more tokens when it is read than when it was written; the recorded length wins.
    fn shorten(&mut self, call: &Call, pieces: &mut [Piece], mut over: i64) {
        let answers = pieces.iter_mut().rev();
        for piece in answers.filter(|piece| piece.role == Role::Assistant) {
            let tokens = piece.milli / 1000;
            let cut = over.min(tokens - 1);
            if cut <= 0 {
                continue;
            }
            let left = share(&piece.text, 0, (tokens - cut) as u64, tokens as u64);
            piece.text = left.into();
            piece.milli -= cut * 1000;
            over -= cut;
            self.fixed
                .insert((Owner::Run(call.run), piece.node), piece.clone());
        }
    }

    /// Returns how many tokens the engine is expected to count.
    fn expected(&self, conversation: &Conversation) -> i64 {
        let milli: i64 = conversation.pieces.iter().map(|piece| piece.milli).sum();
        let roles = || conversation.pieces.iter().map(|piece| piece.role);
        let mut turns = 0;
        let mut before = Role::User;
        for role in roles() {
            turns += i64::from(role == Role::Assistant && before != Role::Assistant);
            before = role;
        }
        let system = roles().next() == Some(Role::System);
        let head = if system { self.overhead.system } else { 0 };
        self.overhead.base
            + head
            + turns * self.overhead.turn
            + (milli + 500) / 1000
            + conversation.bias
    }

    /// Joins pieces into messages in which user and model take turns, the user first and last.
    fn messages(pieces: &[Piece]) -> Vec<(Role, String)> {
        let mut messages: Vec<(Role, String)> = Vec::new();
        let opened = |role| {
            let opening = if role == Role::Assistant { "" } else { OPENING };
            (role, opening.to_string())
        };
        for piece in pieces {
            let begun = !messages.is_empty();
            // A head in mid-conversation is something new to the model, like everything else.
            let role = match piece.role {
                Role::System if begun && messages[0].0 != Role::System => Role::User,
                Role::System if messages.len() > 1 => Role::User,
                role => role,
            };
            let last = messages.last().map(|message| message.0);
            if role == Role::Assistant && last != Some(Role::User) && last != Some(Role::Assistant)
            {
                messages.push(opened(Role::User));
            }
            if messages.last().map(|message| message.0) != Some(role) {
                messages.push(opened(role));
            }
            if let Some(message) = messages.last_mut() {
                message.1 += &piece.text;
            }
        }
        if messages
            .last()
            .is_none_or(|message| message.0 != Role::User)
        {
            messages.push(opened(Role::User));
        }
        messages
    }
}

fn detaches(session: &Session) -> bool {
    session
        .threads
        .iter()
        .any(|thread| thread.join == Join::Detached)
}

/// Returns the part of `text` from `from` to `to` of `of`, at borders of characters.
fn share(text: &str, from: u64, to: u64, of: u64) -> &str {
    let place = |at: u64| {
        let at = (text.len() as u64 * at.min(of) / of.max(1)) as usize;
        beginning(text, at).len()
    };
    &text[place(from)..place(to)]
}

#[cfg(test)]
mod tests;
