"""``torch.export`` with open sizes: one graph for every number of pictures and every height and width.

Sizes are named dimensions, of which export must be able to show that the graph holds for their whole range. A picture
must be larger than the coarsest stride, in the example too: torch asks of every map whether a side of it is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

import garnish
import tiny
from garnish import registry
from garnish.adapters.vmt import TaskScale
from garnish.backbones.backbone import Backbone
from garnish.engine.adapter import Method
from garnish.engine.context import ForwardContext
from garnish.engine.open_sizes import averaged, cropped, folded, pooled_to, rounded_up
from garnish.exporting.graph import OPSET, quiet
from garnish.model.model import Model

pytestmark = pytest.mark.export

#: family → name and options of a smaller trunk than tiny's: what is exported takes time by its operations
TRUNKS = {
    "mit": ("mit_b0", {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]}),
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 24, "depth": 4, "num_heads": 3}),
    "dinov2": ("vit_small_patch14_dinov2", {"img_size": 56, "embed_dim": 24, "depth": 4, "num_heads": 3}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2]}),
    "swinv2": ("swinv2_tiny_window8_256", {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2]}),
    "convnext": ("convnextv2_tiny", {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "cnn": ("test_efficientnet", {}),
}
HEADS = tiny.HEADS
#: pictures, height and width: one picture, whole multiples of every stride, the smallest that a graph takes
SIZES = [(1, 70, 45), (3, 96, 128), (4, 33, 87)]


def trunk(short: str) -> Backbone:
    name, options = TRUNKS[short]
    made = garnish.backbone(name, options=options)
    tiny.randomise_trunk(made)
    return made.eval()


class Padded(nn.Module):
    """A module that reads pictures padded to a multiple."""

    def __init__(self, body: nn.Module, multiple: int) -> None:
        super().__init__()
        self.body, self.multiple = body, multiple

    def forward(self, images: Tensor):
        height, width = (rounded_up(side, self.multiple) for side in images.shape[-2:])
        return self.body(F.pad(images, (0, width - images.shape[3], 0, height - images.shape[2])))


class Decoded(nn.Module):
    """The decoders of a model behind maps that one convolution each makes of the pictures."""

    def __init__(self, head: str, plain: bool) -> None:
        super().__init__()
        specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in ("seg", "depth")}
        self.model = garnish.adapt(
            trunk("vit" if plain else "mit"), garnish.Frozen(), specs, tiny.example("heads", head)
        )
        tiny.randomise_own(self.model)
        self.model.eval()
        self.maps = nn.ModuleList(
            nn.Conv2d(3, info.channels, int(info.stride), int(info.stride)) for info in self.model.backbone.features
        )
        self.padded = Padded(nn.Identity(), self.model.backbone.multiple)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # as the stream of most trunks: channels last
        maps = [make(self.padded(images)).to(memory_format=torch.channels_last) for make in self.maps]
        return self.model.decode(dict.fromkeys(self.model.tasks, maps), (images.shape[2], images.shape[3]))


@torch.no_grad()
def open_sizes(smallest: int = 33) -> dict[int, Dim]:
    """Any number of pictures, with sides from ``smallest``."""
    return {0: Dim("pictures", min=1), 2: Dim("height", min=smallest), 3: Dim("width", min=smallest)}


def check(module: nn.Module, smallest: int = 33) -> None:
    """One exported graph equals the module at every size."""
    sizes = open_sizes(smallest)
    program = torch.export.export(module, (torch.rand(2, 3, 90, 123),), dynamic_shapes=(sizes,)).module()
    for count, height, width in SIZES:
        images = torch.rand(count, 3, height, width)
        got, want = program(images), module(images)
        named = want if isinstance(want, dict) else dict(enumerate(want))
        for name, out in named.items():
            assert got[name].shape == out.shape
            assert tiny.far(got[name], out) < 1e-5, (name, count, height, width)


@pytest.mark.parametrize(
    "short",
    ["vit", "swin"] + [pytest.param(s, marks=pytest.mark.slow) for s in ("mit", "dinov2", "swinv2", "convnext", "cnn")],
)
def test_one_graph_of_a_trunk_serves_every_size(short):
    made = trunk(short)
    check(Padded(made, made.multiple))


@pytest.mark.parametrize("plain", [False, True], ids=["pyramid", "plain"])
@pytest.mark.parametrize("head", [h if h == "LinearHead" else pytest.param(h, marks=pytest.mark.slow) for h in HEADS])
def test_one_graph_of_decoders_serves_every_size(head, plain):
    """With upsampling to the padded size and the crop; the example and some of the sizes need a crop, others none."""
    check(Decoded(head, plain))


@pytest.mark.parametrize(("head", "plain"), [("SegFormerHead", True), ("SharedBaseHead", False)])
def test_one_graph_of_wider_decoders_serves_every_size(head, plain):
    check(Decoded(head, plain))


def test_one_graph_of_task_scales_serves_every_size():
    """On a map of a plain trunk: tokens behind a class token, whose strides are neither usual layout's."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = TaskScale(24)
            nn.init.normal_(self.scale.scale)
            nn.init.normal_(self.scale.shift)
            self.embed = nn.Conv2d(3, 24, 16, 16)

        def forward(self, images: Tensor) -> tuple[Tensor]:
            x = self.embed(images)
            tokens = torch.cat([x.new_zeros(x.shape[0], 1, 24), x.flatten(2).transpose(1, 2)], 1)
            ctx = ForwardContext(grid=(x.shape[2], x.shape[3]), num_prefix=1)
            return (self.scale.after(tokens, ctx.to_map(tokens), ctx),)

    module = Scaled().eval()
    images = torch.rand(2, 3, 48, 80)
    x = module.embed(images)
    by_hand = x * module.scale.scale.view(1, -1, 1, 1) + module.scale.shift.view(1, -1, 1, 1)
    torch.testing.assert_close(module(images)[0], by_hand)
    check(Padded(module, 16))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: averaged(x, 2),
        lambda x: averaged(x, 5),
        lambda x: pooled_to(x, 1),
        lambda x: pooled_to(x, 6),
        lambda x: cropped(x, x.shape[2] - 5, x.shape[3] // 2),
        lambda x: cropped(x, x.shape[3]),
        lambda x: folded(x, x.shape[0], x.shape[1] * x.shape[2]),
    ],
    ids=["halves", "fifths", "one_cell", "six_cells", "crop", "nothing_cropped", "folded"],
)
def test_what_an_exported_graph_does_otherwise_is_the_same(change: Callable[[Tensor], Tensor]):
    class One(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (change(images),)

    check(One(), smallest=8)


def test_cells_of_a_map_are_those_of_its_own_size_in_onnx():
    """The exporter translates torch's adaptive pooling with the cells of the example."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")

    class Pooled(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return pooled_to(maps, 6)

    with quiet():
        program = torch.export.export(Pooled(), (torch.rand(2, 3, 20, 27),), dynamic_shapes=(open_sizes(2),))
        graph = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False, input_names=["maps"])
    session = onnxruntime.InferenceSession(graph.model_proto.SerializeToString())
    for height, width in ((20, 27), (2, 2), (3, 7), (12, 18), (5, 40)):
        maps = torch.rand(1, 3, height, width)
        (found,) = session.run(None, {"maps": maps.numpy()})
        want = F.adaptive_avg_pool2d(maps.double(), 6)
        assert float((want - torch.from_numpy(found)).abs().max()) < 1e-6, (height, width)


def test_squares_at_the_far_edges_are_smaller():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    want = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [(10 + 11) / 2, (12 + 13) / 2, 14]]
    assert averaged(x, 2).tolist() == [[want]]


def test_a_crop_is_a_view_and_a_side_is_rounded_up():
    x = torch.arange(12).view(3, 4)
    assert torch.equal(cropped(x, 2, 3), torch.tensor([[0, 1, 2], [4, 5, 6]]))
    assert cropped(x, 2, 3).data_ptr() == x.data_ptr()
    assert [rounded_up(side, 32) for side in (1, 32, 33)] == [32, 32, 64]


def late(made: Backbone) -> garnish.LoRA:
    """Of each task, from the last stage's first block on: rows fork there."""
    layers = [site.name for site, module in made.sites_with_modules() if isinstance(module, nn.Linear)]
    last = f"stages.{len(made.stages) - 1}.blocks."
    return garnish.LoRA(rank=2, per_task=True, layers=tuple(name for name in layers if name.startswith(last)))


METHODS: dict[str, Callable[[Backbone], Method]] = {
    "shared": lambda made: garnish.LoRA(rank=2),
    "per_task": lambda made: garnish.LoRA(rank=2, per_task=True),
    "per_task_late": late,
    "mtlora": lambda made: garnish.MTLoRA(rank=4, task_rank=2),
    "vmt": lambda made: garnish.VMTAdapter(),
}
#: what the fast suite exports: each family and each way once
FAST = {("mit", "shared"), ("vit", "mtlora"), ("vit", "per_task"), ("swin", "vmt"), ("convnext", "per_task_late")}
WHOLE = [
    pytest.param(short, method, id=f"{short}-{method}", marks=() if (short, method) in FAST else pytest.mark.slow)
    for short in ("mit", "vit", "swin", "convnext")
    for method in METHODS
]


def adapted(short: str, method: str) -> Model:
    torch.manual_seed(0)
    made = trunk(short)
    specs = {name: registry.build("tasks", *tiny.TASKS[name]) for name in ("seg", "depth")}
    model = garnish.adapt(made, METHODS[method](made), specs)
    tiny.randomise_own(model)
    return model.eval()


@pytest.mark.parametrize(("short", "method"), WHOLE)
def test_one_graph_of_a_model_serves_every_size(short, method):
    """Preparing, planning, the trunk and the heads; every picture asks for every task."""
    check(adapted(short, method))


@pytest.mark.slow
def test_sizes_may_be_left_to_export_as_well():
    model = adapted("mit", "per_task")
    every = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.export.export(
            model, (torch.rand(2, 3, 90, 123),), dynamic_shapes=({0: every, 2: every, 3: every},)
        ).module()
        for size in [(3, 3, 96, 128), (2, 3, 40, 200)]:
            images = torch.rand(size)
            for name, want in model(images).items():
                assert tiny.far(program(images)[name], want) < 1e-5


@pytest.mark.slow
def test_integer_pictures_export_too():
    model = adapted("vit", "shared")
    example = torch.randint(0, 256, (2, 3, 90, 123), dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=(open_sizes(),)).module()
        images = torch.randint(0, 256, (1, 3, 64, 75), dtype=torch.uint8)
        for name, want in model(images).items():
            assert tiny.far(program(images)[name], want) < 1e-5


@pytest.mark.slow
def test_some_of_the_tasks_export():
    """``tasks`` is a constant of the graph."""
    model = adapted("vit", "per_task")
    with torch.no_grad():
        program = torch.export.export(
            model, (torch.rand(2, 3, 90, 123), ["depth"]), dynamic_shapes=(open_sizes(), [None])
        ).module()
        images = torch.rand(3, 3, 64, 75)
        got, want = program(images, ["depth"]), model(images, ["depth"])
    assert list(got) == list(want) == ["depth"]
    assert tiny.far(got["depth"], want["depth"]) < 1e-5
