"""The preset of a method for a data set: by name, by the shape of the data, or scaled to it."""

from __future__ import annotations

import math
from typing import Any

from bench.data import DATASETS
from bench.system.errors import UserError, counted, unknown
from methods import METHODS, Method, Preset
from methods.nets.config import MLPConfig, UNetConfig
from methods.nets.scaled import scaled_unet
from methods.settings import TrainSettings
from methods.spec import DataSpec

AUTO = "auto"
"""The preset that is made for a shape: the settings of another, with a network of fitting size."""
SCHEDULES = {8: (1.0, 1, 1.0), 16: (5.0, 1, 1.0), 32: (7.0, 8, 0.3)}
"""By pixels per side: iterations, batch and lr over those at 8 pixels.

These are about the geometric means of the methods that have small presets for all three sizes.
"""


def find_preset(
    method: type[Method[Any]], spec: DataSpec, preset: str | None
) -> tuple[str, Preset]:
    """The preset by name; None: that of `default_preset`, or else "auto".

    UserError if there is no such preset, or if it does not fit the data.
    """
    name = preset or default_preset(method, spec) or AUTO
    if name in method.presets:
        found = method.presets[name]
        if not fits(found, spec):
            images = "" if found.shape is None else f" and other images of shape {found.shape}"
            raise UserError(
                f"Preset {name!r} of {method.name} is for the data set {found.dataset!r}{images}, "
                f"not {spec.name!r} {spec.shape}: drop --preset or --dataset.",
                code=2,
            )
        return name, found
    if not method.presets:
        raise UserError(
            f"{method.name} is not trained here: its networks come from bench import.", code=2
        )
    if name != AUTO:
        raise unknown(f"preset of {method.name}", name, [*method.presets, AUTO])
    base = _auto_base(method, spec)
    if base is None:
        have = ", ".join(sorted({p.dataset for p in method.presets.values()})) or "none"
        raise UserError(
            f"Method {method.name!r} has no preset for the data set {spec.name!r}; it has presets "
            f"for: {have}.",
            code=2,
        )
    try:
        return AUTO, _scaled(method.presets[base], spec)
    except ValueError as error:
        raise UserError(
            f"Method {method.name!r} has no preset for the data set {spec.name!r}, and {AUTO!r} "
            f"cannot make one: {error}.",
            code=2,
        ) from None


def default_preset(method: type[Method[Any]], spec: DataSpec) -> str | None:
    """The preset named like the data set, or else the first that fits and is not full size."""
    if spec.name in method.presets:
        return spec.name
    small = (name for name, p in method.presets.items() if not p.full_size and fits(p, spec))
    return next(small, None)


def fits(preset: Preset, spec: DataSpec) -> bool:
    """Whether a preset can be used for data of `spec`: its own data set, or data of its shape."""
    return preset.fits(spec) or spec.shape == _shape(preset)


def described_choice(method: str, spec: DataSpec, preset: str | None) -> str:
    """What preset was chosen or made for the data, in a line; '' for a named or the data's own."""
    cls = METHODS[method]
    name, found = find_preset(cls, spec, preset)
    values = counted(spec.shape[0], "value")
    data = f"images of {'x'.join(map(str, spec.shape))}" if spec.is_image else f"points of {values}"
    if name != AUTO or name in cls.presets:
        if preset is not None or name == spec.name:
            return ""
        return f"{spec.name}: preset {name}, which fits {data}."
    net = getattr(found.config, "net", None)
    base = _auto_base(cls, spec)
    text = f"{spec.name}: preset {AUTO}, the settings of {base} with a network for {data}"
    if not isinstance(net, UNetConfig):
        return f"{text}."
    train, length = found.train, ""
    if train is not None and train != cls.presets[str(base)].train:
        length = f"; trained for {counted(train.iterations, 'step')} of {train.batch:,} images"
    attends = "".join(f", attention at {side}x{side}" for side in net.attn_resolutions)
    return (
        f"{text}: {net.channels} channels x {net.channel_mult}, blocks per level: "
        f"{net.num_blocks}{attends}{length}."
    )


def _shape(preset: Preset) -> tuple[int, ...] | None:
    """The shape of a preset's data; None if its data set is not registered."""
    if preset.shape is not None:
        return preset.shape
    return DATASETS[preset.dataset]().spec.shape if preset.dataset in DATASETS else None


def _auto_base(method: type[Method[Any]], spec: DataSpec) -> str | None:
    """The preset whose settings "auto" takes: of those for images, or points, the nearest in size.

    None if the method has none whose network can be scaled.
    """
    kind = UNetConfig if spec.is_image else MLPConfig
    sizes: dict[str, float] = {}
    for name, preset in method.presets.items():
        shape, net = _shape(preset), getattr(preset.config, "net", None)
        if preset.train is not None and not preset.full_size and shape and isinstance(net, kind):
            sizes[name] = abs(math.log(shape[-1] / spec.shape[-1]))
    return min(sizes, key=lambda name: sizes[name], default=None)


def _scaled(preset: Preset, spec: DataSpec) -> Preset:
    """`preset` for data of another shape. Raises ValueError if no network fits it."""
    # It belongs to no data set, so that its runs are named after theirs.
    preset, shape = preset.model_copy(update={"dataset": "", "shape": None}), _shape(preset)
    if not spec.is_image or shape is None or preset.train is None:
        return preset
    net = scaled_unet(spec.shape, preset.config.net.dropout)  # type: ignore[attr-defined]
    return preset.model_copy(
        update={
            "config": preset.config.model_copy(update={"net": net}),
            "train": _longer(preset.train, shape[-1], spec.shape[-1]),
        }
    )


def _longer(train: TrainSettings, side: int, new_side: int) -> TrainSettings:
    """The schedule for images of `new_side` pixels, from the one for images of `side` pixels."""
    old, new = (min(SCHEDULES, key=lambda s: abs(math.log(s / n))) for n in (side, new_side))
    if old == new:
        return train
    (old_length, old_batch, old_lr), (length, batch, lr) = SCHEDULES[old], SCHEDULES[new]
    return train.model_copy(
        update={
            "iterations": max(1, round(train.iterations * length / old_length)),
            "batch": max(1, train.batch * batch // old_batch),
            "lr": float(f"{train.lr * lr / old_lr:.3g}"),
        }
    )
