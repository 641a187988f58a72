"""Three language models with random weights and one tokenizer of their own, learned from data/text.jsonl. Downloads nothing.

    python make_model.py                     # model/decoder, model/encoder, model/encoder-decoder

A Llama (1.4 million weights), a BERT (1.5) and a T5 (1.8), each a plain `transformers` folder. The tokenizer is a byte-level
BPE of 2,048 pieces. The three folders share its pieces and differ in what stands around a text: nothing for the decoder,
[CLS] and [SEP] for the encoder, <eos> after it for the encoder-decoder.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

HERE = Path(__file__).parent

SENTINELS = [f"<extra_id_{number}>" for number in range(100)]
SPECIAL = ["<pad>", "<bos>", "<eos>", "[MASK]", "[CLS]", "[SEP]", *SENTINELS]
PAD, BOS, EOS, MASK, CLS, SEP = range(6)
VOCABULARY = 2048
CONTEXT = 512
AROUND = {"encoder": "[CLS] $A [SEP]", "encoder-decoder": "$A <eos>"}
"""What a family puts around each text."""


def learn_pieces(texts: list[str]) -> Tokenizer:
    """A byte-level BPE: every text can be written with it, and none needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_of(pieces: Tokenizer, family: str) -> PreTrainedTokenizerFast:
    """The same pieces, with what this family puts around a text."""
    own = Tokenizer.from_str(pieces.to_str())
    if family in AROUND:
        special = [(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]", "<eos>")]
        own.post_processor = processors.TemplateProcessing(AROUND[family], special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", mask_token="[MASK]",
        cls_token="[CLS]", sep_token="[SEP]", additional_special_tokens=SENTINELS, model_max_length=CONTEXT,
    )  # fmt: skip


def decoder() -> Any:
    """Six layers, 128 wide, grouped-query attention, head tied to the embedding."""
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        pad_token_id=PAD, bos_token_id=None, eos_token_id=EOS,
    ))  # fmt: skip


def encoder() -> Any:
    """Six layers, 128 wide; without dropout, because no text is seen often."""
    return BertForMaskedLM(BertConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
        max_position_embeddings=CONTEXT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=PAD,
    ))  # fmt: skip


def encoder_decoder() -> Any:
    """Four layers on each side, 128 wide."""
    return T5ForConditionalGeneration(T5Config(
        vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=384, num_layers=4, num_heads=4, dropout_rate=0.0,
        n_positions=CONTEXT, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
    ))  # fmt: skip


FAMILIES = {"decoder": decoder, "encoder": encoder, "encoder-decoder": encoder_decoder}


def main() -> None:
    """Write the three folders anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "text.jsonl", help="JSONL with a text in each row")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    options = parser.parse_args()
    pieces = learn_pieces([json.loads(line)["text"] for line in options.data.read_text(encoding="utf-8").splitlines()])
    for family, build in FAMILIES.items():
        torch.manual_seed(0)
        folder, model = options.out / family, build()
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        tokenizer_of(pieces, family).save_pretrained(folder)
        print(f"{folder}: {model.num_parameters():,} weights")


if __name__ == "__main__":
    main()
