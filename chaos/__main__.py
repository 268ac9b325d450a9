"""``python -m chaos``: the same as ``./run chaos``."""

from __future__ import annotations

import sys

from chaos import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
