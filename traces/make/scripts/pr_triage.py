"""Eleven pull requests against this repository, triaged one after another: real diffs, some of which break tests."""

WHAT = "triage eleven pull requests of a Rust repository"

TASK = """
Eleven pull requests are open, each a branch with one commit on top of `main`:

  pr/101 Say and test that durations may be given in days
  pr/102 Simplify three_digits
  pr/103 Print microseconds with their proper sign
  pr/104 Suggest fewer, closer names
  pr/105 Compute edit distance with two rows
  pr/106 Correct the memory bandwidth of the DGX Spark
  pr/107 Read lower-case units of size
  pr/108 Keep llama.cpp checkpoints 64 tokens before the end of a prompt
  pr/109 Let --agents default to the number of sessions
  pr/110 Draw random numbers from the standard generator
  pr/111 Borrow the value of a Known

Triage them all: `merge`, `change` or `close`, each with the reason that decides it. Work through them in order. Try the
tests of what a branch touches; `src/units.rs` and `src/catalog/suggest.rs` need nothing else of the crate, so
`rustc --edition 2024 --test FILE -o $OUT/t && $OUT/t` is enough for them. Finish with one table and a paragraph for each
that is not a plain merge. I will read it once and act on it.
"""

UNITS, SUGGEST = "src/units.rs", "src/catalog/suggest.rs"


def prepare(work):
    work.branch("pr/101", "Say and test that durations may be given in days", [
        (UNITS, '/// Reads "30s", "1.5m", "250ms", "2h" or a bare number of seconds.',
         '/// Reads "30s", "1.5m", "250ms", "2h", "7d" or a bare number of seconds.'),
        (UNITS, "write it as 250ms, 30s, 5m or 2h", "write it as 250ms, 30s, 5m, 2h or 7d"),
        (UNITS, '        assert_eq!(Span::parse("60"), Ok(Span(60_000_000_000)));\n',
         '        assert_eq!(Span::parse("60"), Ok(Span(60_000_000_000)));\n'
         '        assert_eq!(Span::parse("7d"), Ok(Span(604_800_000_000_000)));\n'),
    ])
    work.branch("pr/102", "Simplify three_digits", [
        (UNITS, "        m if m >= 99.95 || m == 0.0 => 0,\n        m if m >= 9.995 => 1,\n        m if m >= 0.9995 => 2,\n"
                "        m if m >= 0.09995 => 3,\n        _ => 4,\n",
         "        m if m >= 100.0 || m == 0.0 => 0,\n        m if m >= 10.0 => 1,\n        m if m >= 1.0 => 2,\n"
         "        _ => 3,\n"),
    ])
    work.branch("pr/103", "Print microseconds with their proper sign", [
        (UNITS, 'format!("{} us", three_digits(secs * 1e6))', 'format!("{} \u00b5s", three_digits(secs * 1e6))'),
    ])
    work.branch("pr/104", "Suggest fewer, closer names", [
        (SUGGEST, "    if letters * 3 <= longest {", "    if letters * 4 <= longest {"),
    ])
    work.branch("pr/105", "Compute edit distance with two rows", [
        (SUGGEST, "    let mut before: Vec<usize> = Vec::new();\n", ""),
        (SUGGEST, "            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {\n"
                  "                row[j] = row[j].min(before[j - 2] + 1);\n            }\n", ""),
        (SUGGEST, "        before = std::mem::replace(&mut above, row);\n", "        above = row;\n"),
    ])
    work.branch("pr/106", "Correct the memory bandwidth of the DGX Spark", [
        ("src/catalog/data/hardware/dgx-spark.toml",
         'bandwidth = { value = 273, unit = "GB/s", source = "ai-infrastructure.net/dgx-spark; meterpreter.org; '
         'dgx-spark.warehack.ing"',
         'bandwidth = { value = 301, unit = "GB/s", source = "Hot Chips"'),
    ])
    work.branch("pr/107", "Read lower-case units of size", [
        (UNITS, "        let factor = match unit.trim() {\n            \"\" | \"B\" => 1.0,\n",
         "        let factor = match unit.trim() {\n            \"\" | \"B\" | \"b\" => 1.0,\n"),
        (UNITS, '            "kB" | "KB" => 1e3,\n            "MB" => 1e6,\n            "GB" => 1e9,\n            "TB" => 1e12,\n',
         '            "kB" | "KB" | "kb" => 1e3,\n            "MB" | "mb" => 1e6,\n            "GB" | "gb" => 1e9,\n'
         '            "TB" | "tb" => 1e12,\n'),
    ])
    work.branch("pr/108", "Keep llama.cpp checkpoints 64 tokens before the end of a prompt", [
        ("src/rig/engine/llama_cpp.rs", "const CHECKPOINT_TAIL: u64 = 4;", "const CHECKPOINT_TAIL: u64 = 64;"),
    ])
    work.branch("pr/109", "Let --agents default to the number of sessions", [
        ("src/cli/replay.rs",
         "    #[arg(long, value_name = \"N\", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]\n"
         "    agents: u32,\n",
         "    #[arg(long, value_name = \"N\", value_parser = clap::value_parser!(u32).range(1..))]\n"
         "    agents: Option<u32>,\n"),
    ])
    work.branch("pr/110", "Draw random numbers from the standard generator", [
        ("src/rng.rs", "pub use rand::rngs::ChaCha8Rng as Stream;", "pub use rand::rngs::StdRng as Stream;"),
        ("src/rng.rs", "    let mut generator = Stream::seed_from_u64(xxh3_64_with_seed(purpose.as_bytes(), seed));\n"
                       "    generator.set_stream(index);\n    generator\n",
         "    Stream::seed_from_u64(xxh3_64_with_seed(purpose.as_bytes(), seed ^ index))\n"),
    ])
    work.branch("pr/111", "Borrow the value of a Known", [
        ("src/known.rs", "impl<T> Known<T> {\n",
         "impl<T> Known<T> {\n    /// Returns the same knowledge about a borrowed value.\n    pub fn as_ref(&self) -> Known<&T> {\n"
         "        Known {\n            value: &self.value,\n            source: self.source.clone(),\n"
         "            trust: self.trust,\n        }\n    }\n\n"),
    ])


TURNS = [
    say("I start with what there is: the branches, and how large each change is.",
        bash("git branch --list 'pr/*' --format='%(refname:short) %(objectname:short) %(subject)'"),
        bash("for b in $(git branch --list 'pr/*' --format='%(refname:short)'); do echo \"== $b\"; git diff --stat main $b; done")),
    say("All eleven are small: one file each. Four of them touch `src/units.rs`. I read that file whole "
        "once, so that I can judge all four against the same text.",
        read(UNITS)),
    say("101 first: the diff, and its tests.",
        bash("git diff main pr/101"),
        bash("git checkout -q pr/101 && rustc --edition 2024 -A warnings --test src/units.rs -o $OUT/units && $OUT/units; "
             "git checkout -q main")),
    say("The arm for `d` is already in the parser (`src/units.rs:97`), so this only says and tests what is true. The error "
        "message names the new form too. What I still want to know is whether the old wording of that message stands "
        "anywhere else: a test or a document that quotes it would now be wrong.",
        bash("git grep -n 'is not a duration' main -- . ; git grep -n '250ms' main -- src tests")),
    say("The message is quoted nowhere else. 101 is a merge.\n\nNext, 102.",
        bash("git diff main pr/102"),
        bash("git checkout -q pr/102 && rustc --edition 2024 -A warnings --test src/units.rs -o $OUT/units && $OUT/units; "
             "git checkout -q main")),
    say("""
The tests pass, but they hold no value near a power of ten, and that is just where the removed digits matter. I try the
two versions side by side on such values instead of arguing about it.
""",
        bash("""cat > $OUT/digits.rs <<'END'
fn old(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m >= 99.95 || m == 0.0 => 0,
        m if m >= 9.995 => 1,
        m if m >= 0.9995 => 2,
        m if m >= 0.09995 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}
fn new(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        m if m >= 100.0 || m == 0.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
fn main() {
    for value in [0.0, 0.0123, 0.05, 0.0999, 0.5, 0.9996, 0.99999, 1.0, 9.994, 9.996, 9.9999, 10.0, 99.94, 99.96, 99.999, 100.0, 1234.5] {
        let (a, b) = (old(value), new(value));
        println!("{value:>8}  old {a:>7}  new {b:>7}  {}", if a == b { "" } else { "differs" });
    }
}
END
rustc --edition 2024 $OUT/digits.rs -o $OUT/digits && $OUT/digits"""),
        think="""
The change replaces the thresholds 99.95, 9.995, 0.9995 and 0.09995 by 100, 10 and 1, and folds the two smallest cases
into one with three decimals.

Why were the odd thresholds there? Formatting with a fixed number of decimals rounds. A value such as 99.96 is below 100,
so the new code gives it one decimal, and rounding to one decimal makes 100.0: four digits where the function promises
three. With the threshold at 99.95 such a value already gets no decimals and prints as 100. The same at 9.996, which would
print as 10.00 and not 10.0, and at 0.9996, which would print as 1.000 and not 1.00. So the thresholds are not sloppiness;
each is the point at which rounding carries into the next power of ten. The new code is wrong on three thin intervals:
[99.95, 100), [9.995, 10) and [0.9995, 1).

Is that reachable? three_digits is what prints every span and every token count in every report. A span of 9.996 seconds is
entirely ordinary. It would print as "10.00 s" beside neighbours that read "9.98 s" and "10.1 s". In a table whose columns
are laid out by the width of their cells that makes one column wider in one run in a few hundred, and snapshot tests of
reports would be off by a column for no reason that anybody can see. It is a small thing, but it is the very thing the
function exists for.

And the last case: with four decimals for what is below 0.09995, 0.0123 prints as 0.0123, three significant digits. With
three decimals it prints 0.012: two digits. 0.05 prints as 0.0500 under the old code and 0.050 under the new one. That is a
second difference, and it is not an edge case: every value below 0.1 loses a digit. Where would that be visible? Percentages
in the breakdown of a report: shares below 0.1 % are printed as "<0.1 %", so not there. Spans below a millisecond are
printed in microseconds, so 0.05 ms never appears. Token counts are whole. So the second difference is probably not
reachable from reports now, but the doc comment promises "three significant digits", and the change breaks the promise.

The test suite passes with the change, so the suite lacks a test at the carries. The right answer to the author: close or
change? The title says "simplify", which is wanted in principle; but the simplification is not behaviour-preserving and
what it removes is the point of the function. I would ask to keep the thresholds, and to add a comment that says why they
are odd, plus a test with 9.996, 99.96 and 0.9996; that is worth having, because the next reader will have the same idea.
I should confirm by running both on a list of values around the carries and below 0.1, to quote real output.
"""),
    say("Three carries go wrong (0.9996, 9.996, 99.96 print four digits) and everything below 0.1 loses one. 102 is a "
        "`change`: keep the thresholds, say in a comment why they are odd, and add these values as a test.\n\nNow 103.",
        bash("git diff main pr/103"),
        bash("git checkout -q pr/103 && rustc --edition 2024 -A warnings --test src/units.rs -o $OUT/units && $OUT/units; "
             "status=$?; git checkout -q main; exit $status", status=101)),
    say("""
It fails its own file's tests: `spans_print_in_the_unit_a_person_would_choose` expects `1.50 us`. A second thing to look
at before I decide: what is printed should also be readable by `Span::parse`, and the width of the sign matters to tables,
which count characters or bytes. I look at who lays out columns.
""",
        bash("git grep -n '\"us\"\\|\\bus\\b' main -- 'src/*.rs' | head -30"),
        bash("git grep -n 'chars()\\|\\.len()' main -- src/report/table.rs src/report/text.rs"),
        read("src/report/table.rs")),
    say("Tables count characters, so the sign would not break them. The parser does not know `\u00b5s`, though "
        "(`src/units.rs:90` takes letters of ASCII as the unit, and a non-ASCII sign would land in the number). So 103 is a "
        "`change`: update the test, and read what is printed.\n\n104 and 105 both touch `suggest.rs`. I read it once.",
        read(SUGGEST),
        bash("git diff main pr/104"),
        bash("git diff main pr/105")),
    say("Both change what is suggested. I run the file's tests on each.",
        bash("git checkout -q pr/104 && rustc --edition 2024 -A warnings --test src/catalog/suggest.rs -o $OUT/suggest && "
             "$OUT/suggest; status=$?; git checkout -q main; exit $status", status=101),
        bash("git checkout -q pr/105 && rustc --edition 2024 -A warnings --test src/catalog/suggest.rs -o $OUT/suggest && "
             "$OUT/suggest; status=$?; git checkout -q main; exit $status", status=101)),
    say("""
Both fail. 105 is clear: it drops the swap of neighbours, which the doc comment of `distance` promises ("insert, delete,
replace or swap", `src/catalog/suggest.rs:41`), and saves one short row of memory on names of twenty letters. 

104 deserves a fairer look, since "too many suggestions" may be a real complaint. What does the catalogue suggest today for
slips that people make, and what would it with the stricter rule? I try both on the real names.
""",
        bash("ls src/catalog/data/hardware src/catalog/data/model src/catalog/data/engine | sed 's/.toml//' | grep -v : | grep . | tr '\\n' ' '"),
        bash("""for b in main pr/104; do
git show $b:src/catalog/suggest.rs | sed '/#\\[cfg(test)\\]/,$d' > $OUT/try.rs
cat >> $OUT/try.rs <<'END'
fn main() {
    let names = ["2x-dgx-spark", "2x-rtx-pro-6000", "a100-80gb", "b200", "dgx-spark", "gx10", "h100", "h100-pcie", "h200", "l40s",
        "m3-ultra", "m4-max", "m5-max-32", "m5-max-40", "m5-max-studio", "m5-pro-20", "rtx-3090", "rtx-4090", "rtx-5090",
        "rtx-pro-6000", "rtx-pro-6000-max-q", "rtx-pro-6000-server", "strix-halo-evo-x2", "strix-halo-framework", "strix-halo-ms-s1-max"];
    for wanted in ["rtx6000", "rtx-6000", "pro6000", "m5max", "m5-max", "m5-max-16", "dgxspark", "spark", "strix", "strix-halo",
        "halo", "h20", "rtx-409", "rtx 5090", "4090", "mac-studio", "a100", "gh200"] {
        println!("{wanted:>12} -> {}", suggest(wanted, names).join(", "));
    }
}
END
echo "== $b"; rustc --edition 2024 -A warnings $OUT/try.rs -o $OUT/try && $OUT/try; done""")),
    say("""
With the stricter rule `mac-studio` no longer finds `m5-max-studio`, and `dgxspark` no longer finds the pair; of the 18
slips none gets a better answer. (What both miss: `rtx6000` and `pro6000` find nothing. I note it for the end.) The list is capped at three anyway (`MOST`, `src/catalog/suggest.rs:7`). 104: `close`, with the table above
as the reason. 105: `close`.

106 now: a figure in the catalogue.
""",
        bash("git diff main pr/106"),
        read("src/catalog/data/hardware/dgx-spark.toml"),
        bash("git grep -n -i 'spark' main -- src ':!src/catalog/data/hardware' | head -40")),
    say("The note of the very line it changes already weighs 301 against 273 and says why 273 was chosen. What else hangs "
        "on that figure: the same chip appears in other files, which would now disagree, and the cost model divides by it.",
        bash("git grep -n 'bandwidth' main -- src/catalog/data/hardware/gx10.toml src/catalog/data/hardware/2x-dgx-spark.toml"),
        bash("git grep -n 'bandwidth' main -- src/rig src/study src/catalog/*.rs src/catalog/load"),
        read("src/rig/roofline.rs")),
    say("""
`roofline.rs` multiplies the datasheet's bandwidth by an efficiency, so raising the figure by 10 % makes every DGX Spark
prediction that is not calibrated 10 % faster, against a measured 207 GB/s. And the two sibling files (`gx10`,
`2x-dgx-spark`) with the same chip would keep 273. 106: `close`; the note already answers it, and "Hot Chips" is no source
that a reader can look up.

107: lower-case sizes.
""",
        bash("git diff main pr/107"),
        bash("git checkout -q pr/107 && rustc --edition 2024 -A warnings --test src/units.rs -o $OUT/units && $OUT/units; "
             "git checkout -q main")),
    say("It passes, and adds no test. My doubt is `b`: in sizes of memory `gb` is often typed for GB, but lower-case b is "
        "also the sign of a bit. Who reads sizes, and from where?",
        bash("git grep -n 'Bytes::parse' main -- src tests"),
        bash("git grep -n 'kind = \"size\"\\|kind = \"bytes\"\\|GiB\\|MiB' main -- src/catalog/data/engine src/catalog/engine.rs src/catalog/load | head -30")),
    say("""
`Bytes::parse` is reached from settings only, where memory is meant and bits never are. Accepting `gb` but refusing `gib`
would surprise, so the change should take all binary units too, and bring a test. 107: `change`, small.

108 is the one that needs thought: a constant of the llama.cpp model. I read the engine.
""",
        bash("git diff main pr/108"),
        read("src/rig/engine/llama_cpp.rs", 1, 330)),
    say("The rest of the file, and the slots and checkpoints that it is built on.",
        read("src/rig/engine/llama_cpp.rs", 331, 574),
        read("src/rig/kv/slots.rs")),
    say("I look at every use of the constant, and at what the tests hold about it.",
        bash("git grep -n 'CHECKPOINT_TAIL\\|checkpoint' main -- src/rig src/study src/catalog/engine.rs src/catalog/data/engine/llama.cpp.toml")),
    say("""
The header says where the behaviour comes from: `tools/server/server-context.cpp` at two revisions, May and September. The
setting that would carry this is in the catalogue; let me see whether the distance differs by version there.
""",
        bash("sed -n 80,157p src/catalog/data/engine/llama.cpp.toml"),
        bash("git grep -n -i 'checkpoint' main -- src/study/rig.rs src/catalog/engine.rs"),
        think="""
What does the constant mean? "Tokens between a hybrid model's last checkpoint and the end of its prompt." A hybrid model
cannot roll back its recurrent state, so the server stores a copy of the state shortly before the prompt ends; when the next
prompt keeps everything up to the answer, or drops the end of the template, the state can be restored there. The distance
decides how much must be computed again after a restore: with 4, the last 4 tokens of the prompt plus whatever the slot
cannot use; with 64, the last 64.

The commit says "Keep llama.cpp checkpoints 64 tokens before the end". Is there any evidence? The message has no body, and no
source is quoted. The file's header says the facts come from reading server-context.cpp at 7d442abf (May) and 0c1e57098
(latest). In the sources that I know of, the prompt is cut so that a checkpoint falls a few tokens before its end, because the
last tokens of a chat prompt (the opening of the assistant's turn) change when the reasoning is switched or when the answer is
re-rendered; older builds used 64 as the minimum length of a prompt worth a checkpoint, which may be what the author
remembers: a threshold, not a distance. I cannot look at the sources of llama.cpp from here, and must not guess.

What would the change do to predictions? Only for hybrid models (`rolls_back` false) and only where a prompt breaks: an
append-only conversation reuses the slot to its end, because the slot's tokens are exactly the prefix of the new prompt; no
restore is needed. Where reasoning is dropped, the next prompt departs from the slot's content at the place where the answer
began, which is exactly the end of the previous prompt: the slot holds prompt + answer, common is the prompt's length, and a
hybrid must go back to the last checkpoint at or before it. With 4 it computes 4 tokens again, with 64 it computes 64 again.
60 tokens of prefill at some hundreds of tokens per second: 0.1 to 0.2 s on a slow box, per lap, for each lap that drops
reasoning. That is visible: over a run of forty laps it would be several seconds, more than what many settings do. So it is
not nothing, and the sign is known: the change makes hybrids slower after dropped reasoning.

So the figure matters and is unsourced. Rule of the repository: figures carry sources. The constant does have one (the header
of the file). A change that contradicts it must bring a better one: a line of the source at a named revision, or a server log
that shows where a checkpoint was created. If it differs by version then it belongs in the catalogue beside the other settings
that do (there is a `version` mechanism), not in a constant that changes both.

Do the tests break? The crate has tests in the engine's file; to run them I would have to build the whole crate with all its
dependencies, a few minutes. It is worth it here, because a passing suite would tell that nothing holds this number, which the
verdict should say. But checking that it compiles is enough for 109, which looks broken: `agents` becomes an Option and the
plan takes a u32. One build of the library on pr/109 settles that; for 108 reading decides. I look at the catalogue first.
"""),
    say("Nothing in the catalogue speaks for 64, and the file's header names the revisions it was read at. 108 is a "
        "`change`: bring the line of llama.cpp's source, or a server log that shows a checkpoint being made; if it differs "
        "by version it belongs to the engine's file, beside `checkpoint_every`.\n\nLast, 109.",
        bash("git diff main pr/109"),
        read("src/cli/replay.rs", 1, 190)),
    say("`agents` is used as a number further down; this cannot compile unless the plan takes an option. I check rather "
        "than guess; that builds the dependencies once.",
        bash("git checkout -q pr/109 && cargo check -q --offline --lib 2>&1; status=$?; git checkout -q main; exit $status",
             status=101)),
    say("It does not compile: `expected u32, found Option<u32>` in `src/cli/replay.rs`. Is the idea wanted, though? What do "
        "the fleet and the documents say the default is?",
        bash("git grep -n 'agents' main -- src/fleet.rs src/study src/cli | head -40"),
        read("src/fleet.rs", 1, 130)),
    say("""
The plan is explicit: `agents` lanes, each taking the next run when its own has ended, and one lane unless told otherwise.
With the proposed default the same command would give other results when a session is added to a folder: more contention,
slower laps, and nothing on the command line that says so. That is a reason against the idea, not only against the patch.

110: the generator.
""",
        bash("git diff main pr/110"),
        read("clippy.toml"),
        bash("git grep -n 'rng::\\|StdRng\\|ChaCha' main -- src tests benches Cargo.toml")),
    say("The rule is written down: `clippy.toml` forbids `StdRng`, with the reason and the replacement. There is a second, "
        "quieter fault: the index is mixed into the seed with an exclusive or, so that different pairs give equal seeds. "
        "How often would that happen with small numbers, as they are used?",
        bash("""python3 - <<'END'
from collections import Counter
pairs = [(seed, index) for seed in range(16) for index in range(64)]
shared = Counter(seed ^ index for seed, index in pairs)
print(len(pairs), "streams,", len(shared), "different seeds; the most shared by", max(shared.values()))
END"""),
        bash("git show main:src/rng.rs")),
    say("1,024 streams would have 64 different seeds between them. 110: `close`.\n\n111: a small addition to `Known`.",
        bash("git diff main pr/111"),
        bash("git checkout -q pr/111 && rustc --edition 2024 -A warnings --crate-type lib --emit metadata src/known.rs -o "
             "$OUT/known.rmeta && echo compiles; git checkout -q main"),
        bash("git grep -n 'Known<' main -- 'src/*.rs' | head -60")),
    say("It compiles. Who would use it? I look for places that clone a `Known` or take one apart to look inside.",
        bash("git grep -n 'known.*clone()\\|\\.map(|' main -- src/catalog src/study src/rig | head -40"),
        bash("git grep -n '\\.value\\b' main -- src/study src/rig src/catalog/*.rs | wc -l"),
        read("src/catalog/hardware.rs")),
    say("""
Every reader goes to `.value`, which is public; no place clones a whole `Known` to look at it. The method would also copy
the source string at each call, which a reader of `as_ref` does not expect. 111: `close`, kindly.

Before I write the verdicts: is the tree as I found it, and do 101 and 107 apply together? They are the two that will
land, and both touch `src/units.rs`.
""",
        bash("git status --short | head; git checkout -q -b try main && git merge -q --no-edit pr/101 && git merge -q --no-edit "
             "pr/107 && git log --oneline --no-decorate --graph | head -8"),
        bash("rustc --edition 2024 -A warnings --test src/units.rs -o $OUT/units && $OUT/units; git checkout -q main && "
             "git branch -q -D try")),
    say("They merge cleanly and pass together. One more look at 107: which spellings would still be refused with it?",
        bash("""git show pr/107:src/units.rs | sed '/#\\[cfg(test)\\]/,$d' > $OUT/sizes.rs
cat >> $OUT/sizes.rs <<'END'
fn main() {
    for text in ["24GB", "24gb", "24 gb", "24Gb", "24GiB", "24gib", "24Gib", "512mb", "512mib", "8192", "8192b", "1e3 KB", "0.5tb"] {
        println!("{text:>8} {:?}", Bytes::parse(text));
    }
}
END
rustc --edition 2024 -A warnings $OUT/sizes.rs -o $OUT/sizes && $OUT/sizes""")),
    say("And for 102, what the suite would have to hold: I write the missing test against `main`, to hand it to the author "
        "as something that passes today and fails on the branch.",
        bash("""for b in main pr/102; do git show $b:src/units.rs > $OUT/carry.rs
cat >> $OUT/carry.rs <<'END'
#[cfg(test)]
mod carries {
    use super::three_digits;
    #[test]
    fn rounding_up_to_a_power_of_ten_keeps_three_digits() {
        assert_eq!(three_digits(99.96), "100");
        assert_eq!(three_digits(9.996), "10.0");
        assert_eq!(three_digits(0.9996), "1.00");
        assert_eq!(three_digits(0.0123), "0.0123");
    }
}
END
echo "== $b"; rustc --edition 2024 -A warnings --test $OUT/carry.rs -o $OUT/carry && $OUT/carry carries; done; true""")),
    say("The test does what it should. For 103 I check one claim before I make it: that `Span::parse` refuses what the "
        "branch prints.",
        bash("""git show pr/103:src/units.rs | sed '/#\\[cfg(test)\\]/,$d' > $OUT/micro.rs
cat >> $OUT/micro.rs <<'END'
fn main() {
    let printed = Span(1_500).to_string();
    println!("printed {printed:?}, parsed {:?}", Span::parse(&printed));
    println!("on main {:?}", Span::parse("1.50 us"));
}
END
rustc --edition 2024 -A warnings $OUT/micro.rs -o $OUT/micro && $OUT/micro"""),
        bash("git status --short | head -5; git branch --show-current")),
    say("""
| PR | verdict | what decides it |
| --- | --- | --- |
| 101 days in durations | merge | says and tests what `src/units.rs:97` already does; the message is quoted nowhere else |
| 102 simplify three_digits | change | 9.996 prints as 10.00, 99.96 as 100.0; below 0.1 a digit is lost |
| 103 microseconds sign | change | `spans_print_in_the_unit_a_person_would_choose` fails; the parser does not read it back |
| 104 fewer suggestions | close | `the_closest_names_come_first` fails; `mac-studio` would find nothing |
| 105 two rows | close | `a_swap_of_two_letters_is_one_slip` fails: 2, expected 1 |
| 106 DGX Spark bandwidth | close | the line's own note weighs 301 against 273; siblings would disagree |
| 107 lower-case sizes | change | good; wants `gib` and friends too, and a test |
| 108 checkpoint tail | change | contradicts a sourced figure without a source |
| 109 --agents default | close | does not compile; and results would change with the number of files |
| 110 standard generator | close | `clippy.toml` forbids it: not portable between releases; streams would overlap |
| 111 Known::as_ref | close | nothing uses it, and it copies the source at every call |

102. The thresholds are odd on purpose: each is where rounding carries into the next power of ten. Please keep them and say
so in a comment. This test passes on `main` and fails on the branch: `three_digits(99.96)` is `100`, `9.996` is `10.0`,
`0.9996` is `1.00`, `0.0123` is `0.0123`.

103. The test at the foot of `src/units.rs` expects `1.50 us` and was not updated. `Span::parse` takes only ASCII letters as
a unit, so what the branch prints can no longer be typed back. Tables count characters and would not suffer. With the test
changed and `\u00b5s` read as well as `us`, this can go in.

104. Allowing one slip in four letters instead of one in three drops `2x-dgx-spark` for `dgx-sprak`, which a test holds, and
`m5-max-studio` for `mac-studio`. Of 18 slips tried none gets a better answer. The list is already capped at three.

105. The third row is what makes a swap of neighbours one slip instead of two, as the comment on `distance` promises. It
costs some bytes for names of twenty letters.

106. 273 GB/s is on the product page and agrees with 207 GB/s measured in decode; 301 is one talk. The note on the line says
so. With 301 every uncalibrated prediction for this box gets 10 % faster, and `gx10` and `2x-dgx-spark`, same chip, do not.

107. `Bytes::parse` is reached from settings, where bits are never meant, so `gb` is safe to read. `24gib` is still refused,
which would surprise whoever typed `24gb` successfully. One line for each binary unit and one test, please.

108. The header of `src/rig/engine/llama_cpp.rs` names the revisions it was read at. With 64 a hybrid model computes 60
tokens more whenever reasoning is dropped from the history, some seconds over a run on a slow box, so the number matters.
Please bring the line of the server's source or a log, and if it differs by version put it beside the other settings in
`src/catalog/data/engine/llama.cpp.toml`.

109. `expected u32, found Option<u32>`. Apart from that: one lane unless told otherwise is what makes two results
comparable; with this default, adding a file to a folder would change how much agents disturb each other.

110. `StdRng` may be another generator in the next release of `rand`, and then the same seed gives other results;
`clippy.toml` names it for that reason. And `seed ^ index` makes stream 1 of seed 2 the same as stream 2 of seed 1, where
`set_stream` keeps them apart.

111. No caller needs it: fields are public, and whoever wants to look takes `&known.value`. Happy to see it again with the
code that wants it.

Seen on the way, not part of any branch: `rtx6000` and `pro6000` get no suggestion at all on `main`.

101 and 107 touch the same file and merge cleanly in that order; together they pass. The tree is as I found it, on `main`.
"""),
]
