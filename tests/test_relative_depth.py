"""Relative depth: loss and metrics against NumPy in float64, invariance, labels, refusals, end to end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import exported_folders as made
import garnish as gn
import tiny
from garnish.cli import main
from garnish.data.joined import JoinedDataset
from garnish.data.labels.choosing import reader_of
from garnish.data.labels.reader import decode
from garnish.errors import DataError, OptionError
from garnish.files.label_files import read_array
from garnish.runtime import Session
from page_runs import assert_same_maps, picture, predicted, written_page

TASK = gn.RelativeDepth(larger="nearer")
SIZE = (17, 22)


def case(seed: int = 0, pictures: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs, and labels that have something of them, with holes; no two numbers are equal."""
    draw = np.random.default_rng(seed)
    out = draw.normal(size=(pictures, 1, *SIZE))
    labels = 40 + 9 * (out + draw.normal(size=out.shape))
    labels[draw.random(labels.shape) < 0.2] = np.nan
    return torch.from_numpy(out.astype(np.float32)), torch.from_numpy(labels.astype(np.float32))


def published(out: np.ndarray, labels: np.ndarray, trim: float, weight: float) -> float:
    """Equations 5 to 7, 11 and 12 of the paper for one picture, pixel by pixel in float64."""
    known = ~np.isnan(labels)

    def normal(values: np.ndarray) -> np.ndarray:
        shift = np.sort(values[known])[(known.sum() - 1) // 2]
        return (values - shift) / np.abs(values[known] - shift).mean()

    residual = normal(out) - normal(labels)
    errors = np.sort(np.abs(residual[known]))
    loss = errors[: int(known.sum() * (1 - trim))].sum() / (2 * known.sum())
    for k in range(4):
        r, v = residual[:: 2**k, :: 2**k], known[:: 2**k, :: 2**k]
        total = 0.0
        for y in range(r.shape[0]):
            for x in range(r.shape[1]):
                for below, right in ((1, 0), (0, 1)):
                    if y + below < r.shape[0] and x + right < r.shape[1] and v[y, x] and v[y + below, x + right]:
                        total += abs(r[y + below, x + right] - r[y, x])
        loss += weight * total / v.sum()
    return float(loss)


def loss_of(task: gn.RelativeDepth, out: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return task.loss(task.sums(out, labels))


def metrics_of(out: torch.Tensor, labels: torch.Tensor, task: gn.RelativeDepth = TASK) -> dict[str, float]:
    metric = task.metric()
    metric.update(out, labels)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(("trim", "weight"), [(0.0, 0.5), (0.2, 0.5), (0.35, 0.0)])
def test_the_loss_is_that_of_the_paper_and_its_gradient_that_of_differences(trim, weight):
    task = replace(TASK, trim=trim, gradient=weight)
    out, labels = case()
    wide, wanted = out.double().numpy()[:, 0], labels.double().numpy()[:, 0]
    each = [published(o, t, trim, weight) for o, t in zip(wide, wanted, strict=True)]
    out.requires_grad_()
    loss = loss_of(task, out, labels)
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)
    loss.backward()
    known = np.argwhere(~np.isnan(wanted[0]))
    for y, x in known[:: len(known) // 12]:
        step = np.zeros(SIZE)
        step[y, x] = 1e-6
        slope = published(wide[0] + step, wanted[0], trim, weight) - published(wide[0] - step, wanted[0], trim, weight)
        assert out.grad[0, 0, y, x].item() == pytest.approx(slope / 2e-6 / len(wide), rel=1e-3, abs=1e-6)


def test_pictures_count_alike_and_add_up_however_they_are_split():
    out, labels = case()
    labels[1, :, 3:] = torch.nan  # few labels
    labels[2] = torch.where(labels[2].isnan(), labels[2], 7.0)  # says nothing
    sums = [TASK.sums(out[k : k + 1], labels[k : k + 1]) for k in range(3)]
    assert [s[2].item() for s in sums] == [1, 1, 0]
    torch.testing.assert_close(sum(sums), TASK.sums(out, labels))
    each = [loss_of(TASK, out[k : k + 1], labels[k : k + 1]) for k in range(2)]
    torch.testing.assert_close(loss_of(TASK, out, labels), sum(each) / 2)
    assert metrics_of(out[2:], labels[2:])["rmse"] != metrics_of(out[2:], labels[2:])["rmse"]  # NaN


@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.0), (50.0, -3.0), (1.0, 1e3)])
@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_scale_and_shift_of_a_map_do_not_count(scale, shift, trim):
    task, (out, labels) = replace(TASK, trim=trim), case()
    moved = scale * out + shift
    assert loss_of(task, moved, labels).item() == pytest.approx(loss_of(task, out, labels).item(), rel=1e-3)
    assert metrics_of(moved, labels) == pytest.approx(metrics_of(out, labels), rel=1e-4)


def test_scale_and_shift_of_labels_do_not_count_where_zero_means_nothing():
    out, labels = case()
    moved = 0.5 * labels - 31.0
    assert loss_of(TASK, out, moved).item() == pytest.approx(loss_of(TASK, out, labels).item(), rel=1e-4)
    one, other = metrics_of(out, labels), metrics_of(out, moved)
    assert [one["rmse"], one["ordinal_error"]] == pytest.approx([other["rmse"], other["ordinal_error"]], rel=1e-4)


def test_a_map_upside_down_is_wrong():
    _, labels = case()
    right = labels.nan_to_num(0.0)
    assert loss_of(TASK, right, labels) < 1e-4 and metrics_of(right, labels)["rmse"] < 1e-5
    assert metrics_of(right, labels)["ordinal_error"] == 0
    turned = metrics_of(-right, labels)
    assert turned["rmse"] == pytest.approx(1) and turned["ordinal_error"] == 1
    assert loss_of(TASK, -right, labels) > 0.9


def test_a_flat_output_as_heads_begin_has_a_gradient_of_ordinary_size():
    _, labels = case()
    out = torch.zeros(3, 1, *SIZE, requires_grad=True)
    loss_of(TASK, out, labels).backward()
    assert 0 < out.grad.norm() < 10


@pytest.mark.parametrize("larger", ["nearer", "farther"])
def test_metrics_are_those_of_least_squares(larger):
    out, labels = case(4, pictures=2)
    found = metrics_of(out, labels, replace(TASK, larger=larger))
    rows = []
    for p, t in zip(out.double().numpy(), labels.double().numpy(), strict=True):
        p, t = p[~np.isnan(t)], t[~np.isnan(t)]
        fit = np.stack([p, np.ones_like(p)], 1)
        fit = fit @ np.linalg.lstsq(fit, t, rcond=None)[0]
        row = [np.sqrt(((fit - t) ** 2).mean()) / t.std()]
        above = t > 0
        z, guess = t[above], np.maximum(fit[above], t[above].min())
        z, guess = (1 / z, 1 / guess) if larger == "nearer" else (z, guess)
        rows.append([*row, (np.abs(guess - z) / z).mean(), (np.maximum(guess / z, z / guess) < 1.25).mean()])
    assert [found["rmse"], found["abs_rel"], found["delta1"]] == pytest.approx(np.mean(rows, 0), rel=1e-9)


def test_the_ordinal_error_is_near_that_of_all_pairs():
    out, labels = case(5, pictures=1)
    t = labels[~labels.isnan()].double().numpy()
    p = out[~labels.isnan()].double().numpy()
    apart = np.abs(t[:, None] - t) > 0.03 * np.ptp(t)
    wrong = np.sign(p[:, None] - p) != np.sign(t[:, None] - t)
    assert metrics_of(out, labels)["ordinal_error"] == pytest.approx((wrong & apart).sum() / apart.sum(), abs=0.01)
    assert metrics_of(torch.zeros_like(out), labels)["ordinal_error"] == 1  # ties


def read(path, **given):
    reader = reader_of({"labels": "{name}.png", **given}, TASK, "set.yaml: tasks.t")
    return decode(read_array(path), reader, path, TASK)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_renderings_are_read_as_they_are(tmp_path, dtype):
    rows = np.array([[0, 7], [200, np.iinfo(dtype).max]], dtype)
    Image.fromarray(rows).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), rows.astype(np.float32)[None])
    found = read(tmp_path / "a.png", invalid=[0, int(rows.max())])
    np.testing.assert_array_equal(found, [[[np.nan, 7], [200, np.nan]]])


def test_arrays_are_read_and_what_is_no_number_must_be_listed(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[-1.5, np.nan], [np.inf, 0.0]]))
    with pytest.raises(DataError, match=r"a\.npy: 1 of 4 numbers are NAN; write `invalid: nan`"):
        read(tmp_path / "a.npy", invalid=["inf"])
    found = read(tmp_path / "a.npy", invalid=["nan", "inf"])
    np.testing.assert_array_equal(found, np.array([[[-1.5, np.nan], [np.nan, 0.0]]], np.float32))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match="a rendering in colours cannot be read"):
        read(tmp_path / "c.png")


def test_zeros_that_may_be_holes_are_told():
    labels = torch.rand(1, 9, 9) + 1
    assert TASK.oddity(labels) is None
    labels[0, :2] = 0
    assert "hold exactly 0 at 22 % of the pixels; if that means 'no depth', list it: `invalid: 0`" in TASK.oddity(
        labels
    )


def described(folder, **entry):
    """A set of two pictures with 8-bit renderings."""
    draw = np.random.default_rng(0)
    for part, shape in (("images", (40, 48, 3)), ("depth", (40, 48))):
        (folder / part).mkdir(parents=True)
        for name in "ab":
            Image.fromarray(draw.integers(1, 256, shape, np.uint8)).save(folder / part / f"{name}.png")
    told = {"images": "images/{name}.png", "tasks": {"depth": {"labels": "depth/{name}.png", **entry}}}
    (folder / "data.yaml").write_text(yaml.safe_dump({"path": ".", **told}))
    return folder / "data.yaml"


def test_metres_and_numbers_without_a_unit_are_not_taken_for_each_other(tmp_path):
    relative = gn.folder(described(tmp_path / "r", task="RelativeDepth", larger="nearer"))
    metric = gn.folder(described(tmp_path / "m", task="Depth", unit="cm"))
    of_metres = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"depth": gn.Depth()}).eval()
    of_shares = gn.adapt(tiny.backbone("mit"), gn.BitFit(), {"depth": TASK}).eval()
    with pytest.raises(DataError, match="labels are for RelativeDepth in the data, but for Depth in the model"):
        gn.evaluate(of_metres, relative)
    with pytest.raises(DataError, match="labels are for Depth in the data, but for RelativeDepth in the model"):
        gn.evaluate(of_shares, metric)
    with pytest.raises(DataError, match="labels have larger = 'farther' in the data, but 'nearer' in the model"):
        gn.evaluate(of_shares, gn.folder(described(tmp_path / "f", task="RelativeDepth", larger="farther")))
    with pytest.raises((DataError, OptionError), match=r"depth.*RelativeDepth"):
        JoinedDataset([relative, metric])
    with pytest.raises(OptionError, match=r"depth\.unit: does not apply to labels of kind relative_depth"):
        gn.folder(described(tmp_path / "u", task="RelativeDepth", larger="nearer", unit="mm"))
    with pytest.raises(OptionError, match="'larger'"):
        gn.folder(described(tmp_path / "n", task="RelativeDepth"))
    with pytest.raises(DataError, match=r"no unit; write `unit: mm` .*or `task: RelativeDepth`"):
        gn.folder(described(tmp_path / "w", task="Depth"))[0]


def test_metres_that_end_at_exactly_one_look_normalised():
    labels = torch.rand(1, 9, 9) * 0.9 + 0.05
    assert gn.Depth().oddity(labels) is None
    labels[0, 0, 0] = 1.0
    assert "RelativeDepth" in gn.Depth().oddity(labels)


def test_a_map_is_written_so_that_it_can_be_had_back(tmp_path):
    values = np.random.default_rng(0).normal(-4, 9, (8, 9)).astype(np.float32)
    values[0, 0] = np.nan
    file = TASK.decoding.write(values, tmp_path / "a.b")
    with Image.open(file) as image:
        levels, told = np.asarray(image).astype(np.float64), image.text["Description"]
    assert "without a unit, larger is nearer; 0: none" in told and "metre" not in told
    low, high = (float(part) for part in told.split("65535: ")[1].split(" of")[0].split(" to "))
    assert (levels == 0).sum() == 1 and levels.max() == 65535
    back = low + (levels - 1) / 65534 * (high - low)
    assert np.abs(back - values)[levels > 0].max() <= (high - low) / 65534 / 2 * 1.001
    painted = TASK.decoding.paint(values)
    known = np.where(levels > 0, values, np.nan)
    far = np.unravel_index(np.nanargmin(known), known.shape)
    assert painted[0, 0].tolist() == [0, 0, 0] and painted[far].tolist() == [68, 1, 84]  # viridis' first
    assert not TASK.legend()


def test_it_is_trained_measured_and_predicted_at_the_command_line(tmp_path, capsys):
    data = described(tmp_path / "set", task="RelativeDepth", larger="nearer")
    assert main(["check", "--data", str(data)]) == 0
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"depth": TASK}, gn.LinearHead())
    both = gn.folder(data)
    gn.fit(model, both, both, steps=2, batch_size=2, out=tmp_path / "run", log=[], workers=0)
    bundle = str(tmp_path / "run" / "best")
    assert main(["eval", bundle, "--data", str(data), "--split", "all", "--json"]) == 0
    assert '"ordinal_error"' in capsys.readouterr().out
    photo = tmp_path / "set" / "images" / "a.png"
    assert main(["predict", bundle, str(photo), "--out", str(tmp_path / "maps")]) == 0
    with Image.open(tmp_path / "maps" / "a_depth.png") as image:
        assert image.mode.startswith("I;16") and image.size == (48, 40) and "nearer" in image.text["Description"]
    for kind in ("coco", "probabilities"):  # refused before anything is run
        assert main(["predict", bundle, str(photo), "--out", str(tmp_path / "none"), f"--{kind}"]) == 2
        assert f"--{kind}: none of depth has" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_the_runtime_and_the_page_show_it(tmp_path):
    tasks = {"depth": TASK.decoding, "far": replace(TASK.decoding, larger="farther")}
    graph = made.merged_graph(tasks)
    facts = made.facts_of(graph, tasks=made.told_tasks(tasks), outputs=list(tasks))
    folder = made.write_files(tmp_path / "exported", facts, graph)
    (tmp_path / "page").mkdir()
    page = written_page(tmp_path / "page")
    answer = predicted(page, tmp_path, folder, picture(21, 33))
    assert answer == {"bundles": [], "tasks": [["depth", None], ["far", None]]}
    assert_same_maps(tmp_path, Session(folder), picture(21, 33))
