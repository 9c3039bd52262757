"""The textbook, in NumPy and float64: slow loops that are obviously right.

Nothing here shares code or algebra with the package: densities go through a general linear solve
instead of a Cholesky factor, moments through loops over samples instead of products.
"""

import math

import numpy as np

# The fourteen models, by the code and by the name the package gives them.
MODELS = {
    "EII": "EII",
    "VII": "spherical",
    "EEI": "EEI",
    "VEI": "VEI",
    "EVI": "EVI",
    "VVI": "diag",
    "EEE": "tied",
    "VEE": "VEE",
    "EVE": "EVE",
    "VVE": "VVE",
    "EEV": "EEV",
    "VEV": "VEV",
    "EVV": "EVV",
    "VVV": "full",
}
NAMES = tuple(MODELS.values())
CODES = {name: code for code, name in MODELS.items()}
# Those whose covariances are either each for itself or one for all. They are every way covariances
# are stored, too: as factors, vectors or numbers, one a component or one.
FREE = tuple(MODELS[code] for code in ("EII", "VII", "EEI", "VVI", "EEE", "VVV"))
# Those whose estimates are where an iteration stops.
ITERATED = ("VEI", "VEE", "VEV", "EVE", "VVE")


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


def m_step(x, resp, model="full", sample_weight=None, before=None):
    """Weights (K,), means (K, D), and covariances as matrices (K, D, D)."""
    k, d = resp.shape[1], x.shape[1]
    counts, first, _ = statistics(x, resp, np.zeros((k, d)), sample_weight)
    means = first / counts[:, None]
    _, _, scatter = statistics(x, resp, means, sample_weight)
    return counts / counts.sum(), means, fit_covariances(counts, scatter, model, before)


def fit_covariances(counts, scatter, model, before=None):
    """The covariances (K, D, D) that maximise -½ Σₖ (Nₖ log|Σₖ| + tr Σₖ⁻¹ Sₖ) within the model.

    ``before`` is where the search for axes in common begins.
    """
    code, (k, d, _) = CODES.get(model, model), scatter.shape
    if code[1:] in ("EV", "VE"):  # a diagonal model along axes, each component's own or common
        own = np.array([np.linalg.eigh(s)[1] for s in scatter])
        axes = own if code[2] == "V" else np.array([best_axes(counts, scatter, code, before)] * k)
        along = np.array([a.T @ s @ a for a, s in zip(axes, scatter, strict=True)])
        found = fit_covariances(counts, along, code[:2] + "I")
        return np.array([a @ f @ a.T for a, f in zip(axes, found, strict=True)])
    if code[2] == "I":
        scatter = np.array([np.diag(np.diag(s)) for s in scatter])
    if code[1] == "I":
        scatter = np.array([np.trace(s) / d * np.eye(d) for s in scatter])
    volume = [np.linalg.det(s) ** (1 / d) for s in scatter]
    if "V" not in code:
        found = [scatter.sum(axis=0) / counts.sum()] * k
    elif code[0] == "E":
        found = [s / v * sum(volume) / counts.sum() for s, v in zip(scatter, volume, strict=True)]
    elif code[1] == "E":
        volumes = [np.trace(s) / d / n for s, n in zip(scatter, counts, strict=True)]
        for _ in range(500):
            shape = sum(s / v for s, v in zip(scatter, volumes, strict=True))
            shape /= np.linalg.det(shape) ** (1 / d)
            volumes = [
                np.trace(np.linalg.solve(shape, s)) / d / n
                for s, n in zip(scatter, counts, strict=True)
            ]
        found = [v * shape for v in volumes]
    else:
        found = [s / n for s, n in zip(scatter, counts, strict=True)]
    return np.array(found)


def best_axes(counts, scatter, code, before=None):
    """Axes that no rotation of two improves, by trying angles."""

    def score(axes):
        spread = np.array([np.diag(axes.T @ s @ axes) for s in scatter])
        if code[0] == "V":
            return float((counts * np.log(spread).sum(axis=1)).sum())
        return math.log(float(np.exp(np.log(spread).mean(axis=1)).sum()))

    d = scatter.shape[1]
    axes = np.linalg.eigh(scatter.sum(axis=0) if before is None else mixed(before))[1]
    best, last = score(axes), math.inf
    while last - best > 1e-14 * abs(best):
        last = best
        for i in range(d):
            for j in range(i):
                centre, width = 0.0, math.pi / 4
                while width > 1e-9:
                    angles = centre + width * np.linspace(-1, 1, 9)
                    turned = [axes @ plane_rotation(d, i, j, angle) for angle in angles]
                    values = [score(each) for each in turned]
                    at = int(np.argmin(values))
                    centre, width = angles[at], width / 4
                if values[at] < best:
                    axes, best = turned[at], values[at]
    return axes


def plane_rotation(d, i, j, angle):
    """The rotation of axis i towards axis j."""
    found = np.eye(d)
    found[i, i] = found[j, j] = math.cos(angle)
    found[j, i], found[i, j] = math.sin(angle), -math.sin(angle)
    return found


def mixed(covariances):
    """A sum with unequal coefficients: its eigenvectors are the axes covariances have in common."""
    return sum((1 + j / 7) * c / np.trace(c) for j, c in enumerate(covariances))


def em_step(x, weights, means, covariances, model="full", sample_weight=None):
    """Updated weights, means and covariances, and the log-likelihood of those passed in."""
    log_prob, resp = e_step(x, weights, means, covariances)
    w = np.ones(len(x)) if sample_weight is None else sample_weight
    return (*m_step(x, resp, model, sample_weight, covariances), float(log_prob @ w))


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


def decompose(covariances, model):
    """Logarithms of volumes (K,) and shapes (K, D), and axes (K, D, D), the same where shared."""
    code, (k, d, _) = CODES.get(model, model), covariances.shape
    axes = {
        "I": lambda: [np.eye(d)] * k,
        "E": lambda: [np.linalg.eigh(mixed(covariances))[1]] * k,
        "V": lambda: [np.linalg.eigh(c)[1] for c in covariances],
    }[code[2]]()
    axes = np.array(axes)
    logs = np.array([np.log(np.diag(a.T @ c @ a)) for a, c in zip(axes, covariances, strict=True)])
    volumes = logs.mean(axis=1)
    return volumes, logs - volumes[:, None], axes


def compose(volumes, shapes, axes):
    """Covariances from what ``decompose`` gives."""
    along = np.exp(volumes[:, None] + shapes)
    return np.array([(a * v) @ a.T for a, v in zip(axes, along, strict=True)])


def share(letter, values):
    """Values of each component as a letter of the code has them: none, the mean, or their own."""
    if letter == "V":
        return values
    return np.broadcast_to(values.mean(axis=0) * (letter == "E"), values.shape)


def restrict(covariances, model):
    """Covariances like those given that have the form of the model; themselves if they have it."""
    code = CODES.get(model, model)
    volumes, shapes, axes = decompose(covariances, model)
    return compose(share(code[0], volumes), share(code[1], shapes), axes)


def curve(rng, covariances, model):
    """A random curve through covariances of the model that stays in it, as a function of time."""
    code, (k, d, _) = CODES.get(model, model), covariances.shape
    volumes, shapes, axes = decompose(covariances, model)
    growth = share(code[0], rng.normal(size=k))
    change = rng.normal(size=(k, d))
    change = share(code[1], change - change.mean(axis=1, keepdims=True))
    turn = rng.normal(size=(k, d, d))
    turn = share(code[2], turn - turn.transpose(0, 2, 1))

    def at(time):
        half = 0.5 * time * turn  # Cayley's map: a skew matrix makes an orthogonal one
        turned = axes @ np.linalg.solve(np.eye(d) - half, np.eye(d) + half)
        return compose(volumes + time * growth, shapes + time * change, turned)

    return at


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
