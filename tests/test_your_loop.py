"""What one's own loop and decoder take from a model: maps, losses, groups and a small state, against fit and torch."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import garnish as gn
import tiny as tiny_models
from garnish.data.loader import StepBatches
from garnish.errors import BundleError, OptionError
from garnish.heads.head import resample_pyramid
from garnish.model.trained_state import TRUNK
from garnish.training.train_options import TrainOptions
from training_cases import PARTIAL, QUIET, TASKS, Blobs, every, tensors_of, tiny

PLAIN = QUIET | {"check_pictures": 0, "warmup": 0, "schedule": "constant"}
RATES = {"lr": 2e-3, "head_lr": 5e-3, "weight_decay": 0.1}


def headless(short: str = "mit", per_task: bool = True):
    """Two tasks with random adapters of their own, and no head."""
    model = gn.adapt(tiny_models.backbone(short), gn.LoRA(rank=2, per_task=per_task), TASKS, gn.NoHead())
    tiny_models.randomise_own(model)
    return model.eval()


# ---- a loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_plain_loop_ends_as_fit_to_the_last_bit(clip):
    data, steps = Blobs(PARTIAL), 5
    theirs = tiny(gn.LoRA(rank=2))
    gn.fit(theirs, data, steps=steps, batch_size=4, clip=clip, seed=7, **RATES, **PLAIN)

    model = tiny(gn.LoRA(rank=2)).train()
    optimizer = torch.optim.AdamW(model.parameter_groups(**RATES), fused=True)
    weigh = gn.Fixed().build(model.tasks)
    order = StepBatches(data, 4, seed=7)
    for batch in map(order.batch_at, range(steps)):
        losses = gn.losses(model, model(batch.images, batch.tasks_of_rows()), batch)
        if losses:  # some steps of these pictures have no label at all
            weigh(losses).backward()
        if clip is not None:
            held = [p for p in model.trained_parameters().values() if p.grad is not None]
            nn.utils.clip_grad_norm_(held, clip)
        optimizer.step()
        optimizer.zero_grad()
    ended = tensors_of(model)
    for name, tensor in tensors_of(theirs).items():
        assert torch.equal(tensor, ended[name]), name


def test_losses_of_all_pictures_or_of_those_with_labels():
    """By the tasks' own formulas, over the labelled pictures alone."""
    model, data = tiny(gn.LoRA(rank=2)).eval(), Blobs(PARTIAL[:6])
    (batch,) = DataLoader(data, batch_size=6, collate_fn=gn.collate)
    whole, asked = model(batch.images), model(batch.images, batch.tasks_of_rows())
    one, other = gn.losses(model, whole, batch), gn.losses(model, asked, batch)
    assert list(one) == list(other) == ["seg", "depth"] and len(batch.where["seg"]) == 5
    for name, loss in one.items():
        torch.testing.assert_close(loss, other[name])
    kept = batch.targets["seg"] != 255
    logits = whole["seg"][batch.where["seg"]].permute(0, 2, 3, 1)[kept]
    torch.testing.assert_close(one["seg"], nn.functional.cross_entropy(logits, batch.targets["seg"][kept]))
    by_hand = gn.losses(model, {"seg": whole["seg"][:1]}, {"seg": batch.targets["seg"][:1]})
    torch.testing.assert_close(by_hand["seg"], gn.losses(model, model(batch.images[:1]), gn.collate([data[0]]))["seg"])


def test_a_task_without_labels_has_no_loss():
    model = tiny().eval()
    batch = gn.collate([Blobs([["seg"]])[0]])
    assert list(gn.losses(model, model(batch.images), batch)) == ["seg"]


@pytest.mark.parametrize(
    ("outputs", "targets", "said"),
    [
        ({"sag": torch.zeros(1, 3, 4, 4)}, {}, "no task 'sag'; did you mean 'seg'"),
        ({"seg": torch.zeros(1, 3, 4, 4)}, {}, "none of task 'seg'; give its labels"),
        ({"seg": torch.zeros(1, 4, 4, 4)}, {"seg": torch.zeros(1, 4, 4).long()}, r"\(1, 4, 4, 4\); expected \(n, 3,"),
        ({"seg": torch.zeros(1, 3, 4, 4)}, {"seg": torch.zeros(1, 4, 5).long()}, "model.at_picture_size"),
        ({"seg": torch.zeros(2, 3, 4, 4)}, {"seg": torch.zeros(1, 4, 4).long()}, "the same pictures and size"),
        ({"seg": torch.zeros(5, 3, 48, 64)}, gn.collate([Blobs(PARTIAL)[i] for i in (0, 1, 4)]), "outputs of 5 p"),
        ({"seg": torch.zeros(2, 3, 4, 4)}, 3, "losses: targets: expected a batch"),
    ],
)
def test_outputs_and_labels_that_do_not_fit(outputs, targets, said):
    with pytest.raises(OptionError, match=said) as caught:
        gn.losses(tiny(), outputs, targets)
    assert len(str(caught.value)) < 400


def test_the_groups_are_those_of_fit():
    from garnish.training.optimizer import make_optimizer

    model = tiny(gn.LoRA(rank=2, per_task=True), head=gn.SegFormerHead(channels=8))
    model.freeze(["depth"])
    theirs = make_optimizer(model.trained_parameters(), TrainOptions(steps=1, **RATES)).param_groups
    own = model.parameter_groups(**RATES)
    assert [(g["lr"], g["weight_decay"]) for g in own] == [(2e-3, 0.1), (5e-3, 0.1), (5e-3, 0.0)]
    for group, other in zip(own, theirs, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in other["params"]]
        assert {key: group[key] for key in ("lr", "weight_decay")} == {k: other[k] for k in ("lr", "weight_decay")}
    with pytest.raises(OptionError, match=r"parameter_groups: lr: .*got int 0"):
        model.parameter_groups(lr=0)


# ---- a small state --------------------------------------------------------------------------------------------------


def test_a_state_comes_back(tmp_path):
    model = tiny(head=gn.SegFormerHead(channels=8))  # with running statistics
    tiny_models.randomise_own(model)
    model.train()(torch.rand(2, 3, 48, 64))
    torch.save(model.trained_state(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 4 * sum(t.numel() for t in model.own_tensors().values()) + 60_000
    other = tiny(head=gn.SegFormerHead(channels=8), seed=4)
    other.load_state_dict(model.state_dict() | other.trained_state(), strict=False)  # the same trunk
    other.backbone.body.load_state_dict(model.backbone.body.state_dict())
    other.load_trained_state(torch.load(tmp_path / "state.pt", weights_only=True))
    x = torch.rand(1, 3, 48, 64)
    with torch.inference_mode():
        for name, out in model.eval()(x).items():
            assert torch.equal(out, other.eval()(x)[name]), name


def test_a_state_is_a_copy_of_what_is_trained():
    model = tiny(gn.LoRA(rank=2, per_task=True), head=gn.SegFormerHead(channels=8))
    whole = model.trained_state()
    assert whole.keys() == model.own_tensors().keys() | {TRUNK}
    model.freeze(["depth"])
    state = model.trained_state()
    assert state.keys() == {TRUNK, *(name for name in whole if ".seg." in name)} and any(
        "running_mean" in n for n in state
    )
    next(iter(state.values())).zero_()
    assert any(bool(t.any()) for t in model.trained_state().values())
    first = next(n for n in state if n.endswith("lora_a"))
    assert bool(model.own_tensors()[first].any())


def damage(name):
    """How a state is damaged → what is said."""
    whole = {
        "lacks": (lambda s, n: s.pop(n), r"lacks {n} \(1 of"),
        "unused": (lambda s, n: s.update({n + "x": s[n]}), r"nothing is trained by the name .*did you mean"),
        "shape": (lambda s, n: s.update({n: s[n][None]}), r"{n} is \(1, "),
        "text": (lambda s, n: s.update({n: "weights"}), "{n} is a str"),
        "ints": (lambda s, n: s.update({n: s[n].long()}), r"{n} holds torch.int64"),
        "nan": (lambda s, n: s.update({n: s[n] * float("nan")}), "{n} holds values that are not finite"),
    }
    return whole[name]


@pytest.mark.parametrize("name", ["lacks", "unused", "shape", "text", "ints", "nan"])
def test_a_state_that_does_not_fit_changes_nothing(name):
    model = tiny()
    before = tensors_of(model)
    state = {key: tensor + 1 for key, tensor in model.trained_state().items() if key != TRUNK}
    change, said = damage(name)
    last = list(state)[-3]
    change(state, last)
    with pytest.raises(BundleError, match=said.replace("{n}", re.escape(last))) as caught:
        model.load_trained_state(state)
    assert len(str(caught.value)) < 400
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors_of(model).items())
    with pytest.raises(BundleError, match="the state is a list"):
        model.load_trained_state([1])


def test_a_state_of_another_trunk_is_refused():
    """Which names and shapes do not show: the same trunk with other random weights."""
    model, other = tiny(seed=0), tiny(seed=4)
    state, before = model.trained_state(), tensors_of(other)
    assert bytes(state[TRUNK].byte().tolist()).hex() == model.backbone.fingerprint()
    averaged = {name: (tensor + tensor.half().float()) / 2 for name, tensor in state.items()}
    model.load_trained_state(averaged)
    with pytest.raises(BundleError, match=r"trained on another backbone than this .*weights=") as caught:
        other.load_trained_state(state)
    assert len(str(caught.value)) < 400
    with pytest.raises(BundleError, match="is no fingerprint"):
        other.load_trained_state(state | {TRUNK: torch.zeros(3)})
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors_of(other).items())
    del state[TRUNK]  # as states were before
    other.load_trained_state(state)
    half = tiny(seed=0).half()  # another fingerprint, since its values were rounded; the trunk may be the same
    half.load_trained_state(model.trained_state())
    assert TRUNK not in half.trained_state()


def test_a_state_in_the_wrong_place():
    model = tiny()
    state = model.trained_state()
    for strict in (True, False):
        with pytest.raises(BundleError, match=r"use model\.load_trained_state") as caught:
            model.load_state_dict(state, strict=strict)
        assert len(str(caught.value)) < 400
    model.load_state_dict(model.state_dict())
    with pytest.raises(BundleError, match=r"looks nested .*: adapters, decoder\); give .*state\['adapters'\]"):
        model.load_trained_state({"adapters": state, "decoder": {}})


# ---- a decoder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", ["vit", "mit", "swin", "cnn"])
def test_maps_decoded_by_our_heads_are_the_outputs(short):
    """Maps of a model without heads, through heads of ours with the same adapters, at an odd size."""
    model = tiny_models.model(short, gn.LoRA(rank=2, per_task=True), tasks=("seg", "depth"))
    x = torch.rand(2, 3, 65, 71, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, outputs = model.features(x), model(x)
        padded = [-(-side // model.backbone.multiple) * model.backbone.multiple for side in x.shape[-2:]]
        for name, out in outputs.items():
            own = model.at_picture_size(model.head(name)(maps[name]), (65, 71))
            assert torch.equal(own, out), name
            for level, info in zip(maps[name], model.feature_info(), strict=True):
                assert level.shape == (2, info.channels, *(round(side / info.stride) for side in padded))
    none = model.features(x[:0], ["seg", "depth"])
    assert {task: [level.shape[1:] for level in levels] for task, levels in none.items()} == {
        task: [level.shape[1:] for level in levels] for task, levels in maps.items()
    }
    assert all(len(level) == 0 for levels in none.values() for level in levels)


def test_rows_of_a_mixed_batch_are_those_alone():
    model, x = headless(), tiny_models.pictures()
    with torch.no_grad():
        mixed = model.features(x, [["seg", "depth"], ["depth"], ["seg"]])
        for name, rows in (("seg", [0, 2]), ("depth", [0, 1])):
            alone = [
                torch.cat(level) for level in zip(*(model.features(x[r : r + 1])[name] for r in rows), strict=True)
            ]
            for one, other in zip(mixed[name], alone, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mixed["seg"][-1][0], mixed["depth"][-1][0])  # adapters of their own


def test_maps_of_a_plain_vit_as_a_pyramid():
    model, x = headless("vit"), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain, made = model.features(x, ["seg"])["seg"], model.features(x, ["seg"], pyramid=True)["seg"]
    stride = model.backbone.features[0].stride
    assert [info.stride for info in model.feature_info(pyramid=True)] == [stride / 4, stride / 2, stride, 2 * stride]
    assert [info.stride for info in model.feature_info()] == [stride] * 4
    for one, other in zip(made, resample_pyramid(plain), strict=True):
        assert torch.equal(one, other)
    assert [x.shape for x in model.features(torch.rand(0, 3, 64, 64), ["seg"], pyramid=True)["seg"]] == [
        (0, *level.shape[1:]) for level in made
    ]


def test_gradients_reach_adapters_alone():
    model = headless(per_task=False).train()
    decoder = nn.Conv2d(model.feature_info()[0].channels, 3, 1)
    out = model.at_picture_size(decoder(model.features(torch.rand(1, 3, 64, 64), ["seg"])["seg"][0]), (64, 64))
    gn.losses(model, {"seg": out}, {"seg": torch.zeros(1, 64, 64).long()})["seg"].backward()
    assert {n.split(".")[0] for n, p in model.trained_parameters().items()} == {"adapters"}
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.trained_parameters().values())
    assert all(p.grad is None for p in model.backbone.frozen_tensors().values())


def test_padding_is_cut_off_and_not_squeezed():
    """A ramp over the padded picture is the same ramp in the picture's own pixels."""
    model = headless()
    side = model.backbone.multiple
    ramp = torch.arange(2.0 * side).expand(1, 1, side, -1)
    assert torch.equal(model.at_picture_size(ramp, (side - 3, side + 5)), ramp[..., : side - 3, : side + 5])
    for odd, said in (((0, 5), "size"), ((1,), "size")):
        with pytest.raises(OptionError, match=f"at_picture_size: {said}"):
            model.at_picture_size(ramp, odd)
    with pytest.raises(OptionError, match=r"expected floats \(n, C, h, w\), got torch.uint8 \(3, 4\)"):
        model.at_picture_size(torch.zeros(3, 4, dtype=torch.uint8), (3, 4))


def test_a_model_without_heads_is_saved_and_refuses_what_needs_one(tmp_path):
    model = headless()
    model.save(tmp_path / "bundle", dtype="float32")
    again = gn.load(tmp_path / "bundle", backbone=tiny_models.backbone("mit"))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(model.features(x)["depth"], again.features(x)["depth"], strict=True):
            assert torch.equal(one, other)
    assert again.decoders.options == {"seg": gn.NoHead(), "depth": gn.NoHead()} and "NoHead()" in repr(again)
    assert again.report((64, 64))["decoder_trainable"] == 0 and again.report((64, 64))["macs"] > 0
    data = Blobs(every(2))
    refused = {
        "forward": lambda: again(x),
        "predict": lambda: again.predict((x[0] * 255).byte()),
        "evaluate": lambda: gn.evaluate(again, data),
        "decode": lambda: again.decode(again.features(x), (64, 64)),
        "fit": lambda: gn.fit(again, data, steps=1, **PLAIN),
    }
    for what, run in refused.items():
        with pytest.raises(OptionError, match="task 'seg' has no decoder") as caught:
            run()
        assert len(str(caught.value)) < 400, what


def test_a_task_without_a_head_beside_one_that_has_it():
    heads = {"seg": gn.NoHead(), "depth": gn.LinearHead()}
    model = gn.adapt(tiny_models.backbone("mit"), gn.LoRA(rank=2, per_task=True), TASKS, heads)
    x = torch.rand(1, 3, 64, 64)
    assert list(model(x, ["depth"])) == ["depth"] and list(model.features(x)) == ["seg", "depth"]
    counted = model.report((64, 64))
    assert counted["macs"] - counted["macs_encoder"] == sum(  # the linear head's projections
        f.channels * round(64 / f.stride) ** 2 for f in model.feature_info()
    )
    model.freeze(["seg"])
    with pytest.raises(OptionError, match="task 'seg' has no decoder"):
        gn.fit(model, Blobs([["depth"]] * 2), Blobs(every(2)), steps=1, **PLAIN)
    assert gn.fit(model, Blobs([["depth"]] * 2), steps=1, batch_size=2, **PLAIN).steps == 1
