"""Files on disk to a model and a tokenizer, safely: safetensors only, nothing that runs code of the repository's."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from genwright.base.errors import ModelError
from genwright.models.families import family_of

LOADERS = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForMaskedLM, "encoder-decoder": AutoModelForSeq2SeqLM}


def load_config(folder: Path) -> Any:
    """The model's configuration. Errors: ModelError for a folder without one, or one that asks for remote code."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise ModelError(f"{folder} is no model folder.", wanted="config.json", found="none", do="name a folder with config.json and *.safetensors")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}.") from error
    if "auto_map" in values:
        raise ModelError(
            f"{folder} asks to run code of its own (auto_map in config.json).", wanted="an architecture that transformers knows",
            do="it is refused: that code could do anything on this machine; use a model of a known architecture",
        )  # fmt: skip
    with quiet():
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer."""
    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_model(folder: Path, *, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The model in evaluation mode. Errors: ModelError without safetensors weights."""
    config = load_config(folder)
    if not any(Path(folder).glob("*.safetensors")):
        raise ModelError(f"{folder} has no weights we read.", wanted="*.safetensors (a pickle can run code and is refused)")
    with quiet():
        model = LOADERS[family_of(config)].from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )  # fmt: skip
    return model.eval()


def build_model(config: Any, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The same model without weights of its own: what the planner builds on fake tensors. Tied weights are tied."""
    with quiet(), no_init_weights():
        model = LOADERS[family_of(config)].from_config(copy.deepcopy(config), dtype=dtype, attn_implementation=attention)
    model.tie_weights()
    return model.eval()


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
