"""A network with its weights on a device: normalisation, precision, and memory that runs out."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from lakescale.models.network import refused_window
from lakescale.models.normalisation import Normalisation
from lakescale.schema import InputError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lakescale.models.checkpoint import CheckpointInfo
    from lakescale.models.network import Network
    from lakescale.models.spec import ModelSpec

log = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_BATCH_NDIM = 4


class LoadedModel:
    """A network with its weights on a device; `load_model` makes it.

    It does not travel: each worker loads its own from the path.
    """

    def __init__(self, network: Network, info: CheckpointInfo, device: torch.device, precision: str) -> None:
        self.network, self.info, self.device, self.precision = network, info, device, precision
        self.batch_limit: int | None = 1 if device.type == "cpu" else None
        """Windows that run at once: on a CPU one, since eight leave its caches and take a third longer, and answers do
        not move with the batch. Else as many as fit into memory, once it ran out, and None before."""
        module = network.module.to(device).eval().requires_grad_(False)
        if device.type == "cuda":  # on a CPU, 10 % faster, but answers then move more with the batch
            module.to(memory_format=torch.channels_last)
        self._normalisation = Normalisation(info.spec, device)

    @property
    def spec(self) -> ModelSpec:
        """Bands, normalisation, window and threshold."""
        return self.info.spec

    @property
    def hash(self) -> str:
        """SHA-256 of the weights and of all in the spec that can change an answer."""
        return self.info.hash

    @property
    def item(self) -> str:
        """What runs where, for logs and errors."""
        return f"{self.spec.title} on {self.device}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a loaded model does not travel between processes: send the path of its checkpoint")

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Do as `predict`: a loaded model is the callable that `lake_probability` takes."""
        return self.predict(batch)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities of lake in windows.

        Parameters
        ----------
        batch
            float32 ``(n, band, y, x)``, values as in the scene (see ``spec.values``), 0 where not seen; not changed.

        Returns
        -------
        numpy.ndarray
            float32 ``(n, y, x)``, 0..1.

        Raises
        ------
        InputError
            When the bands are not as many as the model's, or the window's sides no multiples of its output stride.
        RunError
            When one window alone does not fit into the device's memory, or the network gives NaN.
        """
        self.check(batch)
        out = np.empty((len(batch), *batch.shape[-2:]), np.float32)

        def run(part: slice) -> None:
            with torch.inference_mode(), self.autocast():
                out[part] = self.network.forward(self.normalise(batch[part])).cpu().numpy()

        self.batch_limit = run_halving(run, len(batch), self.batch_limit, self.item)
        self.require_finite(out)
        return out

    def check(self, batch: NDArray[np.float32]) -> None:
        """Refuse windows of other bands or sides than the network takes."""
        n_bands, stride = len(self.spec.bands), self.network.output_stride
        if batch.ndim != _BATCH_NDIM or batch.shape[1] != n_bands:
            raise InputError(
                f"a batch for this model is (n, {n_bands}, y, x), and not {batch.shape}",
                self.spec.title,
                f"give windows of the bands {', '.join(self.spec.bands)}",
            )
        height, width = batch.shape[-2:]
        if height % stride or width % stride:
            raise InputError(*refused_window(height, width, stride, self.spec.title))
        if self.network.square and height != width:
            raise InputError(
                f"this model takes square windows, and not {height} x {width}", self.spec.title, "take square ones"
            )

    def normalise(self, batch: NDArray[np.float32]) -> torch.Tensor:
        """Bring windows to the device, as the network takes them."""
        x = torch.tensor(np.ascontiguousarray(batch), dtype=torch.float32, device=self.device)  # a copy
        x = self._normalisation(x)
        return x.contiguous(memory_format=torch.channels_last) if self.device.type == "cuda" else x

    def autocast(self) -> Any:
        """Return the context in which the network runs with the model's precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])

    def require_finite(self, out: NDArray[np.float32]) -> None:
        """Refuse answers that are no numbers."""
        if not np.isfinite(out).all():
            raise RunError(
                "the model gives NaN",
                f"{self.spec.title}, precision {self.precision}",
                "give windows without NaN (0 where not seen); with fp16, take bf16 or float32",
            )


def run_halving(run: Callable[[slice], None], n: int, limit: int | None, item: str) -> int | None:
    """Run `n` things in parts, and halve these where the device's memory runs out.

    Parameters
    ----------
    run
        Does the things of a slice; may raise `torch.OutOfMemoryError`, and is then called again with fewer.
    n
        How many.
    limit
        At most so many at once; None is all.
    item
        What runs where, for the log and the error.

    Returns
    -------
    int or None
        The limit that held, for the next call.

    Raises
    ------
    RunError
        When one alone does not fit.
    """
    done = 0
    while done < n:
        size = min(n - done, limit or n)
        try:
            run(slice(done, done + size))
        except torch.OutOfMemoryError:  # its traceback holds the tensors: go on only after it is gone
            fits = False
        else:
            fits, done = True, done + size
        if not fits:
            if size == 1:
                raise RunError(
                    "one window alone does not fit into the device's memory",
                    item,
                    "take smaller windows, precision='bf16', or device='cpu'",
                )
            limit = size // 2
            log.warning("%s: out of memory with %d at once, going on with %d", item, size, limit)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return limit
