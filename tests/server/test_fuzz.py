"""The API against requests made up from its own OpenAPI page: valid ones, nearly valid ones, and nonsense.

No answer is a fault of the server, and every answer is what the page says it may be.
"""

from __future__ import annotations

from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

SETTINGS: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,  # the same requests each time: a failure can be looked into
    "suppress_health_check": list(hypothesis.HealthCheck),
    "phases": [hypothesis.Phase.explicit, hypothesis.Phase.generate],
}


@pytest.fixture(scope="module")
def page(server: httpx.Client) -> schemathesis.schemas.BaseSchema:
    return schemathesis.openapi.from_dict(server.get("/openapi.json").json())


schema = schemathesis.pytest.from_fixture("page")


def ask(case: schemathesis.Case, server: httpx.Client) -> None:
    answer = case.call(base_url=str(server.base_url).rstrip("/"), timeout=60)
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 500:  # busy, and says when not to be
        assert "retry-after" in answer.headers
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error"}
        assert answer.json()["error"]
        assert "\n" not in answer.json()["error"]
    if case.method.upper() == case.operation.method.upper():
        case.validate_response(
            answer, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
        )


@schema.parametrize()
@hypothesis.settings(max_examples=3, **SETTINGS)
def test_requests_that_are_made_up(case: schemathesis.Case, server: httpx.Client) -> None:
    ask(case, server)


@pytest.mark.slow
@pytest.mark.timeout(600)
@schema.parametrize()
@hypothesis.settings(max_examples=60, **SETTINGS)
def test_many_requests_that_are_made_up(case: schemathesis.Case, server: httpx.Client) -> None:
    ask(case, server)


def test_the_server_is_as_before(server: httpx.Client) -> None:
    """After all that: it is ready, and no job is left of it."""
    assert server.get("/readyz").status_code == 200
    assert server.get("/v1/jobs").json() == []
