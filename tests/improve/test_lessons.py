"""Rungs of several trainings: what is read, what is preferred, from which model, at what price, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.e2e.tiny import write_model
from tests.improve.conftest import NOTHING

from genwright.base.errors import DataError, RecipeError
from genwright.data.files import load_rows, write_rows
from genwright.data.formats import Row
from genwright.improve.attempting import added, attempt, publish
from genwright.improve.climbing import climb_project
from genwright.improve.lessons import best_so_far, pair_of, reading, texts_of, without_held_out
from genwright.improve.pairs import NothingToLearn, fold, make_pairs, wrong_answers
from genwright.improve.planning import in_turn, plan_rung
from genwright.improve.solution import open_adapter, read_solution
from genwright.improve.workshop import Workshop
from genwright.models.load import load_model
from genwright.plan.estimate import Estimate, Range


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, dtype=torch.float32).named_parameters())


def test_raw_text_is_read_before_all_weights_are_adapted(
    shop: Callable[..., Workshop], unplanned: None, tmp_path: Path
) -> None:
    write_rows(tmp_path / "text.jsonl", [Row(kind="text", text=f"the red house number {n}") for n in range(12)])
    made = shop('adapt.ladder=["pre-training"]', "adapt.steps=2", "adapt.validation_rows=2")
    climbed = climb_project(made)
    rung = tmp_path / "made" / "pre-training"
    read = weights(rung / "lessons" / "reading" / "model")
    start, end = weights(tmp_path / "model"), weights(rung / "model")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(read[name], start[name]) and not torch.equal(end[name], read[name])
    recipes = climbed["recipes"]
    assert recipes["pre-training: reading"]["objective"]["name"] == "Causal"
    assert recipes["pre-training"]["objective"]["name"] == "Instruction"
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in told if event["kind"] == "step"] == [1, 2, 1, 2]
    publish(made, "pre-training", tmp_path / "out")
    assert not (tmp_path / "out" / "pre-training" / "lessons").exists()
    assert (tmp_path / "out" / "pre-training" / "model" / "tokenizer.json").exists()


def test_what_was_read_is_not_read_again(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    write_rows(tmp_path / "text.jsonl", [Row(kind="text", text=f"the red house number {n}") for n in range(12)])
    made = shop('adapt.ladder=["pre-training"]')
    attempt(made, "pre-training", NOTHING)
    folder = tmp_path / "made" / "pre-training"
    (folder / "attempt.json").unlink()
    before = (folder / "lessons" / "reading" / "model" / "model.safetensors").stat().st_mtime_ns
    attempt(shop('adapt.ladder=["pre-training"]'), "pre-training", NOTHING)
    assert (folder / "lessons" / "reading" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert not (folder / "lessons" / "reading" / "training").exists()


def test_chats_have_no_raw_text_and_labelled_rows_have_theirs(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    made = shop()
    with pytest.raises(DataError, match=r"(?s)no raw text to read on.*data.text.*kind chat.*take pre-training out"):
        plan_rung(made, "pre-training")
    made._rows["train"] = [
        Row(kind="labelled", text="a", label="x"),
        Row(kind="tagged", words=("b", "c"), tags=("o", "o")),
    ] * 2
    assert [row.text for row in texts_of(made)] == ["a", "b c"]
    assert reading(made, "pre-training").setting.objective.__class__.__name__ == "Causal"


def test_texts_with_held_out_rows_in_them_are_left_out() -> None:
    text = lambda words: Row(kind="text", text=words)
    asked = ({"role": "user", "content": "How do I stop the red machine?"}, {"role": "assistant", "content": "vm stop"})
    held = [Row(kind="chat", messages=asked), Row(kind="labelled", text="Save", label="file")]
    texts = [
        text("Q: how do I stop  the red machine? A: VM stop."), text("How do I stop the red machine?"), text("Save the file"),
    ]  # fmt: skip
    assert without_held_out(texts, held) == texts[1:]


def test_the_best_adapter_is_continued_from_and_pairs_are_of_training_rows(
    shop: Callable[..., Workshop], unplanned: None, tmp_path: Path
) -> None:
    made = shop(
        'adapt.ladder=["zero-shot", "lora", "preference"]', "adapt.pairs=20", "adapt.steps=2", "scope.target=101.0",
        "adapt.milestones=[1]",
    )  # fmt: skip
    climbed = climb_project(made)
    assert [rung["skipped"] for rung in climbed["rungs"]] == ["", "", ""]
    assert climbed["recipes"]["preference"]["objective"]["name"] == "DPO"
    assert climbed["recipes"]["preference"]["learning_rate"] == pytest.approx(
        climbed["recipes"]["lora"]["learning_rate"] / 10
    )
    folder = tmp_path / "made" / "preference"
    pairs = load_rows(folder / "pairs.jsonl")
    trained = {row.messages[-1]["content"] for row in load_rows(tmp_path / "train.jsonl")[:20]}
    assert 0 < len(pairs) <= 20 and {pair.chosen[0]["content"] for pair in pairs} <= trained
    assert all(pair.chosen != pair.rejected for pair in pairs)
    kept = sorted((folder / "lessons" / "answers").iterdir())
    assert [len(json.loads(path.read_text())) for path in kept] == [16, 4]
    name = "model.layers.0.self_attn.q_proj.weight"
    base, start, end = (
        weights(path)[name] for path in (tmp_path / "model", folder / "lessons" / "start", folder / "model")
    )
    lora = open_adapter(load_model(tmp_path / "model", dtype=torch.float32), tmp_path / "made" / "lora" / "adapter")
    torch.testing.assert_close(start, dict(lora.merge_and_unload().named_parameters())[name])
    assert not torch.equal(base, start) and not torch.equal(start, end)
    assert climbed["rungs"][2]["measured"]["pairs"] == len(pairs)
    publish(made, "preference", tmp_path / "out")
    assert (tmp_path / "out" / "preference" / "pairs.jsonl").exists()
    (kept,) = (tmp_path / "out" / "preference" / "milestones").iterdir()
    (adapter,) = (folder / "lessons" / "aligning" / "milestones").glob("step-*/adapter")
    half = open_adapter(load_model(folder / "lessons" / "start", dtype=torch.float32), adapter).merge_and_unload()
    milestone = weights(Path(read_solution(kept, tmp_path / "model").model))[name]
    torch.testing.assert_close(milestone, dict(half.named_parameters())[name])
    assert not torch.equal(start, milestone) and not torch.equal(milestone, end)
    assert (kept / "model" / "tokenizer.json").exists()


def test_answered_rows_are_not_answered_again(shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch) -> None:
    made = shop('adapt.ladder=["preference"]')
    asked: list[int] = []

    def killed(workshop: Any, answering: Any, rows: Any, number: int) -> Any:
        asked.append(number)
        if number:
            raise KeyboardInterrupt
        return wrong_answers(workshop, answering, rows, number)

    monkeypatch.setattr("genwright.improve.pairs.wrong_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        make_pairs(made, "preference")
    monkeypatch.setattr(
        "genwright.improve.pairs.wrong_answers",
        lambda shop, model, rows, number: asked.append(number) or ["no"] * len(rows),
    )
    assert make_pairs(made, "preference") > 6
    assert asked == [0, 16, 16]


class Says:
    """Answers greedily with one list and by chance with another."""

    def __init__(self, greedy: list[str], drawn: list[str]) -> None:
        self.greedy, self.drawn = greedy, drawn

    def answer(self, rows: Any, sampling: Any, progress: Any) -> list[str]:
        return self.drawn[: len(rows)] if sampling.temperature else self.greedy


def test_only_wrong_answers_are_rejected_the_greedy_one_first(shop: Callable[..., Workshop]) -> None:
    made = shop("scope.metric=exact-match")
    rows = made.rows("train")[:4]
    right = [str(row.conversation[-1]["content"]) for row in rows]
    said = Says([right[0], "wrong", right[2], ""], [right[0], "also wrong", "chance"])
    assert wrong_answers(made, said, rows, 0) == [None, "wrong", "also wrong", "chance"]
    lower = shop("scope.metric=exact-match")
    assert wrong_answers(lower, Says(right, right), rows, 0) == [None] * 4


def test_a_model_that_is_always_right_has_nothing_to_prefer(
    shop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shop('adapt.ladder=["preference"]')
    monkeypatch.setattr("genwright.improve.pairs.wrong_answers", lambda shop, model, rows, number: [None] * len(rows))
    with pytest.raises(NothingToLearn, match="no wrong answer to 22 training rows"):
        make_pairs(made, "preference")
    done = attempt(made, "preference", NOTHING)
    assert done["skipped"].startswith("preference: the model gave no wrong answer") and "score" not in done


def test_the_start_is_the_best_of_the_rungs_below_that_can_be_one_model(
    shop: Callable[..., Workshop], tmp_path: Path
) -> None:
    made = shop('adapt.ladder=["few-shot", "prompt-tuning", "lora", "full", "preference", "ia3"]')
    assert best_so_far(made, "preference").model == str(tmp_path / "model")
    for rung, score in {"few-shot": 90.0, "prompt-tuning": 80.0, "lora": 60.0, "full": 50.0, "ia3": 99.0}.items():
        (tmp_path / "made" / rung).mkdir()
        (tmp_path / "made" / rung / "attempt.json").write_text(json.dumps({"score": {"value": score}}))
        form = "model" if rung == "full" else "adapter"
        note = {"form": form, "examples": 0, "head": "language", "labels": []}
        (tmp_path / "made" / rung / "solution.json").write_text(json.dumps(note))
    assert best_so_far(made, "preference").rung == "lora"
    lower = shop('adapt.ladder=["lora", "full", "preference"]', "scope.metric=bits-per-token")
    assert best_so_far(lower, "preference").rung == "full"


def test_preference_needs_written_answers(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)own wrong answers.*a decoder that writes.*family encoder"):
        made = shop()
        made.model = write_model(tmp_path / "encoder", "encoder")
        plan_rung(made, "preference")


def test_two_trainings_cost_what_both_do() -> None:
    exactly = lambda value: Range(value, value, value)
    of = lambda peak, train, judge: Estimate({
        "train_peak_bytes": exactly(peak), "host_bytes": exactly(peak), "train_seconds": exactly(train), "disk_bytes": exactly(5.0),
        "evaluate_seconds": exactly(judge), "seconds": exactly(train + judge),
    })  # fmt: skip

    class Hardware:
        watts, usd_per_hour = 10.0, 36.0

    both = in_turn(of(8.0, 100.0, 1.0), of(6.0, 50.0, 7.0), {}, Hardware)
    value = {name: quantity.value for name, quantity in both.quantities.items()}
    assert value["train_peak_bytes"] == value["host_bytes"] == 8.0 and value["disk_bytes"] == 10.0
    assert (value["seconds"], value["joules"], value["usd"]) == (157.0, 1570.0, 1.57)
    took = added(
        {"train_seconds": 1.0, "train_peak_bytes": 9, "step_seconds": 3.0},
        {"train_seconds": 2.0, "train_peak_bytes": 4, "step_seconds": 5.0},
    )
    assert took == {"train_seconds": 3.0, "train_peak_bytes": 9, "step_seconds": 5.0}


def test_folding_in_changes_no_answer(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    made = shop('adapt.ladder=["lora"]')
    attempt(made, "lora", NOTHING)
    fold(tmp_path / "model", tmp_path / "made" / "lora" / "adapter", tmp_path / "one")
    ids = torch.tensor([[5, 6, 7, 8]])
    adapted = open_adapter(load_model(tmp_path / "model", dtype=torch.float32), tmp_path / "made" / "lora" / "adapter")
    torch.testing.assert_close(
        load_model(tmp_path / "one", dtype=torch.float32)(ids).logits, adapted(ids).logits, atol=1e-5, rtol=1e-4
    )
    assert pair_of(made.rows("train")[0], "no").conversation == made.rows("train")[0].conversation


def test_a_lesson_costs_more_than_the_rung_alone(shop: Callable[..., Workshop], tmp_path: Path) -> None:
    write_rows(tmp_path / "text.jsonl", [Row(kind="text", text=f"the red house number {n}") for n in range(4)])
    made = shop(
        'adapt.ladder=["pre-training", "preference"]',
        "adapt.steps=1",
        "adapt.batch_size=2",
        "adapt.validation_rows=2",
        "adapt.pairs=3",
    )
    value = lambda estimate, name: estimate.quantities[name].value
    read, full = plan_rung(made, "pre-training"), plan_rung(made, "full")
    assert value(read, "train_seconds") > 1.2 * value(full, "train_seconds")
    assert value(read, "evaluate_seconds") == value(full, "evaluate_seconds")
    assert value(read, "disk_bytes") > 1.9 * value(full, "disk_bytes")
    preferred = plan_rung(made, "preference")
    model = sum(path.stat().st_size for path in (tmp_path / "model").glob("*.safetensors"))
    assert value(preferred, "disk_bytes") > 2 * 0.97 * model
    assert value(preferred, "seconds") == pytest.approx(
        value(preferred, "train_seconds") + value(preferred, "evaluate_seconds")
    )
    assert value(preferred, "train_seconds") > value(preferred, "step_seconds")
