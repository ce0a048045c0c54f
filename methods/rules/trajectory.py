"""Sampling under a guidance rule: EDM's Heun sampler, or Euler steps for first-order rules.

Source: Karras et al. (2022, EDM, algorithms 1 and 2) for the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from methods.guidance import Guidance
from methods.rng import SampleRNG
from methods.rules.base import Call, Networks, Point, Rule
from methods.rules.meter import Meter
from methods.rules.particles import ParticleRNG, gather, systematic
from methods.rules.record import Counted, Record
from methods.samplers import Before, Churn, heun_step, sample_heun, sample_single, single_step
from methods.settings import Solver

CPU_ROWS, CPU_VALUES = 512, 1 << 12
"""Largest call for both branches on a CPU: rows, and values of x.

Time of sampling with one call over that with two, on one core:

    modes1d, batch of    64   256   512  1024      digits, batch of     8    32    64   256
                        .68   .85   .94   1.4                         .70   .94   1.1   1.1

In larger calls malloc returns the memory of a layer to the system, and the next layer fills fresh
pages. Other devices always use one call, which has half the kernel launches (not measured).
A batch whose call does not fit into memory is halved by the caller.
"""

BEFORE = "solver.before"
"""Key in the state of a trajectory: level and guided output of the step before."""


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
    solver: Solver = "heun",
) -> Tensor:
    """Samples (B, ...) in `dtype` from `x` (B, ...), the noisy state at sigmas[0].

    `sigmas` (N + 1,) descend, `labels` (B, K) are one-hot. At g = 1 the conditional denoiser is
    integrated and no other branch is evaluated. All random draws, those of `churn` and of the rule,
    come from `rng`. `guidance.record` counts the evaluations and measures the strength.
    """
    trajectory = Trajectory(networks, x, sigmas, labels, guidance, rng, dtype, churn, solver)
    return trajectory.sample(x)


class Trajectory:
    """The sampling of one batch, for a rule that runs it: see `Rule.run`.

    `sigmas` are the levels of the sampler, `rng` and `state` those of the calls.
    """

    dry = False

    def __init__(
        self,
        networks: Networks,
        x: Tensor,
        sigmas: Tensor,
        labels: Tensor,
        guidance: Guidance,
        rng: SampleRNG,
        dtype: torch.dtype = torch.float64,
        churn: Churn | None = None,
        solver: Solver = "heun",
    ) -> None:
        record = Record() if guidance.record is None else guidance.record
        record.values += x.numel()
        self.networks = Counted(networks, record)
        self._record = record
        self._meter: Meter | None = None
        # A step that is not the sampler's is metered by the output that would make it.
        parts = guidance.rule.parts()
        self._by_step = any(type(p).step is not Rule.step or type(p).renoise is not Rule.renoise
                            for p in parts)  # fmt: skip
        self.sigmas, self.labels, self.rng = sigmas, labels, rng
        self.guidance, self.rule = guidance, guidance.rule
        self.state: dict[str, Any] = {}
        self._dtype, self._churn, self._shape = dtype, churn, tuple(x.shape[1:])
        self._solver = solver

    def sample(self, x: Tensor) -> Tensor:
        """Samples (B, ...) from `x` (B, ...), one of its particles each."""
        if not self.guidance.acts:
            if self._record.metered:
                self._record.add_unguided(self.rng.indices)
            return self.follow(x, self.sigmas)
        found = self._run(x)
        if self._meter is not None:
            with self._record.watch.running(x.device):
                self._record.add(self._meter)
        return found

    def _run(self, x: Tensor) -> Tensor:
        count = self.rule.particles
        if count == 1:
            self._meter = self._make_meter()
            return self.rule.run(self, x)
        noise = self.rng.randn((count - 1, *self._shape), x.device).to(x)
        x = torch.cat([x[:, None], float(self.sigmas[0]) * noise], 1).flatten(0, 1)
        chosen = self.rng.rand((), x.device)
        self.labels = self.labels.repeat_interleave(count, 0)
        self.rng = ParticleRNG(self.rng, count)
        self._meter = self._make_meter()
        rows = count * torch.arange(len(chosen), device=x.device)
        return self.rule.run(self, x)[rows + (chosen.double() * count).long()]

    def _make_meter(self) -> Meter | None:
        record, networks = self._record, self.networks.inner
        if record.metered and networks.null is None:
            record.unmetered = "the model has no unconditional branch"
        elif record.metered:
            return Meter(networks, self.labels, self.rng.indices, self.rule.particles)
        return None

    def _note(
        self, x: Tensor, sigma: Tensor, guided: Tensor, cond: Tensor | None, null: Tensor | None
    ) -> None:
        if self._meter is not None:
            with self._record.watch.running(x.device):
                self._meter.note(x, sigma, guided, cond, null)

    def draw(self, x: Tensor) -> Tensor:
        """Standard normal noise like `x` (B, ...)."""
        return self.rng.randn(self._shape, x.device).to(x)

    def follow(self, x: Tensor, sigmas: Tensor, g: float | None = None) -> Tensor:
        """Integrate from `x` (B, ...) at sigmas[0] down to the last level, guided with scale `g`.

        The default is the requested scale. At g = 1 no hook of a rule that is not `free` runs.
        """
        g = self.guidance.scale if g is None else g
        churn = self._churn
        self.state.pop(BEFORE, None)
        if g == 1 and not self.rule.free:
            return self._unguided(x, sigmas)
        x = x.to(self._dtype)
        for point in trajectory_points(self.rule, sigmas, churn, self._solver):
            if point.stage:
                continue
            level = point.levels[point.step]
            if churn is not None:
                x = churn.add(x, level, point.start, partial(self.draw, x))
            call = Call(x, x.new_tensor(point.sigma), point, self.labels, g, self.networks,
                        self.rng, self.state, self)  # fmt: skip
            x = self._step(call)
        return x

    def _unguided(self, x: Tensor, sigmas: Tensor) -> Tensor:
        draw = partial(self.draw, x)
        if self._solver != "heun":
            return sample_single(
                self._solver, self._conditional, x, sigmas, dtype=self._dtype, draw=draw
            )
        return sample_heun(
            self._conditional, x, sigmas, dtype=self._dtype,
            churn=self._churn, draw=draw if self._churn else None,
        )  # fmt: skip

    def _conditional(self, x: Tensor, sigma: Tensor) -> Tensor:
        d_cond = self.networks.main(x, sigma, self.labels)
        if self._meter is not None:
            d_cond = d_cond.to(x)
            self._note(x, sigma, d_cond, d_cond, None)
        return d_cond

    def _step(self, call: Call) -> Tensor:
        rule = self.rule
        plain = not rule.free and rule.scale(call.g, call.at) == 1
        x_next = self.advance(call) if plain else rule.step(call)
        if self._by_step:
            share = call.at.end / call.at.start
            self._note(call.x, call.sigma, (x_next - share * call.x) / (1 - share), call.cond,
                       call.unconditional)  # fmt: skip
        log_weights = rule.resample(x_next, call)
        if log_weights is not None:
            count = rule.particles
            u = self.rng.rand((), x_next.device)[::count]
            kept = systematic(log_weights.reshape(-1, count), u)
            x_next = gather(kept, x_next, self.state)
        rule.after_step(call.x, x_next, call)
        return x_next

    def advance(self, call: Call) -> Tensor:
        """`Call.advance`: a Heun step, or an Euler step to 0 and for rules of first order.

        Other solvers take their own steps, except for rules of first order.
        """
        if self.rule.first_order or (self._solver == "heun" and call.at.end == 0):
            return self._euler(call)
        if self._solver != "heun":
            return self._single(call)
        at, end = call.at, call.x.new_tensor(call.at.end)
        second = Point(
            at.step, at.steps, 1, at.end, at.start, at.end, at.sigma_max, at.levels
        )  # fmt: skip

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            if sigma is not end:
                return self._outputs(call)[0]
            corrector = Call(x, end, second, call.labels, call.g, call.networks, call.rng,
                             call.state, self)  # fmt: skip
            return self._outputs(corrector)[0]

        return heun_step(denoise, call.x, call.sigma, end)

    def guided(self, call: Call) -> Tensor:
        """`Call.guided`."""
        return self._outputs(call)[0]

    def _single(self, call: Call) -> Tensor:
        """A step of a solver with one call; the step before is known if it led here."""
        guided, sigma = self.guided(call), call.at.start
        level, denoised = self.state.get(BEFORE, (0.0, guided))
        before = Before(level, denoised) if level > sigma else None
        self.state[BEFORE] = sigma, guided
        draw = partial(self.draw, call.x)
        return single_step(
            self._solver, call.x, guided, sigma, call.at.end, before=before, draw=draw
        )

    def _euler(self, call: Call) -> Tensor:
        guided, d_cond, d_ref = self._outputs(call)
        rule = self.rule
        if not rule.first_order:
            return call.x + (call.at.end - call.at.start) * ((call.x - guided) / call.sigma)
        source = guided if d_ref is None else rule.renoise(guided, d_cond, d_ref, call)
        return guided + call.at.end / call.at.start * (call.x - source)

    def _outputs(self, call: Call) -> tuple[Tensor, Tensor, Tensor | None]:
        """The guided, conditional and reference outputs, without a reference at scale 1."""
        rule = self.rule
        g = rule.scale(call.g, call.at)
        labels = rule.condition(call.labels, call)
        if g == 1:
            call.cond = d_cond = call.denoise(labels)
            guided = rule.finish(d_cond, d_cond, call) if rule.free else d_cond
            if not self._by_step:
                self._note(call.x, call.sigma, guided, d_cond, call.unconditional)
            return guided, d_cond, None
        if _in_one_call(rule, call):
            d_cond, d_ref = call.both(labels)
            call.cond = d_cond
        else:
            call.cond = d_cond = call.denoise(labels)
            d_ref = rule.reference(call)
        guided = rule.combine(d_cond, d_ref, rule.weigh(g, d_cond, d_ref, call), call)
        guided = rule.finish(guided, d_cond, call)
        if not self._by_step:
            self._note(call.x, call.sigma, guided, d_cond, call.unconditional)
        return guided, d_cond, d_ref


def trajectory_points(
    rule: Rule[Any], sigmas: Tensor, churn: Churn | None = None, solver: Solver = "heun"
) -> Iterator[Point]:
    """The denoiser calls of the sampler's steps over `sigmas`: two per step, one for a step to 0.

    Solvers other than Heun's call it once per step. With `churn` a step starts at the level to
    which it adds noise.
    """
    levels = tuple(sigmas.tolist())
    for step, (level, end) in enumerate(pairwise(levels)):
        start = level if churn is None else churn.raised(level, len(levels) - 1)
        yield Point(step, len(levels) - 1, 0, start, start, end, levels[0], levels)
        if end > 0 and not rule.first_order and solver == "heun":
            yield Point(step, len(levels) - 1, 1, end, start, end, levels[0], levels)


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
