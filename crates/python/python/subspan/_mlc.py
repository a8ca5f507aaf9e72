"""The clustering loss in PyTorch: coding rate reduction under a doubly stochastic membership, with exact gradients.

After Ding, Tong, Chan, Dai, Ma, Haeffele, "Unsupervised manifold linearizing and clustering", ICCV 2023; the gradient through the
projection is that of the implicit function theorem at its fixed point, so no iteration is recorded.
"""

import torch

# Columns of the membership whose d x d matrices are alive at once.
_COLUMNS = 64
# Plain sweeps before Newton steps, as in the library.
_SWEEPS = 20
_NEWTON = 50
# exp() of more would make a pair of rows outweigh all others anyway.
_CAP = 80.0


def _conjugate_gradients(apply, right, tolerance, iterations):
    """Solves a symmetric positive semidefinite system from zero."""
    x = torch.zeros_like(right)
    r = right.clone()
    p, rr = r.clone(), r @ r
    target = tolerance**2 * rr
    for _ in range(iterations):
        if rr <= target or rr == 0:
            break
        ap = apply(p)
        step = rr / (p @ ap)
        x = x + step * p
        r = r - step * ap
        before, rr = rr, r @ r
        p = r + rr / before * p
    return x


def _balance(kernel, tolerance):
    """``diag(u) K diag(u)`` whose rows sum to one, and the largest deviation of a row sum from one."""
    u = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for _ in range(_SWEEPS):
        u = (u / (kernel @ u)).sqrt()
    error = None
    for _ in range(_NEWTON):
        sums = u * (kernel @ u)
        error = float((sums - 1).abs().max())
        if error < tolerance:
            break
        step = _conjugate_gradients(lambda x: sums * x + u * (kernel @ (u * x)), 1 - sums, 1e-2, 60)
        candidate = u * step.clamp(-1, 1).exp()
        after = float((candidate * (kernel @ candidate) - 1).abs().max())
        # Where Newton goes astray, a sweep never does.
        u = candidate if after < error else (u / (kernel @ u)).sqrt()
    return u[:, None] * kernel * u[None, :], error


class _DoublyStochastic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, affinity, eta, tolerance):
        a = affinity.double()
        n = len(a)
        outside = ~torch.eye(n, dtype=torch.bool, device=a.device)
        top = a.masked_fill(~outside, -torch.inf).amax(1)
        kernel = ((a - 0.5 * (top[:, None] + top[None, :])) / eta).clamp(max=_CAP).exp() * outside
        gamma, error = _balance(kernel, tolerance)
        ctx.save_for_backward(gamma)
        ctx.eta, ctx.error = eta, error
        return gamma.to(affinity.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (gamma,) = ctx.saved_tensors
        p = gamma * gradient.double() / ctx.eta
        p = 0.5 * (p + p.mT)
        lam = _conjugate_gradients(lambda x: x + gamma @ x, 2 * p.sum(1), 1e-8, 200)
        out = p - 0.5 * gamma * (lam[:, None] + lam[None, :])
        return out.to(gradient.dtype), None, None


def doubly_stochastic(affinity, eta=0.1, tolerance=1e-9):
    """The doubly stochastic matrix nearest to a symmetric affinity, at temperature ``eta``, without the diagonal.

    The maximiser of ``<A, G> - eta * sum(G log G)`` over matrices with rows and columns that sum to one and a zero diagonal.
    Gradients are those of the exact solution.
    """
    if affinity.ndim != 2 or affinity.shape[0] != affinity.shape[1]:
        raise ValueError(f"the affinity must be square, not of shape {tuple(affinity.shape)}")
    if len(affinity) < 3:
        raise ValueError(f"at least 3 rows are needed, not {len(affinity)}")
    if not eta > 0:
        raise ValueError(f"eta must be positive, not {eta}")
    return _DoublyStochastic.apply(affinity, eta, tolerance)


class _RateReduction(torch.autograd.Function):
    """``R - Rc``; value and gradient together, a few columns at a time."""

    @staticmethod
    def forward(ctx, z, gamma, eps2):
        rows, membership = z.double(), gamma.double()
        n, d = rows.shape
        c = d / eps2
        eye = torch.eye(d, dtype=rows.dtype, device=rows.device)
        whole = torch.linalg.cholesky(eye + (c / n) * rows.mT @ rows)
        rate = 2 * whole.diagonal().log().sum()
        by_rows = (2 * c / n) * rows @ torch.cholesky_inverse(whole)
        by_membership = torch.empty_like(membership)
        for first in range(0, n, _COLUMNS):
            weights = membership[:, first : first + _COLUMNS].mT
            factor = torch.linalg.cholesky(eye + c * (weights[:, :, None] * rows).mT @ rows)
            rate = rate - 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum() / n
            seen = rows @ (c * torch.cholesky_inverse(factor))
            by_rows -= (2 / n) * (weights[:, :, None] * seen).sum(0)
            by_membership[:, first : first + _COLUMNS] = -(seen * rows).sum(-1).mT / n
        ctx.save_for_backward(by_rows.to(z.dtype), by_membership.to(gamma.dtype))
        return rate.to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        by_rows, by_membership = ctx.saved_tensors
        return gradient * by_rows, gradient * by_membership, None


def rate_reduction(z, membership, eps2=0.1):
    """``R - Rc`` in nats: how much shorter unit rows ``z`` are coded cluster by cluster than all together.

    ``R = logdet(I + d/(n eps2) Z'Z)`` and ``Rc = mean over j of logdet(I + d/eps2 sum_i membership_ij z_i z_i')``.
    """
    if z.ndim != 2 or membership.shape != (len(z), len(z)):
        raise ValueError(f"rows {tuple(z.shape)} and membership {tuple(membership.shape)} do not fit each other")
    if not eps2 > 0:
        raise ValueError(f"eps2 must be positive, not {eps2}")
    return _RateReduction.apply(z, membership, eps2)


def mlc_loss(z, q=None, *, eta=0.1, eps2=0.1, affinity="abs"):
    """The loss of manifold linearizing and clustering: minus half the coding rate reduction of a batch.

    Parameters
    ----------
    z : tensor of shape (n, d)
        Features; brought to length one.
    q : tensor of shape (n, any), optional
        The cluster head's output, whose directions tell which rows belong together; ``z`` by default.
    eta : float
        Temperature of the membership; smaller is sharper.
    eps2 : float
        Squared precision of the code.
    affinity : str
        ``abs`` or ``square`` of the cosines of ``q``: clusters are subspaces, so opposite directions belong together.

    Returns
    -------
    scalar tensor
        With gradients through both ``z`` and the membership, the latter implicit.
    """
    if affinity not in ("abs", "square"):
        raise ValueError(f"affinity must be abs or square, not {affinity}")
    z = torch.nn.functional.normalize(z, dim=1, eps=1e-12)
    q = z if q is None else torch.nn.functional.normalize(q, dim=1, eps=1e-12)
    cosines = q @ q.mT
    near = cosines.abs() if affinity == "abs" else cosines.square()
    return -0.5 * rate_reduction(z, doubly_stochastic(near, eta), eps2)
