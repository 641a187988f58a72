"""A table of published measurements, priced: one prediction a row, and the reason where there is none. No torch until it is needed.

Columns that hold results are never read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError
from genwright.plan.estimate import Estimate, Range

GIB = 2**30
TRAINING = ("peak_active_gib", "peak_reserved_gib", "peak_device_gib", "step_s", "tokens_per_s_per_device", "mfu_pct")
SERVING = ("prefill_ms", "token_ms", "output_tokens_per_s", "mem_gib", "energy_j_per_token")
COLUMNS = (
    "id",
    *TRAINING,
    "fits",
    *SERVING,
    *(f"{name}_{bound}" for name in (*TRAINING, *SERVING) for bound in ("low", "high")),
    "refused",
    "notes",
)
"""Of predictions.csv: those of a row's kind are filled."""
PIECE = 16
"""Rows that a process takes at once."""


def predict_file(
    rows: Path, out: Path, *, cache: Path | None = None, calibration: Any = None, processes: int = 1
) -> dict[str, int]:
    """Price every row of a CSV file into another, and count them. Errors: DataError where the file is not such a table."""
    wanted = read_rows(rows)
    counts = {"rows": 0, "predicted": 0, "refused": 0}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        for found in predict_all(wanted, cache=cache, calibration=calibration, processes=processes):
            counts["rows"] += 1
            counts["refused" if found.get("refused") else "predicted"] += 1
            writer.writerow({name: _plain(value) for name, value in found.items()})
    return counts


def read_rows(path: Path) -> list[dict[str, str]]:
    """A table by its head. Errors: DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read.", wanted="a CSV file in UTF-8", found=str(error), do="name another file"
        ) from error
    rows = [
        {str(name): str(value or "") for name, value in row.items() if name}
        for row in csv.DictReader(text.splitlines(keepends=True))
    ]
    if not rows or "id" not in rows[0] or "model" not in rows[0]:
        raise DataError(
            f"{path} is not a table of measurements.",
            wanted="columns id and model",
            found=", ".join(rows[0]) if rows else "no rows",
            do="add a line of headings",
        )
    return rows


def predict_all(
    rows: list[dict[str, str]], *, cache: Path | None = None, calibration: Any = None, processes: int = 1
) -> Iterator[dict[str, Any]]:
    """`predict` on several processes, in order. Each takes rows that stand together: they often share a trace."""
    if processes < 2 or len(rows) < 2 * PIECE:
        yield from predict(rows, cache=cache, calibration=calibration)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    pieces = [rows[first : first + PIECE] for first in range(0, len(rows), PIECE)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for found in pool.map(_piece, pieces, [cache] * len(pieces), [calibration] * len(pieces)):
            yield from found


def _piece(rows: list[dict[str, str]], cache: Path | None, calibration: Any) -> list[dict[str, Any]]:
    return list(predict(rows, cache=cache, calibration=calibration))


def predict(
    rows: Iterable[Mapping[str, str]], *, cache: Path | None = None, calibration: Any = None
) -> Iterator[dict[str, Any]]:
    """One prediction a row, in order. A row that cannot be priced has its reason in `refused`."""
    for row in rows:
        try:
            found = _serving(row) if is_serving(row) else _training(row, cache, calibration)
        except Exception as error:  # one odd row must not cost the others their answer
            first = str(error).replace("\n", " ").strip() or type(error).__name__
            found = {"refused": f"{type(error).__name__}: {first[:300]}"}
        yield {"id": row.get("id", ""), "refused": "", **found}


def is_serving(row: Mapping[str, str]) -> bool:
    """Whether it is a row of serving: it has a batch of requests, not a microbatch."""
    return "batch_size" in row and "micro_batch" not in row


def _training(row: Mapping[str, str], cache: Path | None, calibration: Any) -> dict[str, Any]:
    from dataclasses import replace

    from genwright.plan.published.row_training import training_row
    from genwright.plan.training import estimate_training

    asked = training_row(row)
    setup = replace(asked.setup, accumulate=1) if asked.per_micro_batch else asked.setup
    found = estimate_training(setup, asked.placed, cache=cache, calibration=calibration)
    return training_answer(found, setup, asked.placed.device) | {"notes": "; ".join((*asked.notes, *found.notes))}


def training_answer(found: Estimate, setup: Any, device: Any) -> dict[str, Any]:
    """The numbers of a training's estimate, in a table's units."""
    answer: dict[str, Any] = {"fits": bool(found.facts["fits"])}
    for name, quantity in (
        ("peak_active_gib", "active_peak_bytes"),
        ("peak_reserved_gib", "reserved_peak_bytes"),
        ("peak_device_gib", "device_peak_bytes"),
    ):
        answer |= _spread(name, found.quantities[quantity] * (1 / GIB))
    step = found.quantities.get("step_seconds")
    if step is not None and step.value > 0:
        tokens = found.facts["tokens_per_step"] / setup.count
        answer |= _spread("step_s", step) | _spread("tokens_per_s_per_device", _rate(tokens, step))
        if peak := device.bf16_tflops or device.fp16_tflops:
            model = found.facts["model_flops"] + found.facts["attention_flops"]
            answer |= _spread("mfu_pct", _rate(100 * model / (setup.count * peak * 1e12), step))
    return answer


def _rate(amount: float, seconds: Range) -> Range:
    return Range(amount / seconds.value, amount / seconds.high, amount / seconds.low)


def _serving(row: Mapping[str, str]) -> dict[str, Any]:
    from genwright.plan.published.row_serving import serving_row
    from genwright.plan.serving import estimate_inference, fits, server

    asked = serving_row(row)
    found = estimate_inference(asked.setup, asked.placed)
    answer: dict[str, Any] = {
        "fits": fits(server(asked.setup, asked.placed)),
        "notes": "; ".join((*asked.notes, *found.notes)),
    }
    for name in SERVING:
        if name in found.quantities:
            share = {"token_ms": 1 / asked.streams, "output_tokens_per_s": asked.streams}.get(name, 1)
            answer |= _spread(name, found.quantities[name] * share)
    return answer


def _spread(name: str, value: Range) -> dict[str, float]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
