"""The neural tangent kernel of an infinitely wide perceptron, in closed form (Jacot et al. 2018; Lee et al. 2019)."""

import math
from collections.abc import Callable

from torch import Tensor  # noqa: TID253

from workers.errors import ConfigError
from workers.models.mlp import Mlp

# N, M samples; all kernels are of one output, (N, M)

Expectations = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def mlp_kernel(model: Mlp, inputs_N: Tensor, inputs_M: Tensor | None = None) -> Tensor:
    """Theta (N, M) of one output of `model` at infinite width; the full kernel is Theta times the identity of outputs.

    For parameterisation "ntk", of ReLU or erf: weights of variance 1 behind a factor 1 / sqrt(fan_in), biases that begin at zero and
    learn. With the covariance Sigma of pre-activations, Sigma' = E[phi phi] and Theta' = Sigma' + Theta E[phi' phi'] + bias.
    Raises ConfigError for another network.
    """
    if model.parameterisation != "ntk" or model.activation not in ACTIVATIONS:
        raise ConfigError(
            "the kernel of infinite width is known in closed form for parameterisation=ntk with activation "
            f"{' or '.join(ACTIVATIONS)}, got parameterisation={model.parameterisation} and activation={model.activation}"
        )
    first_N, second_M = inputs_N.flatten(1), (inputs_N if inputs_M is None else inputs_M).flatten(1)
    size = first_N.shape[1]
    covariance_NM, variance_N, variance_M = first_N @ second_M.T / size, first_N.square().sum(1) / size, second_M.square().sum(1) / size
    bias = float(model.bias)
    theta_NM = covariance_NM + bias
    for _ in range(model.depth):
        expectations = ACTIVATIONS[model.activation]
        covariance_NM, slopes_NM = expectations(covariance_NM, variance_N[:, None], variance_M[None])
        theta_NM = covariance_NM + theta_NM * slopes_NM + bias
        variance_N, variance_M = (expectations(values, values, values)[0] for values in (variance_N, variance_M))
    return theta_NM


def relu_expectations(covariance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """E[relu(u) relu(v)] and E[relu'(u) relu'(v)] of normal u, v with these variances (arc-cosine kernels, Cho and Saul 2009).

    A unit of variance 0, as of an input of zeros, is 0 with slope 0, as torch has relu'(0).
    """
    scale = (first * second).sqrt()
    # -1 of units that are always 0: no slopes
    cosine = (covariance / scale).where(scale > 0.0, -1.0).clamp(-1.0, 1.0)
    angle = cosine.acos()
    values = scale * ((1.0 - cosine.square()).clamp(min=0.0).sqrt() + (math.pi - angle) * cosine) / (2 * math.pi)
    return values, (math.pi - angle) / (2 * math.pi)


def erf_expectations(covariance: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """E[erf(u) erf(v)] and E[erf'(u) erf'(v)] of normal u, v with these variances (Williams 1997)."""
    product = (1.0 + 2.0 * first) * (1.0 + 2.0 * second)
    values = 2.0 / math.pi * (2.0 * covariance / product.sqrt()).asin()
    return values, 4.0 / math.pi * (product - 4.0 * covariance.square()).rsqrt()


ACTIVATIONS: dict[str, Expectations] = {"relu": relu_expectations, "erf": erf_expectations}
