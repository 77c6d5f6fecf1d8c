"""Calibrates a rig on real engines, and holds what it predicts to what then happens.

    python3 calibrate.py MODEL_FOLDER LAPTIME OUT_FOLDER llama=PYTHON [vllm=PYTHON]

`laptime calibrate --url --quick` measures the engine and writes a rig. Two recordings that it has not seen are then
replayed at a number of agents that it has not seen, three times each, and simulated on that rig. The whole time that is
predicted must be within 10 % of the median of what is measured, or within twice the spread of the repeats where they
differ by more.
"""

import json
import signal
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
REPEATS, PATIENCE_S = 3, 600


def laptime(binary, *words, fine=(0,)):
    done = subprocess.run([binary, *map(str, words)], stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    if done.returncode not in fine:
        sys.exit(f"laptime {words[0]} ended with {done.returncode}")
    return done.stdout


def check(engine, python, model, binary, folder):
    rig, settings = RIGS[engine]
    named = f"host/{rig}/random-bf16"
    profile = folder / f"calibrated-{engine}.toml"
    wrong = 0
    with Server(engine, python, model, folder / f"calibrate-{engine}.log", SETTINGS[engine]) as server:
        at = ["--url", f"http://127.0.0.1:{server.port}"]
        print(laptime(binary, "calibrate", *at, "--quick", "--hardware", "host", "--engine", rig, "--model", "random-bf16",
                      "--catalog", CATALOG, "-o", profile), flush=True)
        for trace, agents in HELD_OUT:
            words = ["replay", "--trace", ROOT / f"traces/{trace}.jsonl", *at, "--rig", named, "--catalog", CATALOG,
                     "--catalog", profile, "--agents", agents, "--pace", "none", "--repeat", REPEATS,
                     "--max-client-lag", "60s", "--json", "-", "--quiet"]
            for setting in settings:
                words += ["--set", setting]
            told = json.loads(laptime(binary, *words))["results"]
            wrong += not compare(f"{engine}: {trace} at {agents} agents", told)
    return wrong


def compare(what, told):
    """Prints predicted and measured time of the whole replay; returns whether they agree."""
    seconds = {kind: sorted(one["summary"]["wall_s"] for one in told if one["operating_point"]["kind"] == kind)
               for kind in ("live", "simulated")}
    measured, (predicted,) = seconds["live"], seconds["simulated"]
    middle = measured[len(measured) // 2]
    spread = (measured[-1] - measured[0]) / middle
    error, allowed = predicted / middle - 1, max(0.1, 2 * spread)
    fits = abs(error) <= allowed
    print(f"{what}: predicted {predicted:.2f} s, measured {middle:.2f} s ({measured[0]:.2f} to {measured[-1]:.2f}); "
          f"off by {100 * error:+.1f} %, allowed {100 * allowed:.1f} %{'' if fits else '  WRONG'}", flush=True)
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
