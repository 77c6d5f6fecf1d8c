//! Calibrated rigs as catalogue files: what a fit found, written so that it can be read back.

use crate::catalog::rig::{Calibration, Coefficients, HeldOut, RigProfile};
use std::fmt::Write as _;

/// Returns the catalogue file of a profile; `comment` says who wrote it.
pub fn file(profile: &RigProfile, comment: &str) -> String {
    let mut text = format!("# {}\n", one_line(comment));
    let named = [
        ("hardware", profile.hardware.as_str()),
        ("engine", &profile.engine),
        ("engine_version", &profile.engine_version),
        ("model", &profile.model),
        ("captured_graphs", profile.captured_graphs.word()),
        ("trust", profile.trust.word()),
    ];
    for (key, value) in named {
        let _ = writeln!(text, "{key} = {}", quoted(value));
    }
    let _ = writeln!(text, "notes = [");
    for note in &profile.notes {
        let _ = writeln!(text, "    {},", quoted(note));
    }
    text.push_str("]\n\n[default]\n");
    calibration(&mut text, "default", &profile.default);
    for (name, variant) in &profile.variants {
        let _ = write!(text, "\n[[variant]]\nname = {}\n", quoted(name));
        calibration(&mut text, "variant", variant);
    }
    text
}

fn calibration(text: &mut String, table: &str, one: &Calibration) {
    let _ = writeln!(text, "what = {}\ncalibrated_on = [", quoted(&one.what));
    for name in &one.calibrated_on {
        let _ = writeln!(text, "    {},", quoted(name));
    }
    let priors: Vec<String> = one.priors.iter().map(|name| quoted(name)).collect();
    let _ = writeln!(text, "]\npriors = [{}]", priors.join(", "));
    text.push_str(&coefficients(table, &one.coefficients));
    if let Some(error) = &one.error {
        text.push_str(&held_out(table, error));
    }
}

/// Returns the table of coefficients of the calibration `table`.
pub fn coefficients(table: &str, with: &Coefficients) -> String {
    let mut text = format!("\n[{table}.coefficients]\n");
    let mut line = |name: &str, value: f64| {
        let _ = writeln!(text, "{name} = {}", number(value));
    };
    line("weights_s", with.weights_s);
    line("experts_s", with.experts_s);
    line("row_s", with.row_s);
    line("second_row_s", with.second_row_s);
    line("kv_s", with.kv_s);
    if let Some(short) = with.kv_short_s {
        line("kv_short_s", short);
        line("short_tokens", with.short_tokens as f64);
    }
    line("kv_imbalance", with.kv_imbalance);
    line("token_s", with.token_s);
    line("half_tokens", with.half_tokens);
    line("attention_s", with.attention_s);
    line("request_s", with.request_s);
    if with.matrix_s > 0.0 {
        line("matrix_s", with.matrix_s);
        line("vector_tokens", with.vector_tokens as f64);
    }
    if with.intake_token_s > 0.0 {
        line("intake_token_s", with.intake_token_s);
    }
    line("expert_share", with.expert_share);
    line("overlap", with.overlap);
    text
}

/// Returns the table of held-out errors of the calibration `table`.
pub fn held_out(table: &str, error: &HeldOut) -> String {
    format!(
        "\n[{table}.error]\nwhat = {}\ncount = {}\nmedian = {:.4}\np90 = {:.4}\n\
         interval_from_ratio = {:.4}\ninterval_to_ratio = {:.4}\ninterval = {}\n",
        quoted(&error.what),
        error.count,
        error.median,
        error.p90,
        error.interval.0,
        error.interval.1,
        quoted(&error.interval_from),
    )
}

/// Returns a number with seven digits, or all of it where it is short.
pub fn number(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 8 {
        plain
    } else {
        format!("{value:.6e}")
    }
}

/// Returns a TOML string.
pub fn quoted(text: &str) -> String {
    let escaped: String = text.chars().fold(String::new(), |mut all, one| {
        match one {
            '"' => all.push_str("\\\""),
            '\\' => all.push_str("\\\\"),
            '\n' | '\r' | '\t' => all.push(' '),
            one if one.is_control() => {}
            one => all.push(one),
        }
        all
    });
    format!("\"{escaped}\"")
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
