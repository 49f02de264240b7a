"""Weights of strangers: regular files of bounded size that make no more than they hold, or a line that says why not."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import garnish as gn
from garnish.backbones.segformer.config import config_classes
from garnish.backbones.stored_weights import open_stored, read_notes
from garnish.backbones.weights import read_weights
from garnish.errors import OptionError, WeightsError
from garnish.files.pickled_weights import UnfitPickle, check_pickled
from garnish.recipes.recipe import read_recipe

SPARSE = 200 * 10**9


def refused(source: object) -> str:
    begun = time.process_time()
    with pytest.raises(WeightsError) as caught:
        read_weights(str(source))
    assert time.process_time() - begun < 2
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) <= 2000
    return line


# ---- what is no file of weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_only_regular_files_of_bounded_size_are_read(tmp_path, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    assert "no regular file" in refused(pipe)
    endless = tmp_path / f"endless{suffix}"
    endless.symlink_to("/dev/zero")
    assert "no regular file" in refused(endless)
    holes = tmp_path / "alone" / f"holes{suffix}"
    holes.parent.mkdir()
    with holes.open("wb") as stream:
        stream.truncate(SPARSE)
    assert "200,000,000,000 bytes are more than" in refused(holes)
    assert "200,000,000,000 bytes are more than" in refused(holes.parent)  # a folder that holds one


@pytest.mark.parametrize("source", ["", " ", "\n"])
def test_nothing_is_no_name_of_a_file(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert "name no file" in refused(source)
    with pytest.raises(OptionError, match="name no file; leave them out"):
        gn.backbone("mit_b0", source)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"backbone: {{name: mit_b0, weights: {json.dumps(source)}}}\nadapter: LoRA\ntrain: {{steps: 1}}\n"
    )
    with pytest.raises(OptionError, match=r"name no file|an empty path; name a file"):
        read_recipe(recipe).backbone.build()


@pytest.mark.parametrize("source", ["a\0b", "x" * 5000, "~nobodyofthisname/w.pth", "/dev/null/w.pth", "\x1b[2J.pth"])
def test_paths_that_cannot_be(source):
    assert "weights" in refused(source)


# ---- safetensors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<Q", 2**40),
        struct.pack("<Q", 2**64 - 1),
        struct.pack("<Q", 10) + b"{",
        b"",
        struct.pack("<Q", 2) + b"{]",
        (lambda text: struct.pack("<Q", len(text)) + text)(
            b'{"a":{"dtype":"F32","shape":[100000,100000],"data_offsets":[0,40000000000]}}'
        ),
        (lambda text: struct.pack("<Q", len(text)) + text)(
            b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
        ),
    ],
    ids=range(7),
)
def test_headers_that_claim_what_the_file_does_not_hold(tmp_path, header):
    file = tmp_path / "w.safetensors"
    file.write_bytes(header)
    assert "cannot be read" in refused(file)


def test_a_long_header_and_many_tensors(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", 20 * 2**20) + bytes(20 * 2**20))
    assert "its header would have 20,971,520 bytes" in refused(file)
    save_file({f"t{number}": torch.zeros(0) for number in range(20_001)}, file)
    assert "holds 20,001 tensors" in refused(file)


def test_a_strangers_licence_is_shown_and_short(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"license": "\x1b[31mMIT" + "x" * 10_000})
    licence = read_weights(str(tmp_path / "w.safetensors"))[1]
    assert licence is not None and licence.isprintable() and len(licence) < 250 and licence.startswith(r"\x1b[31mMIT")
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    (tmp_path / "README.md").write_text(f"Licence: academic{' ' * 10**6}\n" + "y" * 2**21)
    assert read_weights(str(tmp_path / "w.safetensors"))[1] is not None


# ---- pickles ---------------------------------------------------------------------------------------------------------

PLAIN = {"a": torch.arange(4.0)}


def remade(file: Path, change: Callable[[bytes], bytes], *, storage: bytes | None = None, packed: int = 0) -> None:
    """A file of torch's with another description, another storage, or compressed."""
    made = io.BytesIO()
    torch.save(PLAIN, made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(file, "w", compression=packed) as new:
        for record in old.infolist():
            data = old.read(record)
            if record.filename.endswith("data.pkl"):
                data = change(data)
            new.writestr(record.filename, storage if storage and record.filename.endswith("data/0") else data)


def calls(module: str, name: str, argument: int, code: bytes = b"R") -> bytes:
    return (
        b"\x80\x02}q\x00X\x01\x00\x00\x00a"
        + f"c{module}\n{name}\n".encode()
        + b"J"
        + struct.pack("<i", argument)
        + b"\x85"
        + code
        + b"s."
    )


MANY = 2**31 - 1


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        ("builtins", "bytearray", b"R"),
        ("torch", "Tensor", b"\x81"),
        ("torch", "FloatTensor", b"R"),
        ("torch", "UntypedStorage", b"R"),
        ("torch.storage", "TypedStorage", b"R"),
        ("_codecs", "encode", b"R"),
        ("os", "system", b"R"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage", b"R"),
    ],
)
def test_nothing_is_made_by_its_length(tmp_path, module, name, code):
    file = tmp_path / "w.pth"
    remade(file, lambda _: calls(module, name, MANY, code))
    tracemalloc.start()
    try:
        assert "objects other than tensors" in refused(file)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert read_notes(file) == {}


def test_records_are_neither_compressed_nor_doubled(tmp_path):
    file = tmp_path / "w.pth"
    remade(file, lambda text: text, storage=bytes(50 * 2**20), packed=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(file)
    remade(file, lambda text: text)
    with zipfile.ZipFile(file, "a") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        archive.writestr(name.upper(), calls("builtins", "bytearray", MANY))
    assert "twice" in refused(file)


def test_tuples_that_multiply_are_refused(tmp_path):
    nested: tuple[object, ...] = ()
    for _ in range(60):
        nested = (nested, nested)
    description = b"\x80\x02}q\x00" + pickle.dumps(nested, 2)[2:-1] + b"K\x01s."
    remade(tmp_path / "w.pth", lambda _: description)
    assert "multiply" in refused(tmp_path / "w.pth")
    (tmp_path / "legacy.pth").write_bytes(description)
    assert "multiply" in refused(tmp_path / "legacy.pth")


def test_tensors_are_no_larger_than_what_is_stored(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1).expand(10**9)}, file)
    assert "larger than what it stores" in refused(file)
    shared = torch.zeros(1000)
    torch.save({f"t{number}": shared for number in range(100)}, file)
    assert "larger than what it stores" in refused(file)
    torch.save({"a": shared, "b": shared}, file)  # tied
    assert set(read_weights(str(file))[0]) == {"a", "b"}


def test_storages_that_claim_more_than_the_file_holds(tmp_path):
    def claim(text: bytes) -> bytes:
        at = text.rindex(b"K\x04", 0, text.index(b"Q"))
        return text[:at] + b"J" + struct.pack("<i", MANY) + text[at + 2 :]

    def larger(text: bytes) -> bytes:
        at = (text := claim(text)).index(b"K\x04\x85")
        return text[:at] + b"J" + struct.pack("<i", MANY) + text[at + 2 :]

    remade(tmp_path / "w.pth", larger)
    refused(tmp_path / "w.pth")
    made = io.BytesIO()
    torch.save(PLAIN, made, _use_new_zipfile_serialization=False)
    (tmp_path / "legacy.pth").write_bytes(claim(made.getvalue()))
    refused(tmp_path / "legacy.pth")


def test_a_zip_with_two_lists_of_records_is_refused(tmp_path):
    """Python reads the list right before the end of a zip, torch the one that the end points to."""

    def zipped(method: int, records: dict[str, bytes]) -> tuple[bytes, int]:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as archive:
            for name, data in records.items():
                archive.writestr(name, data)
        return made.getvalue(), struct.unpack_from("<I", made.getvalue(), len(made.getvalue()) - 6)[0]

    hidden, start = zipped(zipfile.ZIP_DEFLATED, {"w/data.pkl": b"." * 10**7, "w/version": b"3"})
    records = {"w/data.pkl": pickle.dumps(OrderedDict(), 2), "w/version": b"3"}
    _, shorter = zipped(zipfile.ZIP_STORED, records)
    seen, same = zipped(zipfile.ZIP_STORED, records | {"w/version": b"3" + b" " * (start - shorter)})
    assert same == start  # so that Python finds its own records behind the others
    file = tmp_path / "w.pth"
    file.write_bytes(hidden[:-22] + seen)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("w/data.pkl") == records["w/data.pkl"]
    assert "two lists of its records" in refused(file)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_what_trainings_save_is_read(tmp_path, new):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    held = {
        "state_dict": OrderedDict(module.state_dict())
        | {"h": torch.ones(2).half(), "p": torch.nn.Parameter(torch.ones(1))},
        "optimizer": optimizer.state_dict(),
        "meta": {"CLASSES": ("road", "sky"), "PALETTE": [[1, 2, 3]], "time": "now", "seed": 2**40, "lr": 1e-3},
        "epoch": 3,
        "sizes": torch.Size([1, 2]),
        "kinds": [torch.float32, torch.device("cpu"), {1, 2}, None, True, 2 + 1j],
    }
    file = tmp_path / "w.pth"
    torch.save(held, file, _use_new_zipfile_serialization=new)
    tensors, _ = read_weights(str(file))
    assert torch.equal(tensors["weight"], module.weight.detach()) and tensors["h"].dtype == torch.float32
    assert read_notes(file)["CLASSES"] == ("road", "sky")
    shapes = open_stored(file).shapes
    assert {n: (t.shape, t.dtype) for n, t in shapes.items()} == {n: (t.shape, t.dtype) for n, t in tensors.items()}
    assert all(t.is_meta for t in shapes.values())
    file.write_bytes(b"")  # what was read is no view of the file
    assert torch.equal(tensors["weight"], module.weight.detach())


def test_files_cut_anywhere_are_refused(tmp_path):
    file = tmp_path / "w.pth"
    for new in (True, False):
        made = io.BytesIO()
        torch.save(PLAIN, made, _use_new_zipfile_serialization=new)
        whole = made.getvalue()
        for length in range(0, len(whole) - 1, 37):
            file.write_bytes(whole[:length])
            refused(file)


def test_a_look_at_a_file_runs_and_builds_nothing(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(print, 2))
    with pytest.raises(UnfitPickle, match="objects other than tensors"):
        check_pickled(tmp_path / "w.pth", 10**6)
    (tmp_path / "w.pth").write_bytes(pickle.dumps(print, 4))  # of the stack
    with pytest.raises(UnfitPickle, match="objects other than tensors"):
        check_pickled(tmp_path / "w.pth", 10**6)


# ---- class names beside them -----------------------------------------------------------------------------------------


def test_many_names_of_one_word_take_no_time_and_controls_are_shown():
    begun = time.process_time()
    named = config_classes({"id2label": {str(number): "road" for number in range(100_000)}})
    assert time.process_time() - begun < 2 and named is not None and named[7] == "road 7"
    assert config_classes({"id2label": {"0": "a\x1b[2J", "1": "b"}}) == (r"a\x1b[2J", "b")
    assert config_classes({"id2label": {"0": ["a"], "1": "b"}}) is None
