"""Entry point of ``python -m garnish``."""

from __future__ import annotations

import sys

from garnish.cli import main

sys.exit(main())
