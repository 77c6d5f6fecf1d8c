//! What a gate found: for people, for a pull request, for a CI system, and as `laptime.check/1`.

use super::{ALARM, ANSWER, FAINT, TITLE, UNKNOWN, change, heads};
use crate::report::table::{Align, Cell, Look, Table, painted, wrapped};
use crate::report::text::counted;
use crate::study::compare::Difference;
use crate::study::gate::{Finding, Kind, Verdict, verdict};
use serde_json::{Value, json};
use std::fmt::Write;

/// What the texts of a check are about.
#[derive(Clone, Copy, Debug)]
pub struct Title<'t> {
    /// The gate.
    pub gate: &'t str,
    /// What was checked.
    pub what: &'t str,
    /// In what it differs from the baseline, the baseline's values first.
    pub differences: &'t [Difference],
}

/// Returns a respect in which what was checked differs from its baseline.
fn differs(difference: &Difference) -> String {
    let of = |place: usize| match difference.values.get(place).map(String::as_str) {
        None | Some("") => "nothing",
        Some(value) => value,
    };
    format!("{} was {}, is {}", difference.axis.word(), of(0), of(1))
}

/// Returns the sentence that says how it went.
pub fn told(findings: &[Finding]) -> String {
    let count = |which: Verdict| findings.iter().filter(|one| one.verdict == which).count() as u64;
    let (failed, unclear) = (count(Verdict::Fail), count(Verdict::Unclear));
    let of = counted(findings.len() as u64, "check");
    let unclear = if unclear > 0 {
        format!("; {unclear} cannot be told")
    } else {
        String::new()
    };
    if failed > 0 {
        format!("{failed} of {of} failed{unclear}")
    } else {
        format!("no failure in {of}{unclear}")
    }
}

fn value(finding: &Finding, which: Option<f64>) -> String {
    which.map_or(UNKNOWN.to_string(), |value| {
        finding.figure.unit().shown(value)
    })
}

fn worse(finding: &Finding) -> String {
    finding
        .worse
        .filter(|it| it.is_finite())
        .map_or(UNKNOWN.to_string(), change)
}

fn chance(finding: &Finding) -> String {
    finding
        .chance
        .map_or(UNKNOWN.to_string(), |chance| format!("{chance:.3}"))
}

fn spread(finding: &Finding) -> String {
    finding.spread.map_or(UNKNOWN.to_string(), |spread| {
        format!("{:.1} %", spread * 100.0)
    })
}

/// Returns the answer for people.
pub fn render(title: Title<'_>, findings: &[Finding], look: Look) -> String {
    let style = match verdict(findings) {
        Verdict::Pass => ANSWER,
        Verdict::Unclear | Verdict::Fail => ALARM,
    };
    let mut text = format!(
        "{}  {}\n  {}\n",
        painted(title.gate, TITLE),
        title.what,
        painted(&told(findings), style)
    );
    for difference in title.differences {
        let told = wrapped(&differs(difference), look.width, 2);
        let _ = writeln!(text, "  {}", painted(&told, ALARM));
    }
    text.push('\n');
    let mut table = Table::new([
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ]);
    table.row(heads([
        "", "check", "found", "against", "worse by", "chance", "A/A", "",
    ]));
    for finding in findings {
        let style = match finding.verdict {
            Verdict::Pass => FAINT,
            _ => ALARM,
        };
        table.row([
            Cell::from(finding.verdict.word()).styled(style),
            Cell::from(format!("{} {}", finding.kind.word(), finding.asked)),
            Cell::from(value(finding, finding.value)),
            Cell::from(value(finding, finding.against)),
            Cell::from(worse(finding)),
            Cell::from(chance(finding)),
            Cell::from(spread(finding)),
            Cell::from(&finding.why).styled(style),
        ]);
    }
    text + &table.render()
}

/// Returns the answer for a pull request.
pub fn markdown(title: Title<'_>, findings: &[Finding]) -> String {
    let escaped = |text: &str| text.replace('|', "\\|");
    let mut text = format!(
        "### laptime: {}\n\n{}: **{}**\n\n",
        escaped(title.gate),
        escaped(title.what),
        told(findings)
    );
    for difference in title.differences {
        let _ = writeln!(text, "- {}", escaped(&differs(difference)));
    }
    if !title.differences.is_empty() {
        text.push('\n');
    }
    text += "| | check | found | against | worse by | chance | A/A | |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n";
    for finding in findings {
        let _ = writeln!(
            text,
            "| {} | {} `{}` | {} | {} | {} | {} | {} | {} |",
            finding.verdict.word(),
            finding.kind.word(),
            escaped(&finding.asked),
            value(finding, finding.value),
            value(finding, finding.against),
            worse(finding),
            chance(finding),
            spread(finding),
            finding.why,
        );
    }
    text
}

fn sentence(finding: &Finding) -> String {
    let against = match finding.kind {
        Kind::Target => "limit",
        Kind::Tolerance | Kind::Exact => "baseline",
    };
    format!(
        "{} is {}, {against} {}: {}",
        finding.figure.name(),
        value(finding, finding.value),
        value(finding, finding.against),
        finding.why
    )
}

/// Returns the answer as JUnit's XML: one test case for each check.
///
/// Written here rather than with a crate: it is six elements, and what must be escaped is all below.
pub fn junit(title: Title<'_>, findings: &[Finding]) -> String {
    let count = |which: Verdict| findings.iter().filter(|one| one.verdict == which).count();
    let (failures, skipped) = (count(Verdict::Fail), count(Verdict::Unclear));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n",
        xml(title.gate),
        findings.len(),
    );
    let differing: Vec<String> = title.differences.iter().map(differs).collect();
    for finding in findings {
        let _ = write!(
            text,
            "<testcase classname=\"laptime.{}\" name=\"{}\">",
            finding.kind.word(),
            xml(&finding.asked)
        );
        let message = xml(&[&[sentence(finding)][..], &differing].concat().join("; "));
        match finding.verdict {
            Verdict::Pass => {}
            Verdict::Unclear => {
                let _ = write!(text, "<skipped message=\"{message}\"/>");
            }
            Verdict::Fail => {
                let _ = write!(
                    text,
                    "<failure message=\"{message}\" type=\"{}\"/>",
                    finding.kind.word()
                );
            }
        }
        text += "</testcase>\n";
    }
    text + "</testsuite>\n</testsuites>\n"
}

fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // Control characters have no place in XML at all.
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Returns a line for each check that did not pass, as GitHub's runner reads them.
pub fn annotations(title: Title<'_>, findings: &[Finding]) -> String {
    let data = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut text = String::new();
    for finding in findings {
        let level = match finding.verdict {
            Verdict::Pass => continue,
            Verdict::Unclear => "warning",
            Verdict::Fail => "error",
        };
        let _ = writeln!(
            text,
            "::{level} title={}::{}",
            property(title.gate),
            data(&sentence(finding))
        );
    }
    text
}

/// Returns the answer for programs.
pub fn document(title: Title<'_>, findings: &[Finding]) -> Value {
    let checks = findings.iter().map(|finding| {
        json!({
            "kind": finding.kind.word(),
            "figure": finding.figure.name(),
            "asked": finding.asked,
            "value": finding.value,
            "against": finding.against,
            "worse": finding.worse.filter(|worse| worse.is_finite()),
            "chance": finding.chance,
            "baseline_spread": finding.spread,
            "verdict": finding.verdict.word(),
            "why": finding.why,
        })
    });
    json!({
        "schema": "laptime.check/1",
        "laptime_version": env!("CARGO_PKG_VERSION"),
        "gate": title.gate,
        "checked": title.what,
        "verdict": verdict(findings).word(),
        "differences": title.differences.iter().map(|one| json!({ "axis": one.axis.word(), "was": one.values.first(), "is": one.values.last() })).collect::<Vec<Value>>(),
        "checks": checks.collect::<Vec<Value>>(),
    })
}
