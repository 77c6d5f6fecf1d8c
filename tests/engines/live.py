"""Starts the llama.cpp server, then runs the live tests of the binary against it.

    python3 live.py MODEL_FOLDER LOG PYTHON COMMAND...     the command finds the address in LAPTIME_ENGINE_URL
"""

import os
import subprocess
import sys
from pathlib import Path

from server import Server

model, log, python, *command = sys.argv[1:]
# Room in every slot for the longest prompt of the trace, and a slot for each of eight agents.
with Server("llama", python, Path(model), log, {"n_parallel": 8, "n_ctx": 131072}) as server:
    address = f"http://127.0.0.1:{server.port}"
    sys.exit(subprocess.run(command, env=dict(os.environ, LAPTIME_ENGINE_URL=address), timeout=1500).returncode)
