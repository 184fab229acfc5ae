"""The wire to a rig: addresses, and one JSON object a line over a socket."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from workers.errors import ConfigError, RigLost

PROTOCOL = 1
# of one line; 10,000 agents need a fifth
LARGEST = 2**23
LISTEN = "listen:"
_PIECE = 2**16
_MAX_PATH = 107


class Link:
    """One end of a connection; whatever goes wrong ends it, and is raised as RigLost from then on."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self.connection, self.peer = connection, peer
        self._rest = b""
        self._ended = ""
        if connection.family != socket.AF_UNIX:
            # a message is small, and the other end waits for it
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, message: Mapping[str, Any], expected: str, seconds: float) -> dict[str, Any]:
        """The answer to a message, of the type `expected`, within so many seconds."""
        what = str(message["type"])
        if self._ended:
            raise RigLost(self._ended)
        try:
            self.send(message, seconds)
            answer = self.receive(seconds)
        except RigLost as error:
            self.end(f"{error} (asked: {what})")
            raise RigLost(self._ended) from error
        except BaseException:
            # the answer may still come, and would be taken for that to the next question
            self.end(f"the wait for an answer of {self.peer} (asked: {what}) was broken off; make a new RigEngine, which connects again")
            raise
        if answer["type"] == "error":
            raise self.ended(f"{self.peer} refused {what}: {answer.get('message', 'it does not say why')}")
        if answer["type"] != expected:
            raise self.ended(f"{self.peer} answered {what} by {answer['type']!r}, and must by {expected!r}; docs/rig.md has the messages")
        return answer

    def send(self, message: Mapping[str, Any], seconds: float | None = None) -> None:
        """One line."""
        try:
            self.connection.settimeout(seconds)
            self.connection.sendall(json.dumps(message, allow_nan=False).encode() + b"\n")
        except TimeoutError as error:
            raise RigLost(_silent(self.peer, seconds)) from error
        except OSError as error:
            raise RigLost(_gone(self.peer, error)) from error

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The next line, an object with a `type`; within so many seconds in all, however its pieces come."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._rest:
            if len(self._rest) > LARGEST:
                raise RigLost(f"{self.peer} sent {len(self._rest)} bytes without an end of line; each message is one line of JSON")
            self._rest += self._piece(deadline, seconds)
        line, _, self._rest = self._rest.partition(b"\n")
        return _parsed(line, self.peer)

    def _piece(self, deadline: float | None, seconds: float | None) -> bytes:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0.0:
            raise RigLost(_silent(self.peer, seconds))
        try:
            self.connection.settimeout(left)
            piece = self.connection.recv(_PIECE)
        except TimeoutError as error:
            raise RigLost(_silent(self.peer, seconds)) from error
        except OSError as error:
            raise RigLost(_gone(self.peer, error)) from error
        if not piece:
            raise RigLost(_gone(self.peer, None))
        return piece

    def end(self, why: str) -> None:
        """Close, and say so to who goes on asking."""
        self._ended = self._ended or why
        self.connection.close()

    def ended(self, why: str) -> RigLost:
        """The error to raise, after the end."""
        self.end(why)
        return RigLost(self._ended)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end("the link is closed")


def connect(address: str, seconds: float) -> Link:
    """To what listens there, or, of `listen:` and an address, to the first that connects there in this time; RigLost if nothing does."""
    if address.startswith(LISTEN):
        return _awaited(address.removeprefix(LISTEN), seconds)
    place = parsed_address(address)
    connection = socket.socket(_family(place))
    try:
        connection.settimeout(seconds)
        connection.connect(place)
    except (OSError, UnicodeError) as error:
        connection.close()
        raise RigLost(
            f"no rig answers at {address} ({error}); start it first, and see that host, port and firewall let it through"
        ) from error
    return Link(connection, f"the rig at {address}")


def _awaited(address: str, seconds: float) -> Link:
    with listen(address) as listener:
        listener.settimeout(seconds)
        try:
            connection, _ = listener.accept()
        except TimeoutError as error:
            raise RigLost(f"no rig connected to {address} in {seconds:g} s; start it, or give it longer by timeout_seconds") from error
    return Link(connection, f"the rig that connected to {address}")


def listen(address: str) -> socket.socket:
    """A socket that waits there; port 0 takes a free one."""
    place = parsed_address(address)
    listener = socket.socket(_family(place))
    try:
        if not isinstance(place, str):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {address} ({error}); take another port (0: a free one), or remove the file of a dead socket"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """As `connect` takes it."""
    place = listener.getsockname()
    if isinstance(place, str):
        return place
    return f"[{place[0]}]:{place[1]}" if listener.family == socket.AF_INET6 else f"{place[0]}:{place[1]}"


def parsed_address(address: str) -> str | tuple[str, int]:
    """The path of a Unix socket, or host and port."""
    if "/" in address:
        path = str(Path(address.removeprefix("unix:")))
        if len(path.encode()) > _MAX_PATH:
            raise ConfigError(f"the path of a socket has at most {_MAX_PATH} bytes, got {len(path.encode())}: {path}; take one in /tmp")
        return path
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ConfigError(
            f"the address of a rig is host:port, as 127.0.0.1:5005, or the path of a Unix socket, as /tmp/rig.sock; got {address!r}"
        )
    return host.strip("[]"), int(port)


def _family(place: str | tuple[str, int]) -> socket.AddressFamily:
    if isinstance(place, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in place[0] else socket.AF_INET


def _parsed(line: bytes, peer: str) -> dict[str, Any]:
    try:
        message = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RigLost(f"{peer} sent a line that is not JSON ({error}): {_short(line)}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise RigLost(f'{peer} sent JSON that is no object with a "type": {_short(line)}')
    return message


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON; of an agent that is not seen leave out the id")


def _short(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 80 else f"{text[:80]} ...")


def _silent(peer: str, seconds: float | None) -> str:
    return f"{peer} was silent for {seconds:g} s; see what it does, or give it longer by timeout_seconds"


def _gone(peer: str, error: OSError | None) -> str:
    return f"{peer} went away ({error or 'it closed the connection'}); start it again and make a new RigEngine; what was recorded is kept"
