"""Training moves as the published update does: a plain NumPy transcription of it, gradients included, is followed step by step."""

import numpy as np
import pytest

from subspan import _native

N_CLASSES, K, D, GAMMA, STEPS, QR_EVERY = 4, 3, 20, 25.0, 50, 5
MOMENTUM, LR = 0.9, 0.1


def orthonormal(columns):
    """QR with a positive diagonal: no column flips."""
    q, r = np.linalg.qr(columns)
    return q * np.sign(np.diag(r))


def gradients(subspaces, x, codes):
    """Of the mean cross-entropy of logits gamma |S' x| by the subspaces (D x k)."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    z = [unit @ s for s in subspaces]
    lengths = np.stack([np.linalg.norm(zc, axis=1) for zc in z], axis=1)
    logits = GAMMA * lengths
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    g = (p - np.eye(N_CLASSES)[codes]) / len(x)
    return [unit.T @ (GAMMA * g[:, c, None] * z[c] / lengths[:, c, None]) for c in range(N_CLASSES)]


def published(s, m, lr):
    """Moves the subspace by -lr along the tangent part of the buffer."""
    u, sigma, vt = np.linalg.svd(m - s @ (s.T @ m), full_matrices=False)
    t = -lr
    return (s @ vt.T * np.cos(t * sigma) + u * np.sin(t * sigma)) @ vt


def batches(rng):
    planes = [rng.standard_normal((D, K)) for _ in range(N_CLASSES)]
    for _ in range(STEPS):
        codes = rng.integers(0, N_CLASSES, 32)
        x = np.array([planes[c] @ rng.standard_normal(K) + 0.5 * rng.standard_normal(D) for c in codes])
        yield x, codes


@pytest.mark.parametrize("literal", [True, False])
def test_fifty_steps_are_those_of_the_published_update(literal):
    rng = np.random.default_rng(0)
    subspaces = [orthonormal(rng.standard_normal((D, K))) for _ in range(N_CLASSES)]
    start = [s.copy() for s in subspaces]
    buffers = [np.zeros((D, K)) for _ in subspaces]
    ours = [np.ascontiguousarray(s.T) for s in subspaces]
    our_buffers = [np.zeros((K, D)) for _ in subspaces]
    for t, (x, codes) in enumerate(batches(rng)):
        lr = 0.5 * LR * (1 + np.cos(np.pi * t / STEPS))
        restore = (t + 1) % QR_EVERY == 0
        for c, gradient in enumerate(gradients(subspaces, x, codes)):
            buffers[c] = MOMENTUM * buffers[c] + gradient
            subspaces[c] = published(subspaces[c], buffers[c], lr)
            if restore:
                subspaces[c] = orthonormal(subspaces[c])
        _, by_frames, _ = _native.head_loss(np.vstack(ours), K, GAMMA, x, np.eye(N_CLASSES)[codes])
        for c in range(N_CLASSES):
            gradient = np.ascontiguousarray(by_frames[c * K:(c + 1) * K])
            ours[c], our_buffers[c] = _native.descend(ours[c], our_buffers[c], gradient, [lr, MOMENTUM], restore, literal)
        for c in range(N_CLASSES):
            # The same matrices, not only the same subspaces.
            np.testing.assert_allclose(ours[c].T, subspaces[c], atol=1e-9)
            np.testing.assert_allclose(our_buffers[c].T, buffers[c], atol=1e-9)
    moved = max(np.arccos(np.clip(np.linalg.svd(a.T @ b)[1].min(), -1, 1)) for a, b in zip(start, subspaces))
    assert moved > 0.3
