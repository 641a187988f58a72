"""What the gate refuses before it measures anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import Corrupt
from genwright.cli.gate import safety

WHOLE: dict[str, Any] = {
    "quality": {"suite": {"scores": [1.0, 0.0], "rows": ["a", "b"], "lower_is_better": False}}, "safety": {"attack direct": 10.0},
    "handoffs": {"merged": {"passed": True, "told": ""}}, "prompts": [[{"role": "user", "content": "Hello."}]],
    "seconds_per_token": 0.01, "bytes": 1000,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "genwright.toml").write_text(
        '[project]\nname = "x"\n[scope]\ntask = "chat"\n[data]\ntrain = "t.jsonl"\n'
    )
    return tmp_path


def with_(**changes: Any) -> str:
    return json.dumps(WHOLE | changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[" * 50_000, "brackets within brackets"),
        (b"\xff\xfe", "not text in UTF-8"),
        ("[1, 2]", "keys are missing"),
        ("3", "keys are missing"),
        ("{}", "keys are missing"),
        (with_(quality=1), "cannot be compared"),
        (with_(quality={"suite": {"scores": []}}), "cannot be compared"),
        (with_(quality={"suite": {"scores": [], "rows": [], "lower_is_better": False}}), "These are no scores"),
        (with_(safety={"attack direct": "10"}), "cannot be compared"),
        (with_(handoffs={"merged": 1}), "cannot be compared"),
        (with_(bytes="many"), "cannot be compared"),
        (with_(prompts=["Hello."]), "cannot be compared"),
        (with_(prompts=[[{"role": "user", "content": 3}]]), "a prompt is no text"),
    ],
)
def test_a_file_that_is_no_baseline(project: Path, genwright: Callable[..., Any], text: str | bytes, why: str) -> None:
    """A file that was named is a wrong request; the gate's own file that is broken is damage."""
    for name, words, code in (("mine.json", ("--baseline", project / "mine.json"), 2), ("gate.json", (), 1)):
        (project / name).write_bytes(text.encode() if isinstance(text, str) else text)
        ran = genwright("--project", project, "gate", *words)
        assert (
            ran.code == code and f"{name} is no baseline" in ran.err and why in ran.err and "Traceback" not in ran.err
        )


@pytest.mark.parametrize(
    "text", ["{", "[" * 50_000, "3", "{}", '{"attacks": {"direct": 1}}', '{"attacks": {"direct": {"rate": null}}}']
)
def test_a_red_teams_result_that_is_damaged(tmp_path: Path, text: str) -> None:
    assert safety(tmp_path / "redteam.json", "key", print) == {}
    (tmp_path / "redteam.json").write_text(text)
    with pytest.raises(Corrupt, match="is no red team's result"):
        safety(tmp_path / "redteam.json", "key", print)


def test_only_a_campaign_against_this_result_counts(tmp_path: Path) -> None:
    """One against an earlier result would hide that this one was never attacked."""
    campaign = {"attacks": {"direct": {"rate": 5}}, "over_refusal": {"rate": 0}, "result": "key"}
    (tmp_path / "redteam.json").write_text(json.dumps(campaign))
    said: list[str] = []
    assert safety(tmp_path / "redteam.json", "key", said.append) == {"attack direct": 5.0, "over-refusal": 0.0}
    assert not said and safety(tmp_path / "redteam.json", "other", said.append) == {}
    assert "an earlier result and does not count" in said[0]


def test_a_file_that_is_one_is_taken(project: Path, genwright: Callable[..., Any]) -> None:
    (project / "mine.json").write_text(with_())
    ran = genwright("--project", project, "gate", "--baseline", project / "mine.json")
    assert ran.code == 2 and "no result to hold at a gate" in ran.err
