"""`genwright explain`: the table, the page, and that text is never markup."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from genwright.web.explain import render

FAITH = {
    "curves": {"deletion": [1.0, 0.4, 0.0], "insertion": [0.0, 0.7, 1.0]}, "areas": {"deletion": 0.47, "insertion": 0.57},
    "random_areas": {"deletion": 0.5, "insertion": 0.6}, "gain": {"deletion": 0.03, "insertion": -0.03},
}  # fmt: skip
FOUND = {
    "question": "<script>who</script>", "answer": "me", "prompt": ["<script>", "who"], "fixed": [False, False], "score": -1.0,
    "attributions": {"integrated gradients": {"parts": [0.5, -0.1], "incompleteness": 0.01, "faithfulness": FAITH}},
    "tokens": [{"token": "me", "probability": 0.4, "entropy_bits": 1.2, "likeliest": [["me", 0.4], ["you", 0.3]]}],
    "layers": [{"layer": 0, "says": ["x"], "rank": [7], "probability": [0.1]}],
    "rows_faithfulness": {"nearest": {"gradient_cosine": 0.5, "embedding_cosine": 0.1}, "chance": 0.2,
                          "gain": {"gradient_cosine": 0.3, "embedding_cosine": -0.1}},
    "rows": [{"place": "rows.jsonl:2", "text": "<b>r</b>", "gradient_cosine": 0.9, "gradient_dot": 2.0, "embedding_cosine": 0.8}],
    "rows_compared": 1, "rows_in_all": 4,
}  # fmt: skip


def test_what_is_printed_and_written(genwright, fake, tmp_path: Path) -> None:
    room = "genwright.improve.explaining"
    asked = {}
    fake[f"{room}:open_for_explaining"] = lambda name, **more: name
    fake[f"{room}:training_rows"] = lambda base, file: base / file
    fake[f"{room}:explain_answer"] = lambda opened, question, **more: (
        asked.update(more, of=opened, question=question) or FOUND
    )
    ran = genwright("--project", tmp_path, "explain", "who", "--model", "m", "--train", "rows.jsonl")
    assert ran.code == 0 and "insertion -0.03 against chance" in ran.out and "rows.jsonl:2" in ran.out
    assert asked["train"] == tmp_path / "rows.jsonl" and asked["of"] == "m"
    assert json.loads((tmp_path / "explain.json").read_text()) == FOUND
    page = (tmp_path / "explain.html").read_text()
    assert "<script>" not in page and "<b>r" not in page and "Not better than chance by both" in page


def test_classes_on_the_page() -> None:
    page = render(
        {key: value for key, value in FOUND.items() if key not in ("tokens", "layers", "rows", "rows_faithfulness")}
        | {"classes": {"calm": -0.1}}
    )
    assert "0.905" in page and "Layer by layer" not in page


def test_without_a_project(genwright, tmp_path: Path) -> None:
    ran = genwright("--project", tmp_path, "explain", "who")
    assert ran.code == 2 and "genwright.toml" in ran.err


def test_a_projects_result_is_compared_with_what_it_learned_from(genwright, fake, tmp_path: Path) -> None:
    asked: list = []
    fake["genwright.improve.explaining:open_for_explaining"] = lambda name, **more: name
    fake["genwright.improve.explaining:training_rows"] = lambda base, file: asked.append((base, file)) or ["row"]
    fake["genwright.improve.explaining:explain_answer"] = lambda opened, question, **more: (
        asked.append(more["train"]) or FOUND
    )
    fake["genwright.talk:chat_session"] = lambda spec, base: SimpleNamespace(answering="result")
    (tmp_path / "genwright.toml").write_text(
        '[project]\nname = "x"\n[scope]\ntask = "chat"\n[data]\ntrain = "r.jsonl"\n'
    )
    for more in ([], ["--train-rows", "0"], ["--model", "m"]):
        assert genwright("--project", tmp_path, "explain", "who", *more).code == 0
    assert asked == [(tmp_path, ""), ["row"], (), ()]
