"""`python -m cpacman` is the console."""

import sys

from cpacman.cli import main

sys.exit(main())
