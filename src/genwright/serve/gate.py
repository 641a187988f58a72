"""Every version of an expert passes the parity gate before it answers: what the engine says with it, read by the trained model.

    .genwright/serve/experts/NAME@VERSION-BASE/     adapter.gguf, parity.json           llama.cpp
    .genwright/serve/vllm/NAME@VERSION-BASE/        parity.json                         vLLM, and BASE/ of the base itself

BASE is the digest of the base's GGUF, so that a base that was quantised anew proves its experts anew; for vLLM, of the result and the
version of vLLM. The proof is made once for each version, by a process that may load torch, and is read at every start.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.base.files import sync_folder
from genwright.serve.contracts import EngineRefused, Expert
from genwright.serve.engines.vllm import Vllm, version_here
from genwright.serve.experts import CARD, FOLDER
from genwright.serve.parity import RECORD, TEMPLATE, TOKENS, check_record

EXPORTER = "genwright.export.served"
OF_VLLM = "genwright.export.served_vllm"
PROMPTS = 4
GGUF = "adapter.gguf"


@dataclass(frozen=True)
class Gate:
    """Of the experts of one served base."""

    model: Path
    """The base's folder."""
    gguf: Path
    record: dict[str, Any]
    """Of the base's own gate."""
    work: Path
    say: Callable[[str], Any] = print

    def folder(self, expert: Expert) -> Path:
        """Where a version's file and proof are."""
        return self.work / "experts" / f"{expert.served_name}-{self.record['files']['model.gguf'][:8]}"

    def prove(self, experts: Sequence[Expert]) -> None:
        """Make what is not there yet. Errors: GenwrightError for an adapter that cannot be converted."""
        missing = [one for one in experts if one.path.suffix != ".gguf" and not (self.folder(one) / RECORD).exists()]
        if not missing:
            return
        names = ", ".join(one.name for one in missing)
        self.say(f"comparing what llama.cpp answers with what the trained model does (once): {names}")
        with being_proven(self.work / "experts", [self.folder(one) for one in missing]) as being:
            self._export(missing, being)

    def checked(self, expert: Expert) -> Expert:
        """It, as the file that passed. Errors: Corrupt, GenwrightError for one that did not pass or is not that file."""
        if expert.path.suffix == ".gguf":
            return expert
        folder = self.folder(expert)
        do = f"`genwright experts remove {expert.name}`, or train it again"
        self.prove([expert])
        check_record(folder, f"The expert '{expert.name}' (version {expert.version})", do)
        return replace(expert, path=folder / GGUF)

    async def prepared(self, expert: Expert) -> Expert:
        """The same while requests run. Errors: EngineRefused."""
        try:
            return await asyncio.to_thread(self.checked, expert)
        except GenwrightError as error:
            raise EngineRefused(str(error), 409) from None

    def keep_only(self, experts: Sequence[Expert]) -> None:
        """Forget the files of versions that the library no longer names. Only before anything is served."""
        kept = {self.folder(one).name for one in experts}
        for folder in (self.work / "experts").glob("*@*"):
            if folder.name not in kept:
                shutil.rmtree(folder)

    def _export(self, experts: Sequence[Expert], being: Path) -> None:
        told = [
            {"adapter": str(expert.path), "out": str(being / str(number)), "conversations": _asked(expert)}
            for number, expert in enumerate(experts)
        ]
        kind = {"type": self.record["type"], "begin": self.record["begin"]}
        request = {"model": str(self.model), "gguf": str(self.gguf), "kind": kind, "experts": told}
        _run(being, request, "take the expert out: `genwright experts remove NAME`", EXPORTER)


@dataclass(frozen=True)
class VllmGate:
    """Of a base and its experts in a vLLM of ours: before it starts, one is started for the proof alone."""

    model: Path
    digest: str
    """Of the result that is served."""
    conversations: Sequence[Sequence[dict[str, Any]]]
    """What the base is asked; an expert is asked its own held-out questions."""
    work: Path
    settings: dict[str, Any]
    """Of the engine: context, num_experts."""
    say: Callable[[str], Any] = print

    def folder(self, expert: Expert | None) -> Path:
        """Where the proof of the base, or of a version, is."""
        base = f"{self.digest[:16]}-{version_here()}"
        return self.work / "vllm" / (f"{expert.served_name}-{base}" if expert is not None else base)

    def prove(self, experts: Sequence[Expert]) -> Path | None:
        """All of them pass; returns the template that this vLLM needs, if any. Errors: GenwrightError, Corrupt."""
        parts = [None, *experts]
        self._keep_only({self.folder(part).name for part in parts})
        if missing := [part for part in parts if not (self.folder(part) / RECORD).exists()]:
            self.say("comparing what vLLM answers with what the trained model does (once; vLLM is started for it)")
            self._export(missing)
        for part in parts:
            self._check(part)
        template = self.folder(None) / TEMPLATE
        return template if template.exists() else None

    async def proven(self, expert: Expert, engine: Vllm) -> None:
        """One that a vLLM which serves was given: asked there. Errors: EngineRefused for what does not pass, EngineDown."""
        try:
            if not (self.folder(expert) / RECORD).exists():
                asked = _asked(expert) or [[{"role": "user", "content": "Hello"}]]
                served = [await engine.greedy(messages, expert, TOKENS) for messages in asked]
                await asyncio.to_thread(self._read, expert, asked, served)
            self._check(expert)
        except GenwrightError as error:
            raise EngineRefused(str(error), 409) from None

    def _check(self, part: Expert | None) -> None:
        whose = f"The expert '{part.name}' (version {part.version})" if part is not None else ""
        remedy = f"`genwright experts remove {part.name}`, or train it again" if part is not None else INSTEAD
        check_record(self.folder(part), whose, remedy)

    def _read(
        self, expert: Expert, asked: list[list[dict[str, str]]], served: list[tuple[list[int], list[int]]]
    ) -> None:
        with being_proven(self.work / "vllm", [self.folder(expert)]) as being:
            part = {"adapter": str(expert.path), "out": str(being / "0"), "conversations": asked}
            _run(being, {"model": str(self.model), "part": part, "served": served}, INSTEAD, OF_VLLM)

    def _export(self, parts: Sequence[Expert | None]) -> None:
        with being_proven(self.work / "vllm", [self.folder(part) for part in parts]) as being:
            told = [
                {
                    "adapter": str(part.path) if part is not None else "", "out": str(being / str(number)),
                    "conversations": _asked(part) if part is not None else list(self.conversations),
                }
                for number, part in enumerate(parts)
            ]  # fmt: skip
            _run(being, {"model": str(self.model), "parts": told, "settings": self.settings}, INSTEAD, OF_VLLM)

    def _keep_only(self, names: set[str]) -> None:
        for folder in (self.work / "vllm").glob("*"):
            if folder.name not in names:
                shutil.rmtree(folder)


INSTEAD = 'serve.engine = "llamacpp"'


@contextmanager
def being_proven(root: Path, finals: Sequence[Path]) -> Iterator[Path]:
    """A folder with 0/, 1/, ... in it, which become `finals` if the block ends well."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".") as being:
        for number in range(len(finals)):
            Path(being, str(number)).mkdir()
        yield Path(being)
        for number, final in enumerate(finals):
            shutil.rmtree(final, ignore_errors=True)
            Path(being, str(number)).rename(final)
    sync_folder(root)


def _run(being: Path, request: dict[str, Any], do: str, program: str) -> None:
    (being / "request.json").write_text(json.dumps(request), encoding="utf-8")
    run_exporter(being / "request.json", do, program)


def run_exporter(request: Path, do: str, program: str = EXPORTER) -> None:
    """The process that may load torch. Errors: GenwrightError in its words."""
    done = subprocess.run(
        [sys.executable, "-m", program, str(request)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise GenwrightError(_why(done), do=do)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    try:
        return str(json.loads(done.stdout.strip().splitlines()[-1])["error"])
    except (IndexError, ValueError, KeyError):
        return "What is served could not be compared with what was trained: " + " ".join(
            done.stderr.strip().splitlines()[-1:]
        )


def _asked(expert: Expert) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in _held_out(expert)][:PROMPTS]


def _held_out(expert: Expert) -> list[str]:
    """Queries that the expert was not trained on, as its card has them."""
    try:
        told = json.loads((expert.path / FOLDER / CARD).read_text(encoding="utf-8"))
        return [str(text) for text in told.get("held_out") or []]
    except (OSError, ValueError, AttributeError):
        return []
