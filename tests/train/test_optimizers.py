"""The optimizers against their formulas in float64, over float32 masters, and resumed from what they saved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chatsmith.errors import WorkError
from chatsmith.kernels import native
from chatsmith.train.masters import halve, joined
from chatsmith.train.optimizers import TrainingOptimizer, orthogonalise
from chatsmith.train.recipe import Optimizer

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


class Small(nn.Module):
    """Inner matrices of three shapes (one odd), an outer one, and vectors."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator).to(dtype))

        self.embed = drawn(50, 24)
        self.blocks = nn.ParameterList([drawn(24, 24), drawn(24, 24), drawn(64, 24), drawn(24, 64), drawn(7, 24)])
        self.bias = drawn(24)

    def give_gradients(self, seed: int, spread: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.grad = (torch.randn(parameter.shape, generator=generator) * spread).to(parameter.dtype)


@pytest.fixture(params=[True, False], ids=["kernels", "plain torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(native, "ready", lambda x: False)
    return bool(request.param)


def norm_of(model: nn.Module) -> float:
    return float(torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None]).norm())


@DTYPES
def test_adamw_is_the_published_formula(dtype: torch.dtype, kernels: bool) -> None:
    model, settings = Small(dtype), Optimizer(name="adamw", learning_rate=0.01, weight_decay=0.1, clip=1.0)
    stepper = TrainingOptimizer(model, settings)
    exact = {name: p.detach().double() for name, p in model.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in exact.items()}
    second = {name: torch.zeros_like(value) for name, value in exact.items()}
    beta1, beta2 = settings.betas
    for t in range(1, 6):
        model.give_gradients(t)
        norm = norm_of(model)
        for name, p in model.named_parameters():
            assert p.grad is not None
            slope = p.grad.double() * min(1.0, 1.0 / norm)
            first[name] = beta1 * first[name] + (1 - beta1) * slope
            second[name] = beta2 * second[name] + (1 - beta2) * slope**2
            step = first[name] / (1 - beta1**t) / ((second[name] / (1 - beta2**t)).sqrt() + settings.epsilon)
            decay = 0.1 if p.ndim >= 2 else 0.0
            exact[name] = exact[name] * (1 - 0.01 * 0.5 * decay) - 0.01 * 0.5 * step
        assert stepper.step(0.5) == pytest.approx(norm, rel=1e-5)
    masters = stepper.masters()
    for name, p in model.named_parameters():
        assert torch.allclose(masters[name].double(), exact[name], atol=2e-6)
        assert masters[name].dtype == torch.float32
        if dtype != torch.float32 and kernels:  # ties are rounded away from zero
            rounded = (masters[name].view(torch.int32) + 0x8000 & ~0xFFFF).view(torch.float32).to(dtype)
        else:
            rounded = masters[name].to(dtype)
        assert torch.equal(p.detach(), rounded)
        assert p.grad is None


@DTYPES
def test_muon_moves_matrices_by_orthogonal_steps(dtype: torch.dtype, kernels: bool) -> None:
    model = Small(dtype)
    settings = Optimizer(name="muon", muon_learning_rate=0.02, weight_decay=0.0, momentum=0.9, clip=0.0)
    stepper = TrainingOptimizer(model, settings)
    before = {name: master.clone() for name, master in stepper.masters().items()}
    model.give_gradients(3)
    slopes = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    stepper.step(1.0)
    for name, master in stepper.masters().items():
        if not name.startswith("blocks."):
            continue
        moved = (before[name] - master).double() / 0.02
        rows, columns = moved.shape
        moved /= max(1.0, rows / columns) ** 0.5
        sizes = torch.linalg.svdvals(moved)
        # The rounds leave singular values between about 0.7 and 1.2, and the singular vectors as they were.
        assert sizes.min() > 0.6
        assert sizes.max() < 1.3
        left, _, right = torch.linalg.svd(slopes[name], full_matrices=False)
        alike = (moved * (left @ right)).sum() / (moved.norm() * (left @ right).norm())
        assert alike > 0.98


def test_a_setting_that_is_a_whole_number_is_the_same_number(kernels: bool) -> None:
    native._known.clear()  # the first call decides how a kernel is called
    stepped = []
    for momentum in (0, 0.0):
        model = Small(torch.float32)
        stepper = TrainingOptimizer(model, Optimizer(momentum=momentum, clip=0))
        model.give_gradients(3)
        stepper.step(1.0)
        stepped.append(stepper.masters())
    for name, master in stepped[0].items():
        assert torch.equal(stepped[1][name], master)


@DTYPES
def test_the_kernels_and_plain_torch_train_alike(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for ready in (native.ready, lambda x: False):
        monkeypatch.setattr(native, "ready", ready)
        model = Small(dtype)
        stepper = TrainingOptimizer(model, Optimizer(name="muon"))
        for t in range(4):
            model.give_gradients(t)
            stepper.step(1.0)
        results.append(stepper.masters())
    for name, mine in results[0].items():
        assert (mine - results[1][name]).norm() < 0.01 * mine.norm()


def test_orthogonalise_leaves_zeros_and_takes_both_orientations() -> None:
    wide = torch.randn(3, 10, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(orthogonalise(wide), orthogonalise(wide.mT).mT)
    assert not orthogonalise(torch.zeros(1, 4, 6)).any()


@DTYPES
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_resumed_optimizer_goes_on_bit_for_bit(dtype: torch.dtype, name: str, kernels: bool) -> None:
    def run(steps: range, state: dict[str, Tensor] | None) -> tuple[dict[str, Tensor], list[Tensor]]:
        model = Small(dtype)
        stepper = TrainingOptimizer(model, Optimizer(name=name))  # type: ignore[arg-type]
        if state is not None:
            stepper.load_state_tensors(state)
        for t in steps:
            model.give_gradients(t)
            stepper.step(1.0)
        return stepper.state_tensors(), [p.detach() for p in model.parameters()]

    whole, weights = run(range(6), None)
    half, _ = run(range(3), None)
    resumed, again = run(range(3, 6), {key: tensor.clone() for key, tensor in half.items()})
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert all(torch.equal(one, two) for one, two in zip(weights, again, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad: float, kernels: bool) -> None:
    model = Small(torch.bfloat16)
    stepper = TrainingOptimizer(model, Optimizer(name="muon"))
    before = {key: tensor.clone() for key, tensor in stepper.state_tensors().items()}
    model.give_gradients(0)
    assert model.embed.grad is not None
    model.embed.grad[3, 3] = bad
    norm = stepper.step(1.0)
    assert not norm < float("inf")
    assert all(torch.equal(before[key], tensor) for key, tensor in stepper.state_tensors().items())
    assert model.embed.grad is None


def test_small_updates_are_not_lost_in_bfloat16(kernels: bool) -> None:
    model = Small(torch.bfloat16)
    stepper = TrainingOptimizer(model, Optimizer(name="adamw", learning_rate=1e-5, weight_decay=0.0))
    with torch.no_grad():
        stepper.load_state_tensors({k: torch.ones_like(t) * (k[0] == "m") for k, t in stepper.state_tensors().items()})
    for _ in range(500):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        stepper.step(1.0)
    assert model.embed[0, 0].item() == pytest.approx(1 - 500e-5, abs=2**-8)


def test_a_parameter_without_gradient_only_decays(kernels: bool) -> None:
    model = Small(torch.float32)
    before = model.embed.detach().clone()
    stepper = TrainingOptimizer(model, Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5))
    model.give_gradients(0)
    model.embed.grad = None
    stepper.step(1.0)
    assert torch.allclose(model.embed, before * 0.95)


def test_no_gradient_at_all_and_a_state_of_another_model_are_said_plainly() -> None:
    stepper = TrainingOptimizer(Small(torch.float32), Optimizer(name="adamw"))
    with pytest.raises(WorkError, match="no gradient reached any weight"):
        stepper.step(1.0)
    state = stepper.state_tensors()
    state.pop("first.embed")
    with pytest.raises(WorkError, match=r"first\.embed"):
        stepper.load_state_tensors(state)


def test_a_master_in_two_halves_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (40_000,), generator=generator).to(torch.int32)
    odd = torch.tensor([0.0, -0.0, 1.0, 2.0**-149, -(2.0**-130), torch.finfo(torch.float32).max, torch.inf, -torch.inf])
    ties = (bits & ~0xFFFF | 0x8000)[:1000].view(torch.float32)
    master = torch.cat([odd, bits.view(torch.float32), ties])
    master = master[~master.isnan()]
    upper, lower = torch.empty_like(master, dtype=torch.bfloat16), torch.empty_like(master, dtype=torch.int16)
    halve(master, upper, lower)
    assert torch.equal(joined(upper, lower).view(torch.int32), master.view(torch.int32))
    # Rounded to the nearest: as PyTorch does, but for ties, which it rounds to even ones.
    differs = upper != master.to(torch.bfloat16)
    assert (master.view(torch.int32)[differs] & 0xFFFF == 0x8000).all()


def test_the_kernels_step_the_halves_as_torch_does() -> None:
    """A step of nothing but decay, whose exact result is known, on lengths that are no whole vectors."""
    if not native.ready(torch.empty(1, dtype=torch.bfloat16)):
        pytest.skip("the kernels cannot be built here")
    model = nn.ParameterDict({"matrix": torch.randn(37, 3), "other": torch.randn(2, 61)}).to(torch.bfloat16)
    stepper = TrainingOptimizer(model, Optimizer(name="adamw", learning_rate=0.5, weight_decay=0.25, clip=0.0))
    exact = {name: torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for name, p in model.items()}
    stepper.put_masters(exact)
    for p in model.values():
        p.grad = torch.zeros_like(p)
    stepper.step(1.0)
    keep = torch.tensor(1.0) - torch.tensor(0.5) * torch.tensor(0.25)
    for name, master in stepper.masters().items():
        assert torch.equal(master, exact[name] * keep)
        nearest = (model[name].float() - master).abs() <= (master.to(torch.bfloat16).float() - master).abs()
        assert nearest.all()
