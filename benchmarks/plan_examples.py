"""The plan against reality on every example: `genwright plan`, then `genwright apply`, in a short form of each.

    python benchmarks/plan_examples.py [--only smallest,transfer] [--smoke] [--steps 12] [--rows 24] [--page]

Each example's folder is copied with the data and the model that stand in it (an example without them is left out and named), planned
and applied by the real commands with `adapt.steps` and `adapt.validation_rows` cut down. For each rung stand, planned beside
measured: the process's peak (bound 10 %), the time (bound 15 %), and where it trains the live bytes of its step on fake tensors
against the same tracker on real ones (bound: equal). A machine that does other work meanwhile makes times worse: the load is in the
file. What was measured of an example replaces what stood of it in benchmarks/results/plan_examples.json, and docs/plan-time.md has
the table (`--page` writes it alone).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import write_result

EXAMPLES = Path(__file__).parents[1] / "examples"
OUT = Path(__file__).parent / "results" / "plan_examples.json"
PAGE = Path(__file__).parents[1] / "docs" / "plan-time.md"
MARKS = ("<!-- examples -->\n", "<!-- end of examples -->\n")
LEFT = shutil.ignore_patterns(".genwright", "report.html", "__pycache__")
COMPARED = (
    "host_bytes",
    "train_peak_bytes",
    "evaluate_peak_bytes",
    "train_seconds",
    "evaluate_seconds",
    "seconds",
    "disk_bytes",
)
BOUNDS = {"host_bytes": 0.10, "seconds": 0.15}
PEAK = """
import json, sys
from pathlib import Path
from plan_examples import live_bytes
print(json.dumps(live_bytes(Path.cwd(), sys.argv[1:])))
"""


def projects() -> dict[str, Path]:
    """Every project of every example: its name and its folder below the examples' own."""
    found = {str(path.parent.relative_to(EXAMPLES)): path.parent for path in sorted(EXAMPLES.glob("**/genwright.toml"))}
    return {name: path for name, path in found.items() if ".genwright" not in path.parts}


def live_bytes(folder: Path, settings: list[str]) -> dict[str, Any]:
    """For each rung that trains: the peak of one step with optimizer state, on fake tensors and on real ones."""
    from genwright import stages
    from genwright.base.events import Events
    from genwright.improve.planning import _planned_feed, place_of
    from genwright.improve.workshop import Workshop
    from genwright.outlook import model_on_disk
    from genwright.project.apply import Context
    from genwright.project.spec import override, read_spec

    spec = read_spec(folder / "genwright.toml")
    for setting in settings:
        spec = override(spec, setting)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "scope").mkdir()
        events = Events(scratch / "events.jsonl", ())
        stages.scope(Context(spec, {}, scratch / "scope", scratch, events, lambda: False, folder))
        model = model_on_disk(spec, folder)
        assert model is not None
        workshop = Workshop(spec, scope=scratch / "scope", model=model, made=scratch, events=events)
        return {
            rung: step_bytes(workshop.recipe(rung), workshop.config, _planned_feed(workshop, rung))
            for rung in workshop.ladder
            if workshop.trains(rung) and place_of(workshop, rung).ranks == 1
        }


def step_bytes(recipe: Any, config: Any, feed: Any) -> dict[str, int]:
    """{planned, measured} live bytes of the longest step."""
    from genwright.engine.build import build
    from genwright.engine.loop import microbatches_of_step
    from genwright.engine.step import train_step
    from genwright.models.load import build_model
    from genwright.parallel.norm import global_norm
    from genwright.plan.here.rungs import steps_to_trace
    from genwright.plan.here.trace import build_fake, trace_step
    from genwright.plan.here.tracker import Tracker

    longest, _ = steps_to_trace(recipe, feed)
    batches = lambda: microbatches_of_step(recipe, feed, longest)[1]
    planned = trace_step(build_fake(recipe, config), batches, recipe).peak.total
    built = build(recipe, lambda dtype, attention: build_model(config, dtype, attention, recipe.head))
    run = lambda made: train_step(
        built.model, built.optimizer, built.objective, made, max_norm=recipe.max_norm, global_norm=global_norm
    )
    run(batches())
    tracker = Tracker(vocabulary=config.get_text_config().vocab_size)
    tracker.track([*built.model.parameters(), *built.model.buffers()], "weights")
    tracker.track([tensor for state in built.optimizer.state.values() for tensor in state.values()], "optimizer")
    built.optimizer.zero_grad(set_to_none=True)
    with tracker:
        made = batches()  # as the plan makes them: seen, and no part of the step
        with tracker.phase("activations"):
            run(made)
    return {"planned": planned, "measured": tracker.peak.total}


def run_project(name: str, steps: int, rows: int) -> dict[str, Any]:
    """Planned beside measured for each rung of a copy of this project."""
    top = EXAMPLES / Path(name).parts[0]
    with tempfile.TemporaryDirectory(prefix="genwright-examples-") as scratch:
        shutil.copytree(top, Path(scratch) / top.name, ignore=LEFT)
        here = Path(scratch) / name
        settings = [f"adapt.steps={steps}", f"adapt.validation_rows={rows}"]
        words = [word for setting in settings for word in ("--set", setting)]
        plan = _genwright(here, "plan", *words)
        if "error" in plan or not plan.get("rungs"):
            return {"left_out": plan.get("error") or "; ".join(plan.get("notes", []))}
        applied = _genwright(here, "apply", *words)
        done = {path.parent.name: json.loads(path.read_text()) for path in here.glob(".genwright/**/attempt.json")}
        if not done:  # a stage after the climb may fail of so short a training; its rungs were run all the same
            return {"left_out": applied.get("error", "no rung was tried")}
        planned = {one["name"]: one["planned"] for one in plan["rungs"]}
        active = _live(here, settings)
    return {
        rung: {
            "quantities": _beside(planned[rung], done[rung]["measured"]),
            "live_bytes": active if "error" in active else active.get(rung),
        }
        for rung in planned
        if rung in done
    }


def _beside(planned: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"planned": planned[name], "measured": measured[name], "error": planned[name] / measured[name] - 1}
        for name in COMPARED
        if planned.get(name) and measured.get(name)
    }


def _genwright(folder: Path, verb: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "genwright", verb, "--json", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        return {"error": done.stderr.strip()[-400:]}
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _live(folder: Path, settings: list[str]) -> dict[str, Any]:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{PEAK}"
    done = subprocess.run(
        [sys.executable, "-c", program, *settings], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip()[-400:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(rows: dict[str, Any]) -> dict[str, Any]:
    """How many rungs keep each bound, and the median error."""
    rungs = [rung for project in rows.values() if "left_out" not in project for rung in project.values()]
    found: dict[str, Any] = {"projects": len(rows), "rungs": len(rungs)}
    for name, bound in BOUNDS.items():
        errors = [abs(rung["quantities"][name]["error"]) for rung in rungs if name in rung["quantities"]]
        if errors:
            kept = sum(error <= bound for error in errors)
            found[name] = {
                "bound": bound,
                "kept": kept,
                "of": len(errors),
                "median": statistics.median(errors),
                "worst": max(errors),
            }
    live = [rung["live_bytes"] for rung in rungs if rung["live_bytes"]]
    found["live_bytes_failed"] = [rung for rung in live if "error" in rung]
    live = [one for one in live if "planned" in one]
    found["live_bytes"] = {"equal": sum(one["planned"] == one["measured"] for one in live), "of": len(live)}
    return found


def table(rows: dict[str, Any]) -> str:
    """The page's block: a rung a row, planned beside measured."""
    lines = [
        "| example, rung | process, planned · measured (MiB) | | seconds, planned · measured | | live bytes of a step |",
        "|---|---|---|---|---|---|",
    ]
    for project, rungs in sorted(rows.items()):
        if "left_out" not in rungs:
            lines += [_line(f"{project}, {name}", rung) for name, rung in rungs.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, rung: dict[str, Any]) -> str:
    live = rung["live_bytes"] or {}
    equal = "" if "planned" not in live else "equal"
    if equal and live["planned"] != live["measured"]:
        equal = f"{100 * (live['planned'] / live['measured'] - 1):+.3f} %"
    host, seconds = (rung["quantities"].get(one) for one in ("host_bytes", "seconds"))
    cells = [_pair(host, 2**20, ".0f"), _pair(seconds, 1.0, ".1f")]
    return f"| {name} | {' | '.join(cells)} | {equal} |"


def _pair(one: dict[str, float] | None, unit: float, style: str) -> str:
    if one is None:
        return "– | "
    return f"{one['planned'] / unit:{style}} · {one['measured'] / unit:{style}} | {100 * one['error']:+.0f} %"


def write_page(rows: dict[str, Any]) -> None:
    """Put the table between its marks."""
    before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    PAGE.write_text(before + MARKS[0] + table(rows) + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")


def main() -> None:
    """Plan, apply, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of projects, smallest,from-scratch/causal,...")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=24, help="of validation; 0: all")
    parser.add_argument("--smoke", action="store_true", help="the smallest project, two steps; keeps nothing")
    parser.add_argument("--page", action="store_true", help="write the page from what is kept, and measure nothing")
    chosen = parser.parse_args()
    rows: dict[str, Any] = json.loads(OUT.read_text())["rows"] if OUT.exists() else {}
    wanted = ["smallest"] if chosen.smoke else [name for name in chosen.only.split(",") if name]
    for name in [] if chosen.page else projects():
        if not wanted or name in wanted:
            rows[name] = run_project(name, 2 if chosen.smoke else chosen.steps, chosen.rows)
            print(json.dumps({name: rows[name]}), flush=True)
            if not chosen.smoke:
                write_result(OUT, steps=chosen.steps, validation_rows=chosen.rows, summary=summary(rows), rows=rows)
    print(json.dumps(summary(rows), indent=1))
    if not chosen.smoke:
        write_page(rows)


if __name__ == "__main__":
    main()
