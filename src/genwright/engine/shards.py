"""Which pieces of which tensors a process holds, and how any process finds what it needs in what all of them wrote.

`torch.distributed.checkpoint`'s planners do the arithmetic of pieces, on both ways; neither its files nor its metadata are
used, for both are read by unpickling. A file is safetensors, and anyone can open it:

    name            a whole tensor
    name@8,0        the piece of a sharded tensor whose first element stands at [8, 0]
    __metadata__    "shapes": the whole shape of each sharded tensor, as JSON

A DTensor is written once, by the processes whose pieces make it up; a plain tensor is the same everywhere, and process 0
writes it. Nothing here talks to another process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.tensor import DTensor

SHAPES = "shapes"


@dataclass(frozen=True)
class Pieces:
    """What one process writes: its tensors by key, and the whole shape of those that are pieces."""

    tensors: dict[str, Tensor]
    shapes: dict[str, list[int]]

    def header(self) -> dict[str, str]:
        """The file's own metadata."""
        return {SHAPES: json.dumps(self.shapes)} if self.shapes else {}


def pieces_of(tensors: Mapping[str, Tensor], *, process: int) -> Pieces:
    """What this process must write of these tensors, without copying."""
    planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner({name: one for name, one in tensors.items() if _is_ours(one, process)}, is_coordinator=True)
    found: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for item in planner.create_local_plan().items:
        tensor, data = planner.resolve_data(item), item.tensor_data
        assert isinstance(tensor, Tensor) and data is not None, f"{item.index.fqn} is no tensor"
        whole, name = tuple(data.size), item.index.fqn
        if tuple(data.chunk.sizes) == whole:
            found[name] = tensor.detach()
        elif tensor.numel():  # a process may hold nothing of a tensor that is smaller than the mesh
            found[f"{name}@{','.join(map(str, data.chunk.offsets))}"] = tensor.detach()
            shapes[name] = list(whole)
    return Pieces(found, shapes)


def _is_ours(tensor: Tensor, process: int) -> bool:
    """Whether this process is the one that writes its part of a tensor: the first of those that hold the same."""
    if not isinstance(tensor, DTensor):
        return process == 0
    place = tensor.device_mesh.get_coordinate()
    return place is not None and all(
        at == 0 for at, placement in zip(place, tensor.placements) if placement.is_replicate()
    )


@dataclass(frozen=True)
class Index:
    """Where every piece of every tensor lies, read from the headers of proven files."""

    metadata: Metadata
    places: dict[tuple[str, tuple[int, ...]], tuple[Path, str]] = field(default_factory=dict)

    def tensors(self) -> dict[str, TensorStorageMetadata]:
        """Shape and type by name."""
        return {
            name: one
            for name, one in self.metadata.state_dict_metadata.items()
            if isinstance(one, TensorStorageMetadata)
        }


TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
         "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}  # fmt: skip
"""Types of numbers as safetensors names them."""


def index_of(files: Sequence[Path]) -> Index:
    """Read the headers. The files' hashes have been checked before: a header says how much to read."""
    index = Index(Metadata({}))
    for path in files:
        with safe_open(path, framework="pt") as file:
            shapes = json.loads((file.metadata() or {}).get(SHAPES, "{}"))
            for key in file.keys():  # noqa: SIM118  # it is no dict and cannot be iterated
                piece, (name, _, offsets) = file.get_slice(key), key.rpartition("@")
                size = torch.Size(piece.get_shape())
                name, start = (name, tuple(map(int, offsets.split(",")))) if name in shapes else (key, (0,) * len(size))
                index.places[name, start] = (path, key)
                chunk = ChunkStorageMetadata(torch.Size(start), size)
                _add(index, name, chunk, torch.Size(shapes.get(name, size)), TYPES[piece.get_dtype()])
    return index


def _add(index: Index, name: str, chunk: ChunkStorageMetadata, shape: torch.Size, dtype: torch.dtype) -> None:
    known = index.tensors().get(name)
    if known is None:
        index.metadata.state_dict_metadata[name] = TensorStorageMetadata(TensorProperties(dtype), shape, [chunk])
    else:
        known.chunks.append(chunk)


def read_(targets: dict[str, Tensor], index: Index) -> None:
    """Fill every target, whole or a piece, from whatever pieces were written; one piece at a time is in memory beside it.

    Errors: RuntimeError for a name that was not written, ValueError for one of another shape.
    """
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(targets), index.metadata, is_coordinator=True)
    with torch.no_grad():
        for item in planner.finish_plan(planner.create_local_plan()).items:
            planner.resolve_tensor(item).copy_(_read(item, index))


def _read(item: ReadItem, index: Index) -> Tensor:
    start = tuple(item.storage_index.offset or ())
    path, key = index.places[item.storage_index.fqn, start]
    with safe_open(path, framework="pt") as file:
        if not start:
            return file.get_tensor(key)
        ranges = [slice(first, first + length) for first, length in zip(item.storage_offsets, item.lengths)]
        return file.get_slice(key)[tuple(ranges)]
