"""Suggestions: random ones are determined by the seed, TPE learns, architectures take turns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degrain.domains import Choice, LogUniform
from degrain.tuning.sampler import Outcome, Suggester, pareto_front
from degrain.tuning.space import Draw, SearchSpace, search_space

SPACE = SearchSpace(
    "red10",
    {"learning_rate": (LogUniform(1e-4, 1e-1),), "batch_size": (Choice((2, 4, 8, 16)),)},
)


def run(suggester: Suggester, trials: int) -> list[Draw]:
    """Score trials by their distance from one learning rate and one batch size."""
    draws = []
    for number in range(trials):
        draws.append(draw := suggester.suggest(number))
        distance = abs(draw.training["learning_rate"] - 3e-4) * 100
        suggester.learn(number, Outcome(draw, (-distance - (draw.training["batch_size"] != 8),)))
    return draws


def test_random_depends_on_the_seed_alone_and_keeps_the_first_trials() -> None:
    spaces = [search_space(name, "small") for name in ("unet", "red10")]

    def draws(seed: int, count: int) -> list[Draw]:
        return run(Suggester(spaces, algorithm="random", seed=seed), count)

    assert draws(3, 8)[:4] == draws(3, 4)
    assert draws(3, 8) != draws(4, 8)


@pytest.mark.parametrize("algorithm", ["tpe", "random", "nsga2"])
def test_architectures_take_turns_and_begin_with_their_defaults(algorithm: str) -> None:
    spaces = [search_space(name, "small") for name in ("unet", "fast24", "red10")]
    draws = run(Suggester(spaces, algorithm=algorithm), 9)
    assert [draw.model for draw in draws] == ["unet", "fast24", "red10"] * 3
    defaults = [space.draw(lambda _, domain: domain.middle).training["crop"] for space in spaces]
    assert [draw.training["crop"] for draw in draws[:3]] == defaults


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_later_trials_learn_from_finished_ones(algorithm: str) -> None:
    late = [run(Suggester([SPACE], algorithm=algorithm, seed=s), 40)[20:] for s in range(3)]
    hits = sum(draw.training["batch_size"] == 8 for draws in late for draw in draws)
    # A quarter of the 60 at random.
    assert hits >= 33


def test_tpe_avoids_what_failed() -> None:
    suggester = Suggester([SPACE], seed=1)
    late = 0
    for number in range(40):
        draw = suggester.suggest(number)
        failed = draw.training["learning_rate"] > 3e-3
        late += failed and number >= 20
        suggester.learn(number, Outcome(draw, None if failed else (1.0,)))
    assert late < 7


def test_a_resumed_search_learns_from_trials_of_the_earlier_process() -> None:
    draws = run(Suggester([SPACE], seed=1), 20)
    resumed = Suggester([SPACE], seed=1, known=20)
    for number, draw in enumerate(draws):
        resumed.learn(number, Outcome(draw, (-draw.training["learning_rate"],)))
    later = []
    for number in range(20, 40):
        later.append(draw := resumed.suggest(number))
        resumed.learn(number, Outcome(draw, (-draw.training["learning_rate"],)))
    # A third of the random draws.
    assert sum(draw.training["learning_rate"] < 1e-3 for draw in later) >= 12
    assert not set(map(str, later)) & set(map(str, draws))


@given(st.dictionaries(st.integers(), st.tuples(st.floats(0, 50), st.floats(0, 50))))
def test_pareto_front_holds_exactly_what_nothing_dominates(
    points: dict[int, tuple[float, float]],
) -> None:
    front = pareto_front(points)
    values = set(points.values())
    expected = {
        p for p in values if not any(o != p and o[0] >= p[0] and o[1] <= p[1] for o in values)
    }
    assert sorted(points[key] for key in front) == sorted(expected)
    scores = [points[key][0] for key in front]
    assert scores == sorted(scores, reverse=True)
