"""The run that a network in a file becomes: method, settings, data set, card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from pydantic import ValidationError

from bench.data import DATASETS
from bench.data.card import prepared_names
from bench.data.decoder import IDENTITY, DecoderSource, decoder_source
from bench.data.find import find_dataset, has_dataset
from bench.data.published import check_class_order
from bench.experiment.provenance import provenance
from bench.system.errors import UserError, check_name, explain, unknown
from bench.system.files import sha256
from bench.training.card import IMPORTED, RunCard, method_class
from bench.training.checkpoint import misfit, shapes_of
from bench.training.importing.architecture import Architecture
from bench.training.importing.folders import read_folder
from bench.training.importing.recognise import architecture_of, is_repa, method_of
from bench.training.importing.source import SourceNetwork, read_source
from methods import DiffusersModel, Method, Settings
from methods.latents import LatentSpec
from methods.nets.config import UNetConfig
from methods.pretrained import Pretrained
from methods.spec import DataSpec
from methods.warm_start import fourier_scale

KNOWN_DATA = {
    ((3, 32, 32), 10): "cifar10",
    ((3, 64, 64), 1000): "imagenet64",
    ((4, 32, 32), 1000): "imagenet256",
    ((4, 64, 64), 1000): "imagenet512",
}
"""Data sets by the shape that networks model, latents of four channels included."""
DECODERS: Mapping[str, str] = {
    "edm2": "edm2-vae", "dit": "sd-vae", "sit": "sd-vae", "diffusers": "vae"
}  # fmt: skip
"""What makes pixels of a method's latents. Both are Stable Diffusion's autoencoder: for edm2-vae
its images are in [0, 1] and its latents whitened per channel, for sd-vae they are in [-1, 1] and
times 0.18215. Latents of diffusers are scaled as its folder says (vae)."""
LATENT_CHANNELS = 4
UNSHOWN = ("net.heads", "net.channels_per_head")
"""Settings of networks that their parameters do not show."""


@dataclass(frozen=True)
class Import:
    """The run that a file becomes; its weights fit the method's networks."""

    card: RunCard
    found: SourceNetwork
    architecture: Architecture[Settings]
    parameters: int
    warning: str = ""
    decoder: DecoderSource | None = None
    """What makes images of its samples, if these are latents and its files were named."""


def plan_import(
    path: Path,
    name: str,
    *,
    method: str | None = None,
    dataset: str | None = None,
    null_label: bool | None = None,
    key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    decoder: Path | None = None,
) -> Import:
    """Read a file, or a folder of diffusers, and decide all about its run; writes nothing.

    `decoder` is the folder of the autoencoder that makes images of latents.

    `null_label`: whether an edm network was trained with labels dropped; None: as the file says,
    else no. `key` names the network of a file that has several. `settings` are those of the method
    that the file cannot give, such as its sampler's.
    """
    check_name("run", name)
    if method is not None:
        method_class(method)
    given = dict(settings or {})
    architecture: Architecture[Settings]
    if path.is_dir():
        found, architecture = read_folder(path, given, dataset=dataset, null_label=null_label)
        chosen = method or DiffusersModel.name
    else:
        found = read_source(path, key)
        chosen = method or method_of(found, path)
        architecture = architecture_of(found, {k: given.pop(k) for k in UNSHOWN if k in given})
    cls = method_class(chosen)
    modelled = cls.config_type.model_fields["net"].annotation
    kind = modelled if issubclass(cls, Pretrained) else UNetConfig
    if type(architecture.net) is not kind:
        raise UserError(
            f"The network in {path} ({architecture.about}) is none of method {chosen}: name "
            "another --method, or none.",
            code=2,
        )
    steps: tuple[int, ...]
    if issubclass(cls, Pretrained):
        steps = (cls.usual_steps,)
        config = _pretrained_config(cls, found, architecture, null_label, given)
        name_of = config["decoder"]
        if name_of not in ("", IDENTITY):
            decoder = decoder or found.decoder
        source = _decoder(name_of, decoder, architecture.shape)
        spec = _spec(architecture, dataset, path, latent=bool(config["decoder"]), images=source)
    else:
        source = _decoder("", decoder, architecture.shape)
        spec = _spec(architecture, dataset, path)
        base, steps = _base(cls, spec)
        config = _config(cls, base, found, architecture, null_label, given)
    card = RunCard(
        name=name,
        method=chosen,
        dataset=spec.name,
        data_hash="",
        shape=spec.shape,
        num_classes=spec.num_classes,
        preset=IMPORTED,
        config=config,
        train=None,
        steps=steps,
        seed=0,
        init_checkpoint=found.digest or sha256(path),
        provenance={
            **provenance(),
            "imported_file": path.name,
            "imported_class": found.class_name or "state dict",
            "imported_key": found.key,
            "imported_licence": found.licence or "not stated",
            "training": "unknown",
        },
    )
    parameters = _check_match(cls(cls.config_type.model_validate(config), spec), found, path)
    warning = ""
    if architecture.num_classes and has_dataset(spec.name):
        warning = check_class_order(spec.name, find_dataset(spec.name).class_names)
    return Import(card, found, architecture, parameters, warning, source)


def _decoder(name: str, folder: Path | None, latents: tuple[int, ...]) -> DecoderSource | None:
    """The decoder called `name`, None without its folder; UserError if it does not fit."""
    if not name:
        if folder is not None:
            raise UserError("--decoder is for networks of latents, and this is none.", code=2)
        return None
    if folder is None and name != IDENTITY:
        return None
    found = decoder_source(name, folder)
    found.image_shape(latents)
    return found


def _spec(
    architecture: Architecture[Settings],
    dataset: str | None,
    path: Path,
    *,
    latent: bool = False,
    images: DecoderSource | None = None,
) -> DataSpec:
    """What the network models, with the name of its data set.

    The data set has the images that the decoder `images`, if it is known, makes of a `latent`.
    """
    shape, classes = architecture.shape, architecture.num_classes
    if dataset is None:
        if (shape, classes) not in KNOWN_DATA:
            raise UserError(
                f"{path} is for images of shape {shape} "
                + (f"in {classes} classes" if classes else "without classes")
                + ", and no known data set has this size: name it with --dataset.",
                code=2,
            )
        dataset = KNOWN_DATA[shape, classes]
    check_name("data set", dataset)
    known: dict[str, tuple[tuple[int, ...], int]] = {
        name: size for size, name in KNOWN_DATA.items()
    }
    if has_dataset(dataset):
        spec = find_dataset(dataset).spec
        made = images.image_shape(shape) if images is not None else spec.shape
        # Without its decoder a network of latents fits images of any size.
        fits = latent and made == spec.shape
        known[dataset] = (shape if fits else spec.shape, spec.num_classes)
    elif dataset not in known and not classes:
        names = {*DATASETS, *prepared_names(), *known}
        raise unknown("data set of an unconditional network", dataset, names)
    size, count = known.get(dataset, (shape, classes))
    if size != shape or classes not in (0, count):
        raise UserError(
            f"{path} is for images of shape {shape} in {classes} classes, and the data set "
            f"{dataset!r} has {size} in {count}.",
            code=2,
        )
    return (LatentSpec if latent else DataSpec)(dataset, shape, count)


def _base(cls: type[Method[Any]], spec: DataSpec) -> tuple[Settings, tuple[int, ...]]:
    """Default settings for what the file does not say, and sampling steps.

    From a preset for such images, or else the defaults of the method, not a preset for other data.
    """
    nets = {name: getattr(preset.config, "net", None) for name, preset in cls.presets.items()}
    images = [name for name, net in nets.items() if isinstance(net, UNetConfig)]
    for name in images:
        if cls.presets[name].fits(spec):
            return cls.presets[name].config, cls.presets[name].steps
    if not images:
        raise UserError(f"Method {cls.name!r} has no network for images to load.", code=2)
    defaults = cls.config_type.model_validate({"net": nets[images[0]]})
    return defaults, cls.presets[images[0]].steps


def _config(
    cls: type[Method[Any]],
    base: Settings,
    found: SourceNetwork,
    architecture: Architecture[Settings],
    null_label: bool | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    fields = cls.config_type.model_fields
    arguments = {**found.arguments.get("model", {}), **found.arguments.get("", {})}
    tree: dict[str, Any] = base.model_dump(mode="json")
    net = architecture.net.model_dump(mode="json")
    dropout = arguments.get("dropout")
    if _is_number(dropout):
        net["dropout"] = dropout
    scale = fourier_scale(found.tensors)
    if scale:
        # The file has draws of N(0, scale^2): a published scale, or that of the draws.
        near = [known for known in (0.02, 16.0) if 0.5 < scale / known < 2]
        net["fourier_scale"] = near[0] if near else float(f"{scale:.3g}")
    tree["net"] = net
    if "guidance_dim" in fields and architecture.guidance_dim:
        tree["guidance_dim"] = architecture.guidance_dim
    # EDM's networks have 0 and infinity if any noise level is allowed.
    for key in ("sigma_data", "sigma_min", "sigma_max"):
        value = arguments.get(key, 0.0)
        if key in fields and _is_number(value) and value > 0:
            tree[key] = value
    if "null_label" in fields:
        dropped = arguments.get("label_dropout", 0.0)
        dropped = dropped if _is_number(dropped) and 0 <= dropped < 1 else 0.0
        knows = dropped > 0 if null_label is None else null_label
        tree["null_label"] = knows or architecture.num_classes == 0
        # An unknown share is that of the method.
        if dropped > 0 or not knows:
            tree["label_dropout"] = dropped
    own = tree.keys() - {"net", "guidance_dim"}
    for name in settings:
        if name not in own:
            raise unknown("setting of an imported run", name, own)
    tree.update(settings)
    try:
        return cls.config_type.model_validate(tree).model_dump(mode="json")
    except ValidationError as error:
        given = "The arguments in the file" + (" and those of --set" if settings else "")
        raise UserError(
            f"{given} are not valid settings of {cls.name}: {explain(error)}."
        ) from None


def _pretrained_config(
    cls: type[Pretrained[Any]],
    found: SourceNetwork,
    architecture: Architecture[Settings],
    null_label: bool | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings of a method whose networks all come from files."""
    fields = cls.config_type.model_fields
    own = fields.keys() - {"net", "null_label"}
    for name in settings:
        if name not in own:
            raise unknown("setting of an imported run", name, {*own, *UNSHOWN})
    latents = architecture.image_channels == LATENT_CHANNELS
    shown = {"decoder": DECODERS[cls.name] if latents else "", **found.settings}
    decoder = settings.get("decoder", shown["decoder"])
    tree: dict[str, Any] = {
        **shown, "net": architecture.net.model_dump(mode="json"), "clamp": not decoder
    }  # fmt: skip
    sigma_data = found.arguments.get("", {}).get("sigma_data")
    if "sigma_data" in fields and _is_number(sigma_data) and sigma_data > 0:
        tree["sigma_data"] = sigma_data
    if "time" in fields and is_repa(found):
        tree |= {"time": "repa", "channels": "all"}
    if null_label is not None or not architecture.num_classes:
        tree["null_label"] = null_label or not architecture.num_classes
    tree |= settings
    if "time" in fields and "time" not in tree:
        raise UserError(
            "The file does not show the direction of time: add --set time=sit for networks of SiT, "
            "where time 0 is noise, or --set time=repa for those of REPA, where it is data. With "
            "the wrong one samples are noise.",
            code=2,
        )
    try:
        return cls.config_type.model_validate(tree).model_dump(mode="json")
    except ValidationError as error:
        raise UserError(f"These are not valid settings of {cls.name}: {explain(error)}.") from None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_match(method: Method[Any], found: SourceNetwork, path: Path) -> int:
    """Number of trainable parameters; UserError unless names and shapes match the file's."""
    try:
        with torch.device("meta"):
            nets = method.build()
    except (ValueError, RuntimeError) as error:  # RuntimeError: sizes beyond any machine's
        raise UserError(f"{method.name} has no network like that in {path}: {error}.") from None
    differing = misfit(shapes_of(nets.state_dict()), found.shapes, listed=20)
    if differing:
        raise UserError(f"The tensors in {path} do not fit {method.name}: {differing}.")
    return sum(p.numel() for p in nets.parameters() if p.requires_grad)
