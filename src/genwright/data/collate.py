"""Encoded rows into the microbatches of one optimiser step.

Legend: B rows of a microbatch, T tokens of a row, N learned tokens (labels) of a microbatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genwright.base.errors import DataError
from genwright.data.pack import pack
from genwright.data.templates import Encoded


@dataclass(frozen=True)
class Batch:
    """One microbatch. Padding is known by `lengths`, never by a token's id, which end-of-turn may share."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    """Restart at 0 with each document."""
    lengths: tuple[tuple[int, ...], ...]
    """Tokens of each document, per row, as Python ints: attention needs them without asking a device."""
    positions_N: Tensor
    """Flat index into B*T of the position whose logits predict a learned token."""
    labels_N: Tensor
    """The token to predict there."""
    document_N: Tensor
    """The label's document, numbered through the microbatch."""
    counts: dict[str, Tensor]
    """What losses are divided by: counts of the whole optimiser step, 0-d float32, the same in each microbatch."""
    tokens: int
    """Tokens that are not padding."""
    learned_tokens: int
    """N."""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch, its tensors on a device."""
        return replace(
            self,
            input_ids_BT=self.input_ids_BT.to(device),
            position_ids_BT=self.position_ids_BT.to(device),
            positions_N=self.positions_N.to(device),
            labels_N=self.labels_N.to(device),
            document_N=self.document_N.to(device),
            counts={name: count.to(device) for name, count in self.counts.items()},
        )


def collate(encoded: Sequence[Encoded], *, packing: bool, capacity: int, pad_id: int) -> list[Batch]:
    """The microbatches of ONE optimiser step. `capacity` is in tokens of a microbatch, padding included.

    packing: documents end to end in one row, no padding. Otherwise rows of similar length, padded on the right to the
    longest. A row longer than the capacity is a microbatch of its own. Errors: DataError if no token is learned.
    """
    total = sum(sum(row.learned[1:]) for row in encoded)
    if total == 0:
        raise DataError(
            "A step has no learned tokens: nothing could be learned from it.",
            wanted="at least one token of an answer, or of a text, in each step",
            found=f"{len(encoded)} rows, {sum(len(row.input_ids) for row in encoded)} tokens, 0 of them learned",
            do="look at the rows with `genwright data show`",
        )
    lengths = [len(row.input_ids) for row in encoded]
    layout = [[rows] for rows in pack(lengths, capacity)] if packing else padded_layout(lengths, capacity)
    return [_batch([[encoded[row] for row in rows] for rows in microbatch], total, pad_id) for microbatch in layout]


def padded_layout(lengths: Sequence[int], capacity: int) -> list[list[list[int]]]:
    """Microbatches of rows of one document each: longest first, as many as B*T <= capacity allows."""
    layout: list[list[list[int]]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not layout or (len(layout[-1]) + 1) * longest > capacity:
            layout.append([])
            longest = lengths[row]
        layout[-1].append([row])
    return layout


def _batch(rows: list[list[Encoded]], total: int, pad_id: int) -> Batch:
    lengths = tuple(tuple(len(one.input_ids) for one in row) for row in rows)
    width = max(map(sum, lengths))
    ids, places = [], []
    for row, sizes in zip(rows, lengths):
        padding = width - sum(sizes)
        ids.append([token for one in row for token in one.input_ids] + [pad_id] * padding)
        places.append([place for size in sizes for place in range(size)] + [0] * padding)
    positions, labels, documents = _labels(rows, width)
    return Batch(
        input_ids_BT=torch.tensor(ids),
        position_ids_BT=torch.tensor(places),
        lengths=lengths,
        positions_N=torch.tensor(positions, dtype=torch.int64),
        labels_N=torch.tensor(labels, dtype=torch.int64),
        document_N=torch.tensor(documents, dtype=torch.int64),
        counts={"tokens": torch.tensor(float(total), dtype=torch.float32)},
        tokens=sum(map(sum, lengths)),
        learned_tokens=len(labels),
    )


def _labels(rows: list[list[Encoded]], width: int) -> tuple[list[int], list[int], list[int]]:
    """(positions, labels, documents). A document's first token has nothing before it and is never a label."""
    positions, labels, documents = [], [], []
    document = 0
    for row_number, row in enumerate(rows):
        start = row_number * width
        for one in row:
            learned = [place for place in range(1, len(one.input_ids)) if one.learned[place]]
            positions += [start + place - 1 for place in learned]
            labels += [one.input_ids[place] for place in learned]
            documents += [document] * len(learned)
            start += len(one.input_ids)
            document += 1
    return positions, labels, documents
