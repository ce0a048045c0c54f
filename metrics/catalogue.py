"""The catalogue of extractors: a summary of each, and the published files of their weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """A line about an extractor; `dim` is 0 if it depends on the data."""

    summary: str
    dim: int


SUMMARIES: dict[str, Summary] = {
    "identity": Summary("vectors, unchanged", 0),
    "classifier": Summary("trained on the data set, 64 features or 128 for photographs", 0),
    "efficientnet-lite0": Summary("EfficientNet-Lite0, pooled, 128 px bicubic", 1280),
    "inception": Summary("Inception-v3 of FID, pool3, TensorFlow 1's resize to 299 px", 2048),
    "inception-spatial": Summary("Inception-v3, unpooled features of sFID, as inception", 2023),
    "inception-clean": Summary("Inception-v3 of FID, pool3, clean-fid's resize to 299 px", 2048),
    "vgg16": Summary("VGG16, second hidden layer, TensorFlow 1's resize to 224 px", 4096),
    "dinov2": Summary("DINOv2 ViT-L/14, class token, 224 px bicubic", 1024),
    "dinov2-vit-s-14": Summary("DINOv2 ViT-S/14, otherwise as dinov2", 384),
    "dinov2-vit-b-14": Summary("DINOv2 ViT-B/14, otherwise as dinov2", 768),
    "dinov2-vit-g-14": Summary("DINOv2 ViT-g/14, otherwise as dinov2", 1536),
    "clip": Summary("CLIP ViT-L/14 at 336 px, unit-length embedding, bicubic", 768),
}
"""By the extractor's name; those of plugins are not here."""


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    `sha256` is the published hash, or its published beginning (often in the file's name); "" if
    none is published. `mib` is the rounded size. `url` is only used on request. `purpose` says what
    needs the file, `instead` what works without it. `also` names files with the same tensors in
    another format.
    """

    title: str
    file: str
    sha256: str
    mib: int
    url: str
    purpose: str
    instead: str
    also: tuple[str, ...] = ()

    @property
    def hash_words(self) -> str:
        """The published hash in words, for messages."""
        if not self.sha256:
            return "SHA-256 not published"
        return f"SHA-256 {'begins ' if len(self.sha256) < 64 else ''}{self.sha256}"

    def matches(self, sha256: str) -> bool:
        """Whether a file with this full hash may be the published one; True if none is known."""
        return sha256.startswith(self.sha256)


INCEPTION = WeightsFile(
    title="Inception",
    file="weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
    mib=91,
    url=(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    ),
    purpose="extractors inception, inception-clean and inception-spatial: FID and sFID",
    instead="FD on efficientnet-lite0, not comparable with published numbers",
)
VGG16 = WeightsFile(
    title="VGG16",
    file="vgg16-397923af.pth",
    sha256="397923af",
    mib=528,
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    purpose="extractor vgg16: precision and recall as first published",
    instead="precision and recall on efficientnet-lite0",
)
ALEXNET = WeightsFile(
    title="AlexNet",
    file="alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
    mib=233,
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    purpose="LPIPS of inversions, with the package lpips",
    instead="PSNR and SSIM of inversions",
)
CLIP = WeightsFile(
    title="CLIP",
    file="ViT-L-14-336px.pt",
    sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    mib=891,
    url=(
        "https://openaipublic.azureedge.net/clip/models/"
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"
    ),
    purpose="extractor clip: CMMD",
    instead="KID on efficientnet-lite0",
    also=("ViT-L-14-336px.safetensors",),
)


def _dinov2(letter: str, mib: int, extractor: str) -> WeightsFile:
    model = f"dinov2_vit{letter}14"
    return WeightsFile(
        title=f"DINOv2 ViT-{letter.upper() if letter != 'g' else letter}/14",
        file=f"{model}_pretrain.pth",
        sha256="",
        mib=mib,
        url=f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth",
        purpose=f"extractor {extractor}: FD-DINOv2"
        + ("" if letter == "l" else " of another size, comparable only within this size"),
        instead="FD on efficientnet-lite0, not comparable with published numbers",
        also=(f"{model}_pretrain.safetensors",),
    )


DINOV2 = {
    "dinov2": _dinov2("l", 1161, "dinov2"),
    "dinov2-vit-s-14": _dinov2("s", 84, "dinov2-vit-s-14"),
    "dinov2-vit-b-14": _dinov2("b", 330, "dinov2-vit-b-14"),
    "dinov2-vit-g-14": _dinov2("g", 4336, "dinov2-vit-g-14"),
}

WEIGHTS: dict[str, WeightsFile] = {
    "inception": INCEPTION,
    "inception-spatial": INCEPTION,
    "inception-clean": INCEPTION,
    "vgg16": VGG16,
    **DINOV2,
    "clip": CLIP,
}
"""The file that an extractor reads, by the extractor's name; others need none."""

FILES: tuple[WeightsFile, ...] = (*dict.fromkeys(WEIGHTS.values()), ALEXNET)
"""Each file once, in the order of listings."""
