"""Shows on a real llama.cpp server what docs/model.md says of its passes: what gaps between slots and short chunks cost.

    python3 passes.py MODEL_FOLDER LOG_FOLDER PYTHON

Prints times; nothing is compared, because they are those of the machine.
"""

import random
import statistics
import sys
import threading
import time
from pathlib import Path

from server import Server

SLOTS = [[0], [0, 1], [0, 2], [0, 1, 2], [0, 2, 4], [0, 1, 2, 3], [0, 2, 4, 6]]
DEPTH, SHORT, LONG, REPEATS = 8192, 63, 64, 5
DRAW = random.Random(5)


def tokens(count):
    return [DRAW.randrange(256, 1020) for _ in range(count)]


def step_ms(server, slots):
    """Returns how long a step takes while one answer is written in each of these slots."""
    rows = [None] * len(slots)
    prompts = [tokens(100) for _ in slots]

    def ask(place):
        rows[place] = server.ask(prompts[place], 200, time.perf_counter, id_slot=slots[place])

    calls = [threading.Thread(target=ask, args=(place,)) for place in range(len(slots))]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    begun, ended = max(row["at"][4] for row in rows), min(row["at"][-1] for row in rows)
    at = [moment for moment in rows[0]["at"] if begun <= moment <= ended]
    return 1e3 * (at[-1] - at[0]) / (len(at) - 1)


def main():
    model, folder, python = sys.argv[1:]
    settings = {"n_parallel": 8, "n_ctx": 8 * 20480}
    with Server("llama", python, Path(model), Path(folder) / "passes.log", settings) as server:
        for slots in SLOTS:
            print(f"slots {slots}: {statistics.median(step_ms(server, slots) for _ in range(REPEATS)):.2f} ms a step")
        deep = tokens(DEPTH)
        server.ask(deep, 1, time.perf_counter, id_slot=0)
        for new in (SHORT, LONG):
            asked = [server.ask(deep + tokens(new), 1, time.perf_counter, id_slot=0) for _ in range(REPEATS)]
            print(f"{new} tokens after {DEPTH}: {statistics.median(one['prompt_ms'] for one in asked):.1f} ms")


if __name__ == "__main__":
    main()
