"""Decisions: what runs, what is reused, what is blocked, and why in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genwright.project.graph import STAGES, Decision, Found, Stage, Wanted, decide, differences, stages_of, wanted
from genwright.project.keys import all_keys

A = Stage("a", "x:a", keys=("scope", "adapt.steps"), without=("scope.note",), files=("data.train",))
B = Stage("b", "x:b", reads=("a",), keys=("adapt",))
C = Stage("c", "x:c", reads=("a", "b"))
CHAIN = (A, B, C)
VALUES: dict[str, Any] = {
    "scope.task": "t",
    "scope.note": "n",
    "adapt.steps": 100,
    "adapt.rate": 0.1,
    "hardware.watts": 5,
}
FILES = {"data.train": {"train.jsonl": "f00"}}


def wants(
    values: dict[str, Any] | None = None, files: Any = FILES, stages: tuple[Stage, ...] = CHAIN
) -> dict[str, Wanted]:
    return wanted(stages, VALUES | (values or {}), files)


def keys(**changes: Any) -> dict[str, str]:
    return {name: want.key for name, want in wants(**changes).items()}


def whole(**changes: Any) -> dict[str, Found]:
    """A store in which everything was made from everything."""
    found = {"a": Found("da"), "b": Found("db", {"a": "da"}), "c": Found("dc", {"a": "da", "b": "db"})}
    return found | changes


def fields(values: dict[str, Any] | None = None, files: Any = FILES) -> dict[str, Any]:
    return {name: want.fields for name, want in wants(values, files).items()}


def said(decisions: list[Decision]) -> dict[str, tuple[str, str]]:
    return {one.stage: (one.action, one.why) for one in decisions}


REUSED = ("reuse", "nothing that it depends on has changed")


def test_a_key_changes_with_what_its_stage_reads_and_with_nothing_else() -> None:
    base = keys()
    assert keys(values={"hardware.watts": 9, "scope.note": "m"}) == base
    rate = keys(values={"adapt.rate": 0.2})
    assert rate["a"] == base["a"] and rate["b"] != base["b"] and rate["c"] != base["c"]
    content = keys(files={"data.train": {"train.jsonl": "f11"}})
    assert all(content[name] != base[name] for name in "abc")
    newer = keys(stages=(A, Stage("b", "x:b", reads=("a",), keys=("adapt",), version=2), C))
    assert newer["a"] == base["a"] and newer["b"] != base["b"] and newer["c"] != base["c"]


def test_a_table_does_not_take_in_another_that_begins_like_it() -> None:
    assert keys(values={"scopes.x": 1, "adapt.steps_more": 1})["a"] == keys()["a"]


def test_a_file_that_is_not_there_blocks_its_stage_and_all_that_read_it() -> None:
    decisions = decide(CHAIN, wants(files={"data.train": {"train.jsonl": ""}}), {}, {})
    assert said(decisions) == {
        "a": ("blocked", "data.train: train.jsonl does not exist"),
        "b": ("blocked", "a is blocked"),
        "c": ("blocked", "a is blocked"),
    }


def test_nothing_is_there_yet() -> None:
    assert {action for action, _ in said(decide(CHAIN, wants(), {}, {})).values()} == {"run"}
    assert {why for _, why in said(decide(CHAIN, wants(), {}, {})).values()} == {"never run"}


def test_everything_is_there() -> None:
    assert set(said(decide(CHAIN, wants(), whole(), fields())).values()) == {REUSED}


def test_what_changed_is_said() -> None:
    now = wants({"adapt.steps": 200}, {"data.train": {"other.jsonl": "f11"}})
    decisions = said(decide(CHAIN, now, {}, fields()))
    assert decisions["a"] == (
        "run",
        "adapt.steps changed: 100 -> 200; other.jsonl is new; train.jsonl is not read any more",
    )
    assert decisions["b"] == ("run", "adapt.steps changed: 100 -> 200; a changed")
    assert decisions["c"] == ("run", "a changed; b changed")


def test_a_damaged_artifact_is_made_again_and_its_readers_wait_and_see() -> None:
    damaged = whole(a=Found("", damage="rows.jsonl is missing."))
    assert said(decide(CHAIN, wants(), damaged, fields())) == {
        "a": ("run", "rows.jsonl is missing."),
        "b": REUSED,
        "c": REUSED,
    }
    other = whole(a=Found("other"))
    decisions = said(decide(CHAIN, wants(), other, fields()))
    assert decisions["b"] == ("run", "a came out different")
    assert decisions["c"] == ("run", "b runs again and may differ")


def test_force_runs_a_stage_and_all_that_may_come_out_different() -> None:
    decisions = said(decide(CHAIN, wants(), whole(), fields(), force=("b",)))
    assert decisions == {"a": REUSED, "b": ("run", "forced"), "c": ("run", "b runs again and may differ")}


def test_an_artifact_that_was_removed_is_made_again() -> None:
    found = whole()
    del found["c"]
    assert said(decide(CHAIN, wants(), found, fields()))["c"] == ("run", "its artifact is gone")


def test_work_that_was_begun_is_resumed() -> None:
    decisions = decide(CHAIN, wants(), whole(b=Found("", damage="gone")), fields(), works=("a", "b"))
    assert [one.resumes for one in decisions] == [False, True, False]


@pytest.mark.parametrize(
    ("last", "now", "why"),
    [
        ({"version": 1}, {"version": 2}, "this version of Genwright does it differently"),
        ({"adapt.a": None}, {"adapt.a": 1.5}, "adapt.a changed: nothing -> 1.5"),
        ({}, {"adapt.lora.rank": 16}, "adapt.lora.rank changed: not set -> 16"),
        ({"adapt.ladder": ["lora"]}, {"adapt.ladder": ["full"]}, 'adapt.ladder changed: ["lora"] -> ["full"]'),
        ({"file t": "1", "input a": "1"}, {"file t": "2", "input a": "2"}, "t changed; a changed"),
    ],
)
def test_differences_in_words(last: dict[str, Any], now: dict[str, Any], why: str) -> None:
    assert differences(last, now) == why


STATES = st.sampled_from(["absent", "damaged", "whole", "other"])


@given(st.lists(STATES, min_size=3, max_size=3), st.sets(st.sampled_from("abc")), st.booleans())
def test_laws_of_deciding(states: list[str], force: set[str], missing: bool) -> None:
    found = whole()
    for name, state in zip("abc", states):
        if state == "absent":
            del found[name]
        elif state != "whole":
            found[name] = Found("odd", {}, "bad" if state == "damaged" else "")
    want = wants(files={"data.train": {"train.jsonl": "" if missing else "f00"}})
    decisions = {one.stage: one for one in decide(CHAIN, want, found, {}, force=force)}
    assert list(decisions) == ["a", "b", "c"]
    for stage in CHAIN:
        one = decisions[stage.name]
        assert one.why and one.key == want[stage.name].key
        if one.action == "reuse":  # only what is there, whole, not forced, and made from what is there now
            assert not missing and stage.name not in force and found[stage.name].damage == ""
            assert not any(decisions[name].why == "forced" for name in stage.reads)
            for name in stage.reads:
                if name in found and not found[name].damage:
                    assert found[stage.name].inputs[name] == found[name].digest
    if missing:
        assert {one.action for one in decisions.values()} == {"blocked"}


# --- the real stages


def test_the_stages_read_only_stages_before_them() -> None:
    names = [stage.name for stage in STAGES]
    assert names == ["scope", "select", "adapt", "evaluate", "unlearn", "integrate"]
    for position, stage in enumerate(STAGES):
        assert set(stage.reads) <= set(names[:position])


def test_a_stage_with_a_condition_is_there_only_where_its_key_is_set() -> None:
    without, whole = stages_of(STAGES, {"unlearn.forget": ""}), stages_of(STAGES, {"unlearn.forget": "forget.jsonl"})
    assert [stage.name for stage in without] == ["scope", "select", "adapt", "evaluate", "integrate"]
    assert "unlearn" not in without[-1].reads and whole[-1].reads == (*without[-1].reads, "unlearn") and whole == STAGES


def test_what_models_are_tried_with_counts_where_several_are_tried() -> None:
    """Four more examples in the prompt are another trial; with one model nothing is tried, and nothing is fetched again."""

    def select_key(models: list[str], examples: int, trial_rows: int = 24) -> str:
        values = {"select.models": models, "select.trial_rows": trial_rows, "adapt.examples": examples}
        return wanted(stages_of(STAGES, values), values, {})["select"].key

    assert select_key(["a", "b"], 4) != select_key(["a", "b"], 8) and select_key([], 4) != select_key([], 8)
    assert select_key(["a"], 4) == select_key(["a"], 8) and select_key(["a", "b"], 4, 0) == select_key(["a", "b"], 8, 0)


def test_every_key_of_the_stages_is_a_key_or_table_of_the_file() -> None:
    known = (
        set(all_keys()) | {key.rpartition(".")[0] for key in all_keys()} | {key.partition(".")[0] for key in all_keys()}
    )
    for stage in STAGES:
        assert {*stage.keys, *stage.without, *stage.files, *stage.tried_with} <= known


NO_RESULT = {
    "project.name", "project.version", "scope.profile", "select.offline", "adapt.method", "adapt.checkpoint_every",
    "adapt.mtbf_hours", "adapt.recompute", "hardware.count", "hardware.strategy", "hardware.sharding_factor", "hardware.tensor_degree",
    "hardware.offload",
    "hardware.watts", "hardware.usd_per_hour",
}  # fmt: skip
"""Keys that change no artifact: they name, plan, price, or say how to get there."""

AFTERWARDS = ("evaluate.", "serve.")
"""Tables of what is asked of a result, and how it is served: no stage reads them."""


def test_every_other_key_versions_some_stage() -> None:
    values = dict.fromkeys(all_keys(), 0)
    versioned = {name for want in wanted(STAGES, values, {}).values() for name in want.fields}
    rest = {key for key in all_keys() if not key.startswith(AFTERWARDS)}
    assert rest - versioned == NO_RESULT and not any(key.startswith(AFTERWARDS) for key in versioned)
