"""Serves a model with the llama.cpp server that the `xllamacpp` package embeds, until its standard input ends.

Run by server.py inside the package's environment, with the model, the port and the settings as JSON.
"""

import json
import sys

import xllamacpp

settings = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = settings.pop("model")
params.hostnames, params.port = ["127.0.0.1"], settings.pop("port")
# Two threads that wait for each other are slower than one on a machine that does other work.
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = True
params.ui = params.warmup = params.fit_params = False
params.no_extra_bufts = True
for name, value in settings.items():
    if not hasattr(params, name):
        raise SystemExit(f"llama.cpp has no setting {name}")
    setattr(params, name, value)
server = xllamacpp.Server(params)
print(json.dumps({"parallel": params.n_parallel, "unified": params.kv_unified, "cache_ram_mib": params.cache_ram_mib,
                  "cache_idle_slots": params.cache_idle_slots}), flush=True)
sys.stdin.read()
