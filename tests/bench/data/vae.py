"""A tiny random AutoencoderKL of diffusers, in the folder that it saves."""

from pathlib import Path
from typing import Any

import torch


def tiny_vae(folder: Path, seed: int = 0, **settings: Any) -> Any:
    """Save an autoencoder of 44k parameters in `folder`: latents (4, h, w), images (3, 2h, 2w)."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16), norm_num_groups=4, **settings,
        )  # fmt: skip
    vae.eval().save_pretrained(folder)
    return vae
