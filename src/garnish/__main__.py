"""Entry point of ``python -m garnish``."""

from __future__ import annotations

import os
import sys

# ``python -m`` looks for every module in the current folder first, which may be a stranger's: a yaml.py there would be
# run. So the folder is left out before anything else is imported, unless garnish itself was found in it.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH120
    del sys.path[0]

from garnish.cli import main

sys.exit(main())
