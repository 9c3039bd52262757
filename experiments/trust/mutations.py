"""Insert errors into the library, one line at a time, and check that a test fails.

    ./dev python -m experiments.trust.mutations

In a copy of the checkout each line below is replaced by a wrong one (a sign, a factor, an axis, a
weight that is missing) and the test file of its module is run until a test fails. Expected time:
twenty minutes on two cores, most of it for the files as they are, which must pass first. Expected
numbers: every mutation caught; the table names the test that did, and it is written to
`runs/trust/mutations.json`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

from experiments.benchmark.chart import show

ROOT = pathlib.Path(__file__).parents[2]
COPIED = ("jgmm", "tests", "experiments", "configs", "docs", "README.md", "pyproject.toml")
OUTPUT = pathlib.Path("runs/trust/mutations.json")
MOST_SECONDS = 900


# Modules whose lines are tried by the tests of another module, which uses them.
TESTED_WITH = {"em.algorithm": "fitting.single_run", "_core.status": "fitting.results"}


class Mutation(NamedTuple):
    """A wrong line.

    Attributes:
      wrong: the mistake, in words.
      module: its module without ``jgmm.``, such as ``mixture.density``.
      before: the text of the line, which occurs once in the module.
      after: the wrong text instead.
      tested_by: the module whose tests are run; by default that of ``TESTED_WITH``, or its own.
    """

    wrong: str
    module: str
    before: str
    after: str
    tested_by: str = ""

    @property
    def path(self) -> str:
        """The module's file, from the root of the checkout."""
        return f"jgmm/{self.module.replace('.', '/')}.py"

    @property
    def tests(self) -> str:
        """The file of tests that is run, from the root of the checkout."""
        tested = self.tested_by or TESTED_WITH.get(self.module, self.module)
        *topic, name = tested.split(".")
        return "/".join(["tests", *topic, f"test_{name}.py"])


MUTATIONS = (
    Mutation(
        "half-log-determinant left out of the density",
        "mixture.density",
        "0.5 * d * gaussian.LOG_2PI - log_det\n    return constant - 0.5 * distance",
        "0.5 * d * gaussian.LOG_2PI\n    return constant - 0.5 * distance",
    ),
    Mutation(
        "responsibilities not normalised",
        "mixture.density",
        "return largest + log_sum, score - log_sum",
        "return largest + log_sum, score",
    ),
    Mutation(
        "labels drawn without the weights",
        "mixture.density",
        "jax.random.categorical(pick, mixture.log_weights,",
        "jax.random.categorical(pick, 0 * mixture.means[:, 0],",
    ),
    Mutation(
        "sign of the correction in a conditional mean",
        "mixture.gaussian",
        "return mean[others] + ",
        "return mean[others] - ",
    ),
    Mutation(
        "volume of a sphere without its dimension",
        "covariance.storage",
        "return n_features * jnp.log(scale)",
        "return jnp.log(scale)",
    ),
    Mutation(
        "inverse factor transposed",
        "covariance.storage",
        'jnp.einsum("kde,ke->kd", inverse, x)',
        'jnp.einsum("ked,ke->kd", inverse, x)',
    ),
    Mutation(
        "sample weights missing in sums by differences",
        "em.e_step",
        "log_prob, resp = infer(difference, rows)\n        counted = weights[None, :] * resp",
        "log_prob, resp = infer(difference, rows)\n        counted = resp",
    ),
    Mutation(
        "sample weights missing in sums by products",
        "em.e_step",
        "log_prob, resp = infer(block, rows)\n        counted = weights[None, :] * resp",
        "log_prob, resp = infer(block, rows)\n        counted = resp",
    ),
    Mutation(
        "sample weights missing in the log-likelihood",
        "em.e_step",
        "jnp.where(weights > 0, weights * log_prob, 0).sum()",
        "jnp.where(weights > 0, log_prob, 0).sum()",
    ),
    Mutation(
        "products of two columns counted once",
        "em.exponential_family",
        "np.where(rows == columns, 1.0, 2.0)",
        "np.where(rows == columns, 1.0, 1.0)",
    ),
    Mutation(
        "squared length of the mean left out of the score",
        "em.exponential_family",
        "0.5 * d * LOG_2PI - log_det - 0.5 * distance",
        "0.5 * d * LOG_2PI - log_det",
    ),
    Mutation(
        "mean of the scatter not subtracted in the M-step",
        "em.m_step",
        "cross = entry.storage.outer(weighted) - trailing(counts, unit) * ridge",
        "cross = -trailing(counts, unit) * ridge",
    ),
    Mutation(
        "sign of the ridge",
        "em.m_step",
        "cross = entry.storage.outer(weighted) - trailing(counts, unit) * ridge",
        "cross = entry.storage.outer(weighted) + trailing(counts, unit) * ridge",
    ),
    Mutation(
        "log-likelihood one step behind its parameters",
        "em.algorithm",
        "pytree.where(moves, (check.updated, noise)",
        "pytree.where(moves | True, (check.updated, noise)",
    ),
    Mutation(
        "a NaN log-likelihood is not checked",
        "em.convergence",
        "(~jnp.isfinite(log_likelihood), unlikely)",
        "(jnp.isposinf(log_likelihood), unlikely)",
    ),
    Mutation(
        "common volume divided by the wrong count",
        "covariance.estimation",
        "jnp.where(used, volumes, 0).sum() / counts.sum()",
        "jnp.where(used, volumes, 0).sum() / counts.max()",
    ),
    Mutation(
        "volumes without the dimension",
        "covariance.estimation",
        "samples = n_features * jnp.where(counts > 0, counts, 1)",
        "samples = jnp.where(counts > 0, counts, 1)",
    ),
    Mutation(
        "rotations turn the wrong way",
        "covariance.common_axes",
        "jnp.where(moves, -beta / radius, 0)",
        "jnp.where(moves, beta / radius, 0)",
    ),
    Mutation(
        "a model shares a parameter that it should not share",
        "covariance.models",
        '("VEV", ("VEV",), own_axes(equal_shape(Diagonal)), False, False)',
        '("VEV", ("VEV",), own_axes(_pooled(Diagonal)), False, False)',
    ),
    Mutation(
        "rows of the last block counted twice",
        "_data.samples",
        "body(x, jnp.where(rows >= i * block_size, weights, 0), rows)",
        "body(x, weights, rows)",
    ),
    Mutation(
        "sample weights missing in the variance of the standardization",
        "_data.standardization",
        "block, lambda x, w, _: w @ x**2) / total",
        "block, lambda x, w, _: (x**2).sum(axis=0)) / total",
    ),
    Mutation(
        "sign of the entropy in ICL",
        "selection.criteria",
        "return _bic(fit) + 2 * fit.entropy",
        "return _bic(fit) - 2 * fit.entropy",
    ),
    Mutation(
        "a restart that failed may be the best",
        "_core.status",
        "return jnp.where(may_win, log_likelihood, -jnp.inf)",
        "return jnp.where(jnp.isnan(log_likelihood), -jnp.inf, log_likelihood)",
    ),
    Mutation(
        "all restarts from one key",
        "initialization.draw",
        "jax.random.fold_in(key, r))(numbers)",
        "jax.random.fold_in(key, 0 * r))(numbers)",
        "fit",
    ),
    Mutation(
        "inertia without sample weights",
        "kmeans",
        "inertia = (weights * distance).sum()",
        "inertia = distance.sum()",
    ),
    Mutation(
        "priors left out of the classifier",
        "classifier.model",
        "return (classifier.log_priors[:, None] + log_probs).T",
        "return log_probs.T",
        "classifier.fit",
    ),
    Mutation(
        "scatter left out of the prior's density",
        "mixture.prior",
        "prior.pseudo_samples() * log_det + 0.5 * squares",
        "prior.pseudo_samples() * log_det + 0.0 * squares",
    ),
    Mutation(
        "weight of the noise set to the components' share",
        "mixture.noise",
        "share = jnp.clip(1 - counts.sum() / total, 0)",
        "share = jnp.clip(counts.sum() / total, 0)",
    ),
    Mutation(
        "a floor that raises what is above it",
        "covariance.storage",
        "lacking = jnp.sqrt(jnp.maximum(1 - spread, 0))",
        "lacking = jnp.sqrt(jnp.maximum(spread - 1, 0))",
    ),
    Mutation(
        "a shared covariance with noise takes the weights of all samples",
        "em.e_step",
        "complete, k = noise_density is None, mixture.n_components",
        "complete, k = True, mixture.n_components",
        "mixture.noise",
    ),
    Mutation(
        "label 0 taken for unknown",
        "em.e_step",
        "others = (label >= 0) & (label != jnp.arange(scores.shape[0])[:, None])",
        "others = (label > 0) & (label != jnp.arange(scores.shape[0])[:, None])",
        "properties.labels",
    ),
    Mutation(
        "samples with a label may be noise",
        "em.e_step",
        "known = None if samples.labels is None else samples.labels[rows] >= 0",
        "known = None",
        "mixture.noise",
    ),
    Mutation(
        "a factor squared and factored again",
        "covariance.storage",
        'upper = jnp.linalg.qr(rows.mT, mode="r")',
        "upper = jnp.linalg.cholesky(rows @ rows.mT).mT",
        "mixture.gaussian",
    ),
    Mutation(
        "a start from labels without the prior",
        "initialization.given",
        "return maximize(statistics, covariance, control.ridge, prior=prior, floor=floor)",
        "return maximize(statistics, covariance, control.ridge, floor=floor)",
    ),
    Mutation(
        "a start from labels without the floor",
        "initialization.given",
        "return maximize(statistics, covariance, control.ridge, prior=prior, floor=floor)",
        "return maximize(statistics, covariance, control.ridge, prior=prior)",
    ),
    Mutation(
        "an infinite logarithm in the derivative of the entropy",
        "selection.criteria",
        "finite = jnp.where(used, log_resp, 0)",
        "finite = log_resp",
    ),
    Mutation(
        "equal weights accepted where derivatives are not theirs",
        "differentiation.implicit",
        '"equal_weights": "the derivatives are those of an optimum over the weights, too.",',
        "",
    ),
    Mutation(
        "pseudo-samples of the prior without the dimension",
        "mixture.prior",
        "return self.dof + (self.root.shape[0] + 2)",
        "return self.dof + 2",
    ),
    Mutation(
        "volume of the noise not in the units of the frame",
        "mixture.noise",
        "jnp.full_like(first, log_volume - frame.log_volume())",
        "jnp.full_like(first, log_volume)",
    ),
)


def run_tests(place: pathlib.Path, tests: str) -> tuple[int, str]:
    """Run a file of tests until one fails; return the exit status and what was printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", tests]
    environment = {**os.environ, "PYTHONPATH": str(place)}
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"FAILED {tests}::(did not end)"
    if done.returncode not in (0, 1):
        raise RuntimeError(f"pytest could not run {tests}:\n{done.stdout[-3000:]}")
    return done.returncode, done.stdout


def caught_by(place: pathlib.Path, mutation: Mutation) -> str | None:
    """The test that fails with the mutation, or None if all pass."""
    path = place / mutation.path
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        raise ValueError(f"{path.name} holds {mutation.before!r} {text.count(mutation.before)}×")
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        code, printed = run_tests(place, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    if code == 0:
        return None
    named = re.search(r"^(?:FAILED|ERROR) tests/[\w/]+\.py::(\S+)", printed, re.MULTILINE)
    return named.group(1) if named else "(unnamed)"


def main() -> None:
    """Try all mutations, or those of some modules."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trust.mutations")
    parser.add_argument("--only", nargs="+", help="modules, such as em.m_step")
    parser.add_argument("--last", type=int, default=len(MUTATIONS), help="only the last so many")
    arguments = parser.parse_args()
    chosen, last = arguments.only, MUTATIONS[-arguments.last :]
    mutations = [each for each in last if not chosen or each.module in chosen]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, place / name)
        for tests in dict.fromkeys(each.tests for each in mutations):
            code, printed = run_tests(place, tests)
            if code:
                raise RuntimeError(f"{tests} fails as it is:\n{printed[-3000:]}")
            print(f"{tests}: passes as it is", flush=True)
            for mutation in (each for each in mutations if each.tests == tests):
                found = caught_by(place, mutation)
                rows.append(
                    {"module": mutation.module, "wrong": mutation.wrong, "caught by": found}
                )
                print(f"  {mutation.wrong}: {found or 'SURVIVES'}", flush=True)
    show(rows, OUTPUT)
    survivors = [row["wrong"] for row in rows if row["caught by"] is None]
    if survivors:
        raise SystemExit(f"not caught: {'; '.join(map(str, survivors))}")


if __name__ == "__main__":
    main()
