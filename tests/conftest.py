"""What every test shares: one thread, no display, hypothesis without a clock."""

import importlib.util
import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import settings

from sklearn_psf import PSFParameterRegressor
from sklearn_psf.networks import save_weights
from sklearn_psf.optics import Camera, make_psf_model
from sklearn_psf.simulation import make_blurred_patches, make_textures

matplotlib.use("Agg")
torch.set_num_threads(1)

# A loaded machine must not fail a property that holds; in CI the same examples run every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="module")
def load_example():
    """Import a script of `examples`, named by its path there; its figures are closed in the end."""

    def load(name):
        path = Path(__file__).parents[1] / "examples" / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    plt.close("all")


# ---- Shared fixtures: a regressor small enough to be trained within seconds, and its weights ----


@pytest.fixture(scope="session")
def tiny_patches():
    """256 blurred patches of 32 x 32 pixels and their widths; a few are textureless."""
    sharp = make_textures(6, size=160, kind="dead-leaves", random_state=0)
    family = make_psf_model("gaussian-1", size=31)
    camera = Camera(read_noise=1.0)
    return make_blurred_patches(
        sharp, 256, psf_model=family, camera=camera, patch_size=32, random_state=0
    )


@pytest.fixture(scope="session")
def tiny_regressor(tiny_patches):
    """A fitted PSFParameterRegressor for patches of 32 x 32 pixels; not to be changed."""
    X, y = tiny_patches
    regressor = PSFParameterRegressor(
        psf_model=make_psf_model("gaussian-1", size=31),
        max_epochs=5,
        batch_size=16,
        random_state=0,
    )
    return regressor.fit(X, y)


@pytest.fixture(scope="session")
def tiny_weights(tiny_regressor, tmp_path_factory):
    """Path of the tiny regressor's weights, to be given as `pretrained`."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    card = {
        "weight_version": 1,
        "psf_model": tiny_regressor.psf_model_.settings,
        "architecture": tiny_regressor.architecture_,
        "patch_size": tiny_regressor.patch_size_,
        "std_scale": tiny_regressor.std_scale_.tolist(),
    }
    save_weights(tiny_regressor.state_, card, path)
    return path
