"""Rasters that GDAL opens by itself, with the credentials and the endpoint that the other files are read with."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import rasterio
from rasterio.session import Session

from lakescale.storage.remote import Remote, locate
from lakescale.storage.trouble import reaching
from lakescale.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_S3 = ("s3://", "s3a://")
_PATIENCE = {"GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "0.5", "GDAL_HTTP_CONNECTTIMEOUT": "20"}


@contextmanager
def open_raster(path: str) -> Iterator[Any]:
    """Open a raster to read it: a path, a URL, or what GDAL names (``/vsi...``).

    GDAL fetches by itself what a window needs. For ``s3://`` it is told what fsspec's file system found (endpoint,
    region, credentials of the environment, of a profile or of fsspec's configuration); for others it looks by itself.
    """
    if not is_url(path):
        with rasterio.open(path) as raster:
            yield raster
        return
    place = locate(path)
    with rasterio.Env(session=_Found(_options(place))), rasterio.open(str(place)) as raster:
        yield raster


class _Found(Session):
    """Hands GDAL options over as rasterio wants credentials: by a session."""

    def __init__(self, options: dict[str, str]) -> None:
        self._options = options

    @classmethod
    def hascreds(cls, config: Any) -> bool:  # noqa: ARG003  (rasterio's)
        """They are there, if any."""
        return True

    def get_credential_options(self) -> dict[str, str]:
        """Give them."""
        return self._options


def _options(place: Any) -> dict[str, str]:
    options = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    if isinstance(place, Remote) and place.url.startswith(_S3) and find_spec("s3fs"):  # else GDAL looks by itself
        options |= _s3_options(place)
    return options


def _s3_options(place: Remote) -> dict[str, str]:
    from fsspec.asyn import sync  # noqa: PLC0415  (heavy)

    files = place.files
    with reaching(place):
        client = sync(files.loop, files.set_session)
        options = {"AWS_NO_SIGN_REQUEST": "YES"} if files.anon else _credentials(files)
    endpoint = urlsplit(client.meta.endpoint_url)
    if not (endpoint.hostname or "").endswith(("amazonaws.com", "amazonaws.com.cn")):
        options |= {
            "AWS_S3_ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"),
            "AWS_HTTPS": "YES" if endpoint.scheme == "https" else "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    region = client.meta.region_name
    return options | ({"AWS_REGION": region} if region and region != "aws-global" else {})


def _credentials(files: Any) -> dict[str, str]:
    """Ask for the credentials that requests are signed with now; they may be short-lived."""
    from fsspec.asyn import sync  # noqa: PLC0415

    found = files.key, files.secret, files.token
    if not files.key:
        source = sync(files.loop, files.session.get_credentials)
        frozen = None if source is None else sync(files.loop, source.get_frozen_credentials)
        found = (None, None, None) if frozen is None else (frozen.access_key, frozen.secret_key, frozen.token)
    names = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
    return {name: str(value) for name, value in zip(names, found, strict=True) if value}
