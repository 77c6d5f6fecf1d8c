"""Puts `laptime record` before a real engine and 32 agents before that; compares what is recorded with what is said.

    python3 record.py MODEL_FOLDER LAPTIME OUT_FOLDER llama=PYTHON [vllm=PYTHON]

Every agent holds a conversation of its own over streaming chat completions. The engine tells each agent how many tokens
its prompt and answer had; the trace must say the same of every call, and be one that laptime replays.
"""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from server import Server

AGENTS, TURNS, PATIENCE_S = 32, 3, 600
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
SETTINGS = {
    "llama": {"n_ctx": 32768, "n_parallel": 8},
    "vllm": {"max-model-len": 4096, "max-num-seqs": 32, "block-size": 32, "chat-template": TEMPLATE,
             "enable-prompt-tokens-details": True},
}


class Recorder:
    """`laptime record` while the `with` block lasts."""

    def __init__(self, laptime, upstream, trace):
        trace.unlink(missing_ok=True)
        self.process = subprocess.Popen([laptime, "record", "--upstream", upstream, "--listen", "127.0.0.1:0", "-o", trace],
                                        stderr=subprocess.PIPE, text=True)
        self.port = int(re.search(r"http://127.0.0.1:(\d+)", self.process.stderr.readline())[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.said = self.process.communicate(timeout=30)[1]


def ask(port, body):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read()}")
        text, usage = "", None
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
        return text, usage
    finally:
        link.close()


def live(port, agent, counts, failures):
    messages = [{"role": "system", "content": "You are one of many agents. " * 8},
                {"role": "user", "content": f"Agent {agent}: " + f"read file {agent} and go on. " * (5 + agent % 9)}]
    try:
        for turn in range(TURNS):
            body = {"model": "random", "messages": messages, "stream": True, "max_tokens": 8 + agent % 5, "temperature": 0,
                    "ignore_eos": True, "stream_options": {"include_usage": True}}
            text, usage = ask(port, body)
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            counts.append((usage["prompt_tokens"], usage["completion_tokens"], cached))
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": f"Result {turn} of {agent}."}]
    except (RuntimeError, OSError, KeyError, TypeError) as error:
        failures.append(f"agent {agent}: {error!r}")


def replay(laptime, trace, *where):
    """Replays a recording; returns what went wrong."""
    done = subprocess.run([laptime, "replay", "--trace", trace, *where, "--agents", str(AGENTS), "--json", "-"],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode != 0:
        return [f"replay {' '.join(where)}: {done.stderr}"]
    summary = json.loads(done.stdout)["summary"]
    made = summary["calls"], summary["failed_calls"]
    return [] if made == (AGENTS * TURNS, 0) else [f"replay {' '.join(where)}: {made[0]} calls, {made[1]} failed"]


def check(engine, python, model, laptime, folder):
    trace = folder / f"recorded-{engine}.jsonl"
    counts, failures = [], []
    with Server(engine, python, model, folder / f"record-{engine}.log", SETTINGS[engine]) as server:
        with Recorder(laptime, f"http://127.0.0.1:{server.port}", trace) as recorder:
            agents = [threading.Thread(target=live, args=(recorder.port, agent, counts, failures)) for agent in range(AGENTS)]
            for agent in agents:
                agent.start()
            for agent in agents:
                agent.join()
        # Its own recording is what an engine must be able to serve again.
        failures += replay(laptime, trace, "--url", f"http://127.0.0.1:{server.port}")
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    steps = [record for record in records if record["k"] == "step"]
    recorded = [(step["prompt"]["tokens"], step["output"]["tokens"], step["usage"].get("cached")) for step in steps]
    order = lambda row: (row[0], row[1], row[2] or 0)
    if sorted(recorded, key=order) != sorted(counts, key=order):
        failures.append("the trace and the engine count differently")
    sessions = sum(record["k"] == "session" for record in records)
    if (len(steps), sessions) != (AGENTS * TURNS, AGENTS):
        failures.append(f"{len(steps)} steps of {sessions} sessions; expected {AGENTS * TURNS} of {AGENTS}")
    rig = "h100/vllm/qwen3.6-27b-fp8" if engine == "vllm" else "dgx-spark/llama.cpp/qwen3.6-35b-a3b-q8_0"
    failures += replay(laptime, trace, "--rig", rig)
    total = sum(prompt for prompt, *_ in counts), sum(output for _, output, _ in counts)
    print(f"{engine}: {len(steps)} calls of {sessions} agents recorded, {total[0]} prompt and {total[1]} answer tokens"
          f"{'' if failures else ', each as the engine said'}")
    for failure in failures:
        print("  " + failure)
    return not failures


if __name__ == "__main__":
    model, laptime, folder, *engines = sys.argv[1:]
    done = [check(*engine.split("=", 1), Path(model), laptime, Path(folder)) for engine in engines]
    sys.exit(0 if all(done) else 1)
