"""The contestants: libraries that take the same EM steps from the same start.

A contestant is built for a case and has two functions: one takes ``STEPS`` EM steps from the start,
the other returns the parameters it ended with. A library that is not installed, or cannot compute
the case, raises ``AbsentError`` with the reason.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jgmm
from jgmm._data.samples import make_samples
from jgmm._data.standardization import standardize
from jgmm.em import exponential_family
from jgmm.em.e_step import accumulate
from jgmm.em.m_step import maximize
from jgmm.mixture.mixture import Mixture, to_original, to_standard

STEPS = 3


@dataclass(frozen=True)
class Case:
    """One problem: N samples in D columns, K components, a covariance model, a precision."""

    n_samples: int
    n_features: int
    n_components: int
    covariance: str
    dtype: str

    @property
    def name(self) -> str:
        """Name of the case in tables."""
        n = f"{self.n_samples // 1000}k" if self.n_samples >= 1000 else str(self.n_samples)
        return f"{self.covariance} {n}, {self.n_features}, {self.n_components} {self.dtype}"

    @property
    def operations(self) -> int:
        """Operations of the two matrix products that every step needs; a multiply-add is two."""
        entry = jgmm.covariance.model(self.covariance)
        features = exponential_family.n_features(entry, self.n_features)
        return 4 * self.n_samples * self.n_components * features

    def problem(self) -> tuple[np.ndarray, Mixture]:
        """Draw samples of a mixture, and a start: its components moved by half a deviation."""
        rng = np.random.default_rng(0)
        means = 3 * rng.normal(size=(self.n_components, self.n_features))
        x = rng.normal(size=(self.n_samples, self.n_features))
        x += means[rng.integers(self.n_components, size=self.n_samples)]
        d = self.n_features
        one = {"full": np.eye(d), "diag": np.ones(d)}[self.covariance]
        start = jgmm.make_mixture(
            np.full(self.n_components, 1 / self.n_components, self.dtype),
            (means + 0.5 * rng.normal(size=means.shape)).astype(self.dtype),
            np.broadcast_to(one, (self.n_components, *one.shape)).astype(self.dtype),
            self.covariance,
        )
        return x.astype(self.dtype), start


class Parameters(NamedTuple):
    """Weights, means and covariances in the model's own form."""

    weights: Any
    means: Any
    covariances: Any


class Contestant(NamedTuple):
    """``advance`` takes STEPS steps, ``reached`` returns the parameters after them."""

    advance: Callable[[], object]
    reached: Callable[[], Parameters]


class AbsentError(RuntimeError):
    """Why a library takes no part in a case."""


def ours(case: Case, x: np.ndarray, start: Mixture) -> Contestant:
    """This package: the E-step and the M-step of ``jgmm.fit``, on standardized samples."""
    samples = standardize(make_samples(x), start.model)
    inside = to_standard(start, samples.frame)

    @jax.jit
    def step(mixture: Mixture) -> Mixture:
        return maximize(accumulate(mixture, samples), case.covariance)

    def advance() -> Mixture:
        mixture = inside
        for _ in range(STEPS):
            mixture = step(mixture)
        return mixture

    def reached() -> Parameters:
        mixture = to_original(advance(), samples.frame)
        own = mixture.covariances if case.covariance == "full" else mixture.variances
        return Parameters(mixture.weights, mixture.means, own)

    return Contestant(advance, reached)


def scikit_learn(case: Case, x: np.ndarray, start: Mixture) -> Contestant:
    """scikit-learn's own E-step and M-step, without its start and its checks."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise AbsentError("scikit-learn is not installed") from error
    gm = GaussianMixture(case.n_components, covariance_type=case.covariance, reg_covar=0.0)
    scale = np.asarray(start.scale)

    def advance() -> object:
        gm.weights_, gm.means_ = np.asarray(start.weights), np.asarray(start.means)
        gm.precisions_cholesky_ = scale  # the start's covariances are the identity
        for _ in range(STEPS):
            _, log_resp = gm._e_step(x)
            gm._m_step(x, log_resp)
        return gm.means_

    def reached() -> Parameters:
        advance()
        return Parameters(gm.weights_, gm.means_, gm.covariances_)

    return Contestant(advance, reached)


def gmmx(case: Case, x: np.ndarray, start: Mixture) -> Contestant:
    """gmmx's E-step and M-step in one compiled program."""
    if case.dtype != "float32":
        raise AbsentError("takes float32 only")
    if case.n_samples * case.n_components * case.n_features**2 > 5e9:
        raise AbsentError("takes minutes: it holds N K D² numbers")
    try:
        from gmmx import EMFitter, GaussianMixtureModelJax
    except ImportError as error:
        raise AbsentError("gmmx is not installed") from error
    own = start.covariances if case.covariance == "full" else start.variances
    given = GaussianMixtureModelJax.from_squeezed(
        means=start.means, covariances=own, weights=start.weights, covariance_type=case.covariance
    )
    fitter, samples = EMFitter(reg_covar=0.0), jnp.asarray(x)

    @jax.jit
    def step(model: Any, samples: Any) -> Any:
        _, log_resp = fitter.e_step(samples, model)
        return fitter.m_step(samples, model, log_resp)

    def advance() -> Any:
        model = given
        for _ in range(STEPS):
            model = step(model, samples)
        return model

    def reached() -> Parameters:
        model = advance()
        d = case.n_features
        shape = (d, d) if case.covariance == "full" else (d,)
        values = np.asarray(model.covariances.values).reshape(case.n_components, *shape)
        return Parameters(
            np.asarray(model.weights).ravel(), np.asarray(model.means).reshape(-1, d), values
        )

    return Contestant(advance, reached)


_ARMADILLO = r"""
#include <armadillo>
#include <iostream>
#include <string>
using namespace arma;
void unit(gmm_full& m, uword d, uword k) {
  cube c(d, d, k);
  for (uword i = 0; i < k; ++i) c.slice(i).eye();
  m.set_fcovs(c);
}
void unit(gmm_diag& m, uword d, uword k) { m.set_dcovs(ones<mat>(d, k)); }
void save(const gmm_full& m, const std::string& path) { m.fcovs.save(path, raw_binary); }
void save(const gmm_diag& m, const std::string& path) { m.dcovs.save(path, raw_binary); }
template <typename Model>
int serve(const mat& x, const mat& means, int steps) {
  Model m;
  m.reset(means.n_rows, means.n_cols);
  rowvec weights(means.n_cols);
  weights.fill(1.0 / means.n_cols);
  for (std::string word; std::cin >> word; std::cout << word << std::endl) {
    if (word == "go") {
      m.set_means(means); m.set_hefts(weights); unit(m, means.n_rows, means.n_cols);
      m.learn(x, means.n_cols, maha_dist, keep_existing, 0, steps, 1e-12, false);
    } else {
      m.means.save(word + ".means", raw_binary);
      m.hefts.save(word + ".weights", raw_binary);
      save(m, word + ".covariances");
    }
  }
  return 0;
}
int main(int, char** a) {
  int d = std::stoi(a[3]), k = std::stoi(a[4]), steps = std::stoi(a[5]);
  mat x, means;
  x.load(a[1], raw_binary); x.reshape(d, x.n_elem / d);
  means.load(a[2], raw_binary); means.reshape(d, k);
  return std::string(a[6]) == "full" ? serve<gmm_full>(x, means, steps)
                                     : serve<gmm_diag>(x, means, steps);
}
"""


def armadillo(case: Case, x: np.ndarray, start: Mixture) -> Contestant:
    """Armadillo in C++, compiled here, in a process that waits for its turns; always float64."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise AbsentError("there is no C++ compiler")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jgmm-benchmark-"))
    (folder / "peer.cpp").write_text(_ARMADILLO, encoding="utf-8")
    flags = ["-O3", "-march=native", "-fopenmp", "-std=c++14"]
    built = subprocess.run(
        [compiler, *flags, "peer.cpp", "-o", "peer", "-larmadillo"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise AbsentError("it does not build here: is libarmadillo-dev installed?")
    np.ascontiguousarray(x, np.float64).tofile(folder / "x")
    np.asarray(start.means, np.float64).tofile(folder / "means")
    numbers = [str(case.n_features), str(case.n_components), str(STEPS)]
    peer = subprocess.Popen(
        ["./peer", "x", "means", *numbers, case.covariance],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    ask, answer = peer.stdin, peer.stdout

    def say(word: str) -> None:
        ask.write(word + "\n")
        ask.flush()
        if not answer.readline():
            raise AbsentError("its process ended")

    def read(name: str, *shape: int) -> np.ndarray:
        return np.fromfile(folder / f"end.{name}").reshape(shape)

    def reached() -> Parameters:
        say("go")
        say("end")
        k, d = case.n_components, case.n_features
        shape = (k, d, d) if case.covariance == "full" else (k, d)
        return Parameters(read("weights", k), read("means", k, d), read("covariances", *shape))

    return Contestant(lambda: say("go"), reached)


CONTESTANTS: dict[str, Callable[[Case, np.ndarray, Mixture], Contestant]] = {
    "jgmm": ours,
    "scikit-learn": scikit_learn,
    "gmmx": gmmx,
    "Armadillo": armadillo,
}
