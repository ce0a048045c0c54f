"""Small transformers with random weights under the published names."""

import torch

WIDTH, BLOCKS = 128, 2


def dino_state(width=WIDTH, blocks=BLOCKS, grid=37, gated=False, seed=0):
    """DINOv2's names, with positions for `grid` x `grid` patches of 14 pixels."""
    hidden = 4 * width
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid * grid, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(blocks):
        block = {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "ls1.gamma": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "ls2.gamma": (width,),
        }
        if gated:
            block |= {
                "mlp.w12.weight": (2 * hidden, width),
                "mlp.w12.bias": (2 * hidden,),
                "mlp.w3.weight": (width, hidden),
                "mlp.w3.bias": (width,),
            }
        else:
            block |= {
                "mlp.fc1.weight": (hidden, width),
                "mlp.fc1.bias": (hidden,),
                "mlp.fc2.weight": (width, hidden),
                "mlp.fc2.bias": (width,),
            }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return random_tensors(shapes, seed)


def random_tensors(shapes, seed=0):
    """Random numbers, large enough for every weight to matter."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.1 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }
