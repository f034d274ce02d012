"""Free ports of this machine."""

import contextlib
import random
import socket


def free_port():
    """A port that nothing listens at.

    It is below those that the system gives to connections, so none of them takes it before it is used.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
