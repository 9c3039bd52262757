"""The textbook, in NumPy and float64: slow loops that are obviously right.

Nothing here shares code or algebra with the package: densities go through a general linear solve
instead of a Cholesky factor, moments through loops over samples instead of products.
"""

import math

import numpy as np

# The six models, by the code and by the name the package gives them.
MODELS = {
    "EII": "EII",
    "VII": "spherical",
    "EEI": "EEI",
    "VVI": "diag",
    "EEE": "tied",
    "VVV": "full",
}
NAMES = tuple(MODELS.values())


def log_gaussian(x, mean, covariance):
    """log N(x | μ, Σ) of one sample."""
    away = x - mean
    sign, log_det = np.linalg.slogdet(covariance)
    assert sign > 0
    return -0.5 * (
        len(x) * math.log(2 * math.pi) + log_det + away @ np.linalg.inv(covariance) @ away
    )


def logsumexp(values):
    """log Σ exp, of numbers that may be -inf but not all."""
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def e_step(x, weights, means, covariances):
    """Log density (N,) and responsibilities (N, K)."""
    n, k = len(x), len(weights)
    log_prob, resp = np.zeros(n), np.zeros((n, k))
    for i in range(n):
        joint = [
            math.log(weights[j]) + log_gaussian(x[i], means[j], covariances[j])
            if weights[j] > 0
            else -math.inf
            for j in range(k)
        ]
        log_prob[i] = logsumexp(joint)
        resp[i] = [math.exp(value - log_prob[i]) for value in joint]
    return log_prob, resp


def log_likelihood(x, weights, means, covariances, sample_weight=None):
    """Σₙ wₙ log p(xₙ)."""
    log_prob, _ = e_step(x, weights, means, covariances)
    return float(sum(log_prob * (np.ones(len(x)) if sample_weight is None else sample_weight)))


def statistics(x, resp, center, sample_weight=None):
    """Counts (K,), first (K, D) and second (K, D, D) moments about a center for each component."""
    (n, d), k = x.shape, resp.shape[1]
    w = np.ones(n) if sample_weight is None else np.asarray(sample_weight, float)
    counts, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    for i in range(n):
        for j in range(k):
            away = x[i] - center[j]
            counts[j] += w[i] * resp[i, j]
            first[j] += w[i] * resp[i, j] * away
            second[j] += w[i] * resp[i, j] * np.outer(away, away)
    return counts, first, second


def m_step(x, resp, model="full", sample_weight=None):
    """Weights (K,), means (K, D), and covariances as matrices (K, D, D)."""
    k, d = resp.shape[1], x.shape[1]
    counts, first, _ = statistics(x, resp, np.zeros((k, d)), sample_weight)
    means = first / counts[:, None]
    _, _, scatter = statistics(x, resp, means, sample_weight)
    total = counts.sum()
    covariances = np.zeros((k, d, d))
    for j in range(k):
        own, shared = scatter[j] / counts[j], scatter.sum(axis=0) / total
        covariances[j] = {
            "full": own,
            "tied": shared,
            "diag": np.diag(np.diag(own)),
            "EEI": np.diag(np.diag(shared)),
            "spherical": np.trace(own) / d * np.eye(d),
            "EII": np.trace(shared) / d * np.eye(d),
        }[model]
    return counts / total, means, covariances


def em_step(x, weights, means, covariances, model="full", sample_weight=None):
    """Updated weights, means and covariances, and the log-likelihood of those passed in."""
    log_prob, resp = e_step(x, weights, means, covariances)
    w = np.ones(len(x)) if sample_weight is None else sample_weight
    return (*m_step(x, resp, model, sample_weight), float(log_prob @ w))


def conditional(mean, covariance, known, values):
    """Mean and covariance of the other coordinates, from blocks of the precision matrix."""
    rest = [i for i in range(len(mean)) if i not in known]
    precision = np.linalg.inv(covariance)
    sigma = np.linalg.inv(precision[np.ix_(rest, rest)])
    away = np.asarray(values) - mean[known]
    return mean[rest] - sigma @ precision[np.ix_(rest, known)] @ away, sigma


def inertia(x, centers, sample_weight=None):
    """Σₙ wₙ minₖ |xₙ − cₖ|²."""
    w = np.ones(len(x)) if sample_weight is None else sample_weight
    return sum(w[i] * min(sum((x[i] - center) ** 2) for center in centers) for i in range(len(x)))


def lloyd(x, centers, sample_weight=None):
    """Centers and labels once no label changes any more; no cluster may become empty."""
    w = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, float)
    labels = None
    while True:
        new = [min(range(len(centers)), key=lambda j: sum((row - centers[j]) ** 2)) for row in x]
        if new == labels:
            return centers, np.array(labels)
        labels = new
        centers = np.array(
            [
                sum(w[i] * x[i] for i in range(len(x)) if labels[i] == j)
                / sum(w[i] for i in range(len(x)) if labels[i] == j)
                for j in range(len(centers))
            ]
        )


# Problems to run it on.


def restrict(covariances, model):
    """The nearest covariances that have the form of the model."""
    d = covariances.shape[-1]
    pooled = np.broadcast_to(covariances.mean(axis=0), covariances.shape)
    return {
        "full": lambda: covariances,
        "tied": lambda: pooled,
        "diag": lambda: covariances * np.eye(d),
        "EEI": lambda: pooled * np.eye(d),
        "spherical": lambda: np.trace(covariances, axis1=1, axis2=2)[:, None, None] / d * np.eye(d),
        "EII": lambda: np.trace(pooled, axis1=1, axis2=2)[:, None, None] / d * np.eye(d),
    }[model]().copy()


def parameters(seed=0, k=3, d=3, model="full"):
    """Weights (K,), means (K, D) and covariances (K, D, D) of components that overlap a little."""
    rng = np.random.default_rng(seed)
    weights = 0.5 / k + 0.5 * rng.dirichlet(np.full(k, 5.0))
    means = rng.normal(size=(k, d)) * 2
    roots = np.eye(d) + 0.4 * rng.normal(size=(k, d, d))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.2 * np.eye(d)
    return weights, means, restrict(covariances, model)


def draw(seed, n, weights, means, covariances):
    """Samples (N, D) from the mixture, by the generative recipe."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(weights), size=n, p=weights)
    return np.array([rng.multivariate_normal(means[k], covariances[k]) for k in labels])
