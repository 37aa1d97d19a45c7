"""What all recipes share: no unknown entries, no secrets, places that are paths or URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, model_validator

from lakescale.storage import Remote, locate, refuse_secrets


def _locate(value: Any) -> Any:
    if not isinstance(value, str | Path | Remote):
        raise ValueError("a path or a URL is needed")  # noqa: TRY004  (pydantic turns this one into a refusal)
    return locate(value)


Place = Annotated[Path | Remote, PlainValidator(_locate), PlainSerializer(str, return_type=str)]
"""A path of this machine, or a URL of an object store."""


class Strict(BaseModel):
    """A recipe, or a section of one. It is written down, so no URL in it may hold a user, a password or a query."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _keeps_no_secrets(self) -> Strict:
        for name, value in self:
            for one in value if isinstance(value, list | tuple) else (value,):
                refuse_secrets(one, name)
        return self
