"""Patches for torch, read from the cube when they are asked for, with their mask; and a sampler that balances kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from lakescale.chunks import Place
from lakescale.schema import IMAGE, InputError
from training.annotations import IGNORED
from training.images import Image
from training.kinds import LEFT_OUT
from training.windows import open_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from training.annotations import Annotations, Marks

NOT_LABELLED = 255
"""Of a mask: ignored, not seen, or beyond the image."""


class LakePatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of an index as pairs of pixels and mask.

    Pixels are what `lakescale.lake_probability` shows a model: float32 ``(band, y, x)``, values as in the scene, 0
    where not seen and beyond the image. The mask is uint8 ``(y, x)``: 1 lake, 0 none, 255 ignored or not seen, from the
    polygons that meet the window. Each worker opens the images by itself, once.

    Parameters
    ----------
    index
        Of `training.samples.find_samples`; its rows are the patches. Rows left out are refused.
    annotations
        Those of the index.
    bands
        Names of the bands, in the order wanted.

    Raises
    ------
    InputError
        When the index is empty or holds windows left out, or no bands are named; when a patch is read, for what
        cannot be opened, and windows that the image does not have.
    """

    def __init__(self, index: pd.DataFrame, annotations: Annotations, *, bands: Sequence[str]) -> None:
        if not len(index) or (index["kind"] == LEFT_OUT).any():
            what = "no windows" if not len(index) else "windows that were left out"
            raise InputError(what, "index", "give the rows to learn from, for example of training.folds.split_fold")
        if isinstance(bands, str) or not bands:
            raise InputError("no list of bands", repr(bands), "for example bands=['red', 'green', 'blue']")
        self.bands = tuple(bands)
        self.annotations = annotations
        columns = [index[name].tolist() for name in (IMAGE, "path", "date")]
        self.images = [Image(*told) for told in zip(*columns, strict=True)]
        self.places = [Place(r, c, w, w) for r, c, w in index[["row", "col", "window"]].to_numpy().tolist()]
        self._opened: dict[Image, _Opened] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, place = self.images[k], self.places[k]
        if image not in self._opened:
            self._opened[image] = _Opened.of(image, self.bands, self.annotations)
        pixels, mask = self._opened[image].read(place)
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


class BalancedSampler(Sampler[int]):
    """Draws rows of an index, with replacement, so that each kind has its share.

    What is drawn follows from the seed and the epoch alone.

    Parameters
    ----------
    index
        The rows that the dataset has.
    shares
        Of each kind, above 0 and 1 together; kinds that are not named are not drawn. The seed's SAM:
        ``{"positive": 0.5, "hard": 0.5}``.
    length
        How many to draw in an epoch; by default as many as the index has.
    seed
        Of the draws.

    Raises
    ------
    InputError
        When shares are no shares, or a kind has no window.
    """

    def __init__(
        self, index: pd.DataFrame, shares: Mapping[str, float], *, length: int | None = None, seed: int = 0
    ) -> None:
        if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:  # noqa: PLR2004
            raise InputError(f"shares must be above 0 and 1 together, got {dict(shares)}", "shares")
        counts = index["kind"].value_counts()
        if lacking := [kind for kind in shares if not counts.get(kind, 0)]:
            there = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
            raise InputError(f"no window is {' or '.join(lacking)}: {there}", "shares", "name kinds that there are")
        weight = {kind: share / counts[kind] for kind, share in shares.items()}
        self.weights = torch.tensor([weight.get(kind, 0.0) for kind in index["kind"]], dtype=torch.float64)
        self.length, self.seed, self.epoch = len(index) if length is None else int(length), int(seed), 0

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next iteration draws."""
        self.epoch = int(epoch)

    def __iter__(self) -> Iterator[int]:
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        yield from torch.multinomial(self.weights, self.length, replacement=True, generator=generator).tolist()

    def __len__(self) -> int:
        return self.length


class _Opened(NamedTuple):
    """An image in one process."""

    name: str
    shape: tuple[int, int]
    window: Callable[[slice, slice], tuple[NDArray[Any], NDArray[np.bool_]]]
    marks: Marks

    @classmethod
    def of(cls, image: Image, bands: tuple[str, ...], annotations: Annotations) -> _Opened:
        grid, window = open_windows(image, bands)
        return cls(image.name, grid.shape, window, annotations.of(image.name, grid))

    def read(self, place: Place) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Read the pixels and the mask of a window, which may reach beyond the image."""
        height, width = self.shape
        if not (0 <= place.row < height and 0 <= place.col < width):
            what = f"no window at row {place.row}, column {place.col}: the image has {height} x {width} pixels"
            raise InputError(what, self.name, "find its samples again")
        bottom, right = min(place.row + place.height, height), min(place.col + place.width, width)
        stored, seen = self.window(slice(place.row, bottom), slice(place.col, right))
        inside = slice(0, bottom - place.row), slice(0, right - place.col)
        pixels = np.zeros((len(stored), place.height, place.width), np.float32)
        shown = seen & np.isfinite(stored) if stored.dtype.kind == "f" else seen
        np.copyto(pixels[:, *inside], stored, where=shown, casting="same_kind")
        mask = np.full((place.height, place.width), NOT_LABELLED, np.uint8)
        flags = self.marks.flags(Place(place.row, place.col, *seen.shape))
        np.copyto(mask[inside], flags, where=seen & (flags != IGNORED))
        return pixels, mask
