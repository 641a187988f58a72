"""Every version of an expert passes the parity gate before it answers: its GGUF over the base's, read by the trained model.

    .genwright/serve/experts/NAME@VERSION-BASE/     adapter.gguf, parity.json

BASE is the digest of the base's GGUF, so that a base that was quantised anew proves its experts anew. The proof is made once for
each version, by a process that may load torch, and is read at every start.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genwright.base.errors import GenwrightError
from genwright.base.files import sync_folder
from genwright.serve.contracts import EngineRefused, Expert
from genwright.serve.experts import CARD, FOLDER
from genwright.serve.parity import RECORD, check_record

EXPORTER = "genwright.export.served"
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
        (self.work / "experts").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.work / "experts", prefix=".") as being:
            self._export(missing, Path(being))
            for number, expert in enumerate(missing):
                final = self.folder(expert)
                shutil.rmtree(final, ignore_errors=True)
                (Path(being) / str(number)).rename(final)
        sync_folder(self.work / "experts")

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
        told = []
        for number, expert in enumerate(experts):
            (being / str(number)).mkdir()
            asked = [[{"role": "user", "content": text}] for text in _held_out(expert)]
            told.append(
                {"adapter": str(expert.path), "out": str(being / str(number)), "conversations": asked[:PROMPTS]}
            )
        kind = {"type": self.record["type"], "begin": self.record["begin"]}
        request = {"model": str(self.model), "gguf": str(self.gguf), "kind": kind, "experts": told}
        (being / "request.json").write_text(json.dumps(request), encoding="utf-8")
        run_exporter(being / "request.json", "take the expert out: `genwright experts remove NAME`")


def run_exporter(request: Path, do: str) -> None:
    """The process that may load torch. Errors: GenwrightError in its words."""
    done = subprocess.run(
        [sys.executable, "-m", EXPORTER, str(request)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise GenwrightError(_why(done), do=do)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    try:
        return str(json.loads(done.stdout.strip().splitlines()[-1])["error"])
    except (IndexError, ValueError, KeyError):
        return "The result could not be converted for llama.cpp: " + " ".join(done.stderr.strip().splitlines()[-1:])


def _held_out(expert: Expert) -> list[str]:
    """Queries that the expert was not trained on, as its card has them."""
    try:
        told = json.loads((expert.path / FOLDER / CARD).read_text(encoding="utf-8"))
        return [str(text) for text in told.get("held_out") or []]
    except (OSError, ValueError, AttributeError):
        return []
