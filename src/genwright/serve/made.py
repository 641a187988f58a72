"""What a project made, as something that can be served: the model, the adapter, the file for the engine and its proof.

An export made for llama.cpp has `model.gguf` beside the model. One made for `transformers` is converted once, on the first
`serve`, by a process that may load torch, and kept below `.genwright/serve/` under the digest of what it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.base.errors import BadRequest
from genwright.base.files import folder_being_written, write_atomic
from genwright.base.registry import resolve
from genwright.project.store import Artifact, Store
from genwright.serve.contracts import AUTO, BASE
from genwright.serve.gate import run_exporter
from genwright.serve.parity import RECORD, check_record

Message = dict[str, Any]

PROMPTS = 8
INSTEAD = '`genwright chat` answers here; serve.engine = "vllm", or serve.url with a server of yours, answers others'


@dataclass(frozen=True)
class Made:
    """What is served."""

    name: str
    """Of what answers when no expert does: the project's, or the base's where the project made an adapter of it."""
    model: Path
    """The model folder: merged, or the base of an adapter."""
    adapter: Path | None
    is_base: bool
    """Whether `model` is the base as it was selected: adapters of that base fit it."""
    files: Path
    """Where model.gguf and parity.json are."""
    record: dict[str, Any]
    digest: str
    examples: Callable[[list[Message]], list[Message]] | None = None
    """Of a result that answers with the nearest training rows before the question: what sets them there."""
    conversations: list[list[Message]] = field(default_factory=list)
    """What a parity gate asks: validation rows without their answers."""


def made_by(spec: Any, base: Path, say: Any = print, *, llamacpp: bool = True) -> Made:
    """What the project made, proven. `llamacpp`: as a file for it. Errors: BadRequest where nothing was made or it writes no text;
    GenwrightError at the gate.
    """
    store = Store(base / ".genwright")
    handed = store.latest("integrate")
    if handed is None:
        raise BadRequest("This project has nothing to serve yet.", do="run `genwright apply` first")
    summary = handed.summary()
    _refuse_what_writes_no_text(store)
    adapter = handed / "adapter" if summary["form"] == "adapter" else None
    model, name = handed / "model", spec.project.name
    if adapter is not None:
        selected = store.latest("select")
        assert selected is not None, "an adapter was trained on a model that was selected"
        model, name = selected / "model", _base_name(str(selected.summary()["model"]), name)
    examples = _examples(store, handed)
    is_base = adapter is not None or _rung(handed) in ("zero-shot", "few-shot")
    files, record = handed.path, {}
    if llamacpp:
        files = handed.path if (handed / RECORD).exists() else _converted(spec, store, handed, model, adapter, say)
        record = check_record(files)
    return Made(name, model, adapter, is_base, files, record, handed.digest, examples, _conversations(store))


def _base_name(told: str, project: str) -> str:
    """A name of the base that is nobody else's: the project's own is its expert's."""
    name = Path(told.removeprefix("folder:")).name
    return BASE if name in ("", AUTO, project) else name


def _rung(handed: Artifact) -> str:
    return str(json.loads((handed / "prompt.json").read_text(encoding="utf-8"))["rung"])


def _refuse_what_writes_no_text(store: Store) -> None:
    adapted, evaluated = store.latest("adapt"), store.latest("evaluate")
    if adapted is None or evaluated is None:
        return
    note = adapted / str(evaluated.summary()["chosen"]) / "solution.json"
    told = json.loads(note.read_text()) if note.exists() else {}
    if told.get("head") not in (None, "language", "text"):
        raise BadRequest(
            f"The result has a head of {told['head']}: it writes no text.", wanted="a model that answers in words",
            do="`genwright chat` and its file of questions use it",
        )  # fmt: skip


def _converted(spec: Any, store: Store, handed: Artifact, model: Path, adapter: Path | None, say: Any) -> Path:
    folder = store.root / "serve" / f"{handed.digest[:16]}-{spec.integrate.quantize}"
    if (folder / RECORD).exists():
        return folder
    say("converting the result for llama.cpp, and comparing its answers with the trained model's (once)")
    with folder_being_written(folder) as out:
        request = {
            "model": str(model), "out": str(out), "conversations": _conversations(store), "quantize": spec.integrate.quantize,
            "adapter": str(adapter) if adapter is not None else "",
        }  # fmt: skip
        write_atomic(out / "request.json", json.dumps(request))
        run_exporter(out / "request.json", INSTEAD)
        (out / "request.json").unlink()
    return folder


def _examples(store: Store, handed: Artifact) -> Callable[[list[Message]], list[Message]] | None:
    """The form in which the result was judged, as `improve.solution` puts it: its instruction, the same rows found the same way."""
    told = json.loads((handed / "prompt.json").read_text(encoding="utf-8"))
    scoped, number = store.latest("scope"), told.get("examples", 0)
    instruction, last = told.get("instruction", ""), told.get("nearest_last", True)
    if scoped is None or not (number or instruction):
        return None
    instructed = resolve("genwright.improve.prompts:instructed")
    if not number:
        return lambda messages: list(instructed(messages, instruction))
    rows = resolve("genwright.data.files:load_rows")(scoped / "train.jsonl")
    nearest = resolve("genwright.improve.examples:NearestExamples")(rows)
    before = resolve("genwright.improve.examples:few_shot_messages")

    def put(messages: list[Message]) -> list[Message]:
        shown = nearest.nearest(str(messages[-1]["content"]), number)
        return list(instructed(before(messages, shown if last else shown[::-1]), instruction))

    return put


def _conversations(store: Store) -> list[list[dict[str, Any]]]:
    """Validation rows without their answers: what the gate asks."""
    scoped = store.latest("scope")
    if scoped is None:
        return []
    found = []
    with (scoped / "validation.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            messages = row.get("messages") or []
            if len(messages) > 1:
                found.append([{"role": one["role"], "content": one["content"]} for one in messages[:-1]])
            elif row.get("text"):
                found.append([{"role": "user", "content": row["text"]}])
            if len(found) == PROMPTS:
                break
    return found
