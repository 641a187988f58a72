"""The page of one explained answer. Beside every picture stands the number that says how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genwright.web.html import Html, tag
from genwright.web.plots import curves


def render(found: dict[str, Any]) -> str:
    """The page. Questions, answers and rows are text: nothing in them is markup."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    title = "Why it said that"
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("style", Html(css)))
    body = tag("body", tag("main", tag("h1", title), *sections(found)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def sections(found: dict[str, Any]) -> Iterable[Html]:
    """In the order of the page."""
    yield tag(
        "section", tag("h2", "Asked"), tag("p", found["question"]), tag("h2", "Answered"), tag("p", found["answer"])
    )
    if "classes" in found:
        rows = [
            (name, f"{math.exp(value):.3f}")
            for name, value in sorted(found["classes"].items(), key=lambda one: -one[1])
        ]
        yield tag("section", _table("Classes", ("class", "probability"), rows))
    for name, one in found["attributions"].items():
        yield tag("section", tag("h2", name.capitalize()), *_attribution(found["prompt"], one))
    if "tokens" in found:
        yield tag("section", tag("h2", "How sure it was"), _tokens(found["tokens"]))
        yield tag("section", tag("h2", "Layer by layer"), *_layers(found))
    if "rows" in found:
        told = f"{found['rows_compared']} of {found['rows_in_all']} training rows were compared; first those nearest by gradient."
        yield tag(
            "section",
            tag("h2", "Nearest training rows"),
            tag("p", told),
            tag("p", _rows_trust(found["rows_faithfulness"])),
            _rows(found["rows"]),
        )


def _attribution(tokens: Sequence[str], one: dict[str, Any]) -> Iterable[Html]:
    most = max((abs(value) for value in one["parts"]), default=0.0) or 1.0
    yield tag("p", *(_coloured(token, value / most, value) for token, value in zip(tokens, one["parts"])))
    yield tag("p", _trust(one))
    lines = [
        (name, [(100 * at / max(1, len(ys) - 1), y) for at, y in enumerate(ys)])
        for name, ys in one["faithfulness"]["curves"].items()
    ]
    yield curves(
        lines,
        x_title="tokens taken away or put back, %",
        y_title="score, 1 = whole prompt",
        label="Deletion and insertion",
    )


def _coloured(token: str, share: float, value: float) -> Html:
    """Green for, red for against; the number stands in the tooltip and, for readers of the page's text, in JSON."""
    colour = "46, 125, 50" if share > 0 else "198, 40, 40"
    return tag("span", token, style=f"background: rgba({colour}, {0.6 * abs(share):.2f})", title=f"{value:+.4f}")


def _trust(one: dict[str, Any]) -> str:
    faith = one["faithfulness"]
    told = [
        f"{name} area {faith['areas'][name]:.2f}, of orders by chance {faith['random_areas'][name]:.2f} ({faith['gain'][name]:+.2f})"
        for name in ("deletion", "insertion")
    ]
    better = all(value > 0 for value in faith["gain"].values())
    verdict = (
        "Better than chance by both." if better else "Not better than chance by both: do not build on this picture."
    )
    gap = f" The parts miss their sum by {100 * one['incompleteness']:.1f} %." if "incompleteness" in one else ""
    return f"Faithfulness: {'; '.join(told)}. {verdict}{gap}"


def _rows_trust(faith: dict[str, Any]) -> str:
    """Taught by one short step, how much more the nearest rows raise the answer's log-probability than rows by chance."""
    told = [f"{key.split('_')[0]} {faith['nearest'][key]:+.3f} ({value:+.3f})" for key, value in faith["gain"].items()]
    verdict = "Better than chance by both." if min(faith["gain"].values()) > 0 else "Not better than chance by both."
    return (
        f"Faithfulness: taught by one short step, the nearest rows raise the answer's score by {'; '.join(told)}, "
        f"rows by chance by {faith['chance']:+.3f}. {verdict}"
    )  # fmt: skip


def _tokens(tokens: list[dict[str, Any]]) -> Html:
    instead = lambda one: ", ".join(f"{token!r} {chance:.2f}" for token, chance in one["likeliest"][:3])
    rows = [
        (repr(one["token"]), f"{one['probability']:.3f}", f"{one['entropy_bits']:.2f}", instead(one)) for one in tokens
    ]
    return _table("Tokens of the answer", ("token", "probability", "entropy, bits", "likeliest"), rows)


def _layers(found: dict[str, Any]) -> Iterable[Html]:
    yield tag(
        "p",
        "What each layer would have said, read through the final norm and the head; in brackets the rank of what was said.",
    )
    heads = ["layer", *(repr(one["token"]) for one in found["tokens"])]
    rows = [
        [one["layer"] or "embeddings", *(f"{word!r} ({rank})" for word, rank in zip(one["says"], one["rank"]))]
        for one in found["layers"]
    ]
    yield _table("Logit lens", heads, rows)


def _rows(rows: list[dict[str, Any]]) -> Html:
    cells = [
        (
            one["place"],
            one["text"],
            f"{one['gradient_cosine']:.3f}",
            f"{one['gradient_dot']:.3g}",
            f"{one['embedding_cosine']:.3f}",
        )
        for one in rows
    ]
    return _table("Training rows", ("row", "text", "gradient cosine", "gradient dot", "embedding cosine"), cells)


def _table(caption: str, heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Html:
    cells = [tag("tr", *(tag("th", head, scope="col") for head in heads))]
    cells += [tag("tr", *(tag("td", value) for value in row)) for row in rows]
    return tag("table", tag("caption", caption), *cells)
