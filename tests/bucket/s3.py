"""A server that speaks S3, and a place in a bucket of it."""

import logging
from collections.abc import Iterator

import fsspec
import pytest

S3 = "s3://bucket/store"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it says every request
    started = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place in a bucket of that server, which the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "lab")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    system.mkdir("bucket")
    yield S3
    system.rm("bucket", recursive=True)
    type(system).clear_instance_cache()
