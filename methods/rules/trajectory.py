"""Sampling under a guidance rule: EDM's Heun sampler, or Euler steps for first-order rules.

Source: Karras et al. (2022, EDM, algorithms 1 and 2) for the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from methods.guidance import Guidance
from methods.rng import SampleRNG
from methods.rules.base import Branch, Call, Networks, Point, Rule
from methods.samplers import Churn, heun_step, sample_heun

CPU_ROWS, CPU_VALUES = 512, 1 << 12
"""Largest call for both branches on a CPU: rows, and values of x.

Time of sampling with one call over that with two, on one core:

    modes1d, batch of    64   256   512  1024      digits, batch of     8    32    64   256
                        .68   .85   .94   1.4                         .70   .94   1.1   1.1

In larger calls malloc returns the memory of a layer to the system, and the next layer fills fresh
pages. Other devices always use one call, which has half the kernel launches (not measured).
A batch whose call does not fit into memory is halved by the caller.
"""


def sample_guided(
    networks: Networks,
    x: Tensor,
    sigmas: Tensor,
    labels: Tensor,
    guidance: Guidance,
    rng: SampleRNG,
    *,
    dtype: torch.dtype = torch.float64,
    churn: Churn | None = None,
) -> Tensor:
    """Samples (B, ...) in `dtype` from `x` (B, ...), the noisy state at sigmas[0].

    `sigmas` (N + 1,) descend, `labels` (B, K) are one-hot. At g = 1 the conditional denoiser is
    integrated and no other branch is evaluated. All random draws, those of `churn` and of the rule,
    come from `rng`.
    """

    def draw() -> Tensor:
        return rng.randn(x.shape[1:], x.device)

    if guidance.is_off:
        return sample_heun(
            lambda x, s: networks.main(x, s, labels), x, sigmas, dtype=dtype,
            churn=churn, draw=draw if churn else None,
        )  # fmt: skip
    rule = guidance.rule
    x = x.to(dtype)
    state: dict[str, Any] = {}
    points = list(trajectory_points(rule, sigmas, churn))
    steps = len(sigmas) - 1
    for step in range(steps):
        stages = [p for p in points if p.step == step]
        if churn is not None:
            x = churn.add(x, float(sigmas[step]), stages[0].start, draw)
        calls = [Call(x, x.new_tensor(p.sigma), p, labels, guidance.scale, networks, rng, state)
                 for p in stages]  # fmt: skip
        x_next = _euler(rule, calls[0]) if len(calls) == 1 else _heun(rule, calls)
        rule.after_step(x, x_next, calls[0])
        x = x_next
    return x


def trajectory_points(
    rule: Rule[Any], sigmas: Tensor, churn: Churn | None = None
) -> Iterator[Point]:
    """The denoiser calls of a trajectory over `sigmas`: two per step, one for a step to 0.

    With `churn` a step starts at the level to which it adds noise.
    """
    levels = tuple(sigmas.tolist())
    for step, (level, end) in enumerate(pairwise(levels)):
        start = level if churn is None else churn.raised(level, len(levels) - 1)
        yield Point(step, len(levels) - 1, 0, start, start, end, levels[0], levels)
        if end > 0 and not rule.first_order:
            yield Point(step, len(levels) - 1, 1, end, start, end, levels[0], levels)


def evaluations(
    rule: Rule[Any], guidance: Guidance, sigmas: Tensor, churn: Churn | None = None
) -> dict[Branch, int]:
    """Number of evaluations of the network ("main") and of the reference branch."""
    if guidance.is_off:
        return {"main": 2 * (len(sigmas) - 1) - int(sigmas[-1] == 0)}
    points = list(trajectory_points(rule, sigmas, churn))
    counts: dict[Branch, int] = {"main": len(points)}
    guided = sum(rule.scale(guidance.scale, p) != 1 for p in points)
    branch = rule.branch()
    counts[branch] = counts.get(branch, 0) + guided
    return counts


def weighted(counts: Mapping[Branch, int], costs: Mapping[Branch, float]) -> float:
    """The weighted sum of `evaluations`; a branch that is not in `costs` has weight 1."""
    return sum(count * costs.get(branch, 1.0) for branch, count in counts.items())


def lacking(rule: Rule[Any], guidance: Guidance, offers: Mapping[Branch, str]) -> str | None:
    """None if the method has the branch that the rule needs, otherwise the reason.

    `offers` maps each branch to '' if the method has it, otherwise to the reason.
    """
    if guidance.is_off:
        return None
    return offers.get(rule.branch(), f"{rule.name} needs a {rule.branch()} branch") or None


def _guided(rule: Rule[Any], call: Call) -> tuple[Tensor, Tensor, Tensor]:
    """The guided, conditional and reference outputs; all are D_c where guidance is off."""
    g = rule.scale(call.g, call.at)
    labels = rule.condition(call.labels, call)
    if g == 1:
        d_cond = call.denoise(labels)
        return d_cond, d_cond, d_cond
    if _in_one_call(rule, call):
        d_cond, d_ref = call.both(labels)
    else:
        d_cond, d_ref = call.denoise(labels), rule.reference(call)
    guided = rule.combine(d_cond, d_ref, rule.weigh(g, d_cond, d_ref, call), call)
    return rule.finish(guided, d_cond, call), d_cond, d_ref


def _in_one_call(rule: Rule[Any], call: Call) -> bool:
    """Whether one call with 2B rows evaluates the conditional and the null branch.

    Rules with a reference step of their own get separate calls, because that step may change the
    call or the network.
    """
    if not call.networks.shared or any(
        type(part).reference is not Rule.reference for part in rule.parts()
    ):
        return False
    rows, values = 2 * len(call.x), 2 * call.x.numel()
    return call.x.device.type != "cpu" or (rows <= CPU_ROWS and values <= CPU_VALUES)


def _euler(rule: Rule[Any], call: Call) -> Tensor:
    guided, d_cond, d_ref = _guided(rule, call)
    if not rule.first_order:
        return call.x + (call.at.end - call.at.start) * ((call.x - guided) / call.sigma)
    source = rule.renoise(guided, d_cond, d_ref, call) if guided is not d_cond else guided
    return guided + call.at.end / call.at.start * (call.x - source)


def _heun(rule: Rule[Any], calls: list[Call]) -> Tensor:
    stages = iter(calls)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        call = next(stages)
        call.x, call.sigma = x, sigma
        return _guided(rule, call)[0]

    first, second = calls
    x = first.x
    return heun_step(denoise, x, first.sigma, second.sigma)
