"""How boxes move: a Kalman filter for each of centre x, centre y, width and height, in seconds.

A velocity fades with a time constant (an Ornstein-Uhlenbeck process), so that the guess for a track that is not seen
comes to rest instead of leaving the picture. The noise is that of continuous time: one step of 0.2 s is the same as six
of 1/30 s, exactly, so that nothing depends on the frame rate. All noise is relative to the size of the box.

A filter is float64 ``[4, 5]``: for each axis its value, its velocity, and their variances and covariance.
"""

from __future__ import annotations

import numpy as np

from perception.common.jit import helper, inline_helper

VALUE, SPEED, VAR, COV, SPEED_VAR = range(5)

PUSH, SIZE_PUSH = 1.2, 2.0
"""Noise of acceleration of the centre and of the sides, in sizes of the box per s**1.5. Measured on people."""
FADE_S, SIZE_FADE_S = 1.5, 0.17
"""Time constants of velocities."""
START_SPEED, START_SIZE_SPEED = 1.5, 0.3
"""Standard deviations of the velocities of what is seen for the first time, in sizes of the box a second."""
REPLAY_STEPS = 32


@inline_helper
def _advance(axis, dt, fade, push):  # type: ignore[no-untyped-def]
    """One axis by ``dt`` seconds; ``push`` is the spectral density of its acceleration."""
    x = dt / fade
    a = np.exp(-x)
    b = -fade * np.expm1(-x)
    # integrals of the noise that came in since, for the value, for both, and for the velocity
    if x < 1e-2:  # the differences below would lose all digits
        q_value = push * dt**3 / 3.0 * (1.0 - 0.75 * x)
    else:
        q_value = push * fade**2 * (dt - 2.0 * b + 0.5 * fade * (1.0 - a * a))
    q_both = 0.5 * push * b * b
    q_speed = -0.5 * push * fade * np.expm1(-2.0 * x)
    axis[VALUE] += b * axis[SPEED]
    axis[SPEED] *= a
    axis[VAR] += 2.0 * b * axis[COV] + b * b * axis[SPEED_VAR] + q_value
    axis[COV] = a * (axis[COV] + b * axis[SPEED_VAR]) + q_both
    axis[SPEED_VAR] = a * a * axis[SPEED_VAR] + q_speed


@helper
def predict(f, dt):  # type: ignore[no-untyped-def]
    """Move a filter on by ``dt`` seconds."""
    square = max(f[2, VALUE], 1.0) * max(f[3, VALUE], 1.0)  # of the size
    for a in range(2):
        _advance(f[a], dt, FADE_S, PUSH * PUSH * square)
        _advance(f[2 + a], dt, SIZE_FADE_S, SIZE_PUSH * SIZE_PUSH * square)


@inline_helper
def _noise(side, a, jitter):  # type: ignore[no-untyped-def]
    """Variance of an observation on an axis, where each edge is off by ``jitter`` sides."""
    variance = (jitter * max(side, 1.0)) ** 2
    return 0.5 * variance if a < 2 else 2.0 * variance


@helper
def correct(f, seen, jitter):  # type: ignore[no-untyped-def]
    """Take in an observation: centre x, centre y, width, height."""
    for a in range(4):
        axis = f[a]
        total = axis[VAR] + _noise(f[2 + (a & 1), VALUE], a, jitter)
        gain, speed_gain = axis[VAR] / total, axis[COV] / total
        error = seen[a] - axis[VALUE]
        axis[VALUE] += gain * error
        axis[SPEED] += speed_gain * error
        axis[SPEED_VAR] -= speed_gain * axis[COV]
        axis[COV] *= 1.0 - gain
        axis[VAR] *= 1.0 - gain


@helper
def begin(f, seen, jitter):  # type: ignore[no-untyped-def]
    """A filter of what is seen for the first time."""
    size = np.sqrt(seen[2] * seen[3])
    for a in range(4):
        f[a, VALUE] = seen[a]
        f[a, SPEED] = 0.0
        f[a, VAR] = _noise(seen[2 + (a & 1)], a, jitter)
        f[a, COV] = 0.0
        f[a, SPEED_VAR] = ((START_SPEED if a < 2 else START_SIZE_SPEED) * size) ** 2


@helper
def replay(f, anchor, seen, gap, dt, jitter):  # type: ignore[no-untyped-def]
    """Observation-centred re-update: forget the guesses since ``anchor``, as if it had walked straight to here.

    Cao et al., "Observation-Centric SORT", CVPR 2023.

    Args:
        f: the filter, written.
        anchor: the filter just after it was last seen, ``gap`` seconds ago.
        seen: the observation.
        dt: seconds between frames.
    """
    steps = min(max(int(np.rint(gap / dt)), 1), REPLAY_STEPS)
    f[:] = anchor
    between = np.empty(4)
    for step in range(1, steps + 1):
        predict(f, gap / steps)
        for a in range(4):
            between[a] = anchor[a, VALUE] + (seen[a] - anchor[a, VALUE]) * step / steps
        correct(f, between, jitter)
