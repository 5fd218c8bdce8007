"""The page that describes the API, in a browser that reaches nothing but this server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.browser.conftest import Site


def test_the_api_is_described_and_can_be_tried(open_page: Callable[..., Any], site: Site) -> None:
    page = open_page()
    blocked: list[str] = []
    page.on("console", lambda said: blocked.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(f"{site.url}docs", wait_until="domcontentloaded")
    page.locator(".opblock-summary-path", has_text="/v1/predict").wait_for()
    described = page.locator(".opblock").count()
    assert described >= 15
    page.locator("#operations-default-models_v1_models_get .opblock-summary").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert page.locator(".live-responses-table").get_by_text("colors").count() >= 1
    assert blocked == []
