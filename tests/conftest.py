"""What holds for all tests."""

import signal

from tests.fixtures import main_here, own_cache_home  # noqa: F401

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
