"""Whatever is sent to any operation of the described interface, the answer is a described one, never a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from rewardloop.serve.edge.access import Scope
from serving import Place, a_place

EXAMPLES = int(os.environ.get("REWARDLOOP_FUZZ", "6"))  # for each operation; the benchmarks take hundreds

pytestmark = [pytest.mark.timeout(0)] if "REWARDLOOP_FUZZ" in os.environ else []

# These end the session that the others need.
LEFT_OUT = r"^/api/(logout|login|setup|join|me)$"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place")) as made:
        yield made


def test_every_answer_is_described(place: Place) -> None:
    described = schemathesis.openapi.from_url(f"{place.base}/openapi.json").exclude(path_regex=LEFT_OUT)
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) > 40
    key = {"authorization": f"Bearer {place.key(Scope.ADMIN)}"}
    session = {"rewardloop_session": place.owner.cookies["rewardloop_session"]}
    once_more = [each for each in operations if each.method == "get"]  # they show what the others have left behind
    for operation in [*operations, *once_more]:
        fuzz(operation, *((key, {}) if operation.path.startswith("/v1") else ({}, session)))


def fuzz(operation: Any, headers: dict[str, str], cookies: dict[str, str]) -> None:
    """Send `EXAMPLES` requests to one operation, good ones and bad ones."""

    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def run(case: schemathesis.Case) -> None:
        response = case.call(headers=headers, cookies=cookies)
        case.validate_response(response, checks=[not_a_server_error, status_code_conformance])

    run()
