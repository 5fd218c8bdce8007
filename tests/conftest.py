"""What holds for all tests."""

import signal

# A shell ignores Ctrl-C on behalf of what it starts in the background, and so would everything the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
