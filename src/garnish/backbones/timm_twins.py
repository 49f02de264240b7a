"""A model of timm's beside the one that timm builds of the same name: finding where they are not the same."""

from __future__ import annotations

from collections.abc import Mapping

from timm.layers import BatchNormAct2d
from torch import nn

from garnish.backbones.timm_models import TimmModule, whole_timm
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, one_line

#: Parts that a trunk does not run, of all networks; they may be anything.
_BEHIND = (
    "attn_pool", "avgpool", "classifier", "fc", "fc_norm", "global_pool", "head", "head_dist", "head_drop",
    "last_linear", "norm", "norm_head", "num_features", "pool", "pre_logits",
)  # fmt: skip
#: what an activation is called in all networks
_ACTIVATION = "act"
#: What does nothing in evaluation.
_IN_TRAINING = (
    "Identity",
    "Dropout",
    "Dropout2d",
    "DropPath",
    "DropBlock2d",
    "PatchDropout",
    "PatchDropoutWithIndices",
)
#: What changes a layer's result and no tensor's shape.
_FACTS = (
    "approximate",
    "dilation",
    "eps",
    "groups",
    "negative_slope",
    "num_heads",
    "padding",
    "padding_mode",
    "stride",
)


def whole_of(model: TimmModule, name: str, by_name: nn.Module) -> tuple[TimmModule, dict[str, Json]]:
    """The whole model that ``features_only`` wrapped or cut to pieces; others as they are.

    Args:
        model: may be changed.
        name: for messages.
        by_name: that of the same name as timm builds it, on the device "meta".

    Returns:
        The model, whose parts behind the last map may be on the device "meta", and options that the wrapper says.

    Raises:
        OptionError: a class other than what timm builds under that name.
    """
    if _is_of_features(model, "FeatureGetterNet"):
        inner, levels = model.model, list(model.feature_info.out_indices)
        usual = levels == list(range(len(inner.feature_info)))[-len(levels) :]  # the last ones, as timm chooses them
        return whole_of(inner, name, by_name)[0], {} if usual else {"out_indices": levels}
    cut = any(_is_of_features(model, kind) for kind in ("FeatureDictNet", "FeatureListNet", "FeatureHookNet"))
    if cut or _name(type(model)) == f"{_name(type(by_name))}Features":
        return _put_together(model, name), _levels(model, by_name)
    check_class(model, by_name, name)
    return model, {}


def check_class(model: nn.Module, by_name: nn.Module, name: str) -> None:
    """Raise OptionError for a model of another class, so also of one derived from it, than timm builds by a name."""
    if type(model) is not type(by_name):
        raise OptionError(
            f"backbone: {_kind(model)} is not the {type(by_name).__name__} that timm builds as {name}; if it computes "
            f"the same, load its state_dict into timm.create_model({name!r}) and give that"
        )


def check_same_modules(model: nn.Module, usual: nn.Module, name: str) -> None:
    """Raise OptionError for a layer of another kind than timm builds: wrapped, quantised, exchanged.

    Args:
        model: whole.
        usual: the same as timm builds it by name and options.
        name: for messages.
    """
    found = dict(model.named_modules())
    for path, theirs in usual.named_modules():
        if not path or path.split(".", 1)[0] in _BEHIND:
            continue
        mine = found.get(path)
        kinds = [type(module).__name__ for module in (mine, theirs)]
        if mine is not None and (type(mine) is type(theirs) or all(kind in _IN_TRAINING for kind in kinds)):
            fact = next((f for f in _FACTS if _fact(mine, f) != _fact(theirs, f)), None)
            if fact is None:
                continue
            told = f"has {fact} {_fact(mine, fact)!r}, where timm builds {_fact(theirs, fact)!r}"
        else:
            told = f"is {_kind(mine)}, where timm builds {_kind(theirs)}" if mine is not None else "is not there"
            _check_alike(found, path, name)
        raise OptionError(
            f"backbone: {one_line(path, 80)} of this {name} {told}; give the model as timm built it (adapters merged, "
            "not quantised, pruned or rebuilt), or state the difference in options={…} (docs/methods.md)"
        )


def _check_alike(found: Mapping[str, nn.Module], path: str, name: str) -> None:
    """Raise OptionError if activations differ among blocks: which of them was changed cannot be told."""
    leaf = path.rpartition(".")[2]
    kinds: dict[str, str] = {}
    for other, module in found.items():
        if leaf == _ACTIVATION and other.rpartition(".")[2] == leaf:
            kinds.setdefault(type(module).__name__, other)
    if len(kinds) > 1:
        told = ", ".join(f"{kind} at {one_line(where, 60)}" for kind, where in kinds.items())
        raise OptionError(
            f"backbone: the activations of this {name} differ among blocks ({told}), and timm builds one kind; give it "
            "as timm built it"
        )


def _put_together(net: TimmModule, name: str) -> TimmModule:
    """The whole model with the modules of one that holds some of them."""
    whole: TimmModule = whole_timm(name, {})
    paths = {f"{part}_{key}": f"{part}.{key}" for part, inner in whole.named_children() for key in inner._modules}
    for key, module in net.named_children():
        parent, _, leaf = paths.get(key, key).rpartition(".")
        place = whole.get_submodule(parent)
        usual = place._modules.get(leaf)
        if isinstance(usual, BatchNormAct2d) and type(module) is nn.BatchNorm2d:  # MobileNetV3Features has them apart
            usual.load_state_dict(module.state_dict(), assign=True)
            usual.eps, usual.act, module = module.eps, net.act1, usual
        place._modules[leaf] = module
    whole.feature_info = net.feature_info.info
    return whole.eval()


def _levels(net: TimmModule, by_name: TimmModule) -> dict[str, Json]:
    """The levels of maps that were asked for, if they are not all."""
    levels = list(net.feature_info.out_indices)
    return {} if levels == list(range(len(by_name.feature_info))) else {"out_indices": levels}


def _is_of_features(model: nn.Module, kind: str) -> bool:
    return type(model).__module__ == "timm.models._features" and type(model).__name__ == kind


def _fact(module: nn.Module, fact: str) -> object:
    value = getattr(module, fact, None)
    return None if isinstance(value, nn.Module) or callable(value) else value


def _kind(module: nn.Module) -> str:
    kind = type(module)
    is_usual = kind.__module__.startswith(("torch.nn.modules.", "timm."))
    return kind.__name__ if is_usual else f"{kind.__name__} of {kind.__module__}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"
