"""The log: one JSON object a line, to stderr: `time` (UTC), `level`, `event`, and of a request the
`tenant` and `key` (its id). Never a word of a caller's: what our own lines hold is chosen where
they are written; of others' the first line is kept, and of an exception its kind and where it came
from, since its words may quote anything.
"""

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

# Tenant and key's id of whoever the running task works for.
caller: ContextVar[tuple[str, str] | None] = ContextVar("caller", default=None)


def start() -> None:
    """To stderr, unless the program around us has already said where."""
    logging.getLogger("consilium.gateway").setLevel(logging.INFO)
    if logging.root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine())
    logging.root.addHandler(handler)
    logging.captureWarnings(True)


class JsonLine(logging.Formatter):
    """Our own messages are JSON objects already, and go on as they are; any other becomes the event
    `log`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        is_own = record.name == "consilium.gateway"
        if not is_own:
            first = next(iter(record.getMessage().strip().splitlines()), "")
            line |= {"event": "log", "logger": record.name, "message": first}
        if record.exc_info and (error := record.exc_info[1]):
            line |= {"error": type(error).__name__, "at": _places(error)}
        if known := caller.get():
            line["tenant"], line["key"] = known
        text = json.dumps(line)
        return f"{text[:-1]}, {record.getMessage()[1:]}" if is_own else text


def _places(error: BaseException) -> list[str]:
    """Where it was raised, innermost last, and before that the same of what it came from."""
    before = error.__cause__ or error.__context__
    if isinstance(error, BaseExceptionGroup):
        before = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return [*_places(before), type(before).__name__, *own] if before else own
