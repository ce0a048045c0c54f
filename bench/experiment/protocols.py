"""How the field measures: sets of metrics with their features, k, tie rule and sample counts."""

from __future__ import annotations

from dataclasses import dataclass

from bench.system.errors import unknown

INCEPTION, SPATIAL, LITE = "inception", "inception-spatial", "efficientnet-lite0"
FID_SAMPLES = 50_000
FLOAT32 = (
    "features and distances are float32 here; the reference code's float16 raises precision and "
    "recall by 0.003 to 0.004"
)


@dataclass(frozen=True)
class Measure:
    """A metric on the features of an extractor; `title` is its name in the field, if it has one."""

    metric: str
    extractor: str
    title: str = ""


@dataclass(frozen=True)
class Protocol:
    """Measures, and the numbers of images they are defined for.

    More generated images than `samples`, or more real ones than `reference_most`, are drawn from at
    random with a fixed seed, fewer are a warning; None leaves them as they are. `notes` says where
    our numbers are not those of the reference code.
    """

    name: str
    summary: str
    measures: tuple[Measure, ...]
    samples: int | None = None
    reference: int | None = None
    reference_most: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def extractors(self) -> tuple[str, ...]:
        """Every extractor once, in order."""
        return tuple(dict.fromkeys(m.extractor for m in self.measures if m.extractor))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric once, in order."""
        return tuple(dict.fromkeys(m.metric for m in self.measures))

    def has(self, metric: str, extractor: str) -> bool:
        """Whether it measures this metric on the features of this extractor."""
        return any((m.metric, m.extractor) == (metric, extractor) for m in self.measures)


def _on(extractor: str, *metrics: str) -> tuple[Measure, ...]:
    return tuple(Measure(metric, extractor) for metric in metrics)


K3 = ("precision_k3", "recall_k3", "density_k3", "coverage_k3")
K5 = ("precision_k5_strict", "recall_k5_strict", "density_k5_strict", "coverage_k5_strict")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "edm-fid50k",
            "FID of EDM: 50,000 images against all training images, Inception, resize of "
            "TensorFlow 1",
            (Measure("fd", INCEPTION, "FID"),),
            samples=FID_SAMPLES,
            reference=50_000,
            notes=(
                "EDM's papers give the least of three seeds, which is 0.85 standard deviations "
                "below their mean",
            ),
        ),
        Protocol(
            "adm",
            "evaluator of ADM: FID, sFID, IS of splits of 5,000 in order, precision and recall "
            "(k = 3, ties inside) on Inception features, 50,000 images against 10,000",
            (
                Measure("fd", INCEPTION, "FID"),
                Measure("fd", SPATIAL, "sFID"),
                *_on(INCEPTION, "is_5000", "precision_k3", "recall_k3"),
            ),
            samples=FID_SAMPLES,
            reference=10_000,
            notes=(
                FLOAT32,
                "ADM's reference files have moments of all training images and 10,000 images for "
                "precision and recall; both are used",
            ),
        ),
        Protocol(
            "nvidia-pr50k3",
            "precision and recall of NVIDIA's code: VGG16 fc2 after ReLU, k = 3, ties inside, "
            "50,000 images against 50,000",
            _on("vgg16", "precision_k3", "recall_k3"),
            samples=50_000,
            reference=50_000,
            notes=(FLOAT32,),
        ),
        Protocol(
            "dgm-eval-dinov2",
            "dgm-eval: Frechet distance, precision, recall, density and coverage (k = 5, ties "
            "outside) on DINOv2 ViT-L/14, 10,000 images against 10,000",
            (Measure("fd", "dinov2", "FD-DINOv2"), *_on("dinov2", *K5)),
            samples=10_000,
            reference=10_000,
            reference_most=10_000,
            notes=(
                "dgm-eval has the Frechet distance of all images, as its papers report at 50,000; "
                "here all numbers are of the 10,000",
            ),
        ),
        Protocol(
            "cmmd",
            "CMMD: Gaussian kernel distance of CLIP ViT-L/14 embeddings at 336 pixels, times 1000",
            (Measure("cmmd", "clip", "CMMD"),),
        ),
        Protocol(
            "offline",
            "no download, works everywhere: Frechet and kernel distance, precision, recall, "
            "density and coverage (k = 3, ties inside) on EfficientNet-Lite0",
            _on(LITE, "fd", "fd_corrected", "kid", *K3),
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, or a UserError with the closest match."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def title(label: str, metric: str, extractor: str, n: int, protocol: str = "") -> str:
    """What a value is called in tables: as in the field where it is that, else with all it is.

    "FID" and "sFID" are only those of 50,000 images.
    """
    for measure in PROTOCOLS[protocol].measures if protocol else ():
        if (measure.metric, measure.extractor) == (metric, extractor) and measure.title:
            fid = measure.title in ("FID", "sFID")
            if fid and n == FID_SAMPLES:
                return measure.title
            if not fid and n == (PROTOCOLS[protocol].samples or n):
                return f"{measure.title} @{n}"
    return " ".join(part for part in (label, extractor, f"@{n}") if part)
