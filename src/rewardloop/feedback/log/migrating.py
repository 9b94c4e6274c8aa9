"""Bringing a database to the schema of schema.py: forward only, after a copy, never back from a newer one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, inspect, text

from rewardloop.errors import StoreError
from rewardloop.feedback.log.database import reading, writing
from rewardloop.feedback.log.failures import translated
from rewardloop.feedback.log.schema import HEAD

BACKUPS: Final = "backups"
MIGRATIONS: Final = "rewardloop.feedback:migrations"


def migrate(engine: Engine, migrations: str = MIGRATIONS, head: str = HEAD) -> Path | None:
    """Bring the database behind `engine` to `head`; the copy made before, if one was.

    Raises StoreError for a newer schema and for a database that is not ours.
    """
    have = schema_version(engine)
    check_version(engine, have, head)
    if have == head:
        return None
    copy = _copy(engine, have) if have is not None and engine.dialect.name == "sqlite" else None
    _upgrade(engine, migrations)
    return copy


def schema_version(engine: Engine) -> str | None:
    """The schema that the database has; None for an empty one. Raises StoreError for one that is not ours."""
    with reading(engine) as connection:
        tables = inspect(connection).get_table_names()
        if "alembic_version" in tables:
            return str(connection.scalar(text("SELECT version_num FROM alembic_version")))
    if tables:
        raise StoreError(
            f"{engine.url.database} belongs to another program (table {tables[0]}); name an empty database"
        )
    return None


def check_version(engine: Engine, have: str | None, head: str = HEAD) -> None:
    """Raises StoreError where the schema is newer than this program."""
    if have is not None and have > head:
        raise StoreError(
            f"{engine.url.database} has schema {have}, this rewardloop knows schemas up to {head}: "
            "it was written by a newer version; install that one, or put back a copy from backups/"
        )


def _copy(engine: Engine, have: str) -> Path:
    file = Path(str(engine.url.database))
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = file.parent / BACKUPS / f"{file.stem}-schema-{have}-{moment}.db"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.unlink(missing_ok=True)
    with translated(str(file)), engine.connect() as connection:
        plain = connection.connection.driver_connection
        assert plain is not None
        plain.execute("VACUUM INTO ?", (str(target),))  # in no transaction, as VACUUM wants it
    return target


def _upgrade(engine: Engine, migrations: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", migrations)
    config.set_main_option("path_separator", "os")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
