"""vLLM's own scheduler, noting who takes part in each step: the order in which requests come in and end, as it was."""

import json
import os

from vllm.v1.core.sched.async_scheduler import AsyncScheduler


class Noting(AsyncScheduler):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.notes = open(os.environ["LAPTIME_SCHEDULER_NOTES"], "a", buffering=1)

    def schedule(self, *args, **kwargs):
        step = super().schedule(*args, **kwargs)
        if step.num_scheduled_tokens:
            self.notes.write(json.dumps(list(step.num_scheduled_tokens)) + "\n")
        return step
