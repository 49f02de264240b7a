"""Pages that garnish writes: HTML with its style and scripts inside, which asks no network and runs no other script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from garnish.errors import showable


def html_page(
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str] = (),
    pictures: Literal["inside", "beside"] = "inside",
    **values: object,
) -> str:
    """A page from a template of Jinja, in which whatever is not Markup is escaped.

    Args:
        template: its text; in the head it places ``{{ policy }}`` (the content of the security policy, which lets the
            page load nothing from elsewhere and run the ``scripts`` alone), ``{{ style }}``, and ``{{ scripts[0] }}`` …
            in script elements.
        styles: texts of style sheets, of later ones the rules win.
        scripts: texts of scripts.
        pictures: whether pictures are data URLs of the page, or files beside it as well.
        values: what else the template names; a name without a value is an error.
    """
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    from_where = "data:" if pictures == "inside" else "'self' file: data:"  # a file's page has no origin everywhere
    policy = (
        f"default-src 'none'; img-src {from_where}; style-src 'unsafe-inline';"
        f" script-src {' '.join(hashes) or repr('none')}; base-uri 'none'; form-action 'none'"
    )
    style = Markup("".join(styles))
    made = _template(template).render(
        policy=policy, style=style, scripts=[Markup(script) for script in scripts], **values
    )
    return made


def shown_page(html: str) -> str:
    """A page whose text can be shown: control characters and marks of direction in it are escaped."""
    return showable(html, keep="\n\t")


def asset(name: str) -> str:
    """A style sheet or script that several pages have, of ``garnish/assets``."""
    return resources.files("garnish").joinpath("assets", name).read_text("utf-8")


def data_url(kind: str, data: bytes) -> str:
    """Bytes as a URL that holds them; ``kind``: their media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _template(text: str) -> Template:
    # kept, for compiling takes longer than rendering, and a run's page is written again and again
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )
