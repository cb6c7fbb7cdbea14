"""Where the study of a search is kept: a journal in the store, or a database.

The database is the one that SPAR_BENCH_STUDIES names as SQLAlchemy does, if that is set when the
search begins; it stays there. A study belongs to one store, which has the stages of its trials.
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
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from spar_bench.errors import StoreError
from spar_bench.files import writing
from spar_bench.store import Store
from spar_bench.track.uri import masked, without_passwords

DATABASE_VARIABLE = "SPAR_BENCH_STUDIES"


class StudyPlace:
    """The place of the study with a name: what the store says, or for a new one the variable.

    Raises:
        StoreError: the variable is not the URI of a database.
    """

    def __init__(self, name: str, store: Store) -> None:
        self.name, self._store = name, store
        self._journal = store.root / "studies" / f"{name}.journal"
        self._note = f"studies/{name}.json"
        self._uri = _database_uri()

    def create(self, directions: Sequence[str], pruner: optuna.pruners.BasePruner) -> optuna.Study:
        """Return the study, begun if there is none; under its lock.

        Raises:
            StoreError: the database does not answer, or has no such study, or is not named.
        """
        with writing(self._journal.parent):
            self._journal.parent.mkdir(exist_ok=True)
        if noted := self._store.note(self._note):
            return self._in_database(noted, pruner)
        if not (self._uri or self._store.is_shared_by_folder):
            raise StoreError(
                f"{DATABASE_VARIABLE}: must name a database for a search on {self._store.place}, "
                "where no journal can be kept, but is not set; set it, for one machine alone to "
                "sqlite:////PATH/studies.db"
            )
        is_new = self._uri and not self._journal.exists()
        name = f"spar-bench-{self.name[:16]}-{uuid4().hex[:8]}" if is_new else self.name
        with self._reaching():
            study = optuna.create_study(
                study_name=name,
                storage=self._database() if is_new else JournalStorage(_Journal(self._journal)),
                directions=list(directions),
                pruner=pruner,
                load_if_exists=True,
            )
        if is_new:
            noted = {"name": name, "database": masked(self._uri)}
            self._store.write_note(self._note, noted)
        return study

    def load(self) -> optuna.Study | None:
        """Return the study, or None if it has not begun; writes nothing, raises as `create`."""
        if noted := self._store.note(self._note):
            return self._in_database(noted)
        if not self._journal.exists():
            return None
        try:
            return optuna.load_study(
                study_name=self.name, storage=JournalStorage(_Journal(self._journal))
            )
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

    def _in_database(
        self, noted: dict[str, str], pruner: optuna.pruners.BasePruner | None = None
    ) -> optuna.Study:
        place = f"{self._store.place}/{self._note}"
        if not self._uri:
            raise StoreError(
                f"{place}: the study of this search is in a database, "
                f"{noted['database']}, but {DATABASE_VARIABLE} does not name it; set that"
            )
        try:
            with self._reaching():
                return optuna.load_study(
                    study_name=noted["name"], storage=self._database(), pruner=pruner
                )
        except KeyError as error:  # it was there before it was noted
            raise StoreError(
                f"{DATABASE_VARIABLE}: must be the database in which this search has begun, "
                f"{noted['database']}, but {masked(self._uri)} has no study {noted['name']}; set "
                f"the former, or delete {place} to begin anew"
            ) from error

    def _database(self) -> BaseStorage:
        try:
            return RDBStorage(self._uri, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            raise StoreError(
                f"{DATABASE_VARIABLE}: must be a database whose driver is installed, but for "
                f"{masked(self._uri)} it is not: {error.__cause__ or error}; install it, that of "
                "PostgreSQL by pip install -e '.[postgres]'"
            ) from error
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
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            cause = error.__cause__ or error
            reason = " ".join(without_passwords(str(cause), self._uri).split())
            raise StoreError(
                f"{DATABASE_VARIABLE}: must be a database that answers, but "
                f"{masked(self._uri)} does not: {reason[:300]}; run the same command again once "
                "it does"
            ) from None


def _database_uri() -> str:
    """Return the URI that the variable has, "" for none; a SQLite path is made absolute."""
    uri = os.environ.get(DATABASE_VARIABLE, "")
    try:
        parts = make_url(uri) if uri else None
    except (ArgumentError, ValueError) as error:  # which quotes what may be of a password
        raise StoreError(
            f"{DATABASE_VARIABLE}: must be a URI as SQLAlchemy reads it, but is none; write signs "
            "of a password such as @ and / as %40 and %2F"
        ) from error
    if parts and parts.get_backend_name() == "sqlite" and parts.database:
        parts = parts.set(database=os.path.abspath(os.path.expanduser(parts.database)))
    return parts.render_as_string(hide_password=False) if parts else ""


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
