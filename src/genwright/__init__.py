"""Genwright carries a generative-AI project through its whole life cycle from one file."""

import logging

__version__ = "0.1.0"

# Where torchao is installed, `transformers` imports it, and it tells which of its GPU kernels this machine cannot load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
