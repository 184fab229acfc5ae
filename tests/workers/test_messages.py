"""Messages between a job and its children."""

import socket

import pytest

from workers import messages


@pytest.mark.parametrize("count", [0, 1, 300])
def test_what_is_sent_is_what_comes_however_long(count: int):
    record = {"mates": [{"attempt": f"a-{number}", "settings": {"radius": number / 7, "words": "x" * 4000}} for number in range(count)]}
    assert messages.decode(messages.encode(record)) == record
    assert messages.decode(messages.encode([record])) == [record]


def test_the_settings_of_300_tasks_are_one_message():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    record = {"mates": [{"settings": {"seed": number, "words": "these are settings " * 200}} for number in range(300)]}
    with ours, theirs:
        ours.send(messages.encode(record))
        assert messages.decode(theirs.recv(2**22)) == record
