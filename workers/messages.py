"""Records between a job and its children, as single messages of a socket, which takes some 200 KiB at once."""

import json
import zlib
from typing import Any

# longer ones are sent compressed: the settings of tasks that run together are much alike
PLAIN_BYTES = 2**15


def encode(record: Any) -> bytes:
    """JSON, compressed where it is long."""
    data = json.dumps(record).encode()
    return data if len(data) <= PLAIN_BYTES else zlib.compress(data, 1)


def decode(data: bytes) -> Any:
    """What `encode` was given; no JSON begins as compressed data do."""
    return json.loads(zlib.decompress(data) if data[:1] == b"x" else data)
