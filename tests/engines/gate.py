"""Holds the live gate to llama.cpp's server: the same configuration passes, a quarter of the slots fails and is named.

    python3 gate.py MODEL_FOLDER LAPTIME FOLDER PYTHON
"""

import json
import subprocess
import sys
from pathlib import Path

from server import Server

model, laptime, folder, python = sys.argv[1:]
ROOT = Path(__file__).parent.parent.parent
# Every slot has the same room: what differs is how many agents find one.
OLD, NEW = {"n_parallel": 4, "n_ctx": 65536}, {"n_parallel": 1, "n_ctx": 16384}
PAIRS = "8"


def checked(new, old, name):
    """Checks one server against another; returns the exit code and the answer."""
    answer = Path(folder) / f"gate-{name}.json"
    command = [laptime, "check", "--url", f"http://127.0.0.1:{new.port}", "--against", f"http://127.0.0.1:{old.port}",
               "--trace", str(ROOT / "tests" / "data" / "two-sessions.jsonl"), "--agents", "4", "--pace", "none", "--repeat", PAIRS,
               "--gate", str(Path(__file__).parent / "gate.toml"), "--max-client-lag", "60s", "--json", str(answer)]
    code = subprocess.run(command, timeout=600).returncode
    return code, json.loads(answer.read_text())


with Server("llama", python, Path(model), f"{folder}/gate-old.log", OLD) as old:
    with Server("llama", python, Path(model), f"{folder}/gate-same.log", OLD) as same:
        code, answer = checked(same, old, "same")
        assert code == 0 and not answer["differences"], f"the same configuration: exit {code}, {answer}"
    with Server("llama", python, Path(model), f"{folder}/gate-new.log", NEW) as new:
        code, answer = checked(new, old, "new")
        told = {one["axis"]: one for one in answer["differences"]}
        failed = [one["figure"] for one in answer["checks"] if one["verdict"] == "fail"]
        assert code == 1, f"a quarter of the slots: exit {code}, {answer}"
        assert "engine.parallel=4" in told["settings"]["was"] and "engine.parallel=1" in told["settings"]["is"], told
        assert failed, answer
print(f"the live gate: the same passes; fewer slots fail {', '.join(failed)}")
