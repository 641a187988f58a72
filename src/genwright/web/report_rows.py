"""The report's rows and facts: samples before and after, what the data looked like, what was made and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from genwright.base.units import Bytes
from genwright.web.html import Html, tag
from genwright.web.report_parts import as_table, points, section
from genwright.web.summaries import Results

SAMPLES = 4
"""Rows shown of each kind: gained, lost, and wrong both times."""


def samples(results: Results) -> Html | None:
    """Test rows where the chosen rung won, lost, or did as before, beside the answers of the rung below it."""
    evaluate, chosen = results.stages.get("evaluate", {}), results.stages.get("adapt", {}).get("chosen", "")
    before = _rung_below(list(evaluate.get("scores", {})), chosen)
    after_rows = results.predictions(chosen)
    if not after_rows:
        return None
    before_rows = {_prompt(row): row for row in results.predictions(before)}
    both = [(before_rows.get(_prompt(row)), row) for row in after_rows]
    groups = [
        ("Gained", [pair for pair in both if pair[0] and pair[0]["score"] < pair[1]["score"]]),
        ("Lost", [pair for pair in both if pair[0] and pair[0]["score"] > pair[1]["score"]]),
        ("Unchanged", [pair for pair in both if not pair[0] or pair[0]["score"] == pair[1]["score"]]),
    ]
    count = ", ".join(f"{len(rows)} {name.lower()}" for name, rows in groups)
    lead = f"{chosen} beside {before}, row by row: {count}." if before else f"Answers of {chosen}."
    return section("Answers", lead, *(_sample_group(name, rows, before, chosen) for name, rows in groups if rows))


def _rung_below(rungs: list[str], chosen: str) -> str:
    """The rung that the chosen one is compared with: the one climbed just before it, or else the first other one."""
    below = rungs[: rungs.index(chosen)] if chosen in rungs else []
    return below[-1] if below else next((rung for rung in rungs if rung != chosen), "")


def _sample_group(name: str, rows: Sequence[Any], before: str, after: str) -> Html:
    cards = [_sample(old, new, before, after) for old, new in rows[:SAMPLES]]
    return tag("div", tag("h3", f"{name} ", tag("small", f"{len(rows)}")), *cards, class_=f"samples {name.lower()}")


def _sample(old: dict[str, Any] | None, new: dict[str, Any], before: str, after: str) -> Html:
    return tag(
        "article",
        tag("p", _prompt(new), class_="prompt"),
        tag(
            "dl",
            *_answer("wanted", str(new.get("reference", "")), None),
            *(_answer(before, str(old.get("prediction", "")), old.get("score")) if old else ()),
            *_answer(after, str(new.get("prediction", "")), new.get("score")),
        ),
    )


def _prompt(row: dict[str, Any]) -> str:
    prompt = row.get("prompt", "")
    if isinstance(prompt, list):
        return "\n".join(str(message.get("content", "")) for message in prompt if isinstance(message, dict))
    return str(prompt)


def _answer(name: str, words: str, score: float | None) -> Iterable[Html]:
    yield tag("dt", name, tag("small", f"{score:.0f}") if score is not None else None)
    yield tag("dd", tag("code", words or "(nothing)"))


def look(results: Results) -> Html | None:
    """One decoded sample with its learned tokens marked, and what the data are like in tokens."""
    seen = results.look
    if not seen:
        return None
    pieces = [tag("mark", piece) if learned else tag("span", piece) for piece, learned in seen.get("sample", [])]
    sample = tag("pre", *pieces, class_="tokens") if pieces else None
    warnings = [tag("li", warning) for warning in seen.get("warnings", [])]
    return section(
        "What the model was shown",
        "One training row as the model reads it; marked tokens are the ones it learns to write.",
        sample,
        tag("dl", *(part for pair in _look_facts(seen) for part in pair), class_="facts"),
        tag("ul", *warnings, class_="warnings") if warnings else None,
    )


def _look_facts(seen: dict[str, Any]) -> list[tuple[Html, Html]]:
    lengths = seen.get("lengths") or {}
    told = [
        ("format", seen.get("format")),
        ("rows", seen.get("rows")),
        ("tokens that are learned", _share(seen.get("learned_share"))),
        ("tokens a row", ", ".join(f"{name} {value:g}" for name, value in lengths.items()) or None),
        ("truncated", f"{seen.get('truncated_rows', 0)} rows, {seen.get('truncated_tokens', 0)} tokens"),
        ("packing fill", _share(seen.get("packing_fill"))),
        ("double beginning of text", seen.get("double_bos")),
        ("missing end of text", seen.get("missing_eos")),
    ]
    return [(tag("dt", name), tag("dd", value)) for name, value in told if value is not None]


def _share(fraction: float | None) -> str | None:
    return None if fraction is None else f"{100 * fraction:.1f} %"


def facts(results: Results) -> Html:
    """What it was made of: model, data, result, and the fingerprints that name each artifact."""
    told = [(name, value) for name, value in _facts(results) if value not in (None, "", {})]
    listed = tag("dl", *(part for name, value in told for part in (tag("dt", name), tag("dd", value))), class_="facts")
    keys = [[tag("th", stage, scope="row"), tag("td", tag("code", key))] for stage, key in results.keys.items()]
    return section("Small print", None, listed, as_table("Fingerprints", ["stage", "artifact"], keys))


def _facts(results: Results) -> list[tuple[str, Any]]:
    scope, select = (results.stages.get(stage, {}) for stage in ("scope", "select"))
    rows = ", ".join(f"{name} {count:,}" for name, count in (scope.get("rows") or {}).items())
    parameters = select.get("parameters")
    return [
        ("model", select.get("model")),
        ("source", select.get("source")),
        ("parameters", f"{parameters:,}" if parameters else None),
        ("licence", select.get("licence")),
        ("note", results.model_note()),
        ("rows", rows),
        ("smallest difference that this test can show", points(scope.get("minimum_detectable_difference"))),
        *_handed_over(results),
        *_environment(results),
    ]


def _handed_over(results: Results) -> list[tuple[str, Any]]:
    """What integrate made, where it stands below the project, and whether it still answers the same."""
    integrate, folder = results.stages.get("integrate"), results.folders.get("integrate")
    if not integrate or folder is None:
        return []
    place = folder / str(integrate.get("path", ""))
    where = place.relative_to(results.base) if place.is_relative_to(results.base) else place
    parity = (integrate.get("parity") or {}).get("max_logit_difference")
    return [
        (f"result ({integrate.get('form', '')})", f"{where}, {Bytes(integrate.get('bytes') or 0)}"),
        ("merged beside unmerged, largest logit difference", None if parity is None else f"{parity:.2g}"),
    ]


def _environment(results: Results) -> list[tuple[str, Any]]:
    """Versions and machine of the latest run."""
    told = [event for event in results.events if event["kind"] == "environment"]
    return [
        (str(name), str(value)) for name, value in (told[-1] if told else {}).items() if name not in ("time", "kind")
    ]
