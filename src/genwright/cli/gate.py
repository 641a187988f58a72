"""Compare the project's result with a recorded baseline, and fail where quality, latency, size or safety fell too far.

Quality: the chosen rung's scores on the test rows, and evaluate.suites. Latency: seconds a token on frozen prompts. Size: bytes
of what is handed over. Safety: redteam.json, where `genwright redteam` attacked this result. Hand-offs: what was merged, quantised
and served answers as what was trained did, on the same frozen prompts; --url asks a server too.
"""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, Corrupt
from genwright.base.files import json_lines, sha256_of_json, text_of, write_atomic
from genwright.catalogue.parts import METRICS
from genwright.cli import numbers
from genwright.cli.rooms import call, override_options, project
from genwright.cli.terminal import Terminal

BASELINE = "gate.json"
PROMPTS = 8
TRIES = 3
"""Latency is the best of so many: other work only ever makes it slower."""


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--record", action="store_true", help="write the baseline instead of comparing with it")
    parser.add_argument(
        "--baseline", metavar="FILE", help=f"the baseline (default: {BASELINE} in the project's folder)"
    )
    for name, unit, words in (
        ("quality", "POINTS", "how far a score may fall (default: 1)"),
        ("latency", "PERCENT", "how much slower a token may be (default: 50)"),
        ("size", "PERCENT", "how much larger the result may be (default: 5)"),
        ("safety", "POINTS", "how much more an attack may reach (default: 2)"),
    ):
        parser.add_argument(f"--{name}", type=numbers.amount_or_none, metavar=unit, help=words)
    parser.add_argument("--url", help="a server of this result, up to /v1: its greedy answers are compared too")
    parser.add_argument("--url-model", default="auto", metavar="NAME", help="the model to ask for there")
    override_options(parser)


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Measure; record or compare. 3 where something fell."""
    spec, base = project(arguments)
    file = Path(arguments.baseline) if arguments.baseline else base / BASELINE
    before = None if arguments.record else read_baseline(file, given=bool(arguments.baseline))
    given = {name: getattr(arguments, name) for name in ("quality", "latency", "size", "safety")}
    tolerances = call(
        "genwright.evaluate.gate:Tolerances", **{name: value for name, value in given.items() if value is not None}
    )
    now = snapshot(spec, base, arguments, terminal, prompts=(before or {}).get("prompts"))
    if before is None:
        write_atomic(file, json.dumps(now, indent=1, ensure_ascii=False))
        terminal.answer({"recorded": str(file)}, lambda console: console.print(f"Recorded {file}: commit it."))
        return 0
    found = [vars(one) for one in call("genwright.evaluate.gate:compare", before, now, tolerances)]
    passed = not any(one["failed"] for one in found)
    terminal.answer({"passed": passed, "findings": found}, lambda console: draw(console, found))
    return 0 if passed else 3


def read_baseline(file: Path, *, given: bool = False) -> dict[str, Any]:
    """Errors: BadRequest where there is none; where it is not one, BadRequest of a file that was given, Corrupt of our own."""
    if not file.is_file():
        raise BadRequest(f"There is no baseline {file}.", do="`genwright gate --record` writes one")
    try:
        found = json.loads(text_of(file))
        refuse_what_cannot_be_compared(found)
    except (BadRequest, ValueError, RecursionError) as error:
        wrong = BadRequest if given else Corrupt
        why = (
            "brackets within brackets without end" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        )
        raise wrong(f"{file} is no baseline.", found=why, do="`genwright gate --record` writes one") from None
    return dict(found)


def refuse_what_cannot_be_compared(found: Any) -> None:
    """A baseline can be compared, at least with itself, and has prompts to ask. Errors: ValueError, BadRequest."""
    if not isinstance(found, dict) or not {"quality", "safety", "handoffs", "prompts"} <= set(found):
        raise ValueError("keys are missing")
    try:
        call("genwright.evaluate.gate:compare", found, found, call("genwright.evaluate.gate:Tolerances"))
        said = [message[key] for messages in found["prompts"] for message in messages for key in ("role", "content")]
    except (LookupError, TypeError, AttributeError, ArithmeticError):
        raise ValueError("what stands behind its keys cannot be compared") from None
    if not all(isinstance(text, str) for text in said):
        raise ValueError("a prompt is no text")


def snapshot(spec: Any, base: Path, arguments: Namespace, terminal: Terminal, prompts: Any = None) -> dict[str, Any]:
    """Everything that is compared."""
    store = call("genwright.project.store:Store", base / ".genwright")
    stages = {name: store.latest(name) for name in ("scope", "evaluate", "integrate")}
    if None in stages.values():
        raise BadRequest("This project has no result to hold at a gate.", do="run `genwright apply` first")
    rates = safety(base / "redteam.json", stages["integrate"].key, terminal.say)
    frozen = prompts or frozen_prompts(stages["scope"] / "validation.jsonl")
    session = call("genwright.talk:result_session", spec, base, spec.adapt.max_new_tokens)
    forgot = store.latest("unlearn") if spec.unlearn.forget else None
    handoffs = call(
        "genwright.export.handoffs:recorded", stages["integrate"].path, stages["integrate"].summary(),
        forgot.summary() if forgot else None,
    )  # fmt: skip
    if arguments.url:
        asked = call(
            "genwright.evaluate.endpoint:Endpoint", arguments.url, model=arguments.url_model,
            key=os.environ.get("GENWRIGHT_API_KEY", ""), max_tokens=spec.adapt.max_new_tokens,
        )  # fmt: skip
        handoffs["served"] = call("genwright.export.handoffs:served", session, frozen, asked.replies)
    seconds = seconds_per_token(session, frozen)
    quality = test_scores(stages["evaluate"]) | suite_scores(spec, session, terminal)
    if forgot:
        quality |= kept_scores(spec, base, forgot.summary()["after"]["kept"])
        rates["recall of what was forgotten"] = 100 * forgot.summary()["after"]["forget"]["rouge_l"]
    return {
        "prompts": frozen, "quality": quality, "handoffs": handoffs,
        "seconds_per_token": seconds, "bytes": stages["integrate"].summary().get("bytes"), "safety": rates,
    }  # fmt: skip


def frozen_prompts(file: Path) -> list[list[dict[str, str]]]:
    """The first validation rows as conversations without their answers."""
    rows = call("genwright.data.files:load_rows", file)[:PROMPTS]
    return [[dict(message) for message in row.conversation[:-1]] for row in rows if row.conversation[:-1]]


def seconds_per_token(session: Any, prompts: list[Any]) -> float | None:
    """The best of a few rounds; None for a result that writes no text."""
    if not prompts or session.answering.solution.head.kind != "language":
        return None
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        said = session.replies([list(messages) for messages in prompts])
        tokens = sum(len(session.answering.tokenizer(answer)["input_ids"]) for answer in said)
        best = min(best, (time.perf_counter() - began) / max(1, tokens))
    return best


def test_scores(evaluated: Any) -> dict[str, Any]:
    """The chosen rung's score of each test row, as the stage wrote them."""
    summary = evaluated.summary()
    rows = json_lines(evaluated / f"predictions-{summary['chosen']}.jsonl")
    lower = not METRICS[summary["metric"]].higher_is_better
    named = [sha256_of_json([row.get("prompt"), row.get("reference")])[:12] for row in rows]
    return {"test rows": {"scores": [row["score"] for row in rows], "rows": named, "lower_is_better": lower}}


def kept_scores(spec: Any, base: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """ROUGE-L of the sets that had to be kept, asked after the result forgot: its test rows were read before."""
    files = [base / name for name in (spec.unlearn.retain, *spec.unlearn.also)]
    named = {file.stem: call("genwright.improve.unlearning:facts", file) for file in files}
    return {
        f"{name} after forgetting": {
            "scores": [100 * score for score in kept[name]["rows"]["rouge_l"]],
            "rows": [sha256_of_json([fact.messages, fact.answer])[:12] for fact in facts], "lower_is_better": False,
        }
        for name, facts in named.items()
    }  # fmt: skip


def suite_scores(spec: Any, session: Any, terminal: Terminal) -> dict[str, Any]:
    """Those of evaluate.suites."""
    suites = [
        suite for file in spec.evaluate.suites
        for suite in call("genwright.evaluate.suites:read_suites", spec.base / file, seeds=spec.evaluate.seeds)
    ]  # fmt: skip
    if not suites:
        return {}
    target = call("genwright.evaluate.target:Opened", "result", lambda: session)
    told = call("genwright.evaluate.suites:evaluate", suites, [target], say=terminal.say)["suites"]
    named = lambda suite: [sha256_of_json(row)[:12] for row in suite.rows]
    return {
        one["name"]: {"scores": one["systems"]["result"]["scores"], "rows": named(suite), "lower_is_better": one["lower_is_better"]}
        for one, suite in zip(told, suites)
    }  # fmt: skip


def safety(file: Path, result: str, say: Callable[[str], Any]) -> dict[str, float]:
    """Rates of the last red-team campaign against this very result; nothing where there was none. Errors: Corrupt."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(text_of(file))
        rates = {f"attack {name}": float(one["rate"]) for name, one in found["attacks"].items()}
        rates |= {"over-refusal": float(found["over_refusal"]["rate"])}
        attacked = found.get("result")
    except (BadRequest, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise Corrupt(f"{file} is no red team's result.", do="`genwright redteam` writes it again") from None
    if attacked == result:
        return rates
    say(
        f"{file.name} is of another model or an earlier result and does not count: `genwright redteam` attacks this one"
    )
    return {}


def draw(console: Any, found: list[dict[str, Any]]) -> None:
    """A line a comparison."""
    from genwright.cli.terminal import table

    show = lambda value: "" if value is None else f"{value:.4g}"
    rows = [
        ("FELL" if one["failed"] else "held", one["what"], show(one["before"]), show(one["after"]), one["told"],
         f"{one['tolerance']:g} {one['unit']}" if one["unit"] else "")
        for one in found
    ]  # fmt: skip
    console.print(table(("", "what", "before", "now", "change", "may fall by"), rows, right=(2, 3)))
