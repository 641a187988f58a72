"""Which expert answers a query: a linear head over meaning and words, nearness to the expert's own texts, and a calibrated no.

    score of an expert = logit + MEANING * cosine to its nearest texts + WORDS * the same of their words
                         - GROUND * logit of the background - FORM * how strange the query's form is among the expert's texts

The head is multinomial with one class more: `background`, what people ask when no expert is meant. Centroids say whose texts are
compared at all. A query whose best score is below the threshold goes to the base. The threshold comes from queries that no expert
was trained on (split conformal): experts give up at most `lose` of their own, and more, up to `most_lost`, where that is needed to
route wrongly at most `false_routes` of held-out background. A conversation stays with its expert unless another beats it clearly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from genwright.serve.background import sentences
from genwright.serve.clusters import Array, at_most, logistic, unit
from genwright.serve.contracts import AUTO, BASE, Request, Route
from genwright.serve.embed import Embedder
from genwright.serve.expert_profile import ExpertProfile
from genwright.serve.form import forms, scale, strange, usual
from genwright.serve.words import hashed, rarity

MEANING, WORDS, GROUND = 10.0, 12.0, 0.3
"""Weights of nearness by meaning and by words, and of the background's logit: the best of some that were tried (docs/routing.md)."""
FORM, MOST_STRANGE = 1.0, 6.0
"""Weight of a form that is not the expert's, and the most that it can cost."""
NEIGHBOURS = 3
LOOKED_AT = 8
"""Experts whose own texts are compared with a query: those that head and centroids call likeliest."""
FAR = -99.0
STAYS = 1.5
"""By how much another expert's score must beat that of the one a conversation has."""

SHORT_WORDS = 4
"""A turn with at most this many words says little of its own: it is read together with the turn before it."""


@dataclass(frozen=True)
class Wanted:
    """What the thresholds are set for."""

    lose: float = 0.015
    """Share that may go to the base of the experts' own queries that would reach their expert: the others are lost either way."""
    false_routes: float = 0.05
    """Share of background that may go to an expert."""
    most_lost: float = 0.05


@dataclass(frozen=True)
class Fitted:
    """Everything that a decision needs: it is replaced whole when the library changes, never changed.

    N experts, F features, E numbers of form.
    """

    names: tuple[str, ...]
    weight_FC: npt.NDArray[np.float32]
    bias_C: npt.NDArray[np.float32]
    centroids_KD: npt.NDArray[np.float32]
    owner_K: npt.NDArray[np.int64]
    texts_NVF: tuple[npt.NDArray[np.float32], ...]
    rarity_W: npt.NDArray[np.float32]
    forms_NVE: tuple[npt.NDArray[np.float32], ...]
    """Scaled."""
    usual_N: tuple[tuple[float, float], ...]
    form_scale_E: npt.NDArray[np.float32]
    threshold_N: npt.NDArray[np.float64]
    lost: float
    """Share of held-out queries of experts that go to the base."""
    false_routes: float
    """Share of held-out background that goes to an expert."""

    def features(self, vectors_BD: npt.ArrayLike, words_BW: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(B, D + W)."""
        return features(vectors_BD, words_BW, self.rarity_W)

    def scores(self, vectors_BD: npt.ArrayLike, words_BW: npt.ArrayLike, forms_BE: npt.ArrayLike) -> Array:
        """(B, N)."""
        scaled_BE = np.asarray(forms_BE, np.float32) / self.form_scale_E
        return scores(self, np.asarray(vectors_BD, np.float32), self.features(vectors_BD, words_BW), scaled_BE)


def features(vectors_BD: npt.ArrayLike, words_BW: npt.ArrayLike, rarity_W: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Meaning and words, each of length 1."""
    return np.hstack([np.asarray(vectors_BD), unit(np.asarray(words_BW) * rarity_W)]).astype(np.float32)


def scores(
    fitted: Fitted, vectors_BD: npt.NDArray[np.float32], features_BF: npt.NDArray[np.float32], forms_BE: npt.NDArray[np.float32]
) -> Array:  # fmt: skip
    """(B, N): see the top of this file. Experts that are not among the `LOOKED_AT` likeliest get `FAR`."""
    count = len(fitted.names)
    cosine_BK = vectors_BD @ fitted.centroids_KD.T
    near_BN = np.stack([cosine_BK[:, fitted.owner_K == one].max(1) for one in range(count)], 1)
    logit_BC = features_BF @ fitted.weight_FC + fitted.bias_C
    likely_BN = logit_BC[:, :count] + MEANING * near_BN
    out_BN = np.full((len(vectors_BD), count), FAR)
    for row, feature_F in enumerate(features_BF):
        for place in np.argsort(-likely_BN[row])[:LOOKED_AT]:
            meaning, words = neighbours(fitted.texts_NVF[place], feature_F, vectors_BD.shape[1])
            odd = strange(fitted.forms_NVE[place], forms_BE[row], fitted.usual_N[place])
            near = MEANING * meaning + WORDS * words - min(FORM * odd, MOST_STRANGE)
            out_BN[row, place] = logit_BC[row, place] + near - GROUND * logit_BC[row, -1]
    return out_BN


def neighbours(
    texts_VF: npt.NDArray[np.float32], feature_F: npt.NDArray[np.float32], width: int
) -> tuple[float, float]:
    """Mean cosine of the `NEIGHBOURS` nearest texts, by meaning and by words."""
    found = (texts_VF[:, :width] @ feature_F[:width], texts_VF[:, width:] @ feature_F[width:])
    meaning, words = (float(np.sort(one)[-NEIGHBOURS:].mean()) for one in found)
    return meaning, words


def fit(
    profiles: Sequence[ExpertProfile], background: Background, wanted: Wanted = Wanted(), *, sparing: bool = False
) -> Fitted | None:
    """A head and a threshold for these experts; None for none.

    The threshold is that of a head which spares the held-out queries. Once it is known, the head learns from them too: a fifth more
    texts, and their own scores only rise. `sparing`: that is left out, so that the held-out queries can judge.
    """
    if not profiles:
        return None
    spared = _with_threshold(_headed(profiles, background), profiles, background, wanted)
    if sparing:
        return spared
    learned = _headed([_whole(one) for one in profiles], background)
    return replace(learned, threshold_N=spared.threshold_N, lost=spared.lost, false_routes=spared.false_routes)


def _whole(profile: ExpertProfile) -> ExpertProfile:
    """With the held-out queries among the training texts."""
    return replace(
        profile, train_VD=np.vstack([profile.train_VD, profile.calibration_VD]),
        train_words_VW=np.vstack([profile.train_words_VW, profile.calibration_words_VW]),
        train_forms_VE=np.vstack([profile.train_forms_VE, profile.calibration_forms_VE]),
    )  # fmt: skip


def _headed(profiles: Sequence[ExpertProfile], background: Background) -> Fitted:
    """Everything but the threshold."""
    count = len(profiles)
    rare = rarity(np.vstack([*(one.train_words_VW for one in profiles), background.train_words]))
    parts = [features(one.train_VD, one.train_words_VW, rare) for one in profiles]
    parts.append(features(background.train, background.train_words, rare))
    label = np.concatenate([[place] * len(part) for place, part in enumerate(parts)])
    weight, bias = logistic(np.vstack(parts), label, count + 1)
    form_scale = scale(np.vstack([*(one.train_forms_VE for one in profiles), background.train_forms]))
    known = tuple(one.train_forms_VE / form_scale for one in profiles)
    return Fitted(
        tuple(one.name for one in profiles), weight.astype(np.float32), bias.astype(np.float32),
        np.vstack([one.centroids_KD for one in profiles]),
        np.concatenate([[place] * len(one.centroids_KD) for place, one in enumerate(profiles)]),
        tuple(parts[:count]), rare, known, tuple(map(usual, known)), form_scale, np.zeros(count), 0.0, 0.0,
    )  # fmt: skip


def _with_threshold(
    fitted: Fitted, profiles: Sequence[ExpertProfile], background: Background, wanted: Wanted
) -> Fitted:
    found = [fitted.scores(one.calibration_VD, one.calibration_words_VW, one.calibration_forms_VE) for one in profiles]
    best = np.concatenate([scores_BN.max(1) for scores_BN in found])
    right = np.concatenate([scores_BN.argmax(1) == place for place, scores_BN in enumerate(found)])
    other = fitted.scores(background.held_out, background.held_out_words, background.held_out_forms)
    kept = best[right] if right.any() else best
    keeps = lambda share: -at_most(-kept, share)
    floor = min(max(keeps(wanted.lose), at_most(other.max(1), wanted.false_routes)), keeps(wanted.most_lost))
    threshold = floor if np.isfinite(floor) else kept.min()
    lost, wrong = np.mean(best < threshold), np.mean(other.max(1) >= threshold)
    return replace(fitted, threshold_N=np.full(len(found), threshold), lost=float(lost), false_routes=float(wrong))


@dataclass(frozen=True)
class Background:
    """The ground: vectors, words and forms of our own sentences, half to learn from and half to hold out."""

    train: npt.NDArray[np.float32]
    train_words: npt.NDArray[np.float32]
    train_forms: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.float32]
    held_out_words: npt.NDArray[np.float32]
    held_out_forms: npt.NDArray[np.float32]


def background_of(embedder: Embedder, texts: Sequence[str] = ()) -> Background:
    """Of `texts`, or of our own sentences."""
    texts = list(texts) or sentences()
    found = embedder(texts), hashed(texts), forms(texts)
    return Background(*(one[::2] for one in found), *(one[1::2] for one in found))


class CentroidRouter:
    """The router of a library. `learn` may run in another thread than `route`: a decision sees one state or the next, never both."""

    def __init__(
        self, embedder: Embedder, profiles: Sequence[ExpertProfile] = (), *, wanted: Wanted = Wanted(), sparing: bool = False
    ) -> None:  # fmt: skip
        self.embedder, self.wanted, self.sparing = embedder, wanted, sparing
        self.background = background_of(embedder)
        self.fitted: Fitted | None = None
        self.learn(profiles)

    def learn(self, profiles: Sequence[ExpertProfile]) -> None:
        """Take these experts instead of those before. Profiles made by another encoder are left out: their vectors mean nothing here."""
        fitting = [one for one in profiles if one.card.get("encoder") == self.embedder.sha256]
        self.fitted = fit(sorted(fitting, key=lambda one: one.name), self.background, self.wanted, sparing=self.sparing)

    def route(self, request: Request, held: str | None) -> Route:
        """See contracts.Router."""
        if request.model not in (AUTO, BASE):
            return Route(request.model, 1.0, 0.0, "named")
        fitted = self.fitted
        if fitted is None or request.model == BASE:
            return Route(None, reason="named" if request.model == BASE else "nothing-fits")
        return decide(fitted, self.query_scores(fitted, question_of(request)), held)

    def query_scores(self, fitted: Fitted, text: str) -> Array:
        """scores_N of one text."""
        return fitted.scores(self.embedder.one(text)[None], hashed([text]), forms([text]))[0]


def question_of(request: Request) -> str:
    """The newest user turn; with the one before it where it is too short to stand alone ("and in Spain?")."""
    turns = [one for one in request.messages if one.get("role") == "user"]
    last = request.last_user
    if len(turns) > 1 and len(last.split()) <= SHORT_WORDS:
        earlier = Request(request.kind, request.model, tuple(turns[:-1])).last_user
        return f"{earlier}\n{last}"
    return last


def decide(fitted: Fitted, scores_N: Array, held: str | None) -> Route:
    """The best that is above its threshold; the held one unless it is beaten by `STAYS`. Scores are told against the threshold."""
    order = np.argsort(-scores_N)
    best = int(order[0])
    margin = float(scores_N[best] - scores_N[order[1]]) if len(order) > 1 else float("inf")
    above = scores_N - fitted.threshold_N
    told = lambda place, why: Route(
        fitted.names[place], round(float(above[place]), 4), round(min(margin, 99.0), 4), why
    )
    if held in fitted.names:
        place = fitted.names.index(held)
        if place == best or (scores_N[best] - scores_N[place] < STAYS and above[place] > -STAYS):
            return told(place, "held") if above[place] > -STAYS else _nothing(above, best, margin)
        return told(best, "moved") if above[best] >= 0 else _nothing(above, best, margin)
    return told(best, "fits") if above[best] >= 0 else _nothing(above, best, margin)


def _nothing(above_N: Array, best: int, margin: float) -> Route:
    return Route(None, round(float(above_N[best]), 4), round(min(margin, 99.0), 4), "nothing-fits")


def confusion(router: CentroidRouter, queries: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Asked of -> answered by ("" is the base) -> how many."""
    found: dict[str, dict[str, int]] = {}
    for name, texts in queries.items():
        row = found.setdefault(name, {})
        for text in texts:
            message = {"role": "user", "content": text}
            chosen = router.route(Request("chat", AUTO, (message,)), None).expert or ""
            row[chosen] = row.get(chosen, 0) + 1
    return found
