"""AdamW and Muon over float32 masters of a model whose own weights may be bfloat16.

While training, the model holds its weights in the dtype it computes in, and this file holds what they round from: a
float32 master per weight (the weight itself where it is float32 already), and the running averages. So no weight is
cast twice in a step, gradients take two bytes, and an update smaller than a bfloat16 rounding is not lost.

Matrices of one shape are kept and stepped as one stack, because a small model's step is spent on calls, not numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from chatsmith.errors import WorkError
from chatsmith.train.recipe import Optimizer as Settings

# Quintic Newton–Schulz coefficients (Keller Jordan et al. 2024, "Muon"): they drive singular values to about 1 in five
# rounds rather than exactly to 1, which is all an update needs.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
# Gradients are widened to float32 this many numbers at a time, so that a large model needs no second copy of them.
_WIDE_NUMBERS = 2**24


def orthogonalise(stack: Tensor, rounds: int = _ROUNDS) -> Tensor:
    """Each matrix of stack [n, rows, columns] with its singular values moved to about 1 (0.7 to 1.2).

    Computed in the dtype given (bfloat16 serves); matrices of zeros stay zeros.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    # The Frobenius norm bounds the largest singular value, so the iteration starts inside its region of convergence.
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32) + 1e-7).to(x.dtype)
    for _ in range(rounds):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class TrainingOptimizer:
    """Steps a model's parameters from their gradients; `state_tensors` is all it knows, for exact resumption.

    `muon` steps the matrices inside the blocks with Muon (momentum, Nesterov, orthogonalised; the step of an [out, in]
    matrix is scaled by √max(1, out/in)) and everything else with AdamW (Loshchilov and Hutter 2019); `adamw` steps all
    with AdamW. Weight decay is decoupled and touches only tensors of two dimensions.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.settings = settings
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        stacked = [item for item in named if settings.name == "muon" and _is_inner_matrix(*item)]
        shapes: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = defaultdict(list)
        for name, parameter in stacked:
            shapes[tuple(parameter.shape)].append((name, parameter))
        chosen = {name for name, _ in stacked}
        rest = [item for item in named if item[0] not in chosen]
        self._parts: list[_AdamW | _Muon] = [_Muon(group, settings) for group in shapes.values()]
        self._parts += [_AdamW(group, settings) for group in _runs(rest)]

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together, as a float32 scalar tensor; inf or nan when any gradient is."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            raise WorkError("no gradient reached any weight: nothing of this model is being trained")
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
        return torch.linalg.vector_norm(torch.stack(norms))

    @torch.no_grad()
    def step(self, factor: float, gradient_scale: float = 1.0) -> float:
        """One step with both learning rates times `factor`, from gradients times `gradient_scale`.

        Returns the norm of the scaled gradient, before clipping. When it is not finite nothing is changed, and the
        caller decides. Gradients are released.
        """
        norm = float(self.gradient_norm()) * gradient_scale
        if norm == norm and norm != float("inf"):
            clip = self.settings.clip
            scale = gradient_scale * (min(1.0, clip / (norm + 1e-6)) if clip else 1.0)
            for part in self._parts:
                part.step(factor, scale)
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        """Release all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights by parameter name: what is saved, and what the model's own weights are rounded from."""
        return {name: master for part in self._parts for name, master in part.masters()}

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor a resumed run needs: masters, averages, and the count of steps."""
        return {key: tensor for part in self._parts for key, tensor in part.state()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave, and round the model's own weights from the masters."""
        for part in self._parts:
            for key, tensor in part.state():
                if key not in tensors or tensors[key].shape != tensor.shape:
                    raise WorkError(f"the checkpoint does not fit this model: {key} is missing or of another shape")
                tensor.copy_(tensors[key])
            part.publish()


def _is_inner_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and name.startswith("blocks.")


def _runs(named: Iterable[tuple[str, nn.Parameter]]) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """The parameters in lists of one kind (matrices, or vectors) and of bounded size."""
    for matrices in (True, False):
        run: list[tuple[str, nn.Parameter]] = []
        size = 0
        for name, parameter in named:
            if (parameter.ndim >= 2) != matrices:
                continue
            if run and size + parameter.numel() > _WIDE_NUMBERS:
                yield run
                run, size = [], 0
            run.append((name, parameter))
            size += parameter.numel()
        if run:
            yield run


class _AdamW:
    """AdamW on a list of parameters, all decayed (matrices) or none (vectors)."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], settings: Settings) -> None:
        self.names = [name for name, _ in named]
        self.weights = [parameter for _, parameter in named]
        self.settings = settings
        self.decay = settings.weight_decay if self.weights[0].ndim >= 2 else 0.0
        self.master = [w.detach() if w.dtype == torch.float32 else w.detach().float() for w in self.weights]
        self.first = [torch.zeros_like(master) for master in self.master]
        self.second = [torch.zeros_like(master) for master in self.master]
        self.steps = [torch.zeros((), dtype=torch.float32, device=w.device) for w in self.weights]

    def step(self, factor: float, scale: float) -> None:
        settings = self.settings
        gradients = [_gradient(weight).to(torch.float32) for weight in self.weights]
        if scale != 1.0:
            # The model's own gradients may be float32 and are let go after the step, so scaling in place is safe.
            torch._foreach_mul_(gradients, scale)
        torch._foreach_add_(self.steps, 1.0)
        torch._fused_adamw_(
            self.master,
            gradients,
            self.first,
            self.second,
            [],
            self.steps,
            lr=settings.learning_rate * factor,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            weight_decay=self.decay,
            eps=settings.epsilon,
            amsgrad=False,
            maximize=False,
        )
        self.publish()

    def publish(self) -> None:
        if self.weights[0].dtype != torch.float32:
            torch._foreach_copy_([weight.data for weight in self.weights], self.master)

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        yield from zip(self.names, self.master, strict=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(self.names):
            yield f"master.{name}", self.master[index]
            yield f"first.{name}", self.first[index]
            yield f"second.{name}", self.second[index]
            yield f"steps.{name}", self.steps[index]


class _Muon:
    """Muon on a stack of matrices of one shape [n, out, in]."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], settings: Settings) -> None:
        self.names = [name for name, _ in named]
        self.weights = [parameter for _, parameter in named]
        self.settings = settings
        rows, columns = self.weights[0].shape
        self.scale = max(1.0, rows / columns) ** 0.5
        self.master = torch.stack([weight.detach().float() for weight in self.weights])
        self.momentum = torch.zeros_like(self.master)
        self.dtype = torch.float32 if self.weights[0].dtype == torch.float64 else torch.bfloat16

    def step(self, factor: float, scale: float) -> None:
        settings = self.settings
        gradient = torch.stack([_gradient(weight) for weight in self.weights]).float()
        self.momentum.mul_(settings.momentum).add_(gradient, alpha=scale * (1 - settings.momentum))
        # Nesterov: look one step of momentum ahead.
        ahead = torch.lerp(gradient.mul_(scale), self.momentum, settings.momentum)
        update = orthogonalise(ahead.to(self.dtype))
        rate = settings.muon_learning_rate * factor
        self.master.mul_(1 - rate * settings.weight_decay).add_(update, alpha=-rate * self.scale)
        self.publish()

    def publish(self) -> None:
        torch._foreach_copy_([weight.data for weight in self.weights], list(self.master.unbind()))

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        yield from zip(self.names, self.master.unbind(), strict=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, master, momentum in zip(self.names, self.master.unbind(), self.momentum.unbind(), strict=True):
            yield f"master.{name}", master
            yield f"momentum.{name}", momentum


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
