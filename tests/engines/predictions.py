"""What is written about the engines, asked of the engines: each numbered prediction is one small experiment.

The requests of the serial ones are written as cases too, so that the simulated engines answer them as well.
"""

import random
import threading
import time
from math import ceil

from model import END, FIRST_PAIR, KV_BYTES_PER_TOKEN


class Judge:
    """Compares what is predicted with what an engine did, and keeps both."""

    def __init__(self, run, engine):
        self.run, self.engine, self.wrong = run, engine, 0
        self.draw = random.Random(engine)

    def ids(self, count):
        return [self.draw.randrange(FIRST_PAIR, END) for _ in range(count)]

    def says(self, number, what, want, got):
        """Notes a prediction; `want` is a value or a range of them."""
        holds = got in want if isinstance(want, (range, list)) else got == want
        self.wrong += not holds
        want = f"{want[0]} to {want[-1]}" if isinstance(want, range) else want
        self.run.write({"prediction": f"{self.engine} {number}", "what": what, "want": want, "got": got, "holds": holds})
        print(f"{'ok   ' if holds else 'WRONG'} {self.engine} {number}: {what}: {want}, engine {got}", flush=True)

    def together(self, server, *requests):
        """Sends requests of (prompt, answer length, delay, extra fields) at once; returns their rows in that order."""
        rows = [None] * len(requests)

        def one(index, prompt, most, delay, extra):
            time.sleep(delay)
            number = next(self.run.numbers)
            rows[index] = server.ask(prompt, most, self.run.clock, number, **extra) | {"number": number}

        threads = [threading.Thread(target=one, args=(i, *r), daemon=True) for i, r in enumerate(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        if None in rows:
            raise RuntimeError("a request did not end")
        return rows


def llama(run, start):
    judge = Judge(run, "llama.cpp")
    ids = judge.ids
    with start({"n_parallel": 4, "n_ctx": 32768, "cache_ram_mib": 0}) as server:
        run.case(server, "predictions: own slots", "serial")
        first = run.ask(server, 0, ids(378), 26)
        judge.says(3, "the first request's slot", 3, first["slot"])
        second = run.ask(server, 0, first["prompt"] + first["output"] + ids(9), 38)
        judge.says(1, "extension of prompt 378 and answer 26", 378 + 26 - 1, second["cached"])
        prompt = ids(1000)
        run.ask(server, 1, prompt, 8)
        again = run.ask(server, 1, prompt, 8)
        judge.says(2, "the same 1000 tokens twice, cached", 999, again["cached"])
        judge.says(2, "the same 1000 tokens twice, computed", 1, again["computed"])
        judge.says(8, "a prompt of 9000 in a slot of 32768 / 4", 400, run.ask(server, 2, ids(9000), 1)["status"])
        in_order(judge, server)
        stalls(judge, server)
    with start({"n_parallel": -1, "n_ctx": 32768, "cache_ram_mib": 64}) as server:
        run.case(server, "predictions: automatic slots", "serial")
        row = run.ask(server, 0, ids(9000), 1)
        judge.says(8, "a prompt of 9000 with automatic slots", 200, row["status"])
        judge.says(3, "the first request's slot", 3, row["slot"])
        parent = run.ask(server, 1, ids(2000), 10)
        child = run.ask(server, 2, parent["prompt"][:300] + ids(1700), 10)
        judge.says(9, "a sub-agent that shares 15 % takes its parent's slot", parent["slot"], child["slot"])
        judge.says(9, "and reuses what they share", 300, child["cached"])
        back = run.ask(server, 1, parent["prompt"] + parent["output"] + ids(50), 10)
        judge.says(9, "the parent's return hits by way of host memory", 2000 + 10 - 1, back["cached"])
    over = (1 << 20) // KV_BYTES_PER_TOKEN + 500
    for ram, kept in [(1, 0), (64, over + 9)]:
        with start({"n_parallel": -1, "n_ctx": 32768, "cache_ram_mib": ram}) as server:
            run.case(server, f"predictions: sessions take turns, {ram} MiB", "serial")
            one, other = run.ask(server, 0, ids(over), 10), run.ask(server, 1, ids(over), 10)
            row = run.ask(server, 0, one["prompt"] + one["output"] + ids(5), 10)
            judge.says(7, f"a session of {over} tokens comes back to {ram} MiB of host memory", kept, row["cached"])
            row = run.ask(server, 1, other["prompt"] + other["output"] + ids(5), 10)
            judge.says(7, f"and so does the other", kept, row["cached"])
    return judge.wrong


def in_order(judge, server):
    """5: prompts are filled strictly in slot order."""
    for low_delay, high_delay in [(0, 0.05), (0.05, 0)]:
        low, high = judge.together(
            server,
            (judge.ids(7900), 4, low_delay, {"id_slot": 0}),
            (judge.ids(7900), 4, high_delay, {"id_slot": 1}),
        )
        # The batch that finishes the one prompt has room left for the other.
        read = [done for at, done in high["progress"] if at < low["at"][0]]
        most = 2048 + 2048 if low_delay else 2048
        judge.says(5, f"of slot 1's prompt, read before slot 0's is done (slot 0 comes {'later' if low_delay else 'first'})",
                   range(0, most + 1), max(read, default=0))


def stalls(judge, server):
    """6: a generating slot gets one token for each batch of another's prompt.

    Then the prompt's batches are steps that the generating slot makes anyway, and none comes on top.
    """
    before = server.metric("llamacpp:n_decode_total")
    one, long = judge.together(
        server, (judge.ids(20), 3000, 0, {"id_slot": 3}), (judge.ids(7900), 1, 0.3, {"id_slot": 2})
    )
    assert long["end"] < one["end"], "the prompt was not read while the other slot generated"
    batches = ceil(7900 / 2047)
    judge.says(6, f"batches in which a slot answers 3000 tokens and a prompt of {batches} batches is read beside it", 3000,
               server.metric("llamacpp:n_decode_total") - before)


def vllm(run, start):
    judge = Judge(run, "vLLM")
    ids = judge.ids
    settings = {"block-size": 32, "num-gpu-blocks-override": 1024, "max-num-seqs": 32, "max-num-batched-tokens": 2048,
                "max-model-len": 16352}
    with start(settings) as server:
        row = server.ask(ids(100), 1, run.clock)
        judge.says(9, "cached tokens without being asked to report them", None, row["cached"])
    with start(settings | {"enable-prompt-tokens-details": True}) as server:
        run.case(server, "predictions: blocks of 32", "serial")
        shared = ids(1000)
        run.ask(server, 0, shared + ids(300), 4)
        judge.says(1, "1000 shared tokens", 992, run.ask(server, 1, shared + ids(300), 4)["cached"])
        for length, hit in [(1024, 992), (1025, 1024)]:
            prompt = ids(length)
            run.ask(server, length, prompt, 4)
            judge.says(2, f"the same {length} tokens twice", hit, run.ask(server, length, prompt, 4)["cached"])
        for answer in (200, 216):
            row = run.ask(server, 2, ids(1000), answer)
            row = run.ask(server, 2, row["prompt"] + row["output"] + ids(100), 4)
            judge.says(3, f"a prompt of 1000 and its answer of {answer}", 1184, row["cached"])
        # Not a case of the simulator: a salt has no counterpart there.
        prompt = ids(500)
        server.ask(prompt, 4, run.clock, cache_salt="a")
        judge.says(10, "the same prompt under another salt", 0, server.ask(prompt, 4, run.clock, cache_salt="b")["cached"])
        prompt = ids(2000)
        # The engine is busy when both arrive, and takes both into its next step.
        *_, one, two = judge.together(server, (ids(6000), 1, 0, {}), (prompt, 400, 0.1, {}), (prompt, 400, 0.1, {}))
        got = sorted([one["cached"], two["cached"]])
        judge.says(4, "two identical prompts of 2000 at once", [[0, 1984]], got)
        both = {one["number"], two["number"]}
        judge.says(4, "steps in which both take part", range(1, 2000),
                   sum(both <= set(step) for step in server.steps(min(both))))
        mixed(judge, server)
    tiny = settings | {"num-gpu-blocks-override": 80, "max-model-len": 2400, "enable-prompt-tokens-details": True}
    with start(tiny) as server:
        server.ask(ids(10), 4, run.clock)
        before = server.metric("vllm:iteration_tokens_total_count")
        judge.together(server, (ids(500), 1500, 0, {}), (ids(500), 1500, 0, {}))
        judge.says(6, "preemptions when two requests of 2000 tokens meet 79 blocks", 1,
                   server.metric("vllm:num_preemptions_total"))
        # Each holds 39 blocks after 748 tokens of its answer. The rest of both comes one after the other.
        judge.says(6, "steps, where the one preempted waits for the other's end", range(2244, 2261),
                   int(server.metric("vllm:iteration_tokens_total_count") - before))
    return judge.wrong


def mixed(judge, server):
    """5: a long prompt shares its steps with those who decode, and none of them misses one.

    Then there are as many steps as tokens of the longer answer. A step counts with a prompt's tokens when it finishes
    the prompt; were that one not shared, there would be a step more, and one more of a single token.
    """
    steps = lambda: server.metric("vllm:iteration_tokens_total_count")
    single = lambda: server.metric("vllm:iteration_tokens_total_bucket", 'le="1.0"')
    before, single_before = steps(), single()
    one, long = judge.together(server, (judge.ids(40), 3000, 0, {}), (judge.ids(6000), 1, 1.0, {}))
    assert long["end"] < one["end"], "the prompt was not read while the other request decoded"
    judge.says(5, "steps in which one answers 3000 tokens and a prompt of 6000 is read beside it", 3000, steps() - before)
    judge.says(5, "steps of one token among them", 3000 - 2, single() - single_before)
