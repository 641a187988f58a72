"""Models: where they come from, how they are loaded, and how they answer. Definitions are those of `transformers`."""

import logging

# torchao, where it is installed, tells at import which of its GPU kernels this machine cannot load.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
