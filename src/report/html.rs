//! Results as a page that needs nothing beside it: figures, where the time went, and every call on a line of time.

use super::shown::{figures, parts, seconds, title};
use serde_json::Value;
use std::fmt::Write as _;

/// The parts of a call and the colour of each.
const COLOURS: [(&str, &str); 12] = [
    ("client", "#9aa0a6"),
    ("queue", "#f4b400"),
    ("kv_transfer", "#00acc1"),
    ("prefill_new", "#1a73e8"),
    ("reread_evicted", "#d93025"),
    ("reread_uncached", "#e8710a"),
    ("reread_broken", "#c5221f"),
    ("decode", "#188038"),
    ("contention", "#a142f4"),
    ("tool", "#5f6368"),
    ("wait", "#dadce0"),
    ("subagent", "#7baaf7"),
];

/// More calls than these are not drawn: a page has to open.
const MOST_CALLS: usize = 5000;
/// More lines than these are not drawn.
const MOST_LINES: usize = 400;
const WIDTH: f64 = 1000.0;
const LINE: usize = 14;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#202124}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2.5em;overflow-wrap:anywhere}h3{font-size:1em;margin-top:1.5em}
table{border-collapse:collapse}td{padding:.1em 1.5em .1em 0}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:flex;height:22px;border-radius:3px;overflow:hidden;margin:.5em 0}.bar div{height:100%}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.5em}
.small{color:#5f6368;font-size:.9em}svg{width:100%;background:#f8f9fa}
@media(prefers-color-scheme:dark){body{background:#202124;color:#e8eaed}svg{background:#2a2b2e}.small{color:#9aa0a6}}";

/// Returns the page.
pub fn page(results: &[Value]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>laptime</title>\n<style>{STYLE}</style></head>\n\
         <body>\n<h1>laptime {}</h1>\n",
        env!("CARGO_PKG_VERSION")
    );
    for result in results {
        one(&mut page, result);
    }
    page += "</body></html>\n";
    page
}

fn one(page: &mut String, result: &Value) {
    let _ = writeln!(page, "<h2>{}</h2>", escaped(&title(result)));
    let known = result["operating_point"]["known_by"]
        .as_str()
        .unwrap_or_default();
    let _ = writeln!(page, "<p class=\"small\">{}</p><table>", escaped(known));
    for (name, figure) in figures(result) {
        let figure = escaped(&figure);
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td class=\"n\">{figure}</td></tr>"
        );
    }
    page.push_str("</table>\n<h3>Where the time went</h3>\n<div class=\"bar\">");
    let parts = parts(result);
    for (name, _, share) in &parts {
        let _ = write!(
            page,
            "<div style=\"width:{:.3}%;background:{}\" title=\"{}\"></div>",
            share * 100.0,
            colour(name),
            escaped(name)
        );
    }
    page.push_str("</div>\n<table>\n");
    for (name, secs, share) in &parts {
        let _ = writeln!(
            page,
            "<tr><td><span class=\"key\" style=\"background:{}\"></span>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{:.1} %</td></tr>",
            colour(name),
            escaped(name),
            seconds(*secs),
            share * 100.0
        );
    }
    page.push_str("</table>\n");
    calls(page, result);
}

fn colour(part: &str) -> &'static str {
    let known = COLOURS.iter().find(|(name, _)| *name == part);
    known.map_or("#000", |(_, colour)| colour)
}

/// Draws every call: a line for each conversation, time to the right.
fn calls(page: &mut String, result: &Value) {
    let all: &[Value] = result["calls"].as_array().map_or(&[], Vec::as_slice);
    let number = |call: &Value, key: &str| call[key].as_f64().unwrap_or(0.0);
    let (Some(from), Some(to)) = (
        all.iter()
            .map(|call| number(call, "submitted_s"))
            .min_by(f64::total_cmp),
        all.iter()
            .map(|call| number(call, "finished_s"))
            .max_by(f64::total_cmp),
    ) else {
        page.push_str("<p class=\"small\">The result was written without its calls.</p>\n");
        return;
    };
    let scale = WIDTH / (to - from).max(1e-9);
    let key = |call: &Value| (call["run"].as_u64(), call["thread"].as_u64());
    let mut lines: Vec<_> = all.iter().map(key).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.truncate(MOST_LINES);
    let height = lines.len() * LINE;
    page.push_str("<h3>Every call</h3>\n");
    let _ = writeln!(
        page,
        "<p class=\"small\">A line for each conversation, {} from left to right. Point at a call to read it.</p>\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">",
        seconds(to - from)
    );
    for call in all.iter().take(MOST_CALLS) {
        let Ok(line) = lines.binary_search(&key(call)) else {
            continue;
        };
        let _ = write!(page, "<g><title>{}</title>", escaped(&told(call)));
        let mut at = number(call, "submitted_s") - from;
        // In the order in which the parts of a call usually come.
        for (name, colour) in COLOURS {
            let lasted = call["parts_s"][name].as_f64().unwrap_or(0.0);
            if lasted <= 0.0 {
                continue;
            }
            let _ = write!(
                page,
                "<rect x=\"{:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\" fill=\"{colour}\"/>",
                at * scale,
                line * LINE + 2,
                (lasted * scale).max(0.3),
                LINE - 4
            );
            at += lasted;
        }
        page.push_str("</g>\n");
    }
    page.push_str("</svg>\n");
    if all.len() > MOST_CALLS || lines.len() == MOST_LINES {
        let _ = writeln!(
            page,
            "<p class=\"small\">The first {MOST_CALLS} calls and {MOST_LINES} conversations are drawn.</p>"
        );
    }
}

/// Returns what is said of a call under the pointer.
fn told(call: &Value) -> String {
    let unknown = |value: &Value| match value {
        Value::Null => "unknown".to_string(),
        other => other.to_string(),
    };
    let lasted =
        call["finished_s"].as_f64().unwrap_or(0.0) - call["submitted_s"].as_f64().unwrap_or(0.0);
    format!(
        "{} run {} thread {} lap {}: {} of {} prompt tokens cached, {} of answer, {}, {}",
        call["session"].as_str().unwrap_or_default(),
        call["run"],
        call["thread"],
        call["lap"],
        unknown(&call["cached_tokens"]),
        unknown(&call["prompt_tokens"]),
        unknown(&call["output_tokens"]),
        seconds(lasted),
        call["outcome"].as_str().unwrap_or_default()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_recording_says_is_text_and_never_markup() {
        let call = json!({"session": "<script>", "run": 0, "thread": 0, "lap": 0, "submitted_s": 0.0, "finished_s": 1.0,
            "outcome": "ok", "parts_s": {"decode": 1.0}});
        let result = json!({"operating_point": {"rig": "a&b<i>"}, "calls": [call]});
        let page = page(&[result]);
        assert!(!page.contains("<script>") && !page.contains("<i>"));
        assert!(page.contains("&lt;script&gt;") && page.contains("a&amp;b&lt;i&gt;"));
        assert_eq!(page.matches("<rect").count(), 1);
    }

    #[test]
    fn a_result_of_anything_is_a_page() {
        for odd in [json!(null), json!([]), json!({"calls": 3, "summary": []})] {
            assert!(page(&[odd]).ends_with("</html>\n"));
        }
    }
}
