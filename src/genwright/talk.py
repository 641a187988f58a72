"""Talking to what a project made: `genwright chat` and batch prediction."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, ModelError
from genwright.data.files import load_rows
from genwright.data.templates import encode_prompt
from genwright.improve.lessons import LESSONS, lesson_of
from genwright.improve.solution import Answering, Solution, read_solution
from genwright.improve.training import open_milestone
from genwright.improve.workshop import Workshop
from genwright.models.families import Head, family_of
from genwright.models.generate import Sampling, context_of, log_probabilities
from genwright.models.sources import cache_folder, cached, locate
from genwright.project.store import Store

MILESTONE = re.compile(r"(?:(?P<rung>\S+(?:: \S+)?) )?step (?P<step>\d{1,9})")
"""How a checkpoint is asked for; one of a lesson as "preference: aligning step 20"."""


class Session:
    """An open solution that answers conversations."""

    def __init__(self, answering: Answering, max_new_tokens: int, seed: int) -> None:
        self.answering, self.max_new_tokens, self.seed = answering, max_new_tokens, seed

    def reply(self, messages: list[dict[str, Any]], *, temperature: float = 0.0) -> str:
        """The next turn of one conversation."""
        return self.replies([messages], temperature=temperature)[0]

    def replies(
        self, conversations: list[list[dict[str, Any]]], *, temperature: float = 0.0, progress: Any = None
    ) -> list[str]:
        """The next turn of many."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens, temperature=temperature, seed=self.seed)
        shown = [self.answering.with_examples(messages, self.max_new_tokens) for messages in conversations]
        return self.answering.reply(shown, sampling, progress)

    def log_probabilities(self, asked: Sequence[tuple[str, str]]) -> list[float]:
        """Log p(text | before) of each (before, text), in nats, as plain text without a template; a decoder's.

        Nothing before: the text begins with the model's own start, or its end where it has none. Errors: ModelError.
        """
        model, tokenizer = self.answering.model, self.answering.tokenizer
        if family_of(model.config) != "decoder":
            raise ModelError("Only a decoder has a likelihood of a text.", found=family_of(model.config))
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        return log_probabilities(model, [([start, *encode(before)], encode(text)) for before, text in asked])


class Attacked(Session):
    """A session for conversations that somebody else made up: one that is longer than the context gets no answer."""

    def replies(
        self, conversations: list[list[dict[str, Any]]], *, temperature: float = 0.0, progress: Any = None
    ) -> list[str]:
        """The next turn of those that fit, an empty text for the others."""
        fits = [self._fits(messages) for messages in conversations]
        fitting = [messages for messages, fit in zip(conversations, fits) if fit]
        answers = iter(super().replies(fitting, temperature=temperature, progress=progress) if fitting else [])
        return [next(answers) if fit else "" for fit in fits]

    def _fits(self, messages: list[dict[str, Any]]) -> bool:
        model, tokenizer = self.answering.model, self.answering.tokenizer
        if family_of(model.config) == "encoder-decoder":
            return True
        return len(encode_prompt(self.answering.with_examples(messages), tokenizer)) < context_of(model)


def chat_session(spec: Any, base: Path, at: str | None = None) -> Session:
    """Open the project's result, or `at` a rung of its ladder or a checkpoint ("step 200", "lora step 200").

    Errors: BadRequest when nothing was made yet; Corrupt when the checkpoint is damaged.
    """
    store = Store(base / ".genwright")
    milestone = MILESTONE.fullmatch(at or "")
    selected, scoped = store.latest("select"), store.latest("scope")
    if selected is None or scoped is None:
        raise BadRequest("This project has no result to talk to yet.", do="run `genwright apply` first")
    model, rows = selected / "model", load_rows(scoped / "train.jsonl")
    with tempfile.TemporaryDirectory(prefix="genwright-") as scratch:
        if milestone:
            place = _milestone(store.root, milestone["rung"], int(milestone["step"]))
            solution = _solution_at(place, spec, scoped.path, model, Path(scratch))
        else:
            solution = _solution_of_rung(store, at, model)
            if at is None and spec.unlearn.forget:
                solution = _forgot(store, solution)
        answering = Answering(solution, rows, precision=spec.adapt.precision)
    return Session(answering, spec.adapt.max_new_tokens, spec.project.seed)


def open_session(
    model: str, *, base: Path, adapter: str = "", max_new_tokens: int = 128, seed: int = 0, precision: str = "auto"
) -> Attacked:
    """Open a model by catalogue name or source, with a `peft` adapter or none; no project is needed.

    Errors: ModelError for what is not on disk or cannot be trusted.
    """
    folder = folder_on_disk(model, base=base)
    solution = Solution("opened", str(folder), str(base / adapter) if adapter else "", head=Head())
    return Attacked(Answering(solution, [], precision=precision), max_new_tokens, seed)


def folder_on_disk(model: str, *, base: Path) -> Path:
    """Where a model's files are. Errors: ModelError for what is not on disk."""
    folder = cached(locate(model, base=base), cache_folder())
    if folder is None:
        raise ModelError(f"{model} is not on disk yet.", do=f"genwright models pull {model}")
    return folder


def _solution_of_rung(store: Store, rung: str | None, model: Path) -> Solution:
    """A climbed rung, or the chosen one."""
    adapted = store.latest("adapt")
    if adapted is None:
        raise BadRequest(
            "This project has no result to talk to yet.",
            do='run `genwright apply` first; a checkpoint of a run that was stopped opens with --at "step N"',
        )
    summary = adapted.summary()
    climbed = [one["name"] for one in summary["rungs"] if not one["skipped"]]
    chosen = rung or summary["chosen"]
    if chosen not in climbed:
        raise BadRequest(f"'{chosen}' is no rung that was climbed.", wanted=f'one of {", ".join(climbed)}, or "step N"')
    return read_solution(adapted / chosen, model)


def _forgot(store: Store, solution: Solution) -> Solution:
    """The same, after the stage that makes it forget. Errors: BadRequest where that has not run."""
    made = store.latest("unlearn")
    if made is None:
        raise BadRequest(
            "The rows of [unlearn] are not forgotten yet.", do="run `genwright apply`, or name a rung that was climbed"
        )
    return replace(solution, model=str(made / "model"), adapter="")


def result_session(spec: Any, base: Path, max_new_tokens: int, at: str | None = None) -> Attacked:
    """The project's result, for conversations that somebody else made up. Errors: those of `chat_session`."""
    session = chat_session(spec, base, at)
    return Attacked(session.answering, max_new_tokens, session.seed)


@dataclass(frozen=True)
class Place:
    """A checkpoint that can be talked to."""

    rung: str
    step: int
    folder: Path
    finished: bool
    """A solution beside a result, not a checkpoint of a run that was stopped."""
    lesson: str = ""
    """Where the rung has several trainings: which one."""

    @property
    def training(self) -> str:
        """The rung, and its lesson where it is one's."""
        return f"{self.rung}: {self.lesson}" if self.lesson else self.rung


def milestones_of(root: Path) -> list[Place]:
    """Every checkpoint below .genwright that can be talked to: those of stopped runs, and the milestones of finished ones."""
    found = []
    for pattern, up in (
        ("work/adapt/*/*/training/checkpoints/step-*", 2),
        (f"work/adapt/*/*/{LESSONS}/*/training/checkpoints/step-*", 4),
        ("artifacts/adapt/*/*/milestones/step-*", 1),
    ):
        for folder in sorted(root.glob(pattern)):
            step, lesson = int(folder.name.removeprefix("step-")), folder.parents[2].name if up == 4 else ""
            found.append(Place(folder.parents[up].name, step, folder, up == 1, lesson))
    return found


def _milestone(root: Path, rung: str | None, step: int) -> Place:
    """The one that was asked for; of equals the newest. Errors: BadRequest naming those there are."""
    known = milestones_of(root)
    fitting = [place for place in known if place.step == step and rung in (None, place.training)]
    if not fitting:
        there = ", ".join(sorted({f"{place.training} step {place.step}" for place in known}))
        raise BadRequest(
            f"There is no checkpoint of step {step}{f' of {rung}' if rung else ''}.", found=there or "no checkpoint at all",
            do="name the steps to keep in adapt.milestones",
        )  # fmt: skip
    if len({place.training for place in fitting}) > 1:
        raise BadRequest(
            f"Several rungs have a step {step}.",
            wanted=" or ".join(f'--at "{place.training} step {step}"' for place in fitting),
        )
    return max(fitting, key=lambda place: place.folder.stat().st_mtime)


def _solution_at(place: Place, spec: Any, scope: Path, model: Path, scratch: Path) -> Solution:
    """A milestone of a finished run is a solution; a checkpoint is made one."""
    if place.finished:
        return read_solution(place.folder, model)
    made = place.folder.parents[5] if place.lesson else scratch
    workshop = lesson_of(Workshop(spec, scope=scope, model=model, made=made, events=None), place.rung, place.lesson)
    open_milestone(workshop.recipe(place.rung), workshop.model, place.folder, scratch / place.rung)
    return read_solution(scratch / place.rung, workshop.model)
