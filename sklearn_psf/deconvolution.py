"""TVRLDeconvolver: restoration with a PSF that varies across the image."""

from dataclasses import replace
from warnings import warn

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from ._psf_map import PSFMap
from ._validation import check_choice, check_device, check_images, check_number
from .metrics import snr
from .operators import WINDOWS, LocalPSFs, split_blocks
from .richardson_lucy import poisson_log_likelihood, richardson_lucy

__all__ = ["TVRLDeconvolver"]

# Share of the photons that score() restores from; the rest are held out to be predicted.
_TRAINING_SHARE = 0.9
_METHODS = ("auto", "tiles", "modes")
_NO_PSF = (
    "X is plain images and psf=None, so there is no PSF to restore with. Pass a PSFMap (in a "
    "Pipeline, put SpatialPSFMapper before TVRLDeconvolver), or set psf= to the PSF."
)


class TVRLDeconvolver(TransformerMixin, BaseEstimator):
    r"""Restore images by Richardson-Lucy iterations with total variation.

    One model for the whole image, ``y ~ Poisson(sum_m h_m * (w_m x) + b)``, with the local PSFs
    h_m and smooth windows w_m, is inverted by

    .. math:: x \leftarrow \frac{x}{A^T 1 \,
        \max(1 - \lambda \, \mathrm{div}(\nabla x / |\nabla x|_\epsilon), 0.1)}
        \; A^T \frac{y}{A x + b}

    including the unknown light from half a PSF beyond the frame.

    Parameters
    ----------
    psf : array-like of shape (kh, kw) or (gy, gx, kh, kw), or None, default=None
        None takes the PSFs of the `PSFMap` given as X. An array is used for all images, plain or
        in a map; odd sizes, non-negative, divided by its sum. Kernel (i, j) belongs to the centre
        of cell (i, j) of an even gy x gx partition of the image.
    lambda_tv : float, default=0.004
        Weight of the total variation, dimensionless; its best value falls with the photon count
        and rises with the error of the PSFs.
    n_iter : int, default=40
        Number of iterations.
    accelerate : bool, default=True
        Whether to extrapolate along successive iterates; 40 such iterations reach what takes
        over 100 plain ones.
    window : {"bilinear", "triangular", "hann"}, default="bilinear"
        How PSFs share the image between their centres.
    method : {"auto", "tiles", "modes"}, default="auto"
        How the varying blur is evaluated; "auto" counts which is cheaper.
    background : float, default=0.0
        Grey values above `offset` that are not part of the blurred image; removed.
    gain : float or None, default=None
        Grey values per photo-electron; None is 1.
    offset : float, default=0.0
        Grey value of no light. Subtracted before and added back after, so that the result can be
        compared with the input.
    read_noise : float or None, default=None
        Standard deviation of the camera's noise, photo-electrons. Data and model are shifted by
        its square, which gives a Poisson variable the right variance [2]_.
    rtol : float, default=1e-3
        Largest relative error of a PSF by its modes, and largest share of light cut off its rim.
    n_samples : int, default=0
        Number of draws of the PSF parameters from a map's `std`, each restored, for
        `restored_std_`. Needs a PSFMap.
    max_memory : int or None, default=None
        Bytes that the arrays of one restoration may take, approximately. Larger images are split
        into blocks with a halo of the size of the PSF, each restored by itself: the result
        differs from that of the whole by a few percent near the seams.
    device : str, torch.device or None, default=None
        Where to compute; None is CUDA if available, else the CPU. Results are NumPy.
    random_state : int, RandomState or None, default=None
        Seed of the draws (`n_samples`) and of the photons held out by `score`.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    psf_ : ndarray of shape (gy, gx, kh, kw) or None
        The checked PSFs, float32, sum 1; None if they come with X.
    image_shape_ : tuple
        Height and width of the images seen in fit; others are accepted.
    restored_std_ : ndarray of shape (n, H, W)
        Standard deviation of the restored images of the last `transform` over draws of the PSF
        parameters, float32; only if ``n_samples > 0``. It holds the uncertainty of the PSF, not
        that of the photon noise.

    Notes
    -----
    Values below `offset` are clipped to it (after the shift by the read noise), because counts
    are not negative. Where no window of an image is valid, the image is returned as it is, with
    a UserWarning.

    References
    ----------
    .. [1] N. Dey et al., "Richardson-Lucy algorithm with total variation regularization for 3D
       confocal microscope deconvolution", Microsc. Res. Tech. 69, 260-266 (2006).
    .. [2] D. L. Snyder et al., "Compensation for readout noise in CCD images", J. Opt. Soc. Am. A
       12, 272-283 (1995).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import uniform_filter
    >>> sharp = np.zeros((1, 32, 32))
    >>> sharp[0, 10:20, 12:16] = 100.0
    >>> blurred = uniform_filter(sharp, (0, 5, 5))
    >>> deconv = TVRLDeconvolver(psf=np.ones((5, 5))).fit(blurred)
    >>> restored = deconv.transform(blurred)
    >>> restored.shape, restored.dtype
    ((1, 32, 32), dtype('float32'))
    >>> bool(abs(restored - sharp).mean() < 0.3 * abs(blurred - sharp).mean())
    True
    """

    def __init__(
        self,
        *,
        psf=None,
        lambda_tv=0.004,
        n_iter=40,
        accelerate=True,
        window="bilinear",
        method="auto",
        background=0.0,
        gain=None,
        offset=0.0,
        read_noise=None,
        rtol=1e-3,
        n_samples=0,
        max_memory=None,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.psf = psf
        self.lambda_tv = lambda_tv
        self.n_iter = n_iter
        self.accelerate = accelerate
        self.window = window
        self.method = method
        self.background = background
        self.gain = gain
        self.offset = offset
        self.read_noise = read_noise
        self.rtol = rtol
        self.n_samples = n_samples
        self.max_memory = max_memory
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Check the parameters and the input; nothing is learned.

        Parameters
        ----------
        X : PSFMap or array-like of shape (n, H, W)
            Images with local PSFs; plain images need `psf`.
        y : object
            Ignored.

        Returns
        -------
        TVRLDeconvolver
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If a parameter is out of range, the PSF unusable, an image unusable, or there is no
            PSF.
        """
        self._check_parameters()
        psf = None if self.psf is None else _check_psf(self.psf)
        images = self._check_input(X, psf)
        self.psf_ = psf
        self.image_shape_ = tuple(images.shape[1:])
        return self

    def transform(self, X):
        """Restore images.

        Parameters
        ----------
        X : PSFMap or array-like of shape (n, H, W)
            Images with local PSFs; plain images need `psf`.

        Returns
        -------
        ndarray of shape (n, H, W)
            Restored images, float32, in the units of X.

        Raises
        ------
        ValueError, TypeError
            As `fit`.
        """
        images = self._check_before_use(X)
        rng = check_random_state(self.random_state)
        restored = np.empty(images.shape, np.float32)
        std = np.zeros(images.shape, np.float32) if self.n_samples else None
        with self._progress(len(images) * (1 + self.n_samples)) as bar:
            for i, image in enumerate(images):
                local = self._local_psfs(X, i, image.shape)
                if local is None:
                    restored[i] = image
                    bar.update(1 + self.n_samples)
                    continue
                data = self._to_counts(image)
                restored[i] = self._restore(data, local, bar)[0] + np.float32(self.offset)
                if self.n_samples:
                    std[i] = self._spread(data, X[i], rng, bar)
        if self.n_samples:
            self.restored_std_ = std
        return restored

    def score(self, X, y=None):
        """Return how good the restoration is; larger is better.

        Parameters
        ----------
        X : PSFMap or array-like of shape (n, H, W)
            Blurred images.
        y : array-like of shape (n, H, W) or None
            Sharp images in the same units.

        Returns
        -------
        float
            With y: mean over images of the SNR, ``10 log10(sum y^2 / sum (y - x)^2)``, dB.
            Without: mean Poisson log-likelihood per pixel, in nats, of one tenth of the photons,
            picked at random and predicted from the restoration of the others. This needs `gain`:
            None reads grey values as photons.

        Raises
        ------
        ValueError, TypeError
            If y does not have the shape of X, or as `fit`.
        """
        images = self._check_before_use(X)
        if y is None:
            return self._held_out_score(X, images)
        y = check_images(y, name="y")
        if y.shape != images.shape:
            raise ValueError(f"y must have the shape of X, {images.shape}, got {y.shape}.")
        return snr(y, self.transform(X))

    def _held_out_score(self, X, images):
        rng = check_random_state(self.random_state)
        gain = 1.0 if self.gain is None else self.gain
        scores = []
        with self._progress(len(images)) as bar:
            for i, image in enumerate(images):
                counts = np.rint(self._to_counts(image) / gain).astype(np.int64)
                kept = rng.binomial(counts, _TRAINING_SHARE)
                data = (kept * (gain / _TRAINING_SHARE)).astype(np.float32)
                local = self._local_psfs(X, i, image.shape)
                expected = data if local is None else self._restore(data, local, bar)[1]
                # a pixel whose every photon was held out must not cost infinitely much
                mean = np.maximum(expected / gain, 0.5) * (1 - _TRAINING_SHARE)
                held_out = torch.from_numpy((counts - kept).astype(np.float64))
                likelihood = poisson_log_likelihood(held_out, torch.from_numpy(mean).double())
                scores.append(float(likelihood) / image.size)
        return float(np.mean(scores))

    def _spread(self, data, one_map, rng, bar):
        """Return the standard deviation of restorations over draws of the PSF parameters."""
        mean, squares = 0.0, 0.0
        for k in range(1, self.n_samples + 1):
            drawn = _draw_parameters(one_map, rng)
            x = self._restore(data, self._local_psfs(drawn, 0, data.shape), bar)[0]
            difference = x.astype(np.float64) - mean
            mean = mean + difference / k
            squares = squares + difference * (x - mean)
        return np.sqrt(squares / self.n_samples)

    def _restore(self, data, local, bar):
        """Return the restored image and the blurred image it predicts, both (H, W) float32."""
        background = float(self.background + self._shift())
        scale = float(np.maximum(data - np.float32(background), 0).mean(dtype=np.float64))
        local = local.crop(self.rtol)
        n_psfs = local.psfs.shape[0] * local.psfs.shape[1]
        blocks = split_blocks(data.shape, local.psfs.shape[2:], n_psfs, self.max_memory)
        options = {"window": self.window, "method": self.method, "rtol": self.rtol}
        options |= {"dtype": torch.float32, "device": check_device(self.device)}
        restored, expected = np.empty_like(data), np.empty_like(data)
        for block in blocks:
            operator = local.operator(block, **options)
            x = richardson_lucy(
                data[block.outer],
                operator,
                n_iter=self.n_iter,
                lambda_tv=self.lambda_tv,
                background=background,
                accelerate=self.accelerate,
                scale=scale,  # of the whole image: all blocks start from the same constant
                callback=lambda i, x: bar.update(1 / (self.n_iter * len(blocks))),
            )
            restored[block.core] = operator.crop(x)[block.inner].cpu().numpy()
            expected[block.core] = operator.forward(x)[block.inner].cpu().numpy() + background
        return restored, expected

    def _local_psfs(self, X, i, shape):
        """Return the PSFs of image i with their centres, or None, warning, if none is known."""
        if self.psf_ is not None:
            return LocalPSFs.on_cells(self.psf_, shape)
        if np.isfinite(X.parameters[i]).all(-1).any():
            return LocalPSFs(X.psfs(i), np.asarray(X.rows, float), np.asarray(X.columns, float))
        warn(
            f"No window of image {i} shows enough texture to tell its PSF; the image is returned "
            "as it is.",
            UserWarning,
            stacklevel=3,
        )
        return None

    def _shift(self):
        # grey values; sigma^2 electrons is the shift that gives a Poisson variable that variance
        gain = 1.0 if self.gain is None else self.gain
        return 0.0 if self.read_noise is None else gain * self.read_noise**2

    def _to_counts(self, image):
        data = np.asarray(image, dtype=np.float32) - np.float32(self.offset - self._shift())
        return np.maximum(data, 0, out=data)

    def _progress(self, total):
        return tqdm(
            total=total * (1 + 1e-6),  # iterations are fractions, whose sum rounds either way
            desc="deconvolution",
            disable=not self.verbose,
            bar_format="{l_bar}{bar}| [{elapsed}<{remaining}]",
        )

    def _check_before_use(self, X):
        check_is_fitted(self, "psf_")
        self._check_parameters()
        return self._check_input(X, self.psf_)

    def _check_input(self, X, psf):
        """Return the images of X after checking that they can be restored."""
        from_map = isinstance(X, PSFMap)
        images = check_images(X.images, name="images of X") if from_map else check_images(X)
        if psf is None and not from_map:
            raise ValueError(_NO_PSF)
        if self.n_samples and psf is not None:
            raise ValueError(
                f"n_samples={self.n_samples!r} draws PSFs from the std of a PSFMap and needs "
                "psf=None."
            )
        return images

    def _check_parameters(self):
        check_number("lambda_tv", self.lambda_tv, low=0)
        check_number("n_iter", self.n_iter, low=1, integer=True)
        check_number("background", self.background, low=0)
        check_number("offset", self.offset)
        check_number("rtol", self.rtol, low=0, high=0.5)
        check_number("n_samples", self.n_samples, low=0, integer=True)
        if self.gain is not None:
            check_number("gain", self.gain, low=0, open_low=True)
        if self.read_noise is not None:
            check_number("read_noise", self.read_noise, low=0)
        if self.max_memory is not None:
            check_number("max_memory", self.max_memory, low=0, open_low=True)
        if not isinstance(self.accelerate, (bool, np.bool_)):
            raise TypeError(f"accelerate must be True or False, got {self.accelerate!r}.")
        check_choice("window", self.window, WINDOWS)
        check_choice("method", self.method, _METHODS)
        check_device(self.device)
        check_random_state(self.random_state)

    def __sklearn_tags__(self):
        """Describe the input: images (n, H, W), restored as float32."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _check_psf(psf):
    """Return the PSFs as a float32 array (gy, gx, kh, kw), each of sum 1."""
    array = np.asarray(psf)
    if array.dtype.kind not in "uifb":
        raise ValueError(f"psf must hold real numbers, got dtype {array.dtype}.")
    if array.ndim not in (2, 4) or array.size == 0:
        raise ValueError(
            f"psf must have shape (kh, kw) or (gy, gx, kh, kw), got shape {array.shape}."
        )
    if array.shape[-2] % 2 == 0 or array.shape[-1] % 2 == 0:
        raise ValueError(
            f"psf must have an odd height and width, so that it has a centre pixel, got "
            f"{array.shape[-2]} x {array.shape[-1]}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("psf contains NaN or infinity.")
    if (array < 0).any():
        raise ValueError(f"psf must not be negative, got a minimum of {array.min():.3g}.")
    total = array.sum(axis=(-2, -1), keepdims=True)
    if (total == 0).any():
        raise ValueError("psf must not be zero everywhere.")
    return (array / total).reshape((1,) * (4 - array.ndim) + array.shape).astype(np.float32)


def _draw_parameters(one_map, rng):
    """Return the map with parameters drawn about their values, within the family's bounds.

    Angles are not bounded: they may turn through the end of their period.
    """
    model = one_map.psf_model
    std = np.nan_to_num(np.asarray(one_map.std, float), nan=0.0, posinf=0.0, neginf=0.0)
    drawn = one_map.parameters + std * rng.standard_normal(std.shape)
    angles = np.array([period is not None for period in model.periods])
    low, high = np.where(angles, np.array([[-np.inf], [np.inf]]), model.bounds.T)
    return replace(one_map, parameters=np.clip(drawn, low, high))
