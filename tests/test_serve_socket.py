"""Whatever a tab sends, it is answered or refused in words, and the line holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from websockets.sync.client import ClientConnection, connect

from rewardloop.serve.routes.socket import MESSAGE
from serving import Place, a_place

EXAMPLES = int(os.environ.get("REWARDLOOP_FUZZ", "60"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place")) as made:
        yield made


def open_tab(place: Place) -> ClientConnection:
    cookie = {"Cookie": f"rewardloop_session={place.owner.cookies['rewardloop_session']}"}
    return connect(f"{place.base.replace('http', 'ws')}/api/socket", additional_headers=cookie)


words = st.text(max_size=20) | st.sampled_from(["\ud800", "\x00", "x" * 101, "chatcmpl-1", "r1"])
numbers = st.integers(-2, 5) | st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**30]) | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def one_of_type(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """A message of this type: its fields with values that fit, or do not, or are missing."""
    schema = MESSAGE.json_schema()
    fields = schema["$defs"][kind.capitalize()]["properties"]
    known = {
        "messages": st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "bot"]), "content": words})),
        "settings": st.dictionaries(st.sampled_from(["temperature", "max_tokens", "seed", "choices"]), numbers),
        "value": st.sampled_from([-1, 1, 0]),
    }
    likely = {name: known.get(name, words | numbers) | anything for name in fields if name != "type"}
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=likely)


messages = st.one_of(anything, *map(one_of_type, ("generate", "cancel", "live", "resume", "ping")))


@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(message=messages | st.binary(max_size=20), binary=st.booleans())
def test_nothing_that_is_sent_breaks_the_line(place: Place, message: Any, binary: bool) -> None:
    sent = message if isinstance(message, bytes) else json.dumps(message).encode()
    with capture_logs() as logs, open_tab(place) as line:
        line.send(sent if binary else sent.decode(errors="replace"))
        line.send('{"type": "ping"}')
        while (answer := json.loads(line.recv(timeout=20)))["type"] != "pong":
            assert answer["type"] in ("ack", "started", "tokens", "finished", "failed", "feedback", "policy")
            if answer["type"] == "ack" and not answer["ok"]:
                assert answer["error"]["message"]
                assert answer["error"]["type"] != "server_error", answer
    assert not [entry for entry in logs if entry["log_level"] == "error"]
