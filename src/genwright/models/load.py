"""Files on disk to a model and a tokenizer, safely: safetensors only, nothing that runs code of the repository's."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoTokenizer
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from genwright.base.errors import ModelError
from genwright.models.attention import NAME
from genwright.models.check import check_folder, read_json, refuse_remote_code, without_attention_keys
from genwright.models.families import FRESH, IGNORED_BY_HEADS, LANGUAGE, Head, family_of


def load_config(folder: Path) -> Any:
    """The model's configuration, without keys that choose an attention of their own.

    Errors: ModelError for a folder without one, one that asks for remote code, or an architecture nobody here knows.
    """
    folder = Path(folder)
    values = read_json(folder / "config.json", f"{folder} is no model folder.")
    refuse_remote_code(folder)
    with quiet(), _a_folder_of_ours(folder):
        return config_from(without_attention_keys(values), str(folder / "config.json"))


def config_from(values: dict[str, Any], who: str) -> Any:
    """A configuration of the kind that its `model_type` says. Errors: ModelError naming `who`, and the field of a wrong value."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ModelError(
            f"{who} is a '{kind}' model, which this transformers ({transformers.__version__}) does not know.",
            wanted="a model_type that it knows", do="upgrade transformers, or choose another model",
        )  # fmt: skip
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    except StrictDataclassError as error:
        raise _wrong_value(error, who) from error


def _wrong_value(error: StrictDataclassError, who: str) -> ModelError:
    field, _, cause = str(error).partition(":\n")
    return ModelError(
        f"{who}: {field.replace('Validation error for field', 'a wrong value of')}.", wanted="values as transformers defines them",
        found=" ".join(cause.split()) or field, do="correct the file, or fetch the model again",
    )  # fmt: skip


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer. Errors: ModelError where there is none, or it asks for remote code."""
    refuse_remote_code(Path(folder))
    with quiet(), _a_folder_of_ours(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(folder: Path, *, dtype: torch.dtype, attention: str = "sdpa", head: Head | None = None) -> Any:
    """The model in evaluation mode, with this head (its language head, if none is named).

    A head of classes that the files do not have starts at random: seed before. Errors: ModelError for what
    `check_folder` refuses, and for missing weights.
    """
    check_folder(Path(folder))
    head = head or Head()
    config = head.configured(load_config(folder))
    with quiet(), _a_folder_of_ours(folder):
        model, report = head.loader(family_of(config)).from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=possible(config, attention), local_files_only=True,
            use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        )  # fmt: skip
    fresh = tuple(f"{name}." for name in FRESH.get(head.kind, ())) + IGNORED_BY_HEADS
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in fresh))
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of the weights that a {type(model).__name__} has.",
            found=f"missing: {', '.join(missing[:3])}",
            do="fetch the model again; a model without an output head writes no text",
        )  # fmt: skip
    return head.finish_(model.eval())


@contextmanager
def _a_folder_of_ours(folder: Path) -> Iterator[None]:
    """The library's many ways of refusing a folder, as one error."""
    try:
        yield
    except StrictDataclassError as error:
        raise _wrong_value(error, str(Path(folder) / "config.json")) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder} cannot be loaded.", found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            do="fetch the model again, or choose another",
        ) from error  # fmt: skip


def possible(config: Any, attention: str) -> str:
    """The attention asked for, or what the architecture can: torch's unless it cannot use it (Gemma 2 caps its scores).

    An encoder-decoder keeps its own: it attends across two texts, with biases that only it knows.
    """
    family = family_of(config)
    if attention not in ("sdpa", NAME) or (attention == NAME and family != "encoder-decoder"):
        return attention
    return "sdpa" if LANGUAGE[family]._model_mapping[type(config)]._supports_sdpa else "eager"


def build_model(config: Any, dtype: torch.dtype, attention: str = "sdpa", head: Head | None = None) -> Any:
    """The same model without weights of its own: what the planner builds on fake tensors. Tied weights are tied."""
    head = head or Head()
    config = head.configured(copy.deepcopy(config))
    with quiet(), no_init_weights():
        model = head.loader(family_of(config)).from_config(
            config, dtype=dtype, attn_implementation=possible(config, attention)
        )
    model.tie_weights()
    return head.finish_(model.eval())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `transformers`' progress bars and advice off the terminal: we say what matters ourselves."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
