"""What an attempt knows of its project: rows, model, recipes and metric, and what each rung left.

The stages `adapt`, `evaluate` and `integrate` each open one over their context. How rungs are planned, judged and made
stands in `planning`, `judging` and `attempting`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from genwright.base.errors import RecipeError
from genwright.catalogue.parts import METRICS, OBJECTIVES, RUNGS
from genwright.catalogue.tasks import task
from genwright.data.files import load_rows
from genwright.data.formats import Row
from genwright.data.layouts import Feed, Setting, feed_of
from genwright.data.templates import encode_prompt, source_text
from genwright.engine.recipe import Recipe, objective_name, recipe_for
from genwright.engine.rewards import Reward, load_reward, try_reward
from genwright.engine.rollouts import refuse_ungrouped
from genwright.improve.budget import OutOfBudget
from genwright.improve.examples import NearestExamples, few_shot_messages
from genwright.improve.learning import Answerer, no_second_model
from genwright.improve.placing import devices_here
from genwright.improve.searching import lora_chosen
from genwright.improve.solution import Solution, read_solution
from genwright.improve.training import Job
from genwright.models.attention import NAME
from genwright.models.families import Head, family_of
from genwright.models.generate import Sampling
from genwright.models.load import load_config, load_model, load_tokenizer
from genwright.models.sources import cache_folder, fetch, locate
from genwright.parallel.mesh import Placement
from genwright.precision.policy import resolve


def question(row: Row) -> str:
    """What a row asks; of a text, its beginning."""
    return str(row.conversation[-2]["content"]) if row.conversation else row.text[:200]


def reference(row: Row) -> str:
    """The answer that a row teaches; a text teaches none."""
    return str(row.conversation[-1]["content"]) if row.conversation else ""


FINISHED = "attempt.json"
"""In a rung's folder, written last: a rung that has it is finished."""


class Workshop:
    """Opened over a stage's context; everything heavy is made on first use."""

    def __init__(
        self, spec: Any, *, scope: Path, model: Path, made: Path, events: Any, stop: Any = lambda: False
    ) -> None:
        self.spec, self.scope, self.model, self.made, self.events, self.stop = spec, scope, model, made, events, stop
        self.origin = model
        """The project's own model, also where a lesson starts from another."""
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

    def learning(
        self, rows: dict[str, list[Row]], *, objective: str = "", model: Path | None = None, learning_rate: float = 0.0,
        milestones: tuple[int, ...] = (),
    ) -> Workshop:  # fmt: skip
        """The same project learning other rows, with another objective, rate or model, where one is given.

        Rows of its own leave nothing to choose by: such a lesson ends when its steps do, and has the milestones that are given.
        """
        adapt = self.spec.adapt
        lesson = dataclasses.replace(
            adapt, objective=objective or adapt.objective, learning_rate=learning_rate or adapt.learning_rate,
            **({"milestones": milestones, "validate_every": 0, "patience": 0, "validation_rows": 0} if rows else {}),
        )  # fmt: skip
        shop = Workshop(
            dataclasses.replace(self.spec, adapt=lesson), scope=self.scope, model=model or self.model, made=self.made,
            events=self.events, stop=self.stop,
        )  # fmt: skip
        shop.origin, shop.until = self.origin, self.until
        shop._rows.update(rows)
        return shop

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
        return {name: feed_of(self.rows(name), self.setting, self.pad_id) for name in ("train", "validation")}

    @cached_property
    def setting(self) -> Setting:
        """How the objective reads rows. Errors: RecipeError for rows that it does not learn from."""
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
            self.spec, made.method, len(self.feeds["train"]), family=self.family, labels=self.setting.labels,
            reward=self.reward.identity if self.reward else "", device=devices_here()[0],
        )  # fmt: skip
        if recipe.rollouts is not None:
            refuse_ungrouped(recipe)
        return lora_chosen(recipe, self.made / method) if made.search == "lora" else recipe

    @cached_property
    def reward(self) -> Reward | None:
        """The project's reward function, tried once. Errors: RecipeError for one that is missing, raises or says NaN."""
        if self.setting.objective.layout != "prompts":
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
        folder = fetch(source, cache_folder(), offline=self.spec.select.offline, say=self.say)
        return load_model(folder, dtype=resolve(self.spec.adapt.precision, devices_here()[0]).compute, attention=NAME)

    def trains(self, rung: str) -> bool:
        """Whether a rung trains weights."""
        return bool(RUNGS[rung](self.spec, rung).method)

    def say(self, text: str) -> None:
        """A remark for whoever watches."""
        self.events.write("note", stage="adapt", text=text)

    @property
    def pad_id(self) -> int:
        """What padding is filled with; never looked at."""
        return int(self.tokenizer.pad_token_id or 0)

    def prompt_lengths(self, shown: int) -> list[int]:
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
        return max(self.prompt_lengths(shown), default=0)

    @property
    def context(self) -> int:
        """The most tokens that the model takes; 2**20 where its configuration does not say."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", 0) or 2**20)

    @property
    def head(self) -> Head:
        """What a trained rung answers with, or is read with."""
        return Head(self.setting.objective.head, self.setting.labels)

    def solution(self, rung: str) -> Solution:
        """What a finished rung left."""
        return read_solution(self.made / rung, self.model)

    @property
    def reads(self) -> bool:
        """Whether a rung is judged by what it says of a text, without writing one."""
        return bool(METRICS[self.metric].reads)

    def within_budget(self, ahead: float = 0.0) -> None:
        """Errors: OutOfBudget when the rung under way has taken all that is left, or would with these seconds more."""
        if time.time() + ahead >= self.until:
            raise OutOfBudget

    def job(self, rung: str, folder: Path, place: Placement) -> Job:
        """The rung's training; what it keeps stands below `folder`."""
        adapt = self.spec.adapt
        return Job(
            rung, self.recipe(rung), self.model, self.feeds["train"], self.feeds["validation"], folder / "training",
            self.events, self.stop, adapt.checkpoint_every, adapt.validate_every, adapt.patience, adapt.milestones,
            adapt.mtbf_hours * 3600, load_second=self._second_model,
            answering=Answerer(self.tokenizer, self._worth) if self.reward else None, place=place, until=self.until,
        )  # fmt: skip
