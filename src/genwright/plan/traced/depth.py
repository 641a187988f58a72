"""How many layers a config's model has, and the same config with fewer."""

from __future__ import annotations

import copy
from typing import Any

from genwright.models.families import family_of


def _depth_keys(config: Any) -> list[str]:
    """Where a config keeps the number of layers of each stack."""
    if family_of(config) == "encoder-decoder":
        known = (("encoder_layers", "decoder_layers"), ("num_layers", "num_decoder_layers"))
        return next([*pair] for pair in known if all(hasattr(config, key) for key in pair))
    return [next(key for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if hasattr(config, key))]


def depths(config: Any) -> list[int]:
    """Layers of each stack."""
    text = config if family_of(config) == "encoder-decoder" else config.get_text_config()
    return [int(getattr(text, key)) for key in _depth_keys(text)]


def shrunk(config: Any, depth: int) -> tuple[Any, list[int]]:
    """A copy of `depth` layers a stack, and how many each has."""
    small = copy.deepcopy(config)
    text = small if family_of(small) == "encoder-decoder" else small.get_text_config()
    stacks = []
    for key in _depth_keys(text):
        stacks.append(min(depth, int(getattr(text, key))))
        setattr(text, key, stacks[-1])
    for name in ("layer_types", "no_rope_layers", "mlp_layer_types"):
        if getattr(text, name, None) and not isinstance(getattr(type(text), name, None), property):
            setattr(text, name, list(getattr(text, name))[: stacks[-1]])
    if getattr(text, "max_window_layers", None):
        text.max_window_layers = min(text.max_window_layers, stacks[-1])
    return small, stacks
