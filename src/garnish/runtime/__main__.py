"""Entry point of ``python -m garnish.runtime``."""

from __future__ import annotations

import os
import sys

# the current folder may be a stranger's: see garnish/__main__.py
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.dirname(__file__))):  # noqa: PTH120
    del sys.path[0]

from garnish.runtime.command import runtime_main

sys.exit(runtime_main())
