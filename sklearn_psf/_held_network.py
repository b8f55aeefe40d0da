"""What the estimators that hold a trained network share: where its weights come from."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ._validation import check_device, check_number
from .networks import READERS, build_network, load_pretrained, train_network
from .networks.modules import load_initial_weights
from .optics import Camera, PSFModel, make_psf_model

__all__ = ["HeldNetworkMixin"]

_N_TARGETS = 4096


class HeldNetworkMixin:
    """Weights by name, path or training; a module that is built when needed and never pickled.

    The estimator has the parameters `psf_model`, `pretrained`, `initial_weights`, `device`,
    `camera`, `checkpoint` and those of a training.
    """

    def _check_training_parameters(self, counts):
        for name, low in counts:
            check_number(name, getattr(self, name), low=low, integer=True)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        check_number("validation_fraction", self.validation_fraction, low=0, high=0.9)
        if self.max_minutes is not None:
            check_number("max_minutes", self.max_minutes, low=0, open_low=True)
        if self.camera is not None and not isinstance(self.camera, Camera):
            raise TypeError(f"camera must be a Camera or None, got {self.camera!r}.")
        if self.psf_model is not None and not isinstance(self.psf_model, (str, PSFModel)):
            raise TypeError(f"psf_model must be a name or a PSFModel, got {self.psf_model!r}.")
        if self.pretrained is not None and self.initial_weights is not None:
            raise ValueError(
                f"pretrained={self.pretrained!r} never trains and initial_weights starts a "
                "training: give only one of them."
            )
        if self.checkpoint is not None and not isinstance(self.checkpoint, (str, Path)):
            raise TypeError(f"checkpoint must be a path or None, got {self.checkpoint!r}.")
        check_device(self.device)

    def _resolve(self, default, must_agree):
        """Return family, card and state from the weights and the parameters that must agree.

        Parameters in `must_agree` belong to the family or to the data: a training may start from
        weights that differ in them, pretrained weights may not. The architecture always agrees, but
        that a network of whole images may start from one that reads patches.
        """
        card, state, model = {}, None, self.psf_model
        if self.pretrained is not None:
            state, card = load_pretrained(self.pretrained)
            self._check_agreement(self.pretrained, card, ("architecture", *must_agree))
        elif isinstance(self.initial_weights, dict):
            state = self.initial_weights
        elif self.initial_weights is not None:
            state, card = load_pretrained(self.initial_weights)
            if card["architecture"] == READERS.get(self.architecture):
                card = {"psf_model": card["psf_model"]}  # those of the part that reads patches
            else:
                self._check_agreement(self.initial_weights, card, ("architecture",))
        if card and (model is None or self.pretrained is not None):
            model = make_psf_model(**card["psf_model"])
        elif not isinstance(model, PSFModel):
            model = make_psf_model(default if model is None else model)
        return model, card, state

    def _check_agreement(self, given, card, names):
        for name in names:
            own, known = getattr(self, name), card[name]
            if name == "psf_model" and own is not None:
                # The size of the array in which a PSF is computed does not change what it is.
                settings = own.settings if isinstance(own, PSFModel) else {"name": own}
                own = {k: v for k, v in settings.items() if k != "size"}
                known = {k: known.get(k) for k in own}
            if own is not None and own != known:
                raise ValueError(
                    f"{name}={own!r} disagrees with the weights {str(given)!r}, whose card says "
                    f"{known!r}."
                )

    def _new_network(self, architecture, model, state, rng, mixed_precision):
        seed = int(rng.randint(2**31 - 1))
        network = build_network(
            architecture, model.n_encoded, seed=seed, mixed_precision=mixed_precision
        )
        if state is not None:
            load_initial_weights(network, state)
        return network

    def _target_sample(self, model):
        """Targets whose mean and scale a training on drawn images takes; the same in each.

        Networks of one family can then be put together.
        """
        return model.encode(model.sample(_N_TARGETS, np.random.RandomState(0)))

    def _split_images(self, images, rng):
        """Images to train and to validate on; with too few images both are the same."""
        n_valid = min(int(round(self.validation_fraction * len(images))), len(images) - 1)
        if n_valid == 0:
            return images, images
        order = rng.permutation(len(images))
        return [images[i] for i in order[n_valid:]], [images[i] for i in order[:n_valid]]

    def _run_training(self, network, batches, target_sample, n_batches, evaluate, **options):
        """Train a network with progress and checkpoints; return its state, keep its history."""
        with tqdm(total=self.max_epochs, disable=not self.verbose, desc="training") as bar:

            def report(figures):
                bar.update(figures["epoch"] - bar.n)
                bar.set_postfix({k: f"{v:.3g}" for k, v in figures.items() if k != "epoch"})

            state, self.history_ = train_network(
                network,
                batches,
                target_sample,
                n_batches=n_batches,
                max_epochs=self.max_epochs,
                learning_rate=self.learning_rate,
                max_minutes=self.max_minutes,
                evaluate=evaluate,
                report=report,
                checkpoint=self.checkpoint,
                device=check_device(self.device),
                **options,
            )
        return state

    def _store_network(self, model, architecture, state):
        self.psf_model_, self.architecture_, self.state_ = model, architecture, state
        self.__dict__.pop("_network", None)
        self._module()  # now, so that weights that do not fit are found by fit

    def _store_pretrained(self, model, card, state):
        self._store_network(model, card["architecture"], state)
        self.std_scale_ = np.asarray(card.get("std_scale", np.ones(len(model.bounds))))
        name = Path(self.pretrained).stem
        self.weights_id_ = f"{name} version {card['weight_version']} sha256 {card['sha256'][:16]}"
        self.history_ = []

    def _module(self):
        """The network, built from the state and never pickled: built anew after unpickling."""
        network = self.__dict__.get("_network")
        if network is None:
            network = build_network(self.architecture_, self.psf_model_.n_encoded, self.state_)
            self._network = network.to(check_device(self.device))
        return self._network

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_network", None)
        return state
