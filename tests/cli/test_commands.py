"""report, chat, estimate, data, doctor: what they ask of the other rooms and what they answer."""

from __future__ import annotations

import inspect
import io
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genwright.base.registry import resolve
from genwright.cli import data, doctor, estimate
from genwright.cli.sheet import words
from genwright.models.cards import read_card

# --- report -----------------------------------------------------------------------------------------------------------


def test_report_writes_a_page_into_the_project(genwright, finished: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("report", "--project", finished)
    assert ran.code == 0, ran.err
    assert (finished / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(finished / "report.html") in ran.out


def test_beside_the_page_goes_the_card_of_what_was_made(genwright, finished: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The hub's format: a YAML block that names the metrics, then what was planned beside what was measured."""
    ran = genwright("report", "--project", finished, "--out", tmp_path / "page.html")
    assert "model-card.md" in ran.out.replace("\n", "")
    card = read_card((tmp_path / "model-card.md").read_text(encoding="utf-8"))
    assert card.metadata["library_name"] == "transformers" and card.metadata["metrics"]
    assert "Planned and measured" in (tmp_path / "model-card.md").read_text(encoding="utf-8")


def test_report_goes_where_it_is_told(genwright, finished: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    genwright("report", "--project", finished, "--out", tmp_path / "here.html")
    assert (tmp_path / "here.html").exists() and not (finished / "report.html").exists()


def test_report_json_has_the_ratios_and_writes_no_page(genwright, finished: Path) -> None:  # type: ignore[no-untyped-def]
    facts = genwright("report", "--project", finished, "--json").json()
    peak = facts["planned_measured"]["lora"][0]
    assert peak["key"] == "train_peak_bytes" and peak["ratio"] == pytest.approx(2.36 / 2.31) and peak["within"] is True
    assert facts["summaries"]["adapt"]["chosen"] == "lora"
    assert not (finished / "report.html").exists()


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_nothing_to_report_is_a_wrong_request(genwright, begun: Path, flags: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("report", "--project", begun, *flags)
    assert ran.code == 2 and ran.out == "" and "nothing to report" in ran.err and "genwright apply" in ran.err


# --- chat -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def session(fake: dict[str, Any]) -> dict[str, Any]:
    """A model that answers with how much it was told; `seen` keeps what it was asked."""
    seen: dict[str, Any] = {"asked": []}

    class Session:
        def reply(self, messages: list[dict[str, str]], *, temperature: float) -> str:
            seen["asked"].append(messages)
            seen["temperature"] = temperature
            return f"answer {len(messages)}"

        def replies(self, conversations: list[list[dict[str, str]]], *, temperature: float, progress: Any) -> list[str]:
            progress(len(conversations), len(conversations))
            return [self.reply(messages, temperature=temperature) for messages in conversations]

    def chat_session(spec: Any, base: Path, at: str | None = None) -> Session:
        seen.update(at=at, spec=spec)
        return Session()

    fake["genwright.talk:chat_session"] = chat_session
    return seen


def test_one_question_gets_one_answer(genwright, session, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("chat", "--project", begun, "--ask", "hello", "--system", "be brief", "--at", "lora")
    assert (ran.code, ran.out) == (0, "answer 2\n")
    assert session["asked"] == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]]
    assert session["at"] == "lora"


def test_the_answer_as_json(genwright, session, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("chat", "--project", begun, "--ask", "hi", "--json")
    assert ran.json() == {"question": "hi", "answer": "answer 1"}


def test_temperature_and_length_can_be_changed(genwright, session, begun: Path) -> None:  # type: ignore[no-untyped-def]
    genwright("chat", "--project", begun, "--ask", "hi")
    assert session["temperature"] == 0.0 and session["spec"].adapt.max_new_tokens == 96
    genwright("chat", "--project", begun, "--ask", "hi", "--temperature", "0.7", "--set", "adapt.max_new_tokens=5")
    assert session["temperature"] == 0.7 and session["spec"].adapt.max_new_tokens == 5


def test_a_conversation_remembers_until_new(genwright, session, begun: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n/new\nthree\n/quit\nfour\n"))
    ran = genwright("chat", "--project", begun)
    assert ran.out == "answer 1\nanswer 3\nanswer 1\n"
    assert [len(messages) for messages in session["asked"]] == [1, 3, 1]


def test_a_conversation_ends_with_its_input(genwright, session, begun: Path, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("sys.stdin", io.StringIO("one"))
    assert genwright("chat", "--project", begun).code == 0


def test_a_file_of_questions_is_answered_in_order(genwright, session, begun: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file, out = tmp_path / "questions.txt", tmp_path / "answers.jsonl"
    chat = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    }
    file.write_text(f'plain\u2028text\n\n{{"prompt": "from a table"}}\n{json.dumps(chat)}\n')
    ran = genwright("chat", "--project", begun, "--file", file, "--out", out)
    assert ran.code == 0 and f"Wrote 3 answers to {out}." in ran.out and "3/3 questions" in ran.err
    assert [json.loads(line) for line in out.read_text().split("\n") if line] == [
        {"prompt": "plain\u2028text", "prediction": "answer 1"},
        {"prompt": "from a table", "prediction": "answer 1"},
        {"prompt": "c", "prediction": "answer 3"},
    ]
    assert len(genwright("chat", "--project", begun, "--file", file, "--json").json()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n{broken\n", "questions.txt:2: this is not JSON."),
        (b'{"question": "x"}\n', "questions.txt:1: there is no question."),
        (b"\n", "has no questions."),
        (b"\xff\xfe", "cannot be read as text."),
    ],
)
def test_a_wrong_file_of_questions_is_an_error(  # type: ignore[no-untyped-def]
    genwright, session, begun: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "questions.txt"
    file.write_bytes(content)
    ran = genwright("chat", "--project", begun, "--file", file)
    assert ran.code == 2 and message in ran.err and ran.out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--json",), "A conversation has no JSON."),
        (("--ask", "x", "--file", "y"), "--ask and --file are two ways to ask."),
        (("--ask", "x", "--out", "y"), "--out is for the answers to --file."),
    ],
)
def test_options_that_mean_nothing_together_are_refused(  # type: ignore[no-untyped-def]
    genwright, begun: Path, flags: tuple[str, ...], message: str
) -> None:
    ran = genwright("chat", "--project", begun, *flags)
    assert ran.code == 2 and message in ran.err


# --- estimate and data ------------------------------------------------------------------------------------------------


def test_estimate_shows_ranges(genwright, fake, recorded: ModuleType) -> None:  # type: ignore[no-untyped-def]
    asked: dict[str, Any] = {}

    def estimate_model(model: str, **options: Any) -> dict[str, Any]:
        asked.update(options)
        return {"model": model, "device": "this machine", "recipe": {}, "planned": recorded.PLANNED}

    fake["genwright.outlook:estimate_model"] = estimate_model
    ran = genwright("estimate", "smollm2-135m", "--adapter", "full", "--steps", "9", "--watts", "65")
    assert ran.code == 0
    assert "smollm2-135m, full, on this machine" in ran.out and "2.2 GiB to 2.5 GiB" in ran.out
    assert (asked["adapter"], asked["steps"], asked["watts"], asked["usd_per_hour"]) == ("full", 9, 65.0, None)
    assert genwright("estimate", "m", "--json").json()["planned"] == recorded.PLANNED


def test_estimate_asks_for_what_there_is_to_ask() -> None:
    taken = set(inspect.signature(resolve("genwright.outlook:estimate_model")).parameters)
    assert set(estimate.NAMES) | {"name", "base"} == taken


@pytest.fixture
def looked(fake: dict[str, Any], recorded: ModuleType) -> list[Any]:
    """What was looked at: [path, options]."""
    asked: list[Any] = []

    def look_at_data(path: Path, **options: Any) -> dict[str, Any]:
        asked[:] = [path, options]
        return recorded.LOOK

    fake["genwright.outlook:look_at_data"] = look_at_data
    return asked


def test_data_show_looks_at_a_file(genwright, looked, recorded: ModuleType) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("data", "show", "rows.csv", "--column", "prompt=question", "--format", "prompt/completion")
    assert ran.code == 0 and "⟦az vm stop" in ran.out and "331 tokens" in ran.out
    path, options = looked
    assert path == Path("rows.csv") and options["model"] == data.EMBEDDED
    assert options["columns"] == {"prompt": "question"} and options["format"] == "prompt/completion"
    assert genwright("data", "show", "rows.csv", "--json").json() == recorded.LOOK


def test_data_show_without_a_file_looks_at_the_project(genwright, looked, begun: Path) -> None:  # type: ignore[no-untyped-def]
    assert genwright("data", "show", "--project", begun).code == 0
    assert looked[0] == begun / "train.jsonl" and looked[1]["format"] == "auto"


def test_data_asks_for_what_there_is_to_ask(genwright, looked) -> None:  # type: ignore[no-untyped-def]
    genwright("data", "show", "rows.csv")
    inspect.signature(resolve("genwright.outlook:look_at_data")).bind(looked[0], **looked[1])


@pytest.mark.parametrize("pair", ["prompt", "=question", "prompt="])
def test_a_column_needs_both_names(genwright, pair: str) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("data", "show", "rows.csv", "--column", pair)
    assert ran.code == 2 and "A column is not said right." in ran.err and repr(pair) in ran.err


# --- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_tells_of_this_machine(genwright) -> None:  # type: ignore[no-untyped-def]
    facts = genwright("doctor", "--json").json()
    assert facts["cores"] >= 1 and facts["memory_bytes"] > 2**28 and facts["disk_free_bytes"] > 0
    assert facts["packages"]["torch"] and facts["hub"] is None


def test_doctor_gives_the_command_for_what_is_missing(genwright, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(doctor, "installed", lambda name: None if name in ("peft", "pyarrow") else "1.0")
    ran = genwright("doctor")
    assert ran.code == 1
    assert "needed: the package 'peft' is missing\n  do: pip install peft" in ran.out
    assert (
        "optional: the extra 'parquet' is not installed (Parquet and saved data sets)\n  do: pip install 'genwright[parquet]'"
        in ran.out
    )


def test_only_what_is_optional_missing_is_no_failure(genwright, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "pyarrow" else "1.0")
    assert genwright("doctor").code == 0


def test_doctor_knows_every_package_that_we_declare() -> None:
    """The oracle is pyproject.toml: what `pip install` brings, and what each extra brings on top."""
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = lambda lines: {re.split(r"[><=;\[ ]", line)[0] for line in lines}
    extras = {extra: names(lines) for extra, lines in declared["optional-dependencies"].items() if extra != "dev"}
    assert set(doctor.NEEDED) == names(declared["dependencies"])
    assert doctor.EXTRAS.keys() == doctor.PURPOSES.keys() == extras.keys()
    core = names(declared["dependencies"]) | {"uvloop"}  # uvloop is not for every system
    assert {extra: set(packages) for extra, packages in doctor.EXTRAS.items()} == {
        extra: packages - core for extra, packages in extras.items()
    }


def test_doctor_asks_the_hub_only_when_told(genwright, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    asked: list[str] = []
    monkeypatch.setattr(doctor, "reachable", lambda address: bool(asked.append(address)))
    assert genwright("doctor").code == 0 and asked == []
    ran = genwright("doctor", "--online")
    assert asked == [doctor.HUB] and "cannot be reached" in ran.out and "folder:, gguf: or wheel:" in ran.out


def test_online_and_offline_contradict(genwright) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("doctor", "--online", "--offline")
    assert ran.code == 2 and "--online and --offline contradict each other." in ran.err


def test_the_hub_is_unreachable_where_nobody_listens() -> None:
    assert doctor.reachable("http://127.0.0.1:9") is False


@pytest.mark.parametrize("value", ["", "/somewhere/else"])
def test_doctor_looks_where_models_are_kept(monkeypatch: Any, value: str) -> None:
    monkeypatch.setenv("GENWRIGHT_CACHE", value)
    assert doctor.cache_folder() == resolve("genwright.models.sources:cache_folder")()


def test_little_disk_is_said() -> None:
    facts = {"packages": {}, "extras": {}, "disk_free_bytes": 2**30, "hub": None}
    (problem,) = doctor.problems(facts)
    assert "1 GiB free" in problem["what"] and "GENWRIGHT_CACHE" in problem["do"]


def test_cpu_features_are_read_as_whole_words(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2x avx512f amx_bf16\n\nprocessor\t: 1\n")
    assert doctor.cpu_features(file) == ["avx512f", "amx_bf16"]
    assert doctor.cpu_features(tmp_path / "absent") == []


# --- the sheet of a record --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not known"), ("", "not known"), ((), "not known"), ({}, "not known"), (0, "0"), (False, "False"),
        (134515008, "134,515,008"), (2048, "2048"), (("en", "de"), "en, de"), ({"layers": 30}, "layers: 30"),
        ([{"suite": "x", "score": 3}, {"suite": "y", "score": 4}], "suite x, score 3\nsuite y, score 4"),
    ],
)  # fmt: skip
def test_a_blank_is_not_known_and_a_zero_is_zero(value: Any, shown: str) -> None:
    assert words(value) == shown


# --- status and clean -------------------------------------------------------------------------------------------------


def test_status_of_a_project_that_was_not_applied(genwright, begun: Path) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("status", "--project", begun)
    assert ran.code == 0, ran.err
    assert "to do" in ran.out and "genwright apply" in ran.out
    facts = genwright("status", "--project", begun, "--json").json()
    assert facts["done"] is False and [one["stage"] for one in facts["stages"]] == [
        "scope", "select", "adapt", "evaluate", "integrate",
    ]  # fmt: skip
    assert not (begun / ".genwright" / "artifacts").exists()


def test_status_tells_the_scores_of_what_was_applied(genwright, finished: Path) -> None:  # type: ignore[no-untyped-def]
    (finished / "train.jsonl").write_text("{}\n")
    ran = genwright("status", "--project", finished)
    assert "The target of 35 was met by lora." in ran.out and "50.7 (45.9 to 55.5)" in ran.out


def test_status_says_what_can_be_resumed(genwright, begun: Path) -> None:  # type: ignore[no-untyped-def]
    spec = resolve("genwright.project.spec:read_spec")(begun / "genwright.toml")
    scope = resolve("genwright.project.apply:decide_project")(spec, begun)[0]
    work = resolve("genwright.project.store:Store")(begun / ".genwright").work("scope", scope.key)
    (work / "half.txt").write_text("x")
    assert genwright("status", "--project", begun, "--json").json()["stages"][0]["state"] == "to resume"


def test_clean_removes_nothing_without_yes(genwright, finished: Path) -> None:  # type: ignore[no-untyped-def]
    (finished / "train.jsonl").write_text("{}\n")
    listed = genwright("clean", "--project", finished)
    assert listed.code == 0, listed.err
    assert "Nothing was removed: add --yes." in listed.out and "made for other settings" in listed.out
    assert len(list((finished / ".genwright" / "artifacts").glob("*/*"))) == 5
    facts = genwright("clean", "--project", finished, "--yes", "--json").json()
    assert facts["removed"] is True and len(facts["things"]) == 5 and facts["bytes"] > 1000
    assert list((finished / ".genwright" / "artifacts").glob("*/*")) == []
    assert "There is nothing to remove." in genwright("clean", "--project", finished).out
