"""Networks with random weights, in the published file formats."""

import io
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from metrics.catalogue import INCEPTION


class Blank(FeatureExtractorInceptionV3):
    """torch-fidelity's network, whose weights are not loaded."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        pass


def random_inception(folder: Path) -> Path:
    """A file in the format of the published one, with random weights."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    net = Blank("blank", ["2048"], feature_extractor_weights_path=empty)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            # Keeps the scale of activations over 48 layers; with the default they vanish.
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    path = folder / INCEPTION.file
    torch.save(net.state_dict(), path)
    return path
