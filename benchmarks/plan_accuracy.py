"""The plan against published measurements: error by quantity, three baselines on the same rows, the worst misses.

    python benchmarks/plan_accuracy.py --data DIR [--cache DIR]      DIR holds training_open.csv and inference_open.csv

Memory is matched by kind before it is scored: "allocated" and "active" with ours active; "not stated" is right anywhere from
active to device, else it misses by the nearer end. Refused rows are counted, never dropped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import resource
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import plan_accuracy_page as page
from genwright.catalogue.architectures import stated
from genwright.catalogue.device_names import place
from genwright.plan.published.rows import predict_all, read_rows
from machine import write_result

GIB = 2**30
SKIPPED = {
    **dict.fromkeys(("bigscience-037", "bigscience-038", "bigscience-039"), "published with a wrong global batch"),
    "maxtext-015": "published with two digits swapped",
    **dict.fromkeys(("nano-vllm-001", "nano-vllm-002"), "256 requests of random lengths, not the batch that is stated"),
}
"""Rows that nothing can be scored on, each with the reason; the reference of the data says so."""
RESULT = Path(__file__).parent / "results" / "plan_accuracy.json"


def gib(row: dict[str, str]) -> float:
    """A row's memory of one device, 0 where none is published."""
    if not row.get("mem_value"):
        return 0.0
    value = float(re.sub(r"[^\d.]", "", row["mem_value"])) * (1.0 if row["mem_unit"] == "GiB" else 1e9 / GIB)
    return (
        value / float(row["n_devices"] or 1)
        if row.get("mem_scope", row.get("mem_kind", "")).startswith("sum")
        else value
    )


def memory_error(row: dict[str, str], found: dict[str, Any]) -> tuple[str, float] | None:
    """(kind, relative error) of a training row."""
    measured = gib(row)
    if not measured or row["outcome"] != "ok":
        return None
    kind = row["mem_kind"].casefold()
    if kind.startswith(("allocated", "active")):
        return "active", found["peak_active_gib"] / measured - 1
    low, high = found["peak_active_gib"], found["peak_device_gib"]
    return "not stated", 0.0 if low <= measured <= high else min(
        (low, high), key=lambda one: abs(one - measured)
    ) / measured - 1


def time_error(row: dict[str, str], found: dict[str, Any]) -> float | None:
    """Relative error of seconds a step, from whichever is published."""
    if "step_s" not in found or row["outcome"] != "ok":
        return None
    if row.get("step_time_s"):
        return float(found["step_s"] / float(row["step_time_s"]) - 1)
    if row.get("tokens_per_s_per_device"):
        return float(row["tokens_per_s_per_device"]) / found["tokens_per_s_per_device"] - 1
    if row.get("tokens_per_s_total"):
        return float(row["tokens_per_s_total"]) / float(row["n_devices"] or 1) / found["tokens_per_s_per_device"] - 1
    return float(row["mfu_pct"]) / found["mfu_pct"] - 1 if row.get("mfu_pct") else None


def latency_errors(row: dict[str, str], found: dict[str, Any]) -> dict[str, float]:
    """Of a serving row: memory, prefill and decode."""
    errors: dict[str, float] = {}
    if row["outcome"] != "ok":
        return errors
    if measured := gib(row):
        errors["serving memory"] = found["mem_gib"] / measured - 1
    for ours, theirs in (
        ("prefill_ms", "prefill_ms"),
        ("token_ms", "token_ms"),
        ("output_tokens_per_s", "output_tokens_per_s"),
    ):
        if row.get(theirs):
            name = {"prefill_ms": "prefill", "token_ms": "decode", "output_tokens_per_s": "decode"}[ours]
            share = found[ours] / float(row[theirs])
            errors[name] = 1 / share - 1 if ours == "output_tokens_per_s" else share - 1
    if row["source_key"] == "splitwise" and row["parallel"] == "TP2" and row["batch_size"] == "64":
        errors.pop("prefill", None)  # not of the whole batch, as published
    if row.get("ms_per_token"):
        errors["decode"] = found["token_ms"] / (float(row["ms_per_token"]) * float(row["batch_size"] or 1)) - 1
    if row.get("total_tokens_per_s") and row.get("input_tokens"):
        errors["prefill"] = (
            found["prefill_ms"] / (1e3 * float(row["input_tokens"]) / float(row["total_tokens_per_s"])) - 1
        )
    return errors


def baselines(row: dict[str, str]) -> dict[str, float]:
    """GiB a device by the public rules, each only where it is meant for: full fine-tuning of a base that is not quantised.

    Accelerate (`estimate-memory`): the largest of weights, gradients and Adam's state, on one device or copies: 4 times the weights.
    DeepSpeed (`estimate_zero2/3_model_states_mem_needs`): 18 bytes a weight over n devices in stage 3, 2 + 16 / n in stage 2.
    """
    if row["adapt_norm"] != "full" or re.search(
        "int4|int8|nf4|8-?bit", f"{row['precision']} {row['optimizer']}".casefold()
    ):
        return {}
    parameters, count = stated(row["model"], row["notes"]).parameters, float(row["n_devices"] or 1)
    strategy = row["strategy_norm"].split("_")[0]
    if strategy in ("zero2", "zero3"):
        return {"DeepSpeed's estimators": parameters * (18 / count if strategy == "zero3" else 2 + 16 / count) / GIB}
    rules = {"DeepSpeed's estimators": parameters * 18 / GIB} if strategy == "single" else {}
    each = 4 if "32" in row["precision"] else 2
    return rules | (
        {"accelerate estimate-memory": parameters * 4 * each / GIB} if strategy in ("single", "ddp") else {}
    )


def ranking(rows: list[dict[str, str]], found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Pairs of rows that differ in how a job is split and little else: how often the faster one was foretold.

    A pair shares source, model, devices and length; their measured rates are at least 5 % apart.
    """
    groups: dict[tuple[str, ...], list[tuple[str, float, float]]] = {}
    for row in rows:
        answer = found[row["id"]]
        off = None if answer["refused"] else time_error(row, answer)
        if off is not None:
            key = tuple(row[name] for name in ("source_key", "model", "device", "n_devices", "seq_len", "adapt_norm"))
            split = "|".join(row[name] for name in ("parallel", "strategy_norm", "tp", "pp", "cp", "activation_ckpt"))
            rate = answer["tokens_per_s_per_device"]
            groups.setdefault(key, []).append((split, rate, rate * (1 + off)))
    right = total = 0
    for group in groups.values():
        for first, second in itertools.combinations(group, 2):
            if first[0] != second[0] and abs(math.log(first[2] / second[2])) >= math.log(1.05):
                total += 1
                right += (first[1] > second[1]) == (first[2] > second[2])
    return {"pairs": total, "right": right / max(1, total)}


def constant_utilisation(rows: list[dict[str, str]], found: dict[str, dict[str, Any]]) -> list[float]:
    """One utilisation a device, the median of the rows' own (6 N a token), then scored on the same rows."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        answer = found[row["id"]]
        off = None if answer["refused"] else time_error(row, answer)
        if off is not None and answer.get("mfu_pct"):
            pairs.setdefault(place(row["device"] or "a100-80gb").device.name, []).append(
                (answer["mfu_pct"] * (1 + off), off)
            )
    return [mfu / statistics.median(one for one, _ in known) - 1 for known in pairs.values() for mfu, _ in known]


def summary(errors: Iterable[float]) -> dict[str, float]:
    """Rows, median and 95th percentile of the absolute errors."""
    sizes = sorted(map(abs, errors))
    if not sizes:
        return {"rows": 0}
    at = lambda share: sizes[min(len(sizes) - 1, int(share * len(sizes)))]
    return {"rows": len(sizes), "median": statistics.median(sizes), "p90": at(0.9), "p95": at(0.95)}


def score(
    training: list[dict[str, str]],
    serving: list[dict[str, str]],
    found: dict[str, dict[str, Any]],
    served: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Everything that is reported."""
    errors: dict[str, dict[str, float]] = {}
    rules: dict[str, list[tuple[float, float]]] = {}
    verdicts = []
    for row in training:
        answer = found[row["id"]]
        if answer["refused"]:
            continue
        if (memory := memory_error(row, answer)) is not None:
            errors.setdefault(f"memory, {memory[0]}", {})[row["id"]] = memory[1]
            for name, guess in baselines(row).items():
                rules.setdefault(name, []).append((guess / gib(row) - 1, memory[1]))
        if (off := time_error(row, answer)) is not None:
            errors.setdefault(f"step time, {row['tier']}", {})[row["id"]] = off
        verdicts.append((bool(answer["fits"]), row["outcome"] != "OOM"))
    for row in serving:
        answer = served[row["id"]]
        if not answer["refused"]:
            for name, off in latency_errors(row, answer).items():
                errors.setdefault(name, {})[row["id"]] = off
            if row["device"]:
                verdicts.append((bool(answer["fits"]), row["outcome"] == "ok"))
    constant = constant_utilisation(training, found)
    ours = [off for name, known in errors.items() if name.startswith("step time") for off in known.values()]
    return {
        "quantities": {name: summary(known.values()) for name, known in errors.items()},
        "baselines": {
            **{name: _beside([one for one, _ in known], [own for _, own in known]) for name, known in rules.items()},
            "constant utilisation a device": _beside(constant, ours),
        },
        "fits": {"rows": len(verdicts), "right": sum(said == true for said, true in verdicts) / max(1, len(verdicts)),
                 "fits_said_wrongly": sum(said and not true for said, true in verdicts) / max(1, len(verdicts))},
        "ranking": ranking(training, found), "refused": _refused((training, found), (serving, served)),
        "refused_core": statistics.fmean(bool(found[row["id"]]["refused"]) for row in training if row["tier"] == "core"),
        "skipped": SKIPPED, "by_source": {name: _by_source(known) for name, known in errors.items()},
        "worst": {name: sorted(known.items(), key=lambda one: -abs(one[1]))[:5] for name, known in errors.items()},
        "errors": errors,
    }  # fmt: skip


def _beside(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    """A baseline and the plan on the same rows."""
    return {**summary(theirs), "ours": summary(ours)}


def _refused(*tables: tuple[list[dict[str, str]], dict[str, dict[str, Any]]]) -> dict[str, str]:
    return {
        row["id"]: found[row["id"]]["refused"] for rows, found in tables for row in rows if found[row["id"]]["refused"]
    }


def _by_source(known: dict[str, float]) -> dict[str, dict[str, float]]:
    sources: dict[str, list[float]] = {}
    for name, off in known.items():
        sources.setdefault(name.rpartition("-")[0], []).append(off)
    return {source: {**summary(values), "bias": statistics.median(values)} for source, values in sources.items()}


def main() -> None:
    """Score, print, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    began = time.monotonic()
    tables = [
        [row for row in read_rows(arguments.data / f"{name}_open.csv") if row["id"] not in SKIPPED]
        for name in ("training", "inference")
    ]
    answers = [
        {str(one["id"]): one for one in predict_all(rows, cache=arguments.cache, processes=arguments.processes)}
        for rows in tables
    ]
    result: dict[str, Any] = score(tables[0], tables[1], answers[0], answers[1])
    result |= {
        "seconds": time.monotonic() - began,
        "processes": arguments.processes,
        "peak_gib": _peak_gib(),
        "power": _power(),
    }
    result = write_result(RESULT, **result)
    print(page.table(result))
    page.write(result)


def _peak_gib() -> float:
    """The most that one process held."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20


def _power() -> dict[str, Any]:
    """Of `plan_power.py`, which scores the draw: no open row states energy a token."""
    path = RESULT.with_name("plan_power.json")
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()
