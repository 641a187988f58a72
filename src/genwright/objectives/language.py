"""Language objectives. All are one equation; they differ in the tokens that a row offers for learning.

Legend: B rows, T tokens of a row, N learned tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from genwright.models.attention import documents
from genwright.models.families import logits_at
from genwright.objectives.loss import Loss, Term, number

ROUND_TOKENS, ROUND_LABELS, ROUND_DOCUMENT = 32, 32, 16
"""Sizes are rounded up to these: a CPU compiles its products once per shape and keeps them, so a new shape every step
took twice the time and a gigabyte of memory. The padding costs about 3 % of the tokens and is read by nobody."""
IGNORED = -100


def model_inputs(batch: Any) -> dict[str, Any]:
    """What the model's forward takes: ids, positions and documents, all rows laid end to end as one.

    Documents never see each other, so rows of a batch need not be rows for the model. An encoder-decoder has rows: its
    attention is `transformers`' own, with a mask over the source's padding; nothing reads what follows a target.
    """
    if batch.source_ids_BS is not None:
        return _source_and_target(batch)
    ids_BT = batch.input_ids_BT
    padding = -ids_BT.numel() % ROUND_TOKENS
    return {
        "input_ids": F.pad(ids_BT.view(1, -1), (0, padding)),
        "position_ids": F.pad(batch.position_ids_BT.view(1, -1), (0, padding)),
        "documents": documents(batch.lengths, ids_BT.shape[1], ids_BT.device, padding=padding, round_to=ROUND_DOCUMENT),
    }


def _source_and_target(batch: Any) -> dict[str, Any]:
    source_BS = batch.source_ids_BS
    inputs = {"input_ids": source_BS, "decoder_input_ids": batch.input_ids_BT}
    if min(batch.source_lengths) == source_BS.shape[1]:
        return inputs  # `transformers` asks the host whether a mask hides anything
    lengths_B1 = torch.tensor(batch.source_lengths, device=source_BS.device)[:, None]
    mask_BS = torch.arange(source_BS.shape[1], device=source_BS.device)[None, :] < lengths_B1
    return inputs | {"attention_mask": mask_BS.long()}


def label_log_probabilities(model: Any, batch: Any) -> Tensor:
    """Log p(label | what its position sees) in nats, [N] float32; logits exist only where there is a label."""
    labels_N, padding = batch.labels_N, -batch.labels_N.numel() % ROUND_LABELS
    logits_NV = logits_at(model, model_inputs(batch), F.pad(batch.positions_N, (0, padding)))
    wide_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    padded_N = F.pad(labels_N, (0, padding), value=IGNORED)
    return -F.cross_entropy(wide_NV, padded_N, reduction="none", ignore_index=IGNORED)[: labels_N.numel()]


def next_token_loss(model: Any, batch: Any) -> Loss:
    """-sum over labels of log p(label | what its position sees), in nats, summed in float32."""
    num_labels = batch.labels_N.numel()
    padding = -num_labels % ROUND_LABELS
    hidden_NH = batch.columns.get("hidden_NH")
    if hidden_NH is None:
        logits_NV = logits_at(model, model_inputs(batch), F.pad(batch.positions_N, (0, padding)))
    else:  # kept, since only the head is trained (`engine.hidden`)
        logits_NV = model.get_output_embeddings()(F.pad(hidden_NH, (0, 0, 0, padding)))
    labels_N = F.pad(batch.labels_N, (0, padding), value=IGNORED)
    total = F.cross_entropy(logits_NV.float(), labels_N, reduction="sum", ignore_index=IGNORED)
    return Loss({"tokens": Term(total, number(num_labels, total))})


@dataclass(frozen=True)
class Causal:
    """loss = -1/N sum_t log p(x_t | x_<t) over every token of a text but its first   (Radford 2018, eq. 1).

    Worked by hand: a model that gives every token of V = 4 the same probability has loss ln 4 = 1.3863.
    """

    rows: ClassVar[tuple[str, ...]] = ("text",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "text"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)


@dataclass(frozen=True)
class Instruction:
    """loss = -1/N sum_{t in answers} log p(x_t | x_<t): the assistant's turns and their ends, not the prompts.

    Ouyang 2022 (arXiv 2203.02155), section 3.5, with the loss on the demonstrations' answers only. The token that ends
    a turn is learned too, also where the tokenizer uses the same id for padding.
    """

    rows: ClassVar[tuple[str, ...]] = ("chat", "labelled")
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "answers"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)


@dataclass(frozen=True)
class Masked:
    """loss = -1/N sum over masked t of log p(x_t | the text with the masked tokens hidden)   (Devlin 2018, arXiv 1810.04805).

    `mask_fraction` of a text's tokens are chosen anew each time it is seen; of these 80 % become the mask token, 10 % a
    random one, 10 % stay. Special tokens are never chosen.
    """

    rows: ClassVar[tuple[str, ...]] = ("text",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "masked"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    mask_fraction: float = 0.15
    """Share of the tokens that are predicted."""

    whole_words: bool = False
    """Choose whole words instead of single tokens."""

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)


@dataclass(frozen=True)
class SpanCorruption:
    """loss = -1/N sum_t log p(y_t | y_<t, x)   (Raffel 2019, arXiv 1910.10683, section 3.1.4), for encoder-decoders.

    x is the text with `noise_fraction` of its tokens, in spans of `mean_span` on average, replaced by sentinels; y is
    each sentinel followed by what it hides, and EOS.
    """

    rows: ClassVar[tuple[str, ...]] = ("text",)
    couples_rows: ClassVar[bool] = False
    layout: ClassVar[str] = "spans"
    head: ClassVar[str] = "language"
    columns: ClassVar[tuple[str, ...]] = ()

    noise_fraction: float = 0.15
    """Share of the tokens that are hidden."""

    mean_span: float = 3.0
    """Tokens that one sentinel hides, on average."""

    def __call__(self, model: Any, batch: Any) -> Loss:
        """The loss of one microbatch."""
        return next_token_loss(model, batch)
