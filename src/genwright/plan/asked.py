"""What a person asks of an estimate, before anything is traced: names that exist, numbers that make sense, splits that come out even.

A Setup checks what it is by itself; here stands what needs the model, the catalogue, or the request. No torch here.
"""

from __future__ import annotations

from typing import Any

from genwright.base.errors import RecipeError
from genwright.catalogue.parts import ADAPTERS, OBJECTIVES
from genwright.plan.architectures import config_of, context_of
from genwright.plan.traced.setup import ELSEWHERE, RANKED

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers")
"""Where configs keep them."""


def check_asked(wanted: dict[str, Any], config: Any, *, steps: int = 1, rows: int = 0) -> None:
    """`wanted` are fields of a Setup. Errors: UnknownName, RecipeError, each with the nearest that would work."""
    if wanted.get("adapter", "full") not in ELSEWHERE:
        ADAPTERS.path(wanted.get("adapter", "full"))
    OBJECTIVES.path(wanted.get("objective", "instruction"))
    for name, least in (("count", 1), ("steps", 1), ("rank", 0), ("sharding_factor", 0), ("batch_size", 0)):
        _at_least(name, {"steps": steps, "batch_size": rows, **wanted}.get(name, least), least)
    if wanted.get("rank") and wanted.get("adapter", "full") not in ("full", *RANKED):
        raise RecipeError(
            f"{wanted['adapter']} has no rank.", wanted=f"--rank with {', '.join(RANKED)}", found=f"--rank {wanted['rank']}",
            do="leave --rank out",
        )  # fmt: skip
    if wanted.get("adapter") == "full" and wanted.get("base"):
        raise RecipeError(
            f"Weights that are trained cannot be kept in {wanted['base']}.", wanted="--base with an adapter over frozen weights",
            found=f"--adapter full --base {wanted['base']}", do="set --adapter lora, or leave --base out",
        )  # fmt: skip
    text = _text(config)
    _splits(wanted.get("tensor_degree", 1), "--tensor-degree", _first(text, HEADS), "heads")
    _reaches(wanted.get("pipeline_degree", 1), _first(text, LAYERS))


def check_context(seq_len: int, config: Any) -> None:
    """Errors: RecipeError for a row that the model cannot read, with the longest that it can."""
    longest = context_of(config_of(config))
    _at_least("seq_len", seq_len, 1)
    if longest and seq_len > longest:
        raise RecipeError(
            f"The model reads at most {longest} tokens.", wanted=f"--seq-len up to {longest}", found=f"--seq-len {seq_len}",
            do=f"set --seq-len {longest}, or choose a model with a longer context",
        )  # fmt: skip


def _text(config: Any) -> dict[str, Any]:
    values = config_of(config)
    text: dict[str, Any] = values.get("text_config") or values
    return text


def _first(values: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first of these that is stated; 0: none."""
    return next((int(values[name]) for name in names if values.get(name)), 0)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        option = f"--{name.replace('_', '-')}"
        raise RecipeError(
            f"{option} is a whole number.", wanted=f"{least} or more", found=str(value), do=f"set {option} {least}"
        )


def _splits(degree: int, option: str, whole: int, what: str) -> None:
    if degree < 1 or not whole or whole % degree == 0:
        return
    possible = [number for number in range(1, whole + 1) if whole % number == 0]
    nearest = min(possible, key=lambda number: abs(number - degree))
    raise RecipeError(
        f"{whole} {what} do not split over {degree} devices.", wanted=f"{option} of {', '.join(map(str, possible))}",
        found=f"{option} {degree}", do=f"set {option} {nearest}",
    )  # fmt: skip


def _reaches(degree: int, layers: int) -> None:
    if layers and degree > layers:
        raise RecipeError(
            f"{layers} layers do not reach for {degree} stages.", wanted=f"--pipeline-degree up to {layers}",
            found=f"--pipeline-degree {degree}", do=f"set --pipeline-degree {layers}",
        )  # fmt: skip
