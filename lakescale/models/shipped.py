"""The model that comes with lakescale."""

from pathlib import Path

from lakescale.schema import InputError

SHIPPED = "shipped"
"""Stands for the path of this checkpoint, wherever lakescale is installed."""
SHIPPED_PIXELS_M = (5.0, 20.0)
"""Sides of the pixels that it has learned from, true metres."""
_FILE = Path(__file__).parent / "weights" / "lakes_small.safetensors"


def shipped_checkpoint() -> Path:
    """Tell where the checkpoint lies that comes with lakescale; see docs/model_card.md.

    Raises
    ------
    InputError
        When the installation has none.
    """
    if not _FILE.is_file():
        raise InputError("the checkpoint that comes with lakescale is missing", str(_FILE), "install lakescale again")
    return _FILE
