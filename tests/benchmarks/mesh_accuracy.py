"""The table of `lrc_ase.layer.accuracy`, from the Fourier transforms of the windows alone.

python tests/benchmarks/mesh_accuracy.py          # some minutes; prints the candidates of each decade, cheapest first

For random charges, a wave k of the smeared kernel leaks into its aliases k + 2 pi j / h with amplitude
ghat(k + 2 pi j / h) / ghat(k), once in spreading and once in gathering, where the gradient multiplies it by the alias's
own wave number; waves beyond pi / h are lost. Lengths are in units of the smearing.
"""

from __future__ import annotations

import numpy as np

from lrc_ase.layer.windows import Window, semicircle_window

SCREENING = 0.3  # of the kernel, per smearing: about that of a box of 20
ALIASES = np.array([-3, -2, -1, 1, 2, 3])
SHAPES = (1.3, 1.5, 1.7, 1.9, 2.1, 2.2, 2.3, 2.4, 2.5)
DENSITY = 0.1  # atoms per cubed smearing
COST_PER_POINT = 0.56  # ns per atom and point of the stencil, spreading and gathering
COST_OF_FFT = 4.2  # ns per mesh point, both transforms


def predicted_errors(window: Window, spacing: float) -> tuple[float, float]:
    """Relative l2 errors of u and of its gradient."""
    edge = np.pi / spacing
    nodes, weights = np.polynomial.legendre.leggauss(16)
    k, weights = (nodes + 1) / 2 * edge, weights / 2 * edge
    aliases = k + 2 * edge * ALIASES[:, None]
    leaks = (window.fourier_transform(aliases * spacing) / window.fourier_transform(k * spacing)) ** 2
    leak, gradient_leak = leaks.sum(axis=0), (leaks * aliases**2).sum(axis=0)

    def three(values: np.ndarray) -> np.ndarray:
        return values[:, None, None] + values[:, None] + values

    squared = three(k**2)
    power = weights[:, None, None] * weights[:, None] * weights * kernel(squared) ** 2
    lost_k = np.linspace(edge, edge + 8, 400)
    lost = 0.5 * np.pi * lost_k**2 * kernel(lost_k**2) ** 2 * (lost_k[1] - lost_k[0])  # an octant of the sphere
    field = (2 * power * three(leak)).sum() + lost.sum()
    gradient = (power * (2 * squared * three(leak) + three(gradient_leak))).sum() + (lost * lost_k**2).sum()
    return float(np.sqrt(field / power.sum())), float(np.sqrt(gradient / (power * squared).sum()))


def kernel(k_squared: np.ndarray) -> np.ndarray:
    """Smeared Yukawa kernel."""
    return np.exp(-0.5 * k_squared) / (k_squared + SCREENING**2)


def main() -> None:
    for decade in range(1, 11):
        candidates = []
        for n_points in range(3, 17):
            for spacing in np.arange(2.0, 0.29, -0.05):
                error, shape = min((predicted_errors(semicircle_window(n_points, s), spacing)[1], s) for s in SHAPES)
                if error <= 0.5 * 10.0**-decade:
                    cost = DENSITY * COST_PER_POINT * n_points**3 + COST_OF_FFT / spacing**3
                    candidates.append((cost, n_points, shape, round(float(spacing), 2), error))
                    break
        for cost, n_points, shape, spacing, error in sorted(candidates)[:3]:
            print(
                f"1e-{decade:<2d} {n_points:2d} points, shape {shape}, spacing {spacing:.2f}: {error:.1e} {cost:.0f} ns"
            )


if __name__ == "__main__":
    main()
