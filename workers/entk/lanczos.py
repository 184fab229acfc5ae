"""The largest eigenpairs of a symmetric operator by block Lanczos with thick restarts.

K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl. 22 (2000) 602.
The basis and the projected matrix are float64 whatever the precision of the operator, and every block is orthogonalised twice against
the whole basis, so that only the products limit the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from workers.entk.operators import Operator, apply, as_operator
from workers.errors import ConfigError, Diverged

# R rows of the kernel; K eigenpairs wanted; M vectors of the basis; B vectors of a block

BLOCK_SIZE = 16
TOLERANCES = {torch.float64: 1e-10}
LOW_PRECISION_TOLERANCE = 1e-6
NOISE = 64 * torch.finfo(torch.float64).eps
TINY = 1e-300
State = Mapping[str, Tensor]


class GiveState(Protocol):
    """Gives the state of a run; `shared`: not copied, and right until the next block, for who writes it at once."""

    def __call__(self, *, shared: bool = False) -> dict[str, Tensor]: ...


Save = Callable[[int, GiveState], None]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Eigenpairs:
    """The K largest eigenvalues, ascending, eigenvectors (R, K) in columns and each ||Theta q - lambda q||, in float64.

    `lowest`: the smallest Ritz value that was met, an upper bound of the smallest eigenvalue. `state`: what a later call goes on from.
    """

    eigenvalues_K: Tensor
    eigenvectors_RK: Tensor
    residual_norms_K: Tensor
    lowest: float
    num_products: int
    state: dict[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """What a callback sees: the present Ritz values, ascending, their residual norms, and a function that gives the state to save."""

    num_products: int
    num_converged: int
    ritz_values_K: Tensor
    residual_norms_K: Tensor
    state: Callable[[], dict[str, Tensor]]


def lanczos(
    kernel: Any,
    num_eigenpairs: int,
    *,
    tolerance: float | None = None,
    block_size: int = BLOCK_SIZE,
    basis_size: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    state: State | None = None,
    callback: Callable[[Progress], None] | None = None,
    save: Save | None = None,
) -> Eigenpairs:
    """The largest eigenpairs of a symmetric matrix or operator, until every ||Theta q - lambda q|| <= tolerance x the largest |eigenvalue|.

    `tolerance`: None is 1e-10, and 1e-6 where the products are not in float64. `basis_size`: vectors of 8 R bytes that are kept at most;
    None: six for each eigenpair. `max_products`: products with one vector before it gives up; None: fifty full bases. `callback` is
    called whenever convergence is looked at, `save` after every block, with the number of products and a function that gives the state.
    `state`, of a progress, a block or a result: a run with the same settings goes on from there to the same eigenpairs. ConfigError
    where numbers do not fit the kernel; Diverged where products are not finite or it gives up.
    """
    operator = as_operator(kernel)
    limit = TOLERANCES.get(operator.dtype, LOW_PRECISION_TOLERANCE) if tolerance is None else tolerance
    if not limit > 0 or (max_products is not None and max_products < 1):
        raise ConfigError(f"tolerance must be positive and max_products at least 1, got {limit} and {max_products}")
    capacity = _capacity(operator, num_eigenpairs, block_size, basis_size)
    krylov = _Krylov(operator, min(block_size, operator.shape[0]), capacity, seed)
    krylov.next_look = num_eigenpairs + krylov.block
    if state:
        krylov.load(state)
    while True:
        if krylov.count < krylov.next_look and not krylov.is_full:
            krylov.extend()
            krylov.multiply()
            if save:
                save(krylov.num_products, krylov.state)
            continue
        values_M, vectors_MM, norms_K = krylov.ritz(num_eigenpairs)
        values_K, allowed = values_M[-num_eigenpairs:], max(limit * float(values_M.abs().max()), 1e5 * TINY)
        if callback:
            callback(Progress(krylov.num_products, int((norms_K <= allowed).sum()), values_K, norms_K, krylov.state))
        converged = bool((norms_K <= allowed).all())
        if converged and (krylov.is_whole or not _may_miss_copies(values_K, krylov.block, allowed)):
            return krylov.eigenpairs(values_K, vectors_MM[:, -num_eigenpairs:], norms_K)
        if krylov.num_products >= (max_products or 50 * capacity):
            raise _gave_up(krylov.num_products, norms_K, allowed)
        if converged or krylov.is_full:
            krylov.restart(values_M, vectors_MM, num_eigenpairs)
        if converged:
            krylov.widen()


def _capacity(operator: Operator, num_eigenpairs: int, block_size: int, basis_size: int | None) -> int:
    """Vectors of the basis; the whole space is always enough."""
    rows, columns = operator.shape
    if rows != columns:
        raise ConfigError(f"eigenvalues are those of a square kernel, got one of shape {(rows, columns)}; take K(X, X)")
    check_count(num_eigenpairs, rows)
    if block_size < 1:
        raise ConfigError(f"block_size must be at least 1, got {block_size}")
    least = min(rows, num_eigenpairs + 3 * block_size)
    if basis_size is not None and basis_size < least:
        raise ConfigError(
            f"basis_size must be at least {least} for {num_eigenpairs} eigenvalues with blocks of {block_size}, got {basis_size}"
        )
    return min(rows, basis_size or max(6 * num_eigenpairs, num_eigenpairs + 8 * block_size))


def check_count(num_eigenpairs: int, num_rows: int) -> None:
    """ConfigError for a number of eigenvalues that a kernel has not."""
    if not isinstance(num_eigenpairs, int) or isinstance(num_eigenpairs, bool) or not 1 <= num_eigenpairs <= num_rows:
        raise ConfigError(f"the number of eigenvalues must be between 1 and {num_rows}, the rows of the kernel, got {num_eigenpairs!r}")


def _may_miss_copies(values_K: Tensor, block: int, allowed: float) -> bool:
    """Whether an eigenvalue above the smallest wanted one was found as often as a block can find it.

    Products of B vectors hold at most B eigenvectors of one eigenvalue.
    """
    if len(values_K) <= block:
        return False
    first_K, last_K = values_K[: 1 - block or None], values_K[block - 1 :]
    return bool(((last_K - first_K <= 2 * allowed) & (first_K > values_K[0] + allowed)).any())


def _gave_up(num_products: int, norms_K: Tensor, allowed: float) -> Diverged:
    return Diverged(
        f"{int((norms_K <= allowed).sum())} of {len(norms_K)} eigenpairs converged in {num_products} products: the largest residual norm "
        f"is {float(norms_K.max()):.3g}, allowed is {allowed:.3g}; raise max_products, basis_size or tolerance"
    )


class _Krylov:
    """An orthonormal basis in rows, the operator projected on it, and the next block that leads out of it."""

    def __init__(self, operator: Operator, block: int, capacity: int, seed: int) -> None:
        self.operator, self.block, self.capacity, self.seed = operator, block, capacity, seed
        self.size = operator.shape[0]
        self.device = operator.device
        self.count = self.width = self.num_products = self.num_draws = 0
        self.next_look = 0
        self.lowest = torch.inf
        self.basis_MR = torch.empty(capacity, self.size, dtype=torch.float64, device=self.device)
        self.projected_MM = torch.zeros(capacity, capacity, dtype=torch.float64, device=self.device)
        self.remainder_BB = torch.zeros(block, block, dtype=torch.float64, device=self.device)
        self.scale = torch.zeros((), dtype=torch.float64, device=self.device)
        self.next_RB = torch.linalg.qr(self._random(block)).Q

    @property
    def is_whole(self) -> bool:
        """Whether the basis spans the space: its Ritz pairs are the eigenpairs."""
        return self.count == self.size

    @property
    def is_full(self) -> bool:
        """Whether the next block has no room: neither in the basis nor, after the last one, in the space."""
        return self.is_whole or self.count + min(self.next_RB.shape[1], self.size - self.count) > self.capacity

    def extend(self) -> None:
        """Take the next block into the basis, or as much of it as the space has room for."""
        self.width = min(self.next_RB.shape[1], self.size - self.count)
        self.basis_MR[self.count : self.count + self.width] = self.next_RB[:, : self.width].T
        self.count += self.width

    def multiply(self) -> None:
        """Multiply the newest block: a column of the projected matrix, and what leads out of the basis as the next block."""
        basis_MR, newest = self.basis_MR[: self.count], slice(self.count - self.width, self.count)
        image_RB = apply(self.operator, basis_MR[newest].T)
        self.num_products += self.width
        inside_MB = basis_MR @ image_RB
        self.scale = torch.maximum(self.scale, image_RB.square().sum(0).max().sqrt())
        # where nothing leads out of an invariant subspace, a random direction goes on, no longer than rounding
        noise_RB = (NOISE * self.scale + TINY) / self.size**0.5 * self._random(self.width)
        outside_RB = image_RB - basis_MR.T @ inside_MB + noise_RB
        block_RB, self.remainder_BB = torch.linalg.qr(outside_RB)
        # twice once more: such a direction may lie in the basis but for rounding
        for _ in range(2):
            block_RB = block_RB - basis_MR.T @ (basis_MR @ block_RB)
        self.next_RB = torch.linalg.qr(block_RB).Q
        self.projected_MM[: self.count, newest] = inside_MB
        self.projected_MM[newest, : self.count] = inside_MB.T

    def ritz(self, num_wanted: int) -> tuple[Tensor, Tensor, Tensor]:
        """All Ritz values (M,), the projected matrix's eigenvectors (M, M), and the residual norms of the largest (K,)."""
        projected_MM = self.projected_MM[: self.count, : self.count]
        if not torch.isfinite(projected_MM).all():
            raise Diverged(f"products with the kernel are not finite after {self.num_products} vectors; the network behind it diverged")
        # a small dense matrix: the CPU is the faster place
        values_M, vectors_MM = torch.linalg.eigh(projected_MM.cpu())
        vectors_MM = vectors_MM.to(self.basis_MR.device)
        norms_K = (self.remainder_BB @ vectors_MM[self.count - self.width :, -num_wanted:]).norm(dim=0)
        self.lowest = min(self.lowest, float(values_M[0]))
        self.next_look = min(self.capacity, self.count + max(self.width, self.count // 5))
        return values_M.to(self.basis_MR.device), vectors_MM, norms_K

    def restart(self, values_M: Tensor, vectors_MM: Tensor, num_wanted: int) -> None:
        """Keep the largest Ritz vectors, a quarter of the room more than are wanted."""
        num_kept = min(num_wanted + (self.capacity - num_wanted) // 4, self.capacity - 2 * self.next_RB.shape[1], self.count)
        self.basis_MR[:num_kept] = vectors_MM[:, -num_kept:].T @ self.basis_MR[: self.count]
        self.projected_MM.zero_()
        self.projected_MM[:num_kept, :num_kept] = values_M[-num_kept:].diag()
        self.count, self.next_look = num_kept, self.capacity

    def widen(self) -> None:
        """Double the block by random vectors: they find further eigenvectors of one eigenvalue."""
        self.block *= 2
        self._make_room(min(self.size, self.count + 4 * self.block))
        wide_RB = torch.cat([self.next_RB, self._random(self.block - self.next_RB.shape[1])], dim=1)
        for _ in range(2):
            wide_RB = torch.linalg.qr(wide_RB - self.basis_MR[: self.count].T @ (self.basis_MR[: self.count] @ wide_RB)).Q
        self.next_RB, self.next_look = wide_RB, self.capacity

    def eigenpairs(self, values_K: Tensor, vectors_MK: Tensor, norms_K: Tensor) -> Eigenpairs:
        return Eigenpairs(
            eigenvalues_K=values_K,
            eigenvectors_RK=self.basis_MR[: self.count].T @ vectors_MK,
            residual_norms_K=norms_K,
            lowest=self.lowest,
            num_products=self.num_products,
            state=self.state(shared=True),  # nothing changes it any more
        )

    def state(self, *, shared: bool = False) -> dict[str, Tensor]:
        """All that `load` needs, as contiguous tensors; `shared`: not copied, and right until the next block."""
        counts = (self.count, self.width, self.block, self.capacity, self.num_products, self.num_draws)
        found = {
            "basis": self.basis_MR[: self.count],
            "projected": self.projected_MM[: self.count, : self.count].contiguous(),
            "next": self.next_RB.contiguous(),
            "remainder": self.remainder_BB.contiguous(),
            "scale": self.scale,
            "lowest": torch.tensor(self.lowest, dtype=torch.float64),
            "counts": torch.tensor(counts),
        }
        return found if shared else {name: value.clone() for name, value in found.items()}

    def load(self, state: State) -> None:
        """Take the place of the run that gave this state."""
        if state["basis"].shape[1] != self.size:
            raise ConfigError(f"the state is of a kernel of {state['basis'].shape[1]} rows, got a kernel of {self.size}")
        self.count, self.width, self.block, capacity, self.num_products, self.num_draws = state["counts"].tolist()
        self._make_room(capacity)
        self.basis_MR[: self.count] = state["basis"]
        self.projected_MM[: self.count, : self.count] = state["projected"]
        device = self.basis_MR.device
        self.next_RB, self.remainder_BB, self.scale = (state[name].to(device) for name in ("next", "remainder", "scale"))
        self.lowest, self.next_look = float(state["lowest"]), max(self.count, self.next_look)

    def _make_room(self, capacity: int) -> None:
        more = max(0, capacity - self.capacity)
        self.capacity += more
        self.basis_MR = torch.cat([self.basis_MR, self.basis_MR.new_empty(more, self.size)])
        self.projected_MM = torch.nn.functional.pad(self.projected_MM, (0, more, 0, more))

    def _random(self, num_vectors: int) -> Tensor:
        """Uniform random vectors (R, B) of variance one, which depend on the seed and on how often they were asked for."""
        generator = torch.Generator(self.device).manual_seed(self.seed + 1_000_003 * self.num_draws)
        self.num_draws += 1
        uniform_RB = torch.rand(self.size, num_vectors, generator=generator, dtype=torch.float64, device=self.device)
        return 12**0.5 * (uniform_RB - 0.5)
