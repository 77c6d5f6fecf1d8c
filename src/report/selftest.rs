//! What a self-test found: the client's figures against what the engine of known timing really did.

use super::table::{Align, Cell, Look, Table, painted, wrapped};
use crate::units::{Span, three_digits};
use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use std::fmt::Write;

const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const ALARM: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// What a self-test found. Pairs are the truth and what the client saw.
#[derive(Clone, PartialEq, Debug)]
pub struct SelfTest {
    /// How many answers were read at the same time.
    pub agents: u32,
    /// Tokens per second that each was to have.
    pub rate: u32,
    /// Tokens that the engine sent.
    pub sent: u64,
    /// Tokens that the client saw.
    pub received: u64,
    /// From the first token sent to the last.
    pub sent_in: Span,
    /// From the first token seen to the last.
    pub received_in: Span,
    /// The time to the first token, at the median and at the 99th percentile.
    pub first: [Option<(Span, Span)>; 2],
    /// The processor time that the client used.
    pub processor: Option<Span>,
    /// How late calls were sent, at the 99th percentile.
    pub send_lag: Option<Span>,
    /// How late the event loop was, at the 99th percentile.
    pub loop_lag: Option<Span>,
    /// Why this machine cannot measure that; empty when it can.
    pub bound: Vec<String>,
}

impl SelfTest {
    /// Returns the rate that was seen, as a share of the rate that was sent.
    pub fn delivered(&self) -> f64 {
        let rate = |tokens: u64, span: Span| tokens as f64 / span.secs().max(1e-9);
        rate(self.received, self.received_in) / rate(self.sent, self.sent_in).max(1e-9)
    }

    /// Returns the rate that was sent, as a share of the rate that was asked for.
    pub fn offered(&self) -> f64 {
        let asked = f64::from(self.agents) * f64::from(self.rate);
        self.sent as f64 / self.sent_in.secs().max(1e-9) / asked
    }

    /// Returns the processor time for each token.
    pub fn each(&self) -> Option<Span> {
        self.processor
            .map(|span| Span(span.0 / self.received.max(1)))
    }

    /// Returns it for programs.
    pub fn json(&self) -> Value {
        let secs = |span: Option<Span>| span.map(Span::secs);
        let pair = |pair: Option<(Span, Span)>| {
            pair.map(|(truth, seen)| json!({"truth": truth.secs(), "seen": seen.secs()}))
        };
        json!({
            "schema": "laptime.selftest/1",
            "agents": self.agents,
            "rate_tokens_per_s": self.rate,
            "sent_tokens": self.sent,
            "received_tokens": self.received,
            "offered_share": self.offered(),
            "delivered_share": self.delivered(),
            "first_token_p50_s": pair(self.first[0]),
            "first_token_p99_s": pair(self.first[1]),
            "processor_per_token_s": secs(self.each()),
            "send_lag_p99_s": secs(self.send_lag),
            "loop_lag_p99_s": secs(self.loop_lag),
            "valid": self.bound.is_empty(),
            "why": self.bound,
        })
    }
}

/// Returns the report of a self-test.
pub fn render(test: &SelfTest, look: Look) -> String {
    let mut text = format!("{} answers at {} tokens/s each\n", test.agents, test.rate);
    let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Right]);
    let heads = ["", "truth", "seen", "error"];
    table.row(heads.map(|head| Cell::from(head).styled(FAINT)));
    for (name, pair) in ["first token p50", "first token p99"]
        .into_iter()
        .zip(test.first)
    {
        let Some((truth, seen)) = pair else { continue };
        let error = (seen.secs() - truth.secs()) * 1e3;
        table.row([
            Cell::from(name),
            Cell::from(truth),
            Cell::from(seen).styled(TITLE),
            Cell::from(format!("{error:+.2} ms")),
        ]);
    }
    let rate = |tokens: u64, span: Span| three_digits(tokens as f64 / span.secs().max(1e-9));
    table.row([
        Cell::from("tokens/s"),
        Cell::from(rate(test.sent, test.sent_in)),
        Cell::from(rate(test.received, test.received_in)).styled(TITLE),
        Cell::from(format!("{:+.2} %", (test.delivered() - 1.0) * 100.0)),
    ]);
    text += &table.render();
    let mut line = |what: &str| {
        let _ = writeln!(text, "  {}", painted(&wrapped(what, look.width, 2), FAINT));
    };
    if let (Some(each), Some(all)) = (test.each(), test.processor) {
        line(&format!("{all} of processor time, {each} for each token"));
    }
    if let (Some(send), Some(turn)) = (test.send_lag, test.loop_lag) {
        line(&format!(
            "at p99 calls were sent {send} late and the event loop was {turn} late"
        ));
    }
    if test.offered() < 0.95 {
        let share = three_digits(test.offered() * 100.0);
        line(&format!(
            "the engine itself kept up {share} % of what was asked, answers' beginnings included"
        ));
    }
    for why in &test.bound {
        let _ = writeln!(text, "  {}", painted(why, ALARM));
    }
    text
}
