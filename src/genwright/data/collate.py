"""Laid-out rows into the microbatches of one optimiser step.

Legend: B rows of a microbatch, T tokens of a row, N learned tokens (labels) and D sequences of a microbatch, S tokens of
an encoder-decoder's source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from genwright.base.errors import DataError
from genwright.data.pack import pack
from genwright.data.templates import Encoded
from genwright.models.attention import Document, places_of, tokens_of

ROUND_ROWS = 32
"""An encoder-decoder's rows are as wide as a multiple of this: a CPU compiles its products once per shape and keeps them."""


@dataclass(frozen=True)
class Item:
    """One row as a step lays it out. Positions, labels and sequences go together, label by label."""

    input_ids: Sequence[int]
    document: Document
    """How the tokens share and branch; a plain row is its length."""
    positions: Sequence[int]
    """Index into `input_ids` of the token whose output predicts the label."""
    labels: Sequence[int]
    sequences: Sequence[int]
    """The label's sequence in this row: a plain row has one, a branching one as many as it has branches."""
    num_sequences: int = 1
    counts: Mapping[str, float] = field(default_factory=dict)
    """What the row adds to the step's counts, beside "tokens" and "documents"."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Values per label ("..._N", "..._NK") or per sequence ("..._D")."""
    source_ids: Sequence[int] = ()
    ends: Sequence[int] = ()
    """Index of each sequence's last token, where an objective reads it there."""

    @property
    def num_tokens(self) -> int:
        """What the row takes of a microbatch."""
        return len(self.input_ids) + len(self.source_ids)


@dataclass(frozen=True)
class Batch:
    """One microbatch. Padding is known by `lengths`, never by a token's id, which end-of-turn may share."""

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    """Restart at 0 with each document."""
    lengths: tuple[tuple[Document, ...], ...]
    """The documents of each row, as Python ints: attention needs them without asking a device."""
    positions_N: Tensor
    """Flat index into B*T of the position whose output predicts a label."""
    labels_N: Tensor
    """What is to be predicted there: a token, or a class."""
    document_N: Tensor
    """The label's sequence, numbered through the microbatch; each branch of a document is a sequence."""
    counts: dict[str, Tensor]
    """What losses are divided by: counts of the whole optimiser step, 0-d float32, the same in each microbatch."""
    tokens: int
    """Tokens that are not padding."""
    learned_tokens: int
    """N."""
    num_documents: int = 0
    """D."""
    columns: dict[str, Tensor] = field(default_factory=dict)
    """What a second model, a round of rollouts or the row itself says: "..._N" per label, "..._D" per sequence."""
    source_ids_BS: Tensor | None = None
    """What an encoder-decoder's encoder reads; `input_ids_BT` are then its decoder's."""
    source_lengths: tuple[int, ...] = ()

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
            columns={name: column.to(device) for name, column in self.columns.items()},
            source_ids_BS=None if self.source_ids_BS is None else self.source_ids_BS.to(device),
        )


def collate(encoded: Sequence[Encoded], *, packing: bool, capacity: int, pad_id: int) -> list[Batch]:
    """The microbatches of one step of next-token learning; see `collate_items`. Errors: DataError."""
    return collate_items([next_tokens(row) for row in encoded], packing=packing, capacity=capacity, pad_id=pad_id)


def next_tokens(row: Encoded) -> Item:
    """Each learned token is predicted from the one before it; the first has nothing before it and is never a label."""
    learned = [place for place in range(1, len(row.input_ids)) if row.learned[place]]
    return Item(
        row.input_ids, len(row.input_ids), [place - 1 for place in learned], [row.input_ids[place] for place in learned],
        [0] * len(learned), columns=row.columns,
    )  # fmt: skip


def collate_items(items: Sequence[Item], *, packing: bool, capacity: int, pad_id: int) -> list[Batch]:
    """The microbatches of ONE optimiser step. `capacity` is in tokens of a microbatch, padding included.

    packing: documents end to end in one row, no padding. Otherwise rows of similar length, padded on the right to the
    longest. A row longer than the capacity is a microbatch of its own. Errors: DataError if nothing is learned.
    """
    counts = counts_of(items)
    if not counts["tokens"] and not any(item.counts for item in items):
        raise DataError(
            "A step has no learned tokens: nothing could be learned from it.",
            wanted="at least one token of an answer, or of a text, in each step",
            found=f"{len(items)} rows, {sum(len(item.input_ids) for item in items)} tokens, 0 of them learned",
            do="look at the rows with `genwright data show`",
        )
    lengths = [item.num_tokens for item in items]
    layout = [[rows] for rows in pack(lengths, capacity)] if packing else padded_layout(lengths, capacity)
    return [_batch([[items[row] for row in rows] for rows in microbatch], counts, pad_id) for microbatch in layout]


def counts_of(items: Sequence[Item]) -> dict[str, float]:
    """What the step's losses are divided by: labels, sequences, and what the rows count besides (1 where there are none)."""
    labels, sequences = sum(len(item.labels) for item in items), sum(item.num_sequences for item in items)
    counts = {"tokens": float(labels), "documents": float(sequences)}
    for item in items:
        for name, amount in item.counts.items():
            counts[name] = counts.get(name, 0.0) + amount
    return {name: amount if name == "tokens" else max(1.0, amount) for name, amount in counts.items()}


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


def _batch(rows: list[list[Item]], counts: dict[str, float], pad_id: int) -> Batch:
    lengths = tuple(tuple(one.document for one in row) for row in rows)
    width = max(sum(map(tokens_of, row)) for row in lengths)
    sources = [list(row[0].source_ids) for row in rows]
    width = _rounded(width) if sources[0] else width
    items = [one for row in rows for one in row]
    positions, documents, ends = _where(rows, width)
    labels = [label for one in items for label in one.labels]
    return Batch(
        input_ids_BT=_padded([[token for one in row for token in one.input_ids] for row in rows], width, pad_id),
        position_ids_BT=_padded([[place for one in row for place in places_of(one.document)] for row in rows], width, 0),
        lengths=lengths,
        positions_N=torch.tensor(positions, dtype=torch.int64),
        labels_N=torch.tensor(labels, dtype=torch.int64),
        document_N=torch.tensor(documents, dtype=torch.int64),
        counts={name: torch.tensor(amount, dtype=torch.float32) for name, amount in counts.items()},
        tokens=sum(item.num_tokens for item in items),
        learned_tokens=len(labels),
        num_documents=sum(one.num_sequences for one in items),
        columns=_columns(items) | ({"last_D": torch.tensor(ends)} if ends else {}),
        source_ids_BS=_padded(sources, _rounded(max(map(len, sources))), pad_id) if sources[0] else None,
        source_lengths=tuple(map(len, sources)) if sources[0] else (),
    )  # fmt: skip


def _rounded(width: int) -> int:
    return -(-width // ROUND_ROWS) * ROUND_ROWS


def _padded(rows: list[list[int]], width: int, fill: int) -> Tensor:
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _columns(items: list[Item]) -> dict[str, Tensor]:
    return {name: torch.cat([one.columns[name] for one in items]) for name in items[0].columns}


def _where(rows: list[list[Item]], width: int) -> tuple[list[int], list[int], list[int]]:
    """(flat positions of all labels, their sequences, flat positions of all ends) of a microbatch."""
    positions: list[int] = []
    documents: list[int] = []
    ends: list[int] = []
    sequence = 0
    for number, row in enumerate(rows):
        start = number * width
        for one in row:
            positions += [start + place for place in one.positions]
            documents += [sequence + own for own in one.sequences]
            ends += [start + place for place in one.ends]
            start += len(one.input_ids)
            sequence += one.num_sequences
    return positions, documents, ends
