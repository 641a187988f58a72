"""The front door: help without weight, one sentence and one code for every error."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genwright.base import errors
from genwright.cli import EXIT_CODES, VERBS, main, verb_parser


def in_a_process(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "genwright", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def raising(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_help_names_every_verb_and_exit_code(genwright) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("--help")
    assert ran.code == 0 and ran.err == ""
    assert all(f"  {verb} " in ran.out and text in ran.out for verb, text in VERBS.items())
    assert EXIT_CODES in ran.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(genwright, verb: str) -> None:  # type: ignore[no-untyped-def]
    ran = genwright(verb, "--help")
    assert ran.code == 0 and ran.err == ""
    assert f"usage: genwright {verb}" in ran.out
    assert "--json" in ran.out and "130" in ran.out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb: str) -> None:
    assert [action.option_strings for action in verb_parser(verb)._actions if not action.help] == []


def test_help_imports_nothing_heavy() -> None:
    told = "import sys; from genwright.cli import main; main(['--help']); print(sorted(map(str, sys.modules)))"
    loaded = in_a_process(code=told).stdout.splitlines()[-1]
    for heavy in ("torch", "rich", "transformers", "numpy", "peft", "json", "inspect"):
        assert f"'{heavy}'" not in loaded, heavy


def test_no_verb_module_imports_torch_or_rich() -> None:
    imports = "; ".join(f"import genwright.cli.{verb}" for verb in VERBS)
    told = f"{imports}\nimport sys; print([m for m in ('torch', 'rich', 'transformers', 'numpy') if m in sys.modules])"
    done = in_a_process(code=told)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_costs_little_more_than_argparse() -> None:
    """Quick is what loads little: counted, so that a busy machine says the same."""
    loaded = lambda code: set(
        in_a_process(code=f"{code}; import sys; print(*sys.modules)").stdout.splitlines()[-1].split()
    )
    ours = loaded("from genwright.cli import main; main(['--help'])") - loaded("import argparse, importlib, traceback")
    assert len(ours) <= 40, sorted(ours)  # 31 today


def test_version(genwright) -> None:  # type: ignore[no-untyped-def]
    assert genwright("--version").out == "genwright 0.1.0\n"


def test_no_verb_is_a_wrong_request(genwright) -> None:  # type: ignore[no-untyped-def]
    ran = genwright()
    assert ran.code == 2 and ran.out == "" and "commands:" in ran.err


def test_an_unknown_verb_names_the_nearest(genwright) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("aply")
    assert ran.code == 2
    assert "There is no command 'aply'." in ran.err and "did you mean 'apply'?" in ran.err


def test_an_unknown_option_is_a_wrong_request(genwright) -> None:  # type: ignore[no-untyped-def]
    ran = genwright("doctor", "--onlin")
    assert ran.code == 2 and "--onlin" in ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.GenwrightError("it failed"), 1),
        (errors.BadRequest("it was wrong"), 2),
        (errors.DataError("a row"), 2),
        (errors.DoesNotFit("too big"), 3),
        (errors.Corrupt("flipped"), 1),
        (errors.Interrupted("stopped"), 130),
    ],
)
def test_our_errors_are_told_without_a_traceback(genwright, fake, error: errors.GenwrightError, code: int) -> None:  # type: ignore[no-untyped-def]
    fake["genwright.catalogue.tasks:tasks"] = raising(error)
    ran = genwright("tasks", "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err == f"genwright: {type(error).__name__}: {error}\n"


def test_an_unexpected_error_is_one_line_and_debug_shows_more(genwright, fake) -> None:  # type: ignore[no-untyped-def]
    fake["genwright.catalogue.tasks:tasks"] = raising(RuntimeError("boom\nmore"))
    ran = genwright("tasks")
    assert ran.code == 1
    assert ran.err == "genwright: unexpected RuntimeError: boom\n  do:     run again with --debug\n"
    assert "Traceback" in genwright("tasks", "--debug").err


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EACCES, 2, "BadRequest: rows.txt cannot be used.\n  found:  Permission denied\n  do:     name another"),
        (errno.ENOTDIR, 2, "BadRequest: rows.txt cannot be used.\n  found:  Not a directory"),
        (
            errno.ENOSPC,
            1,
            "DiskFull: rows.txt could not be written.\n  found:  No space left on device\n  do:     free",
        ),
        (errno.EIO, 1, "unexpected OSError: [Errno 5] Input/output error: 'rows.txt'"),
    ],
)
def test_what_the_system_refuses_is_told_in_words(genwright, fake, number: int, code: int, said: str) -> None:  # type: ignore[no-untyped-def]
    fake["genwright.catalogue.tasks:tasks"] = raising(OSError(number, os.strerror(number), "rows.txt"))
    ran = genwright("tasks")
    assert ran.code == code and said in ran.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [("tasks",), ("tasks", "--json")])
def test_an_answer_that_cannot_be_written_is_a_failure(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "genwright", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("genwright: DiskFull: the output could not be written.") and "rror" not in done.stderr


def test_ctrl_c_is_130(genwright, fake) -> None:  # type: ignore[no-untyped-def]
    fake["genwright.catalogue.tasks:tasks"] = raising(KeyboardInterrupt())
    ran = genwright("tasks")
    assert ran.code == 130 and "run the same command again to resume" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("words", [("doctor",), ("doctor", "--json")])
def test_a_reader_that_leaves_is_no_traceback(words: tuple[str, ...]) -> None:
    """`genwright ... | head -0`: the pipe is closed before anything is written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "genwright", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1
    assert said == ""


@pytest.mark.parametrize("words", [("--json", "doctor"), ("doctor", "--json"), ("--project", ".", "doctor", "--json")])
def test_common_options_stand_before_or_after_the_verb(genwright, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    assert "python" in genwright(*words).json()


def test_a_library_that_prints_does_not_spoil_the_json(genwright, fake) -> None:  # type: ignore[no-untyped-def]
    def noisy() -> dict[str, Any]:
        print("downloading ...")
        return {}

    fake["genwright.catalogue.tasks:tasks"] = noisy
    ran = genwright("tasks", "--json")
    assert ran.json() == [] and ran.err == "downloading ...\n"


@pytest.mark.parametrize("verb", ["plan", "apply", "status", "report", "chat", "clean"])
def test_a_folder_without_a_project_says_how_to_make_one(genwright, tmp_path: Path, verb: str) -> None:  # type: ignore[no-untyped-def]
    ran = genwright(verb, "--project", tmp_path)
    assert ran.code == 2
    assert f"There is no genwright.toml in {tmp_path}" in ran.err and "genwright init" in ran.err


def test_libraries_are_quiet_unless_the_user_says_otherwise(genwright, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    for name in ("HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "kept")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    genwright("--help")
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1" and os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


def test_main_takes_its_words_from_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["genwright", "doctor", "--json"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["genwright"] == "0.1.0"
