"""`cluster` against NumPy, SciPy and scikit-learn."""

import numpy as np
import scipy.sparse
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def bundles(n=240, d=16, k=4, seed=0):
    """Rows near k planes of their own."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % k
    bases = np.linalg.qr(rng.normal(size=(d, 2 * k)))[0].reshape(d, k, 2)
    angle = rng.uniform(0, np.pi / 2, n)
    rows = bases[:, truth, 0].T * np.cos(angle)[:, None] + bases[:, truth, 1].T * np.sin(angle)[:, None]
    return (rows + 0.15 * rng.normal(size=rows.shape) / np.sqrt(d)).astype(np.float32), truth


def run(cli, rows, truth, *flags):
    record = cli.json("cluster", cli.npy("x.npy", rows), "--truth", cli.npy("y.npy", truth), *flags, "-o", "out")
    return record["results"], np.load(cli.folder / "out" / "labels.npy"), scipy.sparse.load_npz(cli.folder / "out" / "membership.npz")


def test_membership_is_doubly_stochastic_symmetric_and_clusters_as_scikit_learn_would(cli):
    rows, truth = bundles()
    results, labels, membership = run(cli, rows, truth, "--clusters", "4")
    background = np.load(cli.folder / "out" / "membership.npz")["background"]
    assert np.abs(np.asarray(membership.sum(1)).ravel() + background - 1).max() < 1e-5
    assert abs(membership - membership.T).max() == 0 and membership.diagonal().max() == 0 and membership.min() >= 0
    spectral = SpectralClustering(4, affinity="precomputed", random_state=0, assign_labels="kmeans").fit_predict(membership)
    assert normalized_mutual_info_score(spectral, labels) > 0.98


def test_scores_are_those_of_scikit_learn(cli):
    rows, truth = bundles(seed=1)
    results, labels, _ = run(cli, rows + 0.2, truth, "--clusters", "6")
    assert abs(results["nmi"] - normalized_mutual_info_score(truth, labels)) < 1e-12
    assert abs(results["ari"] - adjusted_rand_score(truth, labels)) < 1e-12
    assert (np.bincount(labels) == results["sizes"]).all() and sorted(results["sizes"], reverse=True) == results["sizes"]


def test_coding_length_is_numpys(cli):
    rows, truth = bundles()
    results, labels, _ = run(cli, rows, truth, "--clusters", "4")
    centered = rows.astype(np.float64) - rows.mean(0)
    centered /= np.linalg.norm(centered @ np.linalg.svd(centered, full_matrices=False)[2].T, axis=1, keepdims=True)
    n, d = centered.shape
    total = 0.0
    for c in range(4):
        part = centered[labels == c]
        m = len(part)
        total += (m + d) / 2 * np.linalg.slogdet(np.eye(d) + d / (0.1 * m) * part.T @ part)[1] - m * np.log(m / n)
    assert abs(results["coding_length"] - total / n / np.log(2)) < 1e-3


def test_the_representation_lies_in_the_subspaces(cli):
    rows, truth = bundles()
    results, labels, _ = run(cli, rows, truth, "--clusters", "4")
    z = np.load(cli.folder / "out" / "representation.npy")
    for c in range(4):
        values = np.linalg.svd(z[labels == c], compute_uv=False) ** 2
        rank = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.95) + 1)
        assert rank == results["ranks"][c]
