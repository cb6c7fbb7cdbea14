"""Where the study of a search is kept: a journal in the store, or a database.

The database is the one that SPAR_BENCH_STUDIES names as SQLAlchemy does, if that is set when the
search begins. A study belongs to one store, in which the stages of its trials are.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from spar_bench.errors import StoreError
from spar_bench.files import read_json, replace_text, writing
from spar_bench.stage import canonical
from spar_bench.store import Store
from spar_bench.track.uri import masked, without_passwords

DATABASE_VARIABLE = "SPAR_BENCH_STUDIES"


class StudyPlace:
    """The place of the study with a name, in a store or in the database that the store names."""

    def __init__(self, name: str, store: Store) -> None:
        self.name, self._store = name, store
        self._journal = store.root / "studies" / f"{name}.journal"
        self._elsewhere = store.root / "studies" / f"{name}.json"
        self._uri = os.environ.get(DATABASE_VARIABLE, "")

    def create(self, directions: Sequence[str], pruner: optuna.pruners.BasePruner) -> optuna.Study:
        """Return the study, begun if there is none; under its lock.

        Raises:
            StoreError: the database does not answer, or the study is in another place.
        """
        with writing(self._journal.parent):
            self._journal.parent.mkdir(exist_ok=True)
        is_new = self._uri and not (self._journal.exists() or self._elsewhere.exists())
        name = f"spar-bench-{self.name[:16]}-{uuid4().hex[:8]}" if is_new else self._study_name()
        with self._reaching():
            study = optuna.create_study(
                study_name=name,
                storage=self._database() if is_new else self._storage(),
                directions=list(directions),
                pruner=pruner,
                load_if_exists=True,
            )
        if is_new:
            noted = {"name": name, "database": masked(self._uri)}
            replace_text(self._elsewhere, canonical(noted))
        return study

    def load(self) -> optuna.Study | None:
        """Return the study, or None if it has not begun; writes nothing, raises as `create`."""
        if not (self._journal.exists() or self._elsewhere.exists()):
            return None
        try:
            with self._reaching():
                return optuna.load_study(study_name=self._study_name(), storage=self._storage())
        except KeyError:  # killed before it began
            return None

    @contextmanager
    def locked(self, poll: Callable[[], None]) -> Iterator[None]:
        """Keep other processes from the study; `poll` is called while one is waited for.

        Raises:
            StoreError: the database does not answer.
        """
        with (
            self._store.lock([self.name], on_wait=lambda _: None, poll=poll),
            self._reaching(),
        ):
            _cut_unfinished_line(self._journal)
            yield

    def _study_name(self) -> str:
        if not self._elsewhere.exists():
            return self.name
        return str(read_json(self._elsewhere)["name"])

    def _storage(self) -> BaseStorage:
        if not self._elsewhere.exists():
            if self._uri:
                raise StoreError(
                    f"{DATABASE_VARIABLE}: must be left out for a search that has begun in "
                    f"{self._journal}, but is {masked(self._uri)}; unset it, or delete that file "
                    "to begin anew"
                )
            return JournalStorage(_Journal(self._journal))
        if not self._uri:
            raise StoreError(
                f"{self._elsewhere}: the study of this search is in a database, "
                f"{read_json(self._elsewhere)['database']}, but {DATABASE_VARIABLE} does not name "
                "it; set that"
            )
        return self._database()

    def _database(self) -> BaseStorage:
        try:
            return RDBStorage(self._uri, engine_kwargs={"pool_pre_ping": True})
        except RuntimeError as error:  # MLflow's tables would be taken for those of another release
            raise StoreError(
                f"{DATABASE_VARIABLE}: must be a database of searches alone, of this release of "
                f"Optuna, but {masked(self._uri)} is not; give another"
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say in one line, and without its password, that the database cannot be used."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            cause = error.__cause__ or error
            reason = " ".join(without_passwords(str(cause), self._uri).split())
            raise StoreError(
                f"{DATABASE_VARIABLE}: must be a database that answers, but "
                f"{masked(self._uri)} does not: {reason[:300]}; run the same command again once "
                "it does"
            ) from None


class _Journal(JournalFileBackend):  # type: ignore[misc]  # optuna's types are not read
    """Optuna's journal in a file; a full disk is reported in one line."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_Held())
        self._folder = path.parent

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append events to the file."""
        with writing(self._folder):
            super().append_logs(logs)


class _Held:
    """The journal's lock; the study's own replaces it, which no kill leaves behind."""

    def acquire(self) -> bool:
        """Do nothing: the study's lock is held."""
        return True

    def release(self) -> None:
        """Do nothing: the study's lock is released later."""


def _cut_unfinished_line(path: Path) -> None:
    """Remove a partial line left by a kill: later lines would be unreadable."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
