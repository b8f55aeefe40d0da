"""Regression of PSF parameters from image patches."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._blurred_batches import blurred_batches
from ._held_network import HeldNetworkMixin
from ._validation import (
    check_choice,
    check_device,
    check_image_list,
    check_images,
    check_number,
)
from .metrics import parameter_r2
from .networks import ARCHITECTURES, build_network
from .networks.reading import (
    angular_difference,
    fit_std_scale,
    propagate_std,
    read_image,
    read_large_patches,
    read_patches,
    sample_grid,
)
from .networks.training import ArrayBatches, epochs_done
from .networks.weights import scale_of_context
from .simulation import make_blurred_patches

__all__ = ["PSFParameterRegressor"]

_MIN_PATCH = 32
_PATCH_SIZES = {"polar": 256, "unet": 192}  # where it is not 128
_N_VALIDATION = 512
_N_SCORE = 512


def _is_dense(regressor):
    return getattr(regressor, "architecture_", regressor.architecture) == "unet"


class PSFParameterRegressor(HeldNetworkMixin, RegressorMixin, BaseEstimator):
    """Read the parameters of the point-spread function off the texture of image patches.

    A convolutional network looks at a patch and at its power spectrum, on which blur leaves the
    modulus of the optical transfer function, and regresses the parameters in the continuous
    encoding of the PSF family, each with its variance, and the probability that the patch has no
    texture to read. The prediction does not depend on the brightness of the patch, scale or offset.

    Parameters
    ----------
    psf_model : str, PSFModel or None
        PSF family, as a name or as made by `sklearn_psf.optics.make_psf_model`. None follows the
        weights, else "zernike-3".
    architecture : {"compact", "compact-directed", "polar", "resnet34", "resnext50", "unet"} or None
        Network. None follows the weights, else "compact". "compact-directed" also sees the sense of
        a direction, and "polar" more of the spectrum: it can read a part of a patch beside another
        part, and trains on such parts, each of which it sees several times, turned where the family
        `turns`. "unet" reads whole images at once (`predict_map`), and trains on images whose blur
        varies; start it from the weights of a "compact" network (`initial_weights`), which then
        reads windows of the image for it.
    pretrained : str, Path or None
        Name of shipped weights (`sklearn_psf.networks.pretrained_names`) or path of a .safetensors
        file. `fit` then only validates.
    initial_weights : str, Path, dict or None
        Where a training starts: pretrained weights by name or path, or a state dict (of arrays or
        tensors) with torchvision's names, whose colour stem is summed and whose last layer is
        left out.
    patch_size : int or None
        Height and width of a patch, pixels. None follows the weights or the patches given, else
        128, or 256 for "polar"; for "unet", a multiple of 64, else 192. Patches may be larger than
        those of pretrained weights by multiples of half their size: 256 pixels are then read in
        nine overlapping windows of 128, which is as much more accurate as the PSF is the same all
        over the patch.
    camera : Camera or None
        Camera of the patches that a training draws. None varies peak photons from 10^2.5 to 10^4.5
        and read noise from 0 to 5 electrons.
    n_patches : int, default=12800
        Patches drawn per epoch when fitted on sharp images.
    max_epochs : int, default=20
        Longest training.
    batch_size : int, default=64
        Patches per training step.
    learning_rate : float, default=2e-3
        Peak learning rate of AdamW.
    loss : {"nll", "mse"}, default="nll"
        Heteroscedastic likelihood, which gives `return_std`, or the published squared error.
    validation_fraction : float, default=0.1
        Part of the images or patches on which validation scores and the calibration of the standard
        deviation are computed. A single sharp image is used for both.
    patience : int or None, default=None
        Epochs without a better validation score before the training stops; None never stops early.
    max_minutes : float or None, default=None
        Time after which the training, with its schedule, ends.
    checkpoint : str, Path or None, default=None
        File that is written after each epoch; if it exists, `fit` resumes from it.
    device : str or None
        None takes CUDA where available, else the CPU.
    random_state : int, RandomState or None
        Seed of the initialisation, of the patches and of their order.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    psf_model_ : PSFModel
        The family.
    architecture_ : str
        The architecture.
    patch_size_ : int
        Pixels.
    window_size_ : int
        Size of the patches that the network itself reads, pixels.
    state_ : dict of str to ndarray
        Weights.
    std_scale_ : ndarray of shape (P,)
        Factor that calibrates the standard deviation on validation data.
    history_ : list of dict
        Figures of each epoch; empty for pretrained weights.
    weights_id_ : str
        Name, version and hash of pretrained weights, else "".

    References
    ----------
    A. Shajkofci and M. Liebling, "Spatially-variant CNN-based point spread function estimation for
    blind deconvolution and depth estimation in optical microscopy", IEEE Trans. Image Process. 29
    (2020), 5848-5861.

    Examples
    --------
    >>> from skimage.data import camera
    >>> from sklearn_psf import PSFParameterRegressor
    >>> from sklearn_psf.simulation import make_blurred_patches
    >>> X, y = make_blurred_patches(camera()[None], 4, psf_model="gaussian-1", random_state=0)
    >>> reg = PSFParameterRegressor(pretrained="gaussian-1").fit(X, y)
    >>> reg.predict(X).shape
    (4, 1)
    """

    def __init__(
        self,
        *,
        psf_model=None,
        architecture=None,
        pretrained=None,
        initial_weights=None,
        patch_size=None,
        camera=None,
        n_patches=12800,
        max_epochs=20,
        batch_size=64,
        learning_rate=2e-3,
        loss="nll",
        validation_fraction=0.1,
        patience=None,
        max_minutes=None,
        checkpoint=None,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.psf_model = psf_model
        self.architecture = architecture
        self.pretrained = pretrained
        self.initial_weights = initial_weights
        self.patch_size = patch_size
        self.camera = camera
        self.n_patches = n_patches
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.loss = loss
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.max_minutes = max_minutes
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Train on sharp images or on labelled patches, or validate pretrained weights.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or list of 2-D arrays
            Without `y`: sharp images of any sizes, from which blurred patches are drawn. With `y`:
            blurred patches, square.
        y : array-like of shape (n, P) or None
            Family parameters of the patches; a row of NaN means textureless.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as described.
        """
        self._check_parameters()
        model, card, state = self._resolve("zernike-3", ("psf_model",))
        if self.pretrained is not None:
            self.window_size_ = int(card["patch_size"])
            self.patch_size_ = self._checked_context(card["architecture"] == "unet")
            check_image_list(X)
            self._store_pretrained(model, card, state)
            scale = scale_of_context(card, self.patch_size_)
            self.std_scale_ = np.full(len(model.bounds), scale, dtype=float)
            return self
        if y is None:
            self._fit_sharp(X, model, card, state)
        else:
            self._fit_patches(X, y, model, card, state)
        self.weights_id_ = ""
        return self

    def predict(self, X, return_std=False):
        """Return the PSF parameters of patches.

        Parameters
        ----------
        X : array-like of shape (n, patch_size, patch_size)
            Patches; of any size for a "unet", whose reading at their centre is returned.
        return_std : bool
            Whether to return the standard deviations too.

        Returns
        -------
        parameters : ndarray of shape (n, P)
            In the family's units.
        std : ndarray of shape (n, P)
            Only with `return_std`.
        """
        encoding, variance, _ = self._read(X)
        parameters = self.psf_model_.decode(encoding)
        if not return_std:
            return parameters
        return parameters, self._std(encoding, variance)

    def predict_invalid(self, X):
        """Return the probability that a patch has no texture to read a PSF from.

        Parameters
        ----------
        X : array-like of shape (n, patch_size, patch_size)
            Patches.

        Returns
        -------
        ndarray of shape (n,)
            Between 0 and 1.
        """
        return self._read(X)[2]

    def predict_all(self, X):
        """Return all that one pass of the network says of patches.

        Parameters
        ----------
        X : array-like of shape (n, patch_size, patch_size)
            Patches.

        Returns
        -------
        parameters, std : ndarray of shape (n, P)
            As `predict`.
        invalid : ndarray of shape (n,)
            As `predict_invalid`.
        encoding, variance : ndarray of shape (n, E)
            Mean and variance in the family's encoding, from which parameters and std come.
        """
        encoding, variance, invalid = self._read(X)
        parameters = self.psf_model_.decode(encoding)
        std = self._std(encoding, variance)
        return parameters, std, invalid, encoding, variance * np.mean(self.std_scale_**2)

    def score(self, X, y=None):
        """Return R^2 averaged over parameters, angles as points on a circle of their period.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or list of 2-D arrays
            With `y`: patches. Without: sharp images, from which seeded patches are drawn.
        y : array-like of shape (n, P) or None
            Parameters; rows of NaN are left out.

        Returns
        -------
        float
            At most 1.
        """
        check_is_fitted(self)
        if y is None:
            seed = self.random_state if isinstance(self.random_state, Integral) else 0
            X, y = make_blurred_patches(
                X,
                _N_SCORE,
                psf_model=self.psf_model_,
                camera=self.camera,
                patch_size=self.patch_size_,
                random_state=seed,
            )
        y = self._check_targets(y, len(X), self.psf_model_)
        return parameter_r2(y, self.predict(X), periods=self.psf_model_.periods)

    @available_if(_is_dense)
    def predict_map(self, X, rows=None, columns=None):
        """Return all that one pass of a "unet" says of whole images.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images of any size.
        rows, columns : array-like of shape (gy,) and (gx,), or None
            Where to read, pixels; between the squares of 8 pixels that the network reads,
            encodings are interpolated. None is the centres of these squares.

        Returns
        -------
        parameters, std : ndarray of shape (n, gy, gx, P)
            As `predict`.
        invalid : ndarray of shape (n, gy, gx)
            As `predict_invalid`.
        encoding, variance : ndarray of shape (n, gy, gx, E)
            Mean and variance in the family's encoding, from which parameters and std come.
        """
        check_is_fitted(self)
        maps = []
        for image in check_images(X):
            read = read_image(self._module(), image)
            places = [(np.arange(n) + 0.5) * self._module().stride - 0.5 for n in read[0].shape[:2]]
            wanted = [p if w is None else w for p, w in zip(places, (rows, columns), strict=True)]
            encoding, variance, invalid = (sample_grid(part, places, wanted) for part in read)
            parameters = self.psf_model_.decode(encoding)
            std = self._std(*(part.reshape(-1, part.shape[-1]) for part in (encoding, variance)))
            variance = variance * np.mean(self.std_scale_**2)
            maps.append((parameters, std.reshape(parameters.shape), invalid, encoding, variance))
        return tuple(np.stack(part) for part in zip(*maps, strict=True))

    def calibrate(self, X, y):
        """Scale the standard deviations to the errors on patches.

        About 68 % of them are then within one standard deviation, and 95 % within two.

        Parameters
        ----------
        X : array-like of shape (n, patch_size, patch_size)
            Patches that were not trained on.
        y : array-like of shape (n, P)
            Parameters; rows of NaN are left out. With fewer than 20 valid rows the scale is 1.

        Returns
        -------
        self
            With a new `std_scale_`.
        """
        y = np.asarray(y, dtype=np.float64)
        valid = ~np.isnan(y).any(1)
        self.std_scale_ = np.ones(y.shape[1])
        if valid.any():
            parameters, std = self.predict(np.asarray(X)[valid], return_std=True)
            error = np.abs(angular_difference(parameters, y[valid], self.psf_model_.periods))
            self.std_scale_ = fit_std_scale(error, std)
        return self

    def _check_parameters(self):
        self._check_training_parameters((("n_patches", 1), ("max_epochs", 1), ("batch_size", 2)))
        check_choice("loss", self.loss, ("nll", "mse"))
        if self.architecture is not None:
            check_choice("architecture", self.architecture, (*ARCHITECTURES, "unet"))
        if self.patch_size is not None:
            check_number("patch_size", self.patch_size, low=_MIN_PATCH, integer=True)
        if self.patience is not None:
            check_number("patience", self.patience, low=1, integer=True)

    def _checked_context(self, dense):
        """Size of the patches that pretrained weights are asked to read."""
        own = self.window_size_
        size = own if self.patch_size is None else self.patch_size
        if size == own:
            return own
        if dense or size < own or (size - own) % (own // 2):
            advice = f"larger ones must be larger by a multiple of {own // 2}"
            if dense:
                advice = "'unet' reads patches of any size as it is"
            raise ValueError(
                f"patch_size={size!r} disagrees with the weights {str(self.pretrained)!r}, whose "
                f"card says {own}: {advice}."
            )
        return int(size)

    def _fit_sharp(self, X, model, card, state):
        dense = self._architecture(card) == "unet"
        usual = _PATCH_SIZES.get(self._architecture(card), 128)
        patch_size = int(self.patch_size or card.get("patch_size", usual))
        if dense and patch_size % 64:
            raise ValueError(
                f"patch_size must be a multiple of 64 for architecture 'unet', got {patch_size}."
            )
        images = check_image_list(X)
        rng = check_random_state(self.random_state)
        train, valid = self._split_images(images, rng)
        # A training that is resumed goes on with other patches instead of the first ones again.
        seeds = [rng.randint(2**31 - 1), epochs_done(self.checkpoint)]
        validation = make_blurred_patches(
            valid,
            _N_VALIDATION,
            psf_model=model,
            camera=self.camera,
            patch_size=patch_size,
            random_state=rng,
        )
        n_batches = max(1, self.n_patches // self.batch_size)
        sample = self._target_sample(model)
        network = self._start(model, card, state, rng)
        batches = blurred_batches(
            network,
            train,
            model,
            patch_size,
            n_patches=self.n_patches * self.max_epochs,
            batch_size=self.batch_size,
            camera=self.camera,
            device=self.device,
            random_state=np.random.RandomState(seeds),
        )
        self._train(network, batches, sample, n_batches, validation, model, patch_size)

    def _fit_patches(self, X, y, model, card, state):
        X = check_images(X, min_size=_MIN_PATCH)
        y = self._check_targets(y, len(X), model)
        patch_size = X.shape[1] if self.patch_size is None else self.patch_size
        if X.shape[1:] != (patch_size, patch_size):
            raise ValueError(
                f"Patches must be square, {patch_size} x {patch_size} pixels (patch_size); got "
                f"{X.shape[1]} x {X.shape[2]}."
            )
        rng = check_random_state(self.random_state)
        order = rng.permutation(len(X))
        n_valid = min(int(round(self.validation_fraction * len(X))), len(X) - 1)
        train, valid = order[n_valid:], order[:n_valid] if n_valid else order
        if len(train) < 2:
            raise ValueError(
                f"Found {len(X)} sample(s), of which {n_valid} to validate on: a training needs "
                "at least 2 patches."
            )
        X = np.asarray(X, np.float32)
        targets = model.encode(y)
        device = check_device(self.device)
        batches = ArrayBatches(X[train], targets[train], self.batch_size, rng, device)
        n_batches = max(1, len(train) // self.batch_size)
        validation = (X[valid], y[valid])
        network = self._start(model, card, state, rng)
        self._train(network, batches, targets[train], n_batches, validation, model, patch_size)

    def _check_targets(self, y, n, model):
        y = np.asarray(y, dtype=np.float64)
        names = model.parameter_names
        if y.ndim == 1 and len(names) == 1:
            y = y[:, np.newaxis]
        if y.shape != (n, len(names)):
            raise ValueError(
                f"y must have shape ({n}, {len(names)}): one row per patch of {names}; got "
                f"{y.shape}."
            )
        if np.isinf(y).any():
            raise ValueError("Input y contains infinity.")
        y = np.where(np.isnan(y).any(1, keepdims=True), np.nan, y)
        if np.isnan(y).all():
            raise ValueError("y holds no valid row: every one has NaN (textureless).")
        return y

    def _architecture(self, card):
        return self.architecture or card.get("architecture", "compact")

    def _start(self, model, card, state, rng):
        mixed_precision = self.batch_size >= 32
        return self._new_network(self._architecture(card), model, state, rng, mixed_precision)

    def _train(self, network, batches, sample, n_batches, validation, model, patch_size):
        architecture = network.architecture
        state = self._run_training(
            network,
            batches,
            sample,
            n_batches,
            evaluate=lambda state: self._validate(state, architecture, validation, model),
            loss=self.loss,
            patience=self.patience,
        )
        self.patch_size_ = self.window_size_ = int(patch_size)
        self._store_network(model, architecture, state)
        self.calibrate(*validation)

    def _validate(self, state, architecture, validation, model):
        X, y = validation
        if (~np.isnan(y).any(1)).sum() < 2:
            return -np.inf
        network = build_network(architecture, model.n_encoded, state).to(check_device(self.device))
        encoding = read_patches(network, X)[0]
        return parameter_r2(y, model.decode(encoding), periods=model.periods)

    def _read(self, X):
        check_is_fitted(self)
        X = check_images(X)
        size = self.patch_size_
        if X.shape[1:] != (size, size) and not _is_dense(self):
            raise ValueError(
                f"Patches of {size} x {size} pixels (patch_size) are expected, got "
                f"{X.shape[1]} x {X.shape[2]}. Use SpatialPSFMapper for whole images."
            )
        if size == self.window_size_ or _is_dense(self):
            return read_patches(self._module(), X)
        encoding, *rest = read_large_patches(self._module(), X, self.window_size_)
        return self.psf_model_.coherent(encoding), *rest

    def _std(self, encoding, variance):
        return propagate_std(self.psf_model_, encoding, variance, self.std_scale_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.target_tags.required = False
        tags.target_tags.multi_output = True
        tags.non_deterministic = False
        return tags
