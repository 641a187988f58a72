"""The card of what a project made, in the hub's format: a YAML block and Markdown (Mitchell 2019, arXiv 1810.03993). No torch.

Only what the stages recorded is said: a stage that has not run leaves its section out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from genwright.base.units import Bytes, Joules, Money, Seconds

Summaries = Mapping[str, Mapping[str, Any]]
"""Stage -> its summary: scope, select, adapt, evaluate, unlearn, integrate."""

LICENCES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "openrail", "bigscience-bloom-rail-1.0", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "llama2", "llama3", "llama3.1", "llama3.2", "gemma",
    "unknown", "other",
)  # fmt: skip
"""Identifiers that the hub knows; any other licence is "other" with its name beside it."""

PIPELINES = {
    "summarization": "summarization", "translation": "translation", "question-answering": "question-answering",
    "classification": "text-classification", "sentiment": "text-classification", "named-entities": "token-classification",
    "word-classification": "token-classification", "information-retrieval": "sentence-similarity",
}  # fmt: skip
"""Task -> how the hub calls it; the rest is "text-generation"."""

RELATIONS = {"adapter": "adapter", "merged": "finetune", "model": "finetune"}
"""Form of what was handed over -> its relation to the base, as the hub calls it."""


def write_card(name: str, summaries: Summaries) -> str:
    """The card of a project's result, from the summaries of its stages."""
    parts = [
        _head(name, summaries),
        _made(name, summaries),
        _asked(summaries),
        _data(summaries),
        _scores(summaries),
        _forgot(summaries),
        _costs(summaries),
        _limits(summaries),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- the YAML block ---------------------------------------------------------------------------------------------------


def _head(name: str, summaries: Summaries) -> str:
    import yaml  # type: ignore[import-untyped]

    block = {key: value for key, value in _block(name, summaries).items() if value}
    return f"---\n{yaml.safe_dump(block, sort_keys=False, allow_unicode=True)}---"


def _block(name: str, summaries: Summaries) -> dict[str, Any]:
    scope, select, integrate = (summaries.get(stage, {}) for stage in ("scope", "select", "integrate"))
    scores = summaries.get("evaluate", {}).get("scores", {}).get(_chosen(summaries), {})
    base = _hub_name(str(select.get("source", ""))) or select.get("model")
    return {
        **_licence(str(select.get("licence") or "unknown")),
        "base_model": base,
        "base_model_relation": RELATIONS.get(str(integrate.get("form"))) if base else None,
        "library_name": "transformers" if integrate.get("form") != "adapter" else "peft",
        "pipeline_tag": _pipeline(scope),
        "tags": ["genwright", *([scope["task"]] if scope.get("task") else [])],
        "metrics": list(scores),
        "data_fingerprints": {which: f"sha256:{digest}" for which, digest in _fingerprints(scope).items()},
        "model-index": [{"name": name, "results": [_result(name, summaries, scores)]}] if scores else None,
    }


def _licence(said: str) -> dict[str, str]:
    known = said.lower()
    return {"license": known} if known in LICENCES else {"license": "other", "license_name": said}


def _pipeline(scope: Mapping[str, Any]) -> str:
    return PIPELINES.get(str(scope.get("task")), "text-generation") if scope.get("task") else ""


def _result(name: str, summaries: Summaries, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    scope, evaluate = summaries.get("scope", {}), summaries["evaluate"]
    prints = _fingerprints(scope)
    data = {"type": "project", "name": f"{name} ({evaluate['split']})", "split": evaluate["split"]}
    data |= {"revision": f"sha256:{prints.get(evaluate['split'], prints.get('train'))}"} if prints else {}
    metrics = [{"type": metric, "value": round(score["value"], 2), "name": metric} for metric, score in scores.items()]
    return {"task": {"type": _pipeline(scope) or "text-generation"}, "dataset": data, "metrics": metrics}


def _fingerprints(scope: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each file that rows were read from; a split without one was drawn from the training file."""
    text = scope.get("text", {}).get("fingerprint")
    return {**scope.get("fingerprints", {}), **({"text": text} if text else {})}


def _hub_name(source: str) -> str:
    return source.removeprefix("hub:").partition("@")[0] if source.startswith("hub:") else ""


def _told(source: str) -> str:
    """A source as others may read it: of a folder or file on this machine its name, not the way to it."""
    kind, _, where = source.partition(":")
    path, pin, digest = where.partition("?")
    return f"{kind}:{PurePath(path).name}{pin}{digest}" if kind in ("folder", "gguf") else source


def _chosen(summaries: Summaries) -> str:
    return str(summaries.get("evaluate", {}).get("chosen") or summaries.get("adapt", {}).get("chosen") or "")


def _rung(summaries: Summaries) -> Mapping[str, Any]:
    rungs = summaries.get("adapt", {}).get("rungs", ())
    return next((rung for rung in rungs if rung["name"] == _chosen(summaries)), {})


# --- sections ---------------------------------------------------------------------------------------------------------


def _made(name: str, summaries: Summaries) -> str:
    select, adapt, integrate = (summaries.get(stage, {}) for stage in ("select", "adapt", "integrate"))
    lines = [f"# {name}", "", "Made with Genwright.", ""]
    lines += (
        [f"- **Base model**: {select['model']} (`{_told(select.get('source', ''))}`)"] if select.get("model") else []
    )
    lines += [f"- **About its weights**: {select['note']}"] if select.get("note") else []
    lines += [f"- **Method**: {_chosen(summaries)}"] if _chosen(summaries) else []
    lines += [
        f"- **Recipe{part.removeprefix(_chosen(summaries)).replace(': ', ' of ')}**: {_flat(recipe)}"
        for part, recipe in adapt.get("recipes", {}).items()
        if part.partition(": ")[0] == _chosen(summaries)
    ]
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


def _asked(summaries: Summaries) -> str:
    """How a question must be put for the scores to hold: the prompt that was searched, or a number of examples."""
    prompt = summaries.get("integrate", {}).get("prompt") or {}
    if not prompt.get("instruction") and not prompt.get("examples"):
        return ""
    lines = []
    if prompt.get("instruction"):
        lines += [
            "Before the first question stands:",
            "",
            *(f"> {line}" for line in str(prompt["instruction"]).splitlines()),
        ]
    if prompt.get("examples"):
        side = "next to the question" if prompt.get("nearest_last", True) else "first"
        lines += [
            "",
            f"{prompt['examples']} of the training rows nearest to the question stand before it, the nearest {side}.",
        ]
    return "\n".join(["## How to ask it", "", *lines, "", "The scores below hold for questions put in this way."])


def _data(summaries: Summaries) -> str:
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
    lines += [f"| raw text | {scope['text']['rows']} | |"] if scope.get("text") else []
    lines += [""] + [f"- {which} file: SHA-256 `{digest}`" for which, digest in _fingerprints(scope).items()]
    return "\n".join(lines).rstrip()


def _scores(summaries: Summaries) -> str:
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


def _forgot(summaries: Summaries) -> str:
    """What was taken out after the scores above were measured, and what that did to the rest."""
    found = summaries.get("unlearn", {})
    if not found:
        return ""
    lines = [
        f"## Forgetting\n\nThe scores above are of the model before it was made to forget {found['forget_rows']} rows by {found['method']} "
        f"({found['steps']} steps, {found['retain_rows']} rows to keep).\n",
        "| what | before | after | as it should be |", "|---|---|---|---|",
    ]  # fmt: skip
    before, after = (found[when]["forget"]["rouge_l"] for when in ("before", "after"))
    lines.append(_line("rows to forget, ROUGE-L", before, after, found["forgotten"]["holds"], 100.0))
    lines += [
        _line(f"{name}, ROUGE-L", one["before"], one["after"], one["holds"], 100.0)
        for name, one in found["kept"].items()
    ]
    lines += [
        _line(f"{name}, {one['metric']}", one["before"], one["after"], one["holds"])
        for name, one in found["benchmarks"].items()
    ]
    return "\n".join(lines)


def _line(what: str, before: float, after: float, holds: bool, times: float = 1.0) -> str:
    return f"| {what} | {times * before:.1f} | {times * after:.1f} | {'yes' if holds else 'no'} |"


UNITS = {"train_peak_bytes": Bytes, "host_bytes": Bytes, "seconds": Seconds, "joules": Joules, "usd": Money}


def _costs(summaries: Summaries) -> str:
    rungs = [rung for rung in summaries.get("adapt", {}).get("rungs", ()) if rung.get("measured")]
    lines = [
        f"| {rung['name']} | {quantity} | {_planned(rung.get('planned', {}), quantity)} | {_said(rung['measured'], quantity)} |"
        for rung in rungs
        for quantity in UNITS
        if rung["measured"].get(quantity) is not None or rung.get("planned", {}).get(quantity) is not None
    ]
    if not lines:
        return ""
    table = ["## Planned and measured\n", "| rung | quantity | planned | measured |", "|---|---|---|---|", *lines]
    return "\n".join([*table, "", _energy(summaries)]).rstrip()


def _planned(quantities: Mapping[str, Any], name: str) -> str:
    """The value, and the range that was planned where one was recorded."""
    low, high = (quantities.get(bound, {}).get(name) for bound in ("low", "high"))
    if quantities.get(name) is None or low is None or high is None or low == high:
        return _said(quantities, name)
    return f"{_said(quantities, name)} ({UNITS[name](low)} to {UNITS[name](high)})"


def _said(quantities: Mapping[str, Any], name: str) -> str:
    return "unknown" if quantities.get(name) is None else str(UNITS[name](quantities[name]))


def _energy(summaries: Summaries) -> str:
    """Energy with its source: stated watts times time, of the chosen rung and of every rung; nothing where none is stated."""
    measured = [rung["measured"] for rung in summaries.get("adapt", {}).get("rungs", ()) if rung.get("measured")]
    known = [one for one in measured if one.get("joules")]
    if not known:
        return "Energy is not known: the project states no watts."
    stated = " or ".join(f"{value:.4g} W" for value in dict.fromkeys(one.get("watts") for one in known) if value)
    chosen = _rung(summaries).get("measured", {}).get("joules")
    own = f"Energy: {Joules(chosen)} for {_chosen(summaries)}, " if chosen else "Energy: "
    total = Joules(sum(one["joules"] for one in known))
    source = f"the time measured times the {stated or 'watts'} that the project states; nothing was metered"
    return f"{own}{total} for all rungs. That is {source}."


def _limits(summaries: Summaries) -> str:
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
