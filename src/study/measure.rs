//! What an engine can do, measured from outside: the times from which a rig is fitted.
//!
//! Prompts of several sizes, after contexts of several depths; answers at several depths, alone and several at a time. What is
//! new in a prompt nobody has said before, so a cache helps only where it is meant to. Each figure is the mean of what
//! several rounds saw: a run is as long as all of its steps, slow ones too.

use super::live::Met;
use crate::ids::NodeId;
use crate::live::client::Client;
use crate::live::clock::Clock;
use crate::live::engine::{Engine, slots};
use crate::live::measured::Measured;
use crate::live::prepare::Prepared;
use crate::live::prompt::{Form, Prompt, Role};
use crate::live::words::OPENING;
use crate::measured::{Of, Row, What};
use crate::units::{Span, Time, Tokens};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is measured at one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// The wait for the first token, in milliseconds.
    FirstToken,
    /// Tokens per second of one answer, while all are written.
    Decode,
}

impl Metric {
    /// Returns its name in tables of measurements.
    pub fn word(self) -> &'static str {
        match self {
            Metric::FirstToken => "ttft_mean",
            Metric::Decode => "decode_tps",
        }
    }
}

/// Something to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// What.
    pub metric: Metric,
    /// Prompt tokens that are new.
    pub prompt: u64,
    /// Tokens before them that the engine has.
    pub depth: u64,
    /// Tokens of each answer.
    pub answer: u64,
    /// How many calls at the same time.
    pub sequences: u64,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// What was measured.
    pub size: Size,
    /// The mean of its times, in the metric's unit; without the shortest and the longest where there are enough.
    pub value: f64,
    /// The least and the largest.
    pub range: (f64, f64),
    /// How many times it was measured.
    pub times: u32,
    /// How many tokens of the depth the engine took from its cache, where it tells.
    pub cached: Option<u64>,
}

impl Point {
    /// Returns whether it is known what the engine had to read.
    pub fn is_clear(&self) -> bool {
        self.size.metric == Metric::Decode || self.size.depth == 0 || self.cached.is_some()
    }

    /// Returns the time behind the figure, as the `line`-th of what was measured at `place`.
    ///
    /// What an engine had to read again although it was meant to find it counts as read.
    pub fn row(&self, of: &Of, place: &str, line: usize) -> Row {
        let size = &self.size;
        let found = self.cached.unwrap_or(size.depth).min(size.depth);
        let row = Row {
            what: What::FirstToken,
            prompt: size.prompt + (size.depth - found),
            depth: found,
            answer: 0,
            sequences: size.sequences,
            chunk: None,
            seconds: self.value / 1e3,
            of: of.clone(),
            file: place.to_string(),
            line,
        };
        match size.metric {
            Metric::FirstToken => row,
            Metric::Decode => Row {
                what: What::Decode,
                prompt: 0,
                depth: size.depth + size.prompt + 1,
                answer: size.answer.saturating_sub(1),
                seconds: size.answer.saturating_sub(1) as f64 / self.value,
                ..row
            },
        }
    }
}

/// What an engine has room for, as far as it tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Tokens of one call.
    pub context: u64,
    /// Calls at the same time.
    pub slots: u64,
    /// Whether all calls may have to share one context: llama.cpp does not tell.
    pub shared: bool,
}

/// Tokens that are kept free: for the engine's template, and for words that are more tokens than they were taken for.
const SPARE: u64 = 128;

impl Room {
    fn holds(&self, size: &Size) -> bool {
        let each = size.depth + size.prompt + size.answer + SPARE;
        let all = if self.shared { size.sequences } else { 1 };
        each.saturating_mul(all) <= self.context && size.sequences <= self.slots
    }
}

/// Sizes in the order in which they are measured, as far as there is room for them: shallow ones first, in case time runs
/// out, and each depth at once, while it is in the cache.
///
/// Longer prompts are no powers of two: what agents add to theirs is none, and kernels that work in tiles favour those.
pub fn sizes(quick: bool, room: Room) -> Vec<Size> {
    let first = |prompt, depth| Size {
        metric: Metric::FirstToken,
        prompt,
        depth,
        answer: 1,
        sequences: 1,
    };
    let decode = |depth, answer, sequences| Size {
        metric: Metric::Decode,
        prompt: 16,
        depth,
        answer,
        sequences,
    };
    let mut sizes = vec![
        first(16, 0),
        first(1900, 0),
        first(130, 0),
        first(500, 0),
        decode(1000, 96, 1),
        decode(1000, 64, 8),
        decode(1000, 64, 2),
        decode(1000, 64, 4),
        first(300, 4000),
        first(30, 4000),
        decode(4000, 64, 1),
        decode(4000, 64, 4),
        first(1100, 4000),
        first(200, 8000),
        first(16, 8000),
        decode(8000, 64, 1),
        first(8000, 0),
        decode(8000, 64, 4),
    ];
    if !quick {
        sizes.extend([
            decode(1000, 64, 16),
            decode(4000, 64, 8),
            first(500, 16_000),
            first(30, 16_000),
            first(2100, 16_000),
            decode(16_000, 64, 1),
            first(500, 32_000),
            decode(32_000, 64, 1),
            first(500, 48_000),
            first(32_000, 0),
        ]);
    }
    sizes.retain(|size| room.holds(size));
    sizes
}

/// Measures what `sizes` name, in rounds until `budget` is spent or there are enough; tells of each size when it is first
/// known, and returns those that are known in their order.
///
/// A machine is not as fast in one minute as in the next: rounds have every figure see the same minutes.
pub async fn measure(
    met: &Met,
    sizes: &[Size],
    budget: Span,
    mut tell: impl FnMut(&Point),
) -> Result<Vec<Point>, String> {
    // A slot that does not exist would be waited for.
    let pinned = met.client().engine == Engine::LlamaCpp && slots(&met.point().settings).is_some();
    let mut probe = Probe {
        client: Arc::clone(met.client()),
        prepared: met.prepared().clone(),
        clock: Clock::start(),
        // Content that no earlier measurement has left behind.
        salt: std::process::id().wrapping_mul(SPREAD),
        pinned,
        depths: BTreeMap::new(),
    };
    let end = Time::ZERO + budget;
    let mut seen: Vec<Seen> = sizes.iter().map(|_| Seen::default()).collect();
    'rounds: for round in 0..ROUNDS {
        for (size, seen) in sizes.iter().zip(&mut seen) {
            let Some(depths) = probe.depths(size, end).await? else {
                break 'rounds;
            };
            for _ in 0..REPEATS {
                if probe.clock.now() >= end {
                    break 'rounds;
                }
                let (value, cached) = match probe.once(size, &depths).await {
                    Ok(seen) => seen,
                    // What is known is kept, and several at a time may be more than there is room for.
                    Err(_) if round > 0 => break 'rounds,
                    Err(_) if size.sequences > 1 => break,
                    Err(why) => return Err(why),
                };
                // Answers that were to be written together and were written in turns say that there is no room for so many.
                seen.values.extend(value);
                seen.cached = cached.or(seen.cached);
            }
            if round == 0 {
                seen.point(size).iter().for_each(&mut tell);
            }
        }
    }
    let both = sizes.iter().zip(&seen);
    Ok(both.filter_map(|(size, seen)| seen.point(size)).collect())
}

/// Tokens of a call that is not measured.
const LITTLE: u64 = 16;
/// How often each size is visited at most, and how often it is measured at each visit.
const ROUNDS: usize = 5;
const REPEATS: usize = 3;
/// From so many values on the least and the largest do not count.
const TRIMMED: usize = 3;
/// Spreads process numbers, so that no two runs say the same: 2^32 over the golden ratio.
const SPREAD: u32 = 2_654_435_769;

/// What was seen of one size so far.
#[derive(Default)]
struct Seen {
    values: Vec<f64>,
    cached: Option<u64>,
}

impl Seen {
    /// Returns what came of it; nothing where nothing was seen.
    fn point(&self, size: &Size) -> Option<Point> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let all = values.len();
        let counted = if all < TRIMMED {
            &values[..]
        } else {
            &values[1..all - 1]
        };
        let per = |value: &f64| match size.metric {
            Metric::FirstToken => *value,
            Metric::Decode => 1.0 / value,
        };
        let mean = counted.iter().map(per).sum::<f64>() / counted.len() as f64;
        Some(Point {
            size: *size,
            value: per(&mean),
            range: (least, most),
            times: all as u32,
            cached: self.cached,
        })
    }
}

struct Probe {
    client: Arc<Client>,
    prepared: Prepared,
    clock: Clock,
    salt: u32,
    /// Whether calls are told which slot to use.
    pinned: bool,
    /// Contexts that prompts stand after, by their length: what was read once need not be read again.
    depths: BTreeMap<u64, Vec<Arc<Stretch>>>,
}

impl Probe {
    /// Returns a context for each sequence, and has the engine read those that it does not have in its cache; nothing when
    /// it is not done with that at `end`.
    async fn depths(
        &mut self,
        size: &Size,
        end: Time,
    ) -> Result<Option<Vec<Arc<Stretch>>>, String> {
        let mut depths = self.depths.remove(&size.depth).unwrap_or_default();
        while (depths.len() as u64) < size.sequences {
            depths.push(Arc::new(self.stretch(size.depth)));
        }
        let used = depths[..size.sequences as usize].to_vec();
        self.depths.insert(size.depth, depths);
        for (place, depth) in used.iter().enumerate() {
            if self.clock.now() >= end {
                return Ok(None);
            }
            let client = self.client(place);
            if size.depth > 0 {
                self.ask(&client, depth, None, 1).await?;
            } else {
                // What the engine does with the call before is not to be measured with this one.
                let little = self.stretch(LITTLE);
                self.ask(&client, &little, None, 1).await?;
            }
        }
        Ok(Some(used))
    }

    /// Returns the way to the engine for the `place`-th of the calls at the same time.
    ///
    /// llama.cpp is told which slot to use: rows of one pass are from slots that follow each other, so several calls must not
    /// leave gaps, and a slot that it chooses itself it may have to save first.
    fn client(&self, place: usize) -> Arc<Client> {
        if !self.pinned {
            return Arc::clone(&self.client);
        }
        let mut client = Client::clone(&self.client);
        client.extra.insert("id_slot".to_string(), place.into());
        Arc::new(client)
    }

    /// Measures once, where it can be measured; also returns how much came from the cache, where that is told.
    async fn once(
        &mut self,
        size: &Size,
        depths: &[Arc<Stretch>],
    ) -> Result<(Option<f64>, Option<u64>), String> {
        let prompts: Vec<Stretch> = depths.iter().map(|_| self.stretch(size.prompt)).collect();
        let probe = &*self;
        let both = depths.iter().zip(&prompts).enumerate();
        let calls = both.map(|(place, (depth, new))| {
            let client = probe.client(place);
            async move { probe.ask(&client, depth, Some(new), size.answer).await }
        });
        let seen = futures_util::future::join_all(calls).await;
        let seen = seen
            .into_iter()
            .collect::<Result<Vec<Measured>, String>>()?;
        let one = &seen[0];
        let Some((first, _)) = one.pieces.first() else {
            return Err("the engine said nothing".to_string());
        };
        let value = match size.metric {
            Metric::FirstToken => Some((*first - one.sent.unwrap_or(one.started)).secs() * 1e3),
            Metric::Decode => rate(&seen),
        };
        Ok((value, one.cached))
    }

    /// Returns content that nothing else has.
    fn stretch(&mut self, tokens: u64) -> Stretch {
        self.salt = self.salt.wrapping_add(1);
        let (node, words) = (NodeId(self.salt), &self.prepared.vocabulary);
        match self.prepared.form {
            Form::Ids => {
                let mut ids = Vec::new();
                words.ids(0, node, 0, Tokens(tokens), &mut ids);
                Stretch::Ids(ids)
            }
            Form::Messages => Stretch::Text(words.text(0, node, 0, Tokens(tokens)).0),
        }
    }

    /// Makes a call whose prompt is `depth`, and something new after it.
    async fn ask(
        &self,
        client: &Client,
        depth: &Stretch,
        new: Option<&Stretch>,
        most: u64,
    ) -> Result<Measured, String> {
        let (mut ids, mut text) = (Vec::new(), OPENING.to_string());
        for stretch in std::iter::once(depth).chain(new) {
            match stretch {
                Stretch::Ids(more) => ids.extend_from_slice(more),
                Stretch::Text(more) => text += more,
            }
        }
        let prompt = match self.prepared.form {
            Form::Ids => Prompt::Ids(ids),
            Form::Messages => Prompt::Messages(vec![(Role::User, text)]),
        };
        let now = self.clock.now();
        let begun = Measured::begun(now, now);
        let (seen, rest) = client.ask(self.clock, begun, prompt, most).await;
        if let Some(mut rest) = rest {
            while let Ok(Some(_)) = rest.chunk().await {}
        }
        match (&seen.error, seen.outcome.failed()) {
            (Some(why), true) => Err(why.clone()),
            _ => Ok(seen),
        }
    }
}

/// Returns the tokens per second of each answer while all of them are written; nothing when they never are.
fn rate(seen: &[Measured]) -> Option<f64> {
    let firsts = seen.iter().map(|one| one.pieces.first().map(|(at, _)| *at));
    let lasts = seen.iter().map(|one| one.pieces.last().map(|(at, _)| *at));
    let from = firsts.collect::<Option<Vec<Time>>>()?.into_iter().max()?;
    let to = lasts.collect::<Option<Vec<Time>>>()?.into_iter().min()?;
    let shortest = seen
        .iter()
        .map(|one| one.pieces.last().zip(one.pieces.first()));
    let shortest = shortest.map(|ends| ends.map(|((last, _), (first, _))| *last - *first));
    let shortest = shortest.collect::<Option<Vec<Span>>>()?.into_iter().min()?;
    // Answers that hardly overlap were written in turns.
    if to <= from || 2.0 * (to - from).secs() < shortest.secs() {
        return None;
    }
    let tokens: f64 = seen.iter().map(|one| tokens_within(one, from, to)).sum();
    Some(tokens / seen.len() as f64 / (to - from).secs())
}

/// Returns how many tokens of an answer came after `from` and until `to`.
fn tokens_within(one: &Measured, from: Time, to: Time) -> f64 {
    let held = |within: &dyn Fn(Time) -> bool| -> u64 {
        let pieces = one.pieces.iter().filter(|(at, _)| within(*at));
        pieces.map(|(_, held)| u64::from(held.unwrap_or(1))).sum()
    };
    // Where pieces do not say how many tokens they hold, they hold equally many.
    let each = one.output_tokens().as_f64() / held(&|_| true).max(1) as f64;
    held(&|at| at > from && at <= to) as f64 * each
}

enum Stretch {
    Ids(Vec<u32>),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Room = Room {
        context: u64::MAX,
        slots: u64::MAX,
        shared: false,
    };

    #[test]
    fn a_point_is_the_time_behind_its_figure() {
        let all = sizes(true, ROOMY);
        let of = |metric| all.iter().find(|size| size.metric == metric).copied();
        let row = |size: Option<Size>, value| {
            let point = Point {
                size: size.expect("each kind is measured"),
                value,
                range: (value, value),
                times: 3,
                cached: Some(0),
            };
            point.row(&Of::default(), "there", 1)
        };
        let first = row(of(Metric::FirstToken), 250.0);
        assert_eq!(
            (first.what, first.prompt, first.depth),
            (What::FirstToken, 16, 0)
        );
        assert!((first.seconds - 0.25).abs() < 1e-12);
        // 95 tokens follow the first of 96; the context holds 1000 and 16 and that first one by then.
        let decode = row(of(Metric::Decode), 9.5);
        assert_eq!((decode.depth, decode.answer), (1017, 95));
        assert!((decode.seconds - 10.0).abs() < 1e-12);
        let deep = all.iter().find(|size| size.depth == 4000).copied();
        let again = row(deep, 1000.0);
        assert_eq!((again.prompt, again.depth), (300 + 4000, 0));
    }

    #[test]
    fn answers_count_while_all_are_written() {
        let call = |stamps: &[u64], tokens: u64| {
            let mut one = Measured::begun(Time::ZERO, Time::ZERO);
            one.pieces = stamps
                .iter()
                .map(|ms| (Time(ms * 1_000_000), None))
                .collect();
            one.output = Some(tokens);
            one
        };
        // Both write from 100 to 300 ms: two pieces, and four of two tokens each; five tokens on average.
        let both = [
            call(&[0, 100, 200, 300], 4),
            call(&[100, 150, 200, 250, 300, 350], 12),
        ];
        let per_s = rate(&both).expect("they overlap");
        assert!((per_s - 5.0 / 0.2).abs() < 1e-9, "{per_s}");
        let in_turn = [call(&[0, 100], 2), call(&[150, 250], 2)];
        assert_eq!(rate(&in_turn), None);
    }

    #[test]
    fn sizes_fit_the_context_and_the_quick_ones_are_a_part_of_all() {
        let all = sizes(false, ROOMY);
        for size in sizes(true, ROOMY) {
            assert!(all.contains(&size));
        }
        let small = Room {
            context: 4096,
            slots: 4,
            shared: false,
        };
        let fit = sizes(false, small);
        assert!(
            fit.iter()
                .any(|size| size.depth == 1000 && size.sequences == 4)
        );
        // A call of 4000 and 16 and 64 tokens would leave no room for a template.
        assert!(
            fit.iter()
                .all(|size| size.depth < 4000 && size.sequences <= 4)
        );
        let pool = Room {
            context: 16_384,
            shared: true,
            ..ROOMY
        };
        let most = |depth| {
            let at = sizes(true, pool)
                .into_iter()
                .filter(|size| size.depth == depth);
            at.map(|size| size.sequences).max()
        };
        assert_eq!((most(1000), most(8000)), (Some(8), Some(1)));
    }
}
