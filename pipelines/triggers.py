"""Who or what started a run, and why."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from components.contracts import InputError

KINDS = ("hand", "schedule", "data", "drift", "ci", "resume", "event")
UNWATCHED = ("schedule", "data", "drift", "ci", "event")
"""Nobody sits before such a run, so one that died is resumed."""
VARIABLE = "GRAFTLINE_TRIGGER"
RESUMES = "GRAFTLINE_RESUMES"
"""How the reaper tells the run that it starts: "<id of the crashed run> <its own id>"."""


@dataclass(frozen=True)
class Trigger:
    """What started a run."""

    kind: str
    """One of KINDS."""
    who: str = ""
    """The user, the deployment, the CI system."""
    cause: str = ""
    """Why, in words."""
    run: str = ""
    """The run that it follows from: for `resume` the crashed one, for `drift` the monitor's."""


def guess_trigger(because: str = "") -> Trigger:
    """Told by GRAFTLINE_TRIGGER="kind: cause" (for cron), by the variables of CI systems, else the user by hand.

    Raises:
        InputError: the variable names no kind.
    """
    found = _told() or _by_ci() or Trigger("hand", _user())
    return dataclasses.replace(found, cause=because) if because else found


def _told() -> Trigger | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    kind, _, cause = (part.strip() for part in text.partition(":"))
    if kind not in KINDS:
        raise InputError(f'{VARIABLE}: {text!r} must be "KIND: CAUSE", KIND one of {", ".join(KINDS)}')
    return Trigger(kind, _user(), cause)


def _by_ci() -> Trigger | None:
    get = os.environ.get
    if get("GITHUB_ACTIONS") == "true":
        cause = f"{get('GITHUB_EVENT_NAME', '')} on {get('GITHUB_REF_NAME', '')}, run {get('GITHUB_RUN_ID', '')}"
        return Trigger("ci", f"GitHub Actions, {get('GITHUB_WORKFLOW', '')}", cause)
    if get("GITLAB_CI") == "true":
        cause = f"{get('CI_PIPELINE_SOURCE', '')} on {get('CI_COMMIT_REF_NAME', '')}, run {get('CI_PIPELINE_ID', '')}"
        return Trigger("ci", f"GitLab, {get('CI_JOB_NAME', '')}", cause)
    return Trigger("ci") if get("CI", "").lower() in ("true", "1") else None


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return os.environ.get("USER", f"user {os.getuid()}")


def resumed() -> tuple[str, str]:
    """The crashed run that this process was started to do again, and the id it shall bear; told once."""
    crashed, _, own = os.environ.pop(RESUMES, "").partition(" ")
    return crashed, own
