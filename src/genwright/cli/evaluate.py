"""Ask suites of rows of one or more systems, and say which is better, where the numbers say so.

A SYSTEM is `result` or a rung of the project's ladder, a model by catalogue name or source, the same with an adapter
(MODEL+DIR), or an OpenAI-compatible address (http://HOST:PORT/v1, then #NAME for one of its models). NAME=SYSTEM gives it a
name. Without any, the project's result is asked, after evaluate.baseline. The others are compared with the first.
"""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.rooms import FILE, call, override_options, project
from genwright.cli.terminal import Terminal, table

SUITES = "genwright.evaluate.suites"
KEY = "GENWRIGHT_API_KEY"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help="what is judged (default: the project's result)")
    parser.add_argument(
        "--suite", action="append", metavar="FILE", help="a suite (default: evaluate.suites); repeatable"
    )
    parser.add_argument(
        "--limit",
        type=numbers.count_or_none,
        default=0,
        metavar="N",
        help="ask the first N rows of each suite (default: all)",
    )
    parser.add_argument(
        "--seed", type=numbers.count_or_none, default=0, metavar="N", help="of the first repetition (default: 0)"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="of models named here (default: auto)",
    )
    parser.add_argument(
        "--seconds", type=numbers.amount, default=60.0, metavar="S", help="an address has to answer (default: 60)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where evaluate.json goes, with all answers (default: the project's folder)"
    )
    parser.add_argument(
        "--write-tasks", metavar="DIR", help="write the suites as tasks for lm-eval's own command to DIR; ask nothing"
    )
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Say what the suites can show, ask, compare."""
    suites = [suite.first(arguments.limit) for suite in suites_of(arguments)]
    if arguments.write_tasks:
        return write_tasks(suites, Path(arguments.write_tasks), terminal)
    targets = targets_of(arguments)
    found = call(f"{SUITES}:evaluate", suites, targets, seed=arguments.seed, say=terminal.say)
    out = Path(arguments.out or arguments.project)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "evaluate.json", json.dumps(found, indent=1, ensure_ascii=False))
    told = call(f"{SUITES}:stripped", found) | {"file": str(out / "evaluate.json")}
    terminal.answer(told, lambda console: draw(console, told))
    return 0


def write_tasks(suites: list[Any], folder: Path, terminal: Terminal) -> int:
    """The suites as a folder for `lm_eval run --include_path`."""
    files = [str(call("genwright.evaluate.lm:write_task", suite, folder)) for suite in suites]
    names = ",".join(suite.name for suite in suites)
    terminal.answer(
        {"tasks": names.split(","), "files": files},
        lambda console: console.print(f"lm_eval run --include_path {folder} --tasks {names} --model ..."),
    )
    return 0


def suites_of(arguments: Namespace) -> list[Any]:
    """Those named, or the project's. Errors: BadRequest."""
    files, seeds = [Path(file) for file in arguments.suite or []], 1
    if not files or has_project(arguments):
        spec, base = project(arguments)
        files, seeds = files or [base / file for file in spec.evaluate.suites], spec.evaluate.seeds
    if not files:
        raise BadRequest("No suite is named.", do="--suite FILE, or evaluate.suites in the project file")
    return [suite for file in files for suite in call(f"{SUITES}:read_suites", file, seeds=seeds)]


def has_project(arguments: Namespace) -> bool:
    """Whether there is a project to ask."""
    return (Path(arguments.project) / FILE).exists()


def targets_of(arguments: Namespace) -> list[Any]:
    """The systems, none of them opened yet. Errors: BadRequest, ModelError."""
    words = arguments.systems
    if not words:
        baseline = project(arguments)[0].evaluate.baseline
        words = [baseline, "result"] if baseline else ["result"]
    return [target_of(word, arguments) for word in words]


def target_of(word: str, arguments: Namespace) -> Any:
    """One system."""
    named = re.match(r"([\w.-]+)=(?=.)", word)
    name, what = (named[1], word[named.end() :]) if named else (word, word)
    if what.startswith(("http://", "https://")):
        url, _, model = what.partition("#")
        endpoint = call(
            "genwright.evaluate.endpoint:Endpoint", url, model=model or "auto", key=os.environ.get(KEY, ""),
            seconds=arguments.seconds,
        )  # fmt: skip
        endpoint.reply(
            [{"role": "user", "content": "Hello."}]
        )  # an address that does not answer is said before the run
        return call("genwright.evaluate.target:Remote", endpoint, name if named else "")
    return call("genwright.evaluate.target:Opened", name, opener(what, arguments))


def opener(what: str, arguments: Namespace) -> Any:
    """What opens a model or a rung when it is first asked."""
    if has_project(arguments) and (what == "result" or what in project(arguments)[0].adapt.ladder):
        spec, base = project(arguments)
        at = None if what == "result" else what
        return partial(call, "genwright.talk:result_session", spec, base, spec.adapt.max_new_tokens, at)
    if what == "result":
        project(arguments)  # says that there is none
    model, _, adapter = what.partition("+")
    base = Path(arguments.project)
    call("genwright.talk:folder_on_disk", model, base=base)
    if adapter and not (base / adapter / "adapter_config.json").exists():
        raise BadRequest(f"There is no adapter in {adapter}.", wanted="a peft folder with adapter_config.json")
    return partial(
        call, "genwright.talk:open_session", model, base=base, adapter=adapter, precision=arguments.precision
    )  # fmt: skip


def draw(console: Any, told: dict[str, Any]) -> None:
    """A table a suite, then what differs."""
    for suite in told["suites"]:
        rows = [
            (name, f"{one['value']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}", beside(one))
            for name, one in suite["systems"].items()
        ]
        title = f"{suite['name']}: {suite['metric'] or suite['form']}, {suite['rows']} rows"
        console.print(f"\n{title}{', lower is better' if suite['lower_is_better'] else ''}")
        console.print(table(("system", "score", "95 % interval", "beside it"), rows, right=(1,)))
    differences = [
        (one["suite"], f"{one['after']} against {one['before']}", f"{one['difference']:+.2f}",
         f"{one['low']:+.2f} to {one['high']:+.2f}", f"{one['p_holm']:.3g}", one["verdict"])
        for one in told["comparisons"]
    ]  # fmt: skip
    if differences:
        console.print("\nCompared row by row; p after Holm's correction for all of these")
        console.print(table(("suite", "systems", "difference", "95 % interval", "p", ""), differences, right=(2, 4)))
    console.print(f"Every score and answer: {told['file']}")


def beside(one: dict[str, Any]) -> str:
    """The other figures of a system."""
    told = [f"{name} {value:.4g}" for name, value in one["also"].items()]
    told += [f"{one['seed_spread']:.2f} from seed to seed"] if one["seed_spread"] is not None else []
    return ", ".join(told)
