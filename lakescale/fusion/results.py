"""The frames that a fusion gives back: lakes, and what became of every polygon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.fusion.judging import is_first_piece
from lakescale.fusion.reasons import name_mends
from lakescale.schema import LAKE_ID, REASON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.fusion.judging import Answer
    from lakescale.fusion.parts import Part

MODEL, ROW, BY, BY_ROW, MENDED = "model", "row", "by", "by_row", "mended"
"""Columns: the polygon's model, its row in that model's frame; frame and row of what decided; what was mended."""


@dataclass(frozen=True, eq=False)
class Results:
    """How the frames look."""

    keys: pd.DataFrame
    """No rows; the columns by which models are grouped, with their types."""
    crs: Any

    def __call__(self, part: Part, answer: Answer) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
        """Give the lakes of a part, and the reasons of its polygons."""
        return self.lakes(part, answer), self.reasons(part, answer)

    def lakes(self, part: Part, answer: Answer) -> gpd.GeoDataFrame:
        """List the lakes: id, image, time and region, model and row, outline."""
        geometry = part.geometry[answer.place]
        polygon = np.cumsum(is_first_piece(part.told)) - 1
        if answer.shape is not None:
            cut = np.array([shape is not None for shape in answer.shape], bool)
            geometry[cut] = answer.shape[cut]
        columns = {LAKE_ID: answer.lake_id, **self._origin(part, answer, polygon[answer.place])}
        return self._frame(columns, geometry, [MODEL])

    def reasons(self, part: Part, answer: Answer) -> gpd.GeoDataFrame:
        """List all polygons, each with what became of it."""
        first = is_first_piece(part.told)
        lake_id = np.zeros(len(answer.row), np.int64)
        lake_id[(np.cumsum(first) - 1)[answer.place[::-1]]] = answer.lake_id[::-1]  # of several lakes the first
        columns = {
            **self._origin(part, answer, np.arange(len(answer.row))),
            REASON: answer.reason,
            BY: answer.by,
            BY_ROW: pd.array(answer.by_row, "Int64"),
            LAKE_ID: pd.array(lake_id, "Int64"),
            MENDED: name_mends(part.told.mended[first]),
        }
        columns[BY_ROW][answer.by_row < 0] = pd.NA
        columns[LAKE_ID][lake_id == 0] = pd.NA
        return self._frame(columns, part.whole[first], [MODEL, REASON, BY, MENDED])

    def _origin(self, part: Part, answer: Answer, polygons: NDArray[np.intp]) -> dict[str, Any]:
        told = part.told
        code = told.code[is_first_piece(told)][polygons]
        keys = {
            key: pd.Series(told.values[key] if len(told.row) else (), dtype=dtype).iloc[code].array
            for key, dtype in zip(map(str, self.keys.columns), self.keys.dtypes, strict=True)
        }
        return {**keys, MODEL: np.full(len(polygons), told.frame, object), ROW: answer.row[polygons]}

    def _frame(self, columns: dict[str, Any], geometry: NDArray[Any], text: list[str]) -> gpd.GeoDataFrame:
        table = pd.DataFrame(columns).astype(dict.fromkeys(text, "str"))  # an empty one would have no type
        return gpd.GeoDataFrame(table, geometry=geometry, crs=self.crs)
