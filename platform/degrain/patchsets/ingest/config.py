"""The configuration of an ingest.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from degrain.corpora.config import CorpusOptions, split_name
from degrain.errors import InvalidFieldError, UserError
from degrain.fields import check_share
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """An ingest: its corpora, its patches, its checks and its splits."""

    corpus: Sequence[str]
    """Corpora, each NAME=URI or NAME:LABEL=URI; NAME is clean, embedded, nind, noisy, pairs, polyu,
    renoir or sidd. May be repeated."""
    out: str
    """Folder or s3:// URI for patch sets."""
    geometry: PatchGeometry = field(default_factory=PatchGeometry)
    rules: CheckRules = field(default_factory=CheckRules)
    options: CorpusOptions = field(default_factory=CorpusOptions)
    max_refused: float = 0.05
    """Share of refused pairs above which the job fails."""
    val_scenes: tuple[str, ...] = ()
    """Scenes of the val split, separated by commas. Empty: chosen by hash."""
    test_scenes: tuple[str, ...] = ()
    """Scenes of the test split, separated by commas. Empty: chosen by hash."""
    val_share: float = 0.1
    """Share of each corpus' scenes that goes to the val split, of nine scenes and more at least
    three."""
    test_share: float = 0.1
    """The same for the test split, by which models are compared."""
    release_test: bool = False
    """Let scenes leave the test split. Models that were trained on the others are judged by it, and
    a model that is trained on it can no longer be compared with them."""
    reread: bool = False
    """Read every photo and shard again, even where size and time are unchanged."""

    def __post_init__(self) -> None:
        if not self.corpus:
            raise UserError("name at least one corpus with `corpus` NAME=URI")
        if {split_name(text)[0] for text in self.corpus} == {"noisy"}:
            raise UserError(
                "photos of a corpus `noisy` have no clean partners to score by; name a corpus of "
                "pairs beside it with `corpus` NAME=URI"
            )
        check_share(self, "max_refused", "val_share", "test_share")
        if self.val_share + self.test_share >= 1:
            raise InvalidFieldError(
                "test_share", "and `val_share` must leave scenes for the train split"
            )
