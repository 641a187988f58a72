"""The tables of genwright.toml, one frozen dataclass each. This file is the schema: `spec` reads it.

The text under a field is what `genwright plan --explain KEY` and docs/project-file.md say about the key. A field
without a default must be in the file, except tables (`Budget`, `dict`), which are then empty. Shares of a whole are
fractions between 0 and 1; scores and targets are percentages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Project:
    """What the project is called, and where its chance comes from."""

    name: str
    """The project's name, shown in reports."""

    seed: int = 0
    """Of everything random: splits, the adapter's start, the order of rows, sampling. Same seed, same result."""

    version: int = 1
    """Version of this file's format. A newer one than the installed Genwright knows is refused."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What adapting may cost at most. A rung whose planned cost does not fit any more is skipped, and said."""

    hours: float | None = None
    """Wall time."""

    usd: float | None = None
    """US dollars, from the device's price per hour."""

    kwh: float | None = None
    """Energy, from the device's watts."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What the model must do, how well, and what that may cost."""

    task: str
    """The kind of work, one of `genwright tasks`. It gives the defaults of metric, objective and profile."""

    metric: str = ""
    """What decides. Empty: the task's default."""

    target: float | None = None
    """The score at which climbing stops, in the metric's unit (percent). Left out: every rung is climbed."""

    profile: str = ""
    """Application profile: the lengths of prompts and answers to plan for. Empty: the task's default."""

    budget: Budget
    """What adapting may cost at most."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The rows to learn from and to be judged by."""

    train: str
    """File or folder of training rows: JSONL, JSON, CSV, Parquet or a `datasets` folder, relative to this file."""

    validation: str = ""
    """Rows on which the ladder decides. Empty: a share of `train`."""

    test: str = ""
    """Rows that are read once, at the end. Empty: a share of `train`."""

    text: str = ""
    """Raw text for the rung `pre-training`: rows with a `text`. Empty: the texts of the training rows, where they have any."""

    format: str = "auto"
    """How rows are laid out. "auto" recognises it and says what it found; an ambiguous file is an error."""

    columns: dict[str, str]
    """Your names for a format's columns, for instance { prompt = "question", completion = "answer" }."""

    group: str = ""
    """Keep rows of one group in one split: a column's name, or "command-path". Empty: each row for itself."""

    validation_fraction: float = 0.1
    """Share of `train` held out for the ladder, where `validation` is empty."""

    test_fraction: float = 0.1
    """Share of `train` held out for the end, where `test` is empty."""


@dataclass(frozen=True, kw_only=True)
class Select:
    """Which model is adapted."""

    models: tuple[str, ...] = ()
    """Catalogue names or model sources to choose from. Empty: ranked from the catalogue."""

    trial_rows: int = 24
    """Validation rows on which each of several models is tried, untrained. 0: the first that can be had is taken."""

    licences: tuple[str, ...] = ()
    """Licences that are allowed, such as "Apache-2.0"; a model whose licence is not known is then refused. Empty: any."""

    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that the model must know, such as "fr"."""

    context: int = 0
    """The longest input in tokens that the model must take. 0: no matter."""

    offline: bool = False
    """Never reach for the network: what is not on this machine is an error."""


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """How the model is improved: the rungs to climb, cheapest first, and how a rung trains.

    A method's own settings stand in a table of its name, such as `[adapt.lora]`.
    """

    ladder: tuple[str, ...] = ("zero-shot", "few-shot", "lora")
    """Rungs in order of cost. Climbing stops at the first that reaches `scope.target`."""

    method: str = ""
    """A ladder of one rung, by name. Give this or `ladder`."""

    objective: str = ""
    """What training minimises. Empty: the task's default."""

    teacher: str = ""
    """A second model to learn from, by catalogue name or model source: distillation's teacher, generic-targets' reinforced one."""

    reward: str = ""
    """What an answer is worth, for grpo and ppo: "FILE.py:FUNCTION", a function (prompt, answer, reference) -> number."""

    answers: int = 8
    """Answers sampled of each prompt in a round, for grpo; ppo takes 1."""

    updates: int = 1
    """Optimiser steps that learn from one round of answers, for grpo and ppo."""

    examples: Literal["auto"] | int = 4
    """Few-shot: how many of the nearest training rows are shown in the prompt. "auto": as many as measure best."""

    pairs: int = 256
    """The most training rows that the rung `preference` answers in search of wrong answers."""

    stop_at: Literal["interval", "value"] = "interval"
    """What must clear `scope.target` for climbing to stop: the near end of the score's 95 % interval, or the score itself."""

    steps: int = 0
    """Optimiser steps. 0: as many as `epochs` make."""

    epochs: float = 1.0
    """Passes over the training rows. Give this or `steps`."""

    batch_size: int = 8
    """Rows per optimiser step, over all microbatches and devices."""

    pack_tokens: int = 2048
    """The most tokens of one microbatch: decides memory, not the result. A longer single row has one of its own."""

    packing: bool = True
    """Lay rows end to end, without padding; they never see each other. False pads to the longest."""

    max_tokens: int = 0
    """Longer rows are cut at the end, and counted. 0: the model's context."""

    learning_rate: float = 0.0
    """The schedule's top. 0: the method's default."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""

    warmup_fraction: float = 0.03
    """Share of the steps in which the rate rises from zero."""

    weight_decay: float = 0.0
    """AdamW's, on matrices only."""

    max_norm: float = 1.0
    """Gradients are scaled down to this norm. 0: never."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers to compute in. "auto": bf16 where the device is fast at it, else fp16 on a GPU, fp32 on a CPU; it is recorded."""

    recompute: Literal["none", "full"] | int = "none"
    """Layers whose activations are computed again in the backward instead of kept: less memory for one more forward each."""

    checkpoint_every: Literal["auto"] | int = "auto"
    """Steps between checkpoints. "auto": from the measured cost of saving, so that a kill loses little."""

    mtbf_hours: float = 4.0
    """Hours between failures of the whole job, on average: what "auto" weighs the cost of saving against."""

    milestones: tuple[int, ...] = ()
    """Steps whose checkpoints are kept, to be talked to later: `genwright chat --at "step 200"`."""

    validate_every: int = 0
    """Steps between validation losses. 0: never while training."""

    patience: int = 0
    """Stop after so many validations without a better loss, and keep the best weights. 0: train to the end."""

    validation_rows: int = 0
    """How many validation rows a rung is scored on. 0: all."""

    max_new_tokens: int = 96
    """The longest answer that is generated."""

    temperature: float = 0.0
    """Of sampling. 0: always the likeliest token."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the work runs on, and what that costs."""

    device: str = "auto"
    """A name of `genwright devices`, or "auto": this machine."""

    count: int = 1
    """How many of them, on this machine: each is a process. On a CPU they share its cores and memory."""

    strategy: Literal["auto", "single", "ddp", "zero1", "zero2", "zero3", "hybrid"] = "auto"
    """How a training is laid over the devices. "auto": the first of ddp, zero1, zero2, zero3 whose plan fits."""

    sharding_factor: int = 0
    """For hybrid: how many devices hold one copy between them, from 1 (full replication) to all."""

    tensor_degree: int = 1
    """Devices that each layer's matrices are split over, where the model's own plan says how; the rest follow ddp."""

    offload: bool = False
    """Keep shards and optimizer state in the CPU's memory; for CUDA devices."""

    watts: float | None = None
    """Power drawn under load, for the energy plan. Left out: the catalogue's, or unknown."""

    usd_per_hour: float | None = None
    """Price of one device, for the money plan. Left out: the catalogue's, or unknown."""

    memory: str = ""
    """Memory that may be used, such as "16 GiB". Empty: what the device has."""


@dataclass(frozen=True, kw_only=True)
class Integrate:
    """The form in which the result is handed over."""

    merge: bool = True
    """Merge an adapter into its base, in float32, behind a parity check. False: hand over the adapter."""

    quantize: Literal["none", "q8_0"] = "none"
    """Quantisation of the served file: "none" keeps half precision, "q8_0" stores 8 bits a weight."""

    engine: Literal["transformers", "llamacpp"] = "transformers"
    """What the result is made for. "llamacpp" adds a GGUF file, behind a gate that compares its answers with the model's."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """What `genwright evaluate` asks of the result, beyond the project's own test rows."""

    suites: tuple[str, ...] = ()
    """Files of suites (TOML), relative to this file."""

    baseline: str = ""
    """What the result is compared with: a rung that was climbed, or a model source. Empty: nothing."""

    seeds: int = 1
    """How often a suite whose answers are sampled (temperature above 0) is asked, where it does not say."""


@dataclass(frozen=True, kw_only=True)
class Unlearn:
    """A stage of its own, where `forget` names rows: what was adapted is made to forget them before it is handed over.

    docs/unlearn.md says what is done and measured.
    """

    forget: str = ""
    """Questions and answers to forget. Empty: nothing is forgotten, and there is no such stage."""

    retain: str = ""
    """Questions and answers to keep; they are trained on and measured."""

    also: tuple[str, ...] = ()
    """More files to keep: measured, never trained on."""

    suites: tuple[str, ...] = ()
    """Benchmarks that are asked before and after: files of suites (TOML), relative to this file."""

    texts: str = ""
    """Texts whose bits a token are told before and after. Empty: none."""

    never_saw: str = ""
    """A model, or another project's folder, that never saw the rows to forget: with it forget quality is measured."""

    method: Literal["gradient-ascent", "gradient-difference", "npo", "rmu", "generic-targets"] = "npo"
    """How rows are forgotten."""

    settings: tuple[str, ...] = ()
    """Constants of the method's equation, as "beta=0.5"."""

    adapter: str = "full"
    """What is trained: "full", or an adapter that is merged afterwards, such as "lora"."""

    steps: int = 60
    """Optimiser steps."""

    batch_size: int = 16
    """Rows a step; about half of them are to be forgotten."""

    learning_rate: float = 0.0
    """The highest. 0: the adapter's own."""

    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Numbers to train in."""

    keep: float = 0.9
    """Share of the ROUGE-L of the rows to keep, and of each suite's score, that must be left; less is exit code 3."""

    relearn_steps: int = 10
    """Steps of the relearning attack."""


@dataclass(frozen=True, kw_only=True)
class Serve:
    """How `genwright serve` answers."""

    engine: Literal["auto", "llamacpp", "vllm", "remote"] = "auto"
    """What generates. "auto": `url` where one is given, else vLLM on a GPU that has it, else llama.cpp in this machine."""

    url: str = ""
    """An OpenAI-compatible server that runs already: its address, without /v1."""

    remote_model: str = ""
    """The model's name at `url`. Empty: the project's name."""

    key_file: str = ""
    """File with the API key for `url` and `fallback`."""

    fallback: str = ""
    """Address of a second server, asked while the first is down; it answers for the base only."""

    library: str = ".genwright/library"
    """Folder of experts, relative to this file: an adapter that is not merged is put there, and `genwright serve` follows it."""

    guard: str = ""
    """Folder of a trained guard (`examples/guard/train.py` makes one), relative to this file. Empty: nothing is guarded."""

    policy: str = ""
    """TOML file that says what the guard does about what it sees. Empty: blocks harm, injections and escalations, redacts personal data."""

    context: int = 4096
    """Tokens of one request, prompt and answer; no more than the model has."""

    parallel: int = 4
    """Requests that llama.cpp computes at a time; more wait."""

    usd_per_million_prompt: float = 0.0
    """Dollars of a million prompt tokens that were computed. Where no token has a price, `hardware.usd_per_hour` counts."""

    usd_per_million_cached: float = 0.0
    """Dollars of a million prompt tokens that were cached."""

    usd_per_million_generated: float = 0.0
    """Dollars of a million generated tokens."""

    cors: tuple[str, ...] = ()
    """Origins whose pages may call from a browser. Empty: none."""

    certificate: str = ""
    """PEM file of the TLS certificate. Empty: plain HTTP."""

    certificate_key: str = ""
    """PEM file of its private key."""
