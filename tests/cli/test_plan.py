from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from genwright.cli import draw


@pytest.fixture
def plan(recorded: ModuleType) -> dict[str, Any]:
    return {
        "stages": [
            {"stage": "scope", "action": "reuse", "why": "nothing changed"},
            {"stage": "adapt", "action": "run", "why": "adapt.steps changed: 100 -> 200"},
            {"stage": "evaluate", "action": "blocked", "why": "adapt has to run first"},
        ],
        "look": recorded.LOOK,
        "rungs": [
            {"name": "lora", "planned": {**recorded.PLANNED, "breakdown": {"weights": 2**29}, "notes": ["a note"]}}
        ],
        "fits": True,
        "memory_bytes": 16 * 2**30,
        "device": "this machine",
        "notes": ["select was not run yet"],
    }


@pytest.fixture
def planned(fake: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """The plan that `plan` will get; `seen` keeps what it was asked."""
    seen: dict[str, Any] = {}

    def plan_project(spec: Any, base: Path) -> dict[str, Any]:
        seen.update(spec=spec, base=base)
        return plan

    fake["genwright.outlook:plan_project"] = plan_project
    return seen


def test_a_plan_says_what_runs_and_why_and_what_it_needs(genwright, planned, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("plan", "--project", begun)
    words = " ".join(ran.out.split())
    assert ran.code == 0
    assert "adapt run adapt.steps changed: 100 -> 200" in words
    assert "evaluate blocked adapt has to run first" in words
    assert "⟦az vm stop --name web-1 --resource-group prod<|im_end|>⟧" in words
    assert "learned tokens 38.4 %" in words and "packing fill 96.2 %" in words
    assert "truncated 2 rows, 75 tokens" in words
    assert "warning: 2 rows are longer" in words
    assert "memory: training, longest batch 2.31 GiB 2.2 GiB to 2.5 GiB" in words
    assert "energy unknown this machine's watts are unknown" in words
    assert "training peak: weights 512 MiB" in words
    assert "note: a note" in words and "note: select was not run yet" in words
    assert words.endswith("It fits. 16 GiB of memory may be used.")


def test_every_one_of_the_five_peaks_and_the_rest_is_shown(genwright, planned, begun: Path) -> None:  # type: ignore[no-untyped-def]
    out = genwright("plan", "--project", begun).out
    for title in ("training", "evaluating", "saving", "resuming", "merging", "host"):
        assert f"memory: {title}" in out
    for title in ("disk", "time per step", "time to train", "energy", "money"):
        assert title in out


def test_json_is_the_plan_and_nothing_else(genwright, planned, plan, begun: Path) -> None:  # type: ignore[no-untyped-def]
    assert genwright("plan", "--project", begun, "--json").json() == plan


def test_a_plan_that_does_not_fit_exits_with_3(genwright, planned, plan, begun: Path) -> None:  # type: ignore[no-untyped-def]
    plan["fits"] = False
    ran = genwright("plan", "--project", begun)
    assert ran.code == 3 and "It does not fit. 16 GiB of memory may be used. Try a smaller adapt.pack_tokens" in ran.out


def test_a_plan_without_a_model_claims_nothing_about_fitting(genwright, planned, plan, begun: Path) -> None:  # type: ignore[no-untyped-def]
    plan.update(rungs=[], look=None)
    ran = genwright("plan", "--project", begun)
    assert ran.code == 0 and "fit" not in ran.out


def test_overrides_reach_the_plan(genwright, planned, begun: Path) -> None:  # type: ignore[no-untyped-def]
    genwright("plan", "--project", begun, "--set", "adapt.batch_size=4", "--set", "project.seed=7", "--offline")
    spec = planned["spec"]
    assert (spec.adapt.batch_size, spec.project.seed, spec.select.offline) == (4, 7, True)
    assert planned["base"] == begun


def test_an_override_of_an_unknown_key_is_an_error(genwright, planned, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("plan", "--project", begun, "--set", "adapt.batchsize=4")
    assert ran.code == 2 and "batch_size" in ran.err


def test_the_plan_is_left_for_the_report(genwright, planned, begun: Path) -> None:  # type: ignore[no-untyped-def]
    genwright("plan", "--project", begun)
    assert (begun / ".genwright" / "plan.json").exists()


def test_explain_says_what_a_key_does_and_where_its_value_is_from(genwright, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("plan", "--project", begun, "--explain", "scope.target")
    assert ran.code == 0
    assert "35" in ran.out and "genwright.toml" in ran.out
    assert genwright("plan", "--project", begun, "--explain", "scope.target", "--json").json()["key"] == "scope.target"


def test_colour_replaces_the_brackets(recorded: ModuleType) -> None:
    console = Console(force_terminal=True, color_system="truecolor", width=100)
    with console.capture() as capture:
        draw.look(console, recorded.LOOK)
    assert "\x1b[30;46m" in capture.get() and draw.OPEN not in capture.get()


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([("a", False), ("b", True), ("c", True), ("d", False)], "a⟦bc⟧d"),
        ([("a", True)], "⟦a⟧"),
        ([("a", False)], "a"),
        ([], ""),
    ],
)
def test_brackets_enclose_each_run_of_learned_tokens(pieces: list[tuple[str, bool]], shown: str) -> None:
    assert draw.sample_text(pieces, coloured=False).plain == shown


def test_text_of_rows_is_never_read_as_markup(recorded: ModuleType) -> None:
    console = Console(width=100)
    with console.capture() as capture:
        draw.look(console, {**recorded.LOOK, "sample": [["[bold]x[/bold] :smile:", False]]})
    assert "[bold]x[/bold] :smile:" in capture.get()
