"""``python -m aladdin`` is the command ``aladdin``."""

import sys

from aladdin.cli import main

if __name__ == "__main__":
    sys.exit(main())
