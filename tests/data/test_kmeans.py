import numpy as np
import pytest

from igpt_jax.data import kmeans
from igpt_jax.errors import InputError


@pytest.fixture(scope="module")
def photo_pixels():
    from sklearn.datasets import load_sample_images

    pixels = np.concatenate([photo.reshape(-1, 3) for photo in load_sample_images().images])
    return np.random.default_rng(0).choice(pixels, 30_000, replace=False)


@pytest.fixture(scope="module")
def fitted(photo_pixels):
    return kmeans.fit(photo_pixels, 32, seed=0)


def test_inertia_falls_at_every_iteration(fitted):
    _, report = fitted
    assert len(report.inertia) > 10
    assert np.all(np.diff(report.inertia) < 0)


def test_the_report_describes_the_returned_palette(fitted, photo_pixels):
    palette, report = fitted
    squared = ((photo_pixels[:, None] - 127.5 * (palette.colors.astype(float) + 1)) ** 2).sum(-1)
    error = squared.min(1).mean() / 3
    np.testing.assert_allclose(report.mean_squared_error, error, rtol=1e-6)
    np.testing.assert_allclose(report.psnr, 10 * np.log10(255**2 / error), rtol=1e-6)
    assert report.dead == 0
    assert len(palette) == 32


def test_the_same_seed_gives_the_same_palette_and_another_does_not(fitted, photo_pixels):
    assert kmeans.fit(photo_pixels, 32, seed=0)[0] == fitted[0]
    assert kmeans.fit(photo_pixels, 32, seed=1)[0] != fitted[0]


def test_colors_run_from_dark_to_light(fitted):
    assert np.all(np.diff(fitted[0].colors @ (0.2126, 0.7152, 0.0722)) >= 0)


@pytest.mark.slow
def test_inertia_is_within_one_percent_of_scikit_learn(fitted, photo_pixels):
    from sklearn.cluster import KMeans

    expected = KMeans(32, n_init=3, random_state=0).fit(photo_pixels.astype(np.float32)).inertia_
    assert fitted[1].inertia[-1] < 1.01 * expected


def test_counts_weigh_like_repeated_pixels():
    pixels = np.array([[0, 0, 0]] * 3 + [[4, 4, 4]] + [[200, 200, 200]], np.uint8)
    palette, report = kmeans.fit(pixels, 2)
    np.testing.assert_allclose(palette.colors[:, 0], [1 / 127.5 - 1, 200 / 127.5 - 1], rtol=1e-6)
    np.testing.assert_allclose(report.inertia[-1], 3 * (3 * 1 + 9), rtol=1e-6)


def test_counts_given_are_counts_found(photo_pixels):
    colors, counts = np.unique(photo_pixels, axis=0, return_counts=True)
    assert kmeans.fit(colors, 8, counts=counts)[0] == kmeans.fit(photo_pixels, 8)[0]


def test_more_distinct_colors_than_the_first_sample_holds_are_all_fitted():
    pixels = np.random.default_rng(0).integers(0, 256, (200_000, 3), dtype=np.uint8)
    palette, report = kmeans.fit(pixels, 8)  # of a uniform cube: its eight octants, 63.75 levels from their centers
    np.testing.assert_allclose(np.sort(np.abs(127.5 * palette.colors), axis=None), 63.75, atol=4)
    np.testing.assert_allclose(report.mean_squared_error, 127.5**2 / 12, rtol=0.01)


def test_gray_pixels_get_gray_colors():
    gray = np.random.default_rng(0).integers(0, 256, (5000, 1), dtype=np.uint8).repeat(3, axis=1)
    palette, _ = kmeans.fit(gray, 20)
    np.testing.assert_array_equal(palette.colors, palette.colors[:, :1].repeat(3, axis=1))


@pytest.mark.slow
def test_as_many_colors_as_a_token_can_name():
    pixels = np.random.default_rng(0).integers(0, 256, (400_000, 3), dtype=np.uint8)
    palette, report = kmeans.fit(pixels, 65536, iterations=5)
    assert len(palette) == 65536
    assert report.dead == 0
    assert report.mean_squared_error < 2.5**2  # 65,536 cells of 6.35 levels a side: 3.4 with cubes


def test_as_many_colors_as_the_pixels_have_fit_exactly():
    pixels = np.arange(17, dtype=np.uint8)[:, None].repeat(3, axis=1) * 15
    palette, report = kmeans.fit(pixels, 17)
    image = pixels[:16].reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(palette.decode(palette.encode(image)), image)
    assert report.mean_squared_error < 1e-9
    assert report.psnr > 100


def test_a_color_without_pixels_moves_to_the_worst_served():
    points = np.array([[0, 0, 0], [9, 9, 9], [90, 90, 90]], np.float32)
    nearest, distances = np.array([0, 0, 0]), np.array([0.0, 243.0, 24300.0])
    means = kmeans._means(points, np.ones(3, int), nearest, distances, 2)
    np.testing.assert_allclose(means, [[33, 33, 33], [90, 90, 90]])


@pytest.mark.parametrize(
    ("pixels", "size", "message"),
    [
        (np.zeros((9, 3), np.uint8), 2, "cannot fit 2 colors to pixels of 1 distinct colors; choose 1 to 1"),
        (np.zeros((9, 3), np.uint8), 0, "cannot fit 0 colors"),
        (np.zeros((9, 3)), 1, "pixels are float64 of shape"),
        (np.zeros((9, 4), np.uint8), 1, r"shape \(9, 4\); expected uint8 \(n, 3\)"),
    ],
)
def test_pixels_that_cannot_be_fitted_are_refused(pixels, size, message):
    with pytest.raises(InputError, match=message):
        kmeans.fit(pixels, size)
