"""What a published training trains and how, read from a table's words: objective, adaptation, precision, optimizer, attention, recompute.

No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genwright.plan.traced.setup import TRAINS_BASE

OBJECTIVES = (
    (r"\bdpo\b|ipo\b", "dpo"),
    (r"orpo", "orpo"),
    (r"kto", "kto"),
    (r"grpo", "grpo"),
    (r"\bppo\b|rlhf", "ppo"),
    (r"reward", "reward-model"),
    (r"seq\w* classif|classification|glue|mrpc|mnli", "classification"),
    (r"masked|mlm", "masked"),
    (r"span", "span-corruption"),
    (r"pretrain|\bclm\b(?!.*sft)|causal|wikitext", "causal"),
)
OPTIMIZERS = (
    ("adafactor", "adafactor"),
    ("adalomo", "adafactor"),
    ("lomo", "sgd"),
    ("badam", "sgd"),
    ("galore", "adamw-8bit"),
    ("apollo", "adafactor"),
    ("lion", "lion"),
    ("sgd", "sgd"),
    ("adam", "adamw"),
    ("lamb", "adamw"),
)
TARGETS = {
    "q": r"\bq(_proj)?\b|c_attn|query|qkv|all[ -]?lin|all layers|attention",
    "k": r"\bk(_proj)?\b|c_attn|\bkey|qkv|all[ -]?lin|all layers|attention",
    "v": r"\bv(_proj)?\b|c_attn|value|qkv|all[ -]?lin|all layers|attention",
    "o": r"\bo(_proj)?\b|c_proj|all[ -]?lin|all layers|attention|output",
    "gate": r"gate|\bw1\b|all[ -]?lin|all layers|mlp|ffn",
    "up": r"\bup|\bw2\b|all[ -]?lin|all layers|mlp|ffn",
    "down": r"down|c_proj|all[ -]?lin|all layers|mlp|ffn",
}


def objective(row: Mapping[str, str]) -> str:
    """What is learned; instructions where no word says."""
    said = f"{row.get('objective') or ''} {row.get('framework') or ''}".casefold()
    return next((name for pattern, name in OBJECTIVES if re.search(pattern, said)), "instruction")


def adaptation(row: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """Adapter, what it is set into, and how its base is kept."""
    said = f"{row.get('adaptation') or ''} {row.get('adapt_norm') or ''}".casefold()
    detail = (row.get("adapter_detail") or "").casefold()
    values: dict[str, Any] = {"adapter": _adapter(said, detail, notes)}
    if values["adapter"] not in TRAINS_BASE:
        values["base"] = _base(f"{said} {(row.get('precision') or '').casefold()} {detail}", notes)
    if values["adapter"] in ("lora", "dora"):
        rank = re.search(r"\b(?:r|rank)\s*[=: ]\s*(\d+)", detail)
        values["rank"] = int(rank[1]) if rank else 0
        values["targets"] = (
            ()
            if "default" in detail
            else tuple(name for name, pattern in TARGETS.items() if re.search(pattern, detail))
        )
        values["trains_embeddings"] = bool(re.search(r"embed|lm_head", said))
    return values


ADAPTERS = (
    (r"llama-adapter.*v2|llama-?adapter.?2", "llama-adapter-v2"),
    (r"llama-adapter", "llama-adapter"),
    (r"dora", "dora"),
    (r"lora", "lora"),
    (r"prefix|p-?tuning.?v2", "prefix-tuning"),
    (r"p-?tuning", "p-tuning"),
    (r"prompt", "prompt-tuning"),
    (r"\bia3|\(ia\)|\bbitfit|\breft", "ia3"),
    (r"linear prob|head only", "head"),
    (r"\bfreeze|last layers", "last-layers"),
    (r"\blisa\b|peft|adapter", "lora"),
)
"""Words of an adaptation -> ours; the first that is found, else everything is trained."""
NEAREST = r"bitfit|reft|freeze|lisa\b|galore|lomo|badam|apollo|q-galore"
"""Methods that nobody here plans by itself: the nearest is, and the notes say so."""
IN_BACKWARD = r"\blomo|adalomo|badam|per-?layer|layer-?wise"
"""Methods whose gradients are used as they arrive."""


def _adapter(said: str, detail: str, notes: list[str]) -> str:
    found = next((name for pattern, name in ADAPTERS if re.search(pattern, said)), "full")
    if (special := re.search(NEAREST, f"{said} {detail}")) and "lora" not in said:
        notes.append(f"{special[0]} is planned as its nearest, {found}")
    return found


def _base(said: str, notes: list[str]) -> str:
    if few := re.search(r"\b[23]-?bits?\b|int[23]\b", said):
        notes.append(f"{few[0]} is planned as int4")
        return "int4"
    if re.search(r"nf4-dq|double", said):
        return "nf4-double"
    if re.search(r"\bint8\b|8-?bit", said) and not re.search(r"\bint4\b|4-?bit|nf4|fp4", said):
        return "int8"
    if re.search(r"\bbnb\b|bitsandbytes", said) and re.search(r"\bint4\b|4-?bit", said):
        return "nf4-double"
    if re.search(r"gptq|\bint4\b|awq|hqq|w4a16", said):
        return "int4"
    if re.search("nf4|fp4", said):
        return "nf4"
    if re.search(r"\bint8\b|8-?bit|llm\.int8|w8a", said):
        return "int8"
    return "nf4-double" if re.search(r"qlora|q-lora|qdora|4-?bit", said) else ""


KINDS = (
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|float16|\bhalf\b|\b16-(mixed|true)|o[12]\b"),
    ("fp32", r"fp32|float32|tf32|\b32-true"),
)


def precision(row: Mapping[str, str]) -> str:
    """As stated, or where the words for the strategy say it ("DDP fp16"); else empty."""
    said = (row.get("precision") or "").casefold()
    words = said or f"{row.get('parallel') or ''} {row.get('strategy_norm') or ''}".casefold()
    if not words.strip() or not any(re.search(pattern, words) for _, pattern in KINDS):
        words = next(iter(re.findall(BF16_OPTIMIZER, (row.get("notes") or "").casefold())), words)
    kind = next((name for name, pattern in KINDS if re.search(pattern, words)), "")
    if not kind and re.search(EIGHT_BITS, words):
        return "bf16"
    if kind == "fp32" or not kind:
        return kind
    pure = "true" in said or (kind == "bf16" and re.search(r"pure|model\.to", said)) or re.search(PURE, _method(row))
    return f"{kind}-true" if pure else kind


BF16_OPTIMIZER = r"bf16.?optimizer"
"""DeepSpeed's, where only a note says that a run had it."""
EIGHT_BITS = r"\b(mx)?fp8|float8|e4m3"


def eight_bits(row: Mapping[str, str]) -> dict[str, Any]:
    """Whether layers' products are taken in float8 beside bf16 weights and states (arXiv 2209.05433), where the row says so."""
    return {"eight_bit_products": True} if re.search(EIGHT_BITS, (row.get("precision") or "").casefold()) else {}


PURE = r"\b(ada)?lomo|galore|badam|apollo"
"""Methods whose weights are kept in 16 bits and nowhere else."""


def _method(row: Mapping[str, str]) -> str:
    return " ".join(
        str(row.get(name) or "") for name in ("framework", "adaptation", "adapter_detail", "optimizer")
    ).casefold()


def choices(row: Mapping[str, str], said: str) -> dict[str, Any]:
    """Precision, optimizer, attention, recompute, and what the words mention."""
    steps = said.split("(lora/qlora rows")[0]
    values: dict[str, Any] = {
        "precision": precision(row),
        "optimizer": _optimizer(row.get("optimizer") or "", _method(row)),
        "attention": _attention(row.get("attention") or ""),
        "recompute": _recompute(row.get("activation_ckpt") or ""),
        "compile": bool(
            re.search(r"^(yes|true|1|thunder)|inductor|torch\.compile", (row.get("compile") or "").casefold())
        ),
        "offload_activations": bool(re.search(r"activation offload|offload(ing)? activation", steps)),
        "optimizer_in_backward": bool(re.search(rf"fuse optimizer|optimizer.in.b(ack)?w|{IN_BACKWARD}", steps))
        and "lora" not in (row.get("adaptation") or "").casefold(),
    }
    if re.search(r"(chunked|fused) (cross|ce\b|loss)", said):
        values["chunked_loss"] = True
    if re.search(r"cumulative: baseline", said):
        values["chunked_loss"] = "chunked" in said
    if re.search(r"unpacked|padded", said):
        values["packing"] = False
    return values


def _optimizer(said: str, method: str) -> str:
    said = said.casefold()
    paged, eight = "paged" in said, bool(re.search(r"8.?bit", said))
    if eight or paged:
        return "adamw-paged-8bit" if paged and eight else "adamw-8bit" if eight else "adamw"
    if "fused" in said:
        return "adamw-fused"
    return next((name for word, name in OPTIMIZERS if word in (said or method)), "")


def _attention(said: str) -> str:
    said = said.casefold()
    if re.search(r"flash|fa2|fa3|xformers|memory.efficient", said):
        return "flash"
    return "sdpa" if "sdpa" in said else "eager" if re.search(r"eager|math|naive", said) else ""


def _recompute(said: str) -> str:
    said = said.casefold()
    if not said:
        return ""
    if re.search(r"^(no|none|off|false|0)\b", said):
        return "none"
    return "selective" if "selective" in said else "full"
