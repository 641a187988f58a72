"""Make a model forget some rows and keep others, and measure both.

What forgets: the project's result, or --model. Told before and after: probability, ROUGE-L and truth ratio in the manner of TOFU
(arXiv 2401.06121), what can still be extracted or got by asking in other words, the sets to keep, benchmarks, and how fast it comes
back when a part is taught again. Exit 3 where it was not forgotten, or something was harmed beyond --keep.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from pathlib import Path
from typing import Any

from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.rooms import FILE, call, project
from genwright.cli.terminal import Terminal, heading, table

ROOM = "genwright.improve.unlearning"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    _rows_and_models(parser)
    _training(parser.add_argument_group("how"))
    _bounds(parser.add_argument_group("judged by"))
    parser.add_argument(
        "--out", metavar="DIR", default="unlearned", help="the model, unlearn.json, unlearn.html (default: unlearned)"
    )


def _rows_and_models(parser: ArgumentParser) -> None:
    parser.add_argument("--forget", metavar="FILE", required=True, help="questions and answers to forget")
    parser.add_argument("--retain", metavar="FILE", required=True, help="questions and answers to keep")
    parser.add_argument(
        "--also",
        metavar="FILE",
        action="append",
        default=[],
        help="more to keep, measured but not trained on; repeatable",
    )
    parser.add_argument(
        "--suite",
        metavar="FILE",
        action="append",
        help="benchmarks asked before and after (default: the project's suites); repeatable",
    )
    parser.add_argument("--texts", metavar="FILE", help="texts whose bits a token are told before and after")
    parser.add_argument(
        "--model", metavar="NAME", default=".", help="a model, or a project's folder (default: the project)"
    )
    parser.add_argument(
        "--never-saw", metavar="NAME", help="a model or project that never saw the rows, for forget quality"
    )


def _training(how: _ArgumentGroup) -> None:
    how.add_argument("--method", default="npo", metavar="NAME", help="how (default: npo; docs/unlearn.md has them all)")
    how.add_argument(
        "--with",
        dest="settings",
        metavar="KEY=NUMBER",
        action="append",
        default=[],
        help="a constant of the method; repeatable",
    )
    how.add_argument(
        "--adapter", default="full", metavar="NAME", help="what is trained: full, lora, ... (default: full)"
    )
    how.add_argument("--steps", type=numbers.count, default=60, metavar="N", help="optimiser steps (default: 60)")
    how.add_argument("--batch-size", type=numbers.count, default=16, metavar="N", help="rows a step (default: 16)")
    how.add_argument(
        "--learning-rate",
        type=numbers.amount_or_none,
        default=0.0,
        metavar="RATE",
        help="the highest (default: the adapter's)",
    )
    how.add_argument("--precision", default="fp32", metavar="NAME", help="fp32, bf16 or auto (default: fp32)")
    how.add_argument(
        "--seed", type=numbers.count_or_none, default=0, metavar="N", help="of order and draws (default: 0)"
    )


def _bounds(bound: _ArgumentGroup) -> None:
    bound.add_argument(
        "--keep",
        type=numbers.amount_or_none,
        default=0.9,
        metavar="SHARE",
        help="of a set's ROUGE-L and a suite's score that must be left (default: 0.9)",
    )
    bound.add_argument(
        "--relearn-steps",
        type=numbers.count_or_none,
        default=10,
        metavar="N",
        help="of the relearning attack (default: 10)",
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Forget, measure, print, write the page."""
    base = Path(arguments.project)
    out = base / arguments.out
    path = lambda name: base / name if name else None
    folder = lambda name: call(f"{ROOM}:folder_of", name, base)
    wanted = {
        "forget": base / arguments.forget, "retain": base / arguments.retain, "also": tuple(base / one for one in arguments.also),
        "suites": tuple(base / one for one in suites(arguments)),
        "texts": path(arguments.texts), "method": arguments.method, "settings": call(f"{ROOM}:constants", arguments.settings),
        "adapter": arguments.adapter, "steps": arguments.steps, "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate, "precision": arguments.precision, "keep": arguments.keep,
        "relearn_steps": arguments.relearn_steps, "seed": arguments.seed, "model": folder(arguments.model),
        "never_saw": folder(arguments.never_saw) if arguments.never_saw else None,
    }  # fmt: skip
    found = call(f"{ROOM}:unlearn", call(f"{ROOM}:Request", **wanted), out, terminal.say)
    write_atomic(out / "unlearn.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_atomic(out / "unlearn.html", call("genwright.web.unlearn:render", found))
    told = found | {"page": str(out / "unlearn.html")}
    terminal.answer(told, lambda console: draw(console, told))
    return 0 if call(f"{ROOM}:succeeded", found) else 3


def suites(arguments: Namespace) -> tuple[str, ...]:
    """Those named, or those of the project, where there is one."""
    if arguments.suite or not (Path(arguments.project) / FILE).exists():
        return tuple(arguments.suite or ())
    spec, _ = project(arguments)
    return tuple(spec.unlearn.suites or spec.evaluate.suites)


def draw(console: Any, found: dict[str, Any]) -> None:
    """Before and after, the verdicts, the attack."""
    console.print(heading(f"{found['method']}, {found['steps']} steps, {found['forget_rows']} rows to forget"))
    console.print(table(("", "before", "after", "never saw them"), lines(found), right=(1, 2, 3)))
    for name, one in verdicts(found):
        console.print(f"{name}: {one}")
    console.print(f"page: {found['page']}")


def lines(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The measures, of the rows to forget and of each set to keep."""
    columns = [found["before"], found["after"], found["never_saw"]]
    cell = lambda one, *keys: "" if one is None else f"{value_at(one, keys):.3f}"
    forget = {
        "probability": ("probability",), "ROUGE-L": ("rouge_l",), "truth ratio": ("truth_ratio",),
        "extracted tokens": ("extraction", "tokens"), "by paraphrase, ROUGE-L": ("paraphrase", "rouge_l"),
    }  # fmt: skip
    rows = [(f"forget: {name}", *(cell(one, "forget", *keys) for one in columns)) for name, keys in forget.items()]
    for name in found["kept"]:
        rows.append((f"{name}: ROUGE-L", *(cell(one, "kept", name, "rouge_l") for one in columns)))
    for name, one in found["benchmarks"].items():
        rows.append((f"{name}: {one['metric']}", f"{one['before']:.2f}", f"{one['after']:.2f}", ""))
    rows.append(("model utility", *(cell(one, "utility") for one in columns)))
    if found["before"]["bits_per_token"] is not None:
        rows.append(("texts: bits a token", *(cell(one, "bits_per_token") for one in columns)))
    return [(one[0], one[1], one[2], one[3]) for one in rows]


def value_at(found: dict[str, Any], keys: tuple[str, ...]) -> float:
    """What stands behind the keys, one within the other."""
    for key in keys[:-1]:
        found = found[key]
    return float(found[keys[-1]])


def verdicts(found: dict[str, Any]) -> list[tuple[str, str]]:
    """In words."""
    forgotten, p_value = found["forgotten"], found["forget_quality"]["p_value"]
    alike = "" if p_value is None else f"; forget quality p = {p_value:.3g} against the model that never saw them"
    told = [
        (
            "forgotten",
            f"{'yes' if forgotten['holds'] else 'NO'}, the truth is {'' if forgotten['halved'] else 'not '}half as likely or less{alike}",
        )
    ]
    for name, one in found["kept"].items():
        change = f"{one['before']:.3f} to {one['after']:.3f}, bound {found['keep']:g} of it"
        told.append((f"{name} kept", f"{'yes' if one['holds'] else 'NO'}, {change}"))
    for name, one in found["benchmarks"].items():
        change = (
            f"{one['before']:.2f} to {one['after']:.2f} ({one['low']:+.2f} to {one['high']:+.2f}; {one['verdict']})"
        )
        told.append((f"{name} unharmed", f"{'yes' if one['holds'] else 'NO'}, {change}, bound {found['keep']:g} of it"))
    back = lambda one: f"after {one} steps" if one is not None else "never"
    told += [
        (f"relearned, {name}", f"half of it {back(one['half_back_after'])}") for name, one in found["relearned"].items()
    ]
    return told
