"""From a question put to a model to what explains its answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest, ModelError
from genwright.data.files import load_rows
from genwright.data.formats import Row
from genwright.data.sources import read_rows
from genwright.data.templates import encode_rows, render
from genwright.evaluate.explain import Case, explain
from genwright.evaluate.explain_rows import Lesson, nearest_rows, rows_faithfulness
from genwright.improve.solution import Answering, Solution
from genwright.models.families import Head, family_of
from genwright.models.generate import Sampling, context_of, generate
from genwright.models.load import load_config
from genwright.models.sources import cache_folder, cached, locate
from genwright.project.store import Store

MOST_TOKENS = 512


def open_for_explaining(name: str, *, base: Path, adapter: str = "") -> Answering:
    """A model by catalogue name or source, with an adapter or none; a classifier's folder keeps its classes. Errors: ModelError."""
    folder = cached(locate(name, base=base), cache_folder())
    if folder is None:
        raise ModelError(f"{name} is not on disk yet.", do=f"genwright models pull {name}")
    config = load_config(folder)
    sorts = any("SequenceClassification" in one for one in getattr(config, "architectures", None) or [])
    head = Head("classes", tuple(config.id2label[number] for number in sorted(config.id2label))) if sorts else Head()
    return Answering(
        Solution("opened", str(folder), str(base / adapter) if adapter else "", head=head), [], precision="fp32"
    )


def explain_answer(
    answering: Answering, question: str, *, answer: str = "", train: Sequence[Row] = (), train_rows: int = 256, max_tokens: int = 32,
    steps: int = 32, seed: int = 0, say: Callable[[str], Any] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Everything told of one answer. Up to `train_rows` rows of `train`, drawn by chance, are compared with it.

    Errors: BadRequest for an empty question, a class nobody knows, or a model that neither writes nor sorts.
    """
    if not question.strip() or max_tokens < 1 or steps < 2 or train_rows < 1:
        raise BadRequest("There is nothing to explain.", wanted="a question, and numbers of 1 or more (--steps 2)")
    model = getattr(answering.model, "get_base_model", lambda: answering.model)().float().eval()
    head = answering.solution.head
    if head.kind == "classes":
        case, told = classified(model, answering.tokenizer, head, question, answer)
    elif head.kind == "language" and family_of(model.config) == "decoder":
        case, told = written(model, answering.tokenizer, question, answer, max_tokens)
    else:
        raise BadRequest(
            "Only a decoder's answers and a classifier's classes are explained.", found=f"a head of {head.kind}"
        )
    found = told | {"question": question} | explain(case, steps=steps, seed=seed, say=say)
    if train:
        say("training rows")
        chosen = sorted(random.Random(seed).sample(range(len(train)), min(train_rows, len(train))))
        lessons = [lesson_of(train[number], case, head) for number in chosen]
        asked = Lesson("asked", question, case.prompt, case.answer, case.target)
        near = nearest_rows(case, asked, lessons)
        found |= {"rows_faithfulness": rows_faithfulness(case, near, lessons, seed)}
        found |= {"rows": near, "rows_compared": len(chosen), "rows_in_all": len(train)}
    return found


def training_rows(base: Path, file: str) -> list[Row]:
    """The rows of a file; where none is named, those that the project learned from."""
    if file:
        return list(read_rows(base / file).rows)
    scoped = Store(base / ".genwright").latest("scope")
    return load_rows(scoped / "train.jsonl") if scoped else []


def written(model: Any, tokenizer: Any, question: str, answer: str, max_tokens: int) -> tuple[Case, dict[str, Any]]:
    """A decoder's greedy answer, or the one given. The template's tokens are never taken away."""
    text = render([{"role": "user", "content": question}], tokenizer, generation_prompt=True)
    prompt, fixed = _with_places(tokenizer, text, text.rindex(question), len(question))
    if answer:
        said = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    else:
        (said,) = generate(model, tokenizer, [prompt], Sampling(max_tokens), keep_end=True)
    if len(prompt) + len(said) > min(context_of(model), 4 * MOST_TOKENS):
        raise BadRequest(
            "Question and answer are too long to be explained.", found=f"{len(prompt)} and {len(said)} tokens"
        )
    return Case(model, tokenizer, prompt, said, fixed=fixed), {"answer": tokenizer.decode(said), "kind": "written"}


def _with_places(tokenizer: Any, text: str, start: int, length: int) -> tuple[list[int], tuple[bool, ...]]:
    """The text's tokens, and which lie outside of [start, start + length)."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = [begin < start + length and end > start for begin, end in encoded["offset_mapping"]]
    return list(encoded["input_ids"]), tuple(not one for one in inside)


def classified(model: Any, tokenizer: Any, head: Head, text: str, label: str) -> tuple[Case, dict[str, Any]]:
    """A classifier's likeliest class, or the one given, and the probability of each."""
    if label and label not in head.labels:
        raise BadRequest("There is no such class.", wanted=", ".join(head.labels), found=label)
    most = min(MOST_TOKENS, context_of(model))
    encoded = tokenizer(text, truncation=True, max_length=most, return_special_tokens_mask=True)
    prompt, fixed = list(encoded["input_ids"]), tuple(map(bool, encoded["special_tokens_mask"]))
    case = lambda target: Case(model, tokenizer, prompt, [], target, fixed)
    log_p = {name: case(number).scores([prompt])[0] for number, name in enumerate(head.labels)}
    chosen = label or max(log_p, key=lambda name: log_p[name])
    return case(head.labels.index(chosen)), {"answer": chosen, "kind": "classified", "classes": log_p}


def lesson_of(row: Row, case: Case, head: Head) -> Lesson:
    """A training row as the model was taught it."""
    if case.answer:
        (encoded,) = encode_rows([row], case.tokenizer, max_tokens=min(MOST_TOKENS, context_of(case.model)))
        first = encoded.learned.index(True)
        return Lesson(row.place, _told(row), encoded.input_ids[:first], encoded.input_ids[first:])
    if row.label not in head.labels:
        raise BadRequest(f"{row.place}: the model has no class '{row.label}'.", wanted=", ".join(head.labels))
    ids = case.tokenizer(row.text, truncation=True, max_length=MOST_TOKENS)["input_ids"]
    return Lesson(row.place, _told(row), list(ids), [], head.labels.index(row.label))


def _told(row: Row) -> str:
    turns: Sequence[Any] = row.conversation
    return row.text if row.kind == "text" else " -> ".join(str(turn["content"]) for turn in turns)
