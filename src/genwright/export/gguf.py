"""Models and adapters as GGUF, the one file that llama.cpp reads: weights, words and the conversation template as trained.

    W_gguf = W, except that Llama's query and key rows are interleaved: llama.cpp rotates neighbours (2i, 2i+1),
    transformers rotates halves (i, i + d/2).
    adapter: y = Wx + s BAx, where llama.cpp computes s = alpha / rank; what differs a layer (rsLoRA is one s for all) goes into B.

Used as a program too, by a server that holds no torch: `python -m genwright.export.gguf adapter BASE ADAPTER OUT`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import safe_open

from genwright.base.errors import GenwrightError, ModelError
from genwright.base.files import disk_full_is_an_error
from genwright.export.gguf_words import add_words
from genwright.models.check import check_adapter_folder, check_folder, read_json

ARCHITECTURES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, True), "mistral": (gguf.MODEL_ARCH.LLAMA, True),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, False), "qwen3": (gguf.MODEL_ARCH.QWEN3, False),
}  # fmt: skip
"""model_type -> (llama.cpp's architecture, whether query and key rows are interleaved)."""

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}  # fmt: skip
"""What a matrix may be stored as. Vectors (norms, biases) stay float32."""

REFUSED = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
)
"""Keys of adapter_config.json with an effect that llama.cpp has no place for."""


@dataclass(frozen=True)
class Shape:
    """The sizes that the conversion needs."""

    arch: gguf.MODEL_ARCH
    interleave: bool
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    config: dict[str, Any]

    @property
    def names(self) -> gguf.TensorNameMap:
        """Transformers' names -> llama.cpp's."""
        return gguf.get_tensor_name_map(self.arch, self.layers)


def shape_of(folder: Path) -> Shape:
    """Errors: ModelError for an architecture that is not written here."""
    config = read_json(folder / "config.json", f"{folder} is no model folder.")
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{folder.name} is a '{kind}' model, which is not written as GGUF here.",
            wanted=f"one of {', '.join(ARCHITECTURES)}", do='set integrate.engine = "transformers": `genwright chat` answers with it',
        )  # fmt: skip
    arch, interleave = ARCHITECTURES[kind]
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    return Shape(
        arch,
        interleave,
        int(config["num_hidden_layers"]),
        heads,
        int(config.get("num_key_value_heads") or heads),
        size,
        config,
    )


def write_model(folder: Path, out: Path, type_name: str = "f16") -> dict[str, Any]:
    """A model folder as one GGUF file. Returns {"type", "bytes", "begin"}. Errors: ModelError, DiskFull."""
    check_folder(folder)
    shape, kind = shape_of(folder), TYPES[type_name]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[shape.arch])
    _add_sizes(writer, shape, folder.name)
    words = add_words(writer, folder, int(shape.config["vocab_size"]))
    factors = rope_factors(shape)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for name, value in _tensors(folder):
        if name == "lm_head.weight" and shape.config.get("tie_word_embeddings"):
            continue
        _add(writer, *_renamed(shape, name, value), kind)
    _close(writer, out)
    return {"type": type_name, "bytes": out.stat().st_size, **words}


def write_adapter(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """A `peft` LoRA folder as GGUF, in float32. Errors: ModelError for one that llama.cpp cannot apply, with what to do."""
    check_adapter_folder(adapter)
    shape = shape_of(base)
    settings = read_json(adapter / "adapter_config.json", f"{adapter} is no adapter.")
    refuse_what_does_not_serve(settings, adapter.name)
    pairs = _pairs(adapter)
    first = next(iter(pairs))
    alpha = scale_of(settings, first, len(pairs[first][0])) * len(pairs[first][0])
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[shape.arch])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for module, (a_RI, b_OR) in pairs.items():
        rank = len(a_RI)
        folded_OR = b_OR * np.float32(scale_of(settings, module, rank) * rank / alpha)
        name, rows_OR = _renamed(shape, f"{module}.weight", folded_OR)
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a_RI))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(rows_OR))
    _close(writer, out)
    return {"rank": max(len(a) for a, _ in pairs.values()), "bytes": out.stat().st_size}


def refuse_what_does_not_serve(settings: dict[str, Any], name: str) -> None:
    """Errors: ModelError naming the first key of an adapter that can only be merged."""
    wrong = next((key for key in REFUSED if settings.get(key)), "")
    if settings.get("bias", "none") != "none":
        wrong = "bias"
    if settings.get("peft_type") != "LORA":
        wrong = f"peft_type {settings.get('peft_type')}"
    if wrong:
        raise ModelError(
            f"The adapter {name} cannot be applied by llama.cpp beside others.", wanted="a plain LoRA", found=wrong,
            do="set integrate.merge = true: merged, it is served as a model of its own",
        )  # fmt: skip


def scale_of(settings: dict[str, Any], module: str, rank: int) -> float:
    """S = alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732); alpha may have a pattern a module."""
    patterns = settings.get("alpha_pattern") or {}
    own = next((value for key, value in patterns.items() if module == key or module.endswith(f".{key}")), None)
    alpha = float(settings["lora_alpha"] if own is None else own)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix (or bias), half-rotated order -> neighbours. [H*2*(d/2), ...] -> the same shape."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def rope_factors(shape: Shape) -> np.ndarray | None:
    """Llama 3's stretched rotation, a divisor for each of d/2 frequencies; None for the plain one. Errors: ModelError."""
    told = shape.config.get("rope_parameters") or shape.config.get("rope_scaling") or {}
    kind = told.get("rope_type", told.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ModelError(f"Rotation '{kind}' is not written as GGUF here.", wanted="default or llama3")
    wave = 2 * np.pi * _theta(shape.config) ** (np.arange(0, shape.head_size, 2) / shape.head_size)
    old, low, high = (
        float(told[key]) for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    smooth = np.clip((old / wave - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / float(told["factor"]) + smooth)).astype(np.float32)


def _theta(config: dict[str, Any]) -> float:
    return float((config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta") or 10000.0)


def _add_sizes(writer: gguf.GGUFWriter, shape: Shape, name: str) -> None:
    config = shape.config
    writer.add_type("model")
    writer.add_name(name)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(_theta(config))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


def _tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 values), one at a time: the model is never in memory whole."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name).float().numpy()


def _renamed(shape: Shape, name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """llama.cpp's name, and the rows in its order. Errors: ModelError for a weight that it has no place for."""
    stem, _, suffix = name.rpartition(".")
    told = shape.names.get_name(stem)
    if told is None:
        raise ModelError(f"The weight {name} has no place in llama.cpp's {gguf.MODEL_ARCH_NAMES[shape.arch]}.")
    if shape.interleave and stem.endswith(("q_proj", "k_proj")):
        value = interleaved(value, shape.heads if stem.endswith("q_proj") else shape.kv_heads)
    return f"{told}.{suffix}", value


def _add(writer: gguf.GGUFWriter, name: str, value: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    """Vectors stay float32; a matrix whose rows do not fill Q8_0's blocks of 32 becomes float16."""
    if value.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif kind == gguf.GGMLQuantizationType.Q8_0 and value.shape[-1] % 32:
        kind = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)


def _pairs(adapter: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module -> (A [R, I], B [O, R]), float32."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        values = {name: file.get_tensor(name).float().numpy() for name in sorted(file.keys())}
    strange = [name for name in values if ".lora_A." not in name and ".lora_B." not in name]
    if strange or not values:
        raise ModelError(
            f"{adapter} has weights that are no LoRA's.",
            found=(strange or ["none"])[0],
            do="set integrate.merge = true",
        )
    modules = [name.removesuffix(".lora_A.weight") for name in values if name.endswith(".lora_A.weight")]
    return {
        module.removeprefix("base_model.model."): (values[f"{module}.lora_A.weight"], values[f"{module}.lora_B.weight"])
        for module in modules
    }


def _close(writer: gguf.GGUFWriter, out: Path) -> None:
    with disk_full_is_an_error(out):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main(words: list[str]) -> int:
    """`adapter BASE ADAPTER OUT` or `model FOLDER OUT TYPE`; prints JSON, or the error as {"error"}."""
    try:
        if words[0] == "adapter":
            told = write_adapter(*map(Path, words[1:4]))
        else:
            told = write_model(Path(words[1]), Path(words[2]), words[3])
    except GenwrightError as error:
        print(json.dumps({"error": str(error)}))
        return error.exit_code
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
