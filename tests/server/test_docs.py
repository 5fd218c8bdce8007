"""The page that describes the API: whole without internet, and held to that by its own policy."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import urljoin, urlsplit

import httpx


def test_the_page_and_all_its_files_are_here(server: httpx.Client) -> None:
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 3
    for file in [*files, "openapi.json"]:
        assert file in page.text
        assert not urlsplit(file).netloc
        assert not file.startswith("/")  # it may lie under a path of a proxy
        answer = server.get(urljoin("/docs", file))
        assert answer.status_code == 200, file
        assert len(answer.content) > 100, file
    assert "http" not in re.sub(r"<!--.*?-->", "", page.text)


def test_the_policy_lets_nothing_in_from_elsewhere(server: httpx.Client) -> None:
    page = server.get("/docs")
    policy = page.headers["content-security-policy"]
    assert not re.search(r"https?:|\*|//", policy)
    assert "default-src 'none'" in policy
    inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert len(inline) == 1
    assert f"'sha256-{base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()}'" in policy
    scripts = re.search(r"script-src ([^;]*)", policy)
    assert scripts is not None
    assert "unsafe" not in scripts[1]


def test_there_is_no_other_page_that_would_ask_elsewhere(server: httpx.Client) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert "cdn" not in server.get(path).text
