//! Does a change make agents slower? Thresholds, a baseline, and no alarm without cause.
//!
//! A figure fails against its baseline only where it got worse by more than its tolerance *and* chance hardly explains it.
//! Chance is judged by exchanging labels: of repeats, of pairs of repeats measured in turns, or, where there are too few
//! of them, of paired runs. Several figures share the risk of a false alarm (Holm's rule). What is simulated comes out the
//! same every time, so there any difference is real. Whole numbers that nothing random touches must not change at all.

use super::compare::relative_spread;
use super::figures::Figures;
use super::sample::Pairs;
use super::target::{Figure, Target};
use crate::rng;
use rand::Rng;

/// What must hold.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    /// Whatever the baseline says.
    pub targets: Vec<Target>,
    /// Figures, and by which share they may get worse.
    pub tolerances: Vec<(Figure, f64)>,
    /// Figures that must not change.
    pub exact: Vec<Figure>,
    /// How sure one must be that something got worse.
    pub confidence: f64,
    /// Whether results and baseline are pairs in their order.
    pub interleaved: bool,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It cannot be told from what there is.
    Unclear,
    /// It does not hold.
    Fail,
}

impl Gate {
    /// Returns what is asked of a real engine where no file says what must hold: no call fails, the same is cached, and nobody
    /// waits much longer. Six repeats on each side can tell three figures apart.
    pub fn usual() -> Gate {
        let figure = |name: &str| Figure::parse(name).expect("the name is written in this program");
        let tolerance = |name, share| (figure(name), share);
        Gate {
            targets: Target::parse("failed_calls<=0").into_iter().collect(),
            tolerances: vec![
                tolerance("run_s.p50", 0.1),
                tolerance("lap_s.p95", 0.1),
                tolerance("ttft_s.p95", 0.2),
            ],
            exact: ["calls", "tokens.prompt", "tokens.output", "tokens.cached"]
                .map(figure)
                .to_vec(),
            confidence: 0.95,
            interleaved: false,
        }
    }
}

impl Verdict {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Unclear => "unclear",
            Verdict::Fail => "fail",
        }
    }
}

/// What kind of check it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Against a limit.
    Target,
    /// Against the baseline, within a tolerance.
    Tolerance,
    /// Against the baseline, to the unit.
    Exact,
}

impl Kind {
    /// Returns its word, which is its key in a gate file.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Target => "target",
            Kind::Tolerance => "tolerance",
            Kind::Exact => "exact",
        }
    }
}

/// One check and how it came out.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// What kind of check.
    pub kind: Kind,
    /// The figure.
    pub figure: Figure,
    /// What was asked, as it was written.
    pub asked: String,
    /// The figure's value, the mean over repeats.
    pub value: Option<f64>,
    /// The limit, or the baseline's value.
    pub against: Option<f64>,
    /// How many times worse than the baseline; below 1 where better.
    pub worse: Option<f64>,
    /// How often chance alone makes it at least that much worse.
    pub chance: Option<f64>,
    /// How far apart repeats of the baseline lie, relative to their mean.
    pub spread: Option<f64>,
    /// How it came out.
    pub verdict: Verdict,
    /// Why.
    pub why: String,
}

/// Above so many ways to exchange labels they are drawn, not counted out.
const MOST_WAYS: u64 = 20_000;
/// Fewer repeats on either side say nothing of their spread.
const FEWEST_REPEATS: usize = 3;

/// Checks `found` against the gate, and against `baseline` where there is one.
pub fn judge(gate: &Gate, found: &[Figures], baseline: &[Figures], seed: u64) -> Vec<Finding> {
    let mut findings: Vec<Finding> = gate
        .targets
        .iter()
        .map(|target| against_limit(target, found))
        .collect();
    let regressions = gate.tolerances.iter().map(|(figure, tolerance)| {
        let asked = format!("{} {:.1} %", figure.name(), tolerance * 100.0);
        let finding = compared(Kind::Tolerance, figure, asked, found, baseline);
        let chance = chance(gate, figure, found, baseline, seed);
        (finding, *tolerance, chance)
    });
    findings.extend(held(
        regressions.collect(),
        gate.confidence,
        baseline.is_empty(),
    ));
    findings.extend(
        gate.exact
            .iter()
            .map(|figure| unchanged(figure, found, baseline)),
    );
    findings
}

fn values(of: &[Figures], figure: &Figure) -> Option<Vec<f64>> {
    let values: Option<Vec<f64>> = of.iter().map(|one| figure.value(one)).collect();
    values.filter(|values| !values.is_empty())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn against_limit(target: &Target, found: &[Figures]) -> Finding {
    let pairs: Option<Vec<(f64, f64)>> =
        found.iter().map(|one| target.against(one, None)).collect();
    let pairs = pairs.filter(|pairs| !pairs.is_empty());
    let value = pairs
        .as_ref()
        .map(|pairs| mean(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>()));
    let limit = pairs.as_ref().map(|pairs| pairs[0].1);
    let (verdict, why) = match value.zip(limit) {
        None => (Verdict::Fail, "the result does not say".to_string()),
        Some((value, limit)) if target.holds(value, limit) => (Verdict::Pass, String::new()),
        Some(_) => (Verdict::Fail, "beyond its limit".to_string()),
    };
    Finding {
        kind: Kind::Target,
        figure: target.figure.clone(),
        asked: target.text.clone(),
        value,
        against: limit,
        worse: None,
        chance: None,
        spread: values(found, &target.figure).and_then(|values| relative_spread(&values)),
        verdict,
        why,
    }
}

fn compared(
    kind: Kind,
    figure: &Figure,
    asked: String,
    found: &[Figures],
    baseline: &[Figures],
) -> Finding {
    let (new, old) = (values(found, figure), values(baseline, figure));
    let (value, against) = (new.as_deref().map(mean), old.as_deref().map(mean));
    let worse = value.zip(against).map(|(new, old)| worse(figure, new, old));
    Finding {
        kind,
        figure: figure.clone(),
        asked,
        value,
        against,
        worse,
        chance: None,
        spread: old.as_deref().and_then(relative_spread),
        verdict: Verdict::Unclear,
        why: String::new(),
    }
}

/// Returns how many times worse `new` is than `old`.
fn worse(figure: &Figure, new: f64, old: f64) -> f64 {
    let (bad, good) = if figure.more_is_better() {
        (old, new)
    } else {
        (new, old)
    };
    match (bad > 0.0, good > 0.0) {
        (_, true) => bad / good,
        (false, false) => 1.0,
        (true, false) => f64::INFINITY,
    }
}

/// How often chance makes the figure at least as bad, and the least that could be found with what there is.
type Chance = Option<(f64, f64)>;

fn chance(
    gate: &Gate,
    figure: &Figure,
    found: &[Figures],
    baseline: &[Figures],
    seed: u64,
) -> Chance {
    let exact = found.iter().chain(baseline).all(Figures::exact);
    let (new, old) = (values(found, figure)?, values(baseline, figure)?);
    if exact {
        let differs = worse(figure, mean(&new), mean(&old)) > 1.0;
        return Some((if differs { 0.0 } else { 1.0 }, 0.0));
    }
    let enough = new.len().min(old.len()) >= FEWEST_REPEATS;
    if gate.interleaved && new.len() == old.len() && enough {
        let pairs: Vec<(f64, f64)> = old.iter().copied().zip(new).collect();
        return Some(by_turns(figure, &pairs, seed));
    }
    if enough {
        return Some(by_labels(figure, &new, &old, seed));
    }
    let pairs = Pairs::of(baseline.first()?, found.first()?, figure)?;
    // A figure of which more is better is not one of rows, but for shares: there the pairs trade places.
    let pairs = if figure.more_is_better() {
        Pairs::of(found.first()?, baseline.first()?, figure)?
    } else {
        pairs
    };
    let units = i32::try_from(pairs.units().min(60)).unwrap_or(60);
    Some((pairs.chance(figure, seed), 0.5_f64.powi(units)))
}

/// Exchanges the labels of pairs in every way, or in many.
fn by_turns(figure: &Figure, pairs: &[(f64, f64)], seed: u64) -> (f64, f64) {
    let ratio = |flipped: u64| {
        let (mut old, mut new) = (0.0, 0.0);
        for (place, (first, second)) in pairs.iter().enumerate() {
            let swap = flipped >> (place % 64) & 1 == 1;
            old += if swap { second } else { first };
            new += if swap { first } else { second };
        }
        worse(figure, new, old)
    };
    let seen = ratio(0);
    let ways = 1_u64
        .checked_shl(pairs.len() as u32)
        .filter(|ways| *ways <= MOST_WAYS);
    if let Some(ways) = ways {
        let hits = (0..ways).filter(|&flipped| ratio(flipped) >= seen).count();
        return (hits as f64 / ways as f64, 1.0 / ways as f64);
    }
    let mut random = rng::stream(seed, "turns", 0);
    let hits = (1..MOST_WAYS)
        .filter(|_| ratio(random.next_u64()) >= seen)
        .count();
    ((hits + 1) as f64 / MOST_WAYS as f64, 1.0 / MOST_WAYS as f64)
}

/// Exchanges the labels of repeats in every way, or in many.
fn by_labels(figure: &Figure, new: &[f64], old: &[f64], seed: u64) -> (f64, f64) {
    let mut all: Vec<f64> = new.iter().chain(old).copied().collect();
    let ratio = |of: &[f64]| worse(figure, mean(&of[..new.len()]), mean(&of[new.len()..]));
    // Sums in another order differ in the last bit; that is no difference.
    let seen = ratio(&all) * (1.0 - 1e-12);
    let ways = binomial(all.len() as u64, new.len() as u64);
    if ways <= MOST_WAYS {
        let mut hits = 0_u64;
        choose(&all, new.len(), &mut |order| {
            hits += u64::from(ratio(order) >= seen);
        });
        return (hits as f64 / ways as f64, 1.0 / ways as f64);
    }
    let mut random = rng::stream(seed, "labels", 0);
    let mut hits = 1;
    for _ in 1..MOST_WAYS {
        for place in (1..all.len()).rev() {
            all.swap(place, super::sample::below(&mut random, place + 1));
        }
        hits += u64::from(ratio(&all) >= seen);
    }
    (hits as f64 / MOST_WAYS as f64, 1.0 / MOST_WAYS as f64)
}

fn binomial(of: u64, chosen: u64) -> u64 {
    (0..chosen).fold(1_u64, |ways, place| {
        ways.saturating_mul(of - place) / (place + 1)
    })
}

/// Shows every way to put `chosen` of the values first.
fn choose(values: &[f64], chosen: usize, show: &mut dyn FnMut(&[f64])) {
    let mut places: Vec<usize> = (0..chosen).collect();
    loop {
        let first = places.iter().map(|&place| values[place]);
        let rest = (0..values.len())
            .filter(|place| !places.contains(place))
            .map(|place| values[place]);
        show(&first.chain(rest).collect::<Vec<f64>>());
        let Some(at) = (0..chosen)
            .rev()
            .find(|&at| places[at] < values.len() - chosen + at)
        else {
            return;
        };
        places[at] += 1;
        for next in at + 1..chosen {
            places[next] = places[next - 1] + 1;
        }
    }
}

/// Settles the verdicts of figures that share the risk of a false alarm.
fn held(regressions: Vec<(Finding, f64, Chance)>, confidence: f64, alone: bool) -> Vec<Finding> {
    let count = regressions.len();
    let risk = 1.0 - confidence;
    let mut order: Vec<usize> = (0..count).collect();
    let p = |place: usize| regressions[place].2.map_or(1.0, |(chance, _)| chance);
    order.sort_by(|&a, &b| p(a).total_cmp(&p(b)).then(a.cmp(&b)));
    // Holm: the smallest must hold a part of the risk, the next a part of one less, until one does not.
    let mut sure = vec![false; count];
    for (rank, &place) in order.iter().enumerate() {
        if p(place) > risk / (count - rank) as f64 + 1e-12 {
            break;
        }
        sure[place] = true;
    }
    let settled =
        regressions
            .into_iter()
            .zip(sure)
            .map(|((mut finding, tolerance, chance), sure)| {
                finding.chance = chance.map(|(chance, _)| chance);
                let beyond = finding.worse.is_some_and(|worse| worse > 1.0 + tolerance);
                let blind = chance.is_none_or(|(_, least)| least > risk / count as f64);
                let (verdict, why) = match (beyond, sure) {
                    _ if alone => (Verdict::Unclear, "there is no baseline"),
                    _ if finding.worse.is_none() => {
                        (Verdict::Unclear, "one of the results does not say")
                    }
                    (false, true) => (Verdict::Pass, "worse, within its tolerance"),
                    (false, false) => (Verdict::Pass, ""),
                    (true, true) => (Verdict::Fail, "worse than its tolerance, and not by chance"),
                    (true, false) if blind => (
                        Verdict::Unclear,
                        "worse than its tolerance, but too few repeats to tell",
                    ),
                    (true, false) => (
                        Verdict::Pass,
                        "worse than its tolerance, but chance explains it",
                    ),
                };
                (finding.verdict, finding.why) = (verdict, why.to_string());
                finding
            });
    settled.collect()
}

fn unchanged(figure: &Figure, found: &[Figures], baseline: &[Figures]) -> Finding {
    let mut finding = compared(
        Kind::Exact,
        figure,
        figure.name().to_string(),
        found,
        baseline,
    );
    let all = values(found, figure).zip(values(baseline, figure));
    let (verdict, why) = match all {
        None if baseline.is_empty() => (Verdict::Unclear, "there is no baseline"),
        None => (Verdict::Unclear, "one of the results does not say"),
        Some((new, old)) => {
            let first = old[0].to_bits();
            let same = |values: &[f64]| values.iter().all(|value| value.to_bits() == first);
            match (same(&old), same(&new)) {
                (true, true) => (Verdict::Pass, ""),
                (false, _) => (Verdict::Unclear, "it varies in the baseline already"),
                (true, false) => changed(&old, &new, found.iter().all(Figures::exact)),
            }
        }
    };
    (finding.verdict, finding.why) = (verdict, why.to_string());
    finding
}

/// Judges a whole number that was always the same before. In real engines a change of hands between threads may move it in a
/// few repeats; that those all fall among the new ones has its chance, too.
fn changed(old: &[f64], new: &[f64], exact: bool) -> (Verdict, &'static str) {
    let first = old[0].to_bits();
    let differ = new.iter().filter(|value| value.to_bits() != first);
    let differ = differ.count() as u64;
    let (new, all) = (new.len() as u64, (new.len() + old.len()) as u64);
    let chance = binomial(new, differ) as f64 / binomial(all, differ) as f64;
    let few = (new.min(all - new) as usize) < FEWEST_REPEATS;
    if exact || few || chance <= 0.05 {
        return (Verdict::Fail, "it changed, and nothing random is in it");
    }
    (Verdict::Unclear, "it changed in too few repeats to tell")
}

/// Returns the worst verdict.
pub fn verdict(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Pass)
}
