"""Which model a project gets: each candidate that can be had is tried on the project's own rows, untrained, and compared.

Rows are validation rows: the test split is not looked at. A decoder or an encoder-decoder answers zero-shot and few-shot. An
encoder without a head cannot answer: each row gets the class whose training rows' mean embedding is nearest by cosine, which
is what few-shot means for it (Snell 2017, arXiv 1703.05175, eq. 1). The cheapest
model that is not shown to be worse than the best is taken.

Legend: N rows, C classes, H width.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from genwright.base.errors import DataError, GenwrightError, ModelError, UnknownName
from genwright.base.units import Bytes
from genwright.catalogue.devices import Device, device, devices
from genwright.catalogue.parts import METRICS
from genwright.data.formats import Row
from genwright.evaluate.statistics import bootstrap, paired
from genwright.improve.budget import cost
from genwright.improve.judging import groups_of, judge
from genwright.improve.placing import devices_here, memory_bytes
from genwright.improve.planning import plan_answers, plan_rung
from genwright.improve.solution import write_solution
from genwright.improve.workshop import Workshop, reference
from genwright.models.choose import Had
from genwright.models.families import Head
from genwright.models.load import load_model, load_tokenizer
from genwright.plan.estimate import Estimate
from genwright.plan.here.verify import measuring
from genwright.precision.policy import resolve
from genwright.project.spec import override

EXAMPLES = 4
"""Shown in a few-shot trial where the project measures how many help."""
EMBEDDED = 256
"""The most training rows that an encoder's classes are made of."""
ANSWERS = 1000
"""Answers that the table's cost and energy are of."""


@dataclass(frozen=True)
class Trial:
    """What came of a candidate: a line of the table, and the scores of its better way on the sample."""

    line: dict[str, Any]
    scores: list[float] | None = None
    refused: bool = False
    """Whether its plan breaks a limit: it was not tried and is not taken."""


class TryOut:
    """Tries candidates on a sample of the validation rows. Called with those that were had; returns which is taken, and the table."""

    def __init__(self, context: Any) -> None:
        spec = context.spec
        spec = override(spec, f"adapt.examples={EXAMPLES}") if spec.adapt.examples == "auto" else spec
        self.spec, self.looked_up = priced(spec)
        self.scope, self.events = context.inputs["scope"], context.events

    def __call__(self, had: Sequence[Had]) -> tuple[int, list[dict[str, Any]]]:
        """(place of the model to take, a line for each). Errors: ModelError where none is within memory and budget."""
        trials = [self.trial(one) for one in had]
        allowed = [number for number, trial in enumerate(trials) if not trial.refused]
        if not allowed:
            raise ModelError(
                "None of the models fits this machine and the project's budget.", wanted="one whose plan does",
                found="; ".join(f"{trial.line['name']}: {trial.line['why']}" for trial in trials),
                do="name a smaller model in select.models, or raise scope.budget or hardware.memory",
            )  # fmt: skip
        within = [trials[number] for number in allowed]
        costs = [_cost(trial.line) for trial in within]
        place = allowed[choice([trial.scores for trial in within], costs, self.groups, self.higher)]
        for number, trial in enumerate(trials):
            trial.line["taken"] = number == place
        return place, [trial.line for trial in trials]

    @property
    def higher(self) -> bool:
        """Whether more of the project's metric is better."""
        return METRICS[self._shop(Path()).metric].higher_is_better

    @property
    def groups(self) -> list[str]:
        """Of the sample's rows."""
        return groups_of(self._sample(self._shop(Path())))

    def _shop(self, model: Path, made: Path = Path()) -> Workshop:
        return Workshop(self.spec, scope=self.scope, model=model, made=made, events=self.events)

    def _sample(self, shop: Workshop) -> list[Row]:
        return shop.rows("validation")[: self.spec.select.trial_rows]

    def trial(self, one: Had) -> Trial:
        """A candidate's line. What cannot be tried, or fails on the way, says so in `why`."""
        line = {"name": one.name, "family": one.family, "parameters": one.parameters, "licence": one.licence,
                "zero-shot": None, "few-shot": None, "how": "", "planned": {}, "why": ""}  # fmt: skip
        try:
            with tempfile.TemporaryDirectory(prefix="genwright-trial-") as made:
                return self._tried(self._shop(one.folder, Path(made)), one, line)
        except GenwrightError as error:
            return Trial(line | {"why": str(error).splitlines()[0]})

    def _tried(self, shop: Workshop, one: Had, line: dict[str, Any]) -> Trial:
        rows = self._sample(shop)
        plan = plan_answers(shop)
        line["planned"] = _planned(plan, len(shop.judged_on)) | {"looked_up": self.looked_up}
        why = unfit(plan, shop)
        if why:
            return Trial(line | {"why": why}, refused=True)
        if one.family == "encoder" and not shop.reads:
            if not rows[0].label:
                return Trial(
                    line | {"why": "an encoder without a head cannot be tried on this task before it is trained"}
                )
            with measuring() as measured:
                answers = nearest_classes(one.folder, shop.rows("train"), rows, self.spec.adapt.precision)
            scores = METRICS[shop.metric].per_row(answers, [reference(row) for row in rows])
            line |= {
                "few-shot": _score(scores, rows),
                "how": "few-shot: nearest class by embedding; no zero-shot without a head",
            }
            return Trial(line | {"measured": {"seconds_per_answer": measured.seconds / len(rows)}}, scores)
        judged = {}
        for way, examples in (("zero-shot", 0), *(() if shop.reads else (("few-shot", self.spec.adapt.examples),))):
            head = shop.head if shop.reads else Head()
            (shop.made / way).mkdir()
            write_solution(shop.made / way, form="prompt", examples=examples, head=head)
            try:
                judged[way] = judge(shop, way, rows, split="trial")
            except DataError as error:  # the examples may not fit the model's context; the question alone did
                if not judged:
                    raise
                line["why"] = f"{way}: {str(error).splitlines()[0]}"
                continue
            line[way] = _score(judged[way].scores, rows)
        mean = lambda way: sum(judged[way].scores) * (1 if self.higher else -1)
        best = max(judged, key=mean)
        line |= {"how": "its own answers", "measured": {"seconds_per_answer": judged[best].seconds / len(rows)}}
        return Trial(line, judged[best].scores)


def unfit(plan: Estimate, shop: Workshop) -> str:
    """Why a candidate is out by its plans: no memory for its answers or its first rung, or no budget for that rung; else ""."""
    room = memory_bytes(shop.spec)
    too_much = lambda what, planned: (
        f"{what} needs at least {Bytes(least)} of memory, and {Bytes(room)} may be used"
        if (least := planned.quantities["host_bytes"].low) > room
        else ""
    )
    budget = {name: amount for name, amount in vars(shop.spec.scope.budget).items() if amount is not None}
    first = next((rung for rung in shop.ladder if shop.trains(rung) or shop.reads or shop.family != "encoder"), "")
    why = too_much("answering", plan)
    if why or not first or not (budget or shop.trains(first)):
        return why
    planned = plan_rung(shop, first)
    needs = cost(planned.quantities["seconds"].high, shop.spec.hardware)
    over = [name for name, amount in budget.items() if needs.get(name, 0.0) > amount]
    return too_much(first, planned) or "; ".join(
        f"{first} needs up to {needs[name]:.3g} {name}, and the budget is {budget[name]:.3g}" for name in over
    )


def priced(spec: Any) -> tuple[Any, str]:
    """The spec with the catalogue's price and power of the device where the project states none, and what was looked up.

    The device is the one that the project names; "auto" is this machine: its GPU by name, or a CPU with as many cores.
    """
    hardware, device = spec.hardware, _device_of(spec.hardware.device)
    found = {
        key: getattr(device, key)
        for key in ("watts", "usd_per_hour")
        if device is not None and getattr(hardware, key) is None and getattr(device, key) is not None
    }
    if device is None or not found:
        return spec, ""
    units = {"watts": "W", "usd_per_hour": "USD an hour"}
    told = ", ".join(f"{value:g} {units[key]}" for key, value in found.items())
    return replace(
        spec, hardware=replace(hardware, **found)
    ), f"{told}: the catalogue's {device.name}, not stated by the project"


def _device_of(name: str) -> Device | None:
    if name != "auto":
        return devices().get(name)
    kind, count = devices_here()
    try:
        return device(torch.cuda.get_device_name(0) if kind == "cuda" else f"cpu-{count}")
    except UnknownName:
        return None


def _score(scores: list[float], rows: Sequence[Row]) -> dict[str, Any]:
    return vars(bootstrap(scores, groups=groups_of(rows)))


def _planned(estimate: Any, num_rows: int) -> dict[str, Any]:
    """Memory, and what one answer takes; unknown where price or watts are."""
    value = lambda name: estimate.quantities[name].value if name in estimate.quantities else None
    per = lambda name, times: None if (whole := value(name)) is None else whole / num_rows * times
    return {"host_bytes": value("host_bytes"), "seconds_per_answer": per("evaluate_seconds", 1),
            f"usd_per_{ANSWERS}": per("usd", ANSWERS), f"joules_per_{ANSWERS}": per("joules", ANSWERS)}  # fmt: skip


def _cost(line: dict[str, Any]) -> float:
    return float(line["planned"].get("seconds_per_answer") or float("inf"))


def choice(
    scores: Sequence[list[float] | None], costs: Sequence[float], groups: Sequence[str], higher_is_better: bool = True
) -> int:
    """The place of the cheapest candidate to which the best one is not shown to be superior; the first where none was tried.

    Shown: the paired interval lies on one side of zero and p < 0.05. 60 rows at 80 % and 78 % are equal; at 80 % and 20 % not.
    """
    tried = [place for place, found in enumerate(scores) if found is not None]
    if not tried:
        return 0
    total = lambda place: sum(scores[place] or ()) * (1 if higher_is_better else -1)
    best = max(tried, key=total)
    equal = [
        place
        for place in tried
        if place == best
        or not paired(scores[place] or [], scores[best] or [], groups=groups, higher_is_better=higher_is_better).better
    ]
    return min(equal, key=lambda place: (costs[place], -total(place)))


@torch.no_grad()
def nearest_classes(folder: Path, train: Sequence[Row], rows: Sequence[Row], precision: str) -> list[str]:
    """The class of each row: argmax over classes of cos(embedding, mean embedding of the class's training rows)."""
    model = load_model(folder, dtype=resolve(precision).compute, attention="sdpa", head=Head("embedding"))
    tokenizer = load_tokenizer(folder)
    context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 512))

    def embed(row: Row) -> torch.Tensor:
        ids = tokenizer(row.text, truncation=True, max_length=context, return_tensors="pt")["input_ids"]
        hidden_TH = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].float()
        return torch.nn.functional.normalize(hidden_TH.mean(0), dim=0)

    shown = train[:EMBEDDED]
    known_NH = torch.stack([embed(row) for row in shown])
    labels = sorted({row.label for row in shown})
    inside_CN = torch.tensor([[float(row.label == label) for row in shown] for label in labels])
    centre_CH = torch.nn.functional.normalize(inside_CN @ known_NH, dim=1)
    return [labels[int((centre_CH @ embed(row)).argmax())] for row in rows]
