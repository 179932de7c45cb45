"""Promotion: an alias moves only to a model that beats the baselines and the current holder."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.imaging.metrics import Score
from degrain.tracking.config import PromotionRules, TrackingConfig
from degrain.tracking.promotion import ALIASES, Decision, Scored, decide, metric_of

BASELINES = {"noisy": Score(20, 0.5), "nlm": Score(25, 0.7)}
CONFIG = TrackingConfig()


def scored(version: str, psnr: float, ssim: float) -> Scored:
    return Scored(version, Score(psnr, ssim))


def everywhere(holder: Scored) -> dict[str, Scored]:
    return dict.fromkeys(ALIASES, holder)


def decisions(
    challengers: list[Scored],
    present: dict[str, Scored] | None = None,
    config: TrackingConfig = CONFIG,
) -> dict[str, Decision]:
    made = decide(challengers, present or {}, BASELINES, config)
    assert [d.alias for d in made] == list(ALIASES)
    return {d.alias: d for d in made}


def alias_holders(*args: object, **kwargs: object) -> dict[str, str | None]:
    made = decisions(*args, **kwargs)  # type: ignore[arg-type]
    return {alias: d.version for alias, d in made.items()}


def test_the_first_model_receives_all_aliases() -> None:
    made = decisions([scored("1", 30, 0.8)])
    assert {(d.version, d.moved) for d in made.values()} == {("1", True)}
    assert made["best-psnr"].reason == "psnr 30 dB, the alias had no holder"
    assert made["best-ssim"].reason == "ssim 0.8, the alias had no holder"


@pytest.mark.parametrize(("psnr", "ssim"), [(30, 0.7), (25, 0.8), (24, 0.9), (40, 0.6), (25, 0.7)])
@pytest.mark.parametrize("held", [False, True])
def test_a_model_must_beat_the_baselines_on_both_metrics(
    psnr: float, ssim: float, held: bool
) -> None:
    present = everywhere(scored("0", 21, 0.55)) if held else {}
    made = decisions([scored("1", psnr, ssim)], present)
    assert {(d.version, d.moved) for d in made.values()} == {("0" if held else None, False)}
    assert {d.reason for d in made.values()} == {"no new model beats noisy and nlm"}


def test_only_the_baselines_in_must_beat_count() -> None:
    config = TrackingConfig(promotion=PromotionRules(must_beat=("noisy",)))
    assert set(alias_holders([scored("1", 22, 0.6)], config=config).values()) == {"1"}
    assert set(alias_holders([scored("1", 22, 0.6)]).values()) == {None}


def test_without_challengers_no_alias_moves() -> None:
    made = decisions([], everywhere(scored("0", 30, 0.8)))
    assert {(d.version, d.moved) for d in made.values()} == {("0", False)}


def test_an_alias_moves_only_to_a_model_better_on_its_metric() -> None:
    present = everywhere(scored("1", 30, 0.8))
    assert alias_holders([scored("2", 31, 0.79)], present) == {
        "best-psnr": "2",
        "best-ssim": "1",
        "champion": "2",
    }
    assert alias_holders([scored("2", 29, 0.81)], present) == {
        "best-psnr": "1",
        "best-ssim": "2",
        "champion": "1",
    }


def test_an_equal_score_does_not_move_an_alias() -> None:
    made = decisions([scored("2", 30, 0.8)], everywhere(scored("1", 30, 0.8)))
    assert {(d.version, d.moved) for d in made.values()} == {("1", False)}
    assert made["best-psnr"].reason == "psnr 30 dB against 30 dB of version 1"


def test_the_champion_follows_the_configured_metric() -> None:
    config = TrackingConfig(champion="ssim")
    assert [metric_of(alias, config) for alias in ALIASES] == ["psnr", "ssim", "ssim"]
    assert [metric_of(alias, CONFIG) for alias in ALIASES] == ["psnr", "ssim", "psnr"]
    present = everywhere(scored("1", 30, 0.8))
    assert alias_holders([scored("2", 31, 0.79)], present, config) == {
        "best-psnr": "2",
        "best-ssim": "1",
        "champion": "1",
    }
    assert alias_holders([scored("2", 29, 0.81)], present, config) == {
        "best-psnr": "1",
        "best-ssim": "2",
        "champion": "2",
    }


@pytest.mark.parametrize(
    ("psnr", "moves"), [(30.0, False), (30.25, False), (30.5, True), (31.0, True)]
)
def test_an_alias_moves_only_for_the_minimum_psnr_improvement(psnr: float, moves: bool) -> None:
    config = TrackingConfig(promotion=PromotionRules(min_psnr_improvement_db=0.5))
    made = decisions([scored("2", psnr, 0.8125)], everywhere(scored("1", 30, 0.8)), config)
    assert {a: d.moved for a, d in made.items()} == {
        "best-psnr": moves,
        "champion": moves,
        "best-ssim": True,
    }
    assert made["champion"].reason.endswith("; an improvement of 0.5 dB is required") == (
        psnr == 30.25
    )


@pytest.mark.parametrize(("ssim", "moves"), [(0.75, False), (0.8125, False), (0.875, True)])
def test_an_alias_moves_only_for_the_minimum_ssim_improvement(ssim: float, moves: bool) -> None:
    config = TrackingConfig(promotion=PromotionRules(min_ssim_improvement=0.125))
    made = decisions([scored("2", 31, ssim)], everywhere(scored("1", 30, 0.75)), config)
    assert {a: d.moved for a, d in made.items()} == {
        "best-psnr": True,
        "champion": True,
        "best-ssim": moves,
    }


def test_each_alias_moves_to_the_best_challenger_on_its_metric() -> None:
    challengers = [
        scored("2", 31, 0.9),
        scored("3", 33, 0.8),
        scored("4", 32, 0.95),
        scored("5", 40, 0.1),
    ]
    expected = {"best-psnr": "3", "best-ssim": "4", "champion": "3"}
    assert alias_holders(challengers) == expected
    assert alias_holders(challengers, everywhere(scored("1", 30, 0.8))) == expected
    assert alias_holders(challengers[::-1]) == expected


def test_aliases_of_different_holders_are_decided_separately() -> None:
    present = {"best-psnr": scored("1", 35, 0.8), "champion": scored("0", 30, 0.8)}
    assert alias_holders([scored("2", 33, 0.9)], present) == {
        "best-psnr": "1",
        "best-ssim": "2",
        "champion": "2",
    }


metrics = st.tuples(st.floats(15, 45), st.floats(0, 1))


@settings(max_examples=100, deadline=None)
@given(new=st.lists(metrics, max_size=5), holder=metrics)
def test_no_alias_ever_moves_to_a_worse_model(
    new: list[tuple[float, float]], holder: tuple[float, float]
) -> None:
    scores = {"0": Score(*holder)} | {str(i): Score(*m) for i, m in enumerate(new, start=1)}
    challengers = [Scored(v, s) for v, s in scores.items() if v != "0"]
    for alias, decision in decisions(challengers, everywhere(Scored("0", scores["0"]))).items():
        assert decision.version is not None
        metric = metric_of(alias, CONFIG)
        assert decision.moved == (decision.version != "0")
        if decision.moved:
            winner = scores[decision.version]
            assert getattr(winner, metric) > getattr(scores["0"], metric)
            assert winner.psnr > 25
            assert winner.ssim > 0.7
