"""How boxes move: a filter for each of centre x, centre y, width and height, in seconds, whatever the frame rate.

A velocity fades with a time constant (an Ornstein-Uhlenbeck process), so that the guess for a track that is not seen
comes to rest instead of leaving the picture. One step of 0.2 s is the same as six of 1/30 s, exactly.

A filter is float64 ``[4, 5]``: for each axis its value, its velocity, and their variances and covariance.
"""

from __future__ import annotations

import numpy as np

from perception.common.jit import helper, inline_helper

VALUE, SPEED, VAR, COV, SPEED_VAR = range(5)


@inline_helper
def predict_axis(axis, dt, fade, push):  # type: ignore[no-untyped-def]
    """Move one axis on by ``dt`` seconds. ``push`` is the density of the noise of its acceleration."""
    a = np.exp(-dt / fade)
    b = fade * (1.0 - a)
    axis[VALUE] += b * axis[SPEED]
    axis[SPEED] *= a
    # integrals of the noise that came in since, for the value, the velocity and both
    x = dt / fade
    if x < 1e-2:  # the differences below would lose all digits
        q_value = push * dt**3 / 3.0 * (1.0 - 0.75 * x)
        q_both = push * dt**2 / 2.0 * (1.0 - x)
        q_speed = push * dt * (1.0 - x)
    else:
        q_value = push * fade**2 * (dt - 2.0 * b + 0.5 * fade * (1.0 - a * a))
        q_both = 0.5 * push * b * b
        q_speed = 0.5 * push * fade * (1.0 - a * a)
    axis[VAR] += 2.0 * b * axis[COV] + b * b * axis[SPEED_VAR] + q_value
    axis[COV] = a * (axis[COV] + b * axis[SPEED_VAR]) + q_both
    axis[SPEED_VAR] = a * a * axis[SPEED_VAR] + q_speed


@inline_helper
def correct_axis(axis, seen, noise):  # type: ignore[no-untyped-def]
    """Take in an observation whose variance is ``noise``."""
    total = axis[VAR] + noise
    gain = axis[VAR] / total
    speed_gain = axis[COV] / total
    error = seen - axis[VALUE]
    axis[VALUE] += gain * error
    axis[SPEED] += speed_gain * error
    axis[SPEED_VAR] -= speed_gain * axis[COV]
    axis[COV] *= 1.0 - gain
    axis[VAR] *= 1.0 - gain
