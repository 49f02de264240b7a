"""``garnish pull``: fetch a bundle from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence

from garnish.commands.parser import Parser
from garnish.errors import plural
from garnish.output import say

_EPILOG = """\
Only a bundle's own files are fetched (bundle.json, weights.safetensors, SHA256SUMS), into the cache of huggingface_hub,
and checked as any bundle is. Wherever a bundle's folder is named, hub:user/name may stand, without pulling first.
HF_HUB_OFFLINE=1 looks only in the cache. For private repositories: hf auth login, or HF_TOKEN.

examples:
  garnish pull hub:user/name
  garnish pull hub:user/name@v1 --out street
  garnish predict hub:user/name street.jpg --out maps
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish pull",
        "garnish pull hub:USER/NAME[@REVISION] [--revision REVISION] [--out DIR] [--json]",
        "Fetch a bundle from the Hugging Face Hub, and check it.",
        _EPILOG,
    )
    made.add_argument(
        "address", metavar="hub:USER/NAME", help="the repository; a folder within it: hub:USER/NAME/FOLDER"
    )
    made.add_argument("--revision", metavar="REVISION", help="a branch, a tag or a commit (default: main)")
    made.add_argument("--out", metavar="DIR", help="copy it to this folder (default: it stays in the cache)")
    made.add_argument("--json", action="store_true", help="print JSON: where it came from and lies")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.bundles.licences_told import binding, licences_told
    from garnish.commands.printing import warning_of
    from garnish.hub.address import HubAddress
    from garnish.sharing.pull import pull_bundle

    address = HubAddress.parse(given.address).at(given.revision, "pull: --revision")
    folder, fetched, facts = pull_bundle(address, given.out)
    if given.json:
        from garnish.commands.printing import print_json

        told = {"bundle": str(folder), "from": str(fetched.address), "tasks": list(facts["tasks"])}
        print_json({**told, "others": fetched.others})
        return 0
    trunk, size = facts["backbone"], facts["sizes"]["weights_bytes"]
    say(f"{address} is {fetched.address}")
    say(f"{', '.join(facts['tasks'])} on {trunk['name']}, weights: {trunk['weights_source']}; {size / 1e6:.2f} MB")
    if fetched.others:
        left = ", ".join(fetched.named) + (", …" if fetched.others > len(fetched.named) else "")
        say(f"left alone: {plural(fetched.others, 'file')} that no bundle has ({left})")
    stated = licences_told(facts)
    say(f"licence: {stated.bundle or 'not stated'}; of the training pictures: {stated.data or 'not stated'}")
    if binds := binding(facts):
        say(warning_of(binds))
    say(f"bundle: {folder}")
    return 0
