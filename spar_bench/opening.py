"""Open a store by its folder, or by the address of a bucket, which gets a folder here.

A folder's `store.json` says which bucket it shares, so that every process which is given the folder
shares it, too.
"""

import os
import re
from pathlib import Path

from spar_bench.errors import StoreError
from spar_bench.files import cache_folder, is_address, local, read_json, replace_text, writing
from spar_bench.stage import canonical, digest
from spar_bench.store import FORMAT, MARKER, Store, is_store
from spar_bench.track.uri import require_no_password

_BUCKET = "bucket"


def store_folder(place: str | os.PathLike[str]) -> Path:
    """Return the folder of a store: the place itself, or that of an address, created if need be.

    It lies below `$XDG_CACHE_HOME`, by default `~/.cache`.

    Raises:
        StoreError: it is the address of a folder, or was given as a path, or its folder cannot be
            created.
        SparBenchError: it has a password.
    """
    if not is_address(place):
        return Path(place)
    url = os.fspath(place).rstrip("/")
    if url.startswith(("file:", "local:")):
        return local(Path(place))
    if "://" not in url:  # as `Path` makes of an address, too
        raise StoreError(
            f"{place}: must be a folder, or the address of a bucket as text, but is neither; write "
            "s3://BUCKET/FOLDER"
        )
    require_no_password(url)
    name = re.sub(r"\W+", "-", url)[-48:].strip("-")
    try:
        with writing(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")):
            folder = cache_folder() / "stores" / f"{name}-{digest(url)[:8]}"
    except RuntimeError as error:
        raise StoreError(
            f"{url}: must have a folder on this machine, but there is no home folder; set "
            "XDG_CACHE_HOME to one"
        ) from error
    if not is_store(folder):
        replace_text(folder / MARKER, canonical({"format": FORMAT, _BUCKET: url}))
    return folder


def open_store(place: str | os.PathLike[str], *, make: bool = True) -> Store:
    """Return the store of a folder or of a bucket's address; created if missing, but for reading.

    Raises:
        StoreError: the folder is not writable, or is a store of another format, or the bucket does
            not answer.
        NotReady: what the bucket's address needs is not installed, or the bucket cannot be a store.
    """
    folder = store_folder(place)
    url = _bucket_of(folder)
    if not url:
        return Store(folder, make=make)
    from spar_bench.bucket.objects import Bucket
    from spar_bench.bucket.store import BucketStore

    return BucketStore(folder, Bucket(url), make=make)


def open_folder(folder: Path, *, make: bool = True) -> Store:
    """Return the store of a folder, which shares no bucket.

    Raises:
        StoreError: it shares one, or as `open_store`.
    """
    if url := _bucket_of(folder):
        raise StoreError(
            f"--store: must be a folder of its own to copy stages to and from, but is that of "
            f"{url}; give another, and this address in place of STORE"
        )
    return Store(folder, make=make)


def _bucket_of(folder: Path) -> str:
    """Return the address of the bucket that a store's folder shares, "" if none."""
    with writing(folder):
        return str(read_json(folder / MARKER).get(_BUCKET, "")) if is_store(folder) else ""
