"""The configuration of an ingest."""

import pytest

from degrain.patchsets.ingest.config import IngestConfig


def test_a_config_without_corpora_or_with_a_share_over_one_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one corpus"):
        IngestConfig(corpus=[], out="o")
    with pytest.raises(ValueError, match="max_refused must be a share between 0 and 1, got 5"):
        IngestConfig(corpus=["sidd=x"], out="o", max_refused=5)


def test_noisy_photos_alone_are_refused_with_what_they_need() -> None:
    with pytest.raises(ValueError, match="no clean partners to score by; name a corpus of pairs"):
        IngestConfig(corpus=["noisy=a", "noisy:b=b"], out="o")
    IngestConfig(corpus=["noisy=a", "pairs=b"], out="o")
