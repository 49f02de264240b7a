"""What TIFFs say beside their numbers: places, names, scales, "not measured"; as GDAL and tifffile write it."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

from garnish.errors import DataError, MissingExtraError
from garnish.pictures.band_files import BandFiles
from garnish.pictures.map_writer import MapWriter
from garnish.pictures.open_raster import open_raster
from garnish.pictures.raster import Georeference

TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
LAEA = "+proj=laea +lat_0=10 +lon_0=20 +x_0=5 +y_0=6 +ellps=GRS80 +units=m"
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, bands: int = 1, dtype: str = "uint16", *, tags=None, names=(), **options) -> Path:
    """A GeoTIFF of GDAL, full of zeros."""
    with rasterio.open(path, "w", driver="GTiff", height=20, width=30, count=bands, dtype=dtype, **options) as made:
        made.write(np.zeros((bands, 20, 30), dtype))
        if names:
            made.descriptions = names
        made.update_tags(**(tags or {}))
    return path


def facts(path: Path):
    with open_raster(path) as raster:
        return raster.facts


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3857", "EPSG:2154", "EPSG:3035", "EPSG:25832", None])
@pytest.mark.parametrize("transform", [TRANSFORM, Affine(7.0, 3.0, 1.0, 3.0, -7.0, 2.0), Affine(2.0, 0, 5, 0, 2.0, 6)])
@pytest.mark.parametrize("point", [False, True])
def test_places_are_those_that_gdal_reads(tmp_path: Path, crs, transform, point: bool, monkeypatch) -> None:
    tags = {"AREA_OR_POINT": "Point"} if point else None
    file = write(tmp_path / "a.tif", crs=crs, transform=transform, tags=tags)
    with rasterio.open(file) as made:
        assert tuple(made.transform)[:6] == pytest.approx(tuple(transform)[:6])
    found = facts(file)
    assert found.place.crs == crs and "place" not in found.notes
    assert found.place.transform == pytest.approx(tuple(transform)[:6])
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert facts(file) == found  # codes are told without it


def test_systems_without_a_code_take_rasterio_and_its_lack_is_said(tmp_path: Path, monkeypatch) -> None:
    file = write(tmp_path / "a.tif", crs=CRS.from_proj4(LAEA), transform=TRANSFORM)
    found = facts(file)
    assert (
        CRS.from_wkt(found.place.crs).to_dict()
        == CRS.from_proj4(LAEA).to_dict() | CRS.from_wkt(found.place.crs).to_dict()
    )
    assert CRS.from_wkt(found.place.crs).to_dict()["lat_0"] == 10
    compound = write(tmp_path / "b.tif", crs=CRS.from_user_input("EPSG:25832+5783"), transform=TRANSFORM)
    assert "DHHN92" in facts(compound).place.crs
    monkeypatch.setitem(sys.modules, "rasterio", None)
    found = facts(file)
    assert found.place == Georeference(None, tuple(TRANSFORM)[:6])
    assert "pip install 'garnish[geo]'" in found.notes["place"]


def test_no_place_and_places_that_are_not_understood(tmp_path: Path) -> None:
    assert facts(write(tmp_path / "a.tif")).place is None
    points = [rasterio.control.GroundControlPoint(r, c, c * 2.0, r * 3.0) for r, c in ((0, 0), (0, 9), (9, 0), (9, 9))]
    found = facts(write(tmp_path / "a.tif", gcps=points, crs="EPSG:4326"))
    assert found.place is None and "told by points" in found.notes["place"]
    extra = [(33550, 12, 3, (1.0, 1.0, 0.0), True), (33922, 12, 6, (0.0,) * 6, True), (274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 5), np.uint8), extratags=extra)
    found = facts(tmp_path / "b.tif")
    assert found.size == (5, 4) and found.place is None and "turned" in found.notes["place"]


def test_a_map_lies_where_its_picture_lies(tmp_path: Path) -> None:
    for crs in ("EPSG:32632", "EPSG:3035", CRS.from_proj4(LAEA)):
        place = facts(write(tmp_path / "a.tif", crs=crs, transform=TRANSFORM)).place
        with MapWriter(tmp_path / "b.tif", (20, 30), 1, "uint8", place) as writer:
            writer.write(np.zeros((20, 30, 1), np.uint8))
        with rasterio.open(tmp_path / "b.tif") as made:
            assert made.crs == CRS.from_user_input(crs) and made.transform == TRANSFORM
        again = facts(tmp_path / "b.tif").place
        assert again.transform == place.transform
        assert CRS.from_user_input(again.crs) == CRS.from_user_input(place.crs)


def test_names_scales_and_no_data(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    found = facts(write(file, 4, nodata=65535, names=("blue", "near <infra> red & \"more\"", None, "höhe"), tiled=True,
                        blockxsize=16, blockysize=16, compress="lzw"))  # fmt: skip
    assert found.bands == ("blue", 'near <infra> red & "more"', None, "höhe")
    assert found.nodata == 65535 and found.windows
    assert found.notes == {"compression": "LZW", "tile": "16x16"}
    with rasterio.open(file, "r+") as made:
        made.scales, made.offsets = (0.0001, 0.0001, 1.0, 2.0), (0.0, -0.1, 0.0, 0.0)
    notes = facts(file).notes
    assert [float(one) for one in notes["scale"].split()] == [0.0001, 0.0001, 1, 2]
    assert [float(one) for one in notes["offset"].split()] == [0, -0.1, 0, 0]
    assert np.isnan(facts(write(file, dtype="float32", nodata=float("nan"))).nodata)
    assert facts(write(file, dtype="float32", nodata=-3.25e38)).nodata == -3.25e38
    assert facts(write(file, dtype="int16", nodata=-32768)).nodata == -32768
    tifffile.imwrite(file, np.zeros((4, 5), np.uint8), extratags=[(42113, 2, 5, "-999", True)])
    assert facts(file).nodata is None  # no pixel of 8 bits has it
    tifffile.imwrite(file, np.zeros((4, 5), np.uint8), extratags=[(42113, 2, 5, "none", True)])
    with pytest.raises(DataError, match="its number of no data is 'none'"):
        open_raster(file)


@pytest.mark.parametrize("nodata", [None, 7])
def test_tiles_that_gdal_left_out_are_no_data(tmp_path: Path, nodata) -> None:
    file = tmp_path / "a.tif"
    shape = {"height": 64, "width": 64, "count": 2, "dtype": "uint8", "nodata": nodata}
    with rasterio.open(
        file, "w", driver="GTiff", **shape, tiled=True, blockxsize=16, blockysize=16, SPARSE_OK="TRUE"
    ) as made:
        made.write(np.full((2, 16, 16), 9, np.uint8), window=rasterio.windows.Window(16, 32, 16, 16))
    want = np.full((64, 64, 2), nodata or 0, np.uint8)
    want[32:48, 16:32] = 9
    with open_raster(file) as raster:
        np.testing.assert_array_equal(raster.read(), want)


def test_bands_at_several_places_are_refused(tmp_path: Path) -> None:
    files = {
        name: write(tmp_path / f"{name}.tif", crs="EPSG:32632", transform=TRANSFORM, nodata=0)
        for name in ("red", "nir")
    }
    with BandFiles(files) as raster:
        assert raster.facts.place == Georeference("EPSG:32632", tuple(TRANSFORM)[:6]) and raster.facts.nodata == 0
    np.save(tmp_path / "height.npy", np.zeros((20, 30), np.uint16))
    with BandFiles({"height": tmp_path / "height.npy", **files}) as raster:
        assert raster.facts.place is not None and raster.facts.nodata is None
        assert raster.facts.notes["nodata"] == "not one for all bands: 0.0, None"
    for crs, shift in (("EPSG:32633", 0), ("EPSG:32632", 5)):
        write(files["nir"], crs=crs, transform=TRANSFORM * Affine.translation(shift, 0))
        with pytest.raises(DataError, match=r"nir\.tif: lies at another place than .*red\.tif"):
            BandFiles(files)


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zstd", "jpeg"])
def test_a_missing_library_is_named(tmp_path: Path, compression: str, monkeypatch) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression)
    tifffile.imwrite(tmp_path / "b.tif", pixels, compression="zlib", predictor=2)
    plain = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] in ("imagecodecs", "tifffile", "rasterio"):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"a\.tif: reading TIFF with .* compression .*'garnish\[tiff\]'"):
        open_raster(tmp_path / "a.tif")
    with open_raster(tmp_path / "b.tif") as raster:  # NumPy is enough
        assert raster.read().shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"compression": "webp"}, "compressed by WebP, which is not read"),
        ({"compression": "jpeg2000"}, "compressed by JPEG 2000"),
        ({"photometric": "miniswhite"}, "white is zero"),
        ({"photometric": "cielab"}, "colours of kind 8"),
    ],
)
def test_other_tiffs_are_refused_by_name(tmp_path: Path, options, why: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    grey = options.get("photometric") == "miniswhite"
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0] if grey else pixels, **options)
    with pytest.raises(DataError, match=why):
        open_raster(tmp_path / "a.tif")


@pytest.mark.parametrize(("dtype", "why"), [("int64", "signed whole numbers of 64"), ("complex64", "complex numbers"),
                                            ("bool", "whole numbers of 1 bits")])  # fmt: skip
def test_other_depths_are_refused_by_name(tmp_path: Path, dtype: str, why: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), dtype))
    with pytest.raises(DataError, match=why):
        open_raster(tmp_path / "a.tif")
    with rasterio.open(
        tmp_path / "b.tif", "w", driver="GTiff", height=4, width=5, count=1, dtype="uint8", NBITS=4
    ) as made:
        made.write(np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(DataError, match="whole numbers of 4 bits"):
        open_raster(tmp_path / "b.tif")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "c.tif", compression="tiff_deflate")
    assert facts(tmp_path / "c.tif").dtype == "uint8"
