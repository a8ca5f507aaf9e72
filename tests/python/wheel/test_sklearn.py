"""The estimators are scikit-learn's: its own checks, pipelines, cross-validation, pickling, data frames."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import blobs_of_lines, heavy_table
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import subspan


@parametrize_with_checks([
    subspan.RowSampler(n_rows=20),
    subspan.ManifoldClustering(n_clusters=3),
    subspan.LpRegressor(),
    subspan.LpRegressor(n_rows=50),
    subspan.LpRegressor(exact=True),
    subspan.GrassmannClassifier(epochs=10),
    subspan.GrassmannClassifier(method="clafic"),
    subspan.GrassmannClassifier(method="linear"),
])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def line(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    return x, x @ [1.0, -2.0, 0.5] + 4 + 0.1 * rng.standard_t(2, n)


def test_a_regressor_in_a_pipeline_is_cross_validated():
    x, y = line()
    model = make_pipeline(StandardScaler(), subspan.LpRegressor())
    assert cross_val_score(model, x, y, cv=4).min() > 0.8
    search = GridSearchCV(model, {"lpregressor__loss": ["l1", "l2"]}, cv=3, n_jobs=2).fit(x, y)
    assert search.best_score_ > 0.8


def test_a_classifier_in_a_pipeline_is_cross_validated():
    x, y = blobs_of_lines(400)
    names = np.array(["ash", "birch", "cedar", "date"])[y]
    model = make_pipeline(StandardScaler(with_mean=False), subspan.GrassmannClassifier(k=2, epochs=10))
    assert cross_val_score(model, x, names, cv=4).min() > 0.9
    proba = model.fit(x, names).predict_proba(x)
    assert (model.classes_[proba.argmax(axis=1)] == model.predict(x)).all()


@pytest.mark.parametrize("model", [
    subspan.LpRegressor(loss="quantile", quantile=[0.25, 0.75]), subspan.GrassmannClassifier(k=2, epochs=5),
])
def test_a_pickled_model_predicts_the_same_bits(model):
    x, y = blobs_of_lines(200)
    fitted = clone(model).fit(x, y)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(x), fitted.predict(x))
    assert again.get_params() == fitted.get_params()


def test_a_classifier_learns_from_a_stream_and_goes_on_after_pickling():
    x, y = blobs_of_lines(1200)
    names = np.array(["ash", "birch", "cedar", "date"])[y]
    model = subspan.GrassmannClassifier(k=2)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(x[:10], names[:10])
    model.partial_fit(x[:50], names[:50], classes=np.unique(names))
    assert model.predict(x[:5]).shape == (5,) and model.predict_proba(x).shape == (1200, 4)
    again = pickle.loads(pickle.dumps(model))
    for part in (model, again):
        for at in range(50, 1000, 100):
            part.partial_fit(x[at:at + 100], names[at:at + 100])
    assert np.array_equal(model.predict_proba(x), again.predict_proba(x))
    assert model.score(x[1000:], names[1000:]) > 0.9 and model.summary_["samples_seen"] == 1050
    with pytest.raises(ValueError, match="not among the classes: .*elm"):
        model.partial_fit(x[:1], ["elm"])
    with pytest.raises(ValueError, match="call fit"):
        model.ood_score(x)


def test_a_stream_goes_on_from_a_fitted_classifier():
    x, y = blobs_of_lines(600)
    model = subspan.GrassmannClassifier(k=2, epochs=3).fit(x[:200], y[:200])
    before = model.score(x[400:], y[400:])
    model.partial_fit(x[200:400], y[200:400])
    assert model.score(x[400:], y[400:]) >= before - 0.05
    # A new fit forgets the stream.
    assert np.isfinite(model.fit(x, y).ood_score(x)).all()


def test_a_sampler_resamples_arrays_and_frames():
    import pandas

    x = heavy_table(2000, 3)
    y = np.arange(2000)
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    sampler = subspan.RowSampler(n_rows=100, p=1)
    rows, targets = sampler.fit_resample(frame, y)
    assert list(sampler.feature_names_in_) == ["a", "b", "c"]
    assert np.array_equal(rows.to_numpy(), x[sampler.indices_]) and np.array_equal(targets, sampler.indices_)
    assert len(sampler.weights_) == len(rows) and (sampler.weights_ >= 1).all()


def test_steps_before_may_hand_over_frames():
    import pandas

    x, y = line()
    frame = pandas.DataFrame(x, columns=["a", "b", "c"])
    model = make_pipeline(StandardScaler(), subspan.LpRegressor()).set_output(transform="pandas").fit(frame, y)
    assert list(model[-1].feature_names_in_) == ["a", "b", "c"]
    assert model.score(frame, y) > 0.9


def test_random_state_is_an_integer_a_generator_or_none():
    x = heavy_table(3000, 3)

    def draw(state):
        return subspan.RowSampler(n_rows=50, random_state=state, certify=False).fit(x).indices_.tolist()

    assert draw(7) == draw(7) != draw(8)
    assert draw(np.random.default_rng(1)) == draw(np.random.default_rng(1))
    assert draw(np.random.RandomState(1)) == draw(np.random.RandomState(1))
    assert draw(None) != draw(None)


def test_bad_estimator_parameters_are_named():
    x, y = line()
    for model, words in [
        (subspan.LpRegressor(loss="l3"), "loss must be one of"),
        (subspan.LpRegressor(loss="lp", p=0.5), "p must be"),
        (subspan.LpRegressor(loss="quantile", quantile=1.0), "quantile must be"),
        (subspan.LpRegressor(loss="huber", delta=-1), "delta must be"),
        (subspan.LpRegressor(loss="logistic"), "target must be 0 or 1"),
        (subspan.LpRegressor(n_rows=-5), "n_rows must not be negative"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.fit(x, y)
    x, y = blobs_of_lines(50)
    for model, words in [
        (subspan.GrassmannClassifier(k=0), "k must be at least 1"),
        (subspan.GrassmannClassifier(k="many"), "k must be a whole number"),
        (subspan.GrassmannClassifier(method="svm"), "method must be one of"),
        (subspan.GrassmannClassifier(gamma=np.nan), "gamma must be"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.fit(x, y)


def test_without_scikit_learn_the_estimators_work_alike():
    program = """
import pickle, sys
sys.modules["sklearn"] = None                       # importing it fails
import numpy as np, subspan
rng = np.random.default_rng(0)
x = rng.standard_normal((200, 3)); y = x @ [1., 2., 3.]
model = subspan.LpRegressor(loss="l2")
assert repr(model) == "LpRegressor(loss='l2')" and model.get_params()["loss"] == "l2"
model.set_params(loss="l1").fit(x, y)
assert model.score(x, y) > 0.999
assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))
for wrong, error in [(x[:, :2], ValueError), (x[0], ValueError)]:
    try: model.predict(wrong)
    except error: pass
    else: raise AssertionError(wrong.shape)
try: subspan.LpRegressor().predict(x)
except (ValueError, AttributeError) as e: assert "fit" in str(e)
else: raise AssertionError
try: model.set_params(nonsense=1)
except ValueError as e: assert "nonsense" in str(e)
classifier = subspan.GrassmannClassifier(k=1, epochs=5).fit(x, (x[:, 0] ** 2 > x[:, 1] ** 2).astype(int))
assert classifier.score(x, classifier.predict(x)) == 1
assert len(subspan.RowSampler(n_rows=20).fit(x).indices_) > 5
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
