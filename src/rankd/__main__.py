"""`python -m rankd`."""

import sys

from rankd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
