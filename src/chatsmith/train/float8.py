"""The products of the layers in 8 bits (Micikevicius et al. 2022), through torchao: twice the rate of 16 bits on GPUs
that multiply so.

Inputs, weights and slopes are rounded to 8 bits where they are multiplied, each tensor by a scale of its own that
brings its largest number to the end of the range. Weights, sums and all that is not a product of a layer stay as they
are; the embedding, the output head and attention do not change.
"""

from __future__ import annotations

import torch
from torch import nn

from chatsmith.errors import MissingExtra, RequestError
from chatsmith.models.decoder import Decoder
from chatsmith.models.layers import Linear

_MULTIPLE = 16  # of numbers, in which the hardware takes rows and columns
_FIRST = (8, 9)  # the capability of the first devices with 8-bit products


def check_device(device: torch.device) -> None:
    """Raise `RequestError` where the device does not multiply in 8 bits."""
    if device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= _FIRST:
        return
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else f"the {device.type.upper()}"
    raise RequestError(
        f"precision.float8 needs an NVIDIA GPU of the Ada or Hopper generation or later; {named} is not one",
        "leave out precision.float8",
    )


def float8_layers(model: Decoder, *, emulate: bool = False) -> None:
    """Let the linear maps of the blocks multiply in 8 bits, in place; parameters stay the same, under the same names.

    With `emulate` the products are made in 16 or 32 bits of numbers rounded to 8, on any device. Raises `RequestError`
    where the device or the shape does not serve, `MissingExtra` without torchao.
    """
    if not emulate:
        check_device(model.device)
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise MissingExtra("torchao", "float8", "precision.float8") from None
    spec = model.spec
    sizes = {spec.width, spec.ffn_width, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim}
    if odd := [size for size in sorted(sizes) if size % _MULTIPLE]:
        raise RequestError(
            f"precision.float8 needs layers whose widths are multiples of {_MULTIPLE}, and {odd[0]} is not",
            "leave out precision.float8, or choose another width",
        )
    model.fuses = False  # the kernels of a whole layer multiply in 16 bits
    config = Float8LinearConfig(emulate=emulate)
    for block in model.blocks.children():
        for part in block.modules():
            for name, linear in list(part.named_children()):
                if isinstance(linear, Linear):
                    setattr(part, name, _plain(linear))
        convert_to_float8_training(block, config=config)


def _plain(linear: Linear) -> nn.Linear:
    """PyTorch's own linear map over the same parameters: what torchao converts."""
    outputs, inputs = linear.weight.shape
    plain = nn.Linear(inputs, outputs, bias=False, device="meta")
    plain.weight = linear.weight
    plain.bias = linear.bias  # type: ignore[assignment]
    return plain
