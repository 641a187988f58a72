"""Compiled kernels: what a new shape leaves in a real process, how many shapes real steps meet, and what is kept of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from genwright.adapters.full import Full
from genwright.data.layouts import plain_feed
from genwright.data.templates import Encoded
from genwright.engine.build import build
from genwright.engine.loop import microbatches_of_step
from genwright.engine.recipe import Recipe
from genwright.engine.step import train_step
from genwright.objectives.language import Instruction
from genwright.parallel.norm import global_norm
from genwright.plan.estimate import Estimate, around
from genwright.plan.here import kernels
from genwright.plan.here.kernels import KEPT, Here, Kernels, kernels_of, process_bytes
from genwright.plan.here.rungs import in_order
from genwright.plan.here.shapes import layouts_of_step, of_training, total
from genwright.plan.here.tracker import Tracker

MIB = 2**20
SIXTEEN = Kernels(("bfloat16",), 5e5, 1e-3)
CONFIG = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)  # fmt: skip


GROWS = """
import json, torch
from genwright.plan.here import kernels
from genwright.plan.here.verify import release_freed_memory, resident_bytes
one = kernels.measured()
left, right = torch.zeros(1000, 72, dtype=torch.bfloat16), torch.zeros(72, 72, dtype=torch.bfloat16)
left[:50] @ right
release_freed_memory()
before = resident_bytes()
for rows in range(800, 900):
    left[:rows] @ right
release_freed_memory()
print(json.dumps([resident_bytes() - before, one.held(100) if "bfloat16" in one.dtypes else 0.0]))
"""


def test_a_process_grows_by_what_new_shapes_were_measured_to_keep() -> None:
    """A hundred shapes in a process of their own: the system's count of pages is the oracle, whatever the machine compiles."""
    done = subprocess.run([sys.executable, "-c", GROWS], capture_output=True, text=True, check=True)
    grown, expected = json.loads(done.stdout)
    assert grown == pytest.approx(expected, rel=0.2, abs=4 * MIB)


def test_the_kernels_of_a_run_are_counted_from_one_of_its_steps() -> None:
    """Real steps of rows of all lengths, each operation watched: as many products of different shapes as one step foretells."""
    rows = [
        Encoded([1] * length, [place > 3 for place in range(length)], 0, str(length)) for length in range(20, 80, 2)
    ]
    recipe, feed = Recipe(Instruction(), Full(), "bf16", 10, 4, 1e-3, pack_tokens=160), plain_feed(rows)
    layouts = [layouts_of_step(recipe, feed, step) for step in range(recipe.steps)]
    step = max(range(recipe.steps), key=lambda one: max(layout.tokens for layout in layouts[one]))
    load = lambda dtype, attention: AutoModelForCausalLM.from_config(CONFIG, attn_implementation=attention).to(dtype)
    built = build(recipe, load)
    found: dict[int, set[str]] = {}
    for number in range(recipe.steps):
        batches = microbatches_of_step(recipe, feed, number)[1]
        assert [batch.tokens for batch in batches] == [layout.tokens for layout in layouts[number]]
        with Tracker() as tracker:
            train_step(
                built.model, built.optimizer, built.objective, batches, max_norm=1.0, global_norm=global_norm
            )  # fmt: skip
        found[number] = SIXTEEN.shapes(tracker.events)
    every = set().union(*found.values())
    assert total(of_training(layouts, step, found[step])) == pytest.approx(len(every), rel=0.15)
    assert len(every) > 2 * len(found[step])


def test_no_more_are_held_than_the_library_keeps() -> None:
    assert SIXTEEN.held(10) == 5e6 and SIXTEEN.held(KEPT) == SIXTEEN.held(10 * KEPT)
    assert Kernels().held(100) == 0.0


def test_what_is_a_product_in_a_type_that_is_compiled() -> None:
    assert SIXTEEN.compiles("aten.bmm.default([bfloat16[2, 64, 64][4096, 64, 1],...") and not Kernels().compiles(
        "aten.mm."
    )
    assert not SIXTEEN.compiles("aten.mm.default(float32[64, 64][64, 1],...")
    assert not SIXTEEN.compiles("aten.mul.Tensor(bfloat16[64, 64][64, 1],...")


def test_it_is_measured_once_for_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kernels, "measured", lambda: asked.append(1) or SIXTEEN)
    assert kernels_of({"torch": "1"}, tmp_path) == kernels_of({"torch": "1"}, tmp_path) == SIXTEEN and len(asked) == 1
    assert kernels_of({"torch": "2"}, tmp_path) == SIXTEEN and len(asked) == 2
    (path, _) = sorted(tmp_path.iterdir())
    assert json.loads(path.read_text())["machine"]["torch"] in "12"
    path.write_text("{")
    assert kernels_of({"torch": "1"}, tmp_path) == kernels_of({"torch": "2"}, tmp_path) == SIXTEEN and len(asked) == 3


def test_what_measuring_compiled_is_not_the_run_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_bytes(SIXTEEN)
    monkeypatch.setattr(Here, "compiled", Here.compiled + 7)
    assert process_bytes(SIXTEEN) == pytest.approx(before - 7 * 5e5, abs=2 * MIB)


LEFT = {
    "zero-shot": {"evaluate": {"a": 10.0, "b": 2.0}},
    "lora": {"train": {"c": 5.0}, "evaluate": {"a": 12.0, "d": 1.0}},
}


def ladder(left: dict[str, Any], kernels: Kernels) -> dict[str, Any]:
    peak = around(1e9, 0.5, 0.5)
    names = {"evaluate": "evaluate_peak_bytes", "train": "train_peak_bytes"}
    planned = {
        rung: Estimate({**{names[part]: peak for part in own}, "host_bytes": peak}, compiled=own)
        for rung, own in left.items()
    }
    return {rung: one.quantities for rung, one in in_order(planned, kernels).items()}


def test_a_rung_holds_what_the_rungs_before_it_compiled() -> None:
    """By hand: training stands beside a and b; answering compiles two more of a, and finds b besides its own."""
    found = ladder(LEFT, SIXTEEN)
    assert found["zero-shot"]["evaluate_peak_bytes"].value == 1e9
    assert found["lora"]["train_peak_bytes"].value == 1e9 + 12 * 5e5
    assert found["lora"]["evaluate_peak_bytes"].value == 1e9 + (10 + 2 - 10) * 5e5
    assert found["lora"]["host_bytes"] == found["lora"]["train_peak_bytes"]
    assert found["lora"]["train_peak_bytes"].low == 5e8


def test_a_rung_that_is_climbed_again_compiles_nothing_new_and_no_more_is_held_than_is_kept() -> None:
    again = ladder({"one": {"evaluate": {"a": 9.0}}, "two": {"evaluate": {"a": 9.0}}}, SIXTEEN)
    assert again["one"] == again["two"]
    full = {"evaluate": {"a": float(KEPT)}}
    found = ladder({"one": full, "two": {"evaluate": {"b": float(KEPT)}}}, SIXTEEN)
    assert found["one"] == found["two"]
