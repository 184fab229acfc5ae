"""The empirical neural tangent kernel of any PyTorch model: matrices, products, spectra, and where in them learning happens (D1-D6, D11).

>>> import torch
>>> from workers import entk
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
>>> x = torch.eye(4, dtype=torch.float64)
>>> kernel = entk.gram(model, x)
>>> kernel.shape
torch.Size([12, 12])
>>> product = entk.KernelOperator(model, x) @ torch.ones(12, dtype=torch.float64)
>>> torch.allclose(product, kernel.sum(1))
True
>>> entk.spectrum(kernel).certificate.psd
True
"""

from workers.entk.certificates import Certificate, ExactTile, kernel_error
from workers.entk.exact_tiles import double_tiles
from workers.entk.jacobians import jacobian
from workers.entk.kernels import Plan, gram, loss_gram, plan
from workers.entk.lanczos import Eigenpairs, Progress, lanczos
from workers.entk.norms import squared_gradient_norms
from workers.entk.operators import KernelOperator, Operator
from workers.entk.panels import KernelTiles, kernel_tiles
from workers.entk.planning import MemoryCap
from workers.entk.position import LayerPosition, Position, lnp
from workers.entk.position_gradients import Preconditioner
from workers.entk.position_log import PositionLog
from workers.entk.position_loss import UnitLoss
from workers.entk.position_trace import CrossCheck
from workers.entk.position_windows import PositionAccumulator, PositionWindow, WindowPosition, log_windows, step_sums
from workers.entk.quadrature import Density, Estimate, ResidualDensity, diagonal, trace
from workers.entk.spectra import Spectrum, density, residual_density, spectrum

__all__ = [
    "Certificate",
    "CrossCheck",
    "Density",
    "Eigenpairs",
    "Estimate",
    "ExactTile",
    "KernelOperator",
    "KernelTiles",
    "LayerPosition",
    "MemoryCap",
    "Operator",
    "Plan",
    "Position",
    "PositionAccumulator",
    "PositionLog",
    "PositionWindow",
    "Preconditioner",
    "Progress",
    "ResidualDensity",
    "Spectrum",
    "UnitLoss",
    "WindowPosition",
    "density",
    "diagonal",
    "double_tiles",
    "gram",
    "jacobian",
    "kernel_error",
    "kernel_tiles",
    "lanczos",
    "lnp",
    "log_windows",
    "loss_gram",
    "plan",
    "residual_density",
    "spectrum",
    "squared_gradient_norms",
    "step_sums",
    "trace",
]
