"""The command line: a table of verbs, and the one place where an error becomes a sentence and an exit code.

`genwright --help` reads this file and nothing else: a verb's own module is imported when the verb is used, and what
needs torch is reached by name from there.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import traceback

from genwright.base.errors import GenwrightError
from genwright.base.registry import unknown_name

VERBS = {
    "init": "ask what the project is for and write genwright.toml",
    "plan": "say what will run, what is reused, and what it will need",
    "apply": "do it; safe to interrupt, safe to repeat",
    "pause": "ask a running apply to save and stop",
    "status": "where each stage stands, and what can be resumed",
    "report": "one page: planned beside measured, scores, samples",
    "chat": "talk to the result",
    "serve": "answer over HTTP as OpenAI's API does, with keys and a meter",
    "usage": "what was served: tokens, joules, dollars per key, expert, profile, day",
    "traffic": "what was asked: profiles, lengths, rate; and the same for the planner",
    "experts": "the library of experts: list, add, remove, test, plot",
    "estimate": "size any model and method without a project",
    "scaling": "how large a model and how much data a budget buys: advise, fit, enough",
    "evaluate": "ask suites of rows of one or more systems, and say which is better",
    "gate": "fail where the result fell behind a recorded baseline",
    "redteam": "attack a model on purpose: jailbreaks, injection, escalation, bias",
    "explain": "why the model said that: tokens, layers, training rows, and how far to trust it",
    "unlearn": "forget some rows, keep the rest, and measure both",
    "calibrate": "measure this machine for a minute, so that plans know its speed",
    "tasks": "the kinds of work a project can be for",
    "models": "the catalogue of models: list, show, pull",
    "devices": "the catalogue of devices",
    "data": "look at data before learning from it: show, check",
    "clean": "list, and with --yes remove, what no stage needs",
    "doctor": "what this machine has, what is missing, how to get it",
}

EXIT_CODES = """exit codes:
  0    done
  1    the work failed
  2    the request was wrong; nothing was changed
  3    a plan does not fit, or a target was not met
  130  interrupted; run again to resume"""

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""No telemetry, and no library talking over our own progress. A user who sets one of these himself is obeyed."""


THREADS = {"GOMP_SPINCOUNT": "20000"}
"""Threads that wait for each other spin a short while, then sleep. A step has some ten thousand short waits: with one other
busy process on two cores, spinning without end took 5 to 40 s a step. On a quiet machine 20,000 turns gave 800 tokens/s,
the default 742, sleeping at once 589 (dev/LOG.md)."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises, and never shows a traceback without --debug."""
    for name, value in {**QUIET, **THREADS}.items():
        os.environ.setdefault(name, value)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a wrong option
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:
        _stop_writing()
        return 1
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to resume", 130, words)
    except GenwrightError as error:
        return _complain(f"{type(error).__name__}: {error}", error.exit_code, words)
    except OSError as error:
        return _complain(*_of_the_system(error), words)
    except Exception as error:
        return _complain(_unexpected(error), 1, words)


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb, its own options and the common ones."""
    module = importlib.import_module(f"genwright.cli.{verb}")
    parser = argparse.ArgumentParser(
        prog=f"genwright {verb}",
        description=module.__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.options(parser)
    _common_options(parser.add_argument_group("common options"))
    return parser


def _run(words: list[str]) -> int:
    before, verb, after = _split(words)
    if verb is None:
        _top_parser().parse_args(before)  # --help and --version leave from here
        print(_top_parser().format_help(), end="", file=sys.stderr)
        return 2
    if verb not in VERBS:
        raise unknown_name("command", verb, list(VERBS))
    arguments = verb_parser(verb).parse_args([*before, *after])
    from genwright.cli.terminal import Terminal

    with Terminal(json=arguments.json) as terminal:
        return int(importlib.import_module(f"genwright.cli.{verb}").run(arguments, terminal))


def _split(words: list[str]) -> tuple[list[str], str | None, list[str]]:
    """(common options before the verb, the verb or None, the rest)."""
    index = 0
    while index < len(words) and words[index].startswith("-"):
        index += 2 if words[index] == "--project" else 1
    if index >= len(words):
        return words, None, []
    return words[:index], words[index], words[index + 1 :]


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="genwright",
        usage="genwright [common options] COMMAND ...",
        description="Scope, select, adapt, evaluate and integrate a generative model from one file.",
        epilog=f"commands:\n{verbs}\n\n`genwright COMMAND --help` has a command's own options.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    from genwright import __version__

    parser.add_argument("--version", action="version", version=f"genwright {__version__}")
    _common_options(parser.add_argument_group("common options"))
    return parser


def _common_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--project", metavar="DIR", default=".", help="the project's folder (default: this one)")
    group.add_argument("--json", action="store_true", help="print JSON, alone, to standard output")
    group.add_argument("--offline", action="store_true", help="never reach for the network")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


PATHS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of a path that a person gave, or of a folder that he may not use."""


def _of_the_system(error: OSError) -> tuple[str, int]:
    """(sentence, exit code) of what the system refused, where no room foresaw it."""
    where = error.filename2 or error.filename or "the output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"DiskFull: {where} could not be written.\n  found:  {error.strerror}\n  do:     free some space", 1
    if error.errno in PATHS:
        return f"BadRequest: {where} cannot be used.\n  found:  {error.strerror}\n  do:     name another path", 2
    return _unexpected(error), 1


def _unexpected(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    return f"unexpected {type(error).__name__}: {first}\n  do:     run again with --debug"


def _complain(message: str, code: int, words: list[str]) -> int:
    if "--debug" in words:
        traceback.print_exc()
    try:
        print(f"genwright: {message}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _stop_writing()
    return code


def _stop_writing() -> None:
    """The reader has gone (`| head`). Keep Python from complaining again when it flushes on its way out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
