"""An adapter folded into its base, in float32, and how far the logits moved.

float32 because an update of relative size 1e-3 survives a bfloat16 merge only at 65 % (methods survey, section 2.1).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genwright.base.errors import ModelError
from genwright.base.files import folder_being_written
from genwright.models.check import check_adapter_folder, check_folder
from genwright.models.families import Head, family_of, scores_at
from genwright.models.load import load_model, quiet
from genwright.models.tokenizer_files import copy_tokenizer

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Parity:
    """Adapted and merged model on the same prompts, both in float32."""

    max_logit_difference: float
    """max |adapted - merged| over every position of every prompt; 6e-5 is usual. 0 where there were no prompts."""
    same_tokens: bool
    """Whether the likeliest next token is the same at every position."""
    prompts: int


def merge_adapter(
    base_folder: Path, adapter_folder: Path, out_folder: Path, *, prompts: Sequence[list[int]] = (), head: Head | None = None,
    say: Say,
) -> Parity:  # fmt: skip
    """Write base + adapter to `out_folder` as a plain safetensors folder that needs nothing of ours or of `peft`.

    Parity is measured on what is read back from disk. Bytes are the same for the same inputs. Memory: the float32 base
    twice at most. Errors: ModelError for folders that are broken or pickled, or an adapter of another base.
    """
    check_folder(base_folder)
    check_adapter_folder(adapter_folder)
    if Path(out_folder).exists():
        raise ModelError(f"{out_folder} exists already.", do="name a folder that does not")
    with folder_being_written(Path(out_folder)) as out:
        before = _merge_into(out, Path(base_folder), Path(adapter_folder), prompts, head or Head(), say)
        gc.collect()
        copy_tokenizer(Path(base_folder), out)
        after = logits_of(load_model(out, dtype=torch.float32, head=head), prompts)
    difference = max((float((a - b).abs().max()) for a, b in zip(before, after)), default=0.0)
    same = all(torch.equal(a.argmax(-1), b.argmax(-1)) for a, b in zip(before, after))
    return Parity(difference, same, len(prompts))


def _merge_into(
    out: Path, base: Path, adapter: Path, prompts: Sequence[list[int]], head: Head, say: Say
) -> list[Tensor]:
    from peft import PeftModel

    say(f"merging {adapter.name} into its base in float32")
    with quiet():
        model = load_model(base, dtype=torch.float32, head=head)
        try:
            model = PeftModel.from_pretrained(model, str(adapter), use_safetensors=True).eval()
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"{adapter} is no adapter of {base}.", found=(str(error).splitlines() or [type(error).__name__])[0],
                do="merge it into the model it was trained on",
            ) from error  # fmt: skip
        logits = logits_of(model, prompts)
        merged = model.merge_and_unload(safe_merge=True)
        merged.save_pretrained(out, safe_serialization=True)
    return logits


@torch.no_grad()
def logits_of(model: Any, prompts: Sequence[list[int]]) -> list[Tensor]:
    """[T, V] logits of each prompt, or [1, C] scores of its classes, one prompt at a time: no padding can differ."""
    return [_logits(model, torch.tensor([prompt])).float() for prompt in prompts]


def _logits(model: Any, ids_1T: Tensor) -> Tensor:
    family = family_of(model.config)
    if getattr(model, "genwright_heads", ()) == ("score",) and family == "decoder":
        return scores_at(model, {"input_ids": ids_1T}, torch.tensor([ids_1T.shape[1] - 1]))
    if family == "encoder-decoder":
        return model(input_ids=ids_1T, decoder_input_ids=ids_1T, use_cache=False).logits[0]
    return model(input_ids=ids_1T, **({"use_cache": False} if family == "decoder" else {})).logits[0]
