"""Reconnaissance: an agent that has never seen the repository works out how a second is accounted for, end to end."""

WHAT = "work out how a repository accounts for time"

TASK = """
I have to give a talk about how this program accounts for every second of a replay. Find out how a call's time is split
into its parts, from the engine step that causes it to the line of the report, and where it is made certain that the parts
add up. I need the path through the code with places, and anything in it that would surprise an audience. Change nothing.
"""


def prepare(_work):
    pass


TURNS = [
    say("I begin from the outside: what is here, and how large is each part?",
        bash("git ls-files | grep -v catalog/data | head -80"), bash("git ls-files 'src/*.rs' | xargs wc -l | sort -n | tail -50"),
        bash("cat Cargo.toml")),
    say("One crate, about seventy files. Each begins with a comment that says what it is for; those read together are the "
        "cheapest map there is.",
        bash("for f in $(git ls-files 'src/*.rs'); do echo \"== $f\"; sed -n '/^\\/\\/!/p' $f | head -6; done")),
    say("Parts of time are likely named in `metrics/lap.rs`, `call.rs` and `event.rs`. I look for the words.",
        bash("git grep -n -i 'contention' -- src | head -60"), bash("git grep -n 'reread\\|prefill_new' -- src | head -60")),
    say("`call.rs` holds the parts of a call, `metrics` the folding, `rig/book.rs` seems to keep the accounts while an engine "
        "runs. In that order.",
        read("src/call.rs"), read("src/event.rs")),
    say("So a reply carries its parts with it, and events carry what the agent adds. Now the account book of a rig.",
        read("src/rig/book.rs")),
    say("The book is charged step by step. Who charges it, and with what?",
        read("src/rig/step.rs"), bash("git grep -n 'book\\.' -- src/rig | head -60")),
    say("The loop asks a cost model for the length of a step and for the length it would have had for one call alone. I read "
        "the cost model for that second question: the difference becomes contention.",
        read("src/rig/cost.rs")),
    say("Fractions of nanoseconds have to go somewhere when a step is divided; there is a file for that.",
        read("src/rig/fine.rs"), read("src/rig/mod.rs")),
    say("Now the engines, to see which rows a step holds and when a call sits in a step without any.",
        read("src/rig/engine/mod.rs"), read("src/rig/engine/vllm.rs", 1, 300)),
    say("And the other engine for comparison; the rest of vLLM's where preemption is.",
        read("src/rig/engine/vllm.rs", 301, 467), read("src/rig/engine/llama_cpp.rs", 120, 330)),
    say("Which tokens are `evicted`, `uncached` and `broken` is decided where the cache is looked up. I search first, the "
        "cache is long.",
        bash("git grep -n 'TokenClasses\\|classes' -- src/rig src/trace src/call.rs src/metrics | head -60"),
        read("src/rig/kv/blocks.rs", 1, 260)),
    {"compact": """
Task: for a talk, explain how this program splits a call's time into parts, from engine step to report, where it is made
certain that parts add up, and what would surprise an audience. Read only. Report with places.

Found so far:
- `src/call.rs`: `Call`, `Reply`, the parts of a call and `TokenClasses` (new, evicted, uncached, broken). A reply carries
  its parts. `src/event.rs`: what agents add (tool, wait, sub-agents) comes as `GapParts` of events.
- `src/rig/step.rs`: `StepLoop` is the backend for all engines: it plans a step with the engine, asks `rig/cost.rs` for its
  length, charges every call in it through `rig/book.rs`, and jumps over equal decode steps in closed form.
- `src/rig/cost.rs`: a step's cost is a fixed part, a part for prefilled tokens and one for what decoding reads; the same
  function evaluated with one call's rows alone gives what that call would have paid by itself. Step minus alone is
  contention.
- `src/rig/book.rs`: accounts by call; before admission everything is queue. `src/rig/fine.rs`: time below a nanosecond is
  kept exactly and rounded once, so that parts still add up.
- `src/rig/engine/{vllm,llama_cpp}.rs`: which rows a step holds; vLLM mixes prefill chunks and decodes under a token budget
  and preempts by recomputation; llama.cpp puts generating slots first and fills with prompts in slot order.
- `src/rig/kv/blocks.rs`: block cache; who lost what is known there.

Left, in this order: (1) how the classes of re-read tokens are decided; (2) `src/metrics`: folding into laps, and what
asserts the sums; (3) `src/report`: what is printed and rounded; (4) tests that hold the sums; (5) write the report.
"""},
    say("I go on with the metrics: first the laps.", read("src/metrics/lap.rs"), read("src/metrics/mod.rs", 1, 330)),
    say("The rest of the fold, and every assertion about sums.",
        read("src/metrics/mod.rs", 331, 569), bash("git grep -n 'assert' -- src/metrics src/rig/book.rs src/rig/fine.rs src/call.rs")),
    say("How the classes are decided, which I still owe.",
        bash("git grep -n 'evicted' -- src/rig src/trace | head -50"), read("src/rig/kv/blocks.rs", 261, 566)),
    say("What a thread has seen is worked out when the trace is compiled; I check that it is so.",
        bash("git grep -n 'seen' -- src/trace src/agent.rs src/fleet.rs src/call.rs | head -50"), read("src/trace/compile.rs", 500, 642)),
    say("Now what is printed.", read("src/report/text.rs", 1, 260), bash("git grep -n 'percent\\|rounded\\|three_digits' -- src/report | head -30")),
    say("And the document for machines: are parts written with all their digits?",
        read("src/report/json.rs", 1, 240)),
    say("Last, the tests: which of them hold that parts add up, and on what?",
        bash("git grep -n 'fn .*sum\\|fn .*add_up\\|fn .*cover\\|fn .*parts' -- src tests"),
        bash("git grep -n 'parts' -- src/metrics src/rig | grep -i 'test\\|assert' | head -30")),
    say("One open question: a lap ends at the same thread's next submission. What happens to the time of sub-agents that the "
        "parent waits for; could it be counted in both?",
        bash("git grep -n 'subagent' -- src | head -40"), read("src/agent.rs", 150, 330)),
    say("""
How a second finds its place, from the engine to the page.

A call is submitted by the fleet (`src/fleet.rs`) to a backend. For simulated engines that is `StepLoop`
(`src/rig/step.rs`): it lets the engine plan a step (`src/rig/engine/*.rs`: which rows of which calls), asks the cost model
how long the step takes (`src/rig/cost.rs`), and charges every call that is in flight through the account book
(`src/rig/book.rs`).

The charge is the heart of it. The cost model is asked twice: once for the step as it is, once for the step as it would be
with this call's rows alone. What it would have cost alone goes to decode or to the prefill classes, by tokens; the rest of
the step is contention, that is: what the neighbours cost. A call that has been admitted but has no row in a step is charged
the whole of it as contention. Before admission everything is queue.

Prefill is split by what the tokens are: new; evicted (the cache had them and lost them); uncached (the same prefix, but the
engine keeps no state there); broken (computed before, at a place that this prompt no longer reaches unchanged). What a
thread has seen is known from the trace (`src/trace/compile.rs`), what the cache lost from the cache (`src/rig/kv`).

Laps add what the agent does between calls: tools, waiting, sub-agents, the client's own time (`src/metrics/lap.rs`,
`GapParts` in `src/event.rs`). A parent that waits for children has that time as one part of its own lap, and the children's
laps stand under their own threads, so nothing is counted twice; the summary adds up main threads only.

That it adds up is not left to rounding: time is whole nanoseconds, what falls below one is carried (`src/rig/fine.rs`), and
the book asserts the sum when a call ends. The assertions stay on in release builds.

What would surprise an audience: contention can be negative in no case, by construction, but it can be most of a call's time
although the engine is never idle; a run on llama.cpp with four slots shows `evicted` although no memory is short, because a
slot was given to somebody else; and a report's percentages are of main threads' laps, not of all the engine's work.

I did not look at: live engines, the calibration, and the importers.
"""),
]
