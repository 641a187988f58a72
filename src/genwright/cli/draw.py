"""How plans, data and scores look on a terminal; without colour the same is said with signs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from genwright.base.registry import resolve
from genwright.cli.terminal import heading, table, text

OPEN, CLOSE = "⟦", "⟧"
"""Around learned tokens where there is no colour."""

ACTION_STYLE = {"run": "bold cyan", "reuse": "green", "blocked": "bold red"}


def stages(console: Any, decisions: Iterable[dict[str, Any]]) -> None:
    """What each stage would do, and why."""
    shortened = resolve("genwright.web.summaries:shortened")
    rows = [
        (one["stage"], text(one["action"], ACTION_STYLE.get(one["action"], "")), shortened(one["why"]))
        for one in decisions
    ]
    console.print(heading("Stages"))
    console.print(table(("stage", "action", "why"), rows))


def look(console: Any, seen: dict[str, Any]) -> None:
    """One decoded sample with its learned tokens marked, then what the rows are like in tokens."""
    coloured = console.color_system is not None
    legend = "coloured" if coloured else f"between {OPEN} and {CLOSE}"
    console.print(heading(f"One row as the model reads it (the learned tokens are {legend})"))
    console.print(sample_text(seen.get("sample", []), coloured=coloured))
    console.print(heading("Data"))
    console.print(table(("", ""), look_rows(seen)))
    for warning in seen.get("warnings", []):
        console.print(text(f"warning: {warning}", "yellow"))


def sample_text(pieces: list[tuple[str, bool]], *, coloured: bool) -> Any:
    """The sample as one text. Runs of learned pieces are one span."""
    words = text("")
    learning = False
    for piece, learned in [*pieces, ("", False)]:
        if learned != learning and not coloured:
            words.append(OPEN if learned else CLOSE)
        words.append(piece, "black on cyan" if learned and coloured else "")
        learning = learned
    words.rstrip()
    return words


def look_rows(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """What `Look` found, in words."""
    lengths = ", ".join(f"{name} {value:g}" for name, value in (seen.get("lengths") or {}).items())
    return [
        ("format", str(seen.get("format", ""))),
        ("rows", f"{seen.get('rows', 0):,}"),
        ("learned tokens", share(seen.get("learned_share"))),
        ("tokens a row", lengths),
        ("longest row", f"{seen.get('longest_tokens', 0):,} tokens"),
        ("truncated", f"{seen.get('truncated_rows', 0):,} rows, {seen.get('truncated_tokens', 0):,} tokens"),
        ("packing fill", share(seen.get("packing_fill"))),
        ("double BOS, missing EOS", f"{seen.get('double_bos', 0)} rows, {seen.get('missing_eos', 0)} rows"),
    ]


def share(fraction: float | None) -> str:
    """A fraction as a percentage."""
    return "unknown" if fraction is None else f"{100 * fraction:.1f} %"


def planned(console: Any, title: str, plan: dict[str, Any] | None) -> None:
    """What a rung will need, with ranges; what is unknown says why."""
    rows = [
        (one.title, one.show(one.planned), one.show_range() or one.why)
        for one in resolve("genwright.web.summaries:compare")(plan, None)
    ]
    if not rows:
        return
    console.print(heading(f"Plan: {title}"))
    console.print(table(("what", "planned", "range"), rows, right=(1,)))
    breakdown(console, (plan or {}).get("breakdown") or {})
    for note in (plan or {}).get("notes") or []:
        console.print(f"note: {note}")


def breakdown(console: Any, parts: dict[str, float]) -> None:
    """What the training peak is made of."""
    Bytes = resolve("genwright.base.units:Bytes")
    named = [f"{name} {Bytes(size)}" for name, size in parts.items() if isinstance(size, (int, float)) and size]
    if named:
        console.print(f"training peak: {', '.join(named)}")


def fits(console: Any, verdict: bool, memory_bytes: float | None) -> None:
    """The last line of a plan."""
    Bytes = resolve("genwright.base.units:Bytes")
    of = "" if memory_bytes is None else f" {Bytes(memory_bytes)} of memory may be used."
    remedy = "" if verdict else " Try a smaller adapt.pack_tokens, a smaller adapter, or a smaller model."
    console.print()
    console.print(text("It fits." if verdict else "It does not fit.", "bold green" if verdict else "bold red"), end="")
    console.print(of + remedy)


def compared(console: Any, rung: dict[str, Any]) -> None:
    """Planned beside measured for one rung."""
    rows = [
        (one.title, one.show(one.planned), one.show_range() or one.why, _measured(one), _ratio(one))
        for one in resolve("genwright.web.summaries:compare")(rung.get("planned"), rung.get("measured"))
    ]
    if rows:
        console.print(heading(f"Planned beside measured: {rung['name']}"))
        console.print(table(("what", "planned", "range", "measured", "ratio"), rows, right=(1, 3, 4)))


def _measured(one: Any) -> str:
    return "-" if one.measured is None else one.show(one.measured)


def _ratio(one: Any) -> Any:
    if one.ratio is None:
        return "-"
    return text(
        f"x {one.ratio:.2f}" + (" outside" if one.within is False else ""), "yellow" if one.within is False else ""
    )


def scores(console: Any, metric: str, by_rung: dict[str, dict[str, Any]], chosen: str | None) -> None:
    """Test scores of every rung, with intervals."""
    names = sorted({name for found in by_rung.values() for name in found}, key=lambda name: (name != metric, name))
    if not names:
        return
    rows = [
        (f"{rung} *" if rung == chosen else rung, *(score_words(found.get(name)) for name in names))
        for rung, found in by_rung.items()
    ]
    console.print(heading("Scores on the test rows, with 95 % intervals (* chosen)"))
    console.print(table(("rung", *names), rows, right=range(1, len(names) + 1)))


def score_words(score: dict[str, Any] | None) -> str:
    """A score and its interval, such as 51.2 (46.0 to 56.1)."""
    if not score or score.get("value") is None:
        return "-"
    interval = f" ({score['low']:.1f} to {score['high']:.1f})" if score.get("low") is not None else ""
    return f"{score['value']:.1f}{interval}"


def pair_words(pair: dict[str, Any]) -> str:
    """One paired comparison as a sentence."""
    p = "p < 0.001" if pair["p_value"] < 0.001 else f"p = {pair['p_value']:.3f}"
    verdict = "better than" if pair["better"] else "not shown to be better than"
    numbers = f"{pair['difference']:+.1f} ({pair['low']:+.1f} to {pair['high']:+.1f})"
    return f"{pair['after']} is {verdict} {pair['before']} on the same rows: {numbers}, {p}, {pair['test']}"
