"""Requests made up from the server's own OpenAPI page by schemathesis: valid, nearly valid and nonsense."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import GenerationMode

from tests.fuzz.family import pack, unpack
from tests.fuzz.serving import ServedFamily

BATCH = 25
"""Requests to one route that are made up together."""

_SLOW = ("/mjpeg",)  # goes on as long as its client
_HOPS = {"content-length", "connection", "host", "accept-encoding", "user-agent"}


class Inputs(ServedFamily):
    """Every route of the page in turn, in each of schemathesis' modes."""

    def __init__(self, folder: Path) -> None:
        set_hypothesis_home_dir(folder.parent / "hypothesis")
        super().__init__(folder)

    @cached_property
    def _operations(self) -> list[Any]:
        warnings.simplefilter("ignore")
        page = schemathesis.openapi.from_dict(self.client.get("/openapi.json").json())
        every = [found.ok() for found in page.get_all_operations()]
        slow = [operation for operation in every if "explain" in operation.path]
        return [operation for operation in every if operation not in slow] * 6 + slow

    def make(self, seed: int, index: int) -> bytes:
        made = self._batch(seed, index // BATCH)
        return made[index % BATCH % len(made)] if made else pack(b"", method="GET", path="/healthz", headers={})

    @lru_cache(maxsize=2)  # noqa: B019 (one family a process)
    def _batch(self, seed: int, number: int) -> list[bytes]:
        operation = self._operations[number % len(self._operations)]
        mode = list(GenerationMode)[number // len(self._operations) % len(GenerationMode)]
        made: list[bytes] = []

        @hypothesis.seed(seed * 1_000_003 + number)
        @hypothesis.settings(
            max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(mode))
        def collect(case: Any) -> None:
            with_url = {**case.as_transport_kwargs(base_url="http://server"), "cookies": None}
            known = ("method", "url", "headers", "params", "data", "json", "files", "auth")
            try:
                sent = requests.Request(**{key: with_url[key] for key in known if key in with_url}).prepare()
            except (requests.RequestException, UnicodeError, ValueError):
                return  # no client sends that
            body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
            headers = {key: str(value) for key, value in sent.headers.items() if key.lower() not in _HOPS}
            made.append(pack(bytes(body), method=sent.method, path=sent.path_url, headers=headers))

        with suppress(hypothesis.errors.Unsatisfiable):  # takes nothing that could be wrong
            collect()
        return made

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        if any(word in head["path"] for word in _SLOW):
            return self._look(head)
        try:
            answer = self.client.request(head["method"], head["path"], headers=head["headers"], content=body)
        except (UnicodeError, ValueError):  # headers that no client sends
            return False
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "httpx" and "Protocol" in type(error).__name__:
                return False
            raise
        finally:
            if head["method"] != "GET":
                self.tidy()
        return self.judge(answer.status_code, answer.content, answer.headers.get("content-type", ""))

    def _look(self, head: dict[str, Any]) -> bool:
        with self.client.stream(head["method"], head["path"], headers=head["headers"]) as answer:
            if answer.status_code < 400:
                return bool(next(answer.iter_bytes()))
            return self.judge(answer.status_code, answer.read(), answer.headers.get("content-type", ""))
