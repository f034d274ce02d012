import dataclasses

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from igpt_jax.config import ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.logistic_regression import fit_probes
from igpt_jax.evaluate.probe import probe

CLASSES = 4
L2 = (1e-5, 1e-3, 1e-1)
CONFIG = ProbeConfig(l2=L2)
SGD = ProbeConfig(solver="sgd", rates=(3.0, 0.3, 0.03, 0.003, 0.0003), steps=300, batch_size=32, held_out=0.3)


def objective(features_bd, labels_b, weights_dc, biases_c, l2):
    logits_bc = features_bd.astype(np.float64) @ weights_dc + biases_c
    cross_entropy_b = logsumexp(logits_bc, axis=1) - logits_bc[np.arange(len(labels_b)), labels_b]
    return cross_entropy_b.mean() + l2 / 2 * np.sum(np.square(weights_dc, dtype=np.float64))


def draw(images, width, decay, seed=0):
    """Standardized features whose principal variances fall as rank**-2decay, and labels that need all of them."""
    rng = np.random.default_rng(seed)
    source_bd = rng.normal(size=(images, width))
    logits_bc = source_bd @ rng.normal(size=(width, CLASSES)) / np.sqrt(width)
    labels_b = np.argmax(2 * logits_bc + rng.gumbel(size=logits_bc.shape), axis=1)
    mixing_dd = np.linalg.qr(rng.normal(size=(width, width)))[0]
    features_bd = (source_bd * np.arange(1, width + 1) ** -decay) @ mixing_dd
    return ((features_bd - features_bd.mean(0)) / features_bd.std(0)).astype(np.float32), labels_b


def draw_layers(images=300):
    """Three layers of width 8 that blur the labels less and less."""
    rng = np.random.default_rng(1)
    labels_b = rng.integers(0, CLASSES, images)
    centers_cd = rng.normal(size=(CLASSES, 8))
    layers = [centers_cd[labels_b] + blur * rng.normal(size=(images, 8)) for blur in (4.0, 2.0, 1.0)]
    return np.stack(layers).astype(np.float32), labels_b


def accuracies(result):
    return tuple(reading.accuracy for reading in result.layer_results)


def held_out_accuracies(result):
    return tuple(reading.held_out_accuracy for reading in result.layer_results)


def choices(result):
    """All that the held-out images say."""
    readings = [*result.layer_results, result.concatenated]
    return [(x.layers, x.setting, x.held_out_accuracy, x.held_out_loss) for x in readings if x], result.best_layer


def run_probe(features_lbd, labels_b, test_labels_b=None, config=CONFIG, seed=0):
    test_labels_b = labels_b[200:] if test_labels_b is None else test_labels_b
    return probe(
        features_lbd[:, :200],
        labels_b[:200],
        features_lbd[:, 200:],
        test_labels_b,
        classes=CLASSES,
        config=config,
        seed=seed,
    )


@pytest.mark.parametrize(
    ("images", "width", "decay"), [(400, 24, 0.0), (400, 24, 2.5), (40, 60, 1.0)], ids=["well", "ill", "wide"]
)
def test_reaches_the_optimum_of_scikit_learn(images, width, decay):
    features_bd, labels_b = draw(2 * images, width, decay)
    train_bd, test_bd = np.split(features_bd, 2)
    train_labels_b = labels_b[:images]
    probes = fit_probes(train_bd[None], train_labels_b, CLASSES, L2)
    for s, l2 in enumerate(L2):
        reference = LogisticRegression(C=1 / (l2 * images), solver="newton-cholesky", tol=1e-10, max_iter=200)
        reference.fit(train_bd.astype(np.float64), train_labels_b)
        weights_dc, biases_c = probes.weights_lsdc[0, s], probes.biases_lsc[0, s]
        expected = objective(train_bd, train_labels_b, reference.coef_.T, reference.intercept_, l2)
        assert objective(train_bd, train_labels_b, weights_dc, biases_c, l2) == pytest.approx(expected, rel=1e-5)
        assert probes.losses_ls[0, s] == pytest.approx(expected, rel=1e-5)
        agreement = np.mean(np.argmax(test_bd @ weights_dc + biases_c, axis=1) == reference.predict(test_bd))
        assert agreement > 0.995


def test_predicts_the_digits_as_scikit_learn_does():
    features_bd, labels_b = load_digits(return_X_y=True)
    features_bd = (features_bd / 16).astype(np.float32)
    probes = fit_probes(features_bd[None, :1000], labels_b[:1000], 10, (1e-2,))
    reference = LogisticRegression(C=0.1, tol=1e-6, max_iter=1000).fit(features_bd[:1000], labels_b[:1000])
    predictions_b = np.argmax(features_bd[1000:] @ probes.weights_lsdc[0, 0] + probes.biases_lsc[0, 0], axis=1)
    assert np.mean(predictions_b == reference.predict(features_bd[1000:])) > 0.995


def test_gradient_vanishes_at_the_solution():
    features_bd, labels_b = draw(400, 24, 1.0)
    probes = fit_probes(features_bd[None], labels_b, CLASSES, L2)
    for s, l2 in enumerate(L2):
        weights_dc = probes.weights_lsdc[0, s].astype(np.float64)
        residual_bc = softmax(features_bd @ weights_dc + probes.biases_lsc[0, s], axis=1) - np.eye(CLASSES)[labels_b]
        gradient_dc = features_bd.T @ residual_bc / len(labels_b) + l2 * weights_dc
        norm = np.sqrt(np.sum(gradient_dc**2) + np.sum(residual_bc.mean(axis=0) ** 2))
        assert norm < 2e-4
        assert probes.gradient_norms_ls[0, s] == pytest.approx(norm, abs=1e-6)


def test_layers_and_strengths_together_equal_one_at_a_time():
    features_lbd, labels_b = draw_layers()
    together = fit_probes(features_lbd, labels_b, CLASSES, L2)
    for layer in range(3):
        for s, l2 in enumerate(L2):
            alone = fit_probes(features_lbd[layer : layer + 1], labels_b, CLASSES, (l2,))
            np.testing.assert_allclose(together.losses_ls[layer, s], alone.losses_ls[0, 0], rtol=1e-6)
            np.testing.assert_allclose(together.weights_lsdc[layer, s], alone.weights_lsdc[0, 0], atol=3e-3)


def test_a_class_without_images_is_never_predicted():
    features_lbd, labels_b = draw_layers()
    probes = fit_probes(features_lbd[2:], labels_b, CLASSES + 1, (1e-3,))
    logits_bc = features_lbd[2] @ probes.weights_lsdc[0, 0] + probes.biases_lsc[0, 0]
    assert np.isfinite(logits_bc).all()
    assert logits_bc.argmax(axis=1).max() < CLASSES


def test_probe_finds_the_layer_that_reads_best():
    result = run_probe(*draw_layers())
    assert [reading.layers for reading in result.layer_results] == [(0,), (1,), (2,)]
    assert result.best_layer == 2
    assert result.accuracy == accuracies(result)[2] == max(accuracies(result))
    assert {reading.setting for reading in result.layer_results} <= set(L2)


def test_probe_scores_the_refit_to_all_training_images():
    features_lbd, labels_b = draw_layers()
    result = run_probe(features_lbd, labels_b, config=ProbeConfig(l2=(1e-2,)))
    train_bd, test_bd = features_lbd[1, :200], features_lbd[1, 200:]
    mean_d, std_d = train_bd.mean(axis=0), train_bd.std(axis=0)
    reference = LogisticRegression(C=1 / (1e-2 * 200), tol=1e-8).fit((train_bd - mean_d) / std_d, labels_b[:200])
    assert accuracies(result)[1] == pytest.approx(100 * reference.score((test_bd - mean_d) / std_d, labels_b[200:]))


def test_a_subset_of_layers_keeps_their_numbers_and_scores():
    features_lbd, labels_b = draw_layers()
    every = run_probe(features_lbd, labels_b)
    subset = run_probe(features_lbd, labels_b, config=ProbeConfig(layers=(2, 0), l2=L2))
    assert subset.layer_results == (every.layer_results[2], every.layer_results[0])
    assert subset.best_layer == 2


def test_the_same_seed_repeats_and_another_holds_out_other_images():
    features_lbd, labels_b = draw_layers()
    assert run_probe(features_lbd, labels_b) == run_probe(features_lbd, labels_b)
    other = run_probe(features_lbd, labels_b, seed=1)
    assert held_out_accuracies(other) != held_out_accuracies(run_probe(features_lbd, labels_b))


def test_units_of_the_features_do_not_matter():
    features_lbd, labels_b = draw_layers()
    scale_d = np.float32(2.0) ** np.arange(-4, 4)
    shifted, plain = run_probe(features_lbd * scale_d + 3 * scale_d, labels_b), run_probe(features_lbd, labels_b)
    assert accuracies(shifted) == accuracies(plain)
    assert held_out_accuracies(shifted) == held_out_accuracies(plain)


def test_a_dimension_constant_in_training_counts_for_nothing():
    features_lbd, labels_b = draw_layers()
    features_lbd[:, :, 0] = 0
    without = run_probe(features_lbd, labels_b)
    features_lbd[:, :200, 0] = 0.1
    features_lbd[:, 200:, 0] = 1e6
    assert run_probe(features_lbd, labels_b) == without


@pytest.mark.parametrize("config", [CONFIG, SGD], ids=["lbfgs", "sgd"])
def test_test_labels_choose_nothing(config):
    features_lbd, labels_b = draw_layers()
    config = dataclasses.replace(config, concatenate=2)
    result = run_probe(features_lbd, labels_b, config=config)
    shuffled = run_probe(features_lbd, labels_b, test_labels_b=np.roll(labels_b[200:], 1), config=config)
    assert shuffled.accuracy < result.accuracy
    assert shuffled.concatenated.accuracy < result.concatenated.accuracy
    assert choices(shuffled) == choices(result)


def test_sgd_nears_the_optimum_and_chooses_as_a_search_of_one_rate_after_another():
    features_lbd, labels_b = draw_layers()
    result, optimal = run_probe(features_lbd, labels_b, config=SGD), run_probe(features_lbd, labels_b)
    assert result.best_layer == 2
    np.testing.assert_allclose(accuracies(result), accuracies(optimal), atol=6)
    for layer, reading in enumerate(result.layer_results):
        alone = [
            run_probe(features_lbd[[layer]], labels_b, config=dataclasses.replace(SGD, rates=(rate,))).layer_results[0]
            for rate in SGD.rates
        ]
        tried = [(x.held_out_accuracy, -round(x.held_out_loss, 4)) for x in alone]
        worse = next((i for i in range(1, len(tried)) if tried[i] < tried[i - 1]), len(tried))
        assert reading.setting == SGD.rates[worse - 1]
        assert reading.accuracy == pytest.approx(alone[worse - 1].accuracy, abs=1.01)


@pytest.mark.parametrize(("best", "expected"), [(0, (0, 1, 2)), (1, (0, 1, 2)), (3, (2, 3, 4)), (4, (2, 3, 4))])
def test_layers_side_by_side_are_those_about_the_best(best, expected):
    _, labels_b = draw_layers()
    features_lbd = np.random.default_rng(3).normal(size=(5, 300, 4)).astype(np.float32)
    features_lbd[best] += 2 * np.eye(4)[labels_b]
    result = run_probe(features_lbd, labels_b, config=ProbeConfig(l2=(1e-2,), concatenate=3))
    together = run_probe(
        np.concatenate(features_lbd[list(expected)], axis=1)[None], labels_b, config=ProbeConfig(l2=(1e-2,))
    )
    assert result.best_layer == best
    assert result.concatenated == dataclasses.replace(together.best, layers=expected)


def test_the_accuracy_is_the_mean_over_masks_and_the_vote_that_of_the_mode():
    features_lbd, labels_b = draw_layers()
    rng = np.random.default_rng(5)
    train, test = (features_lbd[:1, :200], labels_b[:200]), features_lbd[:1, 200:]
    masked = [test + rng.normal(size=test.shape).astype(np.float32) for _ in range(5)]
    settings = {"classes": CLASSES, "config": ProbeConfig(l2=(1e-2,)), "seed": 0}
    alone = [probe(*train, x, labels_b[200:], **settings) for x in masked]
    together = probe(*train, np.concatenate(masked, axis=1), np.tile(labels_b[200:], 5), masks=5, **settings)
    assert together.accuracy == pytest.approx(np.mean([x.accuracy for x in alone]))
    assert together.best.vote_accuracy > together.accuracy
    assert alone[0].best.vote_accuracy == alone[0].accuracy


def test_ties_go_to_the_lower_held_out_loss():
    _, labels_b = draw_layers()
    result = run_probe(np.eye(8, dtype=np.float32)[labels_b][None], labels_b)
    assert result.best.held_out_accuracy == 100
    assert result.best.setting <= min(L2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels_b": np.full(200, 4)}, r"training labels lie in \[4, 4\]; expected \[0, 3\]"),
        ({"test_labels_b": np.zeros(99, int)}, "test labels are int64 of shape .99,.; expected one integer"),
        ({"test_labels_b": np.zeros(100)}, "test labels are float64"),
        ({"test_features_lbd": np.zeros((3, 100, 7))}, "layers of width 8, test features 3 of width 7"),
        ({"train_features_lbd": np.zeros((200, 8))}, "expected .layers, images, width."),
        ({"train_features_lbd": np.full((3, 200, 8), np.nan)}, "layer 0 hold NaN"),
        ({"config": ProbeConfig(layers=(3,))}, "names layer 3; the features have 0 to 2"),
        ({"config": ProbeConfig(held_out=0.001)}, "holds out 0"),
        ({"config": ProbeConfig(l2=(0.0,))}, "strength 0.0 must be positive"),
        ({"config": ProbeConfig(concatenate=4)}, "concatenate=4, but the features have 3 layers"),
    ],
)
def test_input_that_cannot_work_is_named(change, message):
    features_lbd, labels_b = draw_layers()
    arguments = {
        "train_features_lbd": features_lbd[:, :200],
        "train_labels_b": labels_b[:200],
        "test_features_lbd": features_lbd[:, 200:],
        "test_labels_b": labels_b[200:],
        "config": ProbeConfig(),
    }
    with pytest.raises(InputError, match=message):
        probe(**{**arguments, **change}, classes=CLASSES, seed=0)


def test_all_views_of_an_image_are_held_out_together():
    # Two views that are copies: held out apart, a memorising probe would score 100 % on its own training rows.
    rng = np.random.default_rng(0)
    features_bd, labels_b = rng.normal(size=(100, 200)).astype(np.float32), rng.integers(0, CLASSES, 100)
    twice_lbd, twice_b = np.tile(features_bd, (2, 1))[None], np.tile(labels_b, 2)
    config = ProbeConfig(l2=(1e-3,), held_out=0.3)
    found = probe(twice_lbd, twice_b, twice_lbd, twice_b, classes=CLASSES, config=config, seed=0, views=2)
    assert found.accuracy == 100
    assert found.best.held_out_accuracy < 60


def test_views_that_are_no_whole_passes_are_refused():
    features_lbd, labels_b = draw_layers()
    with pytest.raises(InputError, match="200 training rows are not 3 views"):
        probe(
            features_lbd[:, :200],
            labels_b[:200],
            features_lbd,
            labels_b,
            classes=CLASSES,
            config=CONFIG,
            seed=0,
            views=3,
        )


@pytest.mark.parametrize("given", [(1e-1, 1.0), (1e-7, 1e-6)], ids=["too strong", "too weak"])
def test_where_an_end_of_the_strengths_is_best_the_search_goes_on_beyond_it(given):
    features_bd, labels_b = draw(2000, 24, 1.0)
    wide = tuple(10.0**power for power in range(-7, 1))
    expected = run_on(features_bd, labels_b, wide).best
    assert min(wide) < expected.setting < max(wide)
    assert not min(given) <= expected.setting <= max(given)
    found = run_on(features_bd, labels_b, given).best
    assert found.setting == pytest.approx(expected.setting)
    assert found.held_out_loss == pytest.approx(expected.held_out_loss, rel=1e-3)


def test_strengths_too_close_to_go_beyond_end_the_search():
    features_bd, labels_b = draw(400, 24, 1.0)
    assert run_on(features_bd, labels_b, (0.01, 0.010001)).best.setting in (0.01, 0.010001)


def test_one_strength_alone_is_taken_as_it_is():
    features_bd, labels_b = draw(400, 24, 1.0)
    assert run_on(features_bd, labels_b, (1.0,)).best.setting == 1.0


def run_on(features_bd, labels_b, l2):
    half = len(labels_b) // 2
    parts = features_bd[None, :half], labels_b[:half], features_bd[None, half:], labels_b[half:]
    return probe(*parts, classes=CLASSES, config=ProbeConfig(l2=l2, held_out=0.5), seed=0)
