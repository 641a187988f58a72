"""Suites: what is refused before anything is asked, what is said, and when one system is called better."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from genwright.base.errors import BadRequest, DataError, GenwrightError, UnknownName
from genwright.catalogue.parts import SUITES
from genwright.evaluate.forms import Form, Options, Scored
from genwright.evaluate.score import Likelihood
from genwright.evaluate.suites import Suite, detectable, evaluate, foretold, over_seeds, read_suites, stripped, suite_of

CHOICE = {"prompt": "Two and two are", "choices": ["four", "twenty two"], "answer": 0}
WRITTEN = {"prompt": "a", "reference": "b", "kind": "x"}


class Fixed:
    """Answers by rule, and counts how often it was asked."""

    def __init__(self, name: str, right: Sequence[bool] = (True,), nats: Sequence[float] = ()) -> None:
        self.name, self.right, self.nats = name, right, nats
        self.asked: list[Options] = []
        self.closed = 0

    def reply(self, conversations: Any, options: Options) -> list[str]:
        self.asked.append(options)
        return ["b" if self.right[n % len(self.right)] else "c" for n, _ in enumerate(conversations)]

    def continuations(self, texts: Any, stops: Any, max_tokens: int) -> list[str]:
        return [f"b{text}|{stops}|{max_tokens}" for text in texts]

    def likelihoods(self, pairs: Any) -> list[Likelihood]:
        self.pairs = list(pairs)
        return [Likelihood(self.nats[n % len(self.nats)], False) for n, _ in enumerate(pairs)]

    def rolling(self, texts: Any) -> list[float]:
        return [self.nats[n % len(self.nats)] for n, _ in enumerate(texts)]

    def close(self) -> None:
        self.closed += 1


class Address(Fixed):
    does = ("reply",)


def write(folder: Path, rows: list[Any], **keys: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"form": "generation", "file": "rows.jsonl", **keys}
    path = folder / "own.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items()))
    return path


def made(folder: Path, rows: list[Any], **keys: Any) -> Suite:
    return read_suites(write(folder, rows, **keys))[0]


def test_a_choice_is_made_by_likelihood_and_by_likelihood_of_a_character(tmp_path: Path) -> None:
    target = Fixed("a", nats=(-5.0, -11.0))  # "four" -5/4 = -1.25, "twenty two" -11/10 = -1.1
    found = {
        metric: evaluate([made(tmp_path, [CHOICE], form="choice", metric=metric)], [target], say=len)["suites"][0]
        for metric in ("acc", "acc_norm")
    }
    assert found["acc"]["systems"]["a"]["value"] == 100 and found["acc_norm"]["systems"]["a"]["value"] == 0
    assert found["acc"]["systems"]["a"]["also"] == {"acc_norm": 0.0}
    assert found["acc_norm"]["systems"]["a"]["answers"] == ["twenty two"]
    assert target.pairs == [("Two and two are", " four"), ("Two and two are", " twenty two")] and target.closed == 2


def test_bits_of_texts_are_weighed_by_their_bytes(tmp_path: Path) -> None:
    suite = made(tmp_path, [{"text": "aé"}, {"text": "one two\n"}], form="perplexity")
    one = evaluate([suite], [Fixed("a", nats=(-3.0, -4.0))], say=len)["suites"][0]["systems"]["a"]
    assert one["value"] == pytest.approx(7 / 11 / math.log(2)) == pytest.approx(one["also"]["bits_per_byte"])
    assert one["also"]["word_perplexity"] == pytest.approx(
        math.exp(7 / 4)
    )  # lm-eval counts what follows the line break
    assert one["also"]["byte_perplexity"] == pytest.approx(math.exp(7 / 11))


def test_better_is_said_only_where_the_interval_and_the_corrected_p_say_so(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN] * 40)
    half, most, alike = (
        Fixed("half", (True, False)),
        Fixed("most", (True, True, True, False)),
        Fixed("alike", (False, True)),
    )
    found = evaluate([suite], [half, most, alike], say=len)
    assert [one["verdict"] for one in found["comparisons"]] == ["better", "no difference shown"]
    better = found["comparisons"][0]
    assert (better["before"], better["after"], better["difference"]) == ("half", "most", 25.0)
    assert better["p_value"] == pytest.approx(2 * 0.5**10) and better["p_holm"] == pytest.approx(4 * 0.5**10)
    turned = evaluate([suite], [most, half], say=len)["comparisons"][0]
    assert turned["verdict"] == "worse" and turned["high"] < 0


def test_holm_takes_back_what_one_test_alone_would_have_said(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN] * 12)
    none = Fixed("none", (False,))
    some = [Fixed(f"s{n}", tuple(i < 6 for i in range(12))) for n in range(3)]  # p = 2 / 64 each
    found = evaluate([suite], [none, *some], say=len)["comparisons"]
    assert [round(one["p_value"], 5) for one in found] == [0.03125] * 3 and {one["verdict"] for one in found} == {
        "no difference shown"
    }
    assert evaluate([suite], [none, some[0]], say=len)["comparisons"][0]["verdict"] == "better"


def test_less_is_better_where_surprise_is_measured(tmp_path: Path) -> None:
    suite = made(tmp_path, [{"text": "abcd" * (n % 3 + 1)} for n in range(30)], form="perplexity")
    found = evaluate([suite], [Fixed("a", nats=(-9.0, -11.0)), Fixed("b", nats=(-5.0, -7.0))], say=len)
    assert found["comparisons"][0]["verdict"] == "better" and found["comparisons"][0]["difference"] < 0
    assert found["suites"][0]["lower_is_better"]


def test_groups_are_resampled_whole(tmp_path: Path) -> None:
    rows = [{**WRITTEN, "kind": str(n // 10)} for n in range(40)]
    target = Fixed("a", [True] * 10 + [False] * 10)
    width = lambda one: one["high"] - one["low"]
    alone, grouped = (
        evaluate([made(tmp_path, rows, **keys)], [target], say=len)["suites"][0] for keys in ({}, {"group": "kind"})
    )
    assert width(grouped["systems"]["a"]) > 1.5 * width(alone["systems"]["a"])
    assert grouped["minimum_detectable_difference"] == pytest.approx(
        2 * alone["minimum_detectable_difference"] * math.sqrt(2.5)
    )


def test_groups_count_in_comparisons(tmp_path: Path) -> None:
    rows = [{**WRITTEN, "kind": str(n // 10)} for n in range(40)]
    two = [Fixed("a", [True] * 10 + [False] * 10), Fixed("b")]
    alone, grouped = (
        evaluate([made(tmp_path, rows, **keys)], two, say=len)["comparisons"][0] for keys in ({}, {"group": "kind"})
    )
    assert (alone["test"], alone["verdict"]) == ("mcnemar-exact", "better")
    assert (grouped["test"], grouped["verdict"]) == ("sign-flip", "no difference shown")  # two groups of four changed


def test_rows_that_only_one_system_was_judged_on_are_not_compared(tmp_path: Path) -> None:
    """Rows that count for nothing in one of two systems, as an unjudged answer does, count for nothing in their comparison."""
    judgements = {
        "a": ([100.0, 0.0, 50.0], [1.0, 1.0, 0.0]), "b": ([50.0, 100.0, 100.0], [0.0, 1.0, 1.0]),
        "c": ([50.0, 50.0, 0.0], [0.0, 0.0, 1.0]),
    }  # fmt: skip
    run = lambda target, rows, options: Scored(judgements[target.name][0], weights=judgements[target.name][1])
    form = Form("own", {"prompt": str}, ("preferred",), run)
    suite = Suite("s", form, [WRITTEN] * 3, "preferred", {}, None, 1)
    found = evaluate([suite], [Fixed(name) for name in judgements], say=lambda text: None)
    assert [system["n"] for system in found["suites"][0]["systems"].values()] == [2, 2, 1]
    one, other = found["comparisons"]
    assert (one["n"], one["difference"]) == (1, 100.0)
    assert (other["n"], other["test"], other["verdict"]) == (0, "no row counts in both", "no difference shown")


def test_a_row_counts_in_the_seeds_that_judged_it() -> None:
    runs = [Scored([100.0, 50.0, 50.0], weights=[1.0, 0.0, 0.0]), Scored([50.0, 20.0, 50.0], weights=[0.0, 1.0, 0.0])]
    assert over_seeds(runs) == ([100.0, 20.0, 50.0], [0.5, 0.5, 0.0])
    assert over_seeds([Scored([100.0]), Scored([0.0])]) == ([50.0], None)


def test_what_can_be_seen_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    target = Fixed("a")
    said: list[tuple[str, int]] = []
    suite = made(tmp_path, [WRITTEN] * 100)
    evaluate([suite], [target], say=lambda text: said.append((text, len(target.asked))))
    assert said == [
        ("own: 100 rows, exact-match; a true difference below 14.0 points will mostly not be seen", 0),
        ("a on own: 100.00", 1),
    ]
    assert "no percentage" in foretold(made(tmp_path, [{"text": "a"}], form="perplexity"))
    assert detectable(suite) == pytest.approx(14.0079, abs=1e-3)


def test_seeds_are_repeated_and_their_spread_told(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN] * 4, temperature=0.5, seeds=3)
    target = Fixed("a", (True, False))
    one = evaluate([suite], [target], seed=7, say=len)["suites"][0]
    assert [asked.seed for asked in target.asked] == [7, 8, 9] and one["seeds"] == 3
    assert one["systems"]["a"]["per_seed"] == [50.0] * 3 and one["systems"]["a"]["seed_spread"] == 0
    assert read_suites(write(tmp_path, [WRITTEN], temperature=0.5), seeds=4)[0].seeds == 4
    assert read_suites(write(tmp_path, [WRITTEN]), seeds=4)[0].seeds == 1
    with pytest.raises(BadRequest, match="seeds = 2 has no effect"):
        made(tmp_path, [WRITTEN], seeds=2)


def test_plain_texts_are_continued_where_chat_is_off(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN], chat=False, stops=["x"], max_tokens=5)
    assert evaluate([suite], [Fixed("a")], say=len)["suites"][0]["systems"]["a"]["answers"] == ["ba|['x']|5"]
    with pytest.raises(BadRequest, match="no plain text"):
        evaluate(
            [made(tmp_path, [{**WRITTEN, "prompt": [{"role": "user", "content": "a"}]}], chat=False)],
            [Fixed("a")],
            say=len,
        )


def test_a_reply_is_cut_at_a_stop(tmp_path: Path) -> None:
    target = Fixed("a")
    target.reply = lambda conversations, options: ["b\nmore"] * len(conversations)  # type: ignore[method-assign]
    suite = made(tmp_path, [WRITTEN], stops=["\n"], metric="chrf")
    found = evaluate([suite], [target], say=len)["suites"][0]["systems"]["a"]
    assert found["answers"] == ["b"] and found["value"] == 100 == found["also"]["corpus"]


def test_answers_that_did_not_come_are_counted(tmp_path: Path) -> None:
    target = Fixed("a")
    target.reply = lambda conversations, options: ["", "b", ""]  # type: ignore[method-assign]
    one = evaluate([made(tmp_path, [WRITTEN] * 3)], [target], say=len)["suites"][0]["systems"]["a"]
    assert one["also"] == {"empty": 2.0} and one["value"] == pytest.approx(100 / 3)


def test_the_suites_on_the_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    shown = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
    suites = [block for block in shown if "form" in block]
    assert suites and all(
        set(block["evaluate"]) == {"suites", "baseline", "seeds"} for block in shown if "form" not in block
    )
    for block in suites:
        (tmp_path / block["file"]).write_text(json.dumps({**WRITTEN, "topic": "x"}) + "\n")
        assert suite_of({"name": "shown", **block}, tmp_path, "page").own["stops"] == ["\n"]


def test_what_is_printed_has_no_answers(tmp_path: Path) -> None:
    found = evaluate([made(tmp_path, [WRITTEN])], [Fixed("a")], say=len)
    assert "answers" in found["suites"][0]["systems"]["a"]
    assert not {"answers", "scores"} & set(stripped(found)["suites"][0]["systems"]["a"])


def test_a_file_may_have_several_suites(tmp_path: Path) -> None:
    write(tmp_path, [WRITTEN])
    (tmp_path / "two.toml").write_text('[[suite]]\nform = "generation"\nfile = "rows.jsonl"\n' * 2)
    assert [suite.name for suite in read_suites(tmp_path / "two.toml")] == ["two-1", "two-2"]
    (tmp_path / "mixed.toml").write_text('form = "choice"\n[[suite]]\nfile = "rows.jsonl"\n')
    with pytest.raises(BadRequest, match="nothing stands beside them"):
        read_suites(tmp_path / "mixed.toml")


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        ([{"prompt": "a"}], {}, "row 1: the field 'reference' is missing.*wanted: prompt \\+ reference"),
        ([WRITTEN, {"prompt": "a", "reference": 3}], {}, "row 2: 'reference' is int.*wanted: text"),
        ([{**CHOICE, "answer": True}], {"form": "choice"}, "'answer' is bool.*wanted: a whole number"),
        ([{**CHOICE, "answer": 2}], {"form": "choice"}, "'answer' 2 is the number of no choice"),
        ([{**CHOICE, "answer": -1}], {"form": "choice"}, "'answer' -1 is the number of no choice"),
        ([{**CHOICE, "choices": ["a"]}], {"form": "choice"}, "needs two texts or more"),
        ([{**CHOICE, "choices": ["a", ""]}], {"form": "choice"}, "none of them empty"),
        ([{"text": ""}], {"form": "perplexity"}, "'text' is empty"),
        ([], {}, "is empty: it has no rows"),
        ([[1]], {}, "rows.jsonl, row 1: this is no JSON object"),
        ([WRITTEN], {"group": "colour"}, "row 1 has no field 'colour' to group by"),
        ([WRITTEN], {"file": "other.jsonl"}, "There is no file .*other.jsonl"),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, rows: list[Any], keys: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        made(tmp_path, rows, **keys)


def test_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "reference": "b"}\n\n{"prompt\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:3: this is not JSON"):
        read_suites(tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"metric": "acc"}, "there is no metric 'acc' for generation"),
        ({"metric": "chr"}, "did you mean 'chrf'"),
        ({"metric": "ndcg"}, "the metric 'ndcg' does not fit the form generation"),
        ({"form": "choice", "metric": "bleu"}, "'bleu' does not fit the form choice.*wanted: one of acc, acc_norm"),
        ({"max_token": 3}, "form generation has no 'max_token'"),
        ({"max_tokens": "3"}, "max_tokens has a value of the wrong type"),
        ({"max_tokens": True}, "max_tokens has a value of the wrong type"),
        ({"seeds": 1.5}, "seeds has a value of the wrong type"),
        ({"file": ""}, "'file' is missing"),
        ({"seeds": 0}, "seeds = 0 has no effect"),
    ],
)
def test_suites_that_mean_nothing(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=f"(?s){said}"):
        made(tmp_path, [WRITTEN], **keys)


def test_a_form_nobody_knows_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"(?s)There is no suite form 'choise'.*did you mean 'choice'") as caught:
        made(tmp_path, [WRITTEN], form="choise")
    assert caught.value.exit_code == 2
    with pytest.raises(BadRequest, match="There is no suite"):
        read_suites(tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_text("form = \n")
    with pytest.raises(BadRequest, match=r"bad\.toml is not TOML"):
        read_suites(tmp_path / "bad.toml")


def test_an_address_is_not_asked_for_likelihoods(tmp_path: Path) -> None:
    remote = Address("far")
    for keys, rows in (
        ({"form": "choice"}, [CHOICE]),
        ({"form": "perplexity"}, [{"text": "a"}]),
    ):
        with pytest.raises(BadRequest, match="far only writes"):
            evaluate([made(tmp_path, rows, **keys)], [remote], say=len)
    assert evaluate([made(tmp_path, [WRITTEN])], [remote], say=len)["suites"][0]["systems"]["far"]["value"] == 100


def test_names_must_differ_and_there_must_be_some(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN])
    with pytest.raises(BadRequest, match="Two systems have the same name"):
        evaluate([suite], [Fixed("a"), Fixed("a")], say=len)
    with pytest.raises(BadRequest, match="Two suites have the same name"):
        evaluate([suite, suite], [Fixed("a")], say=len)
    with pytest.raises(BadRequest, match="nothing to judge"):
        evaluate([suite], [], say=len)


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan]])
def test_a_form_that_loses_rows_is_found_out(scores: list[float]) -> None:
    form = Form("odd", {}, ("m",), lambda target, rows, options: Scored(scores))
    with pytest.raises(GenwrightError, match="did not score every row"):
        evaluate([Suite("s", form, [{}, {}], "m")], [Fixed("a")], say=len)


def test_the_first_rows_only(tmp_path: Path) -> None:
    suite = made(tmp_path, [WRITTEN, {**WRITTEN, "kind": "y"}], group="kind")
    assert (suite.first(1).units, suite.first(0).units, len(suite.first(1).rows)) == (1, 2, 1)


def test_every_form_has_options_it_can_check() -> None:
    for name in SUITES:
        form = SUITES[name]
        assert form.name == name and set(form.asks) <= {"reply", "continuations", "likelihoods", "rolling"}
