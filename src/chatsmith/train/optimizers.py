"""AdamW and Muon over float32 masters of a model whose own weights may be bfloat16.

While training, the model holds its weights in the dtype it computes in, and this file holds what they round from: a
float32 master per weight (the weight itself where it is float32 already), and the running averages. So no weight is
cast twice in a step, gradients take two bytes, and an update smaller than a bfloat16 rounding is not lost. Where our
own kernels step, a bfloat16 weight is half of its master, and only the other half is kept beside it.

Matrices of one shape are stepped in one call, because a small model's step is spent on calls, not numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from chatsmith.errors import WorkError
from chatsmith.kernels import native, steps
from chatsmith.train.masters import Masters
from chatsmith.train.precision import sum_dtype
from chatsmith.train.recipe import Optimizer as Settings
from chatsmith.train.spare import release

# Quintic Newton–Schulz coefficients (Keller Jordan et al. 2024, "Muon"): they drive singular values to about 1 in five
# rounds rather than exactly to 1, which is all an update needs.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# Gradients are widened to float32 this many numbers at a time, so that a large model needs no second copy of them.
_WIDE_NUMBERS = 2**24
_MASTER = "master."  # begins the names of masters among the state tensors


def orthogonalise(stack: Tensor) -> Tensor:
    """Each matrix of stack [n, rows, columns] with its singular values moved to about 1 (0.7 to 1.2).

    Computed in the dtype given (bfloat16 serves); matrices of zeros stay zeros.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack
    # The Frobenius norm bounds the largest singular value, so the iteration starts inside its region of convergence.
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=sum_dtype(x.dtype)) + 1e-7).to(x.dtype)
    for _ in range(ROUNDS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class TrainingOptimizer:
    """Steps a model's parameters from their gradients; `state_tensors` is all it knows, for exact resumption.

    `muon` steps the matrices inside the blocks with Muon (momentum, Nesterov, orthogonalised; the step of an [out, in]
    matrix is scaled by √max(1, out/in)) and everything else with AdamW (Loshchilov and Hutter 2019); `adamw` steps all
    with AdamW. Weight decay is decoupled and touches only tensors of two dimensions.
    """

    def __init__(self, model: nn.Module | Sequence[tuple[str, nn.Parameter]], settings: Settings) -> None:
        """Over a model, or over some parameters under their names in one."""
        self.settings = settings
        every = model.named_parameters() if isinstance(model, nn.Module) else model
        named = [(name, p) for name, p in every if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        stacked = [item for item in named if settings.name == "muon" and is_inner_matrix(*item)]
        shapes: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = defaultdict(list)
        for name, parameter in stacked:
            shapes[tuple(parameter.shape)].append((name, parameter))
        chosen = {name for name, _ in stacked}
        rest = [item for item in named if item[0] not in chosen]
        self._parts: list[Part] = [_Muon(group, settings) for group in shapes.values()]
        self._parts += [_AdamW(group, settings) for group in _runs(rest)]

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together, as a float32 scalar tensor; inf or nan when any gradient is."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if not gradients:
            raise WorkError("no gradient reached any weight: nothing of this model is being trained")
        return norm_of(gradients)

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
        release(self.parameters)

    def masters(self) -> dict[str, Tensor]:
        """The float32 weights by parameter name: what is saved, and what the model's own weights are rounded from."""
        return self.own_masters()

    def own_masters(self) -> dict[str, Tensor]:
        """Those that this process keeps."""
        return {name: master for part in self._parts for name, master in part.masters()}

    def put_masters(self, exact: Mapping[str, Tensor]) -> None:
        """Set the float32 weights that this process keeps; the model's own follow."""
        for part in self._parts:
            part.put_masters(exact)

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor a resumed run needs: masters, averages, and the count of steps."""
        return {key: tensor for part in self._parts for key, tensor in part.state()}

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state_tensors` gave, and round the model's own weights from the masters."""
        for part in self._parts:
            for key, tensor in part.state():
                if key not in tensors or tensors[key].shape != tensor.shape:
                    raise WorkError(f"the checkpoint does not fit this model: {key} is missing or of another shape")
                if key.startswith(_MASTER):
                    continue
                tensor.copy_(tensors[key])
            part.put_masters(tensors, _MASTER)


def norm_of(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of some gradients together, as a float32 scalar tensor."""
    if native.ready(gradients[0]) and all(g.dtype == gradients[0].dtype for g in gradients):
        return torch.tensor(steps.sum_of_squares([g.contiguous() for g in gradients]) ** 0.5)
    norms = torch._foreach_norm(list(gradients), 2, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack(norms))


def is_inner_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon steps this weight: a matrix inside the blocks."""
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


class Part:
    """Parameters stepped together, and the float32 masters that they are rounded from (themselves, if float32)."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], settings: Settings, halved: bool = False) -> None:
        self.names = [name for name, _ in named]
        self.weights = [parameter for _, parameter in named]
        self.settings = settings
        self.dtype = self.weights[0].dtype
        self.exact = Masters(self.weights, halved)

    def step(self, factor: float, scale: float) -> None:
        """One step with the learning rate times `factor`, from gradients times `scale`."""
        raise NotImplementedError

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor a resumed run needs, by kind and parameter."""
        raise NotImplementedError

    def gradients(self) -> list[Tensor]:
        return [torch.zeros_like(w) if w.grad is None else w.grad.contiguous() for w in self.weights]

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(self.names):
            yield name, self.exact.get(index)

    def put_masters(self, exact: Mapping[str, Tensor], prefix: str = "") -> None:
        """Set the masters by name, and the model's own weights with them; one is asked for at a time."""
        for index, name in enumerate(self.names):
            self.exact.put(index, exact[prefix + name])
        self.exact.publish()

    def addresses(self, *averages: list[Tensor]) -> steps.Addresses:
        """The table that the kernels read: weights, gradients (put in at each step), averages, lower halves."""
        weights = [weight.data for weight in self.weights]
        return steps.Addresses(weights, weights, *averages, self.exact.lower or weights)

    def point(self, at: steps.Addresses, gradients: list[Tensor]) -> None:
        """Put this step's gradients into the table, and the weights, which a caller may have moved since."""
        at.replace(1, gradients)
        at.replace(0, [weight.data for weight in self.weights])


class _AdamW(Part):
    """AdamW on a list of parameters, all decayed (matrices) or none (vectors)."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], settings: Settings) -> None:
        served = native.ready(named[0][1])
        super().__init__(named, settings, halved=served)
        self.decay = settings.weight_decay if self.weights[0].ndim >= 2 else 0.0
        self.first, self.second = self.exact.like(), self.exact.like()
        self.count = torch.zeros((), dtype=torch.float32, device=self.weights[0].device)
        self._at = self.addresses(self.first, self.second) if served else None

    def step(self, factor: float, scale: float) -> None:
        settings = self.settings
        self.count += 1
        rate = settings.learning_rate * factor
        gradients = self.gradients()
        if self._at is not None:
            self.point(self._at, gradients)
            steps.adamw_(
                self.dtype,
                self._at,
                rate=rate,
                betas=settings.betas,
                epsilon=settings.epsilon,
                decay=self.decay,
                step=int(self.count),
                scale=scale,
            )
            return
        masters = self.exact.whole
        if masters[0].dtype != self.dtype:
            wide = [torch.empty_like(master) for master in masters]
            torch._foreach_copy_(wide, gradients)
            gradients = wide
        if scale != 1.0:
            # The model's own gradients may be float32 and are let go after the step, so scaling in place is safe.
            torch._foreach_mul_(gradients, scale)
        torch._fused_adamw_(
            masters,
            gradients,
            self.first,
            self.second,
            [],
            [self.count] * len(masters),
            lr=rate,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            weight_decay=self.decay,
            eps=settings.epsilon,
            amsgrad=False,
            maximize=False,
        )
        self.exact.publish()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(self.names):
            yield _MASTER + name, self.exact.get(index)
            yield f"first.{name}", self.first[index]
            yield f"second.{name}", self.second[index]
            yield f"steps.{name}", self.count


class _Muon(Part):
    """Muon on matrices of one shape [out, in], orthogonalised in the dtype of the weights.

    In bfloat16 that serves, but a difference of one rounding, in sums of another order, becomes one of a hundredth of
    the step.
    """

    def __init__(self, named: list[tuple[str, nn.Parameter]], settings: Settings) -> None:
        rows, columns = named[0][1].shape
        self.shape = (rows, columns)
        served = steps.orthogonalises(self.shape, named[0][1])
        super().__init__(named, settings, halved=served)
        self.stretch = max(1.0, rows / columns) ** 0.5
        self.momentum = self.exact.like()
        self._at = self.addresses(self.momentum) if served else None

    def step(self, factor: float, scale: float) -> None:
        settings = self.settings
        rate = settings.muon_learning_rate * factor
        gradients = self.gradients()
        if self._at is not None:
            self.point(self._at, gradients)
            steps.muon_(
                self.dtype,
                self._at,
                self.shape,
                rounds=ROUNDS,
                rate=rate,
                decay=settings.weight_decay,
                momentum=settings.momentum,
                scale=scale,
                stretch=self.stretch,
            )
            return
        masters = self.exact.whole
        gradient = torch.stack(gradients).to(masters[0].dtype).mul_(scale)
        torch._foreach_lerp_(self.momentum, list(gradient.unbind()), 1 - settings.momentum)
        # Nesterov: look one step of momentum ahead.
        ahead = torch.lerp(gradient, torch.stack(self.momentum), settings.momentum)
        update = orthogonalise(ahead.to(self.dtype))
        torch._foreach_mul_(masters, 1 - rate * settings.weight_decay)
        torch._foreach_add_(masters, list(update.to(ahead.dtype).unbind()), alpha=-rate * self.stretch)
        self.exact.publish()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(self.names):
            yield _MASTER + name, self.exact.get(index)
            yield f"momentum.{name}", self.momentum[index]
