"""Flow in three dimensions from the motion blur of one long exposure."""

from numbers import Integral

import numpy as np
import torch
from scipy.special import ndtr
from skimage.transform import resize
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional as F

from ._held_network import HeldNetworkMixin
from ._validation import check_device, check_image_list, check_images, check_number
from .metrics import align_sense, flow_r2
from .networks import read_image
from .networks.reading import fit_std_scale, propagate_std
from .networks.training import ArrayBatches, epochs_done
from .optics import Optics
from .simulation import MotionStream

__all__ = ["BlurFlowEstimator"]

_MIN_IMAGE = 64
_N_VALIDATION = 64
_N_SCORE = 32
_N_PATHS = 128  # motions that a training holds at a time


class BlurFlowEstimator(HeldNetworkMixin, RegressorMixin, BaseEstimator):
    r"""Read lateral motion, axial motion and depth of every pixel off one blurred image.

    While the shutter is open the sample moves; at time s in [-1/2, 1/2] (in exposures, counted from
    its middle) a point stands at ``v s``, with a defocus of ``z0 + v_z s``. A fully convolutional
    network looks at the image and at the power spectra of its windows, once to see what moves alike
    and once more with that kept apart, and regresses

    .. math:: v_y, v_x\ \text{(pixels per exposure)},\quad
              v_z, z_0\ \text{(waves RMS of defocus per exposure, and waves RMS)}

    in coordinates that are equal where the blurs are. The same streak results from
    :math:`(v, v_z, z_0)`, :math:`(-v, -v_z, z_0)` and :math:`(v, -v_z, -z_0)`: hence v_z and z0 are
    at least 0, and then the sense of v is known. It points to the blurred end of the streak, and is
    lost as v_z or z0 goes to 0: see `predict_sense`.

    Parameters
    ----------
    psf_model : str, PSFModel or None
        "motion", or the family as made by `sklearn_psf.optics.make_psf_model`, for instance with
        the known `cylinder` of an astigmatic lens, which lets z0 have a sign. None follows the
        weights, else "motion".
    pretrained : str, Path or None
        "motion", or the path of a .safetensors file. `fit` then only validates.
    initial_weights : str, Path, dict or None
        Where a training starts: weights of such a network, of a "compact-directed" one that reads
        patches, or a dict of these and of a "polar" one under the names that they have in the
        former. Readers of windows whose weights are given stay as they are.
    image_size : int, default=192
        Height and width of the scenes that a training draws, pixels; a multiple of 32.
    camera : Camera or None
        Camera of these scenes. None varies peak photons from 10^2.5 to 10^4.5 and read noise from 0
        to 5 electrons.
    optics : Optics or None
        With it, images are resampled to the sampling of the network, lateral motion and depth come
        in micrometres, and velocities in micrometres per exposure.
    exposure : float or None
        Exposure time, seconds. With `optics`, velocities come in micrometres per second.
    n_images : int, default=1200
        Scenes drawn per epoch when fitted on sharp images.
    max_epochs : int, default=20
        Longest training.
    batch_size : int, default=12
        Images per training step.
    learning_rate : float, default=2e-3
        Peak learning rate of AdamW.
    validation_fraction : float, default=0.1
        Part of the images on which the training is scored and the standard deviation calibrated. A
        single image is used for both.
    max_minutes : float or None, default=None
        Time after which the training, with its schedule, ends.
    checkpoint : str, Path or None, default=None
        File that is written after each epoch; if it exists, `fit` resumes from it.
    device : str or None
        None takes CUDA where available, else the CPU.
    random_state : int, RandomState or None
        Seed.
    verbose : int, default=0
        1 shows progress.

    Attributes
    ----------
    psf_model_ : PSFModel
        The family.
    architecture_ : str
        "unet-directed".
    state_ : dict of str to ndarray
        Weights.
    std_scale_ : ndarray of shape (4,)
        Factor that calibrates the standard deviation.
    scale_ : ndarray of shape (4,)
        Factors from pixels and waves on the sampling of the network to the units of `predict`.
    units_ : tuple of str
        Of each component that `predict` gives.
    history_ : list of dict
        Figures of each epoch; empty for pretrained weights.
    weights_id_ : str
        Name, version and hash of pretrained weights, else "".

    References
    ----------
    A. Shajkofci, "Bright-field microscopy image restoration and depth estimation by convolutional
    neural networks", PhD thesis, EPFL (2021), the chapter on motion blur.

    Examples
    --------
    >>> import numpy as np
    >>> from skimage.data import camera
    >>> from sklearn_psf import BlurFlowEstimator
    >>> X = camera()[np.newaxis, :128, :160]
    >>> flow = BlurFlowEstimator(pretrained="motion").fit(X)
    >>> flow.predict(X).shape
    (1, 4, 128, 160)
    """

    architecture = "unet-directed"  # the only one; the weights' card must agree

    def __init__(
        self,
        *,
        psf_model=None,
        pretrained=None,
        initial_weights=None,
        image_size=192,
        camera=None,
        optics=None,
        exposure=None,
        n_images=1200,
        max_epochs=20,
        batch_size=12,
        learning_rate=2e-3,
        validation_fraction=0.1,
        max_minutes=None,
        checkpoint=None,
        device=None,
        random_state=None,
        verbose=0,
    ):
        self.psf_model = psf_model
        self.pretrained = pretrained
        self.initial_weights = initial_weights
        self.image_size = image_size
        self.camera = camera
        self.optics = optics
        self.exposure = exposure
        self.n_images = n_images
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.max_minutes = max_minutes
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Train on sharp images or on blurred ones with their motion, or validate weights.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or list of 2-D arrays
            Without `y`: sharp images of any sizes, from which moving scenes are drawn. With `y`:
            blurred images.
        y : array-like of shape (n, 4, H, W) or None
            Motion of every pixel in pixels and waves per exposure; NaN where there is nothing to
            read.

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
        model, card, state = self._resolve("motion", ("psf_model",))
        if model.name != "motion":
            raise ValueError(f"psf_model must be of the family 'motion', got {model!r}.")
        if self.pretrained is not None:
            check_image_list(X)
            self._set_units(model)
            self._store_pretrained(model, card, state)
            return self
        self._set_units(model)
        rng = check_random_state(self.random_state)
        if y is None:
            self._fit_sharp(check_image_list(X), model, state, rng)
        else:
            self._fit_scenes(X, y, model, state, rng)
        self.weights_id_ = ""
        return self

    def predict(self, X, return_std=False):
        """Return the motion of every pixel.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.
        return_std : bool
            Whether to return the standard deviations too.

        Returns
        -------
        motion : ndarray of shape (n, 4, H, W)
            v_y, v_x, v_z and z0, in pixels and waves RMS per exposure and waves RMS; with `optics`
            in micrometres per exposure and micrometres, with `exposure` too in micrometres per
            second and micrometres. float32. Of (v_y, v_x) the vector that is nearest, in the mean,
            to all that are possible, up to their sense: it is shorter than the speed where its
            direction is unsure.
        std : ndarray of shape (n, 4, H, W)
            Only with `return_std`.
        """
        X = self._checked(X)
        motions, stds = [], []
        for image in X:
            encoding, variance, _ = self._read(image)
            encoding = self.psf_model_.nearest(encoding, variance)
            motion = self.psf_model_.decode(self._enlarged(encoding, image.shape))
            motions.append(motion * self.scale_)
            if return_std:
                std = self._std(encoding, variance)
                stds.append(self._enlarged(std, image.shape) * self.scale_)
        motion = np.moveaxis(np.array(motions, dtype=np.float32), -1, 1)
        if not return_std:
            return motion
        return motion, np.moveaxis(np.array(stds, dtype=np.float32), -1, 1)

    def predict_invalid(self, X):
        """Return the probability that there is no texture around a pixel to read a motion from.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.

        Returns
        -------
        ndarray of shape (n, H, W)
            Between 0 and 1, float32.
        """
        X = self._checked(X)
        invalid = [self._enlarged(self._read(image)[2][..., None], image.shape) for image in X]
        return np.array(invalid, dtype=np.float32)[..., 0]

    def predict_sense(self, X):
        r"""Return the probability that the sense of the lateral motion is right.

        That is :math:`\Phi(|a| / \sigma)`, with a the coordinate that tells the sense, projected on
        the direction of the motion, and sigma its standard deviation: 1/2 where the sense is lost.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Images.

        Returns
        -------
        ndarray of shape (n, H, W)
            Between 1/2 and 1, float32.
        """
        X = self._checked(X)
        maps = []
        for image in X:
            encoding, variance, _ = self._read(image)
            direction = self.psf_model_.decode(encoding)[..., :2]
            length = np.linalg.norm(direction, axis=-1, keepdims=True)
            direction = direction / np.maximum(length, 1e-9)
            told = (encoding[..., 4:6] * direction).sum(-1)
            sigma = (
                np.sqrt((variance[..., 4:6] * direction**2).sum(-1)) * self.std_scale_[:2].mean()
            )
            sense = ndtr(np.abs(told) / np.maximum(sigma, 1e-9))
            maps.append(self._enlarged(sense[..., None], image.shape))
        return np.array(maps, dtype=np.float32)[..., 0]

    def score(self, X, y=None):
        """Return R^2 averaged over the components, the sense of v aligned pixel by pixel.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or list of 2-D arrays
            With `y`: blurred images. Without: sharp images, from which seeded scenes are drawn.
        y : array-like of shape (n, 4, H, W) or None
            Motion, in the units of `predict`; NaN is left out.

        Returns
        -------
        float
            At most 1.
        """
        check_is_fitted(self)
        if y is not None:
            X = self._checked(X)
            return flow_r2(self._checked_truth(y, X), self.predict(X))
        seed = self.random_state if isinstance(self.random_state, Integral) else 0
        stream = self._stream(
            check_image_list(X), self.psf_model_, np.random.RandomState(seed), _N_SCORE // 4
        )
        X, squares = _draw(stream, _N_SCORE)
        return self._score_squares(X, squares)

    def calibrate(self, X, y):
        """Scale the standard deviations to the errors on images.

        About 68 % of them are then within one standard deviation, and 95 % within two.

        Parameters
        ----------
        X : array-like of shape (n, H, W)
            Blurred images that were not trained on.
        y : array-like of shape (n, 4, H, W)
            Motion of every pixel, in pixels and waves per exposure; NaN is left out.

        Returns
        -------
        self
            With a new `std_scale_`.
        """
        X = self._checked(X)
        self._calibrate(X, self._squares(self._checked_truth(y, X)))
        return self

    def _check_parameters(self):
        self._check_training_parameters((("n_images", 1), ("max_epochs", 1), ("batch_size", 2)))
        check_number("image_size", self.image_size, low=_MIN_IMAGE, integer=True)
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, got {self.image_size}.")
        if self.optics is not None and not isinstance(self.optics, Optics):
            raise TypeError(f"optics must be an Optics or None, got {self.optics!r}.")
        if self.exposure is not None:
            check_number("exposure", self.exposure, low=0, open_low=True)
            if self.optics is None:
                raise ValueError(
                    f"exposure={self.exposure!r} needs optics=, which gives micrometres."
                )

    def _fit_sharp(self, images, model, state, rng):
        train, valid = self._split_images(images, rng)
        # A training that is resumed goes on with other scenes instead of the first ones again.
        seeds = [rng.randint(2**31 - 1), epochs_done(self.checkpoint)]
        n_paths = min(_N_PATHS, 1 + self.n_images * self.max_epochs // MotionStream.renewal)
        stream = self._stream(train, model, np.random.RandomState(seeds), n_paths)
        batches = ((X, model.encode(y.movedim(1, -1))) for X, y in stream)
        n_valid = _N_VALIDATION if self.validation_fraction else 0
        validation = _draw(self._stream(valid, model, rng, 1 + n_valid // 4), n_valid)
        sample = self._target_sample(model)
        self._train(model, state, batches, sample, self.n_images, validation, rng)

    def _fit_scenes(self, X, y, model, state, rng):
        X = check_images(X, min_size=_MIN_IMAGE)
        y = self._checked_truth(y, X)
        self.psf_model_ = model  # says what sampling the images are brought to
        squares = self._squares(y)
        height, width = (n - n % 8 for n in squares.shape[2:])  # of multiples of 32 pixels
        targets = model.encode(np.moveaxis(squares[..., :height, :width], 1, -1))
        small = np.stack([self._resampled(image) for image in X])[:, : 4 * height, : 4 * width]
        order = rng.permutation(len(X))
        n_valid = min(int(round(self.validation_fraction * len(X))), len(X) - 1)
        train, valid = order[n_valid:], order[:n_valid] if n_valid else order
        if len(train) < 2:
            raise ValueError(
                f"Found {len(X)} sample(s), of which {n_valid} to validate on: a training needs "
                "at least 2 images."
            )
        device = check_device(self.device)
        batches = ArrayBatches(small[train], targets[train], self.batch_size, rng, device)
        sample = targets[train].reshape(-1, model.n_encoded)
        validation = (np.asarray(X[valid]), squares[valid])
        self._train(model, state, batches, sample, len(train), validation, rng)

    def _train(self, model, state, batches, sample, n_images, validation, rng):
        network = self._new_network(self.architecture, model, state, rng, self.batch_size >= 8)

        def evaluate(state):
            self._store_network(model, self.architecture, state)
            return self._score_squares(*validation)

        n_batches = max(1, n_images // self.batch_size)
        evaluate = evaluate if len(validation[0]) else None
        state = self._run_training(network, batches, sample, n_batches, evaluate)
        self._store_network(model, self.architecture, state)
        self._calibrate(*validation)

    def _read_squares(self, X):
        """Encoding, variance and motion (n, h, w, k) of squares of 4 x 4 pixels of equal images."""
        encoding, variance, _ = (np.stack(p) for p in zip(*map(self._read, X), strict=True))
        encoding = self.psf_model_.nearest(encoding, variance)
        return encoding, variance, self.psf_model_.decode(encoding)

    def _score_squares(self, X, truth):
        motion = np.moveaxis(self._read_squares(X)[2], -1, 1)
        return flow_r2(truth, motion[..., : truth.shape[2], : truth.shape[3]])

    def _calibrate(self, X, truth):
        self.std_scale_ = np.ones(4)
        if not len(X):
            return
        encoding, variance, motion = self._read_squares(X)
        motion, std = (
            np.moveaxis(part, -1, 1)[..., : truth.shape[2], : truth.shape[3]]
            for part in (motion, self._std(encoding, variance))
        )
        error = np.abs(align_sense(motion, truth) - truth)
        valid = ~np.isnan(truth).any(1)
        self.std_scale_ = fit_std_scale(*(np.moveaxis(part, 1, -1)[valid] for part in (error, std)))

    def _std(self, encoding, variance):
        flat = (part.reshape(-1, part.shape[-1]) for part in (encoding, variance))
        std = propagate_std(self.psf_model_, *flat, self.std_scale_)
        return std.reshape(*encoding.shape[:-1], -1)

    def _stream(self, images, model, random_state, n_paths):
        return MotionStream(
            images,
            psf_model=model,
            image_size=self.image_size,
            batch_size=self.batch_size,
            camera=self.camera,
            pool_size=n_paths,
            device=self.device,
            random_state=random_state,
        )

    def _checked(self, X):
        check_is_fitted(self)
        return check_images(X, min_size=_MIN_IMAGE)

    def _checked_truth(self, y, X):
        y = np.asarray(y, dtype=np.float64)
        expected = (len(X), 4, *X.shape[1:])
        if y.shape != expected:
            raise ValueError(
                f"y must have shape {expected}, the motion of every pixel; got {y.shape}."
            )
        if np.isinf(y).any():
            raise ValueError("Input y contains infinity.")
        if np.isnan(y).any(1).all():
            raise ValueError("y holds no valid pixel: every one has NaN (nothing to read).")
        return y

    def _read(self, image):
        """Encoding, variance (h, w, E) and invalidity (h, w) of squares of the network's pixels."""
        return read_image(self._module(), self._resampled(image))

    def _resampled(self, image):
        """An image on the sampling of the network."""
        image = np.asarray(image)
        shape = self._network_shape(image.shape)
        if shape == image.shape:
            return image
        image = image.astype(np.float32)
        return resize(image, shape, order=1, anti_aliasing=True, preserve_range=True)

    def _network_shape(self, shape):
        """Size of an image on the sampling of the network."""
        small = tuple(round(n / self._shrinkage()) for n in shape)
        if min(small) < _MIN_IMAGE:
            raise ValueError(
                f"images of {shape[0]} x {shape[1]} pixels are too small: on the sampling of the "
                f"network, that of a cut-off of {self.psf_model_.cutoff:g}, they are {small[0]} x "
                f"{small[1]}, and {_MIN_IMAGE} are needed."
            )
        return small

    def _squares(self, y):
        """Motions (n, 4, h, w) at the centres of squares, in pixels, of the network's sampling."""
        rows, columns = (
            np.minimum(((np.arange(2, m, 4) + 0.5) * n / m).astype(int), n - 1)
            for n, m in zip(y.shape[2:], self._network_shape(y.shape[2:]), strict=True)
        )
        lateral = 1 / self._shrinkage()
        scale = np.array([lateral, lateral, 1.0, 1.0])[:, None, None]
        return y[:, :, rows[:, None], columns] * scale

    def _enlarged(self, field, shape):
        """Bring a field (h, w, k) of squares to the pixels of an image, bilinearly."""
        tensor = torch.as_tensor(field, dtype=torch.float32).movedim(-1, 0)[None]
        height, width = self._network_shape(shape)
        large = F.interpolate(tensor, scale_factor=4, mode="bilinear", align_corners=False)
        large = large[..., :height, :width]
        if (height, width) != tuple(shape):
            large = F.interpolate(large, shape, mode="bilinear", align_corners=False)
        return large[0].movedim(0, -1).numpy()

    def _shrinkage(self):
        """Pixels of the image per pixel of the network's sampling."""
        return 1.0 if self.optics is None else self.psf_model_.cutoff / self.optics.cutoff

    def _set_units(self, model):
        lateral, axial = "px/exposure", "waves RMS/exposure"
        self.scale_, self.units_ = np.ones(4), (lateral, lateral, axial, "waves RMS")
        if self.optics is not None:
            pixel = self.optics.object_pixel * model.cutoff / self.optics.cutoff
            depth = self.optics.waves_to_micrometres(1.0)
            time = 1.0 if self.exposure is None else self.exposure
            self.scale_ = np.array([pixel / time, pixel / time, depth / time, depth])
            speed = "um/exposure" if self.exposure is None else "um/s"
            self.units_ = (speed, speed, speed, "um")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.target_tags.required = False
        tags.target_tags.multi_output = True
        tags.non_deterministic = False
        return tags


def _draw(stream, n):
    """At least n scenes of a stream as arrays."""
    batches = [stream.draw() for _ in range(-(-n // stream.batch_size))]
    if not batches:
        return np.empty((0, 0, 0)), np.empty((0, 4, 0, 0))
    return tuple(
        np.concatenate([part.cpu().numpy() for part in parts])
        for parts in zip(*batches, strict=True)
    )
