"""Compiled models stay out of the user's cache."""

from tests.fixtures import own_cache  # noqa: F401
