"""MATLAB files, read as scipy reads them, and never worse than with one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from garnish.errors import DataError
from garnish.files import matlab
from garnish.files.matlab import read_mat
from published_sets import anno, thing


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def plain(value):
    """What scipy gives, as read_mat gives it."""
    if value.dtype.names:
        return [{name: plain(entry[name]) for name in value.dtype.names} for entry in value.reshape(-1, order="F")]
    if value.dtype == object:
        return [plain(entry) for entry in value.reshape(-1, order="F")]
    return "".join(value.tolist()) if value.dtype.kind == "U" else value


def test_matlab_files_are_what_scipy_reads(tmp_path):
    two = np.zeros((2, 2), [("a", object), ("longer", object)])
    for number, entry in enumerate(two.reshape(-1)):
        entry["a"], entry["longer"] = np.full((1, number), number), "x" * number
    values = {
        "numbers": np.arange(6.0).reshape(2, 3) / 7,
        "single": np.float32(0.5),
        "ids": np.arange(12, dtype=np.uint16).reshape(3, 4),
        "cube": np.arange(-12, 12, dtype=np.int64).reshape(2, 3, 4),
        "yes": np.eye(3, dtype=bool),
        "text": "façade",
        "cells": np.array([[np.zeros((0, 0)), "b"], [np.eye(2), "c"]], dtype=object),
        "nested": {"a": 1.0, "b": {"c": "x" * 9}},
        "two": two,
    }
    for compress in (True, False):
        savemat(file := tmp_path / f"{compress}.mat", values, do_compression=compress)
        want = loadmat(file)
        for name in values:
            np.testing.assert_equal(read_mat(file, name), plain(want[name]), err_msg=name)


def test_matlab_files_that_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.mat"

    def refused(message, variable="a"):
        with pytest.raises(DataError) as error:
            read_mat(file, variable)
        assert re.search(message, one_line(error)) and str(file) in str(error.value), str(error.value)

    refused("cannot be read")
    file.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n")
    refused(r"7\.3 .* is not read; .*-v7")
    file.write_bytes(b"no such thing")
    refused("not a MATLAB 5 file")
    savemat(file, {"a": csc_array(np.eye(3)), "b": 1j})
    refused("sparse matrices")
    refused("complex", "b")
    refused("no variable 'c'", "c")
    savemat(file, {"a": np.eye(3)})
    sound = file.read_bytes()
    for cls in (3, 16, 17):  # object, function, opaque
        changed = bytearray(sound)
        changed[128 + 16] = cls
        file.write_bytes(bytes(changed))
        refused("objects, functions")
    changed = bytearray(sound)
    changed[128 + 32 : 128 + 36] = (2**30).to_bytes(4, "little")  # rows
    file.write_bytes(bytes(changed))
    refused("72 bytes for numbers of shape")
    deep = {"a": 1.0}
    for _ in range(40):
        deep = {"a": deep}
    savemat(file, deep)
    refused("16 levels")
    savemat(file, {"a": np.zeros((1000, 1000))}, do_compression=True)
    assert file.stat().st_size < 20_000
    monkeypatch.setattr(matlab, "MAX_BYTES", 2**20)
    refused("larger than 1 MiB")


def test_a_damaged_matlab_file_ends_in_one_line(tmp_path):
    file = tmp_path / "x.mat"
    rng = np.random.default_rng(0)
    refused = 0
    for compress in (True, False):
        held = anno([thing(15, np.ones((3, 3)), [("head", np.ones((3, 3)))])])
        savemat(file, held, do_compression=compress)
        sound = file.read_bytes()
        for _ in range(200):
            changed = bytearray(sound)
            for place in rng.integers(0, len(sound), rng.integers(1, 4)):
                changed[place] = rng.integers(0, 256)
            if rng.random() < 0.2:
                del changed[rng.integers(0, len(sound)) :]
            file.write_bytes(bytes(changed))
            try:
                read_mat(file, "anno")
            except DataError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 120
