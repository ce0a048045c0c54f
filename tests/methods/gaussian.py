"""The closed forms of Gaussian data N(mean, std^2 I) under EDM's noise."""

import numpy as np


def denoised(x, sigma, mean, std):
    """E[x0 | x = x0 + sigma eps]."""
    return (std**2 * x + sigma**2 * mean) / (std**2 + sigma**2)


def consistent(x, sigma, mean, std):
    """The clean end of the trajectory through x."""
    return mean + (x - mean) * std / (std**2 + sigma**2) ** 0.5


def slope(x, sigma, mean, std):
    """dx/dsigma of the trajectory through x."""
    return sigma * (x - mean) / (std**2 + sigma**2)


def kept(t, r, std):
    """Share of the deviation from the mean that a consistency target at r keeps at t.

    E[x_r | x_t] = mean + (x_t - mean)(std^2 + r t) / (std^2 + t^2), so the target's mean is the
    clean end of the trajectory with its deviation multiplied by cos(A_t - A_r), A = atan(./std).
    """
    return np.cos(np.arctan(t / std) - np.arctan(r / std))
