"""Confidence intervals for accuracies: Wilson's score interval for a share of successes.

E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927). Chosen over p +- z * se
because it stays inside [0, 1] and says something useful at 0 of n and n of n, which small evaluations do reach.
"""

import math
from statistics import NormalDist


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of shares that `successes` of `count` do not contradict at this confidence.

    centre = (p + z^2 / 2n) / (1 + z^2 / n),  half width = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2).

    Returns:
        (low, high), shares in [0, 1].

    Raises:
        ValueError: when `count` is not positive, `successes` is outside 0..count, or `confidence` outside (0, 1).
    """
    if count <= 0:
        raise ValueError(f"count must be at least 1, got {count}: there is no interval without observations")
    if not 0 <= successes <= count:
        raise ValueError(f"successes must be between 0 and count ({count}), got {successes}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half_width = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At the two ends the formula is exactly 0 or 1; rounding must not leave 1e-18 or 0.9999999999999999 there.
    low = 0.0 if successes == 0 else centre - half_width
    high = 1.0 if successes == count else centre + half_width
    return low, high
