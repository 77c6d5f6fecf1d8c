//! Why it takes as long as it does, and what would help; schema `laptime.explain/1`.

use super::{ALARM, ANSWER, FAINT, TITLE, heads, how_known, line};
use crate::metrics::lap::{Binds, Bottleneck};
use crate::report::table::{Align, Cell, Look, Table, bar, painted, wrapped};
use crate::report::text::{percent, what_bound};
use crate::study::explain::{Effect, Explained};
use crate::units::Span;
use serde_json::{Value, json};
use std::fmt::Write;

/// A change that saves less than this share is none.
const WORTH: f64 = 0.005;

/// Returns the answer for people.
pub fn render(explained: &Explained, look: Look) -> String {
    let base = &explained.base;
    let mut text = painted(&base.point.name, TITLE) + "\n\n";
    let run = base
        .summary
        .run
        .map_or("-".to_string(), |run| run.p50.to_string());
    let lap = base
        .summary
        .lap
        .map_or("-".to_string(), |lap| lap.p95.to_string());
    let _ = writeln!(
        text,
        "  a run takes {}, a lap at most {lap} in 95 of 100",
        painted(&run, ANSWER)
    );
    let _ = writeln!(text, "  {}", painted(&headline(explained), ANSWER));
    text += &line("known", &wrapped(&how_known(base), look.width, 9));
    let _ = writeln!(text, "\n{}", painted("where the time of laps went", TITLE));
    text += &gathered(explained, look);
    let bound = what_bound(&base.summary, look);
    if !bound.is_empty() {
        let _ = writeln!(text, "\n{}", bound.trim_end());
    }
    if !explained.slow.is_empty() {
        let _ = writeln!(text, "\n{}", painted("slowest laps", TITLE));
        text += &slow(explained);
    }
    if !explained.causes.is_empty() {
        let told = "run time that would be saved if it were not there";
        let _ = writeln!(
            text,
            "\n{}  {}",
            painted("what is to blame", TITLE),
            painted(told, FAINT)
        );
        text += &effects(&explained.causes, |cause| cause.word(), look);
    }
    if !explained.levers.is_empty() {
        let told = "run time saved by this one change, simulated";
        let _ = writeln!(
            text,
            "\n{}  {}",
            painted("what would help", TITLE),
            painted(told, FAINT)
        );
        text += &effects(&explained.levers, |lever| lever.word(), look);
    }
    if explained.causes.is_empty() && explained.levers.is_empty() {
        let told =
            "what would help is simulated when --trace and, for a live result, --rig are given";
        let _ = writeln!(text, "\n  {}", painted(told, FAINT));
    }
    text
}

/// The answer in a sentence.
fn headline(explained: &Explained) -> String {
    let parts = &explained.parts;
    let total = parts.total().secs();
    let spent = parts.binds().map(|what| {
        let spent = parts.gathered();
        let spent = spent.iter().filter(|(one, _)| *one == what);
        let spent: Span = spent.map(|(_, span)| *span).sum();
        format!(
            "most of it is {}, {}",
            what.word(),
            percent(spent.secs(), total)
        )
    });
    let bound = explained.base.summary.binds();
    let binds = match (spent, bound) {
        (None, _) => "nothing takes any time".to_string(),
        (Some(spent), None) => spent,
        (Some(spent), Some(bound)) => format!("{spent}; what binds is {}", bound.words()),
    };
    let Some(worst) = explained.causes.first() else {
        return binds;
    };
    if worst.saved < WORTH {
        return format!("{binds}; nothing is to blame but the rig itself");
    }
    format!(
        "{binds}; most to blame is {}: without it runs would take {} less",
        worst.what.word(),
        percent(worst.saved, 1.0)
    )
}

fn gathered(explained: &Explained, look: Look) -> String {
    let parts = &explained.parts;
    let total = parts.total().secs();
    let mut all: Vec<(Bottleneck, Span)> = parts.gathered().to_vec();
    all.retain(|(_, span)| *span > Span::ZERO);
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
    for (what, span) in all {
        table.row([
            Cell::from(what.word()),
            Cell::from(span),
            Cell::from(percent(span.secs(), total)).styled(TITLE),
            Cell::from(bar(
                span.secs() / total,
                look.width.saturating_sub(50).clamp(8, 40),
                look,
            ))
            .styled(ANSWER),
        ]);
    }
    table.render()
}

fn slow(explained: &Explained) -> String {
    let mut table = Table::new([Align::Right, Align::Left, Align::Left, Align::Left]);
    for slow in &explained.slow {
        let total = slow.lap.parts.total();
        let mostly = slow.mostly.map_or(String::new(), |(what, span)| {
            format!("{} {}", what.word(), percent(span.secs(), total.secs()))
        });
        let key = slow.lap.lap;
        let thread = if key.thread == 0 {
            String::new()
        } else {
            format!(", sub-agent {}", key.thread)
        };
        table.row([
            Cell::from(total).styled(ANSWER),
            Cell::from(format!("run {} lap {}{thread}", key.run.0, key.lap)),
            Cell::from(mostly),
            Cell::from(&slow.why).styled(FAINT),
        ]);
    }
    table.render()
}

/// A row for each change that makes any difference, and a line for the others.
fn effects<W>(effects: &[Effect<W>], word: impl Fn(&W) -> &'static str, look: Look) -> String {
    let nothing = |effect: &&Effect<W>| {
        let ends = effect.interval.map_or([0.0; 2], |(low, high)| [low, high]);
        // What would be printed as 0.0 %.
        let seen = ends.iter().chain([&effect.saved]);
        seen.copied().all(|share| share.abs() < 0.0005)
    };
    let (idle, told): (Vec<_>, Vec<_>) = effects.iter().partition(nothing);
    let idle: Vec<&str> = idle.iter().map(|effect| word(&effect.what)).collect();
    let idle = if idle.is_empty() {
        String::new()
    } else {
        line("no difference", &wrapped(&idle.join(", "), look.width, 17))
    };
    if told.is_empty() {
        return idle;
    }
    let mut table = Table::new([Align::Left, Align::Right, Align::Left, Align::Left]);
    table.row(heads(["", "saves", "may be", "simulated as"]));
    for effect in told {
        let saved = effect.saved;
        let style = if saved >= WORTH {
            ANSWER
        } else if saved <= -WORTH {
            ALARM
        } else {
            FAINT
        };
        let interval = effect
            .interval
            .map_or("not known".to_string(), |(low, high)| {
                format!("{:.1} to {:.1} %", low * 100.0, high * 100.0)
            });
        table.row([
            Cell::from(word(&effect.what)),
            Cell::from(format!("{:.1} %", saved * 100.0)).styled(style),
            Cell::from(interval),
            Cell::from(effect.change.told()).styled(FAINT),
        ]);
    }
    table.render() + &idle
}

/// Returns the answer for programs.
pub fn document(explained: &Explained) -> Value {
    let base = &explained.base;
    let slow = explained.slow.iter().map(|slow| {
        let key = slow.lap.lap;
        json!({
            "run": key.run.0, "session": slow.session, "thread": key.thread, "lap": key.lap,
            "took_s": slow.lap.parts.total().secs(),
            "mostly": slow.mostly.map(|(what, _)| what.word()), "why": slow.why,
        })
    });
    json!({
        "schema": "laptime.explain/1",
        "laptime_version": env!("CARGO_PKG_VERSION"),
        "seed": base.workload.seed,
        "rig": base.point.name,
        "kind": base.point.kind.word(),
        "trust": base.point.trust.word(),
        "binds": base.summary.mostly().map(Binds::name),
        "bound_s": base.summary.bound.map(|bound| named(&bound.named())),
        "parts_s": named(&base.summary.parts.named()),
        "slowest_laps": slow.collect::<Vec<Value>>(),
        "causes": explained.causes.iter().map(|effect| told(effect, effect.what.word())).collect::<Vec<Value>>(),
        "changes": explained.levers.iter().map(|effect| told(effect, effect.what.word())).collect::<Vec<Value>>(),
    })
}

fn named(spans: &[(&'static str, Span)]) -> Value {
    let named = spans
        .iter()
        .map(|(name, span)| ((*name).to_string(), json!(span.secs())));
    Value::Object(named.collect())
}

fn told<W>(effect: &Effect<W>, name: &str) -> Value {
    json!({
        "name": name,
        "change": effect.change.told(),
        "saved_share": effect.saved,
        "interval": effect.interval.map(|(low, high)| [low, high]),
    })
}
