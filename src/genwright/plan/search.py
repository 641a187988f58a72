"""Recipes for one training, cheapest first: which fit, what breaks those that do not, and the smallest change that mends them.

For each device, count and strategy the recipes are tried from the fastest to the leanest, until one fits: more rows at once,
fewer rows, recomputing, a base of few bits, state in the host's memory. All take the same steps of the same rows, so that hours and
money compare. No torch until something has to be traced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, RecipeError
from genwright.catalogue.device_names import Placed, place
from genwright.catalogue.devices import Device
from genwright.plan.priced.energy import footprint
from genwright.plan.traced.setup import TRAINS_BASE, Setup
from genwright.plan.training import estimate_training

SPLITS = ("ddp", "zero2", "zero3")
"""Strategies that are tried on several devices, from the least to the most that is split."""
ROWS_AT_ONCE = (4, 1)
"""Microbatches that are tried, the largest first: more rows fill a device better, one row takes the least memory."""
LIMITS = {"usd": r"usd|\$|dollars?", "hours": r"h|hours?", "kwh": r"kwh"}
"""Unit of a budget -> how it is written."""
NECESSITY = (
    "context",
    "communication",
    "workspaces",
    "weights",
    "optimizer",
    "gradients",
    "all-gather buffers",
    "communication buffers",
    "activations",
    "logits and loss",
    "temporaries",
    "rounding",
    "fragmentation",
)
"""Lines of a breakdown from what must stand to what may be traded: the one at which the sum outgrows the device breaks it."""


@dataclass(frozen=True)
class Job:
    """What every recipe does alike."""

    model: str
    """As it was named."""
    config: str | dict[str, Any]
    """What is traced: a config, or the file of one."""
    rows: int
    """Of one optimiser step, over all devices."""
    steps: int
    wanted: dict[str, Any] = field(default_factory=dict)
    """Fields of a Setup that are not searched."""
    region: str = "world"
    cache: Path | None = None
    calibration: Any = None


@dataclass(frozen=True)
class Recipe:
    """One way, and what it takes."""

    setup: Setup
    device: str
    fits: bool
    hours: float
    usd: float | None
    kwh: float | None
    device_gib: float
    limit_gib: float
    breakdown: dict[str, float]
    within: bool = True
    """Inside the budget."""

    @property
    def said(self) -> str:
        """In a few words."""
        setup = self.setup
        words = [setup.strategy, f"{setup.micro_batch} x {setup.accumulate} rows"]
        words += ["recompute"] if setup.recompute == "full" else []
        words += [f"{setup.base} base"] if setup.base else []
        words += [setup.precision] if setup.precision else []
        words += ["offload"] if setup.offload else ["optimizer in the host"] if setup.offload_optimizer else []
        words += [setup.optimizer] if "8bit" in setup.optimizer else []
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        names = (
            "strategy",
            "count",
            "micro_batch",
            "accumulate",
            "recompute",
            "precision",
            "base",
            "optimizer",
            "offload",
            "seq_len",
        )
        return {
            "device": self.device, "recipe": self.said, **{name: getattr(self.setup, name) for name in names}, "fits": self.fits,
            "within_budget": self.within, "hours": self.hours, "usd": self.usd, "kwh": self.kwh, "device_gib": self.device_gib,
            "limit_gib": self.limit_gib,
        }  # fmt: skip


def budget_of(text: str) -> dict[str, float]:
    """Limits of a budget. Errors: BadRequest.

    >>> budget_of("20usd, 10h"), budget_of("5 kWh")
    ({'usd': 20.0, 'hours': 10.0}, {'kwh': 5.0})
    """
    found = {}
    for part in text.casefold().split(","):
        match = re.fullmatch(r"\s*\$?\s*(\d+(?:\.\d+)?)\s*([a-z$]*)\s*", part)
        unit = match[2] or ("usd" if "$" in part else "") if match else ""
        name = next((name for name, pattern in LIMITS.items() if re.fullmatch(pattern, unit)), "")
        if not match or not name or float(match[1]) <= 0:
            raise BadRequest(
                "A budget is an amount and its unit.",
                wanted="20usd, 10h or 5kwh",
                found=text,
                do="write --budget 20usd",
            )
        found[name] = float(match[1])
    return found


def search(
    job: Job,
    devices: Sequence[str],
    *,
    most: int = 8,
    budget: dict[str, float] | None = None,
    usd_per_hour: float | None = None,
) -> dict[str, Any]:
    """{"fitting": cheapest first, "failing": each with `broken_by` and `mended_by`, "pareto", "skipped"}."""
    setup, pricer = _asked(job), _Pricer(job, budget or {}, usd_per_hour)
    fitting: list[Recipe] = []
    failing: list[Recipe] = []
    skipped: list[str] = []
    for name in devices:
        placed = place(name)
        try:
            for group in _groups(_precision(setup, placed.device), job.rows, max(most, placed.count)):
                found = pricer.first_that_fits(group, placed)
                failing += [one for one in found if not one.fits]
                fitting += [one for one in found if one.fits]
        except RecipeError as error:
            skipped.append(f"{name}: {error.what}")
    fitting.sort(key=_price)
    told = [{**one.to_json(), **mend(one, fitting, pricer)} for one in _leanest(failing)]
    return {
        "model": job.model, "rows": job.rows, "steps": job.steps, "budget": budget or {}, "fitting": [one.to_json() for one in fitting],
        "failing": told, "pareto": [one.to_json() for one in pareto(fitting)], "skipped": skipped,
    }  # fmt: skip


def choose(setup: Setup, placed: Placed, *, cache: Path | None = None, calibration: Any = None) -> Setup:
    """Of the strategies on as many devices, the one that fits and is fastest; where none fits, the one that takes least memory."""
    names = ("single",) if setup.count == 1 else ("ddp", "zero1", "zero2", "zero3")
    priced = []
    for name in names:
        one = replace(setup, strategy=name)
        found = estimate_training(one, placed, cache=cache, calibration=calibration)
        seconds, size = found.quantities["step_seconds"].value, found.quantities["device_peak_bytes"].value
        priced.append((not found.facts["fits"], seconds if found.facts["fits"] else size, one))
    return min(priced, key=lambda one: one[:2])[2]


def pareto(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Those that no other beats in both time and money, by time. What has no price takes no part."""
    found: list[Recipe] = []
    for one in sorted((one for one in recipes if one.usd is not None), key=lambda one: (one.hours, one.usd)):
        if not found or (one.usd or 0.0) < (found[-1].usd or 0.0):
            found.append(one)
    return found


def broken_by(breakdown: dict[str, float], limit: float) -> tuple[str, float]:
    """(line, bytes): the first in order of necessity at which the sum is more than `limit`; the largest where none is.

    >>> broken_by({"weights": 60.0, "optimizer": 30.0, "activations": 20.0}, 80.0)
    ('optimizer', 30.0)
    """
    total = 0.0
    order = sorted(breakdown, key=lambda name: NECESSITY.index(name) if name in NECESSITY else len(NECESSITY))
    for name in order:
        total += breakdown[name]
        if total > limit:
            return name, breakdown[name]
    largest = max(breakdown, key=lambda name: breakdown[name])
    return largest, breakdown[largest]


CHANGES: tuple[tuple[str, Callable[[Setup], dict[str, Any]]], ...] = (
    ("--recompute full", lambda one: {"recompute": "full"} if one.recompute != "full" else {}),
    ("--micro-batch 1", lambda one: {"micro_batch": 1, "accumulate": one.accumulate * one.micro_batch} if one.micro_batch > 1 else {}),
    ("--strategy zero2", lambda one: {"strategy": "zero2"} if one.strategy in ("ddp", "zero1") else {}),
    ("--strategy zero3", lambda one: {"strategy": "zero3"} if one.strategy in ("ddp", "zero1", "zero2") else {}),
    ("--optimizer adamw-8bit",
     lambda one: {"optimizer": "adamw-8bit"} if one.adapter in TRAINS_BASE and "8bit" not in one.optimizer else {}),
    ("--base int8", lambda one: {"base": "int8"} if one.adapter not in TRAINS_BASE and not one.base else {}),
    ("--base nf4", lambda one: {"base": "nf4"} if one.adapter not in TRAINS_BASE and one.base in ("", "int8") else {}),
    ("--precision bf16-true",
     lambda one: {"precision": "bf16-true"} if one.precision in ("", "bf16") and one.adapter in TRAINS_BASE else {}),
    ("--seq-len halved", lambda one: {"seq_len": one.seq_len // 2} if one.seq_len > 256 else {}),
    ("--offload", lambda one: {"offload": True, "strategy": "zero3" if one.count > 1 else "zero2"} if not one.offload else {}),
    ("--adapter lora", lambda one: {"adapter": "lora", "rank": 16, "settings": {}} if one.adapter in TRAINS_BASE else {}),
)  # fmt: skip
"""One change each, from the one that costs least to the one that costs most."""


def mend(one: Recipe, fitting: Sequence[Recipe], pricer: _Pricer) -> dict[str, Any]:
    """{"broken_by", "broken_by_gib", "mended_by", "mended_gib"}: one change to the recipe, else several, else more devices or others."""
    line, size = broken_by(one.breakdown, one.limit_gib * 2**30)
    said = {"broken_by": line, "broken_by_gib": size / 2**30}
    for name, change in CHANGES:
        if (
            (values := change(one.setup))
            and (found := pricer.price(replace(one.setup, **values), place(one.device)))
            and found.fits
        ):
            return said | {"mended_by": name, "mended_gib": found.device_gib}
    here = [other for other in fitting if other.device == one.device]
    beside = next((other for other in here if other.setup.count == one.setup.count), None)
    if beside:
        return said | {"mended_by": f"several changes: {beside.said}", "mended_gib": beside.device_gib}
    if same := [other for other in here if other.setup.count > one.setup.count]:
        least = min(same, key=lambda other: other.setup.count)
        return said | {"mended_by": f"--count {least.setup.count} ({least.said})", "mended_gib": least.device_gib}
    if fitting:
        return said | {
            "mended_by": f"--device {fitting[0].device} --count {fitting[0].setup.count}",
            "mended_gib": fitting[0].device_gib,
        }
    return said | {"mended_by": None, "mended_gib": None}


class _Pricer:
    """Estimates, each made once."""

    def __init__(self, job: Job, budget: dict[str, float], usd_per_hour: float | None) -> None:
        self.job, self.budget, self.usd_per_hour = job, budget, usd_per_hour
        self.known: dict[str, Recipe | None] = {}

    def first_that_fits(self, group: Sequence[Setup], placed: Placed) -> list[Recipe]:
        """Down a ladder of recipes to the first that fits."""
        found: list[Recipe] = []
        for setup in group:
            one = self.price(setup, placed)
            found += [one] if one else []
            if one and one.fits:
                break
        return found

    def price(self, setup: Setup, placed: Placed) -> Recipe | None:
        """None where parts do not go together."""
        key = setup.identity(device=placed.device.name)
        if key not in self.known:
            try:
                self.known[key] = self._priced(setup, placed)
            except RecipeError:
                self.known[key] = None
        return self.known[key]

    def _priced(self, setup: Setup, placed: Placed) -> Recipe:
        device = placed.device
        found = estimate_training(setup, placed, cache=self.job.cache, calibration=self.job.calibration)
        hours = found.quantities["step_seconds"].value * self.job.steps / 3600
        price = self.usd_per_hour if self.usd_per_hour is not None else device.usd_per_hour
        energy = footprint(device, hours * setup.count, where=self.job.region)
        usd = None if price is None else hours * setup.count * price
        known = {"usd": usd, "hours": hours, "kwh": energy.kwh if energy else None}
        within = all((spent := known[name]) is not None and spent <= limit for name, limit in self.budget.items())
        limit, size = float(found.facts["limit_bytes"]), found.quantities["device_peak_bytes"].value
        return Recipe(
            setup, device.name, bool(found.facts["fits"]), hours, usd, known["kwh"], size / 2**30, limit / 2**30, found.breakdown, within
        )  # fmt: skip


def _asked(job: Job) -> Setup:
    values = dict(job.wanted)
    if values.get("adapter") == "full":
        values["rank"] = 0
    return Setup(model=job.config, **values)


def _precision(setup: Setup, device: Device) -> Setup:
    """Half precision where none is asked for and the device has no bfloat16."""
    old = device.vendor == "NVIDIA" and device.bf16_tflops is None and bool(device.fp16_tflops)
    return replace(setup, precision="fp16") if old and not setup.precision else setup


def _groups(setup: Setup, rows: int, most: int) -> Iterator[list[Setup]]:
    """A ladder for each count and strategy, from the fastest recipe to the leanest."""
    for count in _counts(rows, most):
        for strategy in ("single",) if count == 1 else SPLITS:
            yield [*_ladder(replace(setup, count=count, strategy=strategy), rows // count)]


def _counts(rows: int, most: int) -> Iterator[int]:
    """Powers of two that divide the rows of a step."""
    count = 1
    while count <= most:
        if rows % count == 0:
            yield count
        count *= 2


def _ladder(setup: Setup, rows: int) -> Iterator[Setup]:
    sizes = [size for size in ROWS_AT_ONCE if rows % size == 0]
    recomputes = [setup.recompute] if setup.recompute else ["none", "full"]
    for recompute in recomputes:
        for size in sizes:
            yield replace(setup, recompute=recompute, micro_batch=size, accumulate=rows // size)
    lean = replace(setup, recompute=recomputes[-1], micro_batch=sizes[-1], accumulate=rows // sizes[-1])
    if setup.adapter not in TRAINS_BASE and not setup.base:
        yield from (replace(lean, base=base) for base in ("int8", "nf4"))
    if setup.adapter in TRAINS_BASE and setup.strategy in ("single", "zero3"):
        yield replace(lean, offload=True, strategy="zero2" if setup.strategy == "single" else "zero3")


def _leanest(failing: Sequence[Recipe]) -> list[Recipe]:
    """Of each device, count and strategy the first tried: the one a person would have asked for."""
    found: dict[tuple[str, int, str], Recipe] = {}
    for one in failing:
        found.setdefault((one.device, one.setup.count, one.setup.strategy), one)
    return list(found.values())


def _price(one: Recipe) -> tuple[bool, float, float]:
    """In the budget first; then money, then time; without a price last."""
    return (not one.within, one.usd if one.usd is not None else float("inf"), one.hours)
