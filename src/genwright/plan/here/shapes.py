"""How many kernels a run compiles: products of different shapes, over all its steps and all its answers.

A microbatch's products have its number of tokens as one side, attention's have its rows and the longest: what one traced step
compiles for one microbatch, the run compiles for each that is laid out otherwise, once lengths are rounded as the model rounds
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from genwright.data.layouts import Feed
from genwright.data.order import rows_of_step
from genwright.data.pack import pack
from genwright.engine.recipe import Recipe
from genwright.models.generate import ROUND_PROMPT
from genwright.objectives.language import ROUND_DOCUMENT, ROUND_TOKENS

STACKED = ("aten.bmm.", "aten.baddbmm")
Compiled = Mapping[str, float]
"""The shape of a product that was traced, and how many kernels a run compiles for it and for those that it stands for."""


class Layout(NamedTuple):
    """Of a microbatch: its tokens with their padding, its rows, and the longest of them."""

    tokens: int
    rows: int
    longest: int


def layouts_of_step(recipe: Recipe, feed: Feed, step: int) -> list[Layout]:
    """One a microbatch. Without packing all rows are one, padded to the longest."""
    rows = rows_of_step(step, num_rows=len(feed), rows_per_step=recipe.batch_size, seed=recipe.seed)
    lengths = [feed.encoded[row].num_tokens for row in rows]
    if not recipe.packing:
        return [Layout(max(lengths) * len(lengths), len(lengths), max(lengths))]
    bins = [[lengths[index] for index in members] for members in pack(lengths, recipe.pack_tokens)]
    return [Layout(sum(one), len(one), max(one)) for one in bins]


def of_training(layouts: Sequence[Sequence[Layout]], step: int, shapes: Iterable[str]) -> Compiled:
    """Kernels of all steps, from the shapes of one of them.

    >>> first, second = Layout(30, 2, 15), Layout(60, 2, 16)
    >>> total(of_training([[first], [second], [second]], 0, {"aten.mm.a", "aten.mm.b", "aten.bmm.c"}))
    5.0
    """
    everywhere = [one for each in layouts for one in each]
    widths = len(set(map(_width, everywhere))) / len(set(map(_width, layouts[step])))
    groups = len(set(map(_group, everywhere))) / len(set(map(_group, layouts[step])))
    return {shape: groups if shape.startswith(STACKED) else widths for shape in shapes}


def of_answers(
    prompts: Sequence[int], rows: int, counts: int, tokens: int, prefill: Iterable[str], decode: Iterable[str]
) -> Compiled:
    """Kernels of all answers, from the shapes of one prompt's batch and of one step of writing.

    Batches of `rows` are taken by length; `counts` different numbers of rows are written for at once, as rows end; attention
    that is made of products meets another cache with each of so many `tokens`.

    >>> total(of_answers([40, 40, 33, 9, 8], 2, 2, 8, {"aten.mm.a"}, {"aten.mm.b", "aten.bmm.c"}))
    12.0
    """
    longest = sorted(prompts, reverse=True)
    firsts = range(0, len(longest), rows)
    batches = {(len(longest[first : first + rows]), padded_prompt(longest[first])) for first in firsts}
    written = {shape: float(tokens if shape.startswith(STACKED) else counts) for shape in decode}
    return together(written, {shape: float(len(batches)) for shape in prefill})


def padded_prompt(tokens: int) -> int:
    """As wide as `models.generate` makes it."""
    return _rounded(tokens, ROUND_PROMPT)


def together(*parts: Compiled) -> Compiled:
    """Of several things that one process does: what two of them multiply is compiled once.

    >>> together({"a": 2.0, "b": 1.0}, {"a": 3.0})
    {'a': 3.0, 'b': 1.0}
    """
    return {shape: max(part.get(shape, 0.0) for part in parts) for shape in dict.fromkeys(chain(*parts))}


def total(compiled: Compiled) -> float:
    """Of all kernels."""
    return sum(compiled.values())


def _width(one: Layout) -> int:
    return _rounded(one.tokens, ROUND_TOKENS)


def _group(one: Layout) -> tuple[int, int]:
    return one.rows, _rounded(one.longest, ROUND_DOCUMENT)


def _rounded(number: int, to: int) -> int:
    return -(-number // to) * to
