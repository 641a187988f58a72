"""The precisions against each other, in turn, on the demo's rows: memory, held-out loss, and time over bfloat16's.

    python benchmarks/precision.py                 # 40 steps, 3 rounds; leave the machine alone
    python benchmarks/precision.py --no-speed      # one round; memory and losses do not depend on what else the machine does
    python benchmarks/precision.py --page          # only write the table of results/precision.json into docs/precision.md

Every way trains in a process of its own, with the engine's own loop, on the same rows in the same order.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import machine
from clock import StepClock
from finetune import demo_rows, is_held_out, model_folder, say, use_genwright, write_rows

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "precision.json"
PAGE = HERE.parent / "docs" / "precision.md"
BEGIN, END = "<!-- made by benchmarks/precision.py -->\n", "<!-- to here -->\n"
TIMED_AFTER = 2
"""Steps at the start that count for neither time nor peak: first-touch memory, and loading's own peak."""


@dataclass(frozen=True)
class Way:
    """What a row of the table trains, and in what."""

    words: str
    method: str
    precision: str
    settings: dict[str, Any] = field(default_factory=dict)
    against: str = ""
    """The way that its time is divided by."""


WAYS = {
    "lora-bf16": Way("LoRA, bf16", "lora", "bf16", against="lora-bf16"),
    "lora-fp32": Way("LoRA, fp32", "lora", "fp32", against="lora-bf16"),
    "lora-int8": Way("LoRA, int8 base", "lora", "bf16", {"base": "int8"}, against="lora-bf16"),
    "lora-int4": Way("LoRA, int4 base", "lora", "bf16", {"base": "int4"}, against="lora-bf16"),
    "full-bf16": Way("full, bf16", "full", "bf16", against="full-bf16"),
    "full-fp32": Way("full, fp32", "full", "fp32", against="full-bf16"),
    "qat": Way("QAT, bf16", "qat", "bf16", against="full-bf16"),
}


# --- one way, in a process of its own --------------------------------------------------------------------------------


def run_one(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """Train one way; bytes, losses and seconds."""
    from genwright.catalogue.parts import ADAPTERS
    from genwright.data.layouts import plain_feed
    from genwright.data.sources import read_rows
    from genwright.data.templates import encode_rows
    from genwright.engine.build import build
    from genwright.engine.loop import mean_loss, train
    from genwright.engine.recipe import Recipe
    from genwright.models.load import load_model, load_tokenizer
    from genwright.objectives.language import Instruction
    from genwright.plan.here.verify import release_freed_memory

    way, folder = WAYS[name], Path(task["model"])
    tokenizer = load_tokenizer(folder)
    feeds = {
        part: plain_feed(encode_rows(read_rows(Path(task[part])).rows, tokenizer, max_tokens=2048), tokenizer.pad_token_id)
        for part in ("train", "held_out")
    }  # fmt: skip
    recipe = Recipe(
        Instruction(), ADAPTERS[way.method](**way.settings), way.precision, task["steps"], task["rows_per_step"],
        task["learning_rates"][way.method], warmup_fraction=0.0,
    )  # fmt: skip
    load = lambda dtype, attention: load_model(folder, dtype=dtype, attention=attention)
    empty = _resident("VmRSS")
    built = build(recipe, load)
    found = {"weights_bytes": _held_bytes(built.model), "loss_before": mean_loss(built, recipe, feeds["held_out"])}
    clock, steps = StepClock(), []
    for done in train(built, recipe, feeds["train"]):
        clock.tick()
        steps.append(done)
        if done.step == TIMED_AFTER:
            release_freed_memory()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    found |= {
        "peak_bytes": _resident("VmHWM") - empty,
        "seconds": [round(after - before, 4) for before, after in zip(clock.wall, clock.wall[1:])][TIMED_AFTER - 1 :],
        "train_loss": [round(done.loss, 4) for done in steps],
        "skipped_steps": sum(done.skipped for done in steps),
        "loss": mean_loss(built, recipe, feeds["held_out"]),
        "learning_rate": recipe.learning_rate,
    }
    if way.settings.get("base"):
        found["loss_on_published_base"] = _on_published_base(built, recipe, load, feeds["held_out"])
    if way.method in ("full", "qat"):
        found["loss_in_int4"] = _in_int4(built, recipe, load, feeds["held_out"])
    return found


def _on_published_base(built: Any, recipe: Any, load: Any, held_out: Any) -> float:
    """The same adapter on the base in bfloat16: where it is merged, and served."""
    from genwright.engine.build import build
    from genwright.engine.loop import mean_loss

    plain = replace(recipe, adapter=replace(recipe.adapter, base=""))
    other = build(plain, load)
    for key, parameter in other.parameters.items():
        parameter.data.copy_(built.parameters[key].data)
    return mean_loss(other, plain, held_out)


def _in_int4(built: Any, recipe: Any, load: Any, held_out: Any) -> float:
    """What was saved, read again, its linear layers rounded to 4 bits as any base is."""
    from genwright.adapters.wrapped import heads_of
    from genwright.engine.loop import mean_loss
    from genwright.precision.quantize import quantize_base_

    with tempfile.TemporaryDirectory() as saved:
        recipe.adapter.save(built.model, Path(saved))
        import torch

        from genwright.models.attention import NAME
        from genwright.models.load import load_model

        model = load_model(Path(saved), dtype=torch.float32, attention=NAME)
    quantize_base_(model, "int4", keep=heads_of(model))
    return mean_loss(replace(built, model=model), recipe, held_out)


def _held_bytes(model: Any) -> int:
    unique = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    return sum(unique.values())


def _resident(name: str) -> int:
    """VmRSS (now) or VmHWM (the peak), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# --- all of them -----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every way once a round, one after another; losses and bytes are of the first round, ratios the median of all."""
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="genwright-precision-") as work:
        task = _task(options, Path(work))
        for number in range(1 if options.no_speed else options.rounds):
            names = list(WAYS)
            turned = names[number % len(names) :] + names[: number % len(names)]
            rounds.append({name: _in_a_process(name, task) for name in turned})
    ways = {name: rounds[0][name] | {"ratio": None if options.no_speed else ratio(rounds, name)} for name in WAYS}
    shown = {key: value for key, value in task.items() if key in ("steps", "rows_per_step", "learning_rates")}
    return {
        "ways": ways, "task": {**shown, "model": options.model, "schedule": "cosine", "held_out_rows": options.held_out},
        "rounds": len(rounds), "versions": machine.versions((*machine.PACKAGES, "torchao")),
    }  # fmt: skip


def ratio(rounds: list[dict[str, Any]], name: str) -> float:
    """Seconds of the median step over those of the way it is compared with, in the same round; median over the rounds."""
    one = lambda runs, key: statistics.median(runs[key]["seconds"])
    return round(statistics.median(one(runs, name) / one(runs, WAYS[name].against) for runs in rounds), 3)


def _task(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    rows = demo_rows(None)
    write_rows(work / "train.jsonl", [row for row in rows if not is_held_out(row)])
    write_rows(work / "held-out.jsonl", [row for row in rows if is_held_out(row)][: options.held_out])
    return {
        "model": str(model_folder(options.model)), "train": str(work / "train.jsonl"), "held_out": str(work / "held-out.jsonl"),
        "steps": options.steps, "rows_per_step": options.rows_per_step,
        "learning_rates": {"lora": 1e-3, "full": 1e-4, "qat": 1e-4},
    }  # fmt: skip


def _in_a_process(name: str, task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    say(
        f"{name}: {found['peak_bytes'] / 2**20:.0f} MiB, loss {found['loss']:.4f}, {statistics.median(found['seconds']):.2f} s a step"
    )
    return found


# --- the page --------------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The rows of docs/precision.md, and where and when they were measured."""
    lines = [
        "| | weights, MiB | peak, MiB | loss before | loss after | elsewhere | time of a step |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, way in WAYS.items():
        one = result["ways"][name]
        elsewhere = [
            f"{one[key]:.3f} {words}"
            for key, words in (("loss_on_published_base", "on the bf16 base"), ("loss_in_int4", "in int4"))
            if key in one
        ]
        cells = [
            way.words, f"{one['weights_bytes'] / 2**20:.0f}", f"{one['peak_bytes'] / 2**20:.0f}", f"{one['loss_before']:.3f}",
            f"{one['loss']:.3f}", *(elsewhere or ["—"]), "—" if one["ratio"] is None else f"{one['ratio']:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    task, where, versions = result["task"], result["machine"], result["versions"]
    lines += [
        "",
        f"{task['model']}, {task['steps']} steps of {task['rows_per_step']} rows, {task['held_out_rows']} held-out rows; "
        f"{where['processor']}, {where['cores']} cores; torch {versions['torch']}, torchao {versions['torchao']}; "
        f"{result['date'][:10]}, commit {result['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def page_with(page: str, result: dict[str, Any]) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(result) + END + after


def main() -> int:
    """Measure, write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=64, help="most held-out rows to judge by")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-speed", action="store_true", help="one round, and no column of time")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--page", action="store_true", help="measure nothing: write the kept result into the page")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    use_genwright()
    if options.one:
        print(json.dumps(run_one(options.one, json.load(sys.stdin))))
        return 0
    if not options.page:
        machine.write_result(options.out, **measure(options))
    if options.out == RESULT:
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
