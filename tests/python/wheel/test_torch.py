"""The PyTorch layer has the library's formulas: steps, losses and gradients agree, training works and resumes."""

import copy
import io

import numpy as np
import pytest
from conftest import blobs_of_lines

torch = pytest.importorskip("torch")

import subspan  # noqa: E402
from subspan import _native  # noqa: E402
from subspan.torch import GrassmannLinear, GrassmannSGD, geodesic_step, mlc_loss  # noqa: E402
from subspan.torch import doubly_stochastic, rate_reduction  # noqa: E402

DTYPES = [(torch.float64, 1e-11), (torch.float32, 1e-5)]


def frames(n, k, d, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([_native.orthonormal_rows(rng.standard_normal((k, d))) for _ in range(n)])


@pytest.mark.parametrize("dtype, tolerance", DTYPES)
@pytest.mark.parametrize("transported", [False, True])
@pytest.mark.parametrize("reorthogonalize", [False, True])
@pytest.mark.parametrize("size", [1e-6, 0.1, 3.0])
@pytest.mark.parametrize("k, d", [(1, 6), (3, 12), (8, 9)])
def test_a_step_is_the_librarys(dtype, tolerance, transported, reorthogonalize, size, k, d):
    p = frames(4, k, d)
    m = size * np.random.default_rng(1).standard_normal((4, k, d))
    ours, buffers = torch.tensor(p, dtype=dtype), torch.tensor(m, dtype=dtype)
    angles = geodesic_step(ours, buffers, -0.5, transported=transported, reorthogonalize=reorthogonalize)
    for c in range(4):
        frame, buffer, angle = _native.geodesic_step(p[c], m[c], -0.5, transported, reorthogonalize, None)
        np.testing.assert_allclose(ours[c], frame, atol=tolerance)
        np.testing.assert_allclose(buffers[c], buffer, atol=tolerance * max(1, size))
        assert float(angles[c]) == pytest.approx(angle, rel=1e-4, abs=1e-6)
        np.testing.assert_allclose(ours[c] @ ours[c].T, np.eye(k), atol=10 * tolerance)


def test_a_long_step_is_cut():
    p, m = frames(2, 2, 8), np.random.default_rng(1).standard_normal((2, 2, 8))
    ours = torch.tensor(p)
    angles = geodesic_step(ours, torch.tensor(m), -5.0, max_angle=0.1)
    frame, _, angle = _native.geodesic_step(p[0], m[0], -5.0, False, False, 0.1)
    np.testing.assert_allclose(ours[0], frame, atol=1e-11)
    assert float(angles[0]) == pytest.approx(angle) and angle <= 0.1


@pytest.mark.parametrize("dtype, tolerance", DTYPES)
def test_the_head_has_the_librarys_loss_and_gradients(dtype, tolerance):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 10)), rng.integers(0, 3, 20)
    head = GrassmannLinear(10, 3, k=2, gamma=7.0, dtype=dtype, generator=torch.Generator().manual_seed(0))
    samples = torch.tensor(x, dtype=dtype, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(head(samples), torch.tensor(y))
    loss.backward()
    weight = head.weight.detach().double().numpy()
    expected, by_frames, by_samples = _native.head_loss(weight, 2, 7.0, x, np.eye(3)[y])
    assert float(loss) == pytest.approx(expected, abs=tolerance * 10)
    np.testing.assert_allclose(head.weight.grad, by_frames, atol=tolerance)
    np.testing.assert_allclose(samples.grad, by_samples, atol=tolerance)


def test_a_zero_sample_and_an_orthogonal_one_have_zero_gradients_not_nan():
    head = GrassmannLinear(4, 2, k=1, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4, dtype=torch.float64)[:2])
    x = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.float64, requires_grad=True)
    head(x).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(head.weight.grad).all()
    assert (x.grad == 0).all()


def test_logits_are_those_of_the_fitted_classifier():
    x, y = blobs_of_lines(300)
    model = subspan.GrassmannClassifier(k=2, epochs=5).fit(x, y)
    head = GrassmannLinear.from_classifier(model)
    logits = head(torch.tensor(x, dtype=torch.float32)).detach()
    np.testing.assert_allclose(logits, model.decision_function(x), atol=1e-4)


def test_the_closed_form_start_classifies():
    x, y = blobs_of_lines(300)
    head = GrassmannLinear(6, 4, k=2)
    head.start_from(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    clafic = subspan.GrassmannClassifier(k=2, method="clafic").fit(x, y)
    predicted = head(torch.tensor(x, dtype=torch.float32)).argmax(1).numpy()
    assert (predicted == clafic.predict(x)).mean() > 0.97
    few = GrassmannLinear(6, 4, k=3)
    few.start_from(torch.tensor(x[:2], dtype=torch.float32), torch.tensor(y[:2]))
    blocks = few.weight.detach().view(4, 3, 6)
    np.testing.assert_allclose(blocks @ blocks.mT, np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-5)


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), GrassmannLinear(16, 4, k=2, gamma=10.0))


def optimizer_for(model, **settings):
    backbone = torch.optim.AdamW(GrassmannSGD.rest(model), lr=3e-3)
    return GrassmannSGD(model, lr=0.1, backbone=backbone, **settings)


def train(model, optimizer, x, y, steps, start=0):
    losses = []
    for i in range(start, start + steps):
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(i))[:64]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


@pytest.fixture
def data():
    x, y = blobs_of_lines(500)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


@pytest.mark.parametrize("mode", ["ambient", "transported"])
def test_training_with_a_backbone_learns_and_stays_on_the_manifold(data, mode):
    model = net()
    losses = train(model, optimizer_for(model, momentum_mode=mode), *data, 150)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    blocks = model[-1].weight.detach().view(4, 2, 16)
    np.testing.assert_allclose(blocks @ blocks.mT, np.broadcast_to(np.eye(2), (4, 2, 2)), atol=1e-5)


@pytest.mark.parametrize("mode", ["ambient", "transported"])
def test_a_saved_training_goes_on_bit_for_bit(data, mode):
    model = net()
    optimizer = optimizer_for(model, momentum_mode=mode, reorth_every=7)
    train(model, optimizer, *data, 20)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, *data, 20, start=20)
    file.seek(0)
    saved = torch.load(file)
    again = net(seed=9)
    resumed = optimizer_for(again, momentum_mode=mode, reorth_every=7)
    again.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    train(again, resumed, *data, 20, start=20)
    for a, b in zip(model.state_dict().values(), again.state_dict().values()):
        assert torch.equal(a, b)


def test_a_schedule_moves_heads_and_backbone_each_from_its_own_rate(data):
    model = net()
    optimizer = optimizer_for(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for _ in range(2):
        train(model, optimizer, *data, 1)
        schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025, 0.00075])
    assert optimizer.backbone.param_groups[0]["lr"] == pytest.approx(0.00075)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[-1] is optimizer.backbone.param_groups[-1]


def test_misuse_is_told_apart():
    model = net()
    for make, words in [
        (lambda: GrassmannLinear(4, 3, k=5), "k must be between 1 and 4"),
        (lambda: GrassmannSGD(torch.nn.Linear(2, 2)), "no GrassmannLinear"),
        (lambda: GrassmannSGD(model, lr=-1), "lr must be"),
        (lambda: GrassmannSGD(model, momentum=1), "momentum must be"),
        (lambda: GrassmannSGD(model, momentum_mode="nesterov"), "ambient or transported"),
        (lambda: GrassmannSGD(model, backbone=torch.optim.SGD(model.parameters(), lr=1)), "holds the weight"),
        (lambda: GrassmannSGD(model).load_state_dict(optimizer_for(model).state_dict()), "differ in whether"),
        (lambda: mlc_loss(torch.ones(4, 2), affinity="none"), "abs or square"),
        (lambda: doubly_stochastic(torch.ones(4, 2)), "square"),
        (lambda: rate_reduction(torch.ones(4, 2), torch.ones(3, 3)), "do not fit"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


def cosines(n, d, seed=0):
    q = np.random.default_rng(seed).standard_normal((n, d))
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    return q, np.abs(q @ q.T)


@pytest.mark.parametrize("eta", [0.3, 0.1])
def test_the_projection_and_its_gradient_are_the_librarys(eta):
    _, affinity = cosines(40, 6)
    gradient = np.random.default_rng(1).standard_normal((40, 40))
    a = torch.tensor(affinity, requires_grad=True)
    gamma = doubly_stochastic(a, eta, tolerance=1e-12)
    gamma.backward(torch.tensor(gradient))
    expected, back = _native.doubly_stochastic(affinity, eta, gradient)
    np.testing.assert_allclose(gamma.detach(), expected, atol=1e-9)
    np.testing.assert_allclose(a.grad, back, atol=1e-6)
    np.testing.assert_allclose(gamma.detach().sum(1), 1, atol=1e-9)


def test_rates_and_their_gradients_are_the_librarys():
    q, affinity = cosines(90, 5)
    membership = affinity / affinity.sum(0)
    z, g = torch.tensor(q, requires_grad=True), torch.tensor(membership, requires_grad=True)
    reduction = rate_reduction(z, g, eps2=0.2)
    reduction.backward()
    whole, parts, by_rows, by_membership = _native.rates(q, membership, 0.2)
    assert float(reduction) == pytest.approx(whole - parts, rel=1e-12)
    np.testing.assert_allclose(z.grad, by_rows, atol=1e-10)
    np.testing.assert_allclose(g.grad.numpy().ravel(), by_membership, atol=1e-10)


@pytest.mark.parametrize("affinity", ["abs", "square"])
def test_the_clustering_loss_has_the_gradient_of_finite_differences(affinity):
    z = torch.tensor(np.random.default_rng(2).standard_normal((12, 4)), requires_grad=True)
    q = torch.tensor(np.random.default_rng(3).standard_normal((12, 3)), requires_grad=True)
    loss = lambda z, q: mlc_loss(z, q, eta=0.2, affinity=affinity)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (z, q), atol=1e-5, rtol=1e-4)


def test_the_clustering_loss_trains():
    x, _ = blobs_of_lines(120)
    rows = torch.tensor(x, dtype=torch.float32)
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = mlc_loss(model(rows), rows)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.05


def published_layer(q, eta, half_steps=5):
    """The authors' layer, restated: potentials in turn from zero, those of columns not differentiated."""
    n = len(q)
    a = (q @ q.T).abs()
    u, v = torch.zeros(n, dtype=a.dtype), torch.zeros(n, dtype=a.dtype)
    marginal = torch.full((n,), -torch.log(torch.tensor(float(n), dtype=a.dtype)), dtype=a.dtype)
    for step in range(half_steps):
        if step % 2 == 0:
            u = eta * (marginal - torch.logsumexp((a + v[None, :]) / eta, 1))
        else:
            v = (eta * (marginal - torch.logsumexp((a + u[:, None]) / eta, 0))).detach()
    return n * torch.exp((a + u[:, None] + v[None, :]) / eta)


@pytest.mark.parametrize("eta", [0.1, 0.175])
def test_the_published_loss_is_that_of_the_library(eta):
    generator = torch.Generator().manual_seed(3)
    z, q = (torch.randn(40, 12, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    unit_z, unit_q = (torch.nn.functional.normalize(x, dim=1) for x in (z, q))
    gamma = published_layer(unit_q, eta)
    b, d = z.shape
    c, eye = d / 0.1, torch.eye(d, dtype=torch.float64)
    whole = torch.logdet(eye + c / b * unit_z.T @ unit_z)
    weight = gamma.sum(0) + 1e-8
    inner = torch.einsum("bd,bj,be->jde", unit_z, gamma, unit_z)
    parts = (weight / b * torch.logdet(eye + (c / weight)[:, None, None] * inner)).sum()
    loss = -whole / 2 + parts / 2 + 0.05 * 0.5 * (gamma**2).sum()
    loss.backward()
    found, membership, by_z, by_q = _native.published_loss(z.detach().numpy(), q.detach().numpy(), eta, 0.1)
    assert found == pytest.approx(loss.item(), rel=1e-10)
    np.testing.assert_allclose(membership, gamma.detach().numpy(), atol=1e-11)
    np.testing.assert_allclose(by_z, z.grad.numpy(), atol=1e-9)
    np.testing.assert_allclose(by_q, q.grad.numpy(), atol=1e-9)
