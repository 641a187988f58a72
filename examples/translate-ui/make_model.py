"""An encoder-decoder with random weights and a tokenizer of its own, learned from data/ui.jsonl. Downloads nothing.

    python make_model.py [--vocabulary 1024] [--width 160] [--layers 3] [--dropout 0.1]     # model/

A T5: as many layers on each side, a byte-level BPE, <eos> after each text. Few pieces and much dropout, as Sennrich and Zhang 2019
(arXiv 1905.11901) found best on few rows, kept this model from learning its rows at all: README.md has the numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

HERE = Path(__file__).parent
PAD, EOS = 0, 1


def tokenizer_of(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: every text can be written with it."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator(texts, trainer)
    own.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", eos_token="<eos>", model_max_length=256)


def encoder_decoder(vocabulary: int, width: int, layers: int, dropout: float) -> Any:
    """From its configuration alone: every weight is random."""
    return T5ForConditionalGeneration(T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=width // 4, d_ff=3 * width, num_layers=layers, num_heads=4,
        dropout_rate=dropout, n_positions=256, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
    ))  # fmt: skip


def main() -> None:
    """Write model/ anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "ui.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    parser.add_argument("--vocabulary", type=int, default=1024, help="pieces of the tokenizer")
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--layers", type=int, default=3, help="on each side")
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    tokenizer = tokenizer_of([row[side] for row in rows for side in ("prompt", "completion")], options.vocabulary)
    torch.manual_seed(0)
    model = encoder_decoder(len(tokenizer), options.width, options.layers, options.dropout)
    shutil.rmtree(options.out, ignore_errors=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {model.num_parameters():,} weights")


if __name__ == "__main__":
    main()
