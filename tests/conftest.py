"""For all tests."""

import signal

# Whatever started the tests may have Ctrl-C ignored, as shells do for commands in the background, and children of the
# tests that are to hear it would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
