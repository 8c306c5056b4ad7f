"""From a template to a page in one file: values are escaped, pictures and styles are inside."""

from __future__ import annotations

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from keras_inception.files import printable, write_text
from keras_inception.wording import has_top_5

# Thumbnails are shown at this width: small images grow without smoothing, large ones shrink.
THUMBNAIL_SIDE = 112


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page.

    Args:
        path: of the HTML file; it is complete or absent.
        template: a file of `templates`.
        values: of the template's variables; every text is escaped.
    """
    write_text(path, _environment().get_template(template).render(values))


def embedded(content: bytes) -> str:
    """A PNG as the source of an <img>."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def thumbnail(pixels: np.ndarray) -> str:
    """An image as the source of an <img>, at most `THUMBNAIL_SIDE` wide and high.

    Args:
        pixels: uint8, h x w x C, RGB or grey.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return embedded(file.getvalue())


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["percent"] = _percent
    environment.tests["shown_with_top_5"] = has_top_5
    environment.globals["thumbnail_side"] = THUMBNAIL_SIDE
    return environment


def _percent(share: float) -> str:
    return "no images" if np.isnan(share) else f"{share:.1%}"
