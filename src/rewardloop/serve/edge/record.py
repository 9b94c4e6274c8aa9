"""The record: JSON lines on the standard output, without a word of what people wrote."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import sys
from typing import Final, TextIO

import structlog

_JSON: Final = json.JSONEncoder(default=repr)  # json.dumps would make one for every line


def set_up_logging() -> None:
    """What structlog's loggers say becomes the record; of other libraries only warnings are kept."""
    lines = Lines(sys.stdout)
    atexit.register(lines.flush)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda line, **_: _JSON.encode(line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )


class Lines:
    """Writes together the lines of one turn of the event loop.

    A write is a system call, which gives up the interpreter; to get it back may take longer than all else of a line.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: list[str] = []

    def msg(self, line: str) -> None:
        """Take up a line; where no event loop is running, write it at once."""
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if len(self._lines) == 1:
            loop.call_soon(self.flush)

    debug = info = warning = error = critical = exception = log = msg

    def flush(self) -> None:
        """Write what is there."""
        lines, self._lines = self._lines, []
        if lines:
            self._out.write("\n".join([*lines, ""]))
            self._out.flush()
