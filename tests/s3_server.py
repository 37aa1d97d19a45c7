"""A server of S3 on loopback, and how processes reach it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from urllib.request import Request, urlopen

KEY, SECRET = "AKIAIOSFODNN7LAKES", "wJalrXUtnFEMI-hidden-word-7MDENG"
_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
_OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_NO_SIGN_REQUEST", "AWS_S3_ENDPOINT", "AWS_REGION")


@contextmanager
def serving(**environment):
    """Start a server on a free port; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | environment, **quiet) as process:
        try:
            _await(f"http://127.0.0.1:{port}/moto-api/", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _await(url, process):
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


def set_environment(monkeypatch, endpoint, **others):
    """Let this process and its children reach a server."""
    for name in _OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    for name, value in {**_ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint, **others}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def new_sessions():
    """Forget the environment that earlier requests were made with, and that of the block after it."""
    _forget()
    yield
    _forget()


def _forget():
    from fsspec.asyn import sync
    from s3fs import S3FileSystem
    from zarr.core.sync import sync as zarr_sync

    for one in S3FileSystem._cache.values():  # what is left to the garbage collector warns
        if one._s3 is not None and one.asynchronous:
            zarr_sync(one._s3.close())
        elif one._s3 is not None:
            sync(one.loop, one._s3.close)
    S3FileSystem.clear_instance_cache()


def make_bucket(endpoint):
    """Make a bucket of its own; its URL."""
    name = f"lakes-{uuid.uuid4().hex[:12]}"
    with urlopen(Request(f"{endpoint}/{name}", method="PUT"), timeout=60):
        return f"s3://{name}"
