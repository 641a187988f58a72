"""Model cards: what a published one says, and one for what was made here. Both in the hub's format. Imports no torch.

A card is a README: a YAML block between two lines of `---`, then Markdown sections (Mitchell 2019, arXiv 1810.03993).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from genwright.base.errors import ModelError
from genwright.base.units import Bytes, Joules, Money, Seconds

LONGEST_BLOCK = 200_000
"""Characters of YAML that are read; cards of the hub have a few hundred."""

DEEPEST = 20
"""Levels of YAML; the results of a card have eight."""

KINDS = (
    ("bias_risks_limitations", ("bias", "risk", "limit", "out-of-scope", "out of scope", "misuse", "ethical", "safety")),
    ("evaluation", ("evaluat", "benchmark", "results", "performance", "metrics")),
    ("training", ("training", "pretrain", "fine-tun", "finetun", "dataset", "data", "hyperparameter")),
    ("uses", ("use", "usage", "how to", "getting started", "get started", "quickstart", "quick start", "example")),
    ("details", ("detail", "description", "summary", "overview", "introduction", "about", "model")),
)  # fmt: skip
"""Words of a heading, and the part of the card it belongs to; the first that matches wins."""


@dataclass(frozen=True)
class Card:
    """A published card in five parts of Markdown, and its YAML block."""

    details: str = ""
    uses: str = ""
    bias_risks_limitations: str = ""
    training: str = ""
    evaluation: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The YAML block: license, language, base_model, datasets and the like."""


def read_card(text: str) -> Card:
    """A hub README, sorted by its headings; a heading that says nothing stays with the one above it.

    Errors: ModelError for a YAML block that is broken, far too long, or built of references.
    """
    block, body = _front_matter(text.lstrip("\ufeff"))
    parts: dict[str, list[str]] = {}
    above: list[tuple[int, str]] = [(0, "details")]
    for level, heading, content in _sections(body):
        while above[-1][0] >= level > 0:
            above.pop()
        kind = _kind(heading) or above[-1][1]
        if level:
            above.append((level, kind))
        if content.strip():
            parts.setdefault(kind, []).append(f"**{heading}**\n\n{content.strip()}" if heading else content.strip())
    return Card(metadata=block, **{kind: "\n\n".join(texts) for kind, texts in parts.items()})


SECTIONS = {
    "Details": ("details", ""), "Uses": ("uses", "uses"),
    "Bias, risks and limitations": ("bias_risks_limitations", "limits"), "Training details": ("training", "training_data"),
    "Evaluation": ("evaluation", "evaluations"),
}  # fmt: skip
"""Title -> (part of a published card, field of the catalogue's record)."""


def sections(record: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, str]:
    """The five sections of a model's card: what its publisher wrote, else what the catalogue knows; "" where neither says."""
    return {
        title: str(published.get(part) or "") or (_details(record) if title == "Details" else _words(record.get(field)))
        for title, (part, field) in SECTIONS.items()
    }


def _details(record: Mapping[str, Any]) -> str:
    told = [
        ("", record.get("title")), ("family", record.get("family")), ("stage", record.get("stage")),
        ("parameters", f"{record['parameters']:,}" if record.get("parameters") else ""), ("context", record.get("context")),
        ("licence", record.get("licence")), ("languages", ", ".join(record.get("languages") or ())),
    ]  # fmt: skip
    return "; ".join(f"{name} {value}".strip() for name, value in told if value)


def _words(value: Any) -> str:
    if not value:
        return ""
    return (
        str(value)
        if isinstance(value, str)
        else "\n".join(", ".join(f"{key} {part}" for key, part in one.items()) for one in value)
    )


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    import yaml  # type: ignore[import-untyped]

    match = re.match(r"---[ \t]*\r?\n(.*?\r?\n)?---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    if match is None:
        return {}, text
    block = match[1] or ""
    if len(block) > LONGEST_BLOCK:
        raise ModelError(
            "The model card's YAML block is too long to be one.",
            wanted=f"{LONGEST_BLOCK} characters",
            found=str(len(block)),
        )
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in _events(block)):
            raise ModelError(
                "The model card's YAML block is built of references, which can unfold without end.", do="write them out"
            )
        values = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(
            "The model card's YAML block is broken.", found=(str(error).splitlines() or [""])[0], do="mend it"
        ) from error
    return values if isinstance(values, dict) else {}, text[match.end() :]


def _events(block: str) -> Iterator[Any]:
    """The block's tokens, read lazily: what nests deeper than any card is given up before it costs time."""
    import yaml

    depth = 0
    for event in yaml.parse(block, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        yield event


def _sections(body: str) -> Iterator[tuple[int, str, str]]:
    """(level, heading, content), in order; what stands before the first heading has level 0. Code is not searched."""
    level, heading, fence = 0, "", ""
    content: list[str] = []
    for line in body.splitlines():
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        title = None if fence or mark else re.match(r"(#{1,6})\s+(.*?)\s*#*\s*$", line)
        if title:
            yield level, heading, "\n".join(content)
            level, heading, content = len(title[1]), re.sub(r"[*_`]|<[^>]*>", "", title[2]).strip(), []
        else:
            content.append(line)
    yield level, heading, "\n".join(content)


def _kind(heading: str) -> str:
    words = heading.lower()
    for kind, signs in KINDS:
        if any(re.search(rf"\b{sign}", words) for sign in signs):
            return kind
    return ""


# --- what was made here -----------------------------------------------------------------------------------------------


def write_card(name: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """The card of a project's result, from the summaries of its stages (scope, select, adapt, evaluate, integrate).

    Only what was recorded is said: a stage that has not run leaves its section out.
    """
    parts = [
        _head(name, summaries),
        _made(name, summaries),
        _data(summaries),
        _scores(summaries),
        _costs(summaries),
        _limits(summaries),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(name: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    import yaml

    scope, select, evaluate = (summaries.get(stage, {}) for stage in ("scope", "select", "evaluate"))
    results = [
        {"type": metric, "value": round(score["value"], 2), "name": metric}
        for metric, score in evaluate.get("scores", {}).get(_chosen(summaries), {}).items()
    ]
    block: dict[str, Any] = {
        "license": str(select.get("licence") or "unknown").lower(),
        "base_model": _hub_name(str(select.get("source", ""))) or select.get("model"),
        "library_name": "transformers" if summaries.get("integrate", {}).get("form") != "adapter" else "peft",
        "tags": ["genwright", *([scope["task"]] if scope.get("task") else [])],
    }
    if results:
        data = {"type": "project", "name": f"{name} ({evaluate['split']})"}
        task = {"type": scope.get("task", "text-generation")}
        block["model-index"] = [{"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True)}---"


def _hub_name(source: str) -> str:
    return source.removeprefix("hub:").partition("@")[0] if source.startswith("hub:") else ""


def _chosen(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    return str(summaries.get("evaluate", {}).get("chosen") or summaries.get("adapt", {}).get("chosen") or "")


def _made(name: str, summaries: Mapping[str, Mapping[str, Any]]) -> str:
    select, adapt, integrate = (summaries.get(stage, {}) for stage in ("select", "adapt", "integrate"))
    lines = [f"# {name}", "", "Made with Genwright.", ""]
    lines += [f"- **Base model**: {select['model']} (`{select.get('source', '')}`)"] if select.get("model") else []
    lines += [f"- **About its weights**: {select['note']}"] if select.get("note") else []
    lines += [f"- **Method**: {_chosen(summaries)}"] if _chosen(summaries) else []
    recipe = adapt.get("recipes", {}).get(_chosen(summaries))
    lines += [f"- **Recipe**: {_flat(recipe)}"] if recipe else []
    lines += [f"- **Form**: {integrate['form']}, {Bytes(integrate['bytes'])}"] if integrate.get("form") else []
    parity = integrate.get("parity")
    if parity:
        lines.append(
            "- **Merged in float32**: logits differ from the adapted model's by at most "
            f"{parity['max_logit_difference']:.2g} (tolerance {parity['tolerance']:g}, {parity['rows']} prompts)"
        )
    return "\n".join(lines)


def _flat(recipe: Mapping[str, Any], before: str = "") -> str:
    """`steps = 100`, `adapter.rank = 16`, …"""
    words = [
        _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else f"`{before}{key} = {value}`"
        for key, value in recipe.items()
    ]
    return ", ".join(word for word in words if word)


def _data(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    scope = summaries.get("scope", {})
    if not scope.get("rows"):
        return ""
    lines = [
        f"## Training data\n\nFormat: {scope.get('format', 'unknown')}.\n",
        "| split | rows | groups |",
        "|---|---|---|",
    ]
    groups = scope.get("groups", {})
    for split, rows in scope["rows"].items():
        lines.append(f"| {split} | {rows} | {groups.get(split, '') if isinstance(groups, Mapping) else ''} |")
    lines += [""] + [f"- {which} file: SHA-256 `{digest}`" for which, digest in scope.get("fingerprints", {}).items()]
    return "\n".join(lines).rstrip()


def _scores(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    evaluate = summaries.get("evaluate", {})
    if not evaluate.get("scores"):
        return ""
    lines = [f"## Evaluation\n\nOn the {evaluate['split']} rows, read once; 95 % intervals in brackets.\n"]
    lines += ["| rung | metric | value | rows |", "|---|---|---|---|"]
    for rung, scores in evaluate["scores"].items():
        for metric, score in scores.items():
            value = f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
            lines.append(f"| {rung} | {metric} | {value} | {score['n']} |")
    lines.append("")
    for pair in evaluate.get("paired", ()):
        lines.append(
            f"- {pair['before']} → {pair['after']}: {pair['difference']:+.1f} "
            f"[{pair['low']:+.1f}, {pair['high']:+.1f}], p = {pair['p_value']:.2g} ({pair['test']})"
        )
    if evaluate.get("target") is not None:
        met = "met" if evaluate.get("met") else "not met"
        lines.append(f"- Target: {evaluate['metric']} {evaluate['target']:g}: {met}")
    return "\n".join(lines).rstrip()


UNITS = {"train_peak_bytes": Bytes, "host_bytes": Bytes, "seconds": Seconds, "joules": Joules, "usd": Money}


def _costs(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    rungs = [rung for rung in summaries.get("adapt", {}).get("rungs", ()) if rung.get("measured")]
    lines = [
        f"| {rung['name']} | {quantity} | {_said(rung.get('planned', {}), quantity)} | {_said(rung['measured'], quantity)} |"
        for rung in rungs
        for quantity in UNITS
        if rung["measured"].get(quantity) is not None or rung.get("planned", {}).get(quantity) is not None
    ]
    if not lines:
        return ""
    return "\n".join(
        ["## Planned and measured\n", "| rung | quantity | planned | measured |", "|---|---|---|---|", *lines]
    )


def _said(quantities: Mapping[str, Any], name: str) -> str:
    return "unknown" if quantities.get(name) is None else str(UNITS[name](quantities[name]))


def _limits(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    scope, select, evaluate = (summaries.get(stage, {}) for stage in ("scope", "select", "evaluate"))
    lines = (
        ["It has the biases and gaps of its base model, whose card applies to it too."] if select.get("model") else []
    )
    lines += [f"The base weights were {select['note']}."] if select.get("note") else []
    lines += (
        [f"Nothing is known about it outside of the {scope['task']} task it was made for."] if scope.get("task") else []
    )
    if scope.get("minimum_detectable_difference") and evaluate.get("scores"):
        lines.append(
            f"Differences below {scope['minimum_detectable_difference']:.1f} points cannot be seen on "
            f"{scope['rows']['test']} test rows."
        )
    lines += list(scope.get("warnings", ()))
    return "## Bias, risks and limitations\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
