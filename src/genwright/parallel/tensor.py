"""Tensor parallelism: the products inside a layer split over ranks, as the model's own plan says (Shoeybi 2019, arXiv 1909.08053).

`transformers` models name the linear layers that split by outputs ("colwise") and the ones after them that split by inputs
("rowwise"); the sum after those is the only message. What the plan names outside the layers (embeddings, head) stays
whole. Trained weights that stay whole become replicated DTensors and are local only inside their module's forward, so that
optimizer, norm and checkpoint see one kind of tensor.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from genwright.base.errors import RecipeError


def plan_of(model: Any) -> dict[str, str]:
    """The model's linear layers that split, with their style. Errors: RecipeError for a model without such a plan."""
    plan = {pattern: style for pattern, style in (getattr(model, "_tp_plan", None) or {}).items() if ".*." in pattern}
    found: dict[str, str] = {}
    for pattern, style in plan.items():
        expression = re.compile(re.escape(pattern).replace(r"\*", r"\d+"))
        found |= {name: style for name, module in model.named_modules() if expression.fullmatch(name)}
    others = {name: style for name, style in found.items() if style not in ("colwise", "rowwise")}
    if not found or others:
        name, style = next(iter(others.items()), ("", ""))
        raise RecipeError(
            f"{type(model).__name__} has no plan for tensor parallelism that we can follow.", wanted="colwise and rowwise linear layers",
            found=f"{name} is {style}" if others else "none", do="set hardware.tensor_degree = 1",
        )  # fmt: skip
    return found


def check_degree(model: Any, degree: int) -> None:
    """Heads, and the width between the layers' products, divide evenly. Errors: RecipeError with the nearest degree."""
    config = model.config.get_text_config()
    heads, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    sizes = [heads, keys, *({config.intermediate_size} if hasattr(config, "intermediate_size") else set())]
    possible = [number for number in range(1, keys + 1) if all(size % number == 0 for size in sizes)]
    if degree not in possible:
        nearest = max((number for number in possible if number <= degree), default=1)
        raise RecipeError(
            f"This model does not split into {degree}: it has {heads} heads and {keys} key/value heads.",
            wanted=f"a hardware.tensor_degree of {', '.join(map(str, possible))}", found=str(degree), do=f"set it to {nearest}",
        )  # fmt: skip


def split_(model: Any, mesh: Any) -> None:
    """Split a model in place over a mesh of one axis. Every rank must have the same weights. Errors: RecipeError."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if not hasattr(model, "config") or hasattr(model, "get_base_model"):
        raise RecipeError(
            "Tensor parallelism splits the base's own layers, and this adapter stands in front of them.",
            wanted='method = "full" or "last-layers"',
            found=type(model).__name__, do="set hardware.tensor_degree = 1; an adapter's small state splits well with zero3",
        )  # fmt: skip
    check_degree(model, mesh.size())
    styles = {"colwise": ColwiseParallel, "rowwise": RowwiseParallel}
    parallelize_module(
        model, mesh, {name: styles[style]() for name, style in plan_of(model).items()}, src_data_rank=None
    )
    replicated: dict[int, nn.Parameter] = {}  # tied weights stay one
    for module in model.modules():
        _replicate_(module, mesh, [Replicate()], replicated)


def _replicate_(module: nn.Module, mesh: Any, placements: list[Any], made: dict[int, nn.Parameter]) -> None:
    from torch.distributed.tensor import DTensor

    own = {
        name: one
        for name, one in module._parameters.items()
        if one is not None and one.requires_grad and not isinstance(one, DTensor)
    }
    for name, parameter in own.items():
        if id(parameter) not in made:
            made[id(parameter)] = nn.Parameter(
                DTensor.from_local(parameter.detach(), mesh, placements, run_check=False)
            )
        module._parameters[name] = made[id(parameter)]
    if own:
        _use_local_(module, list(own))


def _use_local_(module: nn.Module, names: list[str]) -> None:
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        held: dict[str, Any] = {name: module._parameters[name] for name in names}
        local: dict[str, Any] = {name: one.to_local() for name, one in held.items()}
        module._parameters.update(local)
        try:
            return plain(*args, **kwargs)
        finally:
            module._parameters.update(held)

    module.forward = forward
