"""What ``tools/record_outputs.py`` records is the same each time, and a small change of the engine is seen."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

from garnish.model.inputs import Inputs

TOOLS = Path(__file__).parents[1] / "tools"
sys.path.append(str(TOOLS))
import record_outputs  # noqa: E402
import recorded_cases  # noqa: E402
import recorded_values  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = ("vit/LoRA-rs-dropout/per_task", "mit/VPT/shared")


class InProcess:
    """In place of a process of its own, which takes seconds to start; what it runs of another tree is changed."""

    lock = threading.Lock()  # one generator of random numbers serves the whole process

    def __init__(self, tree: Path) -> None:
        self.changed = tree.name == "changed"
        self.facts = {"torch": "any", "cases": CASES, "tree": str(tree)}

    def record(self, case: str, values: Path | None = None) -> record_outputs.Found:
        with self.lock, pytest.MonkeyPatch.context() as patch:
            if self.changed:
                of = Inputs.of
                patch.setattr(Inputs, "of", lambda inputs, owner: of(inputs, owner) * 1.001)
            found = recorded_values.recorded(recorded_cases.cases()[case])
        if values is not None:
            save_file({key: value for key, value in found.items() if isinstance(value, Tensor)}, values)
        return {key: recorded_values.told(value) for key, value in found.items()}

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(record_outputs, "Worker", InProcess)


def run(*given: str) -> int:
    return record_outputs.main([*given, *(word for case in CASES for word in ("--only", case))])


def test_two_recordings_are_equal_and_hold_outputs_gradients_and_what_is_refused(tmp_path):
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file in files:
        assert run("--out", str(file)) == 0
    one, two = (json.loads(file.read_text("utf-8"))["cases"] for file in files)
    assert one == two and list(one) == list(CASES)
    trained = one[CASES[0]]
    name = "adapters.b.stages.3.blocks.0.mlp.fc2.0.lora_a"
    assert {"eval/a", "eval_mix/b", "eval_one/b", "train/a", "train_mix/b", f"train_grad/{name}"} <= trained.keys()
    assert trained["eval/a"].startswith("3x5x64x64 ") and trained["eval_mix/a"].startswith("2x5x64x64 ")
    assert trained["train/a"] != trained["eval/a"]  # dropout acts
    # B is zero at the start, and then A would get no gradient
    assert trained[f"start/{name.replace('_a', '_b')}"].endswith(" sum 0 max 0")
    assert not trained[f"train_grad/{name}"].endswith(" max 0")
    refused = one[CASES[1]]
    assert list(refused) == ["refused"] and refused["refused"].startswith("SiteError: VPT: ")


def test_a_change_is_found_told_with_its_size_and_may_be_allowed(tmp_path, capsys):
    changed = ("--old", str(tmp_path / "changed"))
    assert run(*changed, "--allow", f"{CASES[0]}:eval*", "--allow", "swin/*") == 1
    told = capsys.readouterr().out
    assert f"allowed {CASES[0]}:eval/a: largest difference " in told
    assert f"different {CASES[0]}:train/a: largest difference " in told
    assert ":start/" not in told and CASES[1] not in told and told.count("2 cases: ") == 1
    assert "--allow 'swin/*' met no difference" in told
    assert f"different {CASES[0]}: and " in told and " more; --all prints them" in told
    assert run(*changed, "--allow", "vit/*", "--all") == 0
    told = capsys.readouterr().out
    assert "more; --all" not in told and f"allowed {CASES[0]}:train_mix_grad/" in told and "0 different" in told


def test_texts_are_shown_where_they_part():
    before, after = "a" * 100 + "old" + "b" * 100, "a" * 100 + "new" + "b" * 100
    assert record_outputs.excerpts(before, after, 5) == ("…aaaaaoldbb", "…aaaaanewbb")
    assert record_outputs.excerpts("12", "nothing") == ("12", "nothing")


def test_what_can_not_be_done_is_refused(capsys):
    with pytest.raises(SystemExit):
        record_outputs.main([])
    with pytest.raises(SystemExit, match="no such case"):
        record_outputs.main(["--out", "never.json", "--only", "nothing"])
    with pytest.raises(SystemExit):
        record_outputs.main(["--out", "never.json", "--allow", "*"])
    assert not Path("never.json").exists()
