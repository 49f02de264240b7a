"""Maps of the server are those of ``predict`` of each bundle by itself: sizes, windows, orientation, other bands."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import band_cases
import garnish as gn
import tiny
from garnish.errors import DataError, OptionError
from garnish.model.model import Model
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.raster import Georeference
from garnish.serving.asked import Answer, Asking, Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.engine import Engine
from garnish.serving.merged_engine import MergedEngine
from garnish.serving.refusals import TooLarge
from garnish.serving.service import Service
from garnish.serving.torch_engine import TorchEngine
from test_service import Store

Predict = Callable[..., Answer]


def served(
    folders: dict[str, Path], short: str, batch: int = 4, of: type[Engine] = TorchEngine, **options: Any
) -> Predict:
    """A service of real bundles in float64, whose rounding hides nothing."""
    engine = of(Model(tiny.backbone(short)).double())
    store = Store({name: engine.load(name, folder) for name, folder in folders.items()})
    service = Service(engine, store, Batcher(engine, batch=batch), **options)

    def predict(data: bytes, *names: str, **asking: Any) -> Answer:
        return service.predict(data, Asking(bundles=names, **asking), Ticket.within(60))

    return predict


def saved(short: str, method: Any, folder: Path, seed: int) -> Path:
    model = tiny.model(short, method)
    tiny.randomise_own(model, seed=seed)
    return gn.save(model, folder, dtype="float32")


def check(answer: Answer, folders: dict[str, Path], short: str, file: Path, **how: Any) -> None:
    """Compare with ``Model.predict`` of each bundle that is loaded alone."""
    for name, found in answer.predictions.items():
        alone = gn.load(folders[name], backbone=tiny.backbone(short)).double()
        want = alone.predict(file, list(found.maps), **how)
        assert (found.picture == want.picture).all() and found.place == want.place
        for task, expected in want.numpy().items():
            decoded = found[task]
            assert decoded.shape == expected.shape and decoded.dtype == expected.dtype, (name, task)
            if decoded.dtype == np.uint8:
                assert (decoded == expected).mean() >= 0.9999, (name, task)
            else:
                assert (np.isnan(decoded) == np.isnan(expected)).all()
                apart = np.nanmax(np.abs(decoded - expected)) / np.nanmax(np.abs(expected))
                assert apart <= 1e-5, (name, task, apart)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    methods = {"lora": gn.LoRA(rank=2), "bottleneck": gn.AdaptFormer()}
    return {name: saved("mit", method, root / name, seed) for seed, (name, method) in enumerate(methods.items())}


def file_of(tmp_path: Path, size: tuple[int, int], ending: str = "png", **options: Any) -> Path:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"picture.{ending}", **options)
    return tmp_path / f"picture.{ending}"


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (1, 40), (97, 33)])
def test_odd_sizes(folders, tmp_path, size):
    file = file_of(tmp_path, size)
    answer = served(folders, "mit")(file.read_bytes(), "lora", "bottleneck")
    check(answer, folders, "mit", file)


def test_windows(folders, tmp_path):
    file = file_of(tmp_path, (150, 131))
    predict = served(folders, "mit", tile=64)
    answer = predict(file.read_bytes(), "lora", "bottleneck", confidence=True)
    check(answer, folders, "mit", file, tile=64)
    model = gn.load(folders["lora"], backbone=tiny.backbone("mit")).double()
    want = model.predict(file, tile=64, probabilities=True).probabilities("seg")
    assert np.allclose(answer.confidence["lora", "seg"], want.max(0), atol=1e-5)
    check(predict(file.read_bytes(), "lora"), folders, "mit", file, tile=64)


@pytest.mark.parametrize("tile", ["auto", 64])
def test_one_bundle_that_is_folded_into_the_trunk(folders, tmp_path, tile):
    alone = {"lora": folders["lora"]}
    file = file_of(tmp_path, (150, 131))
    check(served(alone, "mit", of=MergedEngine, tile=tile)(file.read_bytes()), alone, "mit", file, tile=tile)


def test_pictures_are_turned_upright(folders, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = file_of(tmp_path, (40, 70), "jpg", exif=exif)
    answer = served(folders, "mit")(file.read_bytes(), "lora")
    check(answer, folders, "mit", file)
    assert answer.predictions["lora"]["seg"].shape == (70, 40)


def test_a_geotiff_keeps_its_place(folders, tmp_path):
    place = Georeference("EPSG:32633", (2.0, 0.0, 500000.0, 0.0, -2.0, 4600000.0))
    pixels = np.random.default_rng(3).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    with MapWriter(tmp_path / "ground.tif", (48, 40), 3, np.dtype(np.uint8), place) as writer:
        writer.write(pixels)
    answer = served(folders, "mit")((tmp_path / "ground.tif").read_bytes(), "lora")
    assert answer.predictions["lora"].place is not None
    check(answer, folders, "mit", tmp_path / "ground.tif")


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bands")
    five = band_cases.model("mit", gn.LoRA(rank=2), tasks=["seg", "depth"])
    return {
        "five": gn.save(five, root / "five", dtype="float32"),
        "rgb": saved("mit", gn.LoRA(rank=2), root / "rgb", 3),
    }


def band_files(folder: Path) -> list[Path]:
    values = np.random.default_rng(5).random((60, 75, 5)).astype(np.float32)
    values[:20, :30] = np.nan
    np.save(folder / "values.npy", values)
    np.savez(folder / "values.npz", **{name: values[..., k] for k, name in enumerate(band_cases.FIVE.names)})
    with MapWriter(folder / "values.tif", (60, 75), 5, np.dtype(np.float32), None) as writer:
        writer.write(values)
    return [folder / f"values.{ending}" for ending in ("npy", "npz", "tif")]


@pytest.mark.parametrize("tile", ["auto", 48])
def test_other_bands(banded, tmp_path, tile):
    predict = served(banded, "mit", tile=tile)
    for file in band_files(tmp_path):
        answer = predict(file.read_bytes(), "five", confidence=True)
        check(answer, banded, "mit", file, tile=tile)
        maps = answer.predictions["five"]
        assert (maps["seg"][:20, :30] == 255).all() and (maps["depth"][:20, :30] == 0).all()
        assert (answer.confidence["five", "seg"][:20, :30] == 0).all()
        assert (answer.confidence["five", "seg"][20:] > 0).all()


def open_files() -> int:
    """How many this process has; 0 where the system does not tell."""
    told = Path("/proc/self/fd")
    return sum(1 for _ in told.iterdir()) if told.is_dir() else 0


def test_nothing_of_a_picture_is_left(banded, tmp_path, monkeypatch):
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    file = band_files(tmp_path)[2]
    predict = served(banded, "mit")
    for data in (file.read_bytes(), file.read_bytes()[:300]):
        before = open_files()
        for without_memory in (False, True):
            with monkeypatch.context() as patched:
                if without_memory:
                    patched.delattr("os.memfd_create", raising=False)
                try:
                    predict(data, "five")
                except DataError as refused:
                    assert str(refused).startswith("the picture: ") and str(private) not in str(refused)
            assert list(private.iterdir()) == []
        assert open_files() == before


def test_pictures_and_bundles_of_different_bands(banded, tmp_path):
    predict = served(banded, "mit")
    file = file_of(tmp_path, (40, 40))
    with pytest.raises(OptionError, match=r"bundle: five takes 5 bands .* and rgb takes 8-bit RGB"):
        predict(file.read_bytes(), "five", "rgb")
    with pytest.raises(DataError, match="the picture: 3 bands, and the tasks take 5"):
        predict(file.read_bytes(), "five")
    (array, *_) = band_files(tmp_path)
    with pytest.raises(DataError, match="the picture: is a NumPy array"):
        predict(array.read_bytes(), "rgb")


def test_large_arrays_are_refused_by_their_header(banded, tmp_path, monkeypatch):
    predict = served(banded, "mit", megapixels=0.004)
    monkeypatch.setattr("garnish.pictures.npy_raster.NpyRaster.read", lambda self: pytest.fail("was read"))
    (array, *_) = band_files(tmp_path)
    with pytest.raises(TooLarge, match="75x60"):
        predict(array.read_bytes(), "five")


def test_in_float32_of_a_trained_trunk(tmp_path):
    folders = {}
    for number, method in enumerate([gn.LoRA(rank=4), gn.AdaptFormer()]):
        torch.manual_seed(number)
        model = gn.adapt(gn.backbone("garnish_b0"), method, {"seg": gn.Semantic(classes=5), "depth": gn.Depth()})
        with torch.no_grad():
            for parameter in model.trained_parameters().values():
                parameter.add_(0.02 * torch.randn_like(parameter))
        folders[str(number)] = gn.save(model, tmp_path / str(number), dtype="float32")
    engine = TorchEngine(Model(gn.backbone("garnish_b0")))
    store = Store({name: engine.load(name, folder) for name, folder in folders.items()})
    service = Service(engine, store, Batcher(engine, batch=2), tile=96)
    held = io.BytesIO()
    file = file_of(tmp_path, (120, 133))
    held.write(file.read_bytes())
    answer = service.predict(held.getvalue(), Asking(("0", "1")), Ticket.within(60))
    for name, found in answer.predictions.items():
        want = gn.load(folders[name]).predict(file, tile=96).numpy()
        assert (found["seg"] == want["seg"]).mean() >= 0.9999
        assert np.abs(found["depth"] / want["depth"] - 1).max() <= 1e-5
