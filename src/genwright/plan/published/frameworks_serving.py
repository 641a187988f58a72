"""What each serving framework spends where others spend less: one row a framework, each with its source. No torch here.

A token's time is products (bytes of the weights), attention (bytes of the cache), and what runs between them: gaps on the
device where a step is one graph, or the host's own time where each operation is sent from Python. Host times are of a
server of A100's age; `host_factor` scales them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from genwright.base.registry import unknown_name


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a framework takes a step."""

    source: str
    """Where that can be read or was measured."""
    host_layer: float = 0.0
    """Seconds of the host for each block; 0: the step is one graph."""
    host_prefill: float = 1.0
    """The same in a step that reads prompts, as a multiple: masks, positions, the cache's first slots."""
    host_product: dict[str, float] = field(default_factory=dict)
    """Seconds of the host for each product on weights of a kind (`Format.kernel`), beside `host_layer`."""
    host_step: float = 0.0
    """Seconds of the host for each step: scheduling, sampling."""
    host_row: float = 0.0
    """And for each row of it."""
    gap: float = 6e-6
    """Seconds between kernels on the device."""
    kernels: int = 9
    """Of a block."""
    share: dict[str, float] = field(default_factory=dict)
    """Kind of weights -> share of the stream's bandwidth that a product on few rows reaches; 1 where not named."""
    bytes_per_clock: float = 0.0
    """That a multiprocessor's threads can unpack and multiply of weights; 0: no limit below memory's."""
    unpacks: bool = False
    """Quantised weights are written out in 16 bits before a product on many rows."""
    activation_bytes: float = 2.0
    """Of a number between products."""
    passes: float = 14.0
    """How often a number of the residual stream's width is read or written in a block, beside products."""
    flash: bool = True
    """Scores are never written out."""
    accumulate_16: bool = False
    """Products are summed in 16 bits."""
    chunk: int = 0
    """Tokens of a prompt read at once; 0: all."""
    parallel: str = "tensor"
    """Over several devices: "tensor", "layers" (one after another) or "zero3" (weights gathered for each block)."""
    reduce_seconds: float = 2.5e-5
    """Least time of a sum over the devices of a machine, of a few rows."""
    hop_seconds: float = 2e-4
    """From one device's layers to the next one's."""
    kv_copies: float = 1.0
    """How often the cache is held: a cache that grows by concatenation is there twice."""
    quantizes_head: bool = False
    """The head is kept in few bits as the other products are."""
    head_copies: float = 0.0
    """Dense copies of the head in 16 bits that stand beside it while it is used."""
    expands: bool = False
    """Keys and values are repeated for each query head of a group before attention, and the cache grows by concatenation
    (transformers: `repeat_kv`, `DynamicCache.update`)."""
    kv_reserved: float = 0.0
    """Share of the free memory that is taken for the cache from the start."""
    context_bytes: float = 0.6 * 2**30
    """Context and kernels, beside the allocator's memory."""


CUBLAS_FEW = 0.85
"""Of the stream's bandwidth, what cuBLAS' products on few rows get, in every framework that calls it."""

SERVING: dict[str, Serving] = {
    "vllm": Serving(
        source="vllm-project/vllm: vllm/worker/model_runner.py (CUDA graphs), docs on engine arguments",
        gap=4e-6,
        kernels=8,
        host_step=1.5e-3,
        host_row=2e-5,
        share={"16": CUBLAS_FEW, "4": 0.8, "gptq": 0.85, "8": 0.9},
        kv_reserved=0.9,
    ),
    "vllm-eager": Serving(
        source="Mutinifni/splitwise-sim: data/perf_model.csv (vLLM of 2023, no graphs): 0.56 ms a block on A100's hosts, 0.33 ms a row",
        host_layer=5.6e-4,
        host_prefill=1.5,
        host_row=3.3e-4,
        gap=5e-6,
        kernels=12,
        passes=24,
        share={"16": CUBLAS_FEW},
    ),
    "tensorrt-llm": Serving(
        source="NVIDIA/TensorRT-LLM: docs/source/performance (fused kernels, in-flight batching)",
        gap=3e-6,
        kernels=7,
        host_step=5e-4,
        host_row=1e-5,
        share={"4": 0.85, "gptq": 0.85},
    ),
    "sglang": Serving(
        source="sgl-project/sglang: docs (CUDA graphs, overlapped scheduling)",
        gap=4e-6,
        kernels=8,
        host_step=5e-4,
        host_row=1e-5,
        share={"16": CUBLAS_FEW, "4": 0.8, "gptq": 0.85, "8": 0.9},
    ),
    "lmdeploy": Serving(
        source="InternLM/lmdeploy: docs/en/inference/turbomind.md (a server in C++, fused kernels)",
        gap=4e-6,
        kernels=8,
        host_step=5e-4,
        host_row=1e-5,
        share={"16": CUBLAS_FEW, "4": 0.8, "gptq": 0.85, "8": 0.9},
    ),
    "tgi": Serving(
        source="huggingface/text-generation-inference: server/ (flash attention, CUDA graphs)",
        gap=5e-6,
        kernels=9,
        host_step=2e-3,
        host_row=5e-5,
        share={"16": CUBLAS_FEW, "4": 0.8, "gptq": 0.85, "8": 0.9},
    ),
    "transformers": Serving(
        source="QwenLM/Qwen: README, inference performance (A100): 0.76 to 0.78 ms a block from 1.8B to 14B in bf16; LLM.int8() from "
        "huggingface/blog: bloom-inference-pytorch-scripts",
        host_layer=7.7e-4,
        host_product={"nf4": 6e-5, "nf4-double": 9e-5, "bnb-int8": 6.7e-4, "8": 6.7e-4},
        share={"16": CUBLAS_FEW},
        expands=True,
        passes=40,
        gap=5e-6,
        kernels=20,
        parallel="layers",
        kv_copies=2.0,
        hop_seconds=1e-4,
    ),
    "autogptq": Serving(
        source="AutoGPTQ/AutoGPTQ: exllama kernels under transformers, whose own Python is around them",
        host_layer=7.7e-4,
        expands=True,
        host_product={"8": 3e-5, "gptq8": 3e-5},
        share={"16": CUBLAS_FEW, "gptq": 0.5, "4": 0.5, "8": 0.45, "gptq8": 0.45},
        passes=40,
        gap=5e-6,
        kernels=20,
        parallel="layers",
        kv_copies=2.0,
    ),
    "autoawq": Serving(
        source="casper-hansen/AutoAWQ: README (fuse_layers: one module for a block's attention, one for its products)",
        host_layer=1.2e-4,
        share={"16": CUBLAS_FEW, "gptq": 0.85, "4": 0.85},
        passes=14,
        gap=5e-6,
        kernels=9,
        parallel="layers",
    ),
    "litgpt": Serving(
        source="Lightning-AI/litgpt: litgpt/generate/base.py; tutorials/quantize.md: 1.0 ms a block eager, bitsandbytes on top",
        quantizes_head=True,
        head_copies=2.0,  # in float16, as lightning's `_Linear4bit` quantised it, and cast to the compute type
        host_layer=1.0e-3,
        host_product={"nf4": 8e-5, "nf4-double": 1.15e-4, "bnb-int8": 4e-4, "8": 4e-4},
        share={"16": CUBLAS_FEW},
        passes=40,
        gap=5e-6,
        kernels=20,
        parallel="layers",
    ),
    "gpt-fast": Serving(
        source="pytorch-labs/gpt-fast: README (torch.compile, static cache)",
        gap=7e-6,
        kernels=7,
        share={"8": 0.85, "4": 0.75},
        passes=8,
        reduce_seconds=8e-6,
    ),
    "exllamav2": Serving(
        source="turboderp/exllamav2: README", gap=1.5e-6, kernels=12, share={"gptq": 1.0}, passes=10, parallel="layers"
    ),
    "llama.cpp": Serving(
        source="XiongjieDai/GPU-Benchmarks-on-LLM-Inference: README (llama-bench, 2024); ggml-cuda: mmv, cuBLAS with unpacked weights",
        gap=3.5e-6,
        kernels=24,
        bytes_per_clock=6.7,
        unpacks=True,
        activation_bytes=4.0,
        passes=54,
        flash=False,
        accumulate_16=True,
        chunk=512,
        parallel="layers",
        context_bytes=0.5 * 2**30,
    ),
    "llama.cpp-metal": Serving(
        source="the same, Apple parts",
        gap=8e-6,
        kernels=24,
        unpacks=False,
        activation_bytes=4.0,
        passes=30,
        flash=False,
        chunk=512,
        parallel="layers",
        context_bytes=0.3 * 2**30,
    ),
    "ds-inference": Serving(
        source="microsoft/DeepSpeed-MII, huggingface/blog: bloom-inference-pytorch-scripts",
        gap=8e-6,
        kernels=10,
        share={"16": CUBLAS_FEW, "8": 0.16, "bnb-int8": 0.16},
        host_row=3.2e-4,
        reduce_seconds=5e-5,
    ),
    "ds-zero": Serving(
        source="deepspeedai/DeepSpeed: runtime/zero/stage3.py; huggingface/blog: bloom-inference-pytorch-scripts",
        host_layer=1.0e-3,
        parallel="zero3",
        share={"16": CUBLAS_FEW},
        passes=40,
        kernels=20,
    ),
    "genwright": Serving(
        source="genwright: models/generate.py, eager transformers with a static batch",
        host_layer=7.7e-4,
        share={"16": CUBLAS_FEW},
        passes=40,
        gap=5e-6,
        kernels=20,
        parallel="layers",
        kv_copies=2.0,
    ),
}

SAID: tuple[tuple[str, str], ...] = (
    (r"splitwise|vllm.based", "vllm-eager"),
    (r"transformers \+ vllm|nano.?vllm|vllm", "vllm"),
    (r"metal|mlx", "llama.cpp-metal"),
    (r"llama\.?cpp|ggml|gguf|ollama|koboldcpp|lm.?studio", "llama.cpp"),
    (r"autoawq|tinychat|llm-awq", "autoawq"),
    (r"autogptq|auto-gptq", "autogptq"),
    (r"gpt-?fast", "gpt-fast"),
    (r"exllama", "exllamav2"),
    (r"lit-?gpt", "litgpt"),
    (r"ds-zero|zero-?inference", "ds-zero"),
    (r"ds-inf|deepspeed|mii", "ds-inference"),
    (r"tensorrt|trt", "tensorrt-llm"),
    (r"sglang", "sglang"),
    (r"\btgi\b|text-generation-inference", "tgi"),
    (r"lmdeploy|turbomind", "lmdeploy"),
    (r"transformers|accelerate|hugging|\bhf\b|bitsandbytes|pytorch|torch", "transformers"),
    (r"genwright", "genwright"),
)


def serving_of(said: str) -> tuple[str, Serving]:
    """(our name, its row) of a framework as papers write it. Errors: UnknownName with the nearest."""
    text = said.casefold().strip()
    for name in [text] if text in SERVING else [name for pattern, name in SAID if re.search(pattern, text)]:
        return name, SERVING[name]
    raise unknown_name("serving framework", said, list(SERVING))


HOSTS = {"hopper": 0.67, "blackwell": 0.6, "ada": 0.85, "volta": 1.15, "turing": 1.1, "pascal": 1.2}
"""Architecture -> how long a host of its age takes beside an A100's: Splitwise's eager decode on the two, 28.5 and 42.9 ms."""


def host_factor(kind: str) -> float:
    """Of a device's architecture."""
    return next((factor for name, factor in HOSTS.items() if kind.startswith(name)), 1.0)
