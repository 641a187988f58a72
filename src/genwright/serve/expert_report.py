"""How well a library routes, on the held-out queries that its experts brought: confusion, regret against the oracle, abstention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from genwright.base.errors import BadRequest, DataError
from genwright.base.files import json_lines, text_of, write_atomic
from genwright.serve.embed import Embedder
from genwright.serve.expert_profile import ExpertProfile
from genwright.serve.experts import ExpertLibrary, publish
from genwright.serve.router import CentroidRouter, confusion

CELL = 26
STEPS = 21


def library_of(folder: Path) -> ExpertLibrary:
    """The library of a folder, there or not yet."""
    return ExpertLibrary(folder)


def listed(library: ExpertLibrary) -> list[dict[str, Any]]:
    """Name, version, base, rows, licence, path of each."""
    return [
        {
            "name": one.name, "version": one.version, "path": str(one.path),
            **{key: one.card.get(key) for key in ("base", "rows", "licence", "task")},
        }
        for one in library.experts()
    ]  # fmt: skip


def take_in(library: ExpertLibrary, adapter: Path, name: str, texts: Path | None) -> dict[str, Any]:
    """Add an adapter; with a file of its training queries its profile is made first. Errors: DataError, and as `publish`."""
    if texts is None:
        expert = library.add(adapter, name)
    else:
        from genwright.serve.embed import packaged_embedder

        expert = publish(library, adapter, queries_of(texts), packaged_embedder(), name=name)
    return {"name": expert.name, "version": expert.version, "path": str(expert.path)}


def queries_of(file: Path) -> list[str]:
    """One a line; of a .jsonl file the strings, or what rows call `prompt` or `text`: these may have lines of their own.

    Errors: DataError for a file that is not UTF-8, a line that is no JSON, a row without either.
    """
    if file.suffix != ".jsonl":
        return text_of(file).split("\n")
    found = [row if isinstance(row, str) else _asked(row) for row in json_lines(file)]
    if None in found:
        place = found.index(None) + 1
        raise DataError(f"Row {place} of {file} is no query.", wanted='a text, or a row with a "prompt" or a "text"')
    return [text for text in found if text is not None]


def _asked(row: Any) -> str | None:
    told = (row.get("prompt") or row.get("text")) if isinstance(row, dict) else None
    return told if isinstance(told, str) else None


def report_of(library: ExpertLibrary, embedder: Embedder | None = None) -> dict[str, Any]:
    """Everything `genwright experts test` tells. Errors: BadRequest where no expert has a profile."""
    if embedder is None:
        from genwright.serve.embed import packaged_embedder

        embedder = packaged_embedder()
    profiles = [one for one in library.profiles() if one.card.get("encoder") == embedder.sha256]
    if not profiles:
        raise BadRequest(
            "No expert of this library has a profile of this encoder.", do="`genwright experts add DIR --texts FILE`"
        )
    return judged(CentroidRouter(embedder, profiles, sparing=True), profiles)


def judged(router: CentroidRouter, profiles: Sequence[ExpertProfile]) -> dict[str, Any]:
    """Of a router that knows these experts and spares their held-out queries.

    The same queries set its threshold: the shares are a little kind (docs/routing.md).
    """
    fitted = router.fitted
    assert fitted is not None, "there are profiles"
    found = confusion(router, {one.name: one.held_out for one in profiles})
    right = sum(row.get(name, 0) for name, row in found.items())
    total = sum(len(one.held_out) for one in profiles)
    return {
        "experts": len(profiles), "queries": total, "correct": right / total,
        "abstained": sum(row.get("", 0) for row in found.values()) / total,
        "false_routes_of_background": fitted.false_routes, "regret": regret(found, profiles), "confusion": found,
        "abstention": curve(router, profiles),
    }  # fmt: skip


def regret(found: Mapping[str, Mapping[str, int]], profiles: Sequence[ExpertProfile]) -> float:
    """What the oracle scores more, a query: an expert's own queries score its card's `expert`, sent elsewhere its card's `base`.

    A card without scores counts 1 and 0: the share that did not reach its expert.
    """
    lost, total = 0.0, 0
    for one in profiles:
        told = one.card.get("scores") or {}
        gain = float(told.get("expert", 1.0)) - float(told.get("base", 0.0))
        row = found[one.name]
        wrong = sum(row.values()) - row.get(one.name, 0)
        lost, total = lost + wrong * max(0.0, gain), total + sum(row.values())
    return lost / total


def curve(router: CentroidRouter, profiles: Sequence[ExpertProfile]) -> list[dict[str, float]]:
    """Over thresholds: share of own queries answered by the right expert, and share of background sent to the base."""
    fitted = router.fitted
    assert fitted is not None, "there are profiles"
    place = {name: number for number, name in enumerate(fitted.names)}
    own, good = [], []
    for one in profiles:
        scores = fitted.scores(one.calibration_VD, one.calibration_words_VW, one.calibration_forms_VE)
        own.append(scores.max(1))
        good.append(scores.argmax(1) == place[one.name])
    best, right = np.concatenate(own), np.concatenate(good)
    ground = router.background
    other = fitted.scores(ground.held_out, ground.held_out_words, ground.held_out_forms).max(1)
    edges = np.quantile(np.concatenate([best, other]), np.linspace(0, 1, STEPS))
    return [
        {"threshold": float(edge), "correct": float((right & (best >= edge)).mean()), "background_kept_out": float((other < edge).mean())}
        for edge in edges
    ]  # fmt: skip


def write_plot(told: Mapping[str, Any], out: Path) -> None:
    """The confusion matrix and the abstention curve as one SVG."""
    names = sorted(told["confusion"])
    columns = [*names, ""]
    left, top = 12 + 7 * max(len(name) for name in names), 120
    cells = [
        _cell(left + CELL * x, top + CELL * y, told["confusion"][name].get(column, 0), sum(told["confusion"][name].values()))
        for y, name in enumerate(names) for x, column in enumerate(columns)
    ]  # fmt: skip
    rows = [
        f'<text x="{left - 6}" y="{top + CELL * y + 17}" text-anchor="end">{escape(n)}</text>'
        for y, n in enumerate(names)
    ]
    heads = [
        f'<text transform="translate({left + CELL * x + 17},{top - 6}) rotate(-60)">{escape(n or "base")}</text>'
        for x, n in enumerate(columns)
    ]
    below = top + CELL * len(names) + 30
    width = max(left + CELL * len(columns) + 90, left + 320)
    body = "".join([*cells, *rows, *heads, _drawn(told["abstention"], left, below)])
    title = f'<text x="8" y="18">asked of (row), answered by (column): {told["correct"]:.1%} right, regret {told["regret"]:.3f}</text>'
    size = f'width="{width}" height="{below + 240}" font-family="sans-serif" font-size="11"'
    write_atomic(out, f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{title}{body}</svg>')


def _cell(x: int, y: int, count: int, total: int) -> str:
    share = count / max(1, total)
    ink = "white" if share > 0.5 else "black"
    number = f'<text x="{x + CELL // 2}" y="{y + 17}" text-anchor="middle" fill="{ink}">{count}</text>' if count else ""
    return f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="rgba(20,70,140,{max(0.04, share):.2f})"/>{number}'


def _drawn(points: Sequence[Mapping[str, float]], left: int, top: int) -> str:
    """Right answers (up) over background kept out (right)."""
    path = " ".join(
        f"{left + 200 * one['background_kept_out']:.1f},{top + 200 - 200 * one['correct']:.1f}" for one in points
    )
    return (
        f'<rect x="{left}" y="{top}" width="200" height="200" fill="none" stroke="#999"/>'
        f'<polyline points="{path}" fill="none" stroke="rgb(20,70,140)" stroke-width="2"/>'
        f'<text x="{left}" y="{top + 216}">background kept out, 0 to 1; up: answered by the right expert</text>'
    )
