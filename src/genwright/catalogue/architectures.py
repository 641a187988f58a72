"""Architectures of well-known models as one row each, and their names as people and papers write them. No torch, no network.

"Llama 3.1 8B", "meta-llama/Llama-2-7b-chat-hf", "Qwen-7B-Chat-Int4" and "LLaMA-3 8B" name a model; what says how it was tuned
or packed does not change its sizes and is dropped.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genwright.base.errors import UnknownName
from genwright.base.registry import unknown_name
from genwright.catalogue.models import config_dict, models

NAMES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_values": "num_key_value_heads",
    "inner": "intermediate_size",
    "context": "max_position_embeddings",
}
"""Our name of a size -> the config's, unless the family's table says otherwise; two after a comma are both set, none sets none."""
TUNED = frozenset(
    [
        "hf",
        "chat",
        "instruct",
        "it",
        "base",
        "pt",
        "dpo",
        "sft",
        "rlhf",
        "beta",
        "like",
        "distill",
        "mnli",
        "uncased",
        "v1",
        "v0.1",
        "preview",
        "meta",
        "openai",
        "community",
        "int4",
        "int8",
        "gptq",
        "awq",
        "gguf",
        "bnb",
        "nf4",
        "4",
        "8",
        "bit",
        "bits",
        "bf16",
        "fp16",
        "fp32",
        "fp8",
        "fp4",
        "g128",
        "4k",
        "8k",
        "16k",
        "32k",
        "128k",
        "200k",
        "python",
        "code",
        "original",
        "model",
        "llm",
        "hf1",
        "w4a16",
        "w8a8",
        "dense",
    ]
)
"""Words of a name that say how a model was tuned, packed or published, not how large it is."""
DATED = frozenset(["thinking", "reasoning", "turbo", "latest", "finetuned", "finetune", "lora", "qlora", "full"])
"""Further words that say nothing of a size, dropped only where nothing else is found."""
ALIASES = {
    "gpt 2 124m": "gpt2",
    "gpt 2 small": "gpt2",
    "gpt 2 117m": "gpt2",
    "gpt 2 355m": "gpt2-medium",
    "gpt 2 345m": "gpt2-medium",
    "gpt 2 774m": "gpt2-large",
    "gpt 2 762m": "gpt2-large",
    "gpt 2 1.5b": "gpt2-xl",
    "gpt 2 1.6b": "gpt2-xl",
    "llama 33b": "llama-30b",
    "llama 32.5b": "llama-30b",
    "bloom": "bloom-176b",
    "bloomz": "bloom-176b",
    "bloomz 176b": "bloom-176b",
    "bloomz 560m": "bloom-560m",
    "openllama 3b": "open-llama-3b",
    "openllama 7b": "open-llama-7b",
    "openllama 13b": "open-llama-13b",
    "code llama 7b": "codellama-7b",
    "code llama 13b": "codellama-13b",
    "code llama 34b": "codellama-34b",
    "code llama 70b": "codellama-70b",
    "bloomz 1b 7": "bloom-1b7",
    "bloomz 3b": "bloom-3b",
    "bloomz 7b 1": "bloom-7b1",
    "bloom 7.1b": "bloom-7b1",
    "bloom 1.7b": "bloom-1b7",
    "bloom 1.1b": "bloom-1b1",
    "bloom 7b": "bloom-7b1",
    "tinyllama": "tinyllama-1.1b",
    "tiny llama": "tinyllama-1.1b",
    "tiny llama 1.1b": "tinyllama-1.1b",
    "gpt j": "gpt-j-6b",
    "gpt neox": "gpt-neox-20b",
    "neox 20b": "gpt-neox-20b",
    "gpt 3": "gpt-3-175b",
    "gpt 175b": "gpt-3-175b",
    "stablelm alpha 3b": "stablelm-base-alpha-3b",
    "stablelm alpha 7b": "stablelm-base-alpha-7b",
    "stablelm 3b": "stablelm-base-alpha-3b",
    "stablelm 7b": "stablelm-base-alpha-7b",
    "llama 34b": "codellama-34b",
    "llama 2 34b": "llama-2-34b",
    "phi 1.3b": "phi-1.5",
    "phi 1.5 1.3b": "phi-1.5",
    "phi 2 2.7b": "phi-2",
    "phi 3 3.8b": "phi-3-mini",
    "phi 3": "phi-3-mini",
    "phi 3.8b": "phi-3-mini",
    "phi 3 mini 3.8b": "phi-3-mini",
    "phi 4 14b": "phi-4",
    "phi 3 14b": "phi-3-medium",
    "starcoder 15b": "starcoder",
    "starcoder 15.5b": "starcoder",
    "starcoderbase": "starcoder",
    "redpajama 3b": "redpajama-incite-3b",
    "redpajama 7b": "redpajama-incite-7b",
    "mistral": "mistral-7b",
    "mixtral": "mixtral-8x7b",
    "mixtral 47b": "mixtral-8x7b",
    "mixtral 46.7b": "mixtral-8x7b",
    "deepseek 7b": "deepseek-llm-7b",
    "deepseek 67b": "deepseek-llm-67b",
    "zephyr 7b": "zephyr-7b",
    "mistral nemo": "mistral-nemo-12b",
    "mistral large": "mistral-large-123b",
    "command r": "command-r-35b",
    "command r plus": "command-r-plus-104b",
    "solar": "solar-10.7b",
    "bert base": "bert-base-uncased",
    "bert large": "bert-large-uncased",
    "roberta base": "roberta-base",
    "minilm l6": "all-minilm-l6-v2",
    "alpaca 7b": "llama-7b",
    "t 0 3b": "flan-t5-xl",
    "mt 0 small": "mt5-small",
    "mt 0 base": "mt5-base",
    "mt 0 large": "mt5-large",
    "mt 0 xl": "mt5-xl",
    "mt 0 xxl": "mt5-xxl",
    "t 0 11b": "flan-t5-xxl",
    "deepseek v3 671b": "deepseek-v3",
    "deepseekv 3": "deepseek-v3",
    "deepseekv 3 671b": "deepseek-v3",
    "deepseekv 2": "deepseek-v2",
    "qwen 3 moe 30b": "qwen3-30b-a3b",
    "qwen 3 moe 235b": "qwen3-235b-a22b",
    "kimi k 2 1t": "kimi-k2",
    "deepseek r1 671b": "deepseek-r1",
    "guanaco 7b": "llama-7b",
    "guanaco 65b": "llama-65b",
    "qwen 3 30b a 3b": "qwen3-30b-a3b",
    "flan t 5 11b": "flan-t5-xxl",
    "t 5 large 770m": "t5-large",
    "gemma 2.5b": "gemma-2b",
    "gemma 8.5b": "gemma-7b",
}
"""Further spellings, as `words_of` leaves them with single blanks."""
PACKED = re.compile(
    r"\b(?:bf16|fp16|fp32|fp8|fp4|int8|int4|nf4|\d-?bits?|w\da\d+|q\d(?:-k)?(?:-[ms])?|f16|awq|gptq|gguf)\b"
)
"""How weights are packed."""
STATED = re.compile(r"(?:n?hidden|hidden_size|width|d_model)\s*=\s*(\d+)(?![\d ]*(?:[*%x]|/\s*\d))", re.I)
"""A number, not a sum that is begun ("NHIDDEN = 108*8*c")."""
STATED_LAYERS = re.compile(r"n?layers?\s*=\s*(\d+)", re.I)
STATED_HEADS = re.compile(r"n?heads?\s*=\s*(\d+)", re.I)
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bmt])\b", re.I)
MIXED = re.compile(r"\bmoe\b|\bvl\b|vision|\dx\d|whisper|\bvit\b|diffusion|-a\d+b\b", re.I)
"""Not one stack of dense layers over tokens: a count alone says little of its sizes."""
GPT_VOCABULARY = 50304
VOCABULARIES = (32000, GPT_VOCABULARY, 129280, 250880)
"""Padded to a multiple of 128: SentencePiece as Llama has it, GPT-2, tokens of newer models, BLOOM's."""
HEAD_WIDTH = 128
DEEPEST = 512
"""Layers that a width must not ask for: then the width that was read is another number."""
SLIM = 110
"""Width over layers of a GPT whose sizes are not stated: between GPT-3's 128 and Llama's 102 to 128."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of one model as a transformers config, and where they stand."""

    name: str
    source: str
    """A hub page's config.json, or a paper."""
    parameters: int
    """Of the published weights, tied matrices once."""
    config: dict[str, Any]
    """With its `model_type`."""
    note: str = ""
    """What is planned otherwise than published."""
    aliases: tuple[str, ...] = field(default=())
    checked: str = ""
    """Another table that every size was held against; empty: its count of weights alone confirms it."""


@cache
def architectures() -> Mapping[str, Architecture]:
    """Every row by name, and every card of the catalogue of models."""
    tables = tomllib.loads(Path(__file__).with_name("architectures.toml").read_text(encoding="utf-8"))
    checked = tables.pop("checked")
    known = {row[0]: _row(table, row) for table in tables.values() for row in table["rows"]}
    for card in models().values():
        source = f"https://huggingface.co/{card.hub}/blob/main/config.json" if card.hub else card.source
        known.setdefault(
            card.name, Architecture(card.name, source, card.parameters, config_dict(card), aliases=(card.hub,))
        )
    known |= {name: replace(known[name], checked=checked["by"]) for name in checked["names"]}
    return MappingProxyType(known)


def architecture(name: str) -> Architecture:
    """The row that a name means. Errors: UnknownName with the nearest.

    >>> [architecture(name).name for name in ("Llama 3.1 8B", "meta-llama/Llama-2-7b-chat-hf", "LLaMA-3 8B", "Qwen-7B-Chat (Int4)")]
    ['llama-3.1-8b', 'llama-2-7b', 'llama-3-8b', 'qwen-7b']
    """
    known = architectures()
    wanted = name.strip()
    if wanted in known:
        return known[wanted]
    if found := _by_hub().get(wanted.casefold()):
        return known[found]
    words = words_of(wanted)
    for tried in (words, tuple(word for word in words if word not in TUNED), tuple(_sizes_only(words))):
        if found := ALIASES.get(" ".join(tried)) or _by_words().get(tried):
            return known[found]
    raise unknown_name("model", name, list(known))


def _sizes_only(words: tuple[str, ...]) -> Iterator[str]:
    """Without how it was tuned, and without dates: "1half" is 1.5, "2507" and "240718" are months and days."""
    for number, word in enumerate(words):
        if word == "half" or word in TUNED or word in DATED or (number and re.fullmatch(r"2[3-6][01]\d|\d{6,8}", word)):
            continue
        yield f"{word}.5" if words[number + 1 : number + 2] == ("half",) else word


def stated(name: str, text: str = "") -> Architecture:
    """`architecture`, or a stand-in of the sizes that `text` states (NHIDDEN=14336, NLAYERS=70), or of the count that its name does."""
    try:
        return architecture(name)
    except UnknownName:
        size = SIZE.search(name)
        width = STATED.search(text)
        if not size or MIXED.search(name):
            raise
    count = float(size[1]) * {"m": 1e6, "b": 1e9, "t": 1e12}[size[2].casefold()]
    return _dense(name, count, int(width[1]) if width else 0, STATED_LAYERS.search(text), STATED_HEADS.search(text))


def _dense(
    name: str, count: float, width: int, layers: re.Match[str] | None, heads: re.Match[str] | None
) -> Architecture:
    """N = 12 L h^2 + V h, for a width that is stated, else one of SLIM layers."""
    if not width or count > 12 * DEEPEST * width * width:
        width = max(HEAD_WIDTH, round((count * SLIM / 12) ** (1 / 3) / HEAD_WIDTH) * HEAD_WIDTH)
        layers = None
    depth = int(layers[1]) if layers else max(1, round((count - GPT_VOCABULARY * width) / (12 * width * width)))
    vocabulary = _vocabulary(count, width, depth) if layers else GPT_VOCABULARY
    number = int(heads[1]) if heads else max(1, width // HEAD_WIDTH)
    number = next(each for each in range(number, 0, -1) if width % each == 0)
    config = {
        "model_type": "gpt2",
        "vocab_size": vocabulary,
        "n_embd": width,
        "n_layer": depth,
        "n_head": number,
        "n_inner": 4 * width,
        "n_positions": 2048,
    }
    said = "width as stated" if layers else "sizes not stated: width and layers chosen for its count"
    return Architecture(
        name,
        "the row itself",
        12 * depth * width * width + vocabulary * width,
        config,
        f"{name}: a GPT of width {width}, {depth} layers, {vocabulary} tokens ({said})",
    )


def _vocabulary(count: float, width: int, depth: int) -> int:
    """What the layers leave of a stated count, (N - 12 L h^2) / h: the nearest of VOCABULARIES, as counts are published rounded."""
    left = (count - 12 * depth * width * width) / width
    return min(VOCABULARIES, key=lambda one: abs(one - left))


def words_of(name: str) -> tuple[str, ...]:
    """A name cut where words, numbers and letters meet.

    >>> words_of("meta-llama/Llama-2-7b-chat-hf"), words_of("LLaMA2 70B")
    (('llama', '2', '7b', 'chat', 'hf'), ('llama', '2', '70b'))
    """
    last = PACKED.sub(" ", name.rpartition("/")[2].casefold().replace("_", "-"))
    found = re.findall(r"v\d+(?:\.\d+)*|\d+x\d+(?:\.\d+)?b|\d+(?:\.\d+)?[bmkt](?![a-z])|\d+(?:\.\d+)*|[a-z]+", last)
    return tuple(found)


@cache
def _by_words() -> Mapping[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    for name, row in architectures().items():
        for spelling in (name, *row.aliases):
            words = words_of(spelling)
            found.setdefault(words, name)
            found.setdefault(tuple(word for word in words if word not in TUNED), name)
    return found


@cache
def _by_hub() -> Mapping[str, str]:
    return {
        alias.casefold(): name for name, row in reversed([*architectures().items()]) for alias in row.aliases if alias
    }


def _row(table: dict[str, Any], row: list[Any]) -> Architecture:
    name, where, parameters, *sizes = row
    more = sizes.pop() if isinstance(sizes[-1], dict) else {}
    config = deepcopy(table["config"])
    for theirs, value in zip({**NAMES, **table.get("names", {})}.values(), sizes, strict=True):
        config |= {key: value for key in theirs.split(",") if key}
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", where)
    source = f"https://huggingface.co/{where}/blob/main/config.json" if on_hub else where
    return Architecture(
        name, source, int(parameters), config | deepcopy(more), table.get("note", ""), (where,) if on_hub else ()
    )
