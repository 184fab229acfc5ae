"""The Jacobian itself, the plain way: what the engine avoids, and what it is checked against."""

from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from workers.entk.position_model import unwrap

# N samples; C outputs; P parameters of one tensor of weights

Jacobian = dict[str, Tensor]


def jacobian(module: nn.Module, inputs_N: Tensor) -> Jacobian:
    """d outputs / d weights of each trainable tensor of a module, (N, C, P), in the module's dtype, all at once.

    The module must treat samples independently (no batch statistics), and map (N, ...) to (N, C); more axes of outputs stay as they are.
    """
    module, _ = unwrap(module)
    weights = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    def outputs_C(weights: Jacobian, sample: Tensor) -> Tensor:
        return functional_call(module, weights, (sample[None],))[0]  # type: ignore[no-any-return]

    found: Jacobian = vmap(jacrev(outputs_C), in_dims=(None, 0))(weights, inputs_N)
    return {name: value.reshape(*value.shape[: value.dim() - weights[name].dim()], -1) for name, value in found.items()}
