"""TVRLDeconvolver: restoration with a PSF that varies across the image."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from ._image_psfs import check_psf, draw_deviates, local_psfs, moved_parameters, possible_psfs
from ._psf_map import PSFMap
from ._regularisation import hold_out, prediction_likelihood
from ._regularisation_choice import Photograph, choose_regularisation
from ._validation import check_bool, check_choice, check_device, check_images, check_number
from .metrics import snr
from .operators import ORDERS, WINDOWS, central_block, split_blocks
from .optics import estimate_noise
from .richardson_lucy import richardson_lucy

__all__ = ["TVRLDeconvolver"]

_METHODS = ("auto", "tiles", "modes")
# "auto": how much of an image it looks at, pixels, and what serves where there is nothing to see.
_CHOICE_SIZE = 384
_LAMBDA_TV, _ITERATIONS = 0.004, 40
# Fitted attributes that only "auto" leaves.
_CHOSEN_BY = ("lambdas_", "simulated_snr_", "held_out_likelihood_", "criterion_")
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
    lambda_tv : float or "auto", default=0.004
        Weight of the total variation, dimensionless; its best value falls with the photon count
        and rises with the error of the PSFs. "auto" lets `fit` choose it for all its images, by
        restoring simulated images like them and, where the PSFs are known, by predicting some of
        their photons (see Notes).
    n_iter : int or "auto", default=40
        Number of iterations. "auto" lets `fit` choose the smallest, up to 60, with which the
        simulated images are restored within 0.02 dB of the best; but with ``lambda_tv="auto"`` and
        known PSFs it is 60: with a weight that fits, further iterations do no harm.
    accelerate : bool, default=True
        Whether to extrapolate along successive iterates; 20 such iterations reach what takes
        about 100 plain ones.
    window : {"bilinear", "triangular", "hann"}, default="bilinear"
        How PSFs share the image between their centres.
    order : {"scatter", "gather"}, default="scatter"
        "scatter": the PSF belongs to where the light comes from, which is the physics. "gather": to
        the pixel that it reaches, as in images put together of evenly blurred parts.
    method : {"auto", "tiles", "modes"}, default="auto"
        How the varying blur is evaluated; "auto" counts which is cheaper.
    background : float, default=0.0
        Grey values above `offset` that are not part of the blurred image; removed.
    gain : float or None, default=None
        Grey values per photo-electron. None estimates it from each image where it is needed (for
        "auto" and for `score` without `y`; see `sklearn_psf.optics.estimate_noise`), and is 1 for
        the shift by `read_noise`.
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
        into blocks with a halo of one and a half PSFs and 32 pixels, each restored by itself: the
        result differs from that of the whole by less than a thousandth (RMS).
    device : str, torch.device or None, default=None
        Where to compute; None is CUDA if available, else the CPU. Results are NumPy.
    random_state : int, RandomState or None, default=None
        Seed of the draws (`n_samples`), of the simulated images of "auto", and of the photons held
        out by "auto" and by `score`.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    psf_ : ndarray of shape (gy, gx, kh, kw) or None
        The checked PSFs, float32, sum 1; None if they come with X.
    image_shape_ : tuple
        Height and width of the images seen in fit; others are accepted.
    lambda_ : float
        The weight that `transform` uses: the one given, or chosen.
    n_iter_ : int
        The number of iterations that `transform` uses.
    lambdas_ : ndarray of shape (n_lambdas,)
        The weights tried; only with "auto". This and the next three are missing where no image has
        a PSF: the defaults are used.
    simulated_snr_ : ndarray of shape (n_lambdas, n_iter)
        SNR in dB of the simulated images after each iteration, mean over images; only with "auto".
    held_out_likelihood_ : ndarray of shape (n_lambdas,)
        Log-likelihood in nats per pixel of photons that were held out, mean over images; only with
        ``lambda_tv="auto"`` and known PSFs.
    criterion_ : ndarray of shape (n_lambdas,)
        What `lambda_` was chosen to maximise, dB; only with ``lambda_tv="auto"`` and known PSFs.
        `sklearn_psf.plotting.RegularisationDisplay` draws it.
    restored_std_ : ndarray of shape (n, H, W)
        Standard deviation of the restored images of the last `transform` over draws of the PSF
        parameters, float32; only if ``n_samples > 0``. It holds the uncertainty of the PSF, not
        that of the photon noise.

    Notes
    -----
    "auto" looks at its images in two ways. The first is a parametric bootstrap [3]_: each image is
    restored once; the result is blurred and photographed again on the computer, with PSFs that the
    `std` of its map holds possible, and restored with each weight, and there the error is known.
    But a restored sample is smoother than the sample, and asks for too few iterations. The second
    is the image itself: a tenth of its photons is held out, and predicted from the restoration of
    the others with each weight. They judge the blurred image, which asks for too little smoothing.

    Where the PSFs are known (`psf` is given, or the map has no `std`), the weight chosen has the
    highest sum, after the last iteration, of the SNR of the simulated images and 0.1 dB for each
    nat of the likelihood of the photons held out (of 192 x 192 pixels, where there are more).
    Where they are not, the simulated images decide alone, on weight and iterations together: a
    wrong PSF predicts photons best if it is fitted to them. Of large images the middle 384 x 384
    pixels serve.

    Values below `offset` are clipped to it (after the shift by the read noise), because counts
    are not negative. Where no window of an image is valid, the image is returned as it is, with
    a UserWarning.

    References
    ----------
    .. [1] N. Dey et al., "Richardson-Lucy algorithm with total variation regularization for 3D
       confocal microscope deconvolution", Microsc. Res. Tech. 69, 260-266 (2006).
    .. [2] D. L. Snyder et al., "Compensation for readout noise in CCD images", J. Opt. Soc. Am. A
       12, 272-283 (1995).
    .. [3] B. Efron, "The estimation of prediction error: covariance penalties and
       cross-validation", J. Am. Stat. Assoc. 99, 619-632 (2004).

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
        order="scatter",
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
        self.order = order
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
        """Check the parameters and the input, and choose what is "auto".

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
        psf = None if self.psf is None else check_psf(self.psf)
        images = self._check_input(X, psf)
        for name in _CHOSEN_BY:  # of an earlier fit
            vars(self).pop(name, None)
        self.psf_ = psf
        self.image_shape_ = tuple(images.shape[1:])
        self.lambda_, self.n_iter_ = self.lambda_tv, self.n_iter
        if _is_auto(self.lambda_tv) or _is_auto(self.n_iter):
            self._choose(X, images)
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
        shared = {}
        with self._progress(len(images) * (1 + self.n_samples)) as bar:
            for i, image in enumerate(images):
                local = local_psfs(self.psf_, X, i, image.shape)
                if local is None:
                    restored[i] = image
                    bar.update(1 + self.n_samples)
                    continue
                data = self._to_counts(image)
                restored[i] = self._restore(data, local, bar, shared) + np.float32(self.offset)
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
            picked at random and predicted from the restoration of the others.

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
        scores, shared = [], {}
        with self._progress(len(images)) as bar:
            for i, image in enumerate(images):
                gain = self._noise_of(image)[0]
                data, held_out = hold_out(self._to_counts(image), gain, rng)
                local = local_psfs(self.psf_, X, i, image.shape)
                expected = data
                if local is not None:
                    expected = self._restore(data, local, bar, shared, blurred=True)
                scores.append(prediction_likelihood(held_out, expected, gain))
        return float(np.mean(scores))

    def _spread(self, data, one_map, rng, bar):
        """Return the standard deviation of restorations over draws of the PSF parameters."""
        mean, squares = 0.0, 0.0
        for k in range(1, self.n_samples + 1):
            drawn = moved_parameters(one_map, draw_deviates(one_map.std.shape, rng))
            x = self._restore(data, local_psfs(self.psf_, drawn, 0, data.shape), bar)
            difference = x.astype(np.float64) - mean
            mean = mean + difference / k
            squares = squares + difference * (x - mean)
        return np.sqrt(squares / self.n_samples)

    def _choose(self, X, images):
        """Set what is "auto", and by what it was chosen."""
        free_lambda, free_n_iter = _is_auto(self.lambda_tv), _is_auto(self.n_iter)
        self.lambda_ = _LAMBDA_TV if free_lambda else self.lambda_tv
        self.n_iter_ = _ITERATIONS if free_n_iter else self.n_iter
        with self._progress(len(images)) as bar:
            choice = choose_regularisation(
                lambda rng: self._photographs(X, images, rng, bar),
                lambda_tv=None if free_lambda else self.lambda_tv,
                n_iter=None if free_n_iter else self.n_iter,
                accelerate=self.accelerate,
                random_state=self.random_state,
            )
        if choice is None:
            return
        self.lambda_, self.n_iter_ = choice.lambda_tv, choice.n_iter
        for name in _CHOSEN_BY:
            if (value := getattr(choice, name.removesuffix("_"))) is not None:
                setattr(self, name, value)

    def _photographs(self, X, images, rng, bar):
        """Yield the middle of the images whose PSF is known, with what blurred it."""
        bar.reset(len(images))
        for i, image in enumerate(images):
            local = local_psfs(self.psf_, X, i, image.shape)
            if local is not None:
                block = central_block(image.shape, _CHOICE_SIZE)
                operator = local.crop(self.rtol).operator(block, **self._options())
                gain, read_noise = self._noise_of(image)
                yield Photograph(
                    image=self._to_counts(image)[block.outer],
                    operator=operator,
                    possible=self._other_operators(X, i, operator, block, rng),
                    gain=gain,
                    # A read noise that was given is in the shift, which makes Poisson noise of it.
                    read_noise=read_noise if self.read_noise is None else 0.0,
                    background=float(self.background + self._shift()),
                )
            bar.update(1)

    def _other_operators(self, X, i, operator, block, rng):
        """Operators of PSFs that the map holds possible, on the same field; None for its own."""
        if self.psf_ is not None:
            return [None]
        return [
            psfs and psfs.resized(operator.kernel_shape).operator(block, **self._options())
            for psfs in possible_psfs(X[i], rng)
        ]

    def _noise_of(self, image):
        """Gain and read noise, given or else estimated; 1 and 0 where that is impossible."""
        gain, read_noise = self.gain, self.read_noise
        if gain is None and min(image.shape) >= 64:
            estimate = estimate_noise(image, self.offset)
            if estimate[0] > 0:
                gain, read_noise = estimate[0], estimate[1] if read_noise is None else read_noise
        return 1.0 if gain is None else gain, 0.0 if read_noise is None else read_noise

    def _options(self):
        options = {"window": self.window, "order": self.order, "method": self.method}
        device = check_device(self.device)
        return options | {"rtol": self.rtol, "dtype": torch.float32, "device": device}

    def _restore(self, data, local, bar, shared=None, blurred=False):
        """Return the restored image, or the blurred image that it predicts; (H, W) float32.

        Images that have the same PSFs, and fit into memory whole, share their operator in `shared`.
        """
        background = float(self.background + self._shift())
        scale = float(np.maximum(data - np.float32(background), 0).mean(dtype=np.float64))
        local = local.crop(self.rtol)
        n_psfs = local.psfs.shape[0] * local.psfs.shape[1]
        blocks = split_blocks(data.shape, local.psfs.shape[2:], n_psfs, self.max_memory)
        result = np.empty_like(data)
        for block in blocks:
            operator = None if shared is None else shared.get("operator")
            if operator is None:
                operator = local.operator(block, **self._options())
                if shared is not None and self.psf_ is not None and len(blocks) == 1:
                    shared["operator"] = operator
            x = richardson_lucy(
                data[block.outer],
                operator,
                n_iter=self.n_iter_,
                lambda_tv=self.lambda_,
                background=background,
                accelerate=self.accelerate,
                scale=scale,  # of the whole image: all blocks start from the same constant
                callback=lambda i, x: bar.update(1 / (self.n_iter_ * len(blocks))),
            )
            part = operator.forward(x).add_(background) if blurred else operator.crop(x)
            result[block.core] = part[block.inner].cpu().numpy()
        return result

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
        if not _is_auto(self.lambda_tv):
            check_number("lambda_tv", self.lambda_tv, low=0)
        if not _is_auto(self.n_iter):
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
        check_bool("accelerate", self.accelerate)
        check_choice("window", self.window, WINDOWS)
        check_choice("order", self.order, ORDERS)
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


def _is_auto(value):
    return isinstance(value, str) and value == "auto"
