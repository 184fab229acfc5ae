"""Random numbers from a raw Philox stream, for synthetic data: NumPy guarantees that stream, its distributions it does not."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

_PAIRS_AT_ONCE = 2**19


class Stream:
    """The numbers of one seed and role, in their order: whoever takes fewer has the beginning of what another takes at once."""

    def __init__(self, seed: int, role: str) -> None:
        import numpy as np

        key = hashlib.blake2b(f"eigensweep:data:{role}:{seed}".encode(), digest_size=16).digest()
        self._raw = np.random.Philox(key=np.frombuffer(key, "<u8").astype(np.uint64))

    def uniform(self, num: int) -> "Floats":
        """Numbers (num,) in [0, 1)."""
        import numpy as np

        return np.ldexp((self._raw.random_raw(num) >> 11).astype(np.float64), -53)

    def normal(self, *shape: int) -> "Floats":
        """Normal numbers of a shape (Box and Muller 1958), two from two uniform ones; the second of a last pair is lost."""
        import numpy as np

        size = int(np.prod(shape))
        numbers = np.empty((-(-size // 2), 2))
        for start in range(0, len(numbers), _PAIRS_AT_ONCE):
            part = numbers[start : start + _PAIRS_AT_ONCE]
            first, angle = self.uniform(2 * len(part)).reshape(-1, 2).T
            radius, angle = np.sqrt(-2.0 * np.log1p(-first)), 2.0 * np.pi * angle
            part[:, 0], part[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
        return numbers.ravel()[:size].reshape(shape)

    def signs(self, num: int) -> "Floats":
        """-1 or 1 (num,), each as often."""
        import numpy as np

        return np.where(self.uniform(num) < 0.5, -1.0, 1.0)

    def whole(self, low: int, high: int, num: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """Whole numbers (num,) from low to high, both included."""
        import numpy as np

        return np.int64(low) + np.floor(self.uniform(num) * (high - low + 1)).astype(np.int64)
