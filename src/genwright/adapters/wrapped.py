"""Around `peft`: its model over any family of ours, heads made anew beside the adapter, and folders that are equal bytes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from genwright.adapters.base import fresh_heads, train_
from genwright.base.errors import RecipeError
from genwright.models.families import family_of

ADAPTER_NAME = "default"
HEAD_TASKS = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}


def task_type_of(model: Any) -> str | None:
    """What `peft` calls this model's task; None for a masked language model, which it has no name for."""
    for ending, task in HEAD_TASKS.items():
        if type(model).__name__.endswith(ending):
            return task
    if model.can_generate():
        return "SEQ_2_SEQ_LM" if family_of(model.config) == "encoder-decoder" else "CAUSAL_LM"
    return None if model.get_output_embeddings() is not None else "FEATURE_EXTRACTION"


def wrapped(model: Any, config: Any) -> Any:
    """`peft`'s model over this one, with the adapter named "default". Its weights, and heads made anew, are float32 masters."""
    config.task_type = task_type_of(model)
    if not config.is_prompt_learning:
        config.modules_to_save = list(fresh_heads(model)) or None
        config.exclude_modules = heads_of(model) or None
    with advice_off():
        adapted = get_peft_model(model, config, adapter_name=ADAPTER_NAME, autocast_adapter_dtype=True)
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for head in module.modules_to_save.values():
                train_(head)
                head.register_forward_pre_hook(_in_float32)
    return adapted


def heads_of(model: Any) -> list[str]:
    """What stands on the body: the output head, heads made anew, a value head. No adapter changes how they multiply."""
    output = model.get_output_embeddings()
    own = [name for name, module in model.named_modules() if module is output and output is not None]
    return [*own, *fresh_heads(model), *(["value_head"] if hasattr(model, "value_head") else [])]


def _in_float32(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A master head multiplies in its own type, whatever the frozen body computes in."""
    return tuple(
        value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs
    )


def linear_names(model: nn.Module) -> list[str]:
    """The last parts of the names of all linear layers, in order."""
    linear = (nn.Linear, Conv1D)
    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, linear)})


def checked_targets(model: nn.Module, targets: tuple[str, ...], key: str) -> str | list[str]:
    """What `peft` calls the targets. Errors: RecipeError when one names no layer, with the layers there are."""
    if targets == ("all-linear",):
        return "all-linear"
    known = linear_names(model)
    missing = [target for target in targets if target not in known]
    if missing or not targets:
        raise RecipeError(
            f"{key} names no layer of this model: {', '.join(missing) or 'it is empty'}.",
            wanted=f'"all-linear", or some of {", ".join(known)}',
            found=", ".join(targets),
            do="correct the names",
        )
    return list(targets)


def save_adapter(model: Any, folder: Path, *, state: dict[str, Tensor] | None = None) -> None:
    """`peft`'s own folder, of the adapter and of the heads beside it. `state` takes the place of the model's own weights."""
    with advice_off():
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False, state_dict=state)
    _tidy(folder)


def save_tensors(tensors: dict[str, Tensor], config: Any, folder: Path) -> None:
    """`peft`'s folder of these tensors, written without a model."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    config.inference_mode = True
    config.save_pretrained(folder)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Lists that `peft` keeps as sets are sorted and no path is kept, so that equal adapters are equal files."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    sets = ("target_modules", "feedforward_modules", "modules_to_save", "exclude_modules")
    config |= {key: sorted(set(config[key])) for key in sets if isinstance(config.get(key), list)}
    config["base_model_name_or_path"] = None
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@contextmanager
def advice_off() -> Iterator[None]:
    """`peft` warns about tied embeddings that it does not touch, and asks for a property that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
