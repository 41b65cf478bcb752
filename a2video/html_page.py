"""A page that needs nothing beside itself: all text in it is escaped, and it may run no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from a2video import __version__
from a2video.html_charts import percent

CONTROLS = {number: "\ufffd" for number in [*range(32), *range(127, 160)] if chr(number) not in "\n\t"}


def render(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    more_css: str = "",
    allows: Sequence[str] = (),
    **content: Any,
) -> str:
    """A page from files of a2video/page.

    Args:
        template: its file; finds `css`, `script`, `policy` and `version` beside the content.
        styles: files that make its one style sheet.
        scripts: files that make its one script.
        more_css: at the end of the style sheet; must be our own, for it is not escaped.
        allows: what else its policy allows, as "connect-src 'self'".
        content: what the template shows.
    """
    css, script = "".join(map(_part, styles)) + more_css, "".join(map(_part, scripts))
    environment = Environment(
        loader=PackageLoader("a2video", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=without_controls,
    )
    environment.filters["percent"] = percent
    policy = [
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_digest(css)}'",
        f"script-src '{_digest(script)}'",
        "base-uri 'none'",
        "form-action 'none'",
        *allows,
    ]
    return environment.get_template(template).render(
        css=Markup(css), script=Markup(script), policy="; ".join(policy), version=__version__, **content
    )


def without_controls(value: Any) -> Any:
    """Text without the characters that HTML has no place for; anything else as it is."""
    return value.translate(CONTROLS) if isinstance(value, str) else value


def tail(path: str | Path) -> str:
    """The last two parts, which tell one run from another."""
    return "/".join(Path(path).parts[-2:])


def _part(name: str) -> str:
    return files("a2video").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a page's policy names a script or a style that is part of it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
