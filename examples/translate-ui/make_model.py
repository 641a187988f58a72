"""An encoder-decoder with random weights and a tokenizer of its own, learned from data/ui.jsonl. Downloads nothing.

    python make_model.py                         # model/

A T5 of two million weights: three layers on each side, 160 wide; a byte-level BPE of 1,024 pieces, <eos> after each text.
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
VOCABULARY = 1024


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: every text can be written with it."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    own.train_from_iterator(texts, trainer)
    own.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", eos_token="<eos>", model_max_length=256)


def encoder_decoder(vocabulary: int) -> Any:
    """From its configuration alone: every weight is random."""
    return T5ForConditionalGeneration(T5Config(
        vocab_size=vocabulary, d_model=160, d_kv=40, d_ff=480, num_layers=3, num_heads=4, dropout_rate=0.1, n_positions=256,
        pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
    ))  # fmt: skip


def main() -> None:
    """Write model/ anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE / "data" / "ui.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "model")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    tokenizer = tokenizer_of([row[side] for row in rows for side in ("prompt", "completion")])
    torch.manual_seed(0)
    model = encoder_decoder(len(tokenizer))
    shutil.rmtree(options.out, ignore_errors=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"{options.out}: {model.num_parameters():,} weights")


if __name__ == "__main__":
    main()
