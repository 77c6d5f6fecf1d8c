"""Drives real engines with exact token ids and writes what they answered, one JSON line per request.

    python3 drive.py MODEL_FOLDER OUT.jsonl llama=PYTHON [vllm=PYTHON]

Each case is a fresh cache: a line with its settings, then a line per request with the prompt's ids, the answer's ids,
the tokens the engine reports as cached and when each token arrived. Serial cases send one request at a time, so that
hits do not depend on timing; concurrent ones have a thread per session. `tests/it/real_engines.rs` feeds the same ids
to the simulated engines.
"""

import itertools
import json
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path

import predictions
from model import END, FIRST_PAIR, KV_BYTES_PER_TOKEN
from server import Server

SYSTEM, SEED = 300, 20261121


def ids(count, *seed):
    draw = random.Random(repr((SEED, *seed)))
    return [draw.randrange(FIRST_PAIR, END) for _ in range(count)]


class Session:
    """A conversation that mostly extends itself, and sometimes does what caches find hard."""

    def __init__(self, case, number, size):
        self.draw = random.Random(repr((SEED, case, number)))
        self.name, self.size, self.fresh, self.turn = (case, number), size, 0, 0
        self.prompt = ids(SYSTEM, "system") + self.new(size)

    def new(self, mean):
        self.fresh += 1
        return ids(self.draw.randrange(1, 2 * mean), *self.name, self.fresh)

    def answer_length(self):
        return self.draw.choice([1, 2, 17, 32, 33, self.draw.randrange(8, 60)])

    def take(self, output):
        """Chooses the next prompt: extended, repeated, gone back to an earlier point, or begun again."""
        self.turn += 1
        move = self.draw.random()
        if move < 0.8:
            self.prompt = self.prompt + output + self.new(self.size)
        elif move < 0.85:
            pass
        elif move < 0.95:
            self.prompt = self.prompt[: self.draw.randrange(1, len(self.prompt))] + self.new(self.size)
        else:
            self.prompt = self.prompt[:SYSTEM] + self.new(self.size)


class Run:
    """Where the rows go, and the clock they are stamped with."""

    def __init__(self, path):
        self.file, self.lock, self.began = open(path, "w"), threading.Lock(), time.monotonic()
        self.numbers = itertools.count()

    def clock(self):
        return round(time.monotonic() - self.began, 6)

    def write(self, line):
        with self.lock:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()

    def ask(self, server, session, prompt, most, **extra):
        number = next(self.numbers)
        row = server.ask(prompt, most, self.clock, number, **extra)
        self.write({"session": session, "number": number} | row)
        if row["status"] == 200 and len(row["output"]) != most:
            raise RuntimeError(f"asked for {most} tokens, got {len(row['output'])}")
        return row

    def case(self, server, name, mode, **about):
        self.write({"case": name, "engine": server.engine, "mode": mode, "settings": server.settings} | about)

    def serial(self, server, name, sessions, turns, size):
        self.case(server, name, "serial")
        everyone = [Session(name, number, size) for number in range(sessions)]
        order = [number for number in range(sessions) for _ in range(turns)]
        # Neither round robin nor one after the other: both are easy cases for some cache.
        random.Random(repr((SEED, name))).shuffle(order)
        for number in order:
            session = everyone[number]
            session.take(self.ask(server, number, session.prompt, session.answer_length())["output"])

    def concurrent(self, server, name, sessions, turns, size, think_s, again=""):
        self.case(server, name + again, "concurrent")
        failed = []

        def live(number):
            try:
                session = Session(name, number, size)
                for _ in range(turns):
                    time.sleep(session.draw.expovariate(1 / think_s))
                    session.take(self.ask(server, number, session.prompt, session.answer_length() + 16)["output"])
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=live, args=(number,), daemon=True) for number in range(sessions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        if failed or any(thread.is_alive() for thread in threads):
            raise RuntimeError(f"{name}: {failed or 'a session did not end'}")


def mib(tokens):
    """Host memory for this many tokens."""
    return -(-tokens * KV_BYTES_PER_TOKEN >> 20) or 1


def llama(run, start):
    """Slots by themselves and with host memory, apart and in one pool, over-subscribed 1, 1.4 and 3 times."""
    four = {"n_parallel": 4, "n_ctx": 16384, "cache_ram_mib": 0}
    cases = [
        ("4 slots, 4 sessions", four, 4, 10, 200),
        ("4 slots, 6 sessions", four, 6, 8, 200),
        ("4 slots, 12 sessions", four, 12, 6, 200),
        ("4 slots, 6 sessions, 64 MiB", four | {"cache_ram_mib": 64}, 6, 8, 200),
        ("4 slots, 12 sessions, 4 MiB", four | {"cache_ram_mib": 4}, 12, 8, 200),
        ("one pool, 6 sessions, 64 MiB", four | {"kv_unified": True, "cache_ram_mib": 64}, 6, 8, 200),
        ("one pool, 12 sessions, 4 MiB", four | {"kv_unified": True, "cache_ram_mib": 4}, 12, 8, 200),
        ("one pool, 6 sessions, no host memory", four | {"kv_unified": True}, 6, 8, 200),
        ("one small pool, 6 sessions", four | {"kv_unified": True, "n_ctx": 4096}, 6, 6, 150),
    ]
    for name, settings, sessions, turns, size in cases:
        with start(settings) as server:
            run.serial(server, f"serial: {name}", sessions, turns, size)
    for name, settings, sessions, turns, size in cases[:-1]:
        # Twice the same, to see by how much the engine differs from itself.
        for again in ("", ", again"):
            with start(settings) as server:
                run.concurrent(server, f"concurrent: {name}", sessions, turns, size, 0.1, again)
                time.sleep(1)  # The log follows the last answer.
            run.write({"log": slot_log(server.log.name)})


def slot_log(path):
    """The order in which slots were taken and let go, from the server's log: pairs of 1 or 0 and the slot."""
    found = re.findall(r"(launch_slot_|release): id +(\d+) \| task \d+ \| (?:processing|stop)", Path(path).read_text())
    return [[int(what != "release"), int(slot)] for what, slot in found]


def vllm(run, start):
    """One working set on caches of 1, 1/1.4 and 1/3 of its size."""
    # Eight sessions of about 300 + 8 x (200 + 25) tokens are some 490 blocks of 32.
    for ratio, blocks in [("1x", 520), ("1.4x", 350), ("3x", 165)]:
        settings = {"block-size": 32, "num-gpu-blocks-override": blocks, "max-num-seqs": 8,
                    "max-num-batched-tokens": 2048, "max-model-len": min(16352, 32 * (blocks - 1)),
                    "enable-prompt-tokens-details": True}
        with start(settings) as server:
            run.serial(server, f"serial: {ratio} of {blocks} blocks", 8, 10, 200)
            # Twice the same, to see by how much the engine differs from itself.
            for again in ("", ", again"):
                server.call("POST", "/reset_prefix_cache")
                before = server.metric("vllm:num_preemptions_total")
                first = next(run.numbers)
                run.concurrent(server, f"concurrent: {ratio} of {blocks} blocks", 8, 10, 200, 0.1, again)
                run.write({"preemptions": server.metric("vllm:num_preemptions_total") - before})
                run.write({"steps": server.steps(first)})


def main():
    model, out, *engines = sys.argv[1:]
    # A plain exit, so that `with` blocks stop their servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    run = Run(out)
    wrong = 0
    for engine, python in (pair.split("=", 1) for pair in engines):
        began = time.monotonic()

        def start(settings, engine=engine, python=python):
            return Server(engine, python, Path(model), Path(out).with_name(f"{engine}.log"), settings)

        {"llama": llama, "vllm": vllm}[engine](run, start)
        wrong += {"llama": predictions.llama, "vllm": predictions.vllm}[engine](run, start)
        print(f"{engine}: driven in {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(f"{wrong} predictions failed" if wrong else 0)


if __name__ == "__main__":
    main()
