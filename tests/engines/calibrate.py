"""Calibrates a rig on real engines, and holds what it predicts to what happens.

    python3 calibrate.py MODEL_FOLDER LAPTIME OUT_FOLDER llama=PYTHON [vllm=PYTHON]

`laptime calibrate --url --quick` measures the engine and writes a rig. Two recordings that it has not seen, at a number of
agents that it has not seen, are replayed twice before that and twice after it, because a machine is not as fast in one
minute as in the next, and simulated on that rig. The whole time that is predicted must be within 10 % of the median of
what is measured, or within twice what two repeats in a row differ by where that is more, but never off by more than 15 %.
"""

import json
import signal
import statistics
import subprocess
import sys
from pathlib import Path

from live import TEMPLATE
from server import Server

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "tests/engines/catalog"
# Room for eight calls at a time, each with the longest prompt of the recordings.
SETTINGS = {
    "llama": {"n_parallel": 8, "n_ctx": 8 * 20480},
    "vllm": {"max-model-len": 20480, "max-num-seqs": 8, "max-num-batched-tokens": 2048, "block-size": 32,
             "chat-template": TEMPLATE, "enable-prompt-tokens-details": True},
}
RIGS = {
    # The package builds llama.cpp without telling its version; this is the newest whose rules the catalogue has.
    "llama": ("llama.cpp@latest", ["engine.parallel=8", "engine.ctx_size=163840"]),
    "vllm": ("vllm", ["engine.block_size=32", "engine.max_num_seqs=8", "engine.max_num_batched_tokens=2048",
                      "engine.max_model_len=20480", "engine.enforce_eager=on"]),
}
HELD_OUT = [("test-fix-loop", 4), ("fan-out", 2)]
REPEATS, PATIENCE_S, MOST = 2, 600, 0.15


def laptime(binary, *words):
    done = subprocess.run([binary, *map(str, words)], stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    if done.returncode:
        sys.exit(f"laptime {words[0]} ended with {done.returncode}")
    return done.stdout


def check(engine, python, model, binary, folder):
    rig, settings = RIGS[engine]
    profile = folder / f"calibrated-{engine}.toml"
    simulated = ["--rig", f"host/{rig}/random-bf16", "--catalog", CATALOG, "--catalog", profile]
    for setting in settings:
        simulated += ["--set", setting]
    wrong = 0
    with Server(engine, python, model, folder / f"calibrate-{engine}.log", SETTINGS[engine]) as server:
        at = ["--url", f"http://127.0.0.1:{server.port}"]

        def replay(trace, agents, seed, *more):
            words = ["replay", "--trace", ROOT / f"traces/{trace}.jsonl", *at, "--agents", agents, "--pace", "none",
                     "--repeat", REPEATS, "--seed", seed, "--max-client-lag", "60s", "--json", "-", "--quiet", *more]
            told = json.loads(laptime(binary, *words))
            return told.get("results", [told])

        before = [replay(trace, agents, 1) for trace, agents in HELD_OUT]
        print(laptime(binary, "calibrate", *at, "--quick", "--hardware", "host", "--engine", rig, "--model", "random-bf16",
                      "--catalog", CATALOG, "-o", profile), flush=True)
        for (trace, agents), earlier in zip(HELD_OUT, before):
            told = earlier + replay(trace, agents, 2, *simulated)
            wrong += not compare(f"{engine}: {trace} at {agents} agents", told)
    return wrong


def compare(what, told):
    """Prints predicted and measured time of the whole replay; returns whether they agree."""
    seconds = {kind: [one["summary"]["wall_s"] for one in told if one["operating_point"]["kind"] == kind]
               for kind in ("live", "simulated")}
    measured, (predicted,) = seconds["live"], seconds["simulated"]
    middle = statistics.median(measured)
    spread = max(abs(a - b) for a, b in zip(measured[::REPEATS], measured[1::REPEATS])) / middle
    error, allowed = predicted / middle - 1, min(MOST, max(0.1, 2 * spread))
    fits = abs(error) <= allowed
    each = ", ".join(f"{one:.2f}" for one in measured)
    print(f"{what}: predicted {predicted:.2f} s, measured {middle:.2f} s ({each}); "
          f"off by {100 * error:+.1f} %, repeats by {100 * spread:.1f} %, allowed {100 * allowed:.1f} %"
          f"{'' if fits else '  WRONG'}", flush=True)
    for one in told:
        summary = one["summary"]
        parts = {name: round(value, 2) for name, value in summary["parts_s"].items() if value}
        print(f"  {one['operating_point']['kind']}: {summary['wall_s']:.2f} s, first token p50 {summary['ttft_s']['p50']:.4f} s, "
              f"between tokens p50 {summary['itl_s']['p50']:.5f} s, cached {summary['tokens']['cached']}, {parts}")
    return fits


if __name__ == "__main__":
    model, binary, folder, *engines = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    sys.exit(sum(check(*engine.split("=", 1), Path(model), binary, Path(folder)) for engine in engines) and 1)
