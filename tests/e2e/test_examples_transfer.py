"""One encoder, three ways to change it, in one table: shorter, on a tiny encoder and rows made here."""

from __future__ import annotations

import json
import runpy
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.e2e.tiny import write_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "transfer"
MADE = shutil.ignore_patterns("data", "model", ".genwright", "report.html", "__pycache__")
RUNGS = ["head", "last-layers", "full"]
LAYERS = 3


def rows(number: int) -> list[dict[str, str]]:
    """What decides the service is one word of the task."""
    services = {"red": "vm", "green": "storage", "blue": "network"}
    words = list(services)
    return [
        {"text": f"{words[n % 3]} {words[n % 3]} house {n}", "label": services[words[n % 3]], "group": f"g{n}"}
        for n in range(number)
    ]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer") / "project"
    shutil.copytree(EXAMPLE, folder, ignore=MADE)
    write_model(folder / "model", "encoder")
    (folder / "data").mkdir()
    (folder / "data" / "services.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(90)))
    return folder


def test_rows_are_even_and_do_not_depend_on_the_order() -> None:
    chosen = runpy.run_path(str(EXAMPLE / "make_data.py"))["chosen"]
    many = [
        *rows(60),
        {"text": "a rare one", "label": "rare", "group": "r"},
        {**rows(1)[0], "text": "RED red house 0"},
    ]
    found = chosen(many, 3, 15)
    assert Counter(row["label"] for row in found) == {"vm": 15, "storage": 15, "network": 15}
    assert len({row["text"].casefold() for row in found}) == 45
    again = chosen(many[-2::-1], 3, 15)
    assert found == again


def test_three_ways_in_one_table(project: Path, genwright_here: Callable) -> None:
    settings = ["adapt.epochs=16", "adapt.learning_rate=3e-3", "data.test_fraction=0.3"]
    done = genwright_here(project, "apply", "--json", *(word for one in settings for word in ("--set", one)))
    assert done.code == 0, done.told
    climbed = {rung["name"]: rung for rung in done.json["summaries"]["adapt"]["rungs"]}
    assert list(climbed) == RUNGS
    scores = done.json["summaries"]["evaluate"]["scores"]
    assert list(scores) == RUNGS
    assert scores["full"]["accuracy"]["value"] > 80 > 100 / 3
    costs = [climbed[name]["planned"]["flops_per_step"] for name in RUNGS]
    assert costs == sorted(costs) and costs[0] < costs[2] / 2
    assert_only_what_was_named_changed(project, Path(done.json["artifacts"]["adapt"]))


def assert_only_what_was_named_changed(project: Path, adapt: Path) -> None:
    before = load_file(project / "model" / "model.safetensors")
    frozen = {"head": range(LAYERS), "last-layers": range(LAYERS - 2), "full": range(0)}
    for name, still in frozen.items():
        after = load_file(next((adapt / name).rglob("model.safetensors")))
        for layer in range(LAYERS):
            key = f"bert.encoder.layer.{layer}.output.dense.weight"
            assert bool((before[key] == after[key]).all()) == (layer in still), (name, layer)
        assert after["classifier.weight"].shape == (3, 32)
