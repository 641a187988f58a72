"""A model's config from whatever names it: a catalogue name, a hub's name of one, a folder or file, or the config itself. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.catalogue.architectures import architecture


def config_of(model: str | dict[str, Any]) -> dict[str, Any]:
    """A plain config with its `model_type`. Errors: ModelError, UnknownName with the nearest name."""
    if isinstance(model, dict):
        return _checked(dict(model), "The config")
    path = Path(model)
    if path.suffix == ".json" or path.is_dir():
        return _read(path if path.suffix == ".json" else path / "config.json")
    return dict(architecture(model).config)


def context_of(config: dict[str, Any]) -> int:
    """The longest row that the config allows; 0: any."""
    text = config.get("text_config") or config
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        if text.get(key):
            return int(text[key])
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read.", wanted="a config.json", found=str(error), do="name a model folder, or a config"
        ) from error
    return _checked(values, str(path))


def _checked(values: dict[str, Any], who: str) -> dict[str, Any]:
    if not values.get("model_type"):
        raise ModelError(
            f"{who} does not say what kind of model it is.",
            wanted='"model_type"',
            found="none",
            do='add it, such as "llama"',
        )
    return values
