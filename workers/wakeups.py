"""Signals as something that a selector wakes up for."""

import contextlib
import selectors
import signal
import socket
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def wakeups(selector: selectors.BaseSelector, told: list[signal.Signals], numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Append the signals `numbers` to `told` as they come; each, and the end of a child, makes a readable entry without data.

    SIGHUP is ignored: a job survives its terminal.
    """
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    selector.register(reading, selectors.EVENT_READ, None)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in numbers:
        signal.signal(number, lambda number, frame: told.append(signal.Signals(number)))
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        reading.close()
        writing.close()
