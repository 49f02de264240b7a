"""``garnish push``: publish a bundle on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from garnish.commands.parser import Parser
from garnish.output import say

if TYPE_CHECKING:
    from garnish.sharing.push import Pushed

_EPILOG = """\
One commit has the bundle's own files and a card (README.md) made of what the bundle says: tasks, classes, metrics and
how they were measured, what was trained, licences, how to use it. Neither the backbone's weights nor data are sent. A
card that is there is replaced; the repository's history keeps it.

Whatever forbids commercial use in the licence of the backbone's weights or of the data binds the bundle: the card says
so, and a --licence that allows it is refused. Both are written into bundle.json, and so bind whoever pushes a copy.
Log in first: hf auth login, or HF_TOKEN.

examples:
  garnish push runs/camvid user/camvid-lora --dry-run
  garnish push runs/camvid user/camvid-lora --licence cc-by-nc-4.0 --data-licence 'CC BY-NC-SA 3.0' --private
  garnish push runs/camvid user/camvid-lora --revision v2 --message 'Twice the steps'
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish push",
        "garnish push BUNDLE USER/NAME [options]",
        "Publish a bundle on the Hugging Face Hub, with a card.",
        _EPILOG,
    )
    made.add_argument("bundle", metavar="BUNDLE", help="folder of a bundle, or of a run, whose best is taken")
    made.add_argument("repository", metavar="USER/NAME", help="repository, also hub:USER/NAME; made if it is missing")
    made.add_argument("--dry-run", action="store_true", help="print the card and the files, and send nothing")
    made.add_argument("--private", action="store_true", help="make a repository that only you see")
    made.add_argument("--revision", metavar="BRANCH", help="branch to commit to, made if it is missing (default: main)")
    made.add_argument("--create-pr", action="store_true", help="open a pull request, in a repository of others")
    made.add_argument("--message", metavar="TEXT", help="of the commit")
    made.add_argument(
        "--licence", metavar="ID", help="of the bundle: apache-2.0, other:NAME (default: what follows, or unknown)"
    )
    made.add_argument("--data-licence", metavar="TEXT", help="of the training pictures (default: said to be unknown)")
    made.add_argument("--data-name", metavar="TEXT", help="what the card calls the data (default: as the recipe says)")
    made.add_argument("--base-model", metavar="ID", help="Hub id of the backbone's weights, if the bundle names a file")
    made.add_argument("--json", action="store_true", help="print JSON: files, licence, commit")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, _ = parser().read(words)
    from garnish.sharing.push import push

    made = push(
        given.bundle,
        given.repository,
        private=given.private,
        revision=given.revision,
        message=given.message,
        create_pr=given.create_pr,
        licence=given.licence,
        data_licence=given.data_licence,
        data_name=given.data_name,
        base_model=given.base_model,
        dry_run=given.dry_run,
    )
    if given.json:
        from dataclasses import asdict

        from garnish.commands.printing import print_json

        print_json(asdict(made))
        return 0
    if given.dry_run:
        say(*made.card.split("\n"))
    _say(made)
    return 0


def _say(made: Pushed) -> None:
    listed = ", ".join(f"{name} ({size:,} bytes)" for name, size in made.files.items())
    say(f"{made.repository}: {listed}")
    unknown = "; state it with --licence" if made.licence.identifier == "unknown" else ""
    say(f"licence: {made.licence.text}{unknown}")
    if made.licence.data is None:
        say("licence of the data: not stated, and so the card says; state it with --data-licence")
    if made.licence.non_commercial:
        say(f"warning: not for commercial use, as the licence of {made.licence.because} says")
    if made.told_paths:
        say(f"warning: bundle.json tells the world these paths: {', '.join(made.told_paths[:3])}")
    if made.private is not None:
        say("the repository is private" if made.private else "the repository is public")
    if made.commit is None:
        say("nothing was sent")
    elif made.changed:
        say(f"commit {made.commit}: {made.url}")
    else:
        say(f"unchanged: commit {made.commit} has just these files")
