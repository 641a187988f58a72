"""Scoring multiple choice: our scorer against lm-eval's own transformers backend, in turn, in one process.

    python benchmarks/judge.py --data ../shared/data/mcq_bench --rows 1000 --out benchmarks/results/judge.json

Rows come in equal shares from five sets, put as "Question: ... Answer:". Both sides run lm-eval's own loop over the same task
on the same weights; theirs with the batch size that was fastest on its first rows. Rows are asked in parts, ours and theirs
in turn. FLOPs are counted by torch on the first part's rows. "Answers" are the choices by acc and by acc_norm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from genwright.catalogue.parts import SUITES
from genwright.evaluate.lm import run_tasks, write_task
from genwright.evaluate.score import Scorer
from genwright.evaluate.suites import Suite
from genwright.models.load import load_model, load_tokenizer
from genwright.talk import folder_on_disk
from machine import versions, write_result

SETS = ("arc-easy.test", "arc-challenge.test", "openbookqa.test", "commonsenseqa.test", "socialiqa.dev")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Run = Callable[[Path, str], dict[str, Any]]


def rows_of(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first rows of each set, laid out as suites have them."""
    made = []
    for name in SETS:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[: count // len(SETS)]
        for row in map(json.loads, filter(None, lines)):
            question = " ".join(filter(None, (row.get("context"), row["centerpiece"])))
            made.append({
                "prompt": f"Question: {question}\nAnswer:", "choices": row["options"], "answer": row["correct_options_idx"][0]
            })  # fmt: skip
    return made


def theirs(model: Any, tokenizer: Any, batch_size: int) -> Run:
    """lm-eval's own backend around the same model."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    backend = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

    def run(folder: Path, task: str) -> dict[str, Any]:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        return lm_eval.simple_evaluate(
            model=backend, tasks=[task], task_manager=manager, bootstrap_iters=0, log_samples=True
        )  # fmt: skip

    return run


def timed(run: Run, folder: Path, task: str) -> dict[str, Any]:
    """{seconds, cpu_seconds, scores, nats} of a task."""
    began, cpu = time.perf_counter(), time.process_time()
    found = run(folder, task)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    samples = sorted(found["samples"][task], key=lambda one: one["doc_id"])
    return {
        "seconds": seconds, "cpu_seconds": spent, "scores": [(one["acc"], one["acc_norm"]) for one in samples],
        "nats": [[answer[0][0] for answer in one["resps"]] for one in samples],
    }  # fmt: skip


def chosen(nats: list[list[float]]) -> list[int]:
    """The likeliest choice of each row."""
    return [row.index(max(row)) for row in nats]


def flops(run: Run, folder: Path, task: str) -> int:
    """What torch counts: products and attention."""
    with FlopCounterMode(display=False) as counter:
        run(folder, task)
    return int(counter.get_total_flops())


def tasks_of(folder: Path, rows: list[dict[str, Any]], parts: int) -> list[str]:
    """Tasks of every part's rows: each part has rows of every set."""
    for part in range(parts):
        write_task(Suite(f"part{part}", SUITES["choice"], rows[part::parts], "acc"), folder)
    write_task(Suite("few", SUITES["choice"], rows[:: max(1, len(rows) // 20)], "acc"), folder)
    return [f"part{part}" for part in range(parts)]


def compared(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios and agreement of the parts, theirs over ours."""
    total = lambda runs, key: sum(run[key] for run in runs)
    both = [(a, b) for one, two in zip(mine, other) for a, b in zip(one["nats"], two["nats"])]
    return {
        "ratio": total(other, "seconds") / total(mine, "seconds"),
        "ratio_of_parts": [b["seconds"] / a["seconds"] for a, b in zip(mine, other)],
        "ratio_of_processor_time": total(other, "cpu_seconds") / total(mine, "cpu_seconds"),
        "rows": len(both),
        "same_answers": sum(chosen([a]) == chosen([b]) for a, b in both),
        "same_scores": sum(a == b for one, two in zip(mine, other) for a, b in zip(one["scores"], two["scores"])),
        "furthest_nats": max(abs(x - y) for a, b in both for x, y in zip(a, b)),
        **{
            side: {"seconds": total(runs, "seconds"), "acc": 100 * sum(s[0] for r in runs for s in r["scores"]) / len(both),
                   "acc_norm": 100 * sum(s[1] for r in runs for s in r["scores"]) / len(both)}
            for side, runs in (("ours", mine), ("theirs", other))
        },
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 32], help="theirs is the fastest of these"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = folder_on_disk(arguments.model, base=Path())
    load = lambda: load_model(folder, dtype=DTYPES[arguments.precision], attention="sdpa")
    model, tokenizer = load().eval(), load_tokenizer(folder)
    scorer = Scorer(model, tokenizer)
    ours: Run = lambda where, task: run_tasks(scorer, where, [task])
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        names = tasks_of(where, rows_of(arguments.data, arguments.rows), arguments.parts)
        ours(where, "few")  # a CPU compiles its products once per shape
        tried = {size: timed(theirs(model, tokenizer, size), where, "few")["seconds"] for size in arguments.batch_sizes}
        best = min(tried, key=lambda size: tried[size])
        backend = theirs(model, tokenizer, best)
        mine, other = [], []
        for name in names:
            mine.append(timed(ours, where, name))
            other.append(timed(backend, where, name))
        counted = {"ours": flops(ours, where, "few"), "theirs": flops(backend, where, "few")}
    found = {
        "benchmark": "judge", "versions": versions(("genwright", "torch", "transformers", "lm_eval")), "model": arguments.model,
        "precision": arguments.precision, "sets": SETS, "their_batch_size": best, "their_batch_sizes_seconds": tried,
        **compared(mine, other), "flops": counted, "flops_ratio": counted["theirs"] / counted["ours"],
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    if arguments.out:
        write_result(arguments.out, **found)


if __name__ == "__main__":
    main()
