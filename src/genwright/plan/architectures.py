"""A model's config from whatever names it: a catalogue name, a hub's name of one, a folder or file, or the config itself. No torch here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.catalogue.architectures import architecture

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
"""Where configs keep the longest row."""
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "n_embd", "n_layer", "n_head", "d_model", "d_ff", "d_kv", "num_layers", "num_heads", "num_decoder_layers", "n_layers", "n_heads",
    "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads", "num_experts_per_tok", "num_local_experts",
    *POSITIONS,
)  # fmt: skip
"""What configs state as whole numbers, where they state it; some as one number for each layer."""


def config_of(model: str | dict[str, Any]) -> dict[str, Any]:
    """A plain config with its `model_type`. Errors: ModelError, UnknownName with the nearest name."""
    if isinstance(model, dict):
        return _traceable(_checked(dict(model), "The config"))
    path = Path(model)
    if path.suffix == ".json" or path.is_dir():
        return _traceable(_read(path if path.suffix == ".json" else path / "config.json"))
    return _traceable(dict(architecture(model).config))


def _traceable(config: dict[str, Any]) -> dict[str, Any]:
    """An MPT as the GPT-2 of its sizes: the same products, and attention that is fused, as MPTs are trained (llm-foundry).

    transformers' own class writes every score out. ALiBi's slopes become learned positions, under 0.2 % of the weights.
    """
    if config["model_type"] != "mpt":
        return config
    width, ratio = config.get("d_model", 2048), config.get("expansion_ratio", 4)
    return {
        "model_type": "gpt2", "n_embd": width, "n_layer": config.get("n_layers", 24), "n_head": config.get("n_heads", 16),
        "n_inner": int(width * ratio), "n_positions": config.get("max_seq_len", 2048), "vocab_size": config.get("vocab_size", 50368),
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip


def context_of(config: dict[str, Any]) -> int:
    """The longest row that the config allows; 0: any."""
    text = config.get("text_config") or config
    for key in POSITIONS:
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


def _checked(values: Any, who: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ModelError(
            f"{who} is no config.", wanted='a JSON object with "model_type"', found=_shown(values),
            do="name a model folder, or a config",
        )  # fmt: skip
    if not isinstance(values.get("model_type"), str) or not values["model_type"]:
        raise ModelError(
            f"{who} does not say what kind of model it is.",
            wanted='"model_type"',
            found=_shown(values.get("model_type")),
            do='add it, such as "llama"',
        )
    text = values.get("text_config")
    for part, found in (("", values), ("text_config.", text if isinstance(text, dict) else {})):
        for name in SIZES:
            if found.get(name) is not None and not _is_size(found[name]):
                raise ModelError(
                    f"{who}: {part}{name} is no size.", wanted=f'"{name}": a whole number of at least 1', found=_shown(found[name]),
                    do="correct the file, or fetch it again",
                )  # fmt: skip
    return values


def _is_size(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_size(one) for one in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value)[:80]
