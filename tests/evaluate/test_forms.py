"""Forms of suites beyond choosing, writing and reading: code, calls, instructions, retrieval, a judge. Targets say what they are told."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genwright.base.errors import BadRequest, DataError, GenwrightError
from genwright.catalogue.parts import SUITES
from genwright.evaluate import judging
from genwright.evaluate.calls import all_wanted, allowed, calls_in, same, schemas_of
from genwright.evaluate.coding import program_of
from genwright.evaluate.forms import Options, checked
from genwright.evaluate.instructions import RULES, followed, followed_loosely, sentences
from genwright.evaluate.judging import points, verdict_in
from genwright.evaluate.retrieval import ndcg_at, recall_at, reciprocal_rank
from genwright.evaluate.sandbox import run_code

SHARED = Path(__file__).parents[3] / "shared" / "data"


class Told:
    """Replies by a function of the last turn; likelihoods by a function of (context, answer)."""

    name = "told"

    def __init__(
        self, reply: Callable[[str], str] = str, likelihood: Callable[[str, str], float] = lambda *_: 0.0
    ) -> None:
        self.answer, self.nats, self.turns = reply, likelihood, 0

    def reply(self, conversations: Any, options: Options) -> list[str]:
        self.turns += 1
        return [self.answer(talk[-1]["content"]) for talk in conversations]

    def likelihoods(self, pairs: Any) -> list[Any]:
        return [SimpleNamespace(nats=self.nats(*pair)) for pair in pairs]


def run(form: str, target: Any, rows: list[dict], metric: str = "", **own: Any) -> Any:
    made = SUITES[form]
    checked(rows, made, "rows")
    return made.run(target, rows, Options(metric or made.metrics[0], 0, {**made.options, **own}))


# --- code

ADD = {"prompt": "def add(a, b):\n", "entry_point": "add", "tests": "def check(f):\n    assert f(2, 3) == 5"}


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("    return a + b\n", 100), ("```python\ndef add(a, b):\n    return a + b\n```\nIt adds.", 100), ("    return a - b\n", 0),
        ("while True: pass", 0), ("nonsense(", 0), ("", 0),
    ],
)  # fmt: skip
def test_code_is_run_with_its_tests(answer: str, score: float) -> None:
    found = run("code", Told(lambda _: answer), [ADD], seconds=2.0)
    assert found.scores == [score] and found.answers == [answer]
    assert sum(found.also.values()) == 100


def test_pass_at_k_over_several_answers() -> None:
    """One of two answers passes: pass@1 is a half (Chen 2021, eq. 1)."""
    answers = iter(["    return a + b\n", "    return 0\n"])
    target = Told(lambda _: next(answers))
    assert run("code", target, [ADD], "pass@1", samples=2).scores == [50.0] and target.turns == 2
    with pytest.raises(BadRequest, match="pass@k needs k answers"):
        run("code", Told(lambda _: ""), [ADD], "pass@5", samples=1)


def test_an_answer_that_defines_the_function_does_not_continue_the_prompt() -> None:
    assert program_of(ADD, "def add(a, b): return a + b").count("def add(") == 1
    assert program_of({"prompt": "Add.", "tests": "assert add(1, 1) == 2"}, "def add(a, b): return a + b").startswith(
        "def add"
    )


@pytest.mark.parametrize(
    "code",
    [
        "print(open('.program.py').read())\nimport os\nos._exit(0)",
        "import os\nos.write(1, os.urandom(16).hex().encode())\nos._exit(0)",
        "import sys, os\nprint(sys.stdin.read())\nsys.stdout.flush()\nos._exit(0)",
    ],
)
def test_an_answer_cannot_claim_that_it_ended(code: str) -> None:
    assert not run_code(code).passed


# --- calls

TOOLS = [{"name": "area", "parameters": {"type": "dict", "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}},
                                         "required": ["base"]}}]  # fmt: skip
WANTED = [{"area": {"base": [3], "unit": ["cm", ""]}}]


@pytest.mark.parametrize(
    "answer",
    [
        '[{"name": "area", "arguments": {"base": 3}}]', '{"name": "area", "arguments": {"base": 3, "unit": "CM"}}', "area(base=3)",
        "[area(base=3, unit='cm')]", '```json\n[{"name": "area", "parameters": {"base": 3}}]\n```',
        '{"tool_calls": [{"type": "function", "function": {"name": "area", "arguments": "{\\"base\\": 3}"}}]}',
        '<tool_call>{"name": "area", "arguments": {"base": 3.0}}</tool_call>', 'Here: [{"name": "area", "arguments": {"base": 3}}] .',
    ],
)  # fmt: skip
def test_ways_to_write_a_call(answer: str) -> None:
    assert all_wanted(calls_in(answer), WANTED)


@pytest.mark.parametrize(
    "answer",
    [
        "", "I would call area.", "area(base=4)", "area(3)", "other(base=3)", "area(base=3, depth=1)", "area(base=3)\narea(base=3)",
        "area(base=__import__('os'))", "area(base=True)", "[]", "[" * 5000, '{"name": "area"}',
    ],
)  # fmt: skip
def test_what_is_not_the_wanted_call(answer: str) -> None:
    assert not all_wanted(calls_in(answer), WANTED)


def test_no_call_may_be_right() -> None:
    assert (
        all_wanted(calls_in("[]"), []) and all_wanted(calls_in("I cannot."), []) and not all_wanted([("area", {})], [])
    )


def test_several_calls_in_any_order() -> None:
    wanted = [{"f": {"x": [1]}}, {"f": {"x": [2]}}]
    assert all_wanted([("f", {"x": 2}), ("f", {"x": 1})], wanted) and not all_wanted([("f", {"x": 1})] * 2, wanted)


def test_schemas_allow_or_do_not() -> None:
    schemas = schemas_of(TOOLS)
    assert allowed(("area", {"base": 3}), schemas) and not allowed(("area", {"base": "3"}), schemas)
    assert (
        not allowed(("area", {}), schemas)
        and not allowed(("area", {"base": 3, "x": 1}), schemas)
        and not allowed(("b", {}), schemas)
    )


def test_values_that_are_the_same() -> None:
    assert same("San Diego, CA", "san diego CA") and same([1, 2.0], [1.0, 2]) and not same([1], [1, 1])
    assert not same(True, 1) and same({"a": 1}, {"a": [1, 2]}) and not same({"a": 3}, {"a": [1, 2]})


def test_calls_are_scored() -> None:
    rows = [
        {"prompt": "area of base 3", "tools": TOOLS, "calls": WANTED},
        {"prompt": "hello", "tools": TOOLS, "calls": []},
    ]
    found = run("calls", Told(lambda text: "area(base=3)" if "area" in text else "area(base='x')"), rows)
    assert found.scores == [100, 0] and found.also == {"valid": 50}
    with pytest.raises(DataError, match="needs a name"):
        run("calls", Told(), [{"prompt": "a", "tools": [{}], "calls": []}])
    with pytest.raises(DataError, match="right values"):
        run("calls", Told(), [{"prompt": "a", "tools": TOOLS, "calls": [{"f": 1}]}])


@pytest.mark.skipif(not (SHARED / "bfcl_v4").is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("kind", ["simple_python", "multiple", "parallel", "parallel_multiple", "live_simple"])
def test_bfcls_own_answers_are_right(kind: str) -> None:
    """The first right value of every parameter, written as JSON, is the wanted call; with one value spoiled it is not."""
    rows = [
        json.loads(line)["ground_truth"]
        for line in (SHARED / "bfcl_v4" / f"answer_{kind}.jsonl").read_text().splitlines()
    ]
    assert len(rows) > 100
    for wanted in rows:
        made = [{"name": name, "arguments": {key: plain(right[0]) for key, right in arguments.items() if right and right[0] != ""}}
                for call in wanted for name, arguments in call.items()]  # fmt: skip
        assert all_wanted(calls_in(json.dumps(made)), wanted), wanted
        assert not all_wanted(calls_in(json.dumps([*made, {"name": "another", "arguments": {}}])), wanted)


def plain(value: Any) -> Any:
    """A wanted object holds lists of right values too."""
    if isinstance(value, dict):
        return {
            key: plain(right[0]) if isinstance(right, list) and right else right
            for key, right in value.items()
            if right != [""]
        }
    return [plain(one) for one in value] if isinstance(value, list) else value


# --- instructions


def test_there_are_the_25_rules() -> None:
    assert len(RULES) == 25


ANSWERS = [
    "Yes.", "My answer is yes.", "* one\n* two\n- three", "*a* and **b** here", "<<Title>>\n\nText, with a comma. Another one!",
    "ALL IN CAPITALS HERE AND NOW", "all in lower case here and now", '"quoted"', '```json\n{"a": 1}\n```', '{"a": ',
    "First part.\n***\nSecond part.\n***\nThird.", "One answer ****** Another answer", "SECTION 1\nText\nSECTION 2\nText",
    "Write to [name] at [address].\n\nP.S. I like it.", "P.P.S. Once more", "Ceci est une phrase en fran\u00e7ais qui est assez longue.",
    "One.\n\nthe second paragraph.\n\nThird.", "repeat me and then answer", "The end. Is there anything else I can help with?",
    "word word word letter x x x", "Preamble:\nMy answer is no.\nGoodbye, then.", "", "  \n ",
]  # fmt: skip
ASKED = [
    ("keywords:existence", {"keywords": ["word", "letter"]}), ("keywords:frequency", {"keyword": "word", "frequency": 3, "relation": "at least"}),
    ("keywords:frequency", {"keyword": "word", "frequency": 3, "relation": "less than"}),
    ("keywords:forbidden_words", {"forbidden_words": ["yes", "part"]}),
    ("keywords:letter_frequency", {"letter": "x", "let_frequency": 3, "let_relation": "at least"}),
    ("language:response_language", {"language": "fr"}), ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "the"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}), ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}), ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:constrained_response", {}), ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2}), ("detectable_format:json_format", {}),
    ("detectable_format:title", {}), ("combination:two_responses", {}), ("combination:repeat_prompt", {"prompt_to_repeat": "Repeat me"}),
    ("startend:end_checker", {"end_phrase": "Is there anything else I can help with?"}), ("startend:quotation", {}),
    ("change_case:english_capital", {}), ("change_case:english_lowercase", {}), ("punctuation:no_comma", {}),
]  # fmt: skip


@pytest.fixture(scope="module")
def lm_evals(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """lm-eval's rules. They fetch NLTK's data when they are imported: here that is stopped."""
    with pytest.MonkeyPatch.context() as patch:
        nltk = importlib.import_module("nltk")
        patch.setattr(nltk, "download", lambda *_, **__: False)
        patch.setattr(nltk.data, "find", lambda *_, **__: "found")
        import langdetect

        langdetect.DetectorFactory.seed = 0
        return importlib.import_module("lm_eval.tasks.ifeval.utils")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rule", "given"), ASKED)
def test_rules_agree_with_lm_evals(lm_evals: Any, rule: str, given: dict[str, Any]) -> None:
    seen = set()
    for answer in ANSWERS:
        row = {"key": 1, "prompt": "Repeat me", "instruction_id_list": [rule], "kwargs": [given]}
        theirs = lm_evals.process_results(row, [answer])
        ours = followed(answer, rule, given), followed_loosely(answer, rule, given)
        assert ours == (theirs["prompt_level_strict_acc"], theirs["prompt_level_loose_acc"]), answer
        seen.add(ours[0])
    assert seen == {True, False}


def test_rules_that_need_no_data_of_nltk() -> None:

    assert len(sentences("One. Two! Is it three? Yes.")) == 4 and len(sentences("It costs 4.5 dollars.")) == 1
    ask = {"capital_frequency": 2, "capital_relation": "at least"}
    assert followed("We use NASA and IBM here.", "change_case:capital_word_frequency", ask)
    assert not followed("We use NASA here.", "change_case:capital_word_frequency", ask)
    third = {"num_paragraphs": 4, "nth_paragraph": 2, "first_word": "the"}
    assert not followed("One.\n\nthe second.\n\nThird.", "length_constraints:nth_paragraph_first_word", third)
    assert followed("One. Two.", "length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"})


def test_instructions_are_scored() -> None:
    rows = [
        {
            "prompt": "p",
            "instruction_id_list": ["punctuation:no_comma", "detectable_format:title"],
            "kwargs": [{}, {"x": None}],
        }
    ]
    assert run("instructions", Told(lambda _: "No comma"), rows).scores == [0]
    loose = run("instructions", Told(lambda _: "Well, here:\n<<T>> text"), rows, "loose")
    assert loose.scores == [100] and loose.also == {"instruction_strict": 50, "instruction_loose": 100, "strict": 0}
    with pytest.raises(DataError, match="no rule 'x'"):
        run("instructions", Told(), [{"prompt": "p", "instruction_id_list": ["x"], "kwargs": [{}]}])
    with pytest.raises(DataError, match="one object for each"):
        run("instructions", Told(), [{"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}])


# --- retrieval


def test_ranking_scores_by_sklearn_and_by_hand() -> None:
    from sklearn.metrics import ndcg_score

    order, relevant = [3, 0, 2, 1, 4], [0, 1]
    gains, scores = [[1, 1, 0, 0, 0]], [[-order.index(number) for number in range(5)]]
    for k in (1, 2, 4, 5):
        assert ndcg_at(order, relevant, k) == pytest.approx(100 * ndcg_score(gains, scores, k=k))
    assert (recall_at(order, relevant, 2), recall_at(order, relevant, 4)) == (50, 100)
    assert reciprocal_rank(order, relevant) == 50


def test_documents_are_ordered_by_how_likely_they_make_the_question() -> None:
    row = {"query": "crane", "documents": ["a ship", "a crane bird", "a stone"], "relevant": [1]}
    knows, same_of_all = Told(likelihood=lambda before, _: float("crane" in before)), Told()
    assert run("retrieval", knows, [row], "recall@1").scores == [100]
    assert run("retrieval", same_of_all, [row], "recall@1").scores == [0]  # a tie is no gift
    assert run("retrieval", same_of_all, [row], "mrr").scores == [pytest.approx(100 / 3)]
    for wrong in ({"documents": []}, {"documents": ["a", ""]}, {"relevant": [7]}, {"relevant": []}):
        with pytest.raises(DataError, match="documents"):
            run("retrieval", knows, [row | wrong])


# --- a judge


@pytest.mark.parametrize(
    ("reply", "verdict"), [("[[A]]", "A"), ("I think [[B]].", "B"), ("[[A]] or [[B]]", None), ("A", None), ("", None)]
)
def test_a_judges_word(reply: str, verdict: str | None) -> None:
    assert verdict_in(reply) == verdict


def test_a_win_counts_only_in_both_places() -> None:
    assert points("A", "B") == 100 and points("B", "A") == 0 and points("A", "A") == 50 and points("C", "C") == 50
    assert points(None, "A") is None and points("A", None) is None


def test_a_judge_that_talks_nonsense_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Judge:
        name = "judge"

        def replies(self, asked: Any) -> list[str]:
            texts = [talk[0]["content"] for talk in asked]
            return ["hm" if "Request: r1" in text else "[[A]]" if "A: good" in text else "[[B]]" for text in texts]

    monkeypatch.setattr(judging, "Endpoint", lambda *_, **__: Judge())
    rows = [{"prompt": f"r{n}", "reference": "bad"} for n in range(3)]
    found = run("judge", Told(lambda _: "good"), rows, judge="http://j")
    assert found.weights == [1, 0, 1] and found.scores[0] == found.scores[2] == 100
    assert found.also == {"unjudged": pytest.approx(100 / 3), "draws": 0}
    with pytest.raises(GenwrightError, match="judged no row"):
        run("judge", Told(lambda _: "good"), rows[1:2], judge="http://j")
    with pytest.raises(BadRequest, match="needs a judge"):
        run("judge", Told(), rows)
