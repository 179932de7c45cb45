"""What a retraining decided."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from degrain.tuning.publish import StudyResult


@dataclass(frozen=True)
class RetrainingResult:
    """The decision of one retraining."""

    decision: str
    """`unchanged` (too few new pairs), `planned` (a dry run found enough), `promoted`, or `kept`
    (no challenger was better)."""
    reason: str
    champion: str | None
    """Version that holds the alias `champion`."""
    challenger: str | None = None
    """Version that this retraining registered."""
    new_pairs: int = 0
    drift: Sequence[str] = ()
    """Traits in which the new pairs differ from the known ones."""
    patch_set: str | None = None
    """Version of the patch set that was studied."""
    study: StudyResult | None = None

    def to_summary(self) -> dict[str, object]:
        """Return the content of the summary file."""
        fields = asdict(replace(self, study=None))
        del fields["study"]
        rows = self.study.comparison.rows if self.study else []
        return {**fields, "comparison": [row.to_dict() for row in rows]}
