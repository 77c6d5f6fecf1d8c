//! Can it be true? A claimed speed against what the machine can do at the very best.

use crate::catalog::claim::{Claim, Metric};
use crate::catalog::{Catalog, Hardware, Unknown};
use crate::known::Trust;
use crate::rig::ceiling::{By, Ceiling, NoCeiling, ceiling};
use crate::units::{Bytes, three_digits};

/// How much a rounded figure may lie above a ceiling without being called impossible.
const ROUNDING: f64 = 1.025;
/// The share of a ceiling that published measurements have reached; see `docs/claims.md`.
const EVER_REACHED: f64 = 0.9;

/// Whether a claim can be true.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Nothing speaks against it.
    Possible,
    /// Above what machines have been measured to reach, or to be expected to.
    Unlikely,
    /// The upper end of the range is impossible, the lower is not.
    PartlyImpossible,
    /// It is above what the machine can do.
    Impossible,
    /// It depends on something that the catalogue does not know.
    CannotTell,
}

impl Verdict {
    /// Returns the word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Possible => "possible",
            Verdict::Unlikely => "unlikely",
            Verdict::PartlyImpossible => "partly impossible",
            Verdict::Impossible => "impossible",
            Verdict::CannotTell => "cannot tell",
        }
    }
}

/// A claim and what became of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The machine it was held against.
    pub hardware: String,
    /// The claim.
    pub claim: Claim,
    /// The ceiling, where there is one.
    pub ceiling: Option<Ceiling>,
    /// The lower and the upper end as shares of the ceiling.
    pub fraction: Option<(f64, f64)>,
    /// Whether it can be true.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// Judges a claim about one machine.
pub fn judge(claim: &Claim, hardware: &Hardware, catalog: &Catalog) -> Result<Judged, Unknown> {
    let model = catalog.model(&claim.model)?;
    let found = ceiling(hardware, model, claim.metric, claim.streams, claim.context);
    let judged = |ceiling, fraction, verdict, why| Judged {
        hardware: hardware.name.clone(),
        claim: Claim {
            model: model.name.clone(),
            ..claim.clone()
        },
        ceiling,
        fraction,
        verdict,
        why,
    };
    Ok(match found {
        Err(NoCeiling::DoesNotFit { needs, has }) => {
            let why = format!(
                "it does not fit: {} needed, {} there",
                Bytes(needs as u64),
                Bytes(has as u64)
            );
            let verdict = if hardware.usable.trust == Trust::Estimate
                && needs <= hardware.memory_total().as_f64()
            {
                Verdict::CannotTell
            } else {
                Verdict::Impossible
            };
            judged(None, None, verdict, why)
        }
        Err(NoCeiling::NotPublished) => {
            let why = "its arithmetic rate is not published".to_string();
            judged(None, None, Verdict::CannotTell, why)
        }
        Ok(ceiling) => {
            let fraction = fraction(claim, ceiling.hard);
            let (verdict, why) = verdict(claim, &ceiling, fraction);
            judged(Some(ceiling), Some(fraction), verdict, why)
        }
    })
}

/// Returns the ends of the claim as shares of the ceiling, the modest end first.
fn fraction(claim: &Claim, hard: f64) -> (f64, f64) {
    match claim.metric {
        Metric::FirstToken => (hard / claim.high, hard / claim.low),
        _ => (claim.low / hard, claim.high / hard),
    }
}

fn verdict(claim: &Claim, ceiling: &Ceiling, (low, high): (f64, f64)) -> (Verdict, String) {
    let unit = claim.metric.unit();
    let limit = match claim.metric {
        Metric::FirstToken => format!("at least {} {unit}", three_digits(ceiling.hard)),
        _ => format!("at most {} {unit}", three_digits(ceiling.hard)),
    };
    let by = ceiling.by.words();
    if let By::Link { spilled } = ceiling.by
        && high > ROUNDING
    {
        let host = |rate: f64| three_digits(spilled * rate / 1e9);
        let why = format!(
            "{} of the weights do not fit: {limit} over the host link; more only if the host computes them itself, from memory of {} to {} GB/s",
            Bytes(spilled as u64),
            host(claim.low),
            host(claim.high)
        );
        return (Verdict::CannotTell, why);
    }
    let times = |share: f64| match claim.metric {
        Metric::FirstToken => format!("{} times as fast", three_digits(share)),
        _ => format!("{} times that", three_digits(share)),
    };
    if low > ROUNDING {
        let why = format!("{limit} by {by}; the claim is {}", times(low));
        // What rests on an estimate is not impossible on its word alone.
        let sure = ceiling.trust < Trust::Estimate || low > 2.0;
        return if sure {
            (Verdict::Impossible, why)
        } else {
            (
                Verdict::Unlikely,
                format!("{why}, but the {by} is an estimate"),
            )
        };
    }
    if high > ROUNDING {
        let why = format!("{limit} by {by}; the upper end is {}", times(high));
        return (Verdict::PartlyImpossible, why);
    }
    let expected = fraction(claim, ceiling.expected);
    if expected.0 > ROUNDING {
        let what = match claim.metric {
            Metric::Aggregate => "only if the streams choose the same experts: spread evenly,",
            _ => "only in a faster format than the model's own, which gives",
        };
        let why = format!("{what} {} {unit} by {by}", three_digits(ceiling.expected));
        return (Verdict::Unlikely, why);
    }
    if high > EVER_REACHED {
        let why = format!("{limit} by {by}; measured engines reach 40 to 87 % of such a ceiling");
        return (Verdict::Unlikely, why);
    }
    (Verdict::Possible, format!("{limit} by {by}"))
}

/// Judges every published claim of the catalogue, in its order.
pub fn published(catalog: &Catalog) -> Result<Vec<Judged>, Unknown> {
    let claims = catalog.claims().iter();
    claims
        .map(|claim| {
            let hardware = catalog.hardware(claim.hardware.as_deref().unwrap_or_default())?;
            judge(claim, hardware, catalog)
        })
        .collect()
}

/// Reads a claim as people type it: `llama-3.1-70b-q4_k_m 45 tok/s decode @8k x4`.
///
/// After the model and the figure (or a range `40-48`) follow, in any order and all optional: the unit, one of
/// `decode`, `prefill`, `aggregate` and `ttft`, the context as `@8k`, the number of streams as `x4`.
pub fn parse(text: &str) -> Result<Claim, String> {
    let mut words = text.split_whitespace();
    let shape = || {
        format!(
            "`{text}` is no claim; write it as \"MODEL 45 tok/s\", and if need be decode, prefill or aggregate, @CONTEXT and xSTREAMS, such as \"llama-3.1-70b-q4_k_m 45 tok/s @8k\" or \"gpt-oss-120b-mxfp4 1.8 s @8k\""
        )
    };
    let model = words.next().ok_or_else(shape)?.to_lowercase();
    let figure = words.next().ok_or_else(shape)?;
    // The unit may stand against the figure.
    let end = figure.find(|c: char| c.is_ascii_alphabetic());
    let (figure, unit) = figure.split_at(end.unwrap_or(figure.len()));
    let (low, high) = figure.split_once('-').unwrap_or((figure, figure));
    let number = |text: &str| {
        let number = text
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite() && *n > 0.0);
        number.ok_or_else(shape)
    };
    let (low, high) = (number(low)?, number(high)?);
    let mut claim = Claim {
        hardware: None,
        model,
        metric: Metric::Decode,
        low: low.min(high),
        high: low.max(high),
        streams: 1,
        context: 0,
        conditions: None,
        source: "typed".to_string(),
    };
    let mut named = None;
    let mut seconds = false;
    for word in std::iter::once(unit)
        .filter(|unit| !unit.is_empty())
        .chain(words)
    {
        let metric = Metric::ALL.into_iter().find(|metric| metric.word() == word);
        match word {
            "tok/s" | "t/s" | "tokens/s" => {}
            "s" => seconds = true,
            _ if metric.is_some() => named = metric,
            _ => {
                let count = |text: &str| thousands(text).ok_or_else(shape);
                if let Some(context) = word.strip_prefix('@') {
                    claim.context = count(context)?;
                } else if let Some(streams) = word.strip_prefix('x') {
                    claim.streams = count(streams)?.max(1);
                } else {
                    return Err(shape());
                }
            }
        }
    }
    claim.metric = match named {
        Some(metric) => metric,
        None if seconds => Metric::FirstToken,
        None if claim.streams > 1 => Metric::Aggregate,
        None => Metric::Decode,
    };
    if seconds != (claim.metric == Metric::FirstToken) {
        return Err(shape());
    }
    if claim.metric == Metric::FirstToken && claim.context == 0 {
        return Err(format!(
            "`{text}` names no prompt; add its length, such as @8k"
        ));
    }
    Ok(claim)
}

/// Reads "8192" or "8k".
fn thousands(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1024),
        None => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|count| *count < 1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(hardware: &str, text: &str) -> Judged {
        let catalog = Catalog::builtin();
        let hardware = catalog.hardware(hardware).unwrap();
        judge(&parse(text).unwrap(), hardware, &catalog).unwrap()
    }

    /// 273 GB/s over the 40 GB of a dense 70B at four bits are 7 tokens a second; a file of 39.59 GiB says so too.
    #[test]
    fn a_70b_on_a_spark_writes_at_most_seven_tokens_a_second() {
        let wild = judged("dgx-spark", "llama-3.1-70b-q4_k_m 60 tok/s");
        let ceiling = wild.ceiling.unwrap().hard;
        assert!((6.3..7.1).contains(&ceiling), "{ceiling}");
        assert_eq!(wild.verdict, Verdict::Impossible);
        let sober = judged("dgx-spark", "llama-3.1-70b-q4_k_m 5 tok/s");
        assert_eq!(sober.verdict, Verdict::Possible);
        let greedy = judged("dgx-spark", "llama-3.1-70b-q4_k_m 6.5 tok/s");
        assert_eq!(greedy.verdict, Verdict::Unlikely);
        let wide = judged("dgx-spark", "llama-3.1-70b-q4_k_m 5-20 tok/s");
        assert_eq!(wide.verdict, Verdict::PartlyImpossible);
    }

    #[test]
    fn context_streams_and_memory_count() {
        let alone = judged("h100", "llama-3.1-8b-bf16 100 tok/s")
            .ceiling
            .unwrap();
        let deep = judged("h100", "llama-3.1-8b-bf16 100 tok/s @64k")
            .ceiling
            .unwrap();
        let many = judged("h100", "llama-3.1-8b-bf16 100 tok/s x16")
            .ceiling
            .unwrap();
        assert!(deep.hard < alone.hard && many.hard > 15.0 * alone.hard);
        let huge = judged("dgx-spark", "deepseek-v3-fp8 1 tok/s");
        assert_eq!(huge.verdict, Verdict::Impossible);
        assert!(huge.why.contains("does not fit"), "{}", huge.why);
        let spilled = judged("rtx-5090", "llama-3.1-70b-q4_k_m 8-12 tok/s");
        assert_eq!(spilled.verdict, Verdict::CannotTell, "{}", spilled.why);
    }

    #[test]
    fn claims_are_read_as_people_type_them() {
        let read = |text: &str| {
            let claim = parse(text).unwrap();
            (
                claim.metric,
                claim.low,
                claim.high,
                claim.streams,
                claim.context,
            )
        };
        assert_eq!(read("m 45 tok/s"), (Metric::Decode, 45.0, 45.0, 1, 0));
        assert_eq!(
            read("m 40-48tok/s @8k"),
            (Metric::Decode, 40.0, 48.0, 1, 8192)
        );
        assert_eq!(read("m 900 x16"), (Metric::Aggregate, 900.0, 900.0, 16, 0));
        assert_eq!(read("m 1.8 s @8k"), (Metric::FirstToken, 1.8, 1.8, 1, 8192));
        assert_eq!(read("m 500 prefill"), (Metric::Prefill, 500.0, 500.0, 1, 0));
        for wrong in [
            "",
            "m",
            "m fast",
            "m -3 tok/s",
            "m 3 apples",
            "m 3 s",
            "m 3 tok/s ttft @1k",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
