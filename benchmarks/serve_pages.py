"""Put what `router.py` and `guard.py` found into docs/routing.md and docs/guard.md, between their marks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
MARK, END = "<!-- measured: {} -->", "<!-- end of {} -->"
KINDS = {"experts": "tasks and subjects", "intents": "intents of Banking77"}
TALKS = {
    "conversation": "the conversation's risk", "first turns": "the same, before the last turn", "worst turn": "its worst single turn",
    "length": "its length alone",
}  # fmt: skip


def main() -> None:
    """Both pages."""
    for page, blocks in (("routing", routing), ("guard", guard)):
        result = json.loads(
            (HERE / "results" / f"{dict(routing='router', guard='guard')[page]}.json").read_text(encoding="utf-8")
        )
        path = DOCS / f"{page}.md"
        text = path.read_text(encoding="utf-8")
        for name, lines in blocks(result).items():
            text = put(text, name, lines)
        path.write_text(text, encoding="utf-8")


def put(text: str, name: str, lines: Sequence[str]) -> str:
    """The text with these lines between the two marks of that name. Errors: ValueError where it has no such marks."""
    begin, end = MARK.format(name), END.format(name)
    found, times = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: "\n".join([begin, *lines, end]),
        text,
        count=1,
        flags=re.DOTALL,
    )
    if not times:
        raise ValueError(f"no '{begin}' ... '{end}'")
    return found


def routing(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """One row a draw."""
    lines = [
        "| experts | correct | of those routed | no to far | no to near | ms of processor, p50 · p90 | ms, p50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, draws in result.items():
        kind, _, count = key.partition("-")
        for number, one in enumerate(draws if kind in KINDS else ()):
            shares = [f"{one[name]:.1%}" for name in ("correct", "correct_of_routed", "abstain_far", "abstain_near")]
            spent = f"{one['processor_p50_ms']:.1f} · {one['processor_p90_ms']:.1f} | {one['p50_ms']:.1f}"
            lines.append(f"| {count} {KINDS[kind]}, draw {number} | {' | '.join(shares)} | {spent} |")
    return {"routing": [*lines, *_when(result)]}


def guard(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Single turns, conversations, what the defaults block, personal data and latency."""
    single, talks, spent = result["single"], result["conversations"], result["latency_ms"]
    quiet = list(dict.fromkeys(name.split(" | ")[1] for name in single if " | " in name))
    loud = list(dict.fromkeys(name.split(" | ")[0] for name in single if " | " in name))
    heads = ["set", *(f"over {one}" for one in quiet), f"length alone, over {quiet[0]}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [
        f"| {name} | " + " | ".join(_rates(single[f"{name} | {one}"]["guard"]) for one in quiet)
        + f" | {_rates(single[f'{name} | {quiet[0]}']['length'])} |"
        for name in loud
    ]  # fmt: skip
    lines += ["", "| escalations, 2 to 8 turns, as many harmless dialogues of each length | detection |", "|---|---|"]
    lines += [f"| {told} | {_rates(talks[name])} |" for name, told in TALKS.items()]
    blocked = single["blocked by the default policy"]
    stopped = talks["stopped by the default policy"]
    defaults = ", ".join(f"{share:.0%} of {name}" for name, share in blocked.items())
    left_out = ", ".join(f"{name} {count}" for name, count in result["twins left out"].items() if count)
    personal = ", ".join(f"{name} {share:.0%}" for name, share in result["personal"].items())
    return {
        "detection": [
            *lines, "",
            f"Rows left out because training has a near twin: {left_out or 'none'}.", "",
            f"Blocked by the default thresholds: {defaults}; {stopped['escalations']:.0%} of escalations and "
            f"{stopped['harmless']:.0%} of the harmless dialogues.", "",
            f"Personal data, share of labelled pieces covered: {personal}.", "",
            f"Added latency of the third turn of a dialogue: median {spent['p50']:.1f} ms, "
            f"of the processor {spent['processor_p50']:.1f} ms.",
            *_when(result),
        ]
    }  # fmt: skip


def _rates(found: Mapping[str, float]) -> str:
    return " · ".join(f"{share:.0%}" for share in found.values())


def _when(result: Mapping[str, Any]) -> list[str]:
    machine = result["machine"]
    return [
        "",
        f"{result['date'][:10]}, {machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f} at the time.",
    ]


if __name__ == "__main__":
    main()
