"""Pictures of a report: of each date the image, and what was not seen, small enough to travel in the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lakescale.report import overview_step
from lakescale.schema import COLOR, SEEN, WATER_INDEX, InputError, X, Y
from lakescale.store import is_store, open_layer
from pipelines.run_folder import EVIDENCE, OVERVIEW_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pipelines.report_read import DateTold, Frame

_QUALITY, _SHRINK, _LEAST_PX = 75, 0.9, 64
_MASK_PX, _STRIPE_PX = 900, 6
_HIDDEN = bytes((0, 0, 0, 40, 42, 48, 150, 152, 158))
_HIDDEN_ALPHA = bytes((0, 150, 190))
"""Colors of a mask: nothing, the ground of what was not seen, the stripes on it."""
_INDEX_RANGE = (-0.05, 0.45)
"""Of NDWI_ice, from black to white."""


class Picture(NamedTuple):
    """A picture as a page holds it."""

    uri: str
    """``data:image/...``."""
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top in the CRS of the frame."""


class Pictures(NamedTuple):
    """Of one date; None where the run kept none, or all was seen."""

    image: Picture | None
    not_seen: Picture | None
    seen_share: float | None
    """Share (0..1) of the picture's pixels that were seen."""
    what: str
    """What the image shows, in words; empty without one."""


def make_pictures(date: DateTold, frame: Frame, *, most_bytes: int) -> Pictures:
    """Make the pictures of a date from the image that the run kept, else from its evidence.

    Parameters
    ----------
    date
        Whose folder is looked into.
    frame
        Grid of the run.
    most_bytes
        Of the image as a file; it is made smaller until it fits.
    """
    found = _read_overview(date.folder) or _read_evidence(date.folder)
    if found is None:
        return Pictures(None, None, None, "")
    image, what, data = found
    step = int(date.manifest.get("overview_step") or overview_step(frame.shape))
    bounds = _bounds(image.size, step, frame)
    seen = np.asarray(image.getchannel("A")) > 0
    if data is None or len(data) > most_bytes:
        data = _fit(image, most_bytes)
    hidden = None if seen.all() else _draw_hidden(seen, step, frame)
    return Pictures(Picture(_uri("webp", data), bounds), hidden, float(seen.mean()), what)


def _bounds(size: tuple[int, int], step: int, frame: Frame) -> tuple[float, float, float, float]:
    """Place a picture of every ``step``-th pixel, each at the middle of the pixel that it shows."""
    (width, height), shift = size, (step - 1) / 2
    left, top = frame.left - shift * frame.pixel, frame.top + shift * frame.pixel
    return left, top - height * step * frame.pixel, left + width * step * frame.pixel, top


def _read_overview(folder: Path) -> tuple[Image.Image, str, bytes] | None:
    path = folder / OVERVIEW_FILE
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, UnidentifiedImageError):
        return None
    return image, "the image, stretched", data


def _read_evidence(folder: Path) -> tuple[Image.Image, str, None] | None:
    """Draw evidence where a run kept no image: the water index, else the color mask."""
    store = folder / EVIDENCE
    if not is_store(store):
        return None
    for name, (low, high), what in ((WATER_INDEX, _INDEX_RANGE, "the water index"), (COLOR, (-0.5, 1), "the colors")):
        try:
            seen, layer = (_thin(open_layer(store, one)) for one in (SEEN, name))
        except InputError:
            continue
        grey = np.clip((np.nan_to_num(layer.astype(np.float32)) - low) / (high - low), 0, 1)
        bands = [np.rint(255 * grey).astype(np.uint8)] * 3 + [np.where(seen, 255, 0).astype(np.uint8)]
        return Image.fromarray(np.dstack(bands)), f"{what} (the run kept no image)", None
    return None


def _thin(layer: Any) -> NDArray[Any]:
    step = overview_step((layer.sizes[Y], layer.sizes[X]))
    return np.asarray(layer.isel({Y: slice(None, None, step), X: slice(None, None, step)}).compute())


def _fit(image: Image.Image, most_bytes: int) -> bytes:
    """Write an image as WebP, smaller and smaller until it fits."""
    data, scale = _encode(image), 1.0
    while len(data) > most_bytes and min(image.size) * scale > _LEAST_PX:
        scale *= min(_SHRINK, (most_bytes / len(data)) ** 0.5)
        small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
        data = _encode(small)
    return data


def _encode(image: Image.Image) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "WEBP", quality=_QUALITY, method=2)
    return memory.getvalue()


def _draw_hidden(seen: NDArray[np.bool_], step: int, frame: Frame) -> Picture:
    """Draw what was not seen with stripes, as PNG."""
    thinner = -(-max(seen.shape) // _MASK_PX)
    hidden = ~seen[::thinner, ::thinner]
    diagonal = np.add.outer(*map(np.arange, hidden.shape))
    is_stripe = diagonal % (2 * _STRIPE_PX) < _STRIPE_PX // 2
    picture = Image.fromarray(np.where(hidden, 1 + is_stripe, 0).astype(np.uint8), "P")
    picture.putpalette(_HIDDEN)
    memory = io.BytesIO()
    picture.save(memory, "PNG", optimize=True, transparency=_HIDDEN_ALPHA)
    return Picture(_uri("png", memory.getvalue()), _bounds(picture.size, step * thinner, frame))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
