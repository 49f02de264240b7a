"""Imports from where modules lay before: one line that names the new place, and that place is right."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from garnish.moved import places

PACKAGES = {"garnish.model": "Model", "garnish.data.scenes": "Scenes", "garnish.data.labels": "decode"}


@pytest.mark.parametrize("old", sorted(places()))
def test_an_old_place_names_the_new_one(old):
    new = places()[old]
    importlib.import_module(new)
    if old in PACKAGES:
        with pytest.raises(ImportError, match=f"{new} import {PACKAGES[old]}"):
            exec(f"from {old} import {PACKAGES[old]}")
        exec(f"from {new} import {PACKAGES[old]}")
        return
    with pytest.raises(ModuleNotFoundError, match=f"{old} is now {new};") as caught:
        importlib.import_module(old)
    assert "\n" not in str(caught.value)


def test_what_never_was_is_python_s_own_error():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'garnish\.nothing'"):
        importlib.import_module("garnish.nothing")


def test_what_a_script_of_before_says():
    out = subprocess.run(
        [sys.executable, "-c", "from garnish import Depth, lookup"], capture_output=True, text=True, check=False
    )
    assert out.returncode == 1
    assert out.stderr.splitlines()[-1].endswith("garnish.lookup is now garnish.registry; import it from there")


@pytest.mark.parametrize(
    "line", ["model import report, model", "data.labels import choosing", "data.scenes import rooms"]
)
def test_modules_of_a_package_that_stands_where_a_module_was_are_imported(line):
    # in a process of its own, where nothing of the package is loaded
    done = subprocess.run([sys.executable, "-c", f"from garnish.{line}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
