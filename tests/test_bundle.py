"""Bundles: what is saved comes back, nothing else is taken for one, and nothing is lost when something fails."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import garnish as gn
from garnish.adapters.bottleneck import AdaptFormer
from garnish.adapters.lora import LoRA
from garnish.adapters.reference import FullFineTuning
from garnish.bundles.bundle_json import read_bundle_json
from garnish.commands.info import of_bundle
from garnish.errors import BundleError, OptionError
from garnish.files import atomic
from garnish.heads.linear import LinearHead
from garnish.heads.segformer import SegFormerHead
from garnish.tasks.depth import Depth
from garnish.tasks.semantic import Semantic
from garnish.training.float16_effect import holding

MIT = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
TASKS = {"seg": Semantic(classes=("road", "wall", "sky")), "depth": Depth(max_metres=10.0)}


def trunk(seed=0):
    torch.manual_seed(seed)
    return gn.backbone("mit_b0", options=MIT)


def perturb(tensors, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                noise = 0.05 * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if "running_var" in name else noise)


def adapted(method=None, tasks=None, head=None):
    model = gn.adapt(trunk(), method or LoRA(rank=2), tasks or TASKS, head or SegFormerHead(channels=8))
    perturb(model.own_tensors())
    return model.eval()


@torch.no_grad()
def outputs(model, tasks=None):
    return model(torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(7)), tasks)


def difference(one, other):
    return max((one[t] - other[t]).abs().max().item() for t in one)


def edit(folder: Path, change):
    facts = json.loads((folder / "bundle.json").read_text())
    change(facts)
    (folder / "bundle.json").write_text(json.dumps(facts))
    (folder / "SHA256SUMS").unlink(missing_ok=True)  # as a bundle of an earlier version, so that the next check speaks


def reseal(folder: Path, tensors):
    """Other tensors under a fitting checksum, so that the next check is the one that speaks."""
    save_file(tensors, folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    size = (folder / "weights.safetensors").stat().st_size
    edit(folder, lambda facts: facts.update(sha256=digest, sizes=facts["sizes"] | {"weights_bytes": size}))


METHODS = {
    "lora": LoRA(rank=2),
    "per task": LoRA(rank=2, per_task=True),
    "dora": LoRA(rank=2, dora=True),
    "full": FullFineTuning(),
    "two": [LoRA(rank=2), AdaptFormer(bottleneck=4, scale="learnable")],
}


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_is_exact_at_float32_and_close_at_float16(tmp_path, method):
    model = adapted(METHODS[method], head={"seg": SegFormerHead(channels=8), "depth": LinearHead(taps="last")})
    before = outputs(model)
    assert model.save(tmp_path / "wide", dtype="float32") == tmp_path / "wide"
    model.save(tmp_path / "narrow")
    wide = gn.load(tmp_path / "wide", backbone=trunk())
    assert (
        list(wide.tasks) == list(TASKS)
        and wide.tasks == model.tasks
        and wide.decoders.options == model.decoders.options
    )
    assert [(o.tasks, o.methods) for o in wide.owners] == [(o.tasks, o.methods) for o in model.owners]
    assert all(torch.equal(t, wide.own_tensors()[n]) for n, t in model.own_tensors().items())
    assert difference(before, outputs(wide)) == 0
    narrow = gn.load(tmp_path / "narrow", backbone=trunk())
    assert 0 < difference(before, outputs(narrow)) < 5e-3
    for name, tensor in narrow.own_tensors().items():
        if name.endswith("num_batches_tracked"):
            assert tensor.dtype == torch.int64
    # what training measures as rounded is what the bundle gives, and nothing of it stays
    with holding(model, tmp_path / "narrow"):
        assert difference(outputs(model), outputs(narrow)) == 0
    assert difference(before, outputs(model)) == 0


def test_full_fine_tuning_is_stored_as_differences(tmp_path):
    model = gn.adapt(trunk(), FullFineTuning(), {"depth": TASKS["depth"]})
    with torch.no_grad():
        for parameter in model.owners[0].tensors().values():
            parameter.add_(1e-5)
    model.save(tmp_path / "b")
    stored = load_file(tmp_path / "b" / "weights.safetensors")
    tuned = {n: t for n, t in stored.items() if n.startswith("tuned.depth.")}
    assert len(tuned) == len(model.owners[0].tuned)
    # a step of 1e-5 on weights around 1 would vanish in float16 were the values themselves rounded
    assert all((t.float() - 1e-5).abs().max() < 2e-6 for t in tuned.values())


def test_facts(tmp_path):
    model = adapted(LoRA(rank=2, per_task=True))
    metrics = {"seg": {"miou": 0.5, "iou/sky": float("nan")}}
    model.save(tmp_path / "b", metrics=metrics, metrics_rounding={"seg": {"miou": -0.001}}, extra={"epochs": 3})
    text = (tmp_path / "b" / "bundle.json").read_text(encoding="utf-8")
    facts = read_bundle_json(tmp_path / "b")
    assert text == json.dumps(facts, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert facts["metrics"] == {"seg": {"iou/sky": None, "miou": 0.5}}
    assert facts["metrics_rounding"] == {"seg": {"miou": -0.001}} and facts["extra"] == {"epochs": 3}
    assert facts["backbone"] == {
        "name": "mit_b0",
        "options": MIT,
        "taps": "stage",
        "fingerprint": trunk().fingerprint(),
        "licence": "none (random weights)",
        "non_commercial": False,
        "weights_source": "random",
    }
    assert [o["tasks"] for o in facts["owners"]] == [["seg"], ["depth"]]
    assert facts["tasks"]["seg"]["labels"] == ["road", "wall", "sky"]
    assert facts["tasks"]["seg"]["palette"] == {k: list(v) for k, v in TASKS["seg"].legend().items()}
    assert facts["tasks"]["seg"]["channels"] == 3 and facts["tasks"]["depth"]["palette"] == {}
    assert facts["preprocessing"]["mean"] == pytest.approx(list(model.backbone.mean))
    report = model.report((32, 32))
    assert facts["sizes"]["encoder_parameters"] == report["encoder_trainable"]
    assert facts["sizes"]["decoder_parameters"] == report["decoder_trainable"]
    size = (tmp_path / "b" / "weights.safetensors").stat().st_size
    assert facts["sizes"]["weights_bytes"] == size
    assert size == pytest.approx(report["bundle_bytes"], rel=0.01)


@pytest.mark.parametrize("per_task", [False, True])
def test_some_tasks_can_be_saved_alone(tmp_path, per_task):
    model = adapted(LoRA(rank=2, per_task=per_task))
    model.save(tmp_path / "b", tasks=["depth"], dtype="float32")
    loaded = gn.load(tmp_path / "b", backbone=trunk())
    assert list(loaded.tasks) == ["depth"] and loaded.owners[0].tasks == ("depth",)
    assert torch.equal(outputs(loaded)["depth"], outputs(model, ["depth"])["depth"])
    with pytest.raises(OptionError, match="unknown task 'dept'; did you mean 'depth'"):
        model.save(tmp_path / "c", tasks=["dept"])


def test_the_backbone_is_built_from_its_weights(tmp_path):
    source = trunk()
    save_file({n: t.detach().clone() for n, t in source.frozen_tensors().items()}, tmp_path / "trunk.safetensors")
    other = trunk(seed=1)
    save_file({n: t.detach().clone() for n, t in other.frozen_tensors().items()}, tmp_path / "other.safetensors")
    (tmp_path / "README.md").write_text("Licence: CC BY-NC 4.0\n")
    backbone = gn.backbone("mit_b0", str(tmp_path / "trunk.safetensors"), options=MIT)
    model = gn.adapt(backbone, LoRA(rank=2), TASKS)
    perturb(model.own_tensors())
    model.eval().save(tmp_path / "b", dtype="float32")
    assert read_bundle_json(tmp_path / "b")["backbone"]["non_commercial"] is True
    state = torch.get_rng_state()
    assert difference(outputs(gn.load(tmp_path / "b")), outputs(model)) == 0
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(BundleError, match=r"fingerprint [0-9a-f]{12} .*other.safetensors is [0-9a-f]{12}.*weights="):
        gn.load(tmp_path / "b", weights=tmp_path / "other.safetensors")
    (tmp_path / "trunk.safetensors").rename(tmp_path / "moved.safetensors")
    with pytest.raises(BundleError, match=r"trunk.safetensors.*pass weights="):
        gn.load(tmp_path / "b")
    assert difference(outputs(gn.load(tmp_path / "b", weights=tmp_path / "moved.safetensors")), outputs(model)) == 0


def test_weights_are_looked_for_here_and_beside_the_bundle(tmp_path, monkeypatch):
    (tmp_path / "trained" / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "trained")
    file = Path("weights/trunk.safetensors")
    save_file({n: t.detach().clone() for n, t in trunk().frozen_tensors().items()}, file)
    model = gn.adapt(gn.backbone("mit_b0", str(file), options=MIT), LoRA(rank=2), TASKS).eval()
    model.save("b", dtype="float32")
    assert read_bundle_json("b")["backbone"]["weights_source"] == str(file)
    before = outputs(model)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=f"{file}, below the working directory or beside the bundle") as caught:
        gn.load("trained/b")
    assert "\n" not in str(caught.value) and "pass weights=" in str(caught.value)
    shutil.copytree("trained/weights", "trained/b/weights")  # a bundle that is sent about with its weights
    loaded = gn.load("trained/b")
    assert loaded.backbone.weights_source == f"trained/b/{file}" and difference(outputs(loaded), before) == 0
    shutil.copytree("trained/weights", "weights")  # the working directory goes first
    assert gn.load("trained/b").backbone.weights_source == str(file)


def test_other_backbones_are_refused(tmp_path):
    adapted().save(tmp_path / "b")
    with pytest.raises(BundleError, match=r"random weights, which are in no file; pass backbone=.*same seed"):
        gn.load(tmp_path / "b")
    with pytest.raises(BundleError, match=f"fingerprint {trunk().fingerprint()[:12]}.*{trunk(1).fingerprint()[:12]}"):
        gn.load(tmp_path / "b", backbone=trunk(1))
    heads = {**MIT, "num_heads": [1, 2, 2, 2]}  # the same tensors, another function
    with pytest.raises(BundleError, match="num_heads"):
        gn.load(tmp_path / "b", backbone=gn.backbone("mit_b0", options=heads))
    with pytest.raises(OptionError, match="adapted already"):
        gn.load(tmp_path / "b", backbone=adapted().backbone)
    with pytest.raises(OptionError, match="not both"):
        gn.load(tmp_path / "b", backbone=trunk(), weights="x.safetensors")


def owner(facts):
    return facts["owners"][0]["methods"][0]


DAMAGE = {
    "unknown adapter 'LoRAA'; did you mean 'LoRA'": lambda f: owner(f).update(name="LoRAA"),
    "LoRA: unknown option 'rnk'; did you mean 'rank'": lambda f: owner(f).update(options={"rnk": 2}),
    "LoRA.rank: expected a whole number from 1 to 65,536, got '2'": lambda f: owner(f).update(options={"rank": "2"}),
    "rank 64 exceeds": lambda f: owner(f).update(options={"rank": 64}),
    "lora_a has shape": lambda f: owner(f).update(options={"rank": 1}),
    "unknown task 'Semantics'": lambda f: f["tasks"]["seg"].update(name="Semantics"),
    "unknown head 'Linear'; did you mean 'LinearHead'": lambda f: f["tasks"]["seg"]["head"].update(name="Linear"),
    "has 3 channels by its options and 4 as stored": lambda f: f["tasks"]["seg"].update(channels=4),
    "per_task method is shared by seg, depth": lambda f: owner(f)["options"].update(per_task=True),
    "channels: expected a whole number from 1 to 4,096": lambda f: f["tasks"]["seg"]["head"]["options"].update(
        channels=10**13
    ),
    "has format 3, this garnish reads 1 and 2": lambda f: f.update(format=3),
    "format 2 has pictures of other bands, here are none": lambda f: f.update(format=2),
    "it has no format number": lambda f: f.pop("format"),
    "has no backbone.fingerprint": lambda f: f["backbone"].pop("fingerprint"),
    "backbone.name: expected str, got 3": lambda f: f["backbone"].update(name=3),
    "preprocessing.multiple: expected int, got True": lambda f: f["preprocessing"].update(multiple=True),
    "unknown key hooks": lambda f: f.update(hooks={}),
    r"owners\[0\].tasks\[0\]: expected text like": lambda f: f["owners"][0].update(tasks=["../x"]),
    "owners: expected a list of mappings, got None": lambda f: f.update(owners=None),
    "task 'depth' has no owner": lambda f: f["owners"][0].update(tasks=["seg"]),
    "its SHA-256 is another": lambda f: f.update(sha256="0" * 64),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "b"
    adapted().save(folder)
    return folder


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_descriptions_are_refused_in_one_line(tmp_path, sound, message):
    folder = Path(shutil.copytree(sound, tmp_path / "b"))
    edit(folder, DAMAGE[message])
    with pytest.raises(BundleError, match=message) as caught:
        gn.load(folder, backbone=trunk())
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    if "has shape" not in message:  # its tensors are not put in
        with pytest.raises(BundleError, match=message) as caught:
            of_bundle(str(folder), (32, 32))
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"format": NaN}', "[]", '"format"', "\x00", "1" * 5000])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json") as caught:
        read_bundle_json(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_description_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "bundle.json").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(BundleError, match="more than the 16,777,216 that such a file may have"):
        read_bundle_json(tmp_path)


def test_other_tensors_are_refused_by_name(tmp_path, sound):
    folder = Path(shutil.copytree(sound, tmp_path / "b"))
    whole = load_file(folder / "weights.safetensors")
    name = next(n for n in whole if n.endswith("lora_a"))
    counter = "heads.seg.norm.num_batches_tracked"
    for message, tensors in {
        f"lacks {name} (1 such of {len(whole)} expected)": {n: t for n, t in whole.items() if n != name},
        "holds the unused extra.tensor.x": {**whole, "extra.tensor.x": torch.zeros(1)},
        f"{name} has shape": {**whole, name: torch.zeros(3, 5, dtype=torch.float16)},
        f"{name} is float32, expected float16": {**whole, name: whole[name].float()},
        f"{counter} is float16, expected int64": {**whole, counter: torch.zeros((), dtype=torch.float16)},
    }.items():
        reseal(folder, tensors)
        with pytest.raises(BundleError, match=re.escape(message)):
            gn.load(folder, backbone=trunk())
    for data in (b"", b"\x00" * 7, b"\xff" * 64, (10).to_bytes(8, "little") + b"not a json"):
        (folder / "weights.safetensors").write_bytes(data)
        edit(folder, lambda facts, data=data: facts.update(sha256=hashlib.sha256(data).hexdigest()))
        edit(folder, lambda facts, data=data: facts["sizes"].update(weights_bytes=len(data)))
        with pytest.raises(BundleError, match=r"weights\.safetensors: is damaged") as caught:
            gn.load(folder, backbone=trunk())
        assert "\n" not in str(caught.value)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors: cannot be read"):
        gn.load(folder, backbone=trunk())


def test_a_value_beyond_float16_is_named(tmp_path):
    model = adapted()
    with torch.no_grad():
        model.head_tensors("depth")["heads.depth.norm.running_var"][0] = 1e6
    with pytest.raises(BundleError, match=r"heads.depth.norm.running_var.*1e\+06.*dtype='float32'"):
        model.save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path / "b", dtype="float32")
    assert difference(outputs(gn.load(tmp_path / "b", backbone=trunk())), outputs(model)) == 0


def test_what_is_not_a_bundle_is_not_replaced(tmp_path):
    model = adapted()
    for name in ("folder", "other json"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    (tmp_path / "other json" / "bundle.json").write_text('{"name": "webpack"}')
    (tmp_path / "file").write_text("a file")
    before = snapshot(tmp_path)
    for name in ("folder", "other json", "file"):
        with pytest.raises(BundleError, match="exists and is not a bundle"):
            model.save(tmp_path / name)
    assert snapshot(tmp_path) == before
    with pytest.raises(BundleError, match="no such bundle"):
        gn.load(tmp_path / "none")
    with pytest.raises(BundleError, match="is not a bundle"):
        gn.load(tmp_path / "folder")
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    gn.load(tmp_path / "empty", backbone=trunk())


def snapshot(folder: Path):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_replacing_keeps_what_others_put_there(tmp_path):
    adapted().save(tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("mine")
    (tmp_path / "b" / "maps").mkdir()
    (tmp_path / "b" / "maps" / "a.png").write_bytes(b"png")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    model = adapted(LoRA(rank=3))
    model.save(tmp_path / "link")
    assert gn.load(tmp_path / "b", backbone=trunk()).owners[0].methods == (LoRA(rank=3),)
    assert (tmp_path / "b" / "notes.txt").read_text() == "mine" and (tmp_path / "b" / "maps" / "a.png").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "link"]


def test_a_full_disk_leaves_the_earlier_bundle(tmp_path):
    model = adapted()
    model.save(tmp_path / "b")
    before = snapshot(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # a file may not grow beyond this, as on a full disk
    try:
        for place in ("b", "new"):
            with pytest.raises(BundleError, match=r"cannot be written .*free some space") as caught:
                model.save(tmp_path / place)
            assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert snapshot(tmp_path) == before


CALLS = ("fsync", "mkdir", "open", "rename", "replace", "rmdir", "unlink")


def cut_off(monkeypatch, after: int, how):
    """Let ``after`` calls that change the disk pass, then call ``how`` in place of each further one."""
    passed = [0]

    def counted(call):
        def run(*args, **kwargs):
            passed[0] += 1
            if passed[0] > after:
                how()
            return call(*args, **kwargs)

        return run

    for name in ("mkdir", "open", "rename", "rmdir", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def killed_after(monkeypatch, calls: int, action) -> bool:
    """Run ``action`` in a child that dies, without any clean-up, at a call that changes the disk; whether it died."""
    child = os.fork()
    if child == 0:
        cut_off(monkeypatch, calls, lambda: os._exit(9))
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_at_any_call_leaves_one_whole_folder(tmp_path, monkeypatch):
    old, new = {"a": b"old a", "b": b"old b"}, {"a": b"new a", "b": b"new b"}
    path = tmp_path / "bundle"
    states = []
    for calls in range(100):
        shutil.rmtree(tmp_path)
        atomic.write_folder(path, old)
        (path / "notes").write_text("mine")
        died = killed_after(monkeypatch, calls, lambda: atomic.write_folder(path, new))
        found = {n: (atomic.present(path) / n).read_bytes() for n in old}
        assert found in (old, new), calls
        states.append(found == new)
        assert [p.read_text() for p in tmp_path.rglob("notes")] == ["mine"]
        atomic.write_folder(path, new)  # the next one tidies up
        assert snapshot(tmp_path) == {
            "bundle": None,
            "bundle/a": b"new a",
            "bundle/b": b"new b",
            "bundle/notes": b"mine",
        }
        if not died:
            break
    assert not died and calls > 8 and states == sorted(states) and states[-1]


def test_a_failure_at_any_call_leaves_one_whole_folder(tmp_path):
    old, new = {"a": b"old a", "b": b"old b"}, {"a": b"new a", "b": b"new b"}
    path = tmp_path / "bundle"

    def fail():
        raise OSError(28, "No space left on device")

    for calls in range(100):
        shutil.rmtree(tmp_path)
        atomic.write_folder(path, old)
        with pytest.MonkeyPatch.context() as patch:
            cut_off(patch, calls, fail)
            try:
                atomic.write_folder(path, new)
                failed = False
            except OSError:
                failed = True
        assert {n: (atomic.present(path) / n).read_bytes() for n in old} in (old, new), calls
        if not failed:
            break
    assert not failed and calls > 8


#: What a driver sends to processes that it began, and back, as Ray and multiprocessing send all else: no file holds it.
OWN_MESSAGES = ("ray_crew.py", "run_slot.py")


def test_nothing_in_the_package_unpickles():
    source = Path(gn.__file__).parent
    for file in source.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                allowed = root == "pickle" and file.name in ("stored_weights.py", *OWN_MESSAGES)
                assert root not in {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} or allowed, file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
                assert node.attr.endswith("Error") or file.name in OWN_MESSAGES, f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True", f"{file}:{node.lineno}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"


def test_a_saved_model_still_trains(tmp_path):
    model = adapted()
    model.save(tmp_path / "b")
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.trained_parameters().values())
    loaded = gn.load(tmp_path / "b", backbone=trunk())
    assert not loaded.training and loaded.trained_parameters().keys() == model.trained_parameters().keys()
