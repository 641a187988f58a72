"""`python -m genwright` is `genwright`."""

from __future__ import annotations

import sys

from genwright.cli import main

if __name__ == "__main__":
    sys.exit(main())
