"""The error text for unknown names."""

from denoisenets.suggestions import unknown_name


def test_suggests_the_nearest_name() -> None:
    assert (
        unknown_name("model", "uent", ["dncnn", "unet"])
        == "unknown model 'uent'; did you mean 'unet'? Known models: dncnn, unet"
    )


def test_lists_the_known_names_without_a_close_one() -> None:
    assert (
        unknown_name("corpus", "xyz", ["sidd", "nind"], plural="corpora")
        == "unknown corpus 'xyz'. Known corpora: sidd, nind"
    )
