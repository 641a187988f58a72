"""Model cards as they are published on a hub: what one says, in five sections. Imports no torch.

A card is a README: a YAML block between two lines of `---`, then Markdown sections (Mitchell 2019, arXiv 1810.03993).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from genwright.base.errors import ModelError

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
