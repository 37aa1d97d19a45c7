"""Where things lie: a path of this machine, or a URL of an object store. One seam, so that nothing else asks which.

- `urls`: what a URL is, and what of it may be written down.
- `trouble`: errors of storage libraries, in our words.
- `remote`: `Remote`, a URL with as much of `pathlib.Path` as is needed.
- `files`: whole files and trees of them, whose names appear when they are complete.
- `locks`: one writer a store.
- `rasters`: rasters and other files that libraries of C open by themselves.

An object is there whole or not at all, and is seen by all as soon as it is written (S3, Google and Azure promise both).
Nothing is renamed there.
"""

from lakescale.storage.files import (
    DISK_FULL,
    Told,
    aside,
    build_tree,
    changed_ns,
    fetched,
    fetched_folder,
    is_link,
    list_files,
    move,
    read_each,
    refusal,
    remove,
    require_there,
    require_writable,
    size_of,
    version_of,
    write_each,
    write_whole,
)
from lakescale.storage.locks import is_running, locked
from lakescale.storage.rasters import open_raster
from lakescale.storage.remote import Location, Remote, locate
from lakescale.storage.urls import bare_url, has_magic, is_url, local_path, name_of, refuse_secrets

__all__ = [
    "DISK_FULL",
    "Location",
    "Remote",
    "Told",
    "aside",
    "bare_url",
    "build_tree",
    "changed_ns",
    "fetched",
    "fetched_folder",
    "has_magic",
    "is_link",
    "is_running",
    "is_url",
    "list_files",
    "local_path",
    "locate",
    "locked",
    "move",
    "name_of",
    "open_raster",
    "read_each",
    "refusal",
    "refuse_secrets",
    "remove",
    "require_there",
    "require_writable",
    "size_of",
    "version_of",
    "write_each",
    "write_whole",
]
