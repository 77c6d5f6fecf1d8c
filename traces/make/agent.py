#!/usr/bin/env python3
"""Records laptime's own traces: a scripted agent that does real work with real tools.

    python3 traces/make/agent.py pr-triage -o traces/pr-triage.jsonl

The turns of the model are written down beforehand, in `scripts/*.py`. Everything else is real: the agent works in a
scratch copy of this repository at a fixed commit, its tools run, their outputs and durations are what they were. No
model is asked, so the recording holds no model times. Python 3 standard library only; needs git, grep and a Rust
toolchain.

A recording is repeatable but for its durations. What would differ between two runs (times in cargo's output, thread
numbers, hashes in file names, the scratch folder) is replaced before the text is stored.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
# The state of this repository that the agent works on.
COMMIT = "21b9639"
BYTES_PER_TOKEN = 3.6
# A tool's output is cut here, as agents do.
OUTPUT_LIMIT = 16_000
# Texts are left out, longest first, until the file is smaller than this.
FILE_LIMIT = 140_000

NOTE = (
    "The turns of the model were scripted in advance, not written by a model; there are no model times. Tool calls, "
    "their outputs and their durations are real. Token counts are bytes / 3.6. Texts longer than {limit} bytes are "
    "left out; their hash, size and source remain."
)


def tokens_of(size):
    return max(1, math.ceil(size / BYTES_PER_TOKEN))


def micros(seconds):
    return max(0, round(seconds * 1e6))


class Workspace:
    """A scratch copy of the repository, and the tools that work on it."""

    ENV = {
        "GIT_AUTHOR_NAME": "A. Contributor",
        "GIT_AUTHOR_EMAIL": "contributor@example.com",
        "GIT_COMMITTER_NAME": "A. Contributor",
        "GIT_COMMITTER_EMAIL": "contributor@example.com",
        "GIT_AUTHOR_DATE": "2026-01-05T09:00:00Z",
        "GIT_COMMITTER_DATE": "2026-01-05T09:00:00Z",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_PAGER": "cat",
        "CARGO_TERM_COLOR": "never",
        "CARGO_NET_OFFLINE": "true",
        "CARGO_INCREMENTAL": "0",
        "RUST_TEST_THREADS": "1",
        "RUST_BACKTRACE": "0",
        "LC_ALL": "C",
    }

    def __init__(self, folder):
        self.root = folder / "repo"
        self.root.mkdir()
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("CARGO_TARGET", "GIT_"))}
        self.env.update(self.ENV)
        self.env["CARGO_TARGET_DIR"] = str(folder / "target")
        self.env["OUT"] = str(folder / "out")
        (folder / "out").mkdir()
        packed = subprocess.run(["git", "-C", REPO, "archive", COMMIT], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", self.root], input=packed, check=True)
        self.sh("git init -q -b main && git add -A && git commit -q -m 'State of the repository'")

    def sh(self, command):
        """Prepares something; not part of the recording."""
        subprocess.run(["bash", "-c", command], cwd=self.root, env=self.env, check=True, stdout=subprocess.DEVNULL)

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def branch(self, name, title, edits, base="main"):
        """Makes a branch with one commit: `edits` are (path, old, new), or (path, None, text) for a new file."""
        self.sh(f"git checkout -q -b {name} {base}")
        for path, old, new in edits:
            if old is None:
                self.write(path, new)
            else:
                self.replace(path, old, new)
        self.sh(f"git add -A && git commit -q -m {json.dumps(title)} && git checkout -q main")

    def replace(self, path, old, new):
        before = (self.root / path).read_text()
        if before.count(old) != 1:
            raise SystemExit(f"{path}: found {before.count(old)} times, expected once: {old[:60]!r}")
        (self.root / path).write_text(before.replace(old, new))

    def run(self, call):
        """Runs a tool. Returns its output, its exit status and how long it took."""
        name, arguments = call["name"], call["arguments"]
        began = time.perf_counter()
        if name == "bash":
            done = subprocess.run(
                ["bash", "-c", arguments["command"]],
                cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            output, status = done.stdout.decode("utf-8", "replace"), done.returncode
        elif name == "read":
            lines = (self.root / arguments["path"]).read_text().splitlines()
            first, last = arguments.get("first", 1), arguments.get("last", len(lines))
            chosen = enumerate(lines[first - 1 : last], first)
            output, status = "".join(f"{number:>5}\t{line}\n" for number, line in chosen), 0
        elif name == "edit":
            self.replace(arguments["path"], arguments["old"], arguments["new"])
            output, status = f"edited {arguments['path']}\n", 0
        else:
            raise SystemExit(f"no tool is called {name}")
        return self.scrub(output), status, time.perf_counter() - began

    def scrub(self, text):
        text = text.replace(str(self.root.parent / "target"), "/repo/target").replace(str(self.root), "/repo")
        text = text.replace(str(self.root.parent / "out"), "/tmp/out")
        text = re.sub(r"(finished in|target\(s\) in) (\d+m )?[\d.]+s", r"\1 0.00s", text)
        text = re.sub(r"(thread '[^']*') \(\d+\) panicked", r"\1 panicked", text)
        text = re.sub(r"(deps/[a-z_]+)-[0-9a-f]{16}", r"\1-0000000000000000", text)
        # What cargo says of locks depends on who else is building.
        return re.sub(r" *Blocking waiting for file lock.*\n", "", text)


class Recorder:
    """Writes down what the agent does, as records of the native format."""

    def __init__(self, session, task):
        self.segments = {}
        self.records = []
        self.session = session
        self.records.append({"k": "session", "id": session, "labels": {"task": task, "turns": "scripted"}})

    def segment(self, kind, text, **more):
        """Stores a text once; returns its id and its tokens."""
        data = text.encode()
        digest = hashlib.blake2b(data, digest_size=8).hexdigest()
        # The same text may be a file read and a search result; it is one content.
        if digest not in self.segments:
            segment = {"k": "segment", "id": digest, "kind": kind, "tokens": tokens_of(len(data)), "bytes": len(data),
                       "hash": digest, "text": text, **more}
            self.segments[digest] = segment
            self.records.append(segment)
        return digest, self.segments[digest]["tokens"]

    def add(self, record):
        self.records.append(record)

    def save(self, path, script):
        for limit in (1 << 30, 16_000, 8_000, 6_000, 4_000, 3_000, 2_000, 1_500, 1_000, 700, 500, 300, 0):
            text = self.render(limit, script)
            if len(text.encode()) < FILE_LIMIT:
                break
        pathlib.Path(path).write_text(text)
        return len(text.encode()), limit

    def render(self, limit, script):
        longest = max(segment["bytes"] for segment in self.segments.values())
        whole = limit >= longest
        rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        header = {
            "k": "header", "format": "laptime-trace", "version": 1,
            "producer": f"traces/make/agent.py, script {script}",
            "licence": "CC0-1.0",
            "note": NOTE.format(limit=limit) if not whole else NOTE.split(" Texts longer")[0],
            "privacy": "full" if whole else "redacted",
            "tokenizer": "estimated: bytes / 3.6",
            "recorded_on": f"no engine; tools ran on 2 shared cores with {rustc}",
            "losses": ["no model was asked: model times and sending times are absent"],
        }
        lines = [header]
        for record in self.records:
            if record["k"] == "segment" and record["bytes"] > limit:
                record = {key: value for key, value in record.items() if key != "text"}
            lines.append(record)
        return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def kind_of(call, output, status):
    """Says what a tool's output is, by what was asked."""
    if call["name"] == "read":
        return "repo-read"
    if call["name"] == "edit":
        return "tool-output"
    command = call["arguments"]["command"]
    if re.search(r"\b(cargo test|rustc --edition 2024 --test)", command):
        return "test-failure" if status else "test-output"
    if re.search(r"\bcargo (check|clippy|build|fmt)", command):
        return "compiler-error" if status else "tool-output"
    if re.search(r"\bgit (diff|show|log -p)", command):
        return "diff"
    if re.match(r"(git )?(grep|rg|find|ls)\b", command):
        return "search-result"
    if re.match(r"(cat|sed -n|head|tail)\b", command):
        return "repo-read"
    return "tool-output"


class Agent:
    """One conversation: takes the scripted turns one by one, runs their tools, and records."""

    def __init__(self, recorder, workspace, name, system, tools, task, record):
        self.recorder, self.workspace, self.name = recorder, workspace, name
        recorder.add({"k": "agent", "id": name, "session": recorder.session, **record})
        self.head = [recorder.segment("tools", tools), recorder.segment("system", system)]
        self.task = recorder.segment("user", task)
        self.pending = [*self.head, self.task]
        # Tokens of the last prompt, and of its answer where the history keeps the whole of it.
        self.prompt, self.kept_answer, self.after_reasoning = 0, 0, []
        self.broken = None
        self.count = 0
        self.joins = []
        self.ready = time.perf_counter()
        self.last = None

    def ask(self, turn):
        """Records one request and its scripted answer; returns the step."""
        recorder = self.recorder
        keep = self.prompt + self.kept_answer
        append = [*self.after_reasoning, *self.pending]
        if self.broken == "compaction":
            keep = sum(tokens for _, tokens in self.head)
        prompt = {"tokens": keep + sum(tokens for _, tokens in append)}
        if keep:
            prompt["keep"] = keep
        prompt["append"] = [{"seg": name} for name, _ in append]
        if self.broken:
            prompt.update({"break": self.broken, "break_at": "recorded"})
        answer = []
        if turn.get("think"):
            answer.append(recorder.segment("reasoning", turn["think"]))
        answer.append(recorder.segment("assistant-text", turn["say"]))
        for call in turn.get("calls", []):
            answer.append(recorder.segment("tool-call", json.dumps(call, ensure_ascii=False)))
        self.count += 1
        size = sum(tokens for _, tokens in answer)
        output = {"tokens": size, "segs": [name for name, _ in answer]}
        if turn.get("think"):
            output["reasoning"] = answer[0][1]
        step = {"k": "step", "id": f"{self.name}-{self.count}", "session": recorder.session, "agent": self.name,
                "prompt": prompt, "output": output, "gap": {},
                "finish": "tool-call" if turn.get("calls") else "end-of-turn"}
        if self.joins:
            step["joins"], self.joins = self.joins, []
        # What happens until a request is ready to be sent is the client's own time.
        if self.last:
            self.last["gap"]["client_us"] = micros(time.perf_counter() - self.ready)
        recorder.add(step)
        self.last = step
        self.prompt = prompt["tokens"]
        if turn.get("think"):
            # Reasoning is not sent again, so the next prompt leaves this one where the answer began.
            self.kept_answer, self.after_reasoning, self.broken = 0, answer[1:], "reasoning-dropped"
        else:
            self.kept_answer, self.after_reasoning, self.broken = size, [], None
        self.pending = []
        return step

    def play(self, turns):
        for turn in turns:
            if "user" in turn:
                self.pending.append(self.recorder.segment("user", turn["user"]))
            elif "compact" in turn:
                self.compact(turn["compact"])
            else:
                step = self.ask(turn)
                self.use_tools(step, turn.get("calls", []))

    def use_tools(self, step, calls):
        spent, results, children = 0.0, [], []
        for place, call in enumerate(calls):
            if call["name"] == "task":
                children.append(call)
                continue
            output, status, seconds = self.workspace.run(call)
            expected = call.get("status", 0)
            if status != expected:
                sys.exit(f"{step['id']}: exit status {status}, expected {expected}: {call['arguments']}\n{output}")
            spent += seconds
            full, more = len(output.encode()), {}
            if len(output) > OUTPUT_LIMIT:
                output = output[:OUTPUT_LIMIT] + "\n[... cut ...]\n"
                more["truncated_from"] = tokens_of(full)
            if call["name"] == "read":
                more["source_ref"] = call["arguments"]["path"]
            segment = self.recorder.segment(kind_of(call, output, status), output or "(no output)\n", **more)
            results.append(segment)
            self.recorder.add({"k": "tool", "step": step["id"], "session": self.recorder.session, "name": call["name"],
                               "id": f"{step['id']}.{place}", "duration_us": micros(seconds), "meaning": "internal",
                               "exit_status": status, "result_chars": len(output), "result": segment[0]})
        self.pending += results
        if spent:
            step["gap"]["tool_us"] = micros(spent)
        for child in children:
            self.start(step, child)
        self.ready = time.perf_counter()

    def start(self, step, call):
        """Plays a sub-agent. They ran one after another here; a replay runs them side by side."""
        recorder, arguments = self.recorder, call["arguments"]
        record = {"parent": self.name, "spawn_step": step["id"], "spawn_offset_us": 0, "join": "blocking",
                  "type": "explore"}
        child = Agent(recorder, self.workspace, arguments["name"], SUB_SYSTEM, SUB_TOOLS, arguments["prompt"], record)
        child.play(call["turns"])
        self.joins.append(child.name)
        self.pending.append(recorder.segment("subagent-report", call["turns"][-1]["say"]))

    def compact(self, summary):
        """Asks for a summary of everything so far and goes on from it."""
        self.pending.append(self.recorder.segment("user", COMPACT))
        self.ask({"say": summary})
        self.recorder.add({"k": "event", "session": self.recorder.session, "agent": self.name, "what": "compaction"})
        self.pending = [self.task, self.recorder.segment("summary", summary)]
        self.kept_answer, self.after_reasoning, self.broken = 0, [], "compaction"
        self.ready = time.perf_counter()


def say(text, *calls, think=None):
    """A turn of the model: text, then tool calls."""
    turn = {"say": text.strip() + "\n", "calls": list(calls)}
    if think:
        turn["think"] = think.strip() + "\n"
    return turn


def bash(command, status=0):
    call = {"name": "bash", "arguments": {"command": command}}
    return Call(call, status)


def read(path, first=None, last=None):
    arguments = {"path": path}
    if first:
        arguments.update({"first": first, "last": last})
    return Call({"name": "read", "arguments": arguments})


def edit(path, old, new):
    return Call({"name": "edit", "arguments": {"path": path, "old": old, "new": new}})


def task(name, prompt, turns):
    call = Call({"name": "task", "arguments": {"name": name, "prompt": prompt.strip() + "\n"}})
    call.hidden["turns"] = turns
    return call


class Call(dict):
    """A tool call; what only the recorder knows is not part of its text."""

    def __init__(self, call, status=0):
        super().__init__(call)
        self.hidden = {"status": status}

    def get(self, key, default=None):
        return self.hidden.get(key, super().get(key, default))

    def __missing__(self, key):
        return self.hidden[key]


def load(name):
    path = HERE / "scripts" / f"{name.replace('-', '_')}.py"
    if not path.exists():
        known = sorted(one.stem.replace("_", "-") for one in path.parent.glob("*.py"))
        sys.exit(f"no script is called {name}; there are {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(name, path)
    script = importlib.util.module_from_spec(spec)
    vars(script).update(say=say, bash=bash, read=read, edit=edit, task=task)
    spec.loader.exec_module(script)
    return script


PROMPTS = HERE / "prompts"
SYSTEM = (PROMPTS / "system.md").read_text()
SUB_SYSTEM = (PROMPTS / "explorer.md").read_text()
COMPACT = (PROMPTS / "compact.md").read_text()
TOOLS = (PROMPTS / "tools.json").read_text()
SUB_TOOLS = json.dumps([tool for tool in json.loads(TOOLS) if tool["name"] in ("bash", "read")], indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", help="a file of traces/make/scripts, such as pr-triage")
    parser.add_argument("-o", "--output", required=True, help="the trace to write")
    typed = parser.parse_args()
    script = load(typed.script)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="laptime-record-"))
    try:
        workspace = Workspace(folder)
        script.prepare(workspace)
        recorder = Recorder(typed.script, script.WHAT)
        agent = Agent(recorder, workspace, "main", SYSTEM, TOOLS, script.TASK.strip() + "\n", {})
        agent.play(script.TURNS)
        size, limit = recorder.save(typed.output, typed.script)
    finally:
        shutil.rmtree(folder)
    steps = [record for record in recorder.records if record["k"] == "step"]
    largest = max(step["prompt"]["tokens"] for step in steps)
    tool_s = sum(step["gap"].get("tool_us", 0) for step in steps) / 1e6
    print(f"{typed.output}: {size} bytes, texts up to {limit} bytes, {len(steps)} steps, largest prompt {largest} "
          f"tokens, {sum(step['output']['tokens'] for step in steps)} tokens of answers, {tool_s:.1f} s of tools")


if __name__ == "__main__":
    main()
