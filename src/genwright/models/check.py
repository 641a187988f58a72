"""What is looked at before a model file is opened: weights that are data and not code, headers that fit their files.

A pickle (`pytorch_model.bin`, `*.pt`, `*.ckpt`) is a program: opening one runs it, so none is ever opened. Headers of
safetensors and GGUF files are read here with bounds, so that a file that lies about its sizes is refused by name.
Imports no torch.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, BinaryIO

from genwright.base.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5")
"""Weight formats that can run code when they are read, or that we have no safe reader for."""

LONGEST_HEADER = 100_000_000
"""Bytes; the same bound as the safetensors library's."""

TYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one element; a type that is not listed is left to the safetensors library."""


def check_folder(folder: Path) -> list[str]:
    """Refuse a model folder that is broken or unsafe; return what is ignored in it, in words. Opens no weights.

    Errors: ModelError.
    """
    folder = Path(folder)
    values = read_json(folder / "config.json", f"{folder} is no model folder.")
    refuse_remote_code(folder)
    weights = _weight_files(folder)
    tensors = {path.name: check_safetensors(path) for path in weights}
    _check_index(folder, tensors)
    notes = [f"{key} in config.json is ignored: the attention is chosen here" for key in attention_keys(values)]
    return notes + [f"{path.name} is ignored: pickles are never opened" for path in _pickles(folder)]


def check_adapter_folder(folder: Path) -> None:
    """Refuse a `peft` folder whose weights are a pickle, missing, or cut short. Errors: ModelError."""
    folder = Path(folder)
    read_json(folder / "adapter_config.json", f"{folder} is no adapter folder.")
    refuse_remote_code(folder)
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise _no_safetensors(folder, "adapter_model.safetensors")
    check_safetensors(weights)


def read_json(path: Path, problem: str) -> dict[str, Any]:
    """A JSON object. Errors: ModelError, which begins with `problem` where the file is missing."""
    if not path.is_file():
        raise ModelError(
            problem, wanted=f"{path.name} in {path.parent}", found="no such file",
            do="name a folder with config.json and *.safetensors",
        )  # fmt: skip
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON.", found=str(error), do="fetch the file again") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a JSON object.", found=type(values).__name__, do="fetch the file again")
    return values


def refuse_remote_code(folder: Path) -> None:
    """Errors: ModelError where a configuration points at Python code that comes with the model."""
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json"):
        if not (folder / name).is_file():
            continue
        asked = [
            key for key in ("auto_map", "trust_remote_code", "custom_generate") if read_json(folder / name, "").get(key)
        ]
        if asked:
            raise ModelError(
                f"{folder} asks to run code of its own ({asked[0]} in {name}).",
                wanted="an architecture that transformers knows by itself",
                do="it is refused: that code could do anything on this machine; use a model of a known architecture",
            )


def attention_keys(values: dict[str, Any]) -> list[str]:
    """Keys that choose an attention implementation, which may name code to be downloaded; nested ones too."""
    own = [key for key in values if key.lstrip("_").startswith("attn_implementation")]
    return own + [
        f"{key}.{inner}" for key, value in values.items() if isinstance(value, dict) for inner in attention_keys(value)
    ]


def without_attention_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The same configuration without those keys."""
    return {
        key: without_attention_keys(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if not key.lstrip("_").startswith("attn_implementation")
    }


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise _no_safetensors(folder, "*.safetensors")
    return files


def _pickles(folder: Path) -> list[Path]:
    found = sorted({path for pattern in PICKLES for path in folder.glob(pattern)})
    return [path for path in found if path.name != "training_args.bin"]


def _no_safetensors(folder: Path, wanted: str) -> ModelError:
    pickles = _pickles(folder)
    if not pickles:
        return ModelError(f"{folder} has no weights.", wanted=wanted, found="none", do="fetch the model again")
    return ModelError(
        f"{folder} has its weights only as {pickles[0].name}, which may be a pickle: "
        "reading one can run any code, so it is refused.",
        wanted=wanted, found=", ".join(path.name for path in pickles),
        do="where you trust it, from_pretrained(FOLDER).save_pretrained(NEW) (transformers, peft) saves safetensors",
    )  # fmt: skip


def check_safetensors(path: Path) -> set[str]:
    """Names of the tensors, once every one of them is known to lie inside the file. Errors: ModelError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(LONGEST_HEADER, size - 8):
            raise _broken(path, f"a header inside its {size} bytes", f"a header of {length} bytes")
        try:
            header = json.loads(file.read(length))
            tensors = {name: value for name, value in header.items() if name != "__metadata__"}
            for name, value in tensors.items():
                _check_tensor(path, name, value, size - 8 - length)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _broken(
                path, "a header of tensor names, types and places", f"{type(error).__name__}: {error}"
            ) from error
    return set(tensors)


def _check_tensor(path: Path, name: str, value: dict[str, Any], room: int) -> None:
    begin, end = value["data_offsets"]
    if not 0 <= begin <= end <= room:
        raise _broken(path, f"tensor {name} inside the {room} bytes of data", f"bytes {begin} to {end}")
    needed = math.prod(value["shape"]) * TYPE_BYTES.get(value["dtype"], 0)
    if needed and needed != end - begin:
        raise _broken(path, f"{needed} bytes for tensor {name}", f"{end - begin}")


def _broken(path: Path, wanted: str, found: str) -> ModelError:
    return ModelError(f"{path} is cut short or damaged.", wanted=wanted, found=found, do="fetch it again")


def _check_index(folder: Path, tensors: dict[str, set[str]]) -> None:
    """Shards and index say the same. A folder without an index has one file, or files that are not shards."""
    path = folder / "model.safetensors.index.json"
    shards = {name for name in tensors if name.startswith("model-") and "-of-" in name}
    if not path.exists():
        if shards:
            raise _incomplete(f"{folder} has shards but no index.", shards)
        return
    places = read_json(path, "").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ModelError(
            f"{path} has no weight_map.", wanted="tensor names and their files", do="fetch the model again"
        )
    named = set(places.values())
    if named - set(tensors):
        raise _incomplete(f"{folder} lacks weight files that its index names.", named - set(tensors))
    if shards - named:
        raise _incomplete(f"{folder} has weight files that its index does not name.", shards - named)
    lost = {name for name, file in places.items() if name not in tensors[file]}
    if lost:
        raise _incomplete(f"{folder} lacks tensors that its index names.", lost)


def _incomplete(what: str, names: set[str]) -> ModelError:
    return ModelError(
        what, wanted="shards and model.safetensors.index.json that agree", found=", ".join(sorted(names)[:4]),
        do="fetch the model again",
    )  # fmt: skip


# --- GGUF -------------------------------------------------------------------------------------------------------------

SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS, MOST_NESTING = 8, 4


def check_gguf(path: Path) -> int:
    """How many parameters the file holds, once its header is known to stay inside it. Errors: ModelError."""
    try:
        with path.open("rb") as file:
            return _Gguf(path, file).parameters()
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise _broken(path, "a whole GGUF header", str(error)) from error


class _Gguf:
    """A reader that never believes a length before it has compared it with the bytes that are left."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size

    def parameters(self) -> int:
        if self.file.read(4) != b"GGUF":
            raise ModelError(
                f"{self.path} is no GGUF file.", wanted="a file that begins with GGUF", do="fetch it again"
            )
        version, num_tensors, num_values = self.scalar("<I"), self.scalar("<Q"), self.scalar("<Q")
        if version not in (2, 3):
            raise ModelError(
                f"{self.path} is a GGUF file of version {version}.",
                wanted="version 2 or 3",
                do="convert it with llama.cpp",
            )
        self.room(num_tensors * 24 + num_values * 13, "its tables")
        values = {self.text(): self.value() for _ in range(num_values)}
        tensors = [self.tensor() for _ in range(num_tensors)]
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise _broken(self.path, "an alignment above 0", repr(alignment))
        data = -(-self.file.tell() // alignment) * alignment
        for name, _, offset, length in tensors:
            if data + offset + length > self.size:
                raise _broken(
                    self.path, f"tensor {name} inside its {self.size} bytes", f"it ends at {data + offset + length}"
                )
        return sum(count for _, count, _, _ in tensors)

    def tensor(self) -> tuple[str, int, int, int]:
        """(name, elements, offset, bytes)."""
        name, num_dimensions = self.text(), self.scalar("<I")
        if num_dimensions > MOST_DIMENSIONS:
            raise _broken(self.path, f"at most {MOST_DIMENSIONS} dimensions for {name}", str(num_dimensions))
        count = math.prod(self.scalar("<Q") for _ in range(num_dimensions))
        kind, offset = self.scalar("<I"), self.scalar("<Q")
        return name, count, offset, _gguf_bytes(self.path, name, kind, count)

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def room(self, length: int, what: str) -> None:
        left = self.size - self.file.tell()
        if length > left:
            raise _broken(self.path, f"{what} inside the {left} bytes that are left", f"{length} bytes")

    def text(self) -> str:
        length = self.scalar("<Q")
        self.room(length, "a name")
        return str(self.file.read(length), "utf-8", errors="replace")

    def value(self, kind: int | None = None, depth: int = 0) -> Any:
        kind = self.scalar("<I") if kind is None else kind
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth >= MOST_NESTING:
            raise _broken(self.path, "a known type of value", f"type {kind}")
        inner, count = self.scalar("<I"), self.scalar("<Q")
        if inner in SCALARS:
            length = count * struct.calcsize(SCALARS[inner])
            self.room(length, "a list")
            self.file.seek(length, 1)
            return None
        self.room(count * 8, "a list")
        for _ in range(count):
            self.value(inner, depth + 1)
        return None


def _gguf_bytes(path: Path, name: str, kind: int, count: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise _broken(path, f"a known type for tensor {name}", f"type {kind}") from error
    return -(-count // block) * block_bytes
