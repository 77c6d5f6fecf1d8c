//! What an engine can do, measured from outside: the times from which a rig is fitted.
//!
//! Prompts of several sizes, after contexts of several depths; answers at several depths; batches. Every prompt is new to
//! the engine but for the depth it is to find, so a cache helps only where it is meant to. Each row is a median: of three, or of
//! as many more as cost nothing.

use super::live::Met;
use crate::ids::NodeId;
use crate::live::client::Client;
use crate::live::clock::Clock;
use crate::live::measured::Measured;
use crate::live::prepare::Prepared;
use crate::live::prompt::{Form, Prompt, Role};
use crate::live::words::OPENING;
use crate::measured::{Of, Row, What};
use crate::units::{Span, Time, Tokens};
use std::sync::Arc;

/// What is measured at one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// The wait for the first token, in milliseconds.
    FirstToken,
    /// Tokens per second of one answer.
    Decode,
    /// From the first request of a batch to the end of its last answer, in seconds.
    Batch,
}

impl Metric {
    /// Returns its name in tables of measurements.
    pub fn word(self) -> &'static str {
        match self {
            Metric::FirstToken => "ttft_mean",
            Metric::Decode => "decode_tps",
            Metric::Batch => "batch_wall_s",
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
    /// Its median, in the metric's unit.
    pub value: f64,
    /// The least and the largest.
    pub range: (f64, f64),
    /// How many times it was measured.
    pub times: u32,
    /// How many tokens of the depth the engine took from its cache, where it tells.
    pub cached: Option<u64>,
}

impl Point {
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
            Metric::Batch => Row {
                what: What::Batch,
                answer: size.answer,
                seconds: self.value,
                ..row
            },
        }
    }
}

/// Sizes in the order in which they are measured: what matters most first, in case time runs out.
pub fn sizes(quick: bool, context: u64) -> Vec<Size> {
    let first = |prompt, depth| Size {
        metric: Metric::FirstToken,
        prompt,
        depth,
        answer: 1,
        sequences: 1,
    };
    let decode = |depth, answer| Size {
        metric: Metric::Decode,
        prompt: 16,
        depth,
        answer,
        sequences: 1,
    };
    let batch = |prompt, sequences| Size {
        metric: Metric::Batch,
        prompt,
        depth: 0,
        answer: 64,
        sequences,
    };
    // Two batches of unlike size tell what a second row costs from what each one does.
    let mut sizes = vec![
        first(16, 0),
        first(2048, 0),
        decode(512, 128),
        first(512, 4096),
        batch(512, 8),
        decode(8192, 64),
        batch(512, 2),
        first(8192, 0),
        first(512, 0),
    ];
    if !quick {
        sizes.extend([
            batch(512, 4),
            batch(512, 16),
            first(512, 16_384),
            decode(32_768, 64),
            first(32_768, 0),
            batch(4096, 4),
            first(2048, 16_384),
            first(512, 49_152),
        ]);
    }
    sizes.retain(|size| (size.depth + size.prompt + size.answer) * size.sequences.min(2) < context);
    sizes
}

/// Measures what `sizes` name, until `budget` is spent; tells of every point as soon as it is known.
pub async fn measure(
    met: &Met,
    sizes: &[Size],
    budget: Span,
    mut tell: impl FnMut(&Point),
) -> Result<Vec<Point>, String> {
    let mut probe = Probe {
        client: Arc::clone(met.client()),
        prepared: met.prepared().clone(),
        clock: Clock::start(),
        // Content that no earlier measurement has left behind.
        salt: std::process::id() << 8,
    };
    let mut points = Vec::new();
    for size in sizes {
        let (mut values, mut cached) = (Vec::new(), None);
        let began = probe.clock.now();
        loop {
            let now = probe.clock.now();
            let cheap = now < began + CHEAP && values.len() < MOST_REPEATS;
            if now >= Time::ZERO + budget || values.len() >= REPEATS && !cheap {
                break;
            }
            let (value, found) = probe.once(size).await?;
            values.push(value);
            cached = found.or(cached);
        }
        values.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            break;
        };
        let point = Point {
            size: *size,
            value: values[values.len() / 2],
            range: (least, most),
            times: values.len() as u32,
            cached,
        };
        tell(&point);
        points.push(point);
    }
    Ok(points)
}

/// How often each size is measured at least.
const REPEATS: usize = 3;
/// What is measured in less time than this is measured again, to lose what else the machine did meanwhile.
const CHEAP: Span = Span(2_000_000_000);
/// How often at most.
const MOST_REPEATS: usize = 15;

struct Probe {
    client: Arc<Client>,
    prepared: Prepared,
    clock: Clock,
    salt: u32,
}

impl Probe {
    /// Measures once; also returns how much came from the cache, where that is told.
    async fn once(&mut self, size: &Size) -> Result<(f64, Option<u64>), String> {
        let depth = self.stretch(size.depth);
        if size.depth > 0 {
            // The engine reads the depth beforehand, and keeps it if it keeps anything.
            self.ask(&depth, None, 1).await?;
        }
        let mut prompts = Vec::new();
        for _ in 0..size.sequences {
            prompts.push(self.stretch(size.prompt));
        }
        let calls = prompts
            .iter()
            .map(|new| self.ask(&depth, Some(new), size.answer));
        let began = self.clock.now();
        let seen = futures_util::future::join_all(calls).await;
        let took = self.clock.now() - began;
        let seen = seen
            .into_iter()
            .collect::<Result<Vec<Measured>, String>>()?;
        let one = &seen[0];
        let (first, last) = match (one.pieces.first(), one.pieces.last()) {
            (Some((first, _)), Some((last, _))) => (*first, *last),
            _ => return Err("the engine said nothing".to_string()),
        };
        let value = match size.metric {
            Metric::FirstToken => (first - one.sent.unwrap_or(one.started)).secs() * 1e3,
            Metric::Decode => {
                let tokens = one.output_tokens().0.saturating_sub(1);
                tokens as f64 / (last - first).secs().max(1e-9)
            }
            Metric::Batch => took.secs(),
        };
        Ok((value, one.cached))
    }

    /// Returns content that nothing else has.
    fn stretch(&mut self, tokens: u64) -> Stretch {
        self.salt += 1;
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
        let (seen, rest) = self.client.ask(self.clock, begun, prompt, most).await;
        if let Some(mut rest) = rest {
            while let Ok(Some(_)) = rest.chunk().await {}
        }
        match (&seen.error, seen.outcome.failed()) {
            (Some(why), true) => Err(why.clone()),
            _ => Ok(seen),
        }
    }
}

enum Stretch {
    Ids(Vec<u32>),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_time_behind_its_figure() {
        let all = sizes(true, u64::MAX);
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
        // 127 tokens follow the first of 128; the context holds 512 and 16 and that first one by then.
        let decode = row(of(Metric::Decode), 12.7);
        assert_eq!((decode.depth, decode.answer), (529, 127));
        assert!((decode.seconds - 10.0).abs() < 1e-12);
        let deep = all.iter().find(|size| size.depth == 4096).copied();
        let again = row(deep, 1000.0);
        assert_eq!((again.prompt, again.depth), (512 + 4096, 0));
        assert!((row(of(Metric::Batch), 3.0).seconds - 3.0).abs() < 1e-12);
    }

    #[test]
    fn sizes_fit_the_context_and_the_quick_ones_are_a_part_of_all() {
        let all = sizes(false, u64::MAX);
        for size in sizes(true, u64::MAX) {
            assert!(all.contains(&size));
        }
        assert!(
            sizes(false, 4096)
                .iter()
                .all(|size| size.depth + size.prompt + size.answer < 4096)
        );
        assert!(sizes(false, 4096).len() >= 4);
    }
}
