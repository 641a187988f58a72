"""A solution is what a rung of the ladder leaves: a model, maybe an adapter, maybe examples in the prompt. It answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genwright.adapters.forward import use_our_forward_
from genwright.base.files import write_atomic
from genwright.data.formats import Row
from genwright.data.layouts import Setting
from genwright.data.templates import encode_prompt, source_text
from genwright.improve.examples import NearestExamples, few_shot_messages
from genwright.improve.prompts import Prompt, instructed
from genwright.improve.reading import READERS, Progress, classes_of, tags_of
from genwright.models.attention import NAME
from genwright.models.families import Head, family_of
from genwright.models.generate import Sampling, context_of, generate, generate_targets
from genwright.models.load import load_model, load_tokenizer, quiet
from genwright.precision.policy import resolve

Message = dict[str, Any]


@dataclass(frozen=True)
class Solution:
    """What it takes to answer. Paths are absolute; `adapter` is empty where there is none."""

    rung: str
    model: str
    adapter: str = ""
    examples: int = 0
    """How many of the nearest training rows are shown in the prompt."""
    instruction: str = ""
    """What stands before the first question."""
    nearest_last: bool = True
    """Whether the nearest example stands next to the question."""
    head: Head = field(default_factory=Head)
    """What answers: text is written by a language head, a class is chosen by one of classes."""


def write_solution(folder: Path, *, form: str, examples: int, head: Head, prompt: Prompt | None = None) -> None:
    """Note beside what was trained how the rung answers; `form` is "prompt", "adapter" or "model"."""
    prompt = prompt or Prompt(examples=examples)
    head = Head() if head.kind == "value" else head  # a value only served the training
    note = {"form": form, "head": head.kind, "labels": list(head.labels), **vars(prompt)}
    write_atomic(folder / "solution.json", json.dumps(note, ensure_ascii=False))


def read_solution(folder: Path, base_model: Path) -> Solution:
    """What a finished rung left in its folder, over this base."""
    left = json.loads((folder / "solution.json").read_text())
    model = folder / "model" if left["form"] == "model" else base_model
    adapter = str(folder / "adapter") if left["form"] == "adapter" else ""
    head = Head(left["head"], tuple(left["labels"]))
    return Solution(
        folder.name,
        str(model),
        adapter,
        left["examples"],
        left.get("instruction", ""),
        left.get("nearest_last", True),
        head,
    )


class Answering:
    """A solution with its model in memory. `setting` says how its objective reads rows, where it writes no text."""

    def __init__(
        self, solution: Solution, train: Sequence[Row], *, precision: str = "auto", setting: Setting | None = None
    ) -> None:
        self.solution, self.setting = solution, setting
        self.tokenizer = load_tokenizer(Path(solution.model))
        attention = "sdpa" if setting is None else NAME
        self.model = load_model(
            Path(solution.model), dtype=resolve(precision).compute, attention=attention, head=solution.head
        )
        if solution.adapter:
            self.model = open_adapter(self.model, Path(solution.adapter))
        self.nearest = NearestExamples(list(train)) if solution.examples else None

    def with_examples(self, messages: Sequence[Message], room: int = 1) -> list[Message]:
        """The conversation that is put to the model: as asked, with the nearest training rows before it where they help.

        As many are shown as leave `room` tokens of a decoder's context for the answer; the farthest are left out first.
        """
        solution = self.solution
        shown = self.nearest.nearest(str(messages[-1]["content"]), solution.examples) if self.nearest else []
        while True:
            ordered = shown if solution.nearest_last else shown[::-1]
            put = instructed(few_shot_messages(messages, ordered), solution.instruction)
            if not shown or self._fits(put, room):
                return put
            shown = shown[1:]

    def _fits(self, messages: list[Message], room: int) -> bool:
        if family_of(self.model.config) != "decoder":
            return True
        return len(encode_prompt(messages, self.tokenizer)) + room <= context_of(self.model)

    def ask_as_(self, prompt: Prompt) -> None:
        """From now on, put questions in this form. The examples of a model opened without any cannot be shown."""
        self.solution = replace(self.solution, **vars(prompt))

    def answer(self, rows: Sequence[Row], sampling: Sampling, progress: Progress | None = None) -> list[str]:
        """One answer a row, in order, to the row without its last turn; or its class, or its tags."""
        reader = {"classes": classes_of, "tags": tags_of}.get(self.solution.head.kind)
        if reader is not None:
            assert self.setting is not None, "a head of classes is opened with the setting of its objective"
            return reader(self.model, rows, self.setting, progress)
        put = [self.with_examples(row.conversation[:-1], sampling.max_new_tokens) for row in rows]
        return self.reply(put, sampling, progress)

    def read(self, metric: str, rows: Sequence[Row], progress: Progress | None = None) -> list[float]:
        """Each row's score by a metric that is read off the model."""
        assert self.setting is not None, "a model is read with the setting of an objective"
        return READERS[metric](self.model, rows, self.setting, progress=progress)

    def reply(
        self, conversations: Sequence[list[Message]], sampling: Sampling, progress: Progress | None = None
    ) -> list[str]:
        """One answer a conversation, in order."""
        if family_of(self.model.config) == "encoder-decoder":
            sources = [self.tokenizer(source_text(messages))["input_ids"] for messages in conversations]
            answers = generate_targets(self.model, self.tokenizer, sources, sampling, progress=progress)
        else:
            prompts = [encode_prompt(messages, self.tokenizer) for messages in conversations]
            answers = generate(self.model, self.tokenizer, prompts, sampling, progress=progress)
        return [self.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]


def open_adapter(model: Any, folder: Path) -> Any:
    """A `peft` adapter over a base, with our forward. safetensors only: a pickle is refused before `peft` could look for one.

    Errors: ModelError.
    """
    from peft import PeftModel

    from genwright.models.sources import check_adapter_folder

    check_adapter_folder(folder)
    with quiet():
        wrapped = PeftModel.from_pretrained(model, folder, autocast_adapter_dtype=True).eval()
    use_our_forward_(wrapped)
    for parameter in wrapped.parameters():
        parameter.requires_grad_(False)
    return wrapped
