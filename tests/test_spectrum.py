"""Spectra of charges on springs, whose lines and intensities are known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from test_current import springs

from lrc_ase.simulation import (
    CurrentRecord,
    MDSettings,
    SpectrumSettings,
    VelocityRecord,
    infrared_spectrum,
    read_current,
    read_velocities,
    run_md,
    vibrational_states,
)
from lrc_ase.simulation.bands import bands

# CODATA 2018
CHARGE, AMU, LIGHT, VACUUM = 1.602176634e-19, 1.66053907e-27, 299792458.0, 8.8541878128e-12  # C, kg, m/s, F/m
KT_300 = 8.617333e-5 * 300  # eV
EV = 1.602176634e-19  # J
VOLUME, MASS, LINE = 1000.0, 16.0, 1000.3  # Angstrom^3, u, cm^-1
# integral of alpha n over the wave number for a charge on a spring: N q^2 / (4 epsilon_0 c^2 V m) in 1/m^2, then 1/cm^2
INTENSITY = CHARGE**2 / (4 * VACUUM * LIGHT**2 * VOLUME * 1e-30 * MASS * AMU) * 1e-4


def oscillating(line: float = LINE, *, interval: float = 1.0, n_samples: int = 20001, phase: float = 0.3) -> np.ndarray:
    """Return velocities of a thermal oscillator of mass `MASS` at 300 K, (n_samples, 3) in Angstrom/fs."""
    amplitude = math.sqrt(2 * KT_300 * EV / (MASS * AMU)) * 1e-5  # Angstrom/fs
    times = 1e-15 * interval * np.arange(n_samples)
    phases = phase + np.array([0.0, 1.0, 2.0])
    return amplitude * np.cos(2 * math.pi * LIGHT * 100 * line * times[:, None] + phases)


def record(volume: float | None = VOLUME, **options) -> CurrentRecord:
    return CurrentRecord(options.get("interval", 1.0), oscillating(**options), 300.0, volume)


@pytest.mark.parametrize("window", ["hann", "gaussian", "blackman", "boxcar"])
@pytest.mark.parametrize("resolution", [10.0, 40.0])
def test_charge_on_a_spring_has_one_line_of_known_place_intensity_and_width(window, resolution):
    spectrum = infrared_spectrum([record()], SpectrumSettings(resolution=resolution, window=window, n_blocks=2))
    assert spectrum.unit == "cm^-1"
    assert np.trapezoid(spectrum.absorption, spectrum.wavenumbers) == pytest.approx(INTENSITY, rel=1e-4)
    (highest,) = [
        band for band in bands(spectrum.wavenumbers, spectrum.absorption, spectrum.error) if band.height > 500
    ]
    assert highest.position == pytest.approx(LINE, abs=0.03 * resolution)
    assert highest.width == pytest.approx(resolution, rel=0.06)


def test_molecule_without_a_cell_has_its_molar_intensity():
    spectrum = infrared_spectrum([record(None)], SpectrumSettings(n_blocks=1))
    assert spectrum.unit == "km/mol per cm^-1"
    # 42.2561 km/mol per (Debye/Angstrom)^2/u and mode (conversion of Gaussian and others); 1 e = 4.80320 Debye/Angstrom
    expected = 3 * 42.2561 * 4.80320**2 / MASS
    assert np.trapezoid(spectrum.absorption, spectrum.wavenumbers) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(spectrum.error).all()


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        # x = h c 1000.3 cm^-1 / (k 300 K) = 4.7974
        ("harmonic", 1.0),
        ("standard", 2 / 4.7974 * math.tanh(4.7974 / 2)),
        ("schofield", 2 / 4.7974 * math.sinh(4.7974 / 2)),
        ("none", (1 - math.exp(-4.7974)) / 4.7974),
    ],
)
def test_quantum_corrections_at_one_line(name, factor):
    settings = SpectrumSettings(resolution=5.0, n_blocks=2)
    spectrum = infrared_spectrum([record()], settings, quantum_correction=name)
    at_line = np.abs(spectrum.wavenumbers - LINE) < 50
    intensity = np.trapezoid(spectrum.absorption[at_line], spectrum.wavenumbers[at_line])
    assert intensity == pytest.approx(factor * INTENSITY, rel=1e-3)


def test_temperature_divides_and_electronic_permittivity_multiplies():
    mean = infrared_spectrum([record()])
    at_600_kelvin = infrared_spectrum([record()], temperature=600.0)
    np.testing.assert_allclose(at_600_kelvin.absorption, mean.absorption / 2, atol=1e-12)
    screened = infrared_spectrum([record()], eps_inf=1.8)
    np.testing.assert_allclose(screened.absorption, 1.8 * mean.absorption)
    np.testing.assert_allclose(screened.error, 1.8 * mean.error)
    assert (mean.temperature, at_600_kelvin.temperature) == (pytest.approx(300.0), 600.0)


@pytest.mark.filterwarnings("ignore:samples every")  # noise has no end
def test_error_is_that_of_the_mean_of_independent_blocks():
    noise = np.random.default_rng(0).normal(size=(100_000, 3))
    errors, means = [], []
    for blocks in (10, 40):
        spectrum = infrared_spectrum(
            [CurrentRecord(1.0, noise, 300.0, VOLUME)], SpectrumSettings(resolution=50.0, n_blocks=blocks)
        )
        errors.append(spectrum.error[5:-5].mean())
        means.append(spectrum.absorption[5:-5])
        assert spectrum.n_blocks == blocks
    # white noise: the spread of the mean over frequencies is its error
    assert errors[0] == pytest.approx(means[0].std(), rel=0.2)
    assert errors[1] == pytest.approx(errors[0], rel=0.2)


def test_runs_are_blocks_of_one_ensemble():
    runs = [record(phase=phase) for phase in (0.0, 1.0, 2.0)]
    spectrum = infrared_spectrum(runs, SpectrumSettings(n_blocks=3))
    assert spectrum.n_blocks == 3
    assert spectrum.length == pytest.approx(60.0)
    alone = [infrared_spectrum([run], SpectrumSettings(n_blocks=1)).absorption for run in runs]
    np.testing.assert_allclose(spectrum.absorption, np.mean(alone, axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:samples every")  # noise has no end
def test_longer_runs_weigh_more():
    """Two blocks of lengths 1 and 2: (a + 2 b) / 3, with the error of a weighted mean."""
    noise, settings = np.random.default_rng(0).normal(size=(3000, 3)), SpectrumSettings(resolution=100.0, n_blocks=2)
    runs = [CurrentRecord(1.0, noise[:1000], 300.0, VOLUME), CurrentRecord(1.0, noise[1000:], 360.0, VOLUME)]
    spectrum = infrared_spectrum(runs, settings)
    assert (spectrum.n_blocks, spectrum.temperature) == (2, pytest.approx(340.0))
    first, second = (infrared_spectrum([run], replace(settings, n_blocks=1)).absorption for run in runs)
    np.testing.assert_allclose(spectrum.absorption, (first + 2 * second) / 3, rtol=1e-9)
    np.testing.assert_allclose(spectrum.error, math.sqrt(2) / 3 * abs(first - second), rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0.0}, "`resolution` must be positive, got 0"),
        ({"window": "hamming"}, "`window` must be one of hann, gaussian, blackman, boxcar, got 'hamming'"),
        ({"n_blocks": 0}, "`n_blocks` must be at least 1, got 0"),
    ],
)
def test_settings_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SpectrumSettings(**options)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, "`records` must hold at least one run, got none"),
        ([record(), record(interval=2.0)], {}, "sampled at one interval, got 1 and 2 fs"),
        ([record(), record(None)], {}, "all periodic in three directions, or none: got both"),
        ([record()], {"quantum_correction": "kubo"}, "one of harmonic, standard, schofield, none, got 'kubo'"),
        ([record()], {"eps_inf": 0.9}, r"`eps_inf` must be at least 1, got 0\.9"),
        ([record()], {"temperature": 0.0}, "temperature of a run must be positive: atoms at rest have no spectrum"),
        (
            [record(n_samples=5000)],
            {},
            r"20 cm\^-1 needs segments of 2\.41 ps, the shortest of 5 blocks has 1 ps: take fewer blocks, a coarser",
        ),
    ],
)
def test_runs_that_give_no_spectrum_are_refused(records, options, message):
    with pytest.raises(ValueError, match=message):
        infrared_spectrum(records, **options)


def test_samples_too_far_apart_are_told():
    with pytest.warns(UserWarning, match=r"samples every 16 fs resolve wave numbers up to 1042 cm\^-1, .* more often"):
        infrared_spectrum([record(interval=16.0)])


def test_run_of_charges_on_springs_has_their_line(tmp_path):
    """k = 10 eV/Angstrom^2 and 15.999 u: sqrt(k/m) / 2 pi c = 412.27 cm^-1, through all files."""
    settings = MDSettings("nve", 4000, temperature=300.0, timestep=1.0, write_every=4, current_every=4, seed=1)
    run_md(springs(40), settings, tmp_path / "md.traj")
    current = read_current(tmp_path / "md.current.csv")
    spectrum = infrared_spectrum([current], SpectrumSettings(resolution=30.0, n_blocks=2))
    (line,) = bands(spectrum.wavenumbers, spectrum.absorption, np.zeros_like(spectrum.error))
    expected = math.sqrt(10 * EV / 1e-20 / (15.999 * AMU)) / (2 * math.pi * LIGHT * 100)
    assert expected == pytest.approx(412.27, abs=0.1)
    assert line.position == pytest.approx(expected, abs=2.0)
    velocities = read_velocities(tmp_path / "md.traj")
    assert velocities.interval == pytest.approx(4.0)
    states = vibrational_states([velocities], SpectrumSettings(resolution=30.0, n_blocks=2))
    assert list(states.density) == ["O"]
    # 3 N modes, at the same place
    assert np.trapezoid(states.total, states.wavenumbers) == pytest.approx(3 * 40, rel=1e-3)
    assert states.wavenumbers[states.total.argmax()] == pytest.approx(expected, abs=8.0)


def velocities_of(lines: dict[str, float], *, n_samples: int = 8000) -> VelocityRecord:
    """Return one oscillator per element at its line, heavy and light ones with the same kinetic energy."""
    masses = np.array([1.0, 16.0])[: len(lines)]
    velocities = np.stack(
        [oscillating(line, n_samples=n_samples) / math.sqrt(m) for line, m in zip(lines.values(), masses, strict=True)],
        axis=1,
    )
    return VelocityRecord(1.0, np.array(list(lines)), masses, velocities)


def test_density_of_states_counts_the_modes_of_each_element():
    states = vibrational_states([velocities_of({"O": 500.0, "H": 3000.0})], SpectrumSettings(n_blocks=2))
    assert list(states.density) == ["H", "O"]  # by atomic number
    for symbol, line in (("H", 3000.0), ("O", 500.0)):
        density = states.density[symbol]
        assert np.trapezoid(density, states.wavenumbers) == pytest.approx(3.0, rel=1e-3)
        assert states.wavenumbers[density.argmax()] == pytest.approx(line, abs=10)
    np.testing.assert_allclose(states.total, states.density["H"] + states.density["O"])
    assert states.error.shape == states.total.shape


@pytest.mark.filterwarnings("ignore:samples every")
def test_error_of_the_density_of_states_is_that_of_two_runs():
    """Runs of equal kinetic energy: the error of the mean of two is half of their difference."""
    rng, settings = np.random.default_rng(0), SpectrumSettings(resolution=100.0, n_blocks=1)
    runs = [VelocityRecord(1.0, np.array(["O"]), np.array([16.0]), rng.normal(size=(2000, 1, 3))) for _ in range(2)]
    for run in runs:
        run.velocities[:] /= np.sqrt(np.mean(run.velocities**2))
    first, second = (vibrational_states([run], settings).total for run in runs)
    both = vibrational_states(runs, settings)
    np.testing.assert_allclose(both.total, (first + second) / 2, rtol=1e-9)
    np.testing.assert_allclose(both.error, abs(first - second) / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "`records` must hold at least one run, got none"),
        ([velocities_of({"O": 500.0}), velocities_of({"H": 500.0})], "must hold the same atoms, at the same interval"),
        ([VelocityRecord(1.0, np.array(["O"]), np.ones(1), np.zeros((9000, 1, 3)))], "atoms must move"),
    ],
)
def test_velocities_that_give_no_density_of_states_are_refused(records, message):
    with pytest.raises(ValueError, match=message):
        vibrational_states(records)


def test_trajectory_of_another_program_needs_the_interval(tmp_path):
    frames = []
    for velocity in oscillating(n_samples=10):
        frames.append(Atoms("O", positions=[[0, 0, 0]], velocities=[velocity]))
    write(tmp_path / "other.traj", frames)
    with pytest.raises(ValueError, match=r"other\.traj: its frames carry no times, so the interval .* must be given"):
        read_velocities(tmp_path / "other.traj")
    record = read_velocities(tmp_path / "other.traj", interval=0.5, skip=0.001)
    assert (record.interval, record.velocities.shape) == (0.5, (8, 1, 3))
    with pytest.raises(ValueError, match=r"other\.traj: the interval between frames must be positive, got 0 fs"):
        read_velocities(tmp_path / "other.traj", interval=0.0)
    with pytest.raises(ValueError, match=r"other\.traj: expected at least two frames after the first 1 ps, got 0"):
        read_velocities(tmp_path / "other.traj", interval=0.5, skip=1.0)
    write(tmp_path / "still.traj", [Atoms("O"), Atoms("O")])
    assert read_velocities(tmp_path / "still.traj", interval=0.5) is None
    write(tmp_path / "mixed.traj", [frames[0], Atoms("H", velocities=[[0, 0, 1.0]])])
    with pytest.raises(ValueError, match=r"mixed\.traj: the frames must hold the same atoms"):
        read_velocities(tmp_path / "mixed.traj", interval=0.5)


@pytest.mark.parametrize("name", ["md.traj", "md.extxyz"])
def test_frames_carry_their_time_and_last_ones_in_between_are_left_out(tmp_path, name):
    settings = MDSettings("nve", 10, temperature=300.0, timestep=0.5, write_every=4)
    run_md(springs(2), settings, tmp_path / name)
    record = read_velocities(tmp_path / name)  # steps 0, 4, 8 and the last, 10
    assert record.interval == pytest.approx(2.0)
    assert len(record.velocities) == 3
    write(tmp_path / f"tail_{name}", read(tmp_path / name, "1:3"))  # a piece of a run does not begin at time 0
    assert read_velocities(tmp_path / f"tail_{name}").interval == pytest.approx(2.0)
    run_md(springs(2), replace(settings, steps=18), tmp_path / name, resume=True)
    continued = read_velocities(tmp_path / name)  # steps 0, 4, 8, 10, 12, 16 and 18
    np.testing.assert_array_equal(
        continued.velocities, [read(tmp_path / name, i).get_velocities() for i in (0, 1, 2, 4, 5)]
    )
    run_md(springs(2), replace(settings, steps=32, write_every=8), tmp_path / name, resume=True)
    with pytest.raises(ValueError, match="expected frames every 2 fs, found 4 fs after frame 5"):
        read_velocities(tmp_path / name)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([0, 3, 4, 8, 12], [0, 2, 3, 4]),  # a run of 3 steps that was continued
        ([1, 4, 8, 12], [1, 2, 3]),  # its end, cut out with the frame before
        ([0, 100, 104, 108], [1, 2, 3]),  # the start, then frames after an equilibration
        ([0, 102, 104, 106], [1, 2, 3]),
        ([0, 4, 7], [0, 1]),
    ],
)
def test_a_first_frame_off_the_regular_times_is_left_out(tmp_path, times, kept):
    frames = [Atoms("O", velocities=[[0, 0, float(i)]], info={"time_ps": 1e-3 * t}) for i, t in enumerate(times)]
    write(tmp_path / "md.traj", frames)
    record = read_velocities(tmp_path / "md.traj")
    assert record.interval == pytest.approx(times[kept[1]] - times[kept[0]])
    np.testing.assert_allclose(record.velocities[:, 0, 2], kept, rtol=1e-14)


def test_irregular_frames_at_the_beginning_are_refused_unless_skipped(tmp_path):
    times = [0, 50, 100, 104, 108, 112]
    frames = [Atoms("O", velocities=[[0, 0, float(i)]], info={"time_ps": 1e-3 * t}) for i, t in enumerate(times)]
    write(tmp_path / "md.traj", frames)
    with pytest.raises(ValueError, match="every 4 fs, found 100 fs after frame 0; `skip` leaves out frames at"):
        read_velocities(tmp_path / "md.traj")
    record = read_velocities(tmp_path / "md.traj", skip=0.1)
    np.testing.assert_allclose(record.velocities[:, 0, 2], [2, 3, 4, 5], rtol=1e-14)
    with pytest.raises(ValueError, match=r"expected at least two frames after the first 0\.112 ps, got 1"):
        read_velocities(tmp_path / "md.traj", skip=0.112)


def test_bands_stand_out_of_noise_and_height():
    x = np.linspace(0, 100, 201)
    y = np.exp(-(((x - 30.2) / 5) ** 2)) + 0.5 * np.exp(-(((x - 70) / 5) ** 2)) + 0.01 * np.exp(-(((x - 50) / 3) ** 2))
    first, second = bands(x, y, np.full_like(x, np.nan))
    assert first.position == pytest.approx(30.2, abs=0.02)
    assert first.width == pytest.approx(2 * 5 * math.sqrt(math.log(2)), rel=0.02)
    assert (first.height, second.height) == (pytest.approx(1.0, abs=2e-3), pytest.approx(0.5, abs=1e-3))
    assert np.isnan(first.error)
    (only,) = bands(x, y, np.full_like(x, 0.3))
    assert (only.position, only.error) == (first.position, 0.3)
    assert bands(x, np.zeros_like(x), np.zeros_like(x)) == []


@pytest.mark.parametrize(("vertex", "position"), [(1.2, 1.2), (2.8, 2.8), (0.2, 0.0), (3.9, 4.0)])
def test_bands_next_to_the_ends_lie_where_their_parabola_does(vertex, position):
    """At the ends themselves there is no third point."""
    x = np.arange(5.0)
    (band,) = bands(10 + 2 * x, 30 - (x - vertex) ** 2, np.zeros(5))
    assert band.position == pytest.approx(10 + 2 * position, abs=1e-12)
