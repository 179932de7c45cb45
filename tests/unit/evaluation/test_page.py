"""The page of a comparison, its slices, and what is measured beside PSNR."""

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from unit.patchset_support import ROW

from degrain.evaluation.comparison import Comparison, Example
from degrain.evaluation.differences import Ranking
from degrain.evaluation.measurement import gradient_energy, largest_seam, measure
from degrain.evaluation.page import crops_figure, evaluation_page
from degrain.evaluation.scores import DenoiserScores, EvaluatedPhoto, Evaluation
from degrain.evaluation.slices import iso_range, slices
from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import Score
from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import Identity, NetworkDenoiser
from denoisenets import create_model

RANDOM = np.random.default_rng(0)
CLEAN: Photo = np.kron(RANDOM.integers(40, 200, (12, 12, 3)), np.ones((16, 16, 1))).astype(np.uint8)
NOISY: Photo = np.clip(CLEAN + RANDOM.normal(0, 20, CLEAN.shape), 0, 255).astype(np.uint8)


class Brighter:
    """Adds three levels to each value."""

    name, parameters = "brighter", 1

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        return photo + np.uint8(3)


class Blur:
    """Averages neighbours."""

    name, parameters = "blur", 0

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        wide = photo.astype(np.float32)
        return ((wide + np.roll(wide, 1, 0) + np.roll(wide, 1, 1)) / 3).astype(np.uint8)


def evaluation() -> Evaluation:
    rows = [
        replace(ROW, id=f"c/{n}", scene=f"c/{n}", camera="A" if n < 2 else "B", iso=400 * (n + 1))
        for n in range(4)
    ]
    photos = tuple(EvaluatedPhoto.of(row) for row in rows)
    made: list[DenoiserScores] = []
    for denoiser in (Identity(), create_filter("median")):
        one, _ = measure(denoiser, NOISY, CLEAN, clean_input=True)
        scores = tuple(replace(one, psnr=one.psnr + n) for n in range(4))
        made.append(DenoiserScores(name=denoiser.name, scores=scores))
    made[1] = replace(made[1], leaked=("c/2",))
    return Evaluation(photos=photos, denoisers=tuple(made))


def example(outputs: dict[str, Photo], clean: Photo = CLEAN) -> Example:
    return Example(ROW, NOISY, clean, outputs, dict.fromkeys(outputs, Score(30, 0.9)))


def test_a_shift_of_colours_and_a_change_of_clean_photos_are_measured() -> None:
    found, output = measure(Brighter(), CLEAN, CLEAN, clean_input=True)
    assert found.shift == pytest.approx((3, 3, 3))
    assert found.psnr == found.clean_psnr == pytest.approx(20 * np.log10(255 / 3), abs=1e-4)
    assert found.cast == pytest.approx((3, 3, 3))
    assert found.detail == pytest.approx(1)
    assert np.array_equal(output, CLEAN + 3)


def test_an_unchanged_photo_has_the_highest_psnr_not_an_infinite_one() -> None:
    found, _ = measure(Identity(), CLEAN, CLEAN, clean_input=True)
    assert (found.psnr, found.clean_psnr, found.ssim) == (99, 99, pytest.approx(1))


def test_noise_casts_no_colour_even_where_it_would_be_clipped() -> None:
    dark = np.zeros((64, 64, 3), np.uint8)
    found, _ = measure(create_filter("nlm"), dark, dark, clean_input=False)
    assert np.abs(found.cast).max() < 0.3
    assert measure(Identity(), dark, dark, clean_input=False)[0].cast == (0, 0, 0)


def test_blur_loses_gradients_and_noise_adds_them() -> None:
    flat = np.full_like(CLEAN, 90)
    assert gradient_energy(flat) == 0
    grey = NOISY.astype(float).mean(axis=2)
    expected = sum(np.square(np.diff(grey, axis=axis)).mean() for axis in (0, 1))
    assert gradient_energy(NOISY) == pytest.approx(expected)
    smooth, _ = measure(Blur(), CLEAN, CLEAN, clean_input=False)
    noisy, _ = measure(Identity(), NOISY, CLEAN, clean_input=False)
    assert smooth.clean_psnr is None
    assert smooth.detail < 1 < noisy.detail


def test_tiles_have_no_seams_and_filters_have_no_tiles() -> None:
    network = create_model("red10", width=4)
    denoiser = NetworkDenoiser("red10", {"width": 4}, network.state_dict())
    assert largest_seam(denoiser, NOISY) in (0, 1)
    assert denoiser.config.tile is None, "the denoiser itself keeps its tiles"
    assert largest_seam(Identity(), NOISY) is None


def test_side_effects_of_large_photos_are_measured_in_strips() -> None:
    large = np.tile(NOISY, (6, 3, 1))
    tracemalloc.start()
    try:
        found = gradient_energy(large)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    grey = large.astype(float).mean(axis=2)
    assert found == pytest.approx(sum(np.square(np.diff(grey, axis=a)).mean() for a in (0, 1)))
    assert most < 3 * large.nbytes


def test_slices_are_by_camera_and_by_range_of_iso() -> None:
    names = {part.name: len(part.photos) for part in slices(evaluation())}
    assert names["camera c A" if "camera c A" in names else f"camera {ROW.corpus} A"] == 2
    assert names["ISO 201 to 400"] == 1
    assert names["ISO 801 to 1600"] == 2
    assert [iso_range(iso) for iso in (50, 100, 101, 102400)] == [
        "up to 100",
        "up to 100",
        "101 to 200",
        "above 51200",
    ]


def test_the_page_has_every_section_and_names_leaks() -> None:
    shown = example({"noisy": NOISY, "median": CLEAN})
    page = evaluation_page(Comparison(evaluation(), [shown]), "test photos").html().decode()
    for text in ("Table", "Side effects", "Slices", "Worst and best photos", "Crops", "1: leaked"):
        assert text in page
    assert page.count("<img") == 2
    assert "+0.00 (+0.00 to +0.00)" in page, "the noisy photo gains nothing over itself"


def test_headers_of_numbers_are_aligned_like_the_numbers() -> None:
    page = evaluation_page(Comparison(evaluation()), "test photos").html().decode()
    for header in ("PSNR, dB", "SSIM", "PSNR gain, dB", "red", "median gain, dB"):
        assert f'<th class="number">{header}</th>' in page
    assert "<th>denoiser</th>" in page


def test_no_photo_is_both_worst_and_best() -> None:
    report = evaluation_page(Comparison(evaluation()), "test photos")
    section = report.html().decode().partition("gains least and most")[2]
    assert sorted(re.findall(r"<td>(c/\d)</td>", section)) == ["c/0", "c/1", "c/2", "c/3"]


def test_the_page_of_the_noisy_photo_alone_has_neither_speed_nor_extremes() -> None:
    whole = evaluation()
    one = replace(
        whole,
        photos=whole.photos[:1],
        denoisers=(replace(whole.denoisers[0], scores=whole.denoisers[0].scores[:1]),),
    )
    page = evaluation_page(Comparison(one, [example({"noisy": NOISY})]), "x")
    text = page.html().decode()
    assert "Quality and speed" not in text
    assert "Worst and best" not in text
    assert "there are no confidence intervals" in text


@pytest.mark.slow
@pytest.mark.parametrize("denoisers", [1, 4, 9])
@pytest.mark.parametrize("size", [(12, 40), (300, 170)])
def test_crops_of_any_size_and_number_have_their_captions(
    denoisers: int, size: tuple[int, int]
) -> None:
    clean = np.resize(CLEAN, (*size, 3))
    names = ["noisy", *(f"d{n}" for n in range(denoisers - 1))]
    figure = crops_figure(example(dict.fromkeys(names, clean), clean))
    captions = [axis.get_title().partition("\n")[0] for axis in figure.axes]
    assert [c for c in captions if c] == [*names[:7], "clean"]
    assert "16x16" in figure.get_suptitle()


def test_the_letters_of_sidd_for_brightness_are_words() -> None:
    photos = tuple(
        replace(p, brightness=b) for p, b in zip(evaluation().photos, "LNHx", strict=True)
    )
    found = {part.value for part in slices(replace(evaluation(), photos=photos))}
    assert {"low", "normal", "high", "x"} <= found


SCENES = 6


def compared(**gains: float) -> Evaluation:
    """Denoisers by their gain over `noisy`, on photos of which some are harder for all."""
    photos = tuple(
        EvaluatedPhoto.of(replace(ROW, id=f"c/{n}", scene=f"c/{n}")) for n in range(SCENES)
    )
    one, _ = measure(Identity(), NOISY, CLEAN, clean_input=False)
    made = [
        DenoiserScores(
            name=name,
            scores=tuple(
                # What is easy for one is easy for all, so that all intervals overlap.
                replace(one, psnr=20 + 5 * n + gain, seconds=1 / gain)
                for n in range(SCENES)
            ),
        )
        for name, gain in gains.items()
    ]
    return Evaluation(photos=photos, denoisers=tuple(made))


def test_a_lead_that_is_certain_is_recommended_though_scores_overlap() -> None:
    ranking = Ranking.of(compared(noisy=1, median=2, wide=2.5))
    assert ranking.best is not None
    assert ranking.best.name == "wide"
    assert [lead.behind.name for lead in ranking.leads] == ["median", "noisy"]
    assert [lead.psnr.mean for lead in ranking.leads] == pytest.approx([0.5, 1.5])
    assert ranking.recommend() == (
        "Use wide: it is 0.50 dB ahead of median, at least 0.50 with 95% confidence, and further "
        "of all others."
    )


def test_of_denoisers_that_chance_may_have_ordered_the_fastest_is_named() -> None:
    one = compared(noisy=1, median=2, wide=2.01)
    turned = [
        replace(s, psnr=s.psnr + (0.1 if n % 2 else -0.1), seconds=0.1)
        for n, s in enumerate(one.denoisers[1].scores)
    ]
    median = replace(one.denoisers[1], scores=tuple(turned))
    ranking = Ranking.of(replace(one, denoisers=(one.denoisers[0], median, one.denoisers[2])))
    assert ranking.recommend() == (
        "wide has the highest PSNR, but its lead over median may be chance; the fastest of them is "
        f"median ({0.1 / turned[0].megapixels:.2f} s per megapixel)."
    )


def test_what_was_trained_on_the_photos_is_marked_and_not_recommended() -> None:
    one = compared(noisy=1, median=2, wide=2.5)
    leaking = replace(one.denoisers[2], leaked=("c/1", "c/2"))
    told = replace(one, denoisers=(*one.denoisers[:2], leaking))
    assert Ranking.of(told).recommend() == (
        "Use median: it is 1.00 dB ahead of noisy, at least 1.00 with 95% confidence, and further "
        "of all others. wide is left out: it was trained on 2 of these photos."
    )
    comparison = Comparison(told)
    assert "| wide (trained on 2 of these photos) | " in comparison.to_markdown()
    page = evaluation_page(comparison, "photos").html().decode()
    assert "wide (trained on 2 of these photos)" in page
    assert "wide is left out" in page
    alone = replace(told, denoisers=(leaking,))
    assert "none can be recommended" in Ranking.of(alone).recommend()


def test_equal_scores_are_called_equal() -> None:
    """A training that kept its starting weights, beside them."""
    one = compared(noisy=1, start=2)
    twin = replace(one.denoisers[1], name="kept")
    ranking = Ranking.of(replace(one, denoisers=(*one.denoisers, twin)))
    assert ranking.recommend() == "start and kept have the same PSNR on every photo."


def test_two_scenes_recommend_with_a_doubt() -> None:
    one = compared(noisy=1, wide=2.5)
    few = replace(
        one, photos=tuple(replace(p, scene=f"c/{n % 2}") for n, p in enumerate(one.photos))
    )
    assert Ranking.of(few).recommend() == (
        "wide has the highest PSNR, 1.50 dB above noisy; with fewer than 3 scenes that may be "
        "chance."
    )
