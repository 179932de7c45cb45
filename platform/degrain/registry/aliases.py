"""Moves aliases of the registered model, and keeps the record of why.

Each decision on `champion`, also a negative one, is a run of kind `promotion` in MLflow, which is
never changed again: its tags name the versions and the reason, its artifacts hold the report of the
gates and the scores. `history` reads these runs.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from degrain.errors import JobFailedError, UserError
from degrain.evaluation.scores import Evaluation
from degrain.registry.gates import Check
from degrain.registry.promotion import CHALLENGER, PREVIOUS, Decision, champion_of
from degrain.registry.versions import ModelVersion, alias_holders, find_version
from degrain.storage.json_file import json_bytes
from degrain.tracking.runs import Run, Tracker

KIND = "promotion"
_GATES_TAG, _AGAINST_TAG = "degrain.gates", "degrain.compared_with"
_NOBODY, _PASSED = "none", "passed"
_LONGEST_TAG = 1000


@dataclass(frozen=True)
class Entry:
    """One line of the history of the champion."""

    time: float
    """Seconds since 1970."""
    action: str
    """`promoted`, `kept`, `waits for approval`, or `rolled back`."""
    version: str
    """The champion after it, or `none`."""
    before: str
    reason: str
    run_id: str


def publish(
    tracker: Tracker,
    decisions: Sequence[Decision],
    evaluation: Evaluation,
    *,
    before: str | None,
    parent: Run | None = None,
    approval: bool = False,
) -> list[Decision]:
    """Move the aliases as decided and record the decision; returns the decisions as carried out.

    `before` is the champion that the candidates were compared with. With `approval` it stays, and
    the version that would follow becomes `challenger`. What an interrupted call has done is not
    done again. Raises JobFailedError if another job has moved the champion meanwhile.
    """
    champion = champion_of(decisions)
    _tag_candidates(tracker, champion, before)
    waits = approval and champion.moved
    carried_out = [_waiting(d, before) if waits and d.alias == "champion" else d for d in decisions]
    moved = [d for d in carried_out if d.moved and d.version is not None]
    # The champion first: where another job has moved it meanwhile, no other alias moves either.
    for decision in sorted(moved, key=lambda d: d.alias != "champion"):
        assert decision.version is not None
        if decision.alias == "champion":
            set_champion(tracker, decision.version, before)
        else:
            _set(tracker, decision.alias, decision.version)
    after = before if waits else champion.version
    challenger = champion.version if waits else _challenger(champion, after)
    if challenger is not None and (waits or champion.moved or not _is_waiting(tracker, before)):
        _set(tracker, CHALLENGER, challenger)
    if parent is not None and _has_record(tracker, parent):
        return carried_out
    action = "waits for approval" if waits else "promoted" if champion.moved else "kept"
    files = {
        "promotion.md": report(champion).encode(),
        "evaluation.json": json_bytes(evaluation.to_dict()),
    }
    _record(tracker, action, after, before, champion.reason, files, parent)
    return carried_out


def _waiting(champion: Decision, before: str | None) -> Decision:
    """The decision on `champion` until a person approves it."""
    reason = f"version {champion.version} passed all gates and waits for approval"
    return Decision("champion", before, False, reason, champion.checks)


def _is_waiting(tracker: Tracker, champion: str | None) -> bool:
    """Whether the challenger has passed the gates against the champion, and waits for approval."""
    holder = _holder(tracker, CHALLENGER)
    if holder is None or holder == champion:
        return False
    tags: Mapping[str, str] = find_version(
        tracker.client, ModelVersion(tracker.config.model, holder).uri
    ).tags
    passed = tags.get(_GATES_TAG) == _PASSED
    return passed and tags.get(_AGAINST_TAG) == (champion or _NOBODY)


def _challenger(champion: Decision, after: str | None) -> str | None:
    """The newest candidate that did not become champion, or None."""
    others = [v for v in champion.checks if v != after]
    return others[-1] if others else None


def _tag_candidates(tracker: Tracker, champion: Decision, before: str | None) -> None:
    """Tag each candidate with the outcome of its gates, which `promote` reads."""
    for version, checks in champion.checks.items():
        failed = [c.gate for c in checks if not c.passed]
        text = f"failed: {', '.join(failed)}" if failed else _PASSED
        tracker.client.set_model_version_tag(tracker.config.model, version, _GATES_TAG, text)
        tracker.client.set_model_version_tag(
            tracker.config.model, version, _AGAINST_TAG, before or _NOBODY
        )


def set_champion(tracker: Tracker, version: str, before: str | None) -> None:
    """Move `champion` to a version and `previous` to the one before.

    Raises JobFailedError if another job has moved it meanwhile; the other's choice stays.
    """
    if (now := _holder(tracker, "champion")) not in (before, version):
        raise JobFailedError(
            f"the champion has become version {now or _NOBODY} meanwhile (it was "
            f"{before or _NOBODY}); nothing was changed, run it again"
        )
    if before is not None and before != version:
        _set(tracker, PREVIOUS, before)
    _set(tracker, "champion", version)
    if (now := _holder(tracker, "champion")) != version:
        raise JobFailedError(
            f"another job has made version {now or _NOBODY} the champion at the same time; run it "
            "again"
        )


def promote(tracker: Tracker, version: str | None, *, override: str | None = None) -> Entry:
    """Make a version the champion by hand; None: the one that holds `challenger`.

    Raises UserError unless its gates passed against the present champion, or `override` gives a
    reason to promote it all the same.
    """
    chosen = version or _holder(tracker, CHALLENGER)
    if chosen is None:
        raise UserError("there is no challenger; name a version, or run `degrain tune` first")
    before = _holder(tracker, "champion")
    uri = ModelVersion(tracker.config.model, chosen).uri
    tags: Mapping[str, str] = find_version(tracker.client, uri).tags
    if chosen == before:
        raise UserError(f"version {chosen} is the champion already")
    if override is None:
        _check_gates(chosen, tags, before)
    reason = f"without gates: {override}" if override else "approved by hand"
    set_champion(tracker, chosen, before)
    return _record(tracker, "promoted", chosen, before, reason, {}, None)


def _check_gates(version: str, tags: Mapping[str, str], champion: str | None) -> None:
    remedy = (
        "name a patch set with `data` to compare them now, or give a reason with `without_gates`"
    )
    outcome, against = tags.get(_GATES_TAG), tags.get(_AGAINST_TAG)
    if outcome != _PASSED:
        what = f"has not passed the gates ({outcome})" if outcome else "was never at the gates"
        raise UserError(f"version {version} {what}; {remedy}")
    if against != (champion or _NOBODY):
        raise UserError(
            f"version {version} was compared with version {against}, but the champion is version "
            f"{champion or _NOBODY} now; {remedy}"
        )


def rollback(tracker: Tracker) -> Entry:
    """Make the version that holds `previous` the champion again.

    Raises UserError if there is none.
    """
    previous, before = _holder(tracker, PREVIOUS), _holder(tracker, "champion")
    if previous is None or previous == before:
        raise UserError("there is no previous champion to return to")
    set_champion(tracker, previous, before)
    return _record(tracker, "rolled back", previous, before, "by hand", {}, None)


def history(tracker: Tracker, most: int = 100) -> list[Entry]:
    """The decisions on the champion, newest first."""
    model = tracker.config.model
    runs = tracker.client.search_runs(
        [tracker.experiment_id],
        filter_string=f"tags.`degrain.kind` = '{KIND}' and tags.`degrain.model` = '{model}'",
        order_by=["attributes.start_time DESC"],
        max_results=most,
    )
    return [_entry(run) for run in runs]


def report(champion: Decision) -> str:
    """The decision on the champion as Markdown."""
    lines = [f"# Champion: {'moves' if champion.moved else 'stays'}", "", champion.reason, ""]
    for version, checks in champion.checks.items():
        lines += [f"## Version {version}", "", "| gate | outcome | figures |", "|---|---|---|"]
        lines += [_line(check) for check in checks]
        lines.append("")
    return "\n".join(lines)


def _line(check: Check) -> str:
    return f"| {check.gate} | {'passed' if check.passed else '**failed**'} | {check.text} |"


def _record(
    tracker: Tracker,
    action: str,
    version: str | None,
    before: str | None,
    reason: str,
    files: Mapping[str, bytes],
    parent: Run | None,
) -> Entry:
    tags = {
        "degrain.model": tracker.config.model,
        "degrain.action": action,
        "degrain.champion": version or _NOBODY,
        "degrain.champion_before": before or _NOBODY,
        "degrain.reason": reason[:_LONGEST_TAG],
    }
    name = f"champion {action}: version {version or _NOBODY}"
    with tracker.run(name, KIND, parent=parent, tags=tags) as run:
        if files:
            run.files(files, "promotion")
    return Entry(time.time(), action, version or _NOBODY, before or _NOBODY, reason, run.id)


def _has_record(tracker: Tracker, parent: Run) -> bool:
    """Whether the decision of a study is recorded."""
    found = tracker.client.search_runs(
        [tracker.experiment_id],
        filter_string=f"tags.`degrain.kind` = '{KIND}' and "
        f"tags.`mlflow.parentRunId` = '{parent.id}'",
        max_results=1,
    )
    return bool(found)


def _entry(run: Any) -> Entry:  # noqa: ANN401 - mlflow's Run
    tags: Mapping[str, str] = run.data.tags
    return Entry(
        time=run.info.start_time / 1000,
        action=tags["degrain.action"],
        version=tags["degrain.champion"],
        before=tags["degrain.champion_before"],
        reason=tags["degrain.reason"],
        run_id=str(run.info.run_id),
    )


def _holder(tracker: Tracker, alias: str) -> str | None:
    held = alias_holders(tracker.client, tracker.config.model).get(alias)
    return held.version if held else None


def _set(tracker: Tracker, alias: str, version: str) -> None:
    tracker.client.set_registered_model_alias(tracker.config.model, alias, version)
