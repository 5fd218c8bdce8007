"""The login form. It is self-contained: the server gives out nothing else before the login."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>perception</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto 0; max-width: 20rem; padding: 0 1rem; }}
  input, button {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin: .25rem 0 .75rem; }}
  [role=alert] {{ color: #c33; }}
</style>
<h1>perception</h1>
{message}{forms}
</html>
"""
_FORM = """<form method="post" action="{action}">
<input type="hidden" name="next" value="{target}">
{fields}<button>Log in</button>
</form>
"""
_USER = """<label>User <input name="user" autocomplete="username" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
"""
_TOKEN = """<label>Token <input name="token" type="password" autocomplete="off" required></label>
"""

_STYLE = re.search(r"<style>(.*?)</style>", _PAGE.format(message="", forms=""), re.DOTALL)
assert _STYLE is not None
LOGIN_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE[1].encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The form's Content-Security-Policy."""


def login_page(action: str, target: str, *, user: bool, token: bool, message: str = "") -> str:
    """Build the HTML of the login form.

    Args:
        action: path that takes the form.
        target: path to go on to.
        user: ask for user and password.
        token: ask for a token.
        message: what went wrong.
    """
    kinds = [fields for fields, wanted in ((_USER, user), (_TOKEN, token)) if wanted]
    return _PAGE.format(
        message=f'<p role="alert">{escape(message)}</p>\n' if message else "",
        forms="".join(_FORM.format(action=escape(action), target=escape(target), fields=fields) for fields in kinds),
    )
