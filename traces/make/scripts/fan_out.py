"""A main agent sends three helpers to different parts of the repository, waits for their reports, and goes on."""

WHAT = "plan a change with three helpers exploring side by side"

TASK = """
We want to add SGLang as a third simulated engine. Before anyone writes code I need a plan: which files, what each must
provide, which existing pieces can be used, what is missing, and in what order. Use helpers for the reading, so that this
conversation stays short, and check their most important claims yourself. The plan should fit on a page.
"""

COMMON = "The repository is a Rust crate that replays recorded agent sessions on simulated serving engines. We plan to add "\
    "SGLang as an engine: radix-tree prefix cache with page size 1, chunked prefill, longest-prefix-match scheduling, "\
    "retraction under memory pressure. "

ENGINES = [
    say("I start with the folder and the trait that engines implement.",
        bash("wc -l src/rig/*.rs src/rig/engine/*.rs src/rig/kv/*.rs"), read("src/rig/engine/mod.rs"), read("src/rig/mod.rs")),
    say("The closest relative is vLLM's; I read it whole.", read("src/rig/engine/vllm.rs")),
    say("And llama.cpp's, for what the two share.", read("src/rig/engine/llama_cpp.rs", 100, 420)),
    say("The loop that drives both.", read("src/rig/step.rs"), read("src/rig/book.rs", 1, 200)),
    say("How costs are asked for: SGLang captures graphs for certain batch sizes as vLLM does.",
        bash("git grep -n 'captured\\|Graph' -- src/rig src/study | head -40"), read("src/rig/cost.rs", 1, 220)),
    say("Last: what do engines share in tests?",
        bash("git grep -n -A1 '#\\[test\\]' -- src/rig"), bash("git grep -n 'mod tests' -- src/rig")),
    say("""
Engines live in `src/rig/engine/`, one file each, behind one trait in `src/rig/engine/mod.rs`: take in a call, plan a step
(rows: prefill chunks and decodes), note what came of it, say what ended. They hold no time; `src/rig/step.rs` drives them
and asks `src/rig/cost.rs` for lengths, jumping over equal decode steps in closed form, so an engine must also say for how
many steps its batch cannot change.

vLLM (`src/rig/engine/vllm.rs`) is the model to follow: running before waiting, a token budget per step, chunked prefill,
preemption by recomputation that puts the victim in front of the queue. SGLang differs in three things: waiting calls are
ordered by how much of their prompt is cached; prefill and decode do not mix in a step unless asked to; memory pressure
retracts running calls, shortest output first, and raises a reserve ratio.

A call's account is kept in `src/rig/book.rs`; engines name the call and the kind of time, no more. Refusals: an engine says
`RefusedContext` or `RefusedMemory` when a call can never fit.

Graph capture: `captured(max_num_seqs)` gives the batch sizes for vLLM; SGLang has another list (1, 2, 4, 8, then by 8 to
160), so it needs its own function next to it. The cost model takes the list as a value and needs no change.

`src/rig` has three tests and none of them is in an engine's file: nothing holds an engine's schedule at this commit. A table
of the same small cases for every engine would pay for itself with the third.

Surprising: llama.cpp's file contains its own settings struct with everything resolved, vLLM's too; nothing is read from the
catalogue inside `rig`. I did not look at `src/rig/roofline.rs`.
"""),
]

CACHE = [
    say("What caches are there?", bash("wc -l src/rig/kv/*.rs; cat src/rig/kv/mod.rs; git grep -n 'pub fn' -- src/rig/kv"),
        read("src/rig/kv/blocks.rs", 1, 330)),
    say("The rest of the block cache: eviction and the tests.", read("src/rig/kv/blocks.rs", 331, 566)),
    say("What identity of content is it built on?", read("src/trace/content.rs", 1, 350)),
    say("The token-exact cache of llama.cpp is the other half of what a radix tree needs.", read("src/rig/kv/slots.rs")),
    say("How is what was lost told apart from what was never there?",
        bash("git grep -n -i 'lost\\|evict' -- src/rig | head -50")),
    say("""
Content is a tree: every prompt is a node (`src/trace/content.rs`), equal beginnings share nodes, `meeting(a, b)` gives where
two prompts part, in tokens. Nothing compares token by token at run time.

`src/rig/kv/blocks.rs` is vLLM's cache: blocks of fixed size, reference counts, a free list in order of release, eviction of
the oldest unreferenced block, last block of a released sequence first. Lookup walks whole blocks from the start and stops at
the first gap. It knows who had computed a lost block, which is how `evicted` tokens are told from new ones.

`src/rig/kv/slots.rs` is llama.cpp's: one list of tokens a slot, common prefix to the token.

A radix tree with page size 1 is neither: token-exact like the slots, shared and evictable like the blocks. Two ways: run
`blocks.rs` with a block size of 1, correct and probably slow at 60,000 tokens a prompt; or keep runs along the content tree
(node, from, to) with a reference count and a last use, and evict leaves in order of last use, which is what SGLang does and
costs one step a node and not one a token. The content tree already gives the nodes, so the second is about 250 lines.

The block cache is the oracle for it in tests: with block size 1 both must agree on every lookup when nothing is evicted.

Missing: locks on nodes while a call uses them (SGLang's `lock_ref`), and inserting a finished call's output. Not looked at:
hybrid models in SGLang, which keep states at nodes.
"""),
]

CATALOG = [
    say("Which of SGLang is in the catalogue already?",
        read("src/catalog/data/engine/sglang.toml"), bash("git grep -n -i 'sglang' -- src ':!src/catalog/data/engine/sglang.toml'")),
    say("There is a profile with settings and sources, but no simulation. How do settings get from there to an engine?",
        read("src/study/rig.rs"), read("src/catalog/engine.rs", 1, 240)),
    say("For comparison: what do the profiles of the two built engines hold that this one lacks?",
        bash("diff <(grep -o '^\\[settings[^]]*\\]' src/catalog/data/engine/vllm.toml | sort) <(grep -o '^\\[settings[^]]*\\]' src/catalog/data/engine/sglang.toml | sort); true"),
        bash("git grep -n 'memory\\|mem_fraction\\|utilization' -- src/rig/memory.rs src/study/rig.rs src/catalog/data/engine/sglang.toml")),
    say("And the tests that would have to learn of it.",
        bash("git grep -n '\"vllm\"\\|\"llama.cpp\"' -- src tests | head -40")),
    say("""
`src/catalog/data/engine/sglang.toml` exists, with versions, settings, defaults by hardware and sources; it is listed and can
be named, and `study/rig.rs` answers `NotSimulated` for it. So names, aliases, suggestions and documents need nothing.

The way in is `build` in `src/study/rig.rs`: a `match` on the engine's name, one arm each, which turns resolved settings into
the engine's own settings struct. `HONOURED` in the same file lists by engine which settings the simulation takes seriously;
any other must keep its default, else `Fixed` is the error. A third entry is needed there, with `chunked_prefill_size`,
`max_running_requests`, `mem_fraction_static`, `schedule_policy`, `schedule_conservativeness`, `context_length`,
`disable_radix_cache` under its common name `prefix_caching`.

Memory: `src/rig/memory.rs` sizes a pool from usable memory, weights and a fraction; `mem_fraction_static` means weights and
cache together, which is another sum than vLLM's utilization, so it needs a function of its own.

Cost: `src/rig/roofline.rs` gives efficiencies by engine and platform; without an entry SGLang would have to borrow vLLM's,
and the report must say that it did.

Not checked: whether every default in the file has the value of the version it names.
"""),
]


def prepare(_work):
    pass


TURNS = [
    say("First a look around, enough to give each helper a question that can be answered.",
        bash("git ls-files 'src/*.rs' | xargs wc -l | sort -n | tail -30"), bash("sed -n '/^\\/\\/!/p' src/rig/mod.rs src/rig/step.rs src/study/rig.rs")),
    say("Three parts can be read independently: engines and their loop, caches, and the catalogue with the way from settings "
        "to a rig.",
        task("engines", COMMON + "Read src/rig/engine, src/rig/step.rs, src/rig/book.rs and src/rig/cost.rs. Report what an engine "
             "must provide, what vLLM's does that SGLang could follow, and where the two differ in a way the code must show.", ENGINES),
        task("cache", COMMON + "Read src/rig/kv and src/trace/content.rs. Report which of it a radix cache with page size 1 could use, "
             "what is missing, and how lost tokens are told apart from new ones.", CACHE),
        task("catalog", COMMON + "Read src/catalog (not every data file) and src/study/rig.rs. Report how a name and settings become a "
             "rig, what exists for SGLang already, and every place that must learn of a new engine.", CATALOG)),
    say("The reports agree with each other. Three claims carry the plan, and I check them: that `NotSimulated` is where it stops "
        "today, that the cost model takes captured sizes as a value, and how `meeting` works, since the radix cache stands on it.",
        bash("git grep -n 'NotSimulated' -- src tests"), bash("git grep -n 'captured' -- src/study/rig.rs src/rig/cost.rs"),
        read("src/trace/content.rs", 20, 110)),
    say("All three hold. What I still need is the size of the step that decides: the engine trait, in its own words, and the "
        "admission of vLLM, because longest prefix first must be put in just there.",
        read("src/rig/engine/mod.rs"), bash("git grep -n 'fn ' -- src/rig/engine/vllm.rs"), read("src/rig/memory.rs")),
    say("And what a reader will trust: how are efficiencies chosen where an engine was never measured on a box?",
        read("src/rig/roofline.rs")),
    say("""
Plan for SGLang as a simulated engine, in order; each step can be merged by itself.

1. `src/rig/kv/radix.rs`, new, about 250 lines. Runs along the content tree with reference counts and last use; evicts
leaves by last use. Oracle in its tests: `blocks.rs` with block size 1, equal on every lookup while nothing is evicted.
`Content::meeting` (`src/trace/content.rs`) gives where prompts part, so nothing is compared token by token.

2. `src/rig/engine/sglang.rs`, new, about 350 lines, after vLLM's. Three differences: the queue is ordered by cached prefix
at each step, a step is either prefill or decode unless `enable_mixed_chunk`, and pressure retracts running calls and raises
the reserve. It must say for how many steps its batch cannot change, as the others do, or long decodes will be slow.

3. `src/rig/memory.rs`: a second sum for `mem_fraction_static`, which means weights and cache together.

4. `src/study/rig.rs`: an arm in `build`, an entry in `HONOURED`, a list of captured batch sizes. `sglang.toml` is there
already; its defaults must be checked against the version it names before anyone trusts a figure.

5. `src/rig/roofline.rs`: no measurement of SGLang is at hand for any of our boxes; borrow vLLM's efficiencies and say so in
`known_by`. Anything better waits for a measured run.

6. Tests: one table of small cases over all three engines; today none of them has a test of its schedule.

Order 1, 3, 2, 4, 5, 6. The risk is in 2: retraction is the part that no recorded run at hand exercises, so its time under
pressure will be an estimate, and the report should call it one.
"""),
]
