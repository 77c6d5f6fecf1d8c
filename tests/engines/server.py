"""Starts a real engine on loopback, asks it, and stops it by its own process id. Standard library only."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
STARTUP_S, REQUEST_S = 300, 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """An engine that serves while the `with` block lasts."""

    def __init__(self, engine, python, model, log, settings):
        self.engine, self.port, self.settings = engine, free_port(), settings
        self.log, self.notes = open(log, "w"), Path(log).with_suffix(".notes")
        self.notes.unlink(missing_ok=True)
        environment = dict(os.environ)
        if engine == "llama":
            command = [python, str(HERE / "llama_server.py"),
                       json.dumps({"model": str(model / "model.gguf"), "port": self.port} | settings)]
        else:
            command = [str(Path(python).parent / "vllm"), "serve", str(model / "hf"), "--served-model-name", "random",
                       "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "bfloat16", "--enforce-eager",
                       "--enable-prefix-caching", "--no-enable-log-requests", "--generation-config", "vllm",
                       "--scheduler-cls", "noting.Noting"]
            for name, value in settings.items():
                command += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
            environment |= {"PYTHONPATH": str(HERE), "LAPTIME_SCHEDULER_NOTES": str(self.notes)}
            environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", "HF_HUB_OFFLINE": "1",
                            "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_SERVER_DEV_MODE": "1"}
        # A session of its own, so that the engine's children can be stopped with it and nothing else is.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log,
                                        env=environment, start_new_session=True)

    def __enter__(self):
        deadline = time.monotonic() + STARTUP_S
        try:
            while True:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.engine} did not start; see {self.log.name}")
                try:
                    if self.call("GET", "/health")[0] == 200:
                        return self
                except OSError:
                    pass
                time.sleep(0.2)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for how, patience in [(signal.SIGTERM, 20), (signal.SIGKILL, 20)]:
            try:
                os.killpg(self.process.pid, how)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.log.close()

    def call(self, method, path, body=None):
        """One plain exchange; returns the status and the text."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        try:
            link.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            answer = link.getresponse()
            return answer.status, answer.read().decode()
        finally:
            link.close()

    def metric(self, name, label=""):
        """The sum of a counter over its labels, or over those lines that hold this one."""
        # Counters follow the answers they count with some delay.
        time.sleep(1)
        lines = self.call("GET", "/metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines
                   if line.startswith((name + "{", name + " ")) and label in line)

    def steps(self, first):
        """Who took part in each of vLLM's steps, by number, of those numbered from `first` on."""
        named = [re.findall(r"number(\d+)", line) for line in self.notes.read_text().splitlines()]
        steps = [[int(number) for number in step if int(number) >= first] for step in named]
        return [step for step in steps if step]

    def ask(self, prompt, most, clock, number=0, **extra):
        """Asks for `most` tokens after these ids; returns what was answered, token by token.

        vLLM's scheduler knows the request by `number`.
        """
        if self.engine == "llama":
            path, body = "/completion", {"n_predict": most, "return_tokens": True, "return_progress": True}
        else:
            path = "/v1/completions"
            body = {"model": "random", "max_tokens": most, "return_token_ids": True,
                    "stream_options": {"include_usage": True}}
        body |= {"prompt": prompt, "stream": True, "temperature": 0, "ignore_eos": True} | extra
        row = {"prompt": prompt, "max": most, "output": [], "at": [], "progress": [], "cached": None}
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        try:
            row["sent"] = clock()
            headers = {"Content-Type": "application/json", "X-Request-Id": f"number{number}"}
            link.request("POST", path, json.dumps(body), headers)
            answer = link.getresponse()
            row["status"] = answer.status
            if answer.status != 200:
                row["error"] = answer.read().decode()
            else:
                for line in answer:
                    if line.startswith(b"data: {"):
                        self.take(json.loads(line[6:]), clock(), row)
            row["end"] = clock()
        finally:
            link.close()
        return row

    def take(self, event, now, row):
        """Adds one event of the stream to the row."""
        if self.engine == "llama":
            # Events about the prompt carry a made-up token.
            new = event.get("tokens") or [] if not event.get("stop") and "prompt_progress" not in event else []
            if "prompt_progress" in event:
                row["progress"].append([now, event["prompt_progress"]["processed"]])
            if event.get("stop"):
                row |= {"slot": event["id_slot"], "cached": event["timings"]["cache_n"],
                        "computed": event["timings"]["prompt_n"], "prompt_ms": event["timings"]["prompt_ms"]}
        else:
            new = [token for choice in event["choices"] for token in choice.get("token_ids") or []]
            details = (event.get("usage") or {}).get("prompt_tokens_details")
            if details is not None:
                row["cached"] = details.get("cached_tokens") or 0
        row["output"] += new
        row["at"] += [now] * len(new)
