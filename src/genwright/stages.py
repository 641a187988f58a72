"""The stages, one function each: the table of contents of the whole kit.

Each takes a Context (the project file, the artifacts of the stages it reads, a folder that becomes its artifact, a
folder that survives a kill, the record of the run) and returns its summary, which is written as <stage>.json.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.catalogue.parts import ADAPTERS, METRICS, RUNGS
from genwright.catalogue.tasks import task
from genwright.data.files import write_rows
from genwright.data.formats import Row
from genwright.data.layouts import families_that_learn
from genwright.data.sources import read_rows
from genwright.data.splits import check_leakage, split
from genwright.evaluate.statistics import bootstrap, corrected, minimum_detectable_difference, paired
from genwright.export.expert import publish_expert
from genwright.export.handover import hand_over, hand_over_served, merge_checked
from genwright.export.merge import Say
from genwright.improve.attempting import publish
from genwright.improve.climbing import climb_project
from genwright.improve.judging import groups_of, judge
from genwright.improve.lessons import TEXT, without_held_out
from genwright.improve.placing import memory_bytes, placement_of
from genwright.improve.searching import kept
from genwright.improve.selecting import TryOut
from genwright.improve.solution import Solution
from genwright.improve.unlearning import of_project, succeeded
from genwright.improve.unlearning import unlearn as unlearned
from genwright.improve.unlearning_plan import plan_unlearning
from genwright.improve.workshop import Workshop
from genwright.models.choose import choose_model
from genwright.models.made_card import write_card
from genwright.plan.here.verify import measuring
from genwright.project.apply import Context

SPLITS = ("train", "validation", "test")


def scope(context: Context) -> dict[str, Any]:
    """What it must do and on what: read the rows, split them by group, refuse leaks, say what a test of this size can see."""
    spec = context.spec
    files = {name: getattr(spec.data, name) for name in SPLITS if getattr(spec.data, name)}
    read = {
        name: read_rows(context.base / path, format=spec.data.format, columns=spec.data.columns)
        for name, path in files.items()
    }
    rows = split(
        {name: dataset.rows for name, dataset in read.items()}, validation=spec.data.validation_fraction,
        test=spec.data.test_fraction, seed=spec.project.seed, group_by=spec.data.group,
    )  # fmt: skip
    warnings = check_leakage(rows)
    for name in SPLITS:
        write_rows(context.out / f"{name}.jsonl", rows[name])
    text = _raw_text(context, rows, warnings) if spec.data.text else {}
    return {
        "task": spec.scope.task,
        "metric": spec.scope.metric or task(spec.scope.task).metric,
        "profile": spec.scope.profile or task(spec.scope.task).profile,
        "target": spec.scope.target,
        "format": read["train"].format,
        "fingerprints": {name: dataset.fingerprint for name, dataset in read.items()},
        "rows": {name: len(rows[name]) for name in SPLITS},
        "groups": {name: len(set(groups_of(rows[name]))) for name in SPLITS},
        "minimum_detectable_difference": minimum_detectable_difference(len(rows["test"])),
        "warnings": list(warnings),
        **text,
    }


def _raw_text(context: Context, rows: dict[str, list[Row]], warnings: list[str]) -> dict[str, Any]:
    """Keep data.text beside the splits, without the texts in which a validation or test row stands whole."""
    dataset = read_rows(context.base / context.spec.data.text, format="text", columns=context.spec.data.columns)
    texts = without_held_out(dataset.rows, [*rows["validation"], *rows["test"]])
    if len(texts) < len(dataset.rows):
        left_out = len(dataset.rows) - len(texts)
        warnings.append(f"{left_out} texts of data.text are left out: a validation or test row stands in them.")
    write_rows(context.out / f"{TEXT}.jsonl", texts)
    return {
        "text": {"fingerprint": dataset.fingerprint, "rows": len(texts), "left_out": len(dataset.rows) - len(texts)}
    }


def select(context: Context) -> dict[str, Any]:
    """Which model: hard limits first, then those that can be had are tried on the project's own rows, and compared."""
    say = lambda text: context.events.write("note", stage="select", text=text)
    spec = context.spec
    families = families_that_learn(spec.adapt.objective, task(spec.scope.task).families)
    return choose_model(
        spec, base=context.base, out=context.out / "model", families=families, memory_bytes=memory_bytes(spec), say=say,
        try_out=TryOut(context) if spec.select.trial_rows else None,
    )  # fmt: skip


def adapt(context: Context) -> dict[str, Any]:
    """Climb only as high as needed: try each rung, judged on validation rows; stop at the first that meets the target."""
    placement_of(context.spec)  # what this machine cannot do is said before anything is loaded
    workshop = Workshop.of(context, made=context.work)
    climbed = climb_project(workshop)
    for rung in climbed["rungs"]:
        if not rung["skipped"]:
            publish(workshop, rung["name"], context.out)
    return climbed


def evaluate(context: Context) -> dict[str, Any]:
    """Is it good enough: the test rows are read once, answered by every rung that was climbed, and compared row by row."""
    workshop = Workshop.of(context, made=context.inputs["adapt"])
    adapted = workshop.adapted()
    rows, metric = workshop.rows("test"), METRICS[workshop.metric]
    judged = {name: judge(workshop, name, rows, split="test") for name in adapted["climbed"]}
    for name, judgement in judged.items():
        judgement.write(context.out / f"predictions-{name}.jsonl", rows)
    chosen, groups = judged[adapted["chosen"]], groups_of(rows)
    others = {name: judgement for name, judgement in judged.items() if judgement is not chosen}
    compare = partial(paired, groups=groups, higher_is_better=metric.higher_is_better)
    compared = corrected([compare(judgement.scores, chosen.scores) for judgement in others.values()])
    comparisons = [
        {"before": name, "after": adapted["chosen"], **vars(comparison)} for name, comparison in zip(others, compared)
    ]
    value, target = bootstrap(chosen.scores, groups=groups).value, adapted["target"]
    met = None if target is None else bool(value >= target if metric.higher_is_better else value <= target)
    return {
        "metric": workshop.metric, "split": "test", "chosen": adapted["chosen"], "target": target, "met": met,
        "scores": {name: judgement.intervals for name, judgement in judged.items()}, "paired": comparisons,
    }  # fmt: skip


def unlearn(context: Context) -> dict[str, Any]:
    """Make what was chosen forget some rows and keep others; ask it before and after, and attack what is left."""
    workshop = Workshop.of(context, made=context.inputs["adapt"])
    say = lambda text: context.events.write("note", stage="unlearn", text=text)
    whole, parity = _one_model(workshop, context, say)
    planned = plan_unlearning(workshop, context.base).to_json()
    context.events.write("planned", stage="unlearn", **planned)
    with measuring() as spent:
        found = unlearned(of_project(context.spec, Path(whole.model), context.base), context.out, say, context.stop)
    measured = {"train_seconds": found["seconds"], "seconds": spent.seconds, "host_bytes": spent.peak_bytes}
    if (context.out / "adapter").exists():
        forgot = replace(whole, adapter=str(context.out / "adapter"))
        parity["merged after forgetting"] = merge_checked(workshop, forgot, context.out / "model", say)["parity"]
        shutil.rmtree(context.out / "adapter")
    told = {"planned": planned, "measured": measured, "parity": parity}
    return {**found, "model": "model", **told, "met": succeeded(found)}


def _one_model(workshop: Workshop, context: Context, say: Say) -> tuple[Solution, dict[str, Any]]:
    """The chosen rung as one model, and how far a merge moved it. Errors: BadRequest for one that cannot be, or writes no text."""
    solution = workshop.solution(_chosen(context))
    mergeable = not solution.adapter or ADAPTERS[RUNGS[solution.rung](context.spec, solution.rung).method].mergeable
    if solution.head.kind != "language" or not mergeable:
        raise BadRequest(
            f"What {solution.rung} left cannot be made to forget.", wanted="a model that writes text, or an adapter that can be merged",
            do="leave [unlearn] out, or adapt by full fine-tuning or lora",
        )  # fmt: skip
    if not solution.adapter:
        return solution, {}
    merged, note = context.work / "merged", context.work / "merged.json"
    if not note.exists():
        shutil.rmtree(merged, ignore_errors=True)
    found = kept(note, lambda: merge_checked(workshop, solution, merged, say))
    return replace(solution, model=str(merged), adapter=""), {"merged before forgetting": found["parity"]}


def _chosen(context: Context) -> str:
    """The rung that the test rows were last read for."""
    return str(json.loads((context.inputs["evaluate"] / "evaluate.json").read_text())["chosen"])


def integrate(context: Context) -> dict[str, Any]:
    """Hand it over: merge in float32, or publish the adapter as an expert; prove that it answers as the adapted one did; its card."""
    workshop = Workshop.of(context, made=context.inputs["adapt"])
    say = lambda text: context.events.write("note", stage="integrate", text=text)
    spec, solution = context.spec, workshop.solution(_chosen(context))
    if "unlearn" in context.inputs:
        solution = replace(solution, model=str(context.inputs["unlearn"] / "model"), adapter="")
    handed = hand_over(workshop, solution, context.out, merge=spec.integrate.merge, say=say)
    if spec.integrate.engine == "llamacpp":
        base = Path(solution.model)
        handed = hand_over_served(workshop, context.out, handed, base=base, quantize=spec.integrate.quantize, say=say)
    handed |= {"engine": spec.integrate.engine, "quantize": spec.integrate.quantize}
    summaries = {name: json.loads((folder / f"{name}.json").read_text()) for name, folder in context.inputs.items()}
    if handed["form"] == "adapter":
        library = context.base / spec.serve.library
        handed |= publish_expert(workshop, solution, context.out / "adapter", library, summaries, say)
    (context.out / "README.md").write_text(
        write_card(spec.project.name, {**summaries, "integrate": handed}), encoding="utf-8"
    )
    return handed
