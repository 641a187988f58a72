"""The process that holds llama.cpp: `python -m genwright.serve.engines.llamacpp_child '{"model": ...}'`.

llama.cpp's own C++ server answers HTTP on a free port of the loopback; this file only sets it up, tells the address on
the first line, and waits for the end of its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any


def parameters(told: dict[str, Any]) -> Any:
    """llama.cpp's settings. `cache_ram_mib = 0`: its store of old prompts compares tokens and not adapters."""
    xllamacpp = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = told["model"]
    params.model_alias = {told["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = told["parallel"]
    params.n_ctx = told["context"] * told["parallel"]
    params.kv_unified = False
    params.cpuparams.n_threads = told["threads"]
    params.cpuparams_batch.n_threads = told["threads"]
    params.n_gpu_layers = told["gpu_layers"]
    params.cache_ram_mib = 0
    if told["exact"]:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.use_jinja = True
    params.warmup = True
    if told["embedding"]:
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
        params.n_batch = params.n_ubatch = told["context"]  # a text goes in whole
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 0
    params.lora_init_without_apply = True
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in told["adapters"]]
    return params


def main() -> int:
    """Serve until the standard input ends."""
    told = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints goes to the log; the first line is ours alone
    server = import_module("xllamacpp").Server(parameters(told))
    out.write(json.dumps({"url": server.listening_address}) + "\n")
    out.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # the C++ threads of a busy server would be waited for


if __name__ == "__main__":
    main()
