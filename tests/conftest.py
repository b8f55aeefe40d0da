"""What every test shares: one thread, no display, hypothesis without a clock."""

import os

import matplotlib
import torch
from hypothesis import settings

matplotlib.use("Agg")
torch.set_num_threads(1)

# A loaded machine must not fail a property that holds; in CI the same examples run every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
