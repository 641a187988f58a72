"""A forward without gradients, on fake tensors: what evaluating and a prompt's first pass take beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from genwright.plan.traced.pieces import Segment
from genwright.plan.traced.recorder import Recorder


def forward_peaks(model: Any, run: Callable[[Recorder], None], vocabulary: int) -> tuple[int, int]:
    """Live bytes at the widest moment of the layers, and of the head with its loss; any depth has the same.

    `run` takes one microbatch and cuts a segment "loss" before the head. The model is left in evaluation mode.
    """
    recorder = Recorder([*model.parameters(), *model.buffers()], vocabulary=vocabulary)
    model.eval()
    with torch.no_grad(), recorder:
        run(recorder)
    return _peaks(recorder.finish())


def _peaks(segments: list[Segment]) -> tuple[int, int]:
    live = 0
    held: dict[tuple[int, int], int] = {}
    highest = {"forward": 0, "loss": 0}
    for segment in segments:
        for change in segment.changes:
            where = change[:2]
            live += change.bytes - held.pop(where, 0)
            if change.bytes:
                held[where] = change.bytes
            highest[segment.name] = max(highest[segment.name], live)
    return highest["forward"], highest["loss"]


def cache_bytes(config: Any, each: int) -> int:
    """Keys and values of one token over all layers: 2 x layers x key heads x head width x bytes."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", None) or getattr(text, "n_head", None) or 1
    shared = getattr(text, "num_key_value_heads", None) or (1 if getattr(text, "multi_query", False) else heads)
    width = getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // heads
    layers = getattr(text, "num_decoder_layers", None) or getattr(text, "num_hidden_layers", None) or text.n_layer
    return int(2 * layers * shared * width * each)
