"""How many examples the tests of this folder try: the same few in every run, or others, and as many as one asks for.

    A2VIDEO_NUM_EXAMPLES=5000 python -m pytest tests/properties

What such a run finds is kept by writing it down as an @example.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

NUM_EXAMPLES = int(os.environ.get("A2VIDEO_NUM_EXAMPLES", "0"))

examples = settings(
    max_examples=NUM_EXAMPLES or 60,
    derandomize=not NUM_EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
