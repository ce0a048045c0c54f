"""Folders that diffusers' save_pretrained wrote: a pipeline, or one network.

Only JSON and safetensors are read, and only as data. The classes are those of the installed
diffusers, from a fixed list.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from bench.data.decoder import OWN
from bench.data.find import find_dataset, has_dataset
from bench.experiment.identity import digest
from bench.system.bounds import read_json
from bench.system.errors import UserError, explain, shown
from bench.system.files import sha256
from bench.training.importing.architecture import Architecture, invalid_settings
from bench.training.importing.licence import licence_of
from bench.training.importing.source import SourceNetwork, read_source
from methods.diffusers_models import (
    NEEDED,
    DiffusersNet,
    Kind,
    Schedule,
    diffusers_levels,
)

KINDS: tuple[str, ...] = get_args(Kind)
INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
NOT_APPLIED = {
    "clip_sample": (
        True,
        "clip with --rule dynamic-threshold --knob dynamic-threshold.percentile=0",
    ),
    "thresholding": (True, "--rule dynamic-threshold does it"),
    "set_alpha_to_one": (False, "the last step goes to noise level 0"),
}
"""Settings of schedulers that change its samples: the value, and what there is here instead."""
HIGHEST = 160.0
"""Level at which sampling starts by default, if the schedule has higher ones."""
LAYERS = ("num_layers", "layers_per_block")
TEXT = ("cross_attention_dim", "caption_channels", "num_vector_embeds")
"""Arguments of transformers that take something else than images and classes."""
_OLD_ATTENTION = re.compile(r"(attentions\.\d+\.)(query|key|value|proj_attn)\.")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_JSON = TypeAdapter(dict[str, Any])


def read_folder(
    path: Path, given: dict[str, Any], *, dataset: str | None, null_label: bool | None
) -> tuple[SourceNetwork, Architecture[DiffusersNet]]:
    """The network of a folder, with the settings that the folder shows, and its architecture.

    `given` are the user's settings, from which those of the schedule are taken. `null_label`:
    whether the last of a U-Net's class embeddings is for no class; None: if `dataset` has one class
    less. UserError for what is no such folder or not supported, and without diffusers.
    """
    try:
        import diffusers
    except ImportError:
        raise UserError(f"{path} is a folder of diffusers, and {NEEDED}.", code=2) from None
    model, scheduler = _parts(path)
    config = _json(model / "config.json")
    kind = config.get("_class_name")
    if kind not in KINDS:
        raise UserError(
            f"{model / 'config.json'} is of the class {shown(str(kind))}, and networks with class "
            f"labels are imported: {', '.join(KINDS)}."
        )
    arguments = _arguments(getattr(diffusers, kind), config, model / "config.json")
    fault = _fault(kind, arguments)
    if fault:
        raise UserError(f"The {kind} in {model} cannot be imported: {fault}.")
    with invalid_settings(""):
        net = DiffusersNet(kind=kind, arguments=arguments)
    classes = _classes(net, dataset, null_label)
    settings, files, notes = _schedule(scheduler, path, given)
    weights = _weights(model)
    files += [model / "config.json", *weights]
    found = _read(weights)
    layers = _layers(arguments)
    if layers > len(found.tensors):  # before that many layers are built
        raise UserError(f"{model} has {len(found.tensors)} tensors, too few for {layers} layers.")
    if net.conditional:
        settings["null_label"] = classes < net.embeddings and null_label is not False
    vae = path / "vae" if (path / INDEX).exists() and (path / "vae").is_dir() else None
    if vae is not None:
        settings["decoder"] = OWN
    found = replace(
        found,
        decoder=vae,
        class_name=kind,
        settings=settings,
        notes=(*found.notes, *notes),
        digest=digest({file.name: sha256(file) for file in files}),
        licence=licence_of([path, model] + [path.parent] * (path.parent / INDEX).exists()),
    )
    return found, _architecture(net, classes, settings)


def _parts(path: Path) -> tuple[Path, Path]:
    """The folder of the network, and the file of its scheduler, which may be missing."""
    if not (path / INDEX).exists():
        if not (path / "config.json").exists():
            raise UserError(
                f"{path} has neither {INDEX} nor config.json: name a folder that diffusers' "
                "save_pretrained wrote, or a file of weights."
            )
        inside = (path.parent / INDEX).exists()
        return path, (path.parent / "scheduler" if inside else path) / "scheduler_config.json"
    index = _json(path / INDEX)
    named = {name: index.get(name) for name in ("transformer", "unet")}
    parts = {n: v for n, v in named.items() if isinstance(v, list) and any(v)}
    if len(parts) != 1:
        raise UserError(
            f"The pipeline in {path} ({shown(str(index.get('_class_name')))}) has no transformer "
            "or unet, or both: name the folder of its network."
        )
    [(name, value)] = parts.items()
    if value[0] != "diffusers":
        raise UserError(
            f"The {name} in {path} is of {shown(str(value[0]))}, whose code is not run: only "
            "classes of diffusers are imported. A network of your own comes in as a function: "
            "bench sweep --model FILE:NAME."
        )
    return path / name, path / "scheduler" / "scheduler_config.json"


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, _JSON.validate_json, "a configuration of diffusers", "save it again")


def _arguments(cls: type[Any], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """All arguments of a constructor: those in its config.json, and defaults."""
    import diffusers

    known = {n: p.default for n, p in inspect.signature(cls).parameters.items()}
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    strange = sorted(k for k, v in given.items() if k not in known and v is not None)
    if strange:
        raise UserError(
            f"{path} has {shown(strange[0])}, which {cls.__name__} of diffusers "
            f"{diffusers.__version__} does not know: install another version."
        )
    return known | {k: v for k, v in given.items() if k in known}


def _fault(kind: str, given: Mapping[str, Any]) -> str:
    """Why a network is not one from images and classes to images, or ''."""
    size = given["sample_size"]
    if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    channels, outputs = given["in_channels"], given["out_channels"] or given["in_channels"]
    if not all(type(n) is int and n > 0 for n in (size, channels, outputs, _layers(given))):
        names = ("sample_size", "in_channels", "out_channels", *LAYERS)
        found = ", ".join(f"{k} {given[k]}" for k in names if k in given)
        return f"supported are square images of a known size, and it has {shown(found)}"
    if outputs not in (channels, 2 * channels):
        return f"it makes {outputs} channels of {channels}"
    if kind == "UNet2DModel":
        if given["class_embed_type"] is not None:
            return f"its classes are no table but {shown(str(given['class_embed_type']))}"
        if given["time_embedding_type"] not in ("positional", "learned"):
            return "its times are noise levels (fourier), not those of a scheduler's table"
        return ""
    other = [name for name in TEXT if given.get(name) is not None]
    if other:
        return f"it has {other[0]}, and only images and classes are given to it"
    if given["norm_type"] != "ada_norm_zero" or given["num_embeds_ada_norm"] is None:
        norm = shown(str(given["norm_type"]))
        return f"it takes no class labels (norm_type {norm}, not ada_norm_zero)"
    return ""


def _layers(given: Mapping[str, Any]) -> Any:
    return next(given[name] for name in LAYERS if name in given)


def _classes(net: DiffusersNet, dataset: str | None, null_label: bool | None) -> int:
    """The number of classes; a transformer's table always has one row more, for no class."""
    rows = net.embeddings
    if rows == 0 or net.kind != "UNet2DModel":
        return max(rows - 1, 0)
    known = dataset is not None and has_dataset(dataset)
    less = known and find_dataset(str(dataset)).spec.num_classes == rows - 1
    return rows - 1 if null_label or (null_label is None and less) else rows


def _schedule(
    path: Path, folder: Path, given: dict[str, Any]
) -> tuple[dict[str, Any], list[Path], list[str]]:
    """The settings of the scheduler in `path` and of the user, the files that were read, and notes.

    The notes are sentences about settings that are not applied.
    """
    from diffusers import schedulers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    own = {k: given.pop(k) for k in list(given) if k.startswith("schedule.")}
    own = {k.removeprefix("schedule."): v for k, v in own.items()}
    read: dict[str, Any] = {}
    if path.exists():
        config = _json(path)
        name = str(config.get("_class_name"))
        kinds = KarrasDiffusionSchedulers.__members__
        cls = getattr(schedulers, name) if name in kinds else None
        known = {} if cls is None else inspect.signature(cls).parameters
        if "beta_schedule" not in known:
            raise UserError(
                f"{path} is of {shown(name)}, and needed is a scheduler with a table of "
                "betas, such as DDIMScheduler."
            )
        read = {n: p.default for n, p in known.items() if p.default is not p.empty} | config
        predicts = read.get("prediction_type")
        if predicts not in PREDICTIONS:
            raise UserError(
                f"{path} has prediction_type {shown(str(predicts))}; known are: "
                f"{', '.join(PREDICTIONS)}."
            )
    elif "prediction" not in given:
        raise UserError(
            f"{folder} has no scheduler: say what its network predicts, with --set "
            "prediction=eps, v or sample, and how noise grows, unless as in DDPM, such as with "
            "--set schedule.beta_schedule=scaled_linear.",
            code=2,
        )
    try:
        fields = {k: v for k, v in read.items() if k in Schedule.model_fields}
        schedule = Schedule.model_validate(fields | own)
        levels = diffusers_levels(schedule)
    except (ValidationError, ValueError) as error:
        why = explain(error) if isinstance(error, ValidationError) else error
        raise UserError(f"The schedule of {folder} is not valid: {why}.") from None
    settings = {
        "schedule": schedule.model_dump(mode="json"),
        "sigma_min": float(levels[0]),
        "sigma_max": min(float(levels[-1]), HIGHEST),
    }
    if read:
        settings["prediction"] = PREDICTIONS[read["prediction_type"]]
    notes = [
        f"Not applied: {name} = {value} of the scheduler; {instead}."
        for name, (value, instead) in NOT_APPLIED.items()
        if read.get(name) is value
    ]
    return settings, [path] if read else [], notes


def _weights(folder: Path) -> list[Path]:
    """The safetensors files of a network."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"
    if index.exists():
        mapped = _json(index).get("weight_map")
        names = {str(v) for v in mapped.values()} if isinstance(mapped, dict) else set()
        if not names or any(Path(n).name != n or not n.endswith(".safetensors") for n in names):
            raise UserError(f"{index} names no .safetensors files of its folder.")
        return [folder / name for name in sorted(names)]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) > 1:
        raise UserError(f"{folder} has several files of weights: keep one as {WEIGHTS}.")
    if not found:
        pickled = any(folder.glob("*.bin"))
        raise UserError(
            f"{folder} has no .safetensors file"
            + (", and pickles (.bin) are not opened" if pickled else "")
            + ": save its network again, with save_pretrained(DIR, safe_serialization=True)."
        )
    return found


def _read(files: list[Path]) -> SourceNetwork:
    """The tensors of all files, under the names that diffusers has today."""
    first, *others = map(read_source, files)
    tensors = dict(first.tensors)
    for other in others:
        tensors |= other.tensors

    def renamed(match: re.Match[str]) -> str:
        return f"{match[1]}{_NEW_ATTENTION[match[2]]}."

    return replace(first, tensors={_OLD_ATTENTION.sub(renamed, k): v for k, v in tensors.items()})


def _architecture(
    net: DiffusersNet, classes: int, settings: Mapping[str, Any]
) -> Architecture[DiffusersNet]:
    given = net.arguments
    size, channels = given["sample_size"], given["in_channels"]
    size = size[0] if isinstance(size, tuple) else size
    assert isinstance(size, int)
    assert isinstance(channels, int)
    variance = (given["out_channels"] or channels) != channels
    times = settings["schedule"]["num_train_timesteps"]
    return Architecture(
        net=net,
        about=f"{net.kind} at {times} times" + (", variance not used" if variance else ""),
        resolution=size,
        image_channels=channels,
        num_classes=classes,
    )
