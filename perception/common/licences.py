"""Which licences are known to allow commercial use, by their names. It is a comparison of names, not legal advice."""

from __future__ import annotations

import re

COMMERCIAL_USE = ("CC0", "CC BY", "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "Pexels", "public domain")
"""Licences that allow commercial use, and whose works may be learnt from without more than naming the source."""

_ALLOWED = re.compile(
    r"cc0( 1\.0)?|cc by( [1-4]\.0)?|mit|apache 2\.0|bsd [23] clause|pexels|public domain|cc pdm 1\.0", re.ASCII
)
_SUBJECT = re.compile(r"^(pictures|photos|videos|labels|boxes|masks|annotations|weights):? ", re.ASCII)
_EXCLUDED = re.compile(r"\bnc\b|non ?commercial|research|academic|personal", re.ASCII)


def commercial_use_fault(licence: str) -> str | None:
    """Say why a licence does not pass as one that allows commercial use, or None if it does.

    Args:
        licence: a name, or several with commas or semicolons between them, all of which must pass: ``CC BY 4.0,
            pictures CC BY 2.0``. Each may say first what it is of, and behind it in parentheses whose it is.
    """
    if not licence.strip():
        return "has no licence"
    if _EXCLUDED.search(_plain(licence)):
        return f"has the licence {licence!r}, which does not allow commercial use"
    for part in re.split(r"[,;]", re.sub(r"\([^()]*\)", "", licence)):
        if not _ALLOWED.fullmatch(_SUBJECT.sub("", _plain(part))):
            known = ", ".join(COMMERCIAL_USE)
            return f"has the licence {part.strip()!r}, which is none of those known to allow commercial use: {known}"
    return None


def _plain(text: str) -> str:
    return re.sub(r"[-\s_]+", " ", text).strip().lower()
