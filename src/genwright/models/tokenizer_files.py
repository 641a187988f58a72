"""The files of a model folder that are its tokenizer's: what must go wherever the weights go."""

from __future__ import annotations

import shutil
from pathlib import Path

PATTERNS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
)


def copy_tokenizer(source: Path, target: Path) -> None:
    """The same tokenizer beside other weights."""
    for pattern in PATTERNS:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, target / path.name)
