"""The API against requests made up from its own OpenAPI page: valid ones, nearly valid ones, and nonsense.

No answer is a fault of the server, and every answer is what the page says it may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import pytest

if TYPE_CHECKING:
    import schemathesis

MODES = ("positive", "negative")
"""Of `schemathesis.GenerationMode`; what is made up takes seconds to import, so only where it is needed."""

SETTINGS: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,  # the same requests each time: a failure can be looked into
    "suppress_health_check": list(hypothesis.HealthCheck),
    "phases": [hypothesis.Phase.explicit, hypothesis.Phase.generate],
}


def ask(case: schemathesis.Case, server: httpx.Client) -> None:
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    answer = case.call(base_url=str(server.base_url).rstrip("/"), timeout=60)
    if answer.status_code == 400 and answer.text == "Invalid HTTP request received.":
        return  # not even HTTP: it does not get as far as the application
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 500:  # busy, and says when not to be
        assert "retry-after" in answer.headers
    if answer.status_code >= 400:
        told = {"error", "rule"} if case.operation.path.endswith("/rules") else {"error"}
        assert {"error"} <= set(answer.json()) <= told
        assert answer.json()["error"]
        assert "\n" not in answer.json()["error"]
    case.validate_response(
        answer, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
    )


def ask_everything(server: httpx.Client, mode: str, examples: int) -> None:
    import schemathesis

    page = schemathesis.openapi.from_dict(server.get("/openapi.json").json())
    operations = [result.ok() for result in page.get_all_operations()]
    assert len(operations) >= 15
    wrong = 0
    for operation in operations:

        @hypothesis.settings(max_examples=examples, **SETTINGS)
        @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode(mode)))
        def asked(case: Any) -> None:
            ask(case, server)

        try:
            asked()
        except hypothesis.errors.Unsatisfiable:
            wrong += 1  # takes nothing that could be wrong
    assert wrong < len(operations) / 2


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", MODES)
def test_requests_that_are_made_up(server: httpx.Client, mode: str) -> None:
    ask_everything(server, mode, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
def test_many_requests_that_are_made_up(server: httpx.Client, mode: str) -> None:
    ask_everything(server, mode, 100)


def test_the_server_is_as_before(server: httpx.Client) -> None:
    """After all that: it is ready, and no job is left of it."""
    assert server.get("/readyz").status_code == 200
    assert server.get("/v1/jobs").json() == []
