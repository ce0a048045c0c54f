"""The functions that draw figures, by name. Importing them takes a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from bench.report.figures import yardstick_figure
from bench.report.figures.along import along
from bench.report.figures.clouds import clouds, densities, modes
from bench.report.figures.curves import guidance_panels, metric_curve, precision_recall
from bench.report.figures.figures import Drawing
from bench.report.figures.grids import edit_grid, line_grid, sample_grid
from bench.report.figures.pareto_figures import cost_fronts, quality_front
from bench.report.figures.rule_panels import rule_panels

DRAWINGS: Mapping[Drawing, Callable[..., Figure]] = {
    "along": along,
    "clouds": clouds,
    "cost_fronts": cost_fronts,
    "densities": densities,
    "edit_grid": edit_grid,
    "guidance_panels": guidance_panels,
    "line_grid": line_grid,
    "metric_curve": metric_curve,
    "modes": modes,
    "precision_recall": precision_recall,
    "quality_front": quality_front,
    "rule_panels": rule_panels,
    "sample_grid": sample_grid,
    "yardstick_densities": yardstick_figure.densities,
    "yardstick_planes": yardstick_figure.planes,
}
