"""Forward passes of whole models, dense and through PSA; the same as ``psa bench --model``."""

from __future__ import annotations

import sys

from psa_core.apps.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--model", *sys.argv[1:]]))
