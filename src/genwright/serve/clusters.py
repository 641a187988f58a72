"""Small numpy pieces of routing and guarding: k-means on the sphere, logistic regression, conformal thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
"""B texts, D width, K centroids, C classes."""


def unit(x_BD: npt.ArrayLike) -> Array:
    """Rows of length 1; a row of zeros stays."""
    x = np.asarray(x_BD, np.float64)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


def kmeans(x_BD: npt.ArrayLike, k: int, *, rounds: int = 25, seed: int = 0) -> Array:
    """At most k unit centroids by cosine: Lloyd's rounds from k-means++ seeds; an empty cluster is dropped."""
    x = unit(x_BD)
    rng = np.random.default_rng(seed)
    centroids = x[[int(rng.integers(len(x)))]]
    while len(centroids) < min(k, len(x)):
        far = np.maximum(1 - (x @ centroids.T).max(1), 0) ** 2
        if far.sum() <= 1e-12:
            break
        centroids = np.vstack([centroids, x[int(rng.choice(len(x), p=far / far.sum()))]])
    for _ in range(rounds):
        nearest = (x @ centroids.T).argmax(1)
        moved = unit(np.stack([x[nearest == one].mean(0) for one in np.unique(nearest)]))
        if moved.shape == centroids.shape and np.allclose(moved, centroids):
            break
        centroids = moved
    return centroids


def logistic(
    x_BD: npt.ArrayLike, label_B: npt.ArrayLike, classes: int, *, l2: float = 1e-4, rounds: int = 300
) -> tuple[Array, Array]:
    """Multinomial logistic regression, every class of equal weight: (weight_DC, bias_C), by Nesterov's gradient descent."""
    x, label = np.asarray(x_BD, np.float32), np.asarray(label_B, np.int64)
    target = np.eye(classes, dtype=np.float32)[label]
    count = np.maximum(target.sum(0), 1)
    share = (1 / (count * (target.sum(0) > 0).sum())).astype(np.float32)[label][:, None]
    x = np.hstack([x, np.ones((len(x), 1), np.float32)])
    weight = np.zeros((x.shape[1], classes), np.float32)
    step = np.float32(1.0 / (0.5 * float((share * x**2).sum()) + l2))
    before = weight
    for number in range(rounds):
        ahead = weight + np.float32(number / (number + 3)) * (weight - before)
        gradient = x.T @ (share * (softmax(x @ ahead) - target)) + np.float32(l2) * ahead
        before, weight = weight, ahead - step * gradient
    return weight[:-1].astype(np.float64), weight[-1].astype(np.float64)


def softmax(x_BC: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Over the last axis."""
    power = np.exp(x_BC - x_BC.max(-1, keepdims=True))
    out: npt.NDArray[Any] = power / power.sum(-1, keepdims=True)
    return out


def at_most(values: npt.ArrayLike, rate: float) -> float:
    """The threshold that a new value of the same kind exceeds with at most this probability: split conformal (2107.07511).

    The ceil((n + 1)(1 - rate))-th smallest of n values; infinite where n is too small for the rate.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    place = math.ceil((len(ordered) + 1) * (1 - rate))
    return math.inf if place > len(ordered) else float(ordered[place - 1])
