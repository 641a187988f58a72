"""Where a project's solutions are made and judged: its rows, its model, what each rung left, and the metric.

The stages `adapt`, `evaluate` and `integrate` each open one over their context. Files of a rung:

    <rung>/solution.json             how it answers       <rung>/adapter/ or <rung>/model/    what was trained
    <rung>/attempt.json              score, planned, measured: written last, so a rung that has it is finished
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genwright.base.errors import DataError, DoesNotFit, RecipeError
from genwright.base.files import files_below, free_bytes, write_atomic
from genwright.base.units import Bytes
from genwright.catalogue.parts import METRICS, OBJECTIVES, RUNGS
from genwright.catalogue.tasks import task
from genwright.data.files import load_rows
from genwright.data.formats import Row
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.data.templates import encode_prompt, source_text
from genwright.engine.columns import blank_columns
from genwright.engine.recipe import Recipe, objective_name, recipe_for
from genwright.engine.rewards import Reward, load_reward, try_reward
from genwright.engine.rollouts import blank_round, refuse_ungrouped
from genwright.evaluate.statistics import bootstrap
from genwright.improve.budget import Meter, OutOfBudget
from genwright.improve.examples import NearestExamples, few_shot_messages
from genwright.improve.learning import Answerer, no_second_model
from genwright.improve.placing import AUTO, devices_here, memory_bytes, placement_of
from genwright.improve.prompts import Prompt
from genwright.improve.searching import (
    TRIALS,
    candidates,
    lora_chosen,
    lora_work,
    prompt_work,
    search_lora,
    search_prompt,
    with_search,
)
from genwright.improve.solution import Answering, Solution, read_solution, write_solution
from genwright.improve.together import train_together
from genwright.improve.training import Job, train_to_end
from genwright.models.attention import NAME
from genwright.models.families import Head, family_of
from genwright.models.generate import Sampling
from genwright.models.load import load_config, load_model, load_tokenizer
from genwright.models.sources import cache_folder, fetch, locate
from genwright.models.tokenizer_files import copy_tokenizer
from genwright.parallel.mesh import Placement
from genwright.plan.estimate import Estimate
from genwright.plan.memory import memory_is_an_error
from genwright.plan.rungs import Asking, Machine, Reading, plan_prompting, plan_training
from genwright.plan.verify import measuring
from genwright.precision.policy import resolve


@dataclass(frozen=True)
class Judgement:
    """Answers to some rows, with their scores by the project's metric and its interval by every metric that applies."""

    answers: list[str]
    scores: list[float]
    intervals: dict[str, dict[str, float]]
    seconds: float
    peak_bytes: int

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """One JSON line a row: prompt, reference, prediction, score."""
        lines = [
            {"prompt": question(row), "reference": reference(row), "prediction": answer, "score": score}
            for row, answer, score in zip(rows, self.answers, self.scores)
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def question(row: Row) -> str:
    """What a row asks; of a text, its beginning."""
    return str(row.conversation[-2]["content"]) if row.conversation else row.text[:200]


def reference(row: Row) -> str:
    """The answer that a row teaches; a text teaches none."""
    return str(row.conversation[-1]["content"]) if row.conversation else ""


def groups_of(rows: Sequence[Row]) -> list[str]:
    """What statistics may treat as independent: a row's group, or the row itself."""
    return [row.group or row.key for row in rows]


class Workshop:
    """Opened over a stage's context; everything heavy is made on first use."""

    def __init__(
        self, spec: Any, *, scope: Path, model: Path, made: Path, events: Any, stop: Any = lambda: False
    ) -> None:
        self.spec, self.scope, self.model, self.made, self.events, self.stop = spec, scope, model, made, events, stop
        self.metric = spec.scope.metric or task(spec.scope.task).metric
        self.ladder = tuple(spec.adapt.ladder) or (spec.adapt.method,)
        self.until = math.inf
        """The moment at which the rung under way must have ended."""

    @classmethod
    def of(cls, context: Any, *, made: Path) -> Workshop:
        """Over a stage's context; `made` holds the rungs' folders: the work folder in `adapt`, its artifact afterwards."""
        inputs = context.inputs
        return cls(
            context.spec, scope=inputs["scope"], model=inputs["select"] / "model", made=made, events=context.events, stop=context.stop
        )  # fmt: skip

    def rows(self, split: str) -> list[Row]:
        """The rows of a split. "test" is asked for by the stage `evaluate` alone."""
        if split not in self._rows:
            self._rows[split] = load_rows(self.scope / f"{split}.jsonl")
        return self._rows[split]

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        return {}

    def adapted(self) -> dict[str, Any]:
        """Adapt's summary, with `climbed`: the rungs that left a solution."""
        summary = json.loads((self.made / "adapt.json").read_text())
        return {**summary, "climbed": [rung["name"] for rung in summary["rungs"] if not rung["skipped"]]}

    def prompt_ids(self, row: Row) -> list[int]:
        """A row's prompt as the model reads it, without examples."""
        if self.family != "decoder" or not row.conversation:
            return list(self.tokenizer(question(row), truncation=True, max_length=self.max_tokens)["input_ids"])
        return encode_prompt([dict(message) for message in row.conversation[:-1]], self.tokenizer)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's."""
        return load_tokenizer(self.model)

    @cached_property
    def config(self) -> Any:
        """The model's."""
        return load_config(self.model)

    @property
    def sampling(self) -> Sampling:
        """How answers are generated, everywhere the same."""
        adapt = self.spec.adapt
        return Sampling(max_new_tokens=adapt.max_new_tokens, temperature=adapt.temperature, seed=self.spec.project.seed)

    @property
    def max_tokens(self) -> int:
        """The longest row, in tokens: the project's limit, or the model's context less the longest soft prompt."""
        context = self.context - max(
            (self.spec.methods.get(rung, {}).get("tokens", 0) for rung in self.ladder), default=0
        )
        return min(self.spec.adapt.max_tokens or context, context)

    @property
    def judged_on(self) -> list[Row]:
        """The validation rows that the ladder judges on."""
        limit = self.spec.adapt.validation_rows
        return self.rows("validation")[:limit] if limit else self.rows("validation")

    @cached_property
    def feeds(self) -> dict[str, Feed]:
        """Training and validation rows as the objective learns from them. Errors: RecipeError, DataError."""
        return {name: feed_of(self.rows(name), self._setting, self.pad_id) for name in ("train", "validation")}

    @cached_property
    def _setting(self) -> Setting:
        name = self.spec.adapt.objective or objective_name(self.spec, self.family)
        objective = OBJECTIVES[name](**self.spec.methods.get(name, {}))
        self._refuse_other_rows(name, objective)
        start = getattr(self.config, "decoder_start_token_id", None)
        return Setting(objective, self.tokenizer, self.family, self.max_tokens, self.labels(objective.head), start)

    def _refuse_other_rows(self, name: str, objective: Any) -> None:
        kinds = {row.kind for row in self.rows("train")}
        if not kinds <= set(objective.rows):
            raise RecipeError(
                f"The objective '{name}' does not learn from these rows.",
                wanted=f"rows of kind {' or '.join(objective.rows)}",
                found=", ".join(sorted(kinds)),
                do="choose adapt.objective to suit the data (text: causal; prompts with answers: instruction)",
            )

    @property
    def family(self) -> str:
        """The model's."""
        return family_of(self.config)

    def labels(self, head: str) -> tuple[str, ...]:
        """The classes that the training rows name, in order, where the head has classes."""
        named = {"classes": lambda row: (row.label,), "tags": lambda row: row.tags}
        return (
            tuple(sorted({label for row in self.rows("train") for label in named[head](row)})) if head in named else ()
        )

    def recipe(self, method: str) -> Recipe:
        """The method's recipe. Errors: RecipeError when the objective cannot learn from these rows."""
        made = RUNGS[method](self.spec, method)
        recipe = recipe_for(
            self.spec, made.method, len(self.feeds["train"]), family=self.family, labels=self._setting.labels,
            reward=self.reward.identity if self.reward else "", device=devices_here()[0],
        )  # fmt: skip
        if recipe.rollouts is not None:
            refuse_ungrouped(recipe)
        return lora_chosen(recipe, self.made / method) if made.search == "lora" else recipe

    @cached_property
    def reward(self) -> Reward | None:
        """The project's reward function, tried once. Errors: RecipeError for one that is missing, raises or says NaN."""
        if self._setting.objective.layout != "prompts":
            return None
        reward, row = load_reward(self.spec.adapt.reward, self.spec.base), self.rows("train")[0]
        try_reward(reward, question(row), reference(row))
        return reward

    def _worth(self, number: int, answer: list[int]) -> float:
        """What an answer to a training row is worth."""
        assert self.reward is not None
        row = self.rows("train")[number]
        return self.reward(
            question(row), self.tokenizer.decode(answer, skip_special_tokens=True).strip(), reference(row)
        )

    def _second_model(self) -> Any:
        """The model that adapt.teacher names, in the type that is computed in. Errors: RecipeError, ModelError."""
        if not self.spec.adapt.teacher:
            return no_second_model()
        source = locate(self.spec.adapt.teacher, offline=self.spec.select.offline, base=self.spec.base)
        folder = fetch(source, cache_folder(), offline=self.spec.select.offline, say=self._note)
        return load_model(folder, dtype=resolve(self.spec.adapt.precision, devices_here()[0]).compute, attention=NAME)

    def trains(self, rung: str) -> bool:
        """Whether a rung trains weights."""
        return bool(RUNGS[rung](self.spec, rung).method)

    def plan(self, rung: str) -> Estimate:
        """What this rung will need on this machine, with what it searches first."""
        search, planned = RUNGS[rung](self.spec, rung).search, self._plan_once(rung)
        if search == "prompt":
            return with_search(planned, "evaluate_seconds", prompt_work(self, rung), self.spec.hardware)
        if search == "lora":
            return with_search(planned, "train_seconds", lora_work(self.recipe(rung)), self.spec.hardware)
        return planned

    def _plan_once(self, rung: str) -> Estimate:
        if not self.trains(rung):
            return plan_prompting(
                self.config, self._asking(rung), self._machine, precision=self.spec.adapt.precision, weights_bytes=self._weights_bytes,
                say=self._note,
            )  # fmt: skip
        return self._planned(rung, self.place(rung))

    def plan_answers(self) -> Estimate:
        """What answering the validation rows will need, with examples in the prompt or by reading, before anything is trained."""
        reads = self.reads or self.family == "encoder"
        asking = Asking([], [], 0, self.reading) if reads else self._asking("few-shot")
        return plan_prompting(
            self.config, asking, self._machine, precision=self.spec.adapt.precision, weights_bytes=self._weights_bytes, say=self._note,
        )  # fmt: skip

    @property
    def read_head(self) -> Head:
        """What the model is read with, where the metric reads."""
        return self._head

    def _planned(self, rung: str, place: Placement) -> Estimate:
        """The plan of a rung that trains, laid over these devices."""
        return plan_training(
            self.recipe(rung), self.config, self._planned_feed(rung), self._asking(rung), self._machine, weights_bytes=self._weights_bytes,
            say=self._note, place=place,
        )  # fmt: skip

    @property
    def _machine(self) -> Machine:
        return Machine(self._calibrations(), self.spec.hardware.watts, self.spec.hardware.usd_per_hour)

    @property
    def _weights_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.model.glob("*.safetensors"))

    def _note(self, text: str) -> None:
        self.events.write("note", stage="adapt", text=text)

    def _planned_feed(self, rung: str) -> Feed:
        """The training rows, with columns and answers that say nothing but have the right shapes."""
        recipe, feed = self.recipe(rung), self.feeds["train"]
        return (
            blank_round(recipe, feed)
            if recipe.rollouts
            else blank_columns(recipe, feed, self.config, ranks=self.spec.hardware.count)
        )

    @property
    def pad_id(self) -> int:
        """What padding is filled with; never looked at."""
        return int(self.tokenizer.pad_token_id or 0)

    def _calibrations(self) -> Path:
        return cache_folder() / "calibrations"

    def _asking(self, rung: str) -> Asking:
        rows = self.judged_on
        if self._only_read(rung):
            return Asking([], [], 0, self.reading)
        made = RUNGS[rung](self.spec, rung)
        searched = made.search == "prompt"
        shown = max(prompt.examples for prompt in candidates(self, rung)) if searched else made.examples
        prompts = self._prompt_lengths(shown)
        answers = [len(self.tokenizer(reference(row), add_special_tokens=False).input_ids) for row in rows]
        return Asking(prompts, answers, self.spec.adapt.max_new_tokens)

    def _prompt_lengths(self, shown: int) -> list[int]:
        """Tokens of each validation row's prompt with so many examples."""
        nearest = NearestExamples(self.rows("train")) if shown else None
        conversations = [
            few_shot_messages(row.conversation[:-1], nearest.nearest(question(row), shown))
            if nearest
            else row.conversation[:-1]
            for row in self.judged_on
        ]
        if self.family == "encoder-decoder":
            return [len(self.tokenizer(source_text(messages))["input_ids"]) for messages in conversations]
        return [len(encode_prompt(messages, self.tokenizer)) for messages in conversations]

    def longest_prompt(self, shown: int) -> int:
        """Tokens of the longest validation prompt with so many examples."""
        return max(self._prompt_lengths(shown), default=0)

    @property
    def context(self) -> int:
        """The most tokens that the model takes; 2**20 where its configuration does not say."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", 0) or 2**20)

    def _only_read(self, rung: str) -> bool:
        """Whether a rung answers without writing: by a class, by tags, or by its surprise."""
        return self.reads or (self.trains(rung) and self._setting.objective.head in ("classes", "tags"))

    @cached_property
    def reading(self) -> Reading:
        """The validation rows as they are read to judge a rung."""
        feed = feed_of(self.judged_on, self._setting, self.pad_id)
        return Reading(feed, self._setting.objective, self._head)

    @property
    def _head(self) -> Head:
        return Head(self._setting.objective.head, self._setting.labels)

    def solution(self, rung: str) -> Solution:
        """What a finished rung left."""
        return read_solution(self.made / rung, self.model)

    def judge(self, rung: str, rows: Sequence[Row], *, split: str) -> Judgement:
        """Let a finished rung answer these rows, and score the answers."""
        if not rows:
            raise DataError(
                f"There are no {split} rows to judge on.", do=f"raise data.{split}_fraction, or give data.{split}"
            )

        def tell(done: int, total: int) -> None:
            self.within_budget()
            self.events.write(
                "progress", stage=split, what=f"{rung} answers {split} rows", done=done, total=total, unit="rows"
            )

        with measuring() as measured, memory_is_an_error("evaluate", rung):
            answers, scores = self._answered(rung, rows, tell)
        references, groups = [reference(row) for row in rows], groups_of(rows)
        beside = () if self.reads else ALWAYS_SHOWN
        intervals = {self.metric: _interval(scores, groups)}
        intervals |= {
            name: _interval(METRICS[name].per_row(answers, references), groups)
            for name in beside
            if name != self.metric
        }
        self.events.write("score", stage=split, rung=rung, split=split, metric=self.metric, **intervals[self.metric])
        return Judgement(answers, scores, intervals, measured.seconds, measured.peak_bytes)

    def _answered(self, rung: str, rows: Sequence[Row], tell: Any) -> tuple[list[str], list[float]]:
        """(answers, scores); a metric of surprise has no answers."""
        metric, solution = METRICS[self.metric], self.solution(rung)
        setting = self._setting if self.reads or solution.head.kind != "language" else None
        answering = Answering(solution, self.rows("train"), precision=self.spec.adapt.precision, setting=setting)
        if self.reads:
            return [""] * len(rows), answering.read(self.metric, rows, tell)
        answers = answering.answer(rows, self.sampling, tell)
        return answers, metric.per_row(answers, [reference(row) for row in rows])

    @property
    def reads(self) -> bool:
        """Whether a rung is judged by what it says of a text, without writing one."""
        return bool(METRICS[self.metric].reads)

    def within_budget(self) -> None:
        """Errors: OutOfBudget when the rung under way has taken all that is left."""
        if time.time() >= self.until:
            raise OutOfBudget

    def attempt(self, rung: str, planned: Estimate, *, seconds: float = math.inf) -> dict[str, Any]:
        """Make a rung's solution, judge it on validation rows, and write down what it took. A finished rung is only read.

        After `seconds` of wall time, those of killed processes included, it stops: training ends early and is judged by
        what it has learned; a judgement that does not end in time leaves no score.
        """
        folder = self.made / rung
        finished = folder / "attempt.json"
        if finished.exists():
            return dict(json.loads(finished.read_text()))
        self._refuse_what_does_not_fit(rung, planned)
        self.events.write("planned", stage="adapt", rung=rung, **planned.to_json())
        with Meter(folder) as meter:
            self.until = time.time() + seconds - meter.before
            try:
                outcome = self._attempted(rung, folder, planned)
            except OutOfBudget:
                outcome = {"skipped": f"{rung}: stopped, because what is left of the budget was spent"}
                self._note(outcome["skipped"])
            finally:
                self.until = math.inf
        attempt = {"name": rung, "skipped": "", "planned": planned.to_json(), "spent_seconds": meter.seconds, **outcome}
        write_atomic(finished, json.dumps(attempt, indent=1))
        return attempt

    def _attempted(self, rung: str, folder: Path, planned: Estimate) -> dict[str, Any]:
        measured = self._make(rung, folder, judging_seconds=planned.quantities["evaluate_seconds"].high)
        judgement = self.judge(rung, self.judged_on, split="validation")
        judgement.write(folder / "predictions.jsonl", self.judged_on)
        measured |= {"evaluate_seconds": judgement.seconds, "evaluate_peak_bytes": judgement.peak_bytes}
        measured["seconds"] = measured.get("train_seconds", 0.0) + judgement.seconds
        peaks = [value for name, value in measured.items() if name.endswith("_peak_bytes") and value]
        measured["host_bytes"] = max(peaks)
        measured |= self._bill(measured["seconds"])
        self.events.write("measured", stage="adapt", rung=rung, **measured)
        return {"score": judgement.intervals[self.metric], "scores": judgement.intervals, "measured": measured}

    def _make(self, rung: str, folder: Path, *, judging_seconds: float) -> dict[str, Any]:
        """Leave solution.json and what it names; returns what was measured. Training leaves time for judging."""
        folder.mkdir(parents=True, exist_ok=True)
        made = RUNGS[rung](self.spec, rung)
        measured: dict[str, Any] = {}
        prompt = Prompt(examples=made.examples)
        with measuring() as searching:
            if made.search == "prompt":
                prompt = search_prompt(self, rung, folder, self.within_budget)
            if made.search == "lora":
                search_lora(self, rung, folder, self.within_budget)
        if made.method:
            limit, self.until = self.until, self.until - judging_seconds
            measured = self._train(rung, folder, made.form)
            self.until = limit
        if made.search:
            measured["search_seconds"] = searching.seconds
            measured["train_seconds"] = measured.get("train_seconds", 0.0) + searching.seconds
        if made.form == "model":
            copy_tokenizer(self.model, folder / "model")
        trained = made.form != "prompt" or self.reads
        write_solution(
            folder, form=made.form, examples=prompt.examples, head=self._head if trained else Head(), prompt=prompt
        )
        return measured

    def _train(self, rung: str, folder: Path, form: str) -> dict[str, Any]:
        place = self.place(rung)
        if place.ranks > 1:
            return train_together(self, rung, place, folder)
        return train_to_end(self.job(rung, folder, place), folder / form)

    def place(self, rung: str) -> Placement:
        """Where a rung trains; "auto" is the first strategy whose plan fits. Errors: RecipeError."""
        if (
            self.spec.hardware.strategy != "auto"
            or self.spec.hardware.count == 1
            or self.spec.hardware.tensor_degree > 1
        ):
            return placement_of(self.spec)
        places = [placement_of(self.spec, strategy) for strategy in AUTO]
        fits = lambda place: self._planned(rung, place).quantities["host_bytes"].value <= memory_bytes(self.spec)
        return next((place for place in places[:-1] if fits(place)), places[-1])

    def job(self, rung: str, folder: Path, place: Placement) -> Job:
        """The rung's training; what it keeps stands below `folder`."""
        adapt = self.spec.adapt
        return Job(
            rung, self.recipe(rung), self.model, self.feeds["train"], self.feeds["validation"], folder / "training",
            self.events, self.stop, adapt.checkpoint_every, adapt.validate_every, adapt.patience, adapt.milestones,
            adapt.mtbf_hours * 3600, load_second=self._second_model,
            answering=Answerer(self.tokenizer, self._worth) if self.reward else None, place=place, until=self.until,
        )  # fmt: skip

    def _bill(self, seconds: float) -> dict[str, float | None]:
        hardware = self.spec.hardware
        return {
            "joules": seconds * hardware.watts if hardware.watts else None,
            "usd": seconds / 3600 * hardware.usd_per_hour if hardware.usd_per_hour else None,
        }

    def _refuse_what_does_not_fit(self, rung: str, planned: Estimate) -> None:
        """Errors: DoesNotFit with the breakdown; DiskFull's cause said before it happens."""
        host, disk = planned.quantities["host_bytes"], planned.quantities.get("disk_bytes")
        if host.low > memory_bytes(self.spec):
            parts = ", ".join(
                f"{part} {Bytes(size)}" for part, size in sorted(planned.breakdown.items(), key=lambda item: -item[1])
            )
            raise DoesNotFit(
                f"{rung} needs {Bytes(host.value)} of memory ({parts}).", found=f"this machine has {Bytes(memory_bytes(self.spec))}",
                do="lower adapt.batch_size, adapt.pack_tokens or adapt.max_tokens, or choose a smaller model",
            )  # fmt: skip
        if disk is not None and disk.value > free_bytes(self.made):
            raise DoesNotFit(
                f"{rung} needs {Bytes(disk.value)} of disk.", found=f"{Bytes(free_bytes(self.made))} free",
                do="free some space (`genwright clean` lists what can go)",
            )  # fmt: skip

    def publish(self, rung: str, out: Path) -> None:
        """Copy what a rung left into the stage's artifact, without its checkpoints."""
        for file in files_below(self.made / rung):
            relative = file.relative_to(self.made)
            if not {"training", TRIALS} & set(relative.parts):
                (out / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, out / relative)


ALWAYS_SHOWN = ("exact-match", "chrf")
"""Shown beside the project's metric: whether an answer is right to the letter, and how near it is."""


def _interval(scores: list[float], groups: list[str]) -> dict[str, float]:
    interval = bootstrap(scores, groups=groups)
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "spread": statistics.pstdev(scores),
    }
