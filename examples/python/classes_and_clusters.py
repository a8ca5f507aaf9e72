"""Classes as subspaces, with calibrated probabilities and a score for strangers; the same samples clustered without labels."""

import numpy as np

import subspan

rng = np.random.default_rng(0)
frames = [np.linalg.qr(rng.standard_normal((20, 3)))[0] for _ in range(5)]
y = rng.integers(0, 5, 1_500)
X = np.array([frames[c] @ rng.standard_normal(3) for c in y]) + 0.05 * rng.standard_normal((1_500, 20))

model = subspan.GrassmannClassifier(k=3).fit(X[:1_000], y[:1_000])
accuracy = model.score(X[1_000:], y[1_000:])
strangers = model.ood_score(rng.standard_normal((200, 20))).mean()
print(f"accuracy {accuracy:.1%}; strangeness {model.ood_score(X[1_000:]).mean():.2f} of samples, {strangers:.2f} of noise")
print(f"smallest angle between two classes: {np.degrees(model.class_angles()[0, 1:, 0].min()):.0f} degrees")
assert accuracy > 0.95

clusters = subspan.ManifoldClustering(n_clusters=5, affinity="abs").fit(X)
pairs = y[:, None] == y[None, :]
agreement = (pairs == (clusters.labels_[:, None] == clusters.labels_[None, :])).mean()
print(f"clusters agree with classes on {agreement:.1%} of the pairs; dimensions {[s.shape[1] for s in clusters.subspaces_]}")
