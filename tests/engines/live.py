"""Runs the live tests of the binary against real engines, one after the other.

    python3 live.py MODEL_FOLDER LOG_FOLDER llama=PYTHON [vllm=PYTHON] -- COMMAND...

The command finds the engine's address in LAPTIME_ENGINE_URL.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from server import Server

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
# Room for eight agents, each with the longest prompt of the trace.
SETTINGS = {
    "llama": {"n_parallel": 8, "n_ctx": 131072},
    "vllm": {"max-model-len": 16384, "max-num-seqs": 8, "max-num-batched-tokens": 2048, "block-size": 32,
             "chat-template": TEMPLATE, "enable-prompt-tokens-details": True},
}
PATIENCE_S = 1500


def main():
    model, folder, *rest = sys.argv[1:]
    at = rest.index("--")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    failed = False
    for engine, python in (pair.split("=", 1) for pair in rest[:at]):
        with Server(engine, python, Path(model), Path(folder) / f"live-{engine}.log", SETTINGS[engine]) as server:
            began = time.monotonic()
            address = f"http://127.0.0.1:{server.port}"
            environment = dict(os.environ, LAPTIME_ENGINE_URL=address)
            failed |= subprocess.run(rest[at + 1 :], env=environment, timeout=PATIENCE_S).returncode != 0
            print(f"{engine}: live replays took {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
