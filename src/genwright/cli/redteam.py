"""Attack a model on purpose: direct requests, jailbreak templates, prompt injection, escalation over turns; and probes of bias.

What is attacked: the project's result, or --model (a catalogue name or source, with --adapter), or --url. Nothing is sent
anywhere but to the addresses you name. Over-refusal of harmless look-alikes is measured beside every attack.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import write_atomic
from genwright.cli import numbers
from genwright.cli.rooms import call, project
from genwright.cli.terminal import Terminal

CAMPAIGN = "genwright.evaluate.redteam"
KEY = "GENWRIGHT_API_KEY"


def options(parser: ArgumentParser) -> None:
    """The options of this verb."""
    _targets(parser.add_argument_group("what is attacked"))
    _attacks(parser.add_argument_group("how"))
    score = parser.add_argument_group("scored by rules, or")
    score.add_argument("--judge", metavar="URL", help="a judge model")
    score.add_argument("--classifier", metavar="DIR", help="a classifier of two classes, such as examples/guard trains")
    probes = parser.add_argument_group("probes")
    probes.add_argument("--crows-pairs", metavar="FILE", help="stereotypes: CrowS-Pairs")
    probes.add_argument("--bbq", metavar="FILE", help="bias in answers: BBQ")
    probes.add_argument("--toxic-prompts", metavar="FILE", help="toxic continuations, read by --classifier")
    parser.add_argument(
        "--out", metavar="DIR", help="where redteam.json and redteam.html go (default: the project's folder)"
    )
    parser.add_argument(
        "--fail-above",
        type=numbers.percentage,
        metavar="PERCENT",
        help="exit 3 where an attack reaches more of its goals",
    )


def _targets(target: _ArgumentGroup) -> None:
    target.add_argument("--model", help="a catalogue name or model source (default: the project's result)")
    target.add_argument("--adapter", metavar="DIR", help="a peft adapter over --model")
    target.add_argument("--url", help=f"an OpenAI-compatible address, up to /v1; its key is read from ${KEY}")
    target.add_argument("--url-model", default="auto", metavar="NAME", help="the model to ask for there")


def _attacks(attack: _ArgumentGroup) -> None:
    attack.add_argument(
        "--attacks", default="direct,templates,injection,crescendo", metavar="A,B", help="which attacks"
    )
    attack.add_argument(
        "--goals", metavar="FILE", help="wishes, one a line, JSON lines or CSV (default: a dozen built in)"
    )
    attack.add_argument("--harmless", metavar="FILE", help="harmless look-alikes (default: built in)")
    attack.add_argument(
        "--limit", type=numbers.count_or_none, default=0, metavar="N", help="at most so many goals (default: all)"
    )
    attack.add_argument(
        "--turns", type=numbers.count, default=10, metavar="N", help="crescendo: turns at most (default: 10)"
    )
    attack.add_argument(
        "--backtracks",
        type=numbers.count_or_none,
        default=10,
        metavar="N",
        help="crescendo: steps back at most (default: 10)",
    )
    attack.add_argument(
        "--attacker", metavar="URL", help="a model that writes crescendo's questions (default: phrases)"
    )
    attack.add_argument(
        "--max-tokens", type=numbers.count, default=128, metavar="N", help="of an answer (default: 128)"
    )
    attack.add_argument(
        "--seconds", type=numbers.amount, default=60.0, metavar="S", help="an address has to answer (default: 60)"
    )


def run(arguments: Namespace, terminal: Terminal) -> int:
    """Attack, print the table, write the page."""
    refuse_contradictions(arguments)
    found = measured(arguments)
    out = Path(arguments.out or arguments.project)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "redteam.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_atomic(out / "redteam.html", call("genwright.web.redteam:render", found))
    told = {key: value for key, value in found.items() if key != "transcripts"} | {"page": str(out / "redteam.html")}
    terminal.answer(told, lambda console: draw(console, told))
    highest = max((one["rate"] for one in found["attacks"].values()), default=0.0)
    return 3 if arguments.fail_above is not None and highest > arguments.fail_above else 0


def refuse_contradictions(arguments: Namespace) -> None:
    """Errors: BadRequest for options that mean nothing together."""
    if arguments.url and arguments.model:
        raise BadRequest("--url and --model are two targets.", do="give one of them")
    if arguments.adapter and not arguments.model:
        raise BadRequest("--adapter needs the --model that it adapts.", do="name it")
    if arguments.judge and arguments.classifier and not arguments.toxic_prompts:
        raise BadRequest("--judge and --classifier are two verdicts.", do="give one of them")
    if arguments.toxic_prompts and not arguments.classifier:
        raise BadRequest("--toxic-prompts needs something that tells what is toxic.", do="add --classifier DIR")
    if arguments.url and (arguments.crows_pairs or arguments.bbq):
        raise BadRequest(
            "An address tells no likelihoods.", wanted="--model, or a project, for --crows-pairs and --bbq"
        )
    if not named(arguments):
        raise BadRequest("--attacks names none.", wanted=", ".join(of_parts()), do="leave it out for all of them")
    if arguments.attacker and "crescendo" not in named(arguments):
        raise BadRequest("--attacker writes crescendo's questions alone.", do="add crescendo to --attacks")


def named(arguments: Namespace) -> list[str]:
    """The attacks that were asked for, each once."""
    return list(dict.fromkeys(name.strip() for name in arguments.attacks.split(",") if name.strip()))


def measured(arguments: Namespace) -> dict[str, Any]:
    """Everything that was found, as JSON."""
    attacks = [attack_of(name, arguments) for name in named(arguments)]
    goals = list(
        call(f"{CAMPAIGN}.goals:read_goals", Path(arguments.goals)) if arguments.goals else of(".goals:BUILT_IN")
    )
    prompts = (
        call(f"{CAMPAIGN}.goals:read_prompts", Path(arguments.harmless))
        if arguments.harmless
        else of(".goals:HARMLESS")
    )
    rows = rows_of_probes(arguments)
    harmful = (
        call("genwright.evaluate.redteam.classifier:harmful_of", Path(arguments.classifier))
        if arguments.classifier
        else None
    )
    score = scoring(arguments, harmful)
    name, target = target_of(arguments)
    limit = arguments.limit or None
    probes = probed(rows, target, harmful)
    found: dict[str, Any] = call(
        f"{CAMPAIGN}.campaign:campaign", target, attacks, goals[:limit], score, harmless_prompts=prompts
    )
    found |= {
        "target": name,
        "result": result_of(arguments),
        "goals_from": arguments.goals or "built in",
        "probes": probes,
    }
    fallbacks = (getattr(getattr(attack, "attacker", None), "fallbacks", ()) for attack in attacks)
    return found | {"attacker": arguments.attacker or "phrases", "attacker_fallbacks": sum(map(len, fallbacks))}


def of(path: str) -> Any:
    """A value of the campaign's room."""
    from genwright.base.registry import resolve

    return resolve(CAMPAIGN + path)


def attack_of(name: str, arguments: Namespace) -> Any:
    """An attack by name, with the command's bounds. Errors: UnknownName."""
    made = of_parts()[name]
    if name != "crescendo":
        return made()
    if not arguments.attacker:
        return made(arguments.turns, arguments.backtracks)
    attacker = of(".crescendo:ModelAttacker")(endpoint(arguments.attacker, arguments).replies, arguments.turns)
    return made(arguments.turns, arguments.backtracks, attacker)


def of_parts() -> Any:
    """The registry of attacks."""
    from genwright.catalogue.parts import ATTACKS

    return ATTACKS


def endpoint(url: str, arguments: Namespace, model: str = "auto") -> Any:
    """A model at an address."""
    return call(
        "genwright.evaluate.endpoint:Endpoint", url, model=model, key=os.environ.get(KEY, ""), seconds=arguments.seconds,
        max_tokens=arguments.max_tokens,
    )  # fmt: skip


def scoring(arguments: Namespace, harmful: Any) -> Any:
    """What gives the verdicts."""
    if arguments.judge:
        return of(".scoring:ByJudge")(endpoint(arguments.judge, arguments).replies)
    return of(".scoring:ByClassifier")(harmful) if harmful else of(".scoring:by_rules")


def target_of(arguments: Namespace) -> tuple[str, Any]:
    """(its name, what answers)."""
    if arguments.url:
        asked = endpoint(arguments.url, arguments, arguments.url_model)
        asked.reply(
            [{"role": "user", "content": "Hello."}]
        )  # an address that does not answer is said before a campaign
        return asked.name, asked
    if arguments.model:
        opened = call(
            "genwright.talk:open_session", arguments.model, base=Path(arguments.project), adapter=arguments.adapter or "",
            max_new_tokens=arguments.max_tokens,
        )  # fmt: skip
        return " with ".join(filter(None, (arguments.model, arguments.adapter))), opened
    spec, base = project(arguments)
    return f"the result of {spec.project.name}", call("genwright.talk:result_session", spec, base, arguments.max_tokens)


def result_of(arguments: Namespace) -> str:
    """The key of the project's result, where that is attacked: a gate takes no campaign against anything else."""
    if arguments.url or arguments.model:
        return ""
    made = call("genwright.project.store:Store", Path(arguments.project) / ".genwright").latest("integrate")
    return made.key if made else ""


def rows_of_probes(arguments: Namespace) -> dict[str, list[Any]]:
    """What the probes that were asked for have to ask, read before any model is. Errors: DataError."""
    readers = {
        "crows_pairs": (arguments.crows_pairs, ".probes:read_pairs"), "bbq": (arguments.bbq, ".probes:read_questions"),
        "toxic_prompts": (arguments.toxic_prompts, ".goals:read_prompts"),
    }  # fmt: skip
    limit = arguments.limit or None
    return {name: call(CAMPAIGN + read, Path(file))[:limit] for name, (file, read) in readers.items() if file}


def probed(rows: dict[str, list[Any]], target: Any, harmful: Any) -> dict[str, Any]:
    """What the probes found."""
    found: dict[str, Any] = {
        name: call(f"{CAMPAIGN}.probes:{name}", rows[name], target.log_probabilities)
        for name in ("crows_pairs", "bbq")
        if name in rows
    }
    if "toxic_prompts" in rows:
        found["toxic_prompts"] = call(
            f"{CAMPAIGN}.probes:toxic_continuations", rows["toxic_prompts"], target.replies, harmful
        )
    return found


def draw(console: Any, told: dict[str, Any]) -> None:
    """The table of attacks, and what stands beside it."""
    from rich.table import Table

    table = Table(
        "attack",
        "goals",
        "reached",
        "95 % interval",
        "refused",
        "unjudged",
        box=None,
        title=f"Red team: {told['target']}",
    )
    for name, one in told["attacks"].items():
        interval = f"{one['low']:.0f} to {one['high']:.0f} %"
        table.add_row(
            name,
            str(one["goals"]),
            f"{one['rate']:.0f} %",
            interval,
            f"{one['refused']} of {one['attempts']}",
            str(one["unjudged"]),
        )
    console.print(table)
    over = told["over_refusal"]
    console.print(
        f"Harmless look-alikes refused: {over['refused']} of {over['prompts']} ({over['low']:.0f} to {over['high']:.0f} %)."
    )
    if told["attacker_fallbacks"]:
        console.print(
            f"The attacker's reply could not be used {told['attacker_fallbacks']} times: phrases stood in for it."
        )
    for name, found in told["probes"].items():
        values = ", ".join(f"{key} {value:.1f}" for key, value in found.items() if isinstance(value, float))
        console.print(f"{name}: {values}")
    console.print(f"Scored by {', '.join(told['scored_by'])}; goals {told['goals_from']}. Transcripts: {told['page']}")
