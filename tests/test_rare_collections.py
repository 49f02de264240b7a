"""What garbage a server leaves is collected, though seldom; in a process of its own, since it changes the collector."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, time, weakref
from garnish.serving.rare_collections import collecting

class Circle:
    def __init__(self):
        self.own = self

with collecting(every=0.05):
    assert gc.get_freeze_count() > 1000 and gc.get_threshold()[2] == 1000
    left = weakref.ref(Circle())
    for _ in range(3):
        gc.collect(1)  # it grows old, where nothing looks at it but the thread
    until = time.monotonic() + 20
    while left() is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert left() is None
"""


def test_old_garbage_is_collected_by_the_clock():
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
