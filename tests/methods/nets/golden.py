"""Golden files: inputs, weights and outputs of the published code at tiny sizes."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from methods.nets.config import UNetConfig, build_net
from methods.spec import DataSpec

FOLDER = Path(__file__).parents[2] / "golden"
SPEC = DataSpec("golden", (3, 16, 16), 10)
_SHARED = {"num_blocks": 1, "attn_resolutions": (8,)}
CONFIGS = {
    "ddpmpp": UNetConfig(arch="ddpmpp", channels=8, channel_mult=(1, 2, 2), **_SHARED),
    "ncsnpp": UNetConfig(arch="ncsnpp", channels=8, channel_mult=(1, 2, 2), **_SHARED),
    "adm": UNetConfig(arch="adm", channels=32, channel_mult=(1, 4), **_SHARED),
}


def net(arch: str, guidance_dim: int = 0) -> nn.Module:
    return build_net(CONFIGS[arch], SPEC, guidance_dim)


def load(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Load the weights of a golden file into `module` (strict) and return the other tensors."""
    tensors = load_file(FOLDER / f"{name}.safetensors")
    state = {k.removeprefix("param."): v.float() for k, v in tensors.items() if "param." in k}
    module.load_state_dict(state, strict=True)
    return {k: v for k, v in tensors.items() if "param." not in k}


def layouts() -> dict[str, dict]:
    return json.loads((FOLDER / "checkpoint_layouts.json").read_text())


def relative(got: Tensor, want: Tensor) -> float:
    """Norm of the difference divided by the norm of `want`, in float64."""
    return float((got.double() - want.double()).norm() / want.double().norm())


def awaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Add noise to all weights, so that layers that start at zero affect the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module
