"""What a router must know of an expert, made where the expert was trained: centroids, vectors and words of its texts, held-out queries.

expert/profile.npz    centroids_KD, train_VD and calibration_VD (float16), the same texts' hashed words (int8 eighths),
                      train_forms of the training texts (float32)
expert/expert.json    the card: name, base, version, rows, licence, encoder's digest, held-out queries, scores
expert/texts.json     where it was trained without the encoder: the texts themselves, of which the server makes the rest
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genwright.base.errors import DataError, ModelError
from genwright.base.files import sha256_of_bytes, write_atomic
from genwright.serve.clusters import kmeans, unit
from genwright.serve.embed import Embedder
from genwright.serve.experts import CARD, FOLDER
from genwright.serve.form import forms
from genwright.serve.words import hashed

NUMBERS, TEXTS = "profile.npz", "texts.json"
FEWEST = 8
MOST_TEXTS = 200
HELD_OUT = 0.2
MOST_CENTROIDS = 8
EIGHTHS = 8


@dataclass(frozen=True)
class ExpertProfile:
    """V texts, D width, W bins, E numbers of form, K centroids."""

    name: str
    centroids_KD: npt.NDArray[np.float32]
    train_VD: npt.NDArray[np.float32]
    train_words_VW: npt.NDArray[np.float32]
    train_forms_VE: npt.NDArray[np.float32]
    calibration_VD: npt.NDArray[np.float32]
    calibration_words_VW: npt.NDArray[np.float32]
    calibration_forms_VE: npt.NDArray[np.float32]
    held_out: tuple[str, ...]
    """The calibration queries themselves, for `genwright experts test`."""
    card: Mapping[str, Any]


def profile_of(
    texts: Sequence[str], embedder: Embedder, *, name: str, card: Mapping[str, Any] | None = None, k: int = MOST_CENTROIDS,
    held_out: Sequence[str] = (), seed: int = 0,
) -> ExpertProfile:  # fmt: skip
    """From an expert's training queries; `held_out` queries that it never saw are split off where none are given.

    At most `MOST_TEXTS` of them are looked at, in a fixed random order. Errors: DataError for fewer than `FEWEST`.
    """
    different = sorted({text.strip() for text in texts if text.strip()} - set(held_out))
    if len(different) < FEWEST or not 1 <= k <= MOST_CENTROIDS:
        raise DataError(
            f"No profile can be made of the expert '{name}'.", wanted=f"at least {FEWEST} different texts, 1 to {MOST_CENTROIDS} centroids",
            found=f"{len(different)} texts, {k} centroids",
        )  # fmt: skip
    random.Random(seed).shuffle(different)
    kept = list(held_out)[:MOST_TEXTS]
    if not kept:
        count = max(2, round(HELD_OUT * min(len(different), MOST_TEXTS)))
        kept, different = different[:count], different[count:]
    different = different[:MOST_TEXTS]
    train_VD = embedder(different)
    centroids = kmeans(train_VD, min(k, max(1, len(different) // 4)), seed=seed).astype(np.float32)
    told = {**(card or {}), "name": name, "rows": len(texts), "encoder": embedder.sha256}
    return ExpertProfile(
        name, centroids, train_VD, hashed(different), forms(different), embedder(kept), hashed(kept), forms(kept), tuple(kept), told
    )  # fmt: skip


def write_profile(profile: ExpertProfile, adapter: Path) -> Path:
    """Write `expert/` beside the adapter's files, or inside the folder given; returns it."""
    folder = adapter / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    small = lambda words: np.clip(np.round(words * EIGHTHS), -127, 127).astype(np.int8)
    np.savez_compressed(
        data, centroids=profile.centroids_KD, train=profile.train_VD.astype(np.float16), train_words=small(profile.train_words_VW),
        calibration=profile.calibration_VD.astype(np.float16), calibration_words=small(profile.calibration_words_VW),
        train_forms=profile.train_forms_VE,
    )  # fmt: skip
    write_atomic(folder / NUMBERS, data.getvalue())
    card = {**profile.card, "numbers": sha256_of_bytes(data.getvalue()), "held_out": list(profile.held_out)}
    write_atomic(folder / CARD, json.dumps(card, indent=1, ensure_ascii=False))
    (folder / TEXTS).unlink(missing_ok=True)
    return folder


def read_profile(adapter: Path) -> ExpertProfile | None:
    """Of an adapter's folder; None where none was made. Errors: ModelError for a damaged one."""
    folder = adapter / FOLDER
    if not (folder / CARD).exists() or (folder / TEXTS).exists():
        return None
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        raw = (folder / NUMBERS).read_bytes()
        if sha256_of_bytes(raw) != card["numbers"]:
            raise ValueError("the numbers are not those that the card names")
        with np.load(io.BytesIO(raw), allow_pickle=False) as found:
            vectors = {name: np.asarray(found[name], np.float32) for name in found.files}
        words: dict[str, npt.NDArray[np.float32]] = {
            name: vectors[name] / np.float32(EIGHTHS) for name in ("train_words", "calibration_words")
        }
        held_out = forms(card["held_out"])  # also for profiles of before the training texts' forms were kept
        return ExpertProfile(
            card["name"], vectors["centroids"], _unit(vectors["train"]), words["train_words"], vectors.get("train_forms", held_out),
            _unit(vectors["calibration"]), words["calibration_words"], held_out, tuple(card["held_out"]), card,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"The profile in {folder} is damaged.", found=str(error), do="make it again: `genwright experts add`"
        ) from None  # fmt: skip


def write_texts(
    texts: Sequence[str], adapter: Path, *, name: str, card: Mapping[str, Any], held_out: Sequence[str] = (), seed: int = 0
) -> None:  # fmt: skip
    """What `profile_here` needs, where no encoder is: the card, and as many texts as a profile looks at."""
    different = sorted({text.strip() for text in texts if text.strip()} - set(held_out))
    random.Random(seed).shuffle(different)
    kept = list(held_out)[:MOST_TEXTS]
    told = {**card, "name": name, "rows": len(texts), "held_out": kept}
    (adapter / FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomic(adapter / FOLDER / TEXTS, json.dumps(different[: 2 * MOST_TEXTS], indent=1, ensure_ascii=False))
    write_atomic(adapter / FOLDER / CARD, json.dumps(told, indent=1, ensure_ascii=False))


def profile_here(adapter: Path, embedder: Embedder) -> ExpertProfile | None:
    """The profile beside the adapter, or made now of the texts beside it; None where neither is. Errors: ModelError, DataError."""
    folder = adapter / FOLDER
    if not (folder / TEXTS).exists():
        return read_profile(adapter)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        texts = [str(one) for one in json.loads((folder / TEXTS).read_text(encoding="utf-8"))]
        return profile_of(texts, embedder, name=card["name"], card=card, held_out=card["held_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The texts in {folder} are damaged.", found=str(error), do="train the expert again") from None


def _unit(vectors_VD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Length 1 again, after the rounding to float16."""
    return unit(vectors_VD).astype(np.float32)
