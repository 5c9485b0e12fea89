"""`python -m sepsis_rl` is the `lightning` command."""

import sys

from sepsis_rl.cli import main

sys.exit(main())
