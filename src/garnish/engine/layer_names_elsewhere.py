"""Names that other libraries have for layers: what to write here in their place."""

from __future__ import annotations

from garnish.engine.trunk import Trunk

#: of queries, keys and values that are layers of their own, in transformers and in PEFT's examples
_SPLIT = {"q_proj", "k_proj", "v_proj", "query", "key", "value", "q", "k", "v"}
_OUTPUT = {"o_proj", "out_proj"}


def hint_of(entry: str, backbone: Trunk) -> str:
    """What to write for a name that no layer of a trunk has, "; …"; empty if that is not known."""
    sites = [site for site in backbone.sites() if site.kind == "layer"]
    roles, leaf = {site.role for site in sites}, entry.rpartition(".")[2]
    theirs = {f"{entry}{suffix}" for suffix in ("", ".weight")}
    named = next((ours for ours, source in backbone.source_names.items() if source in theirs), None)
    if entry == "all-linear":
        return "; leave layers out for every linear layer of the blocks"
    if named is not None:
        return f"; it is {named.removesuffix('.weight')!r} here"
    if leaf in _SPLIT and "qkv" in roles:
        return "; queries, keys and values are one layer here: layers=('qkv',)"
    if leaf in _SPLIT and {"q", "kv"} <= roles:
        return "; they are the layers 'q' and 'kv' here"
    return "; it is 'attn.proj' here" if leaf in _OUTPUT and "proj" in roles else ""
