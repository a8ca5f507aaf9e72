"""The subspace classifier as a PyTorch head with its optimizer, and the clustering loss: for any backbone, on any device.

The formulas are those of the library's own classifier (``docs/python.md`` lists them beside their functions); nothing here calls
native code, so that it runs wherever PyTorch does.
"""

import math

import numpy as np

try:
    import torch
except ImportError as e:
    raise ImportError("subspan.torch needs PyTorch: pip install torch") from e
from torch import nn

from ._mlc import doubly_stochastic, mlc_loss, rate_reduction

__all__ = ["GrassmannLinear", "GrassmannSGD", "doubly_stochastic", "geodesic_step", "mlc_loss", "rate_reduction"]

# Below this a row has no direction.
_TINY = 1e-12
# Rows farther from orthonormal than this are rebuilt: a Newton-Schulz step diverges soon after.
_CORRUPT = 0.5
# Rows are restored in every step whose buffer has more than this in the span of the frame.
_DRIFT = 0.05
# Terms of the series for norms up to one in double precision, in which the small matrices are.
_TERMS = 9


class GrassmannLinear(nn.Module):
    """A classification head: the logit of a class is ``gamma`` times the cosine of the angle between sample and class subspace.

    Takes the place of the last ``nn.Linear``: maps features of shape ``(..., in_features)`` to logits ``(..., n_classes)``. Its
    weight must move on the manifold of subspaces: train it with :class:`GrassmannSGD`.

    Parameters
    ----------
    in_features, n_classes : int
    k : int
        Dimension of each class's subspace, at most ``in_features``.
    gamma : float
        Scale of the logits.
    generator : torch.Generator, optional
        Of the random start.
    device, dtype
        As of ``nn.Linear``.

    Attributes
    ----------
    weight : Parameter of shape (n_classes * k, in_features)
        Row ``c * k + j`` is row ``j`` of class ``c``; the rows of a class are orthonormal.
    """

    def __init__(self, in_features, n_classes, k=8, gamma=25.0, *, generator=None, device=None, dtype=None):
        super().__init__()
        if not 1 <= k <= in_features:
            raise ValueError(f"k must be between 1 and {in_features}, the number of features, not {k}")
        self.in_features = in_features
        self.n_classes = n_classes
        self.k = k
        self.gamma = gamma
        self.weight = nn.Parameter(torch.empty(n_classes * k, in_features, device=device, dtype=dtype))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator=None):
        """Uniformly random subspaces."""
        device = generator.device if generator is not None else "cpu"
        shape = (self.n_classes, self.in_features, self.k)
        start = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
        self.weight.copy_(torch.linalg.qr(start)[0].mT.reshape(self.weight.shape))

    def forward(self, x):
        """Logits of features."""
        unit = nn.functional.normalize(x, dim=-1, eps=_TINY)
        z = nn.functional.linear(unit, self.weight)
        # The norm's gradient at zero is zero.
        return self.gamma * torch.linalg.vector_norm(z.unflatten(-1, (self.n_classes, self.k)), dim=-1)

    def extra_repr(self):
        return f"in_features={self.in_features}, n_classes={self.n_classes}, k={self.k}, gamma={self.gamma}"

    @torch.no_grad()
    def start_from(self, features, labels):
        """Moves to the closed-form subspaces of labelled features: the directions in which each class's unit samples are longest.

        A class with fewer than ``k`` independent samples keeps its present directions in place of the missing ones.
        """
        unit = nn.functional.normalize(features.detach().double(), dim=-1, eps=_TINY)
        frames = self.weight.view(self.n_classes, self.k, self.in_features)
        for c in range(self.n_classes):
            samples = unit[labels == c]
            if len(samples) == 0:
                continue
            _, size, directions = torch.linalg.svd(samples, full_matrices=False)
            own = min(self.k, int((size > 1e-6 * size[0]).sum()))
            rows = torch.cat([directions[:own], frames[c].double().to(directions.device)])
            q, r = torch.linalg.qr(rows[: self.k].mT if own == self.k else _independent(rows, self.k).mT)
            frames[c] = (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).mT.to(frames)

    @classmethod
    def from_classifier(cls, classifier, device=None, dtype=None):
        """The head of a fitted :class:`subspan.GrassmannClassifier` (without its centre and temperature)."""
        frames = classifier.model_.frames()
        if frames is None:
            raise ValueError("a linear classifier has no class subspaces")
        rows, offsets = frames
        k = offsets[1]
        head = cls(rows.shape[1], len(offsets) - 1, k, classifier.gamma, device=device, dtype=dtype)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(np.ascontiguousarray(rows)))
        return head


def _independent(rows, k):
    """The first ``k`` rows that are no combination of those before them."""
    kept = rows[:0]
    for row in rows:
        rest = row - (row @ kept.mT) @ kept
        rest = rest - (rest @ kept.mT) @ kept
        if len(kept) < k and rest.norm() > 1e-6 * row.norm():
            kept = torch.cat([kept, (rest / rest.norm())[None]])
    return kept


def _norm_inf(a):
    return a.abs().sum(-1).amax(-1)


def _cos_sinc(t):
    """``cos sqrt(T)`` and ``sin sqrt(T) / sqrt(T)`` of symmetric matrices, by series after division by powers of four."""
    norm = _norm_inf(t)
    doublings = torch.where(norm > 1, torch.ceil(torch.log2(norm.clamp(min=1.0)) / 2), torch.zeros_like(norm))
    t = t * (0.25**doublings)[:, None, None]
    eye = torch.eye(t.shape[-1], dtype=t.dtype, device=t.device).expand_as(t)
    cos, sinc = eye, eye
    for j in range(_TERMS, 0, -1):
        cos = eye - t @ cos / ((2 * j - 1) * 2 * j)
        sinc = eye - t @ sinc / (2 * j * (2 * j + 1))
    for h in range(int(doublings.max()) if len(t) else 0):
        more = (doublings > h)[:, None, None]
        sinc = torch.where(more, sinc @ cos, sinc)
        cos = torch.where(more, 2 * cos @ cos - eye, cos)
    return cos, sinc


@torch.no_grad()
def geodesic_step(frames, buffers, a, *, transported=False, reorthogonalize=False, max_angle=None):
    """Moves frames along geodesics, in place.

    Parameters
    ----------
    frames : tensor of shape (n, k, d)
        Orthonormal rows.
    buffers : tensor of the same shape
        Directions; their parts inside the frames' spans do not count. Changed if ``transported``.
    a : float
        How far; minus the learning rate descends.
    transported : bool
        Make the buffers tangent and carry them along in parallel.
    reorthogonalize : bool
        Restore orthonormal rows on the way. Frames whose buffer lies largely in their span are always restored.
    max_angle : float, optional
        Longest angle of a step, radians.

    Returns
    -------
    tensor of shape (n,)
        Upper bounds of the angles moved.
    """
    p, m = frames.double(), buffers.double()
    w = m @ p.mT
    eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    gram = p @ p.mT
    restore = (abs(a) * _norm_inf(w) > _DRIFT) | reorthogonalize
    polish = torch.where(restore[:, None, None], 1.5 * eye - 0.5 * gram, eye)
    rebuilt = restore & (_norm_inf(gram - eye) > _CORRUPT) if reorthogonalize else torch.zeros_like(restore)
    w = w @ polish
    gamma = m @ m.mT - w @ w.mT
    gamma = 0.5 * (gamma + gamma.mT)
    gamma.diagonal(dim1=-2, dim2=-1).clamp_(min=0)
    angle = abs(a) * _norm_inf(gamma).sqrt()
    a = torch.full_like(angle, a)
    if max_angle is not None:
        shrink = (max_angle / angle.clamp(min=_TINY)).clamp(max=1.0)
        a, angle = a * shrink, angle * shrink
    a = a[:, None, None]
    cos, sinc = _cos_sinc(a * a * gamma)
    moved = ((cos - a * sinc @ w) @ polish) @ p + (a * sinc) @ m
    if transported:
        m = cos @ m - ((cos @ w + a * gamma @ sinc) @ polish) @ p
    if reorthogonalize and bool(rebuilt.any()):
        q, r = torch.linalg.qr(p[rebuilt].mT)
        sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q)
        moved[rebuilt] = (q * sign[:, None, :]).mT
        m[rebuilt] = 0
        angle = angle.masked_fill(rebuilt, 0)
        buffers.copy_(m)
    elif transported:
        buffers.copy_(m)
    frames.copy_(moved)
    return angle


class GrassmannSGD(torch.optim.Optimizer):
    """Riemannian gradient descent with momentum for :class:`GrassmannLinear` heads, around any optimizer for the rest.

    Parameters
    ----------
    model : nn.Module
        All its ``GrassmannLinear`` modules are trained (itself included).
    lr : float
        Learning rate of the subspaces.
    momentum : float
        Share of the buffer that survives a step.
    momentum_mode : str
        ``ambient`` (as in the paper's program) or ``transported`` (in parallel along the geodesic).
    reorth_every : int
        Steps from one restoration of orthonormal rows to the next.
    max_angle : float, optional
        Longest angle of a step, radians.
    backbone : torch.optim.Optimizer, optional
        Steps, clears gradients, is scheduled and saved with this one. It must not hold the heads' weights: per-coordinate
        scaling and weight decay make no sense for them. :meth:`rest` lists the parameters it should have.

    Examples
    --------
    >>> rest = GrassmannSGD.rest(model)                                                      # doctest: +SKIP
    >>> optimizer = GrassmannSGD(model, lr=0.1, backbone=torch.optim.AdamW(rest, lr=1e-3))   # doctest: +SKIP
    >>> schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)          # doctest: +SKIP
    """

    def __init__(
        self, model, lr=0.1, momentum=0.9, *, momentum_mode="ambient", reorth_every=50, max_angle=None, backbone=None
    ):
        heads = [module for module in model.modules() if isinstance(module, GrassmannLinear)]
        if not heads:
            raise ValueError("the model has no GrassmannLinear head to train")
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr must be a finite number of at least 0, not {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and less than 1, not {momentum}")
        if momentum_mode not in ("ambient", "transported"):
            raise ValueError(f"momentum_mode must be ambient or transported, not {momentum_mode}")
        if reorth_every < 1:
            raise ValueError(f"reorth_every must be at least 1, not {reorth_every}")
        weights = {id(head.weight) for head in heads}
        if backbone is not None and any(id(p) in weights for g in backbone.param_groups for p in g["params"]):
            raise ValueError("the backbone's optimizer holds the weight of a GrassmannLinear: give it GrassmannSGD.rest(model)")
        settings = {"lr": lr, "momentum": momentum, "reorth_every": reorth_every, "max_angle": max_angle}
        groups = {}
        for head in heads:
            groups.setdefault(head.k, {})[id(head.weight)] = head.weight
        self.backbone = None
        self._n_own = len(groups)
        groups = [{"params": list(weights.values()), "k": k} for k, weights in groups.items()]
        super().__init__(groups, {**settings, "momentum_mode": momentum_mode})
        self.backbone = backbone
        self._link()

    @staticmethod
    def rest(model):
        """The parameters of a model that are not the weight of a ``GrassmannLinear``."""
        heads = {id(m.weight) for m in model.modules() if isinstance(m, GrassmannLinear)}
        return [p for p in model.parameters() if id(p) not in heads]

    def _link(self):
        """Puts the backbone's groups after the own ones, so that schedules, clipping and scaling see both."""
        own = self.param_groups[: self._n_own]
        self.param_groups = own + (self.backbone.param_groups if self.backbone is not None else [])

    @torch.no_grad()
    def step(self, closure=None):
        """One step of the heads and of the backbone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups[: self._n_own]:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        if self.backbone is not None:
            self.backbone.step()
        return loss

    def _move(self, weight, group):
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["step"] += 1
        state["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
        shape = (-1, group["k"], weight.shape[1])
        geodesic_step(
            weight.view(shape),
            state["momentum_buffer"].view(shape),
            -group["lr"],
            transported=group["momentum_mode"] == "transported",
            reorthogonalize=state["step"] % group["reorth_every"] == 0,
            max_angle=group["max_angle"],
        )

    def state_dict(self):
        """Buffers, counters and settings of the heads and, under ``backbone``, all of the backbone's."""
        both, self.param_groups = self.param_groups, self.param_groups[: self._n_own]
        try:
            state = super().state_dict()
        finally:
            self.param_groups = both
        if self.backbone is not None:
            state["backbone"] = self.backbone.state_dict()
        return state

    def load_state_dict(self, state_dict):
        """Goes on where :meth:`state_dict` was taken."""
        state = dict(state_dict)
        backbone = state.pop("backbone", None)
        if (backbone is None) != (self.backbone is None):
            raise ValueError("the saved state and this optimizer differ in whether there is an optimizer of the backbone")
        self.param_groups = self.param_groups[: self._n_own]
        try:
            super().load_state_dict(state)
            if backbone is not None:
                self.backbone.load_state_dict(backbone)
        finally:
            self._link()
