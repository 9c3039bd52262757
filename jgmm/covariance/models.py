"""The table of covariance models: number of parameters, storage and estimator of each.

A model is one small entry of the table: how many parameters it has, how it estimates the
covariances from the components' scatter, and in which of three forms it is stored. No other module
branches on the name of a model. To add one, write its estimator and add a line to ``_FAMILY``;
from outside the package, call ``register``.

Names follow the volume–shape–orientation family Σₖ = λₖ Dₖ Aₖ Dₖᵀ (Banfield & Raftery 1993,
Celeux & Govaert 1995): three letters say whether volume, shape and orientation are Equal, Variable
or the Identity. ``full``, ``tied``, ``diag`` and ``spherical`` are scikit-learn's names; ``E`` and
``V`` are the family's names of EII and VII in one dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.errors import DataError, shown, suggest
from jgmm.covariance.estimation import (
    Estimate,
    common_axes,
    equal_shape,
    equal_volume,
    own_axes,
    trailing,
    unit_if_unused,
)
from jgmm.covariance.storage import Diagonal, Full, Spherical, Storage


@dataclass(frozen=True)
class CovarianceModel:
    """Covariance model: one entry of the table.

    Attributes:
      code: three letters for volume, shape and orientation, each E, V or I; for a model outside the
        family, a name that does not consist of these letters alone.
      names: synonyms; the package writes the first of them.
      storage: ``Full``, ``Diagonal`` or ``Spherical``.
      shared: whether all components have the same covariance, stored once.
      per_column: whether the model keeps its form when each column changes its units separately.
      affine: whether it keeps its form under every linear map of the data.
      keeps_marginals: whether it keeps its form when columns are left out, or conditioned on.
      estimate: ``(counts (K,), scatter (K or 1, …), previous scale or None) -> scale (K or 1, …)``.
        It maximises the expected complete-data log-likelihood; where that takes iterations, it
        makes that log-likelihood no lower than the previous scale does. A component without
        samples gets the unit covariance.
      count: ``(K, D) -> `` number of free covariance parameters.
    """

    code: str
    names: tuple[str, ...]
    storage: Storage
    shared: bool
    per_column: bool
    affine: bool
    keeps_marginals: bool
    estimate: Estimate
    count: Callable[[int, int], int]

    @property
    def name(self) -> str:
        """The name that the package writes."""
        return self.names[0]

    def pool(self, scatter: Array) -> Array:
        """Return the scatter that ``estimate`` takes: of each component, or their sum if shared."""
        return scatter.sum(axis=0, keepdims=True) if self.shared else scatter

    @property
    def in_family(self) -> bool:
        """Whether the model is of the volume–shape–orientation family, by the letters of its code.

        Only then do these letters say anything about the model.
        """
        return set(self.code) <= set("EVI")

    @property
    def supports_floor(self) -> bool:
        """Whether variances can have a floor: the estimate is then a mean of scatter.

        For such a model ``estimate_above`` is the maximum of the likelihood above the floor. A
        model outside the family that has such an estimate says so in a class of its own.
        """
        return self.in_family and not {"E", "V"} <= set(self.code)

    def estimate_above(self, counts: Array, scatter: Array, floor: Array) -> Array:
        """Estimate covariances that are at least a given one, the floor, in every direction.

            Σₖ = R U max(w, 1) Uᵀ Rᵀ,   Sₖ / Nₖ = R U w Uᵀ Rᵀ,   floor = R Rᵀ

        Args:
          counts, scatter: as for ``estimate``.
          floor: the covariance, in this model's storage, leading axis 1.

        Returns:
          The scale of maximum likelihood among such covariances, for a model that
          ``supports_floor``.

        Reference: Anderson & Olkin (1985) for the matrix case.
        """
        mean = _pooled_mean(counts, scatter) if self.shared else _means(counts, scatter)
        scale = self.storage.root(self.storage.at_least(mean, floor))
        return scale if self.shared else unit_if_unused(counts, scale, self.storage)

    def fills_storage(self, n_components: int, n_features: int) -> bool:
        """Return whether the model has as many free parameters as its storage has free numbers.

        If so, every scale of that form is one of the model.
        """
        copies = 1 if self.shared else n_components
        n_free = copies * self.storage.n_free(n_features)
        return self.count(n_components, n_features) == n_free

    @property
    def marginal_model(self) -> CovarianceModel:
        """The model of the mixture's marginals: this one, or else ``unconstrained_model``."""
        return self if self.keeps_marginals else self.unconstrained_model

    @property
    def unconstrained_model(self) -> CovarianceModel:
        """The model of the same storage whose components share nothing: VII, VVI or VVV."""
        return next(
            entry
            for entry in MODELS.values()
            if entry.storage is self.storage and not entry.shared and entry.fills_storage(2, 2)
        )

    def min_samples(self, n_features: int) -> int:
        """Return the fewest samples of a component for which its covariance is nonsingular.

        Zero where the samples of the other components make it so: where volumes are equal and the
        components differ at most in their axes. Zero for a model outside the family as well, unless
        a class of its own knows better.
        """
        if not self.in_family:
            return 0
        if self.code[0] != "V" and (self.code[1] != "V" or n_features == 1):
            return 0
        return n_features + 1 if self.code[1:] == "VV" else 2

    def n_parameters(self, n_components: int, n_features: int, equal_weights: bool = False) -> int:
        """Count the free parameters of a mixture: weights, means and covariances.

        The weights have K - 1, or none if they are all equal; the means have K D.

        >>> model("full").n_parameters(n_components=3, n_features=2)
        17
        """
        weights = 0 if equal_weights else n_components - 1
        covariance = self.count(n_components, n_features)
        return weights + n_components * n_features + covariance


def _means(counts: Array, scatter: Array) -> Array:
    """Mean scatter of each component, Sₖ / Nₖ; zero for one without samples."""
    return scatter / trailing(jnp.where(counts > 0, counts, 1), scatter)


def _pooled_mean(counts: Array, scatter: Array) -> Array:
    """Mean scatter of all components together, Σₖ Sₖ / Σₖ Nₖ, leading axis 1."""
    return scatter.sum(axis=0, keepdims=True) / counts.sum()


def _per_component(storage: Storage) -> Estimate:
    """Estimator of separate covariances, Σₖ = Sₖ / Nₖ: VII, VVI and VVV."""

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        del previous
        return unit_if_unused(counts, storage.root(_means(counts, scatter)), storage)

    return estimate


def _pooled(storage: Storage) -> Estimate:
    """Estimator of one covariance for all components, Σₖ Sₖ / Σₖ Nₖ: EII, EEI and EEE."""

    def estimate(counts: Array, scatter: Array, previous: Array | None) -> Array:
        del previous
        return storage.root(_pooled_mean(counts, scatter))

    return estimate


# code, names, estimate, per_column, keeps_marginals
_FAMILY = (
    ("EII", ("EII", "E"), _pooled(Spherical), False, True),
    ("VII", ("spherical", "VII", "V"), _per_component(Spherical), False, True),
    ("EEI", ("EEI",), _pooled(Diagonal), True, True),
    ("VEI", ("VEI",), equal_shape(Diagonal), True, True),
    ("EVI", ("EVI",), equal_volume(Diagonal), True, False),
    ("VVI", ("diag", "aligned", "VVI"), _per_component(Diagonal), True, True),
    ("EEE", ("tied", "EEE"), _pooled(Full), True, True),
    ("VEE", ("VEE",), equal_shape(Full), True, True),
    ("EVE", ("EVE",), common_axes(equal_volume(Diagonal)), False, False),
    ("VVE", ("VVE",), common_axes(_per_component(Diagonal)), False, False),
    ("EEV", ("EEV",), own_axes(_pooled(Diagonal)), False, False),
    ("VEV", ("VEV",), own_axes(equal_shape(Diagonal)), False, False),
    ("EVV", ("EVV",), equal_volume(Full), True, False),
    ("VVV", ("full", "general", "VVV"), _per_component(Full), True, True),
)


def _model(
    code: str, names: tuple[str, ...], estimate: Estimate, per_column: bool, keeps_marginals: bool
) -> CovarianceModel:
    """Make the entry of a model of the family; its code gives storage and number of parameters."""
    shape, orientation = code[1], code[2]
    storage = Full if orientation != "I" else Diagonal if shape != "I" else Spherical

    def count(k: int, d: int) -> int:
        each = (1, d - 1, d * (d - 1) // 2)  # parameters of a volume, a shape, an orientation
        times = {"I": 0, "E": 1, "V": k}
        return sum(times[letter] * n for letter, n in zip(code, each, strict=True))

    return CovarianceModel(
        code=code,
        names=names,
        storage=storage,
        shared="V" not in code,
        per_column=per_column,
        # A linear map multiplies all volumes by the same number, but mixes shapes with axes.
        affine=code[1:] in ("EE", "VV"),
        keeps_marginals=keeps_marginals,
        estimate=estimate,
        count=count,
    )


MODELS: dict[str, CovarianceModel] = {row[0]: _model(*row) for row in _FAMILY}
_BY_NAME = {name: entry for entry in MODELS.values() for name in entry.names}


def model(name: str) -> CovarianceModel:
    """Look up a covariance model by its code or by any of its names.

    Args:
      name: for example ``"full"``, ``"general"`` or ``"VVV"``.

    Raises:
      ValueError: there is no such model; the text lists the names and suggests the nearest.

    >>> model("aligned").code
    'VVI'
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    hint = suggest(name, _BY_NAME)
    raise ValueError(f"unknown covariance model {shown(name)}.{hint} Known: {', '.join(_BY_NAME)}.")


def register(entry: CovarianceModel) -> CovarianceModel:
    """Add a covariance model of your own to the table, so that every function accepts its names.

    In a selection over several models, a model outside the family counts as a special case of no
    other model, and as its own special case counts only the same model with fewer components.

    Args:
      entry: the model; its code must not consist of the letters E, V and I alone.

    Returns:
      The entry itself.

    Raises:
      DataError: a ValueError; one of its names is taken, or its code is that of a family member.

    A worked example is in the documentation, "Add a model or an optimiser".
    """
    taken = [name for name in (*entry.names, entry.code) if name in _BY_NAME or name in MODELS]
    if taken:
        raise DataError(f"there is a covariance model {taken[0]!r} already; choose another name.")
    if entry.in_family:
        raise DataError(
            f"the code of a covariance model must not consist of the letters E, V and I alone, "
            f"which say volume, shape and orientation; {entry.code!r} does. Choose another code."
        )
    MODELS[entry.code] = entry
    _BY_NAME.update(dict.fromkeys(entry.names, entry))
    return entry
