"""The decoding of ``docs/add-a-decoding.md`` against the task of the other page; run by ``test_add_a_task.py``."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from outside_curvature import Curvature
from outside_signed_amount import SignedAmount

from garnish import registry

BLOCK = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'torchvision', 'timm', 'lightning')))\n"


def test_it_is_found_where_there_is_no_torch():
    code = BLOCK + "from garnish import registry\nprint(registry.build('decodings', 'SignedAmount', {'painted': 2}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "SignedAmount(painted=2.0)"


def test_its_maps_and_files_are_those_of_the_task(tmp_path):
    task, decoding = Curvature(painted=2.0), registry.build("decodings", "SignedAmount", {"painted": 2.0})
    assert decoding == SignedAmount(painted=2.0) and decoding.channels == task.channels
    raw = torch.randn(1, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    decoded = decoding.decode(raw[0].numpy())
    assert (decoded == task.decode(raw)[0].numpy()).all()
    decoded[0, 0] = np.nan
    assert (decoding.paint(decoded) == task.paint(torch.from_numpy(decoded))).all()
    files = decoding.write(decoded, tmp_path / "a"), task.write(torch.from_numpy(decoded), tmp_path / "b")
    assert [file.suffix for file in files] == [".npy"] * 2 and files[0].read_bytes() == files[1].read_bytes()
