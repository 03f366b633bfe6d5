r"""Power spectra of sampled signals, with windows, and error bars from blocks.

The power spectrum is the Fourier transform of the autocorrelation (theorem of Wiener and Khinchin),

.. math:: S(f) = \int_{-\infty}^{\infty} \langle x(0)\, x(t) \rangle\, e^{-2\pi i f t}\, dt,

estimated by Welch's method: the mean of the periodograms of windowed segments that overlap by half.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.constants import speed_of_light
from scipy.fft import next_fast_len
from scipy.signal import get_window, welch

__all__ = ["WAVENUMBER_FS", "WINDOWS", "BlockSpectra", "SpectrumSettings", "power_spectrum", "warn_of_aliasing"]

WAVENUMBER_FS = speed_of_light * 1e2 * 1e-15
"""Frequency of the wave number 1 cm^-1, 1/fs."""
WINDOWS = ("hann", "gaussian", "blackman", "boxcar")
_GAUSSIAN_WIDTH = 1 / 6
"""Standard deviation of the Gaussian window in units of its length: cut where it has fallen to 1 %."""
_COMPONENTS_AT_A_TIME = 96
"""Number of components transformed together: bounds the memory for segments."""
_END = 0.03
"""Part of the wave numbers, below the Nyquist frequency, where the power should have vanished."""
_ALIASING = 0.1
"""Power there, in units of the mean over all wave numbers, above which folded frequencies are suspected."""


@dataclass(frozen=True)
class SpectrumSettings:
    """Settings of the estimate of a spectrum."""

    resolution: float = 20.0
    """Full width at half maximum of a sharp line, cm^-1."""
    window: str = "hann"
    """Window of the segments: hann, gaussian, blackman or boxcar (no window)."""
    n_blocks: int = 5
    """Number of blocks of the runs, whose spread gives the error bars."""

    def __post_init__(self) -> None:
        """Raise ValueError for a setting without meaning."""
        if not self.resolution > 0:
            raise ValueError(f"`resolution` must be positive, got {self.resolution} cm^-1")
        if self.window not in WINDOWS:
            raise ValueError(f"`window` must be one of {', '.join(WINDOWS)}, got {self.window!r}")
        if self.n_blocks < 1:
            raise ValueError(f"`n_blocks` must be at least 1, got {self.n_blocks}")

    def segment_length(self, interval: float) -> int:
        """Return the number of samples of a segment that gives the resolution; `interval` in fs."""
        return max(round(_line_width(self.window) / (self.resolution * WAVENUMBER_FS * interval)), 2)


@dataclass(frozen=True)
class BlockSpectra:
    """Power spectra of the blocks of one or several runs."""

    wavenumbers: np.ndarray
    """(n_wavenumbers,), cm^-1, from zero to the Nyquist frequency."""
    density: np.ndarray
    """S of each block, (n_blocks, n_wavenumbers), unit of the signal squared times fs."""
    lengths: np.ndarray
    """Number of samples of each block, (n_blocks,)."""

    @property
    def mean(self) -> np.ndarray:
        """Return the mean over the blocks, (n_wavenumbers,)."""
        return np.average(self.density, axis=0, weights=self.lengths)

    @property
    def error(self) -> np.ndarray:
        """Return the standard error of the mean, (n_wavenumbers,); NaN for a single block."""
        n_blocks = len(self.density)
        if n_blocks < 2:
            return np.full(len(self.wavenumbers), np.nan)
        variance = np.average((self.density - self.mean) ** 2, axis=0, weights=self.lengths)
        return np.sqrt(variance / (n_blocks - 1))


def power_spectrum(signals: Sequence[np.ndarray], interval: float, settings: SpectrumSettings) -> BlockSpectra:
    """Estimate the power spectrum of signals, summed over their components.

    Parameters
    ----------
    signals
        One array per run, (n_samples, n_components). Runs are cut into blocks of about equal length, at least one each.
    interval
        Time between samples, fs.

    Raises
    ------
    ValueError
        A block is shorter than the segment that the resolution asks for.
    """
    segment = settings.segment_length(interval)
    total = sum(len(signal) for signal in signals)
    blocks: list[np.ndarray] = []
    for signal in signals:
        blocks += np.array_split(signal, max(round(settings.n_blocks * len(signal) / total), 1))
    shortest = min(map(len, blocks))
    if shortest < segment:
        raise ValueError(
            f"a resolution of {settings.resolution:g} cm^-1 needs segments of {segment * interval / 1000:.3g} ps, the "
            f"shortest of {len(blocks)} blocks has {shortest * interval / 1000:.3g} ps: take fewer blocks, a coarser "
            "resolution, or a longer run"
        )
    # padded by zeros to twice the length, so that a line has several points across its width
    n_frequencies = next_fast_len(2 * segment, real=True)
    window = _window(settings.window, segment)
    density = np.zeros((len(blocks), n_frequencies // 2 + 1))
    for block, total_density in zip(blocks, density, strict=True):
        for first in range(0, block.shape[1], _COMPONENTS_AT_A_TIME):
            _, each = welch(
                block[:, first : first + _COMPONENTS_AT_A_TIME],
                fs=1 / interval,
                window=window,
                noverlap=segment // 2,
                nfft=n_frequencies,
                detrend=False,  # a mean or a drift belongs to the spectrum, at zero
                return_onesided=False,
                axis=0,
            )
            total_density += each.sum(axis=1)[: density.shape[1]]
    wavenumbers = np.arange(density.shape[1]) / (n_frequencies * interval * WAVENUMBER_FS)
    return BlockSpectra(wavenumbers, density, np.array([len(block) for block in blocks]))


def warn_of_aliasing(spectra: BlockSpectra, interval: float) -> None:
    """Warn if the power has not vanished at the Nyquist frequency; `interval` of the samples in fs."""
    mean = spectra.mean
    if mean[int((1 - _END) * len(mean)) :].mean() > _ALIASING * mean.mean():
        warnings.warn(
            f"samples every {interval:g} fs resolve wave numbers up to {spectra.wavenumbers[-1]:.0f} cm^-1, and the "
            "spectrum has not vanished there: higher ones are folded into it, so write samples more often",
            stacklevel=3,
        )


def _window(name: str, n_samples: int) -> np.ndarray:
    """Return a window for segments of `n_samples`."""
    kind = (name, _GAUSSIAN_WIDTH * n_samples) if name == "gaussian" else name
    window: np.ndarray = get_window(kind, n_samples)
    return window


@lru_cache
def _line_width(name: str) -> float:
    """Return the full width at half maximum of a window's power spectrum, in units of one over its length."""
    n_samples, padding = 1024, 256
    power = np.abs(np.fft.rfft(_window(name, n_samples), n_samples * padding)) ** 2
    return 2 * float(np.argmax(power < power[0] / 2)) / padding
