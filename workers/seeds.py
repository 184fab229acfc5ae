"""Seeds by role: points of a grid that share `seed` are paired, and each role's randomness can be set alone."""

import hashlib

ROLES = ("init", "subset", "order", "noise")


def role_seed(seed: int, role: str, own: int | None = None) -> int:
    """63-bit seed of a role: a hash of (`seed`, role), or of (`own`, role) where the role is set alone.

    Never a function of the task key, so the same seed gives the same subset and order at every width.
    """
    if role not in ROLES:
        raise ValueError(f"no role {role!r}; there are {', '.join(ROLES)}")
    text = f"eigensweep:{role}:{seed if own is None else own}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
