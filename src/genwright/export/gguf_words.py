"""A tokenizer.json as GGUF's vocabulary: the same text becomes the same tokens in llama.cpp, or an error says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genwright.base.errors import ModelError
from genwright.data.templates import FALLBACK

DIGITS_QWEN, DIGITS_LLAMA = r"\p{N}|", r"\p{N}{1,3}|"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""llama.cpp's kinds of token."""


def add_words(writer: Any, folder: Path, vocabulary: int) -> dict[str, str]:
    """Write tokens, merges, special tokens and the conversation template. Returns {"begin": text that a completion begins with}.

    No token is ever added by the engine itself: a template says what stands at the start, as it did in training.
    """
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = _json(folder / "tokenizer_config.json")
    model = told["model"]
    if model.get("type", "BPE") != "BPE":
        raise _unknown(folder, f"a {model.get('type')} tokenizer")
    is_sentence_pieces = bool(model.get("byte_fallback"))
    kind, splitting = ("llama", "default") if is_sentence_pieces else ("gpt2", splitting_of(told, folder))
    tokens, types = _tokens(told, vocabulary, is_sentence_pieces)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if is_sentence_pieces:
        writer.add_token_scores(_scores(tokens, model["merges"]))
        writer.add_add_space_prefix(_has_prefix(told))
    else:
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    ids = {one["content"]: one["id"] for one in told["added_tokens"]} | model["vocab"]
    _special(writer, settings, ids, _json(folder / "config.json"))
    begin = _begins_with(told)
    writer.add_chat_template(_template(folder, settings, begin))
    return {"begin": begin}


def splitting_of(told: dict[str, Any], folder: Path) -> str:
    """llama.cpp's name of how text is cut before merging. Errors: ModelError for a way that it has no name for here."""
    steps = told["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    kinds = [step.get("type") for step in steps]
    pattern = next((step["pattern"].get("Regex", "") for step in steps if step.get("type") == "Split"), "")
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and DIGITS_LLAMA in pattern:
        return "llama-bpe"
    if kinds == ["Split", "ByteLevel"] and DIGITS_QWEN in pattern:
        return "qwen2"
    raise _unknown(folder, f"text cut by {', '.join(map(str, kinds))}")


def _tokens(told: dict[str, Any], vocabulary: int, is_sentence_pieces: bool) -> tuple[list[str], list[int]]:
    tokens, types = [f"[PAD{number}]" for number in range(vocabulary)], [UNUSED] * vocabulary
    for word, number in told["model"]["vocab"].items():
        tokens[number] = word
        types[number] = BYTE if is_sentence_pieces and len(word) == 6 and word.startswith("<0x") else NORMAL
    for added in told["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    unknown = told["model"]["vocab"].get(told["model"].get("unk_token"))
    if unknown is not None:
        types[unknown] = UNKNOWN
    return tokens, types


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """The earlier a merge, the higher its token's score: merging by score is then merging by rank."""
    rank: dict[str, int] = {}
    for number, pair in enumerate(merges):
        rank.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), number)
    return [-float(rank.get(token, len(merges))) for token in tokens]


def _special(writer: Any, settings: dict[str, Any], ids: dict[str, int], config: dict[str, Any]) -> None:
    for name in ("bos", "eos", "unk", "pad"):
        word = settings.get(f"{name}_token")
        word = word["content"] if isinstance(word, dict) else word
        number = ids.get(word) if word else None
        number = config.get(f"{name}_token_id") if number is None else number
        if isinstance(number, int):
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _begins_with(told: dict[str, Any]) -> str:
    """What the tokenizer sets before a plain text: "<s>" or nothing."""
    steps = told.get("post_processor") or {}
    steps = steps["processors"] if steps.get("type") == "Sequence" else [steps]
    for step in steps:
        first = (step.get("single") or [{}])[0]
        if "SpecialToken" in first:
            return str(first["SpecialToken"]["id"])
    return ""


def _template(folder: Path, settings: dict[str, Any], begin: str) -> str:
    """The conversation template that training used: the tokenizer's own, or ours where it has none."""
    file = folder / "chat_template.jinja"
    own = file.read_text(encoding="utf-8") if file.exists() else settings.get("chat_template")
    return str(own) if own else f"{{% set begin = {begin!r} %}}{FALLBACK}"


def _has_prefix(told: dict[str, Any]) -> bool:
    return "Prepend" in json.dumps(told.get("normalizer")) or '"prepend_scheme": "first"' in json.dumps(
        told.get("pre_tokenizer")
    )


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _unknown(folder: Path, found: str) -> ModelError:
    return ModelError(
        f"The tokenizer of {folder.name} has no counterpart in llama.cpp that is known here.",
        wanted="byte-level BPE as GPT-2, SmolLM, Llama 3 or Qwen have it, or SentencePiece BPE", found=found,
        do='set integrate.engine = "transformers" or "vllm"',
    )  # fmt: skip
