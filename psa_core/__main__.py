"""``python -m psa_core`` is ``psa``."""

import sys

from .apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
