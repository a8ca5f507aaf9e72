"""Spectral clustering by others' rules, in NumPy: graphs of near rows, or of rows written as few other rows, and their eigenvectors."""

import warnings

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.neighbors import kneighbors_graph

# Representations of rows near subspaces of few dimensions fall into many pieces, which eigensolvers take ill: that is part of the result.
for told in ("Graph is not fully connected", "ARPACK has failed", "Exited"):
    warnings.filterwarnings("ignore", message=told)

# Rows whose products with all rows are held at once.
BLOCK = 1024


def symmetric(values, index, n):
    """The graph of absolute coefficients, the largest of every row one."""
    values = np.abs(values)
    values /= np.maximum(values.max(1, keepdims=True), 1e-12)
    found = csr_matrix((values.ravel(), (np.repeat(np.arange(n), index.shape[1]), index.ravel())), shape=(n, n))
    found.eliminate_zeros()
    return found + found.T


def pursuits(rows, lengths, residuals):
    """Graphs of orthogonal matching pursuit of each row over all others, by length of the pursuit and squared residual to stop at (You, Robinson,
    Vidal, CVPR 2016); rows are unit."""
    n, most = len(rows), max(lengths)
    chosen = np.zeros((n, most), dtype=np.int64)
    # Coefficients after every step, and after how many steps a row is within each residual.
    after = [np.zeros((n, step)) for step in range(1, most + 1)]
    enough = {r: np.full(n, most) for r in residuals}
    for first in range(0, n, BLOCK):
        own = np.arange(first, min(first + BLOCK, n))
        left, indices = rows[own], np.zeros((len(own), 0), dtype=np.int64)
        for step in range(1, most + 1):
            products = np.abs(left @ rows.T)
            products[np.arange(len(own)), own] = -1
            np.put_along_axis(products, indices, -1, 1)
            indices = np.column_stack([indices, products.argmax(1)])
            dictionary = rows[indices]
            parts, target = dictionary @ dictionary.transpose(0, 2, 1), np.einsum("nkd,nd->nk", dictionary, rows[own])
            values = np.matmul(np.linalg.pinv(parts, rcond=1e-10, hermitian=True), target[:, :, None])[:, :, 0]
            left = rows[own] - np.einsum("nk,nkd->nd", values, dictionary)
            after[step - 1][own] = values
            for residual, count in enough.items():
                done = (count[own] > step) & ((left**2).sum(1) < residual)
                count[own[done]] = step
        chosen[own] = indices
    out = {}
    for length in lengths:
        for residual, count in enough.items():
            values = np.zeros((n, length))
            for taken in range(1, length + 1):
                those = np.minimum(count, length) == taken
                values[those, :taken] = after[taken - 1][those]
            out[f"{length} steps, residual {residual:g}"] = symmetric(values, chosen[:, :length], n)
    return out


def elastic_net(rows, candidates=128, share=0.9, gain=50, iterations=120):
    """The graph of the elastic net `share |c|_1 + (1 - share)/2 |c|^2 + gamma/2 |x - X'c|^2` over the rows of largest absolute product, with
    `gamma` `gain` times where all coefficients vanish (You, Li, Robinson, Vidal, CVPR 2016); by accelerated proximal steps, rows together."""
    rows = rows.astype(np.float32)
    n, k = len(rows), min(candidates, len(rows) - 1)
    near, values = np.zeros((n, k), dtype=np.int64), np.zeros((n, k), dtype=np.float32)
    for first in range(0, n, 64):
        own = np.arange(first, min(first + 64, n))
        products = rows[own] @ rows.T
        products[np.arange(len(own)), own] = 0
        near[own] = np.argpartition(-np.abs(products), k - 1, axis=1)[:, :k]
        target = np.take_along_axis(products, near[own], 1)
        dictionary = rows[near[own]]
        parts = dictionary @ dictionary.transpose(0, 2, 1)
        gamma = gain * share / np.maximum(np.abs(target).max(1, keepdims=True), 1e-6)
        # Candidates lie along the row, so this is near the leading eigenvector.
        v = np.maximum(np.abs(target), 1e-6) * np.where(target < 0, -1, 1)
        for _ in range(10):
            v = np.matmul(parts, v[:, :, None])[:, :, 0]
            v /= np.linalg.norm(v, axis=1, keepdims=True)
        largest = 1.1 * np.linalg.norm(np.matmul(parts, v[:, :, None])[:, :, 0], axis=1, keepdims=True)
        step = 1 / (gamma * largest + 1 - share)
        c, ahead, t = np.zeros_like(target), np.zeros_like(target), 1.0
        for _ in range(iterations):
            slope = gamma * (np.matmul(parts, ahead[:, :, None])[:, :, 0] - target) + (1 - share) * ahead
            moved = ahead - step * slope
            new = np.sign(moved) * np.maximum(np.abs(moved) - step * share, 0)
            later = 0.5 * (1 + np.sqrt(1 + 4 * t * t))
            ahead, c, t = new + (t - 1) / later * (new - c), new, later
        values[own] = c
    return symmetric(values, near, n)


def nearest(rows, k):
    """The graph of so many nearest rows of each."""
    graph = kneighbors_graph(rows, k, mode="connectivity", include_self=False)
    return 0.5 * (graph + graph.T)


def spectral(graph, clusters, seed):
    """Clusters of unit rows of the leading eigenvectors of `D^-1/2 A D^-1/2` (Ng, Jordan, Weiss, NIPS 2001), as the papers do it. On graphs in
    many pieces scikit-learn's SpectralClustering, whose rows keep their lengths, makes .25 of SSC-OMP's .75 (Extended Yale B)."""
    degree = np.maximum(np.asarray(graph.sum(1)).ravel(), 1e-12)
    scale = diags(1 / np.sqrt(degree))
    start = np.random.default_rng(seed).normal(size=len(degree))
    vectors = eigsh(scale @ graph @ scale, k=clusters, which="LA", tol=1e-4, v0=start)[1]
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return KMeans(clusters, n_init=10, random_state=seed).fit_predict(vectors)


def scikit_spectral(graph, clusters, seed):
    """The same by scikit-learn, which divides eigenvectors' rows by the root of the degree."""
    method = SpectralClustering(clusters, affinity="precomputed", random_state=seed, assign_labels="kmeans")
    return method.fit_predict(graph)
