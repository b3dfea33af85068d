"""`python -m pipelines monitor`: new data, judged by the live bundle; a failed rule retrains, with its cause.

A look costs only what is new: where no file has changed since the last one, its answer holds. New is what the live
model was not made from, and what was not judged by it before; fewer samples than monitor.min_samples wait. What is
computed stands in components/monitoring; what is remembered, in looks.py.

Exit codes: 0 no rule failed, or it led to a retraining that ended well; 3 a rule failed, and nothing was done about it
(held back, nothing new to train on, monitor.then is nothing, --only-look) or what was made of it was refused; otherwise
the retraining's own. One that failed in a way that can be mended (1, 2, 124) is tried again after the cool-down; one
that died, at the next look; what follows a retraining that ended well, too. All within monitor.max_retrainings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from components.contracts import InputError, Refused, read_json, write_atomic, write_json
from pipelines import judging, looks, notices, operations, runs
from pipelines.looks import Looked, State
from pipelines.triggers import Trigger

WEEK = 7 * 86_400.0
DONE, MISTAKE, REFUSED = 0, 2, 3
HELD = "A rule failed. Not retrained: "
"""How what is told begins where nothing was done about it."""
Train = Callable[[Path, Trigger], tuple[int, str]]


def monitor(root: Path, only_look: bool = False) -> int:
    """Look, tell, and act; the exit code.

    Raises:
        InputError: settings or data that cannot be looked at.
        Refused: the live bundle does not hold.
    """
    code, told, looked = go(root, only_look)
    if looked is not None:
        print(tell(looked))
    if looked is None or told != looked.told:
        print(told)
    return code


def go(
    root: Path,
    only_look: bool = False,
    trigger: Trigger | None = None,
    train: Train | None = None,
    begun: Callable[[runs.Current], None] = lambda _: None,
) -> tuple[int, str, Looked | None]:
    """The same without a word on stdout: exit code, what was done, and what was seen (None: another look goes on).
    `train` retrains; `begun` is told of the run's record."""
    root = root.resolve()
    how = ("monitor", *(["--only-look"] if only_look else []))
    with runs.recorded(root, "monitor", trigger, how) as run, looks.alone(root) as alone:
        begun(run)
        if not alone:
            told = "Another look at this project goes on; nothing was done."
            run.end(DONE, told, ())
            return DONE, told, None
        looked = look(root)
        code, told = act(root, looked, run.id, only_look, train)
        _show_done(root, "" if told == looked.told else told)
        # Every look at the same finding ends with its exit code, but only the one that did something tells of it.
        idle = looked.state != "drift" or told == looked.done or told.startswith(HELD)
        run.end(DONE if idle else code, told, () if idle and looked.again else None)
        return code, told, looked


def _show_done(root: Path, done: str) -> None:
    """On the page of the last look, what was done about it."""
    from components.contracts import Verdict, read_record

    folder = root / looks.REPORTS
    try:
        told = read_json(folder / "monitor.json")
        if not done or told["done"] == done:
            return
        verdict = read_record(Verdict, folder / "verdict.json")
    except (OSError, ValueError, KeyError, TypeError):
        return  # taken away meanwhile
    from components.monitoring import page

    write_json(folder / "monitor.json", {**told, "done": done})
    write_atomic(folder / "index.html", page.render({**told, "done": done}, verdict, looks.past(root)).encode())


def tell(looked: Looked) -> str:
    """For people."""
    first = f"{looked.bundle}, {looked.data}: {looked.told}"
    if looked.again and looked.at:
        first += f" (judged {looked.at}; nothing to judge has arrived since)"
    return "\n".join([first, *(f"  - {line}" for line in looked.failed)])


# --- looking ---


def look(root: Path) -> Looked:
    """Judge what is new. Where nothing is, the last answer again.

    Raises:
        InputError: settings or data that cannot be looked at.
        Refused: the live bundle does not hold.
    """
    from components.monitoring import folders
    from components.params import load_yaml
    from components.samples import locate

    root = root.resolve()
    settings = operations.read(root).monitor
    raw = load_yaml(root / "params.yaml")
    name = settings.data or str((raw.get("ingest") or {}).get("data", ""))
    data = locate(root, name)
    looks.readable(data)
    model = judging.live_model(root)
    rules = settings.model_dump(mode="json", exclude={"cool_down_hours", "max_retrainings", "then"})
    digest = looks.key_of(model.digest, rules, raw.get("run"), raw.get("ingest"))
    key = looks.key_of(folders.fingerprint(data), digest)
    before = looks.load(root)
    if before is not None and before.key == key:
        return replace(before.looked, again=True)
    kept = before.looked if before is not None and before.digest == digest else None
    looked, arrived = judging.judge(root, settings, model, data, name)
    looked = replace(looked, goes=before.looked.goes if before is not None else ())
    again = looked.state == "waiting" and kept is not None and kept.state != "waiting"
    if again and kept is not None:
        looked = kept  # what was judged last still holds
    # What may still be on its way is looked at again, even if nothing changes. The answer is kept before what it rests
    # on is: killed in between, the next look judges those samples once more, and forgets no finding.
    looks.save(root, State("" if arrived.num_arriving else key, digest, looked))
    if looked.state != "waiting" and not again:
        looks.remember(root, model.digest, arrived.marks)
    return replace(looked, again=again)


# --- acting ---


def act(root: Path, looked: Looked, run: str, only_look: bool, train: Train | None = None) -> tuple[int, str]:
    """Do what monitor.then says about a failed rule; the exit code, and what is to be told."""
    if looked.state != "drift":
        return DONE, looked.told
    if looked.code is not None and (only_look or not looked.begun):  # it was done at an earlier look
        return looked.code, looked.done
    if only_look:
        return REFUSED, f"{HELD}only looked."
    why_not = why_held(root, looked, operations.read(root).monitor, time.time())
    return _held(root, looked, why_not, run) if why_not else retrained(root, looked, run, train or _train)


def _held(root: Path, looked: Looked, why_not: str, run: str) -> tuple[int, str]:
    """Each reason is noticed once."""
    told = f"{HELD}{why_not}."
    if why_not != looked.held:
        notices.notice(root, "drift", f"{looked.cause} {told}", run)
        looks.note(root, looked, held=why_not)
    if looked.code is None:
        return REFUSED, told
    return looked.code, f"{told} The last go: {looked.done}"


def why_held(root: Path, looked: Looked, settings: operations.Monitor, now: float) -> str:
    """Why a failed rule does not retrain now; "" if it does, or if it did and only what follows is left."""
    from pipelines import dvc_cli

    if settings.then == "nothing":
        return "monitor.then is nothing"
    if looked.begun and not dvc_cli.stale(root):
        return ""
    held = held_back(runs.history(root), settings, now, looked.goes)
    if held or looked.begun or dvc_cli.stale(root):
        return held
    return _nothing_to_train_on(root, looked, settings)


def held_back(
    records: Iterable[runs.Record], settings: operations.Monitor, now: float, goes: Iterable[float] = ()
) -> str:
    """By the cool-down or the limit; "" if neither. A retraining that died or was interrupted does not cool down, but
    counts; `goes` are those that the monitor remembers, as one that takes all down may leave no record."""
    known = {one.id: one for one in records}
    ours = [
        one for one in known.values() if one.flow == "train" and one.state != "unchanged" and _for_drift(one, known)
    ]
    ended = [one.ended for one in ours if one.ended is not None and one.state not in ("crashed", "interrupted")]
    until = max(ended, default=0.0) + 3600 * settings.cool_down_hours
    if ended and now < until:
        last, following = _time(max(ended)), _time(until)
        return f"the last retraining ended {last}, and the next may begin {following} (monitor.cool_down_hours)"
    begun = [one.started for one in ours if one.of not in known]  # a resumed one is a part of its first go
    recent = max(([t for t in sorted(times) if t > now - WEEK] for times in (begun, goes)), key=len)
    if len(recent) >= settings.max_retrainings:
        first = recent[len(recent) - settings.max_retrainings]
        return (
            f"{len(recent)} retrainings in a week are as many as monitor.max_retrainings allows; a person must look. "
            f"The next may begin {_time(first + WEEK)}"
        )
    return ""


def _for_drift(one: runs.Record, known: Mapping[str, runs.Record]) -> bool:
    """Whether a run was begun for drift, or resumes one that was."""
    passed = set[str]()
    while one.trigger.kind == "resume" and one.of in known and one.id not in passed:
        passed.add(one.id)
        one = known[one.of]
    around = known.get(one.within)
    if one.trigger.kind == "drift" or (around is not None and around.flow == "monitor"):
        return True
    return one.trigger.kind == "resume" and one.trigger.cause.partition(":")[0] == "drift"  # the first one is pruned


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _nothing_to_train_on(root: Path, looked: Looked, settings: operations.Monitor) -> str:
    from components.params import load_yaml
    from components.samples import locate

    own = str(load_yaml(root / "params.yaml")["ingest"]["data"])
    if settings.data is None or locate(root, settings.data).resolve() == locate(root, own).resolve():
        return (
            "the line has run on these data already, and what it made is not live. See `python -m pipelines summary`, "
            "and make it live (`release`, `promote`), or mend what it was refused for"
        )
    return f"ingest.data ({own}) holds nothing new. Label what lies in {looked.data} and put it there"


def retrained(root: Path, looked: Looked, run: str, train: Train) -> tuple[int, str]:
    """Retrain with the cause, then commit, release and promote as monitor.then says. What died or failed is gone on
    with; where the retraining itself is done, with what follows it."""
    from pipelines import dvc_cli, retrain

    trains, before = not looked.begun or bool(dvc_cli.stale(root)), looked.done
    failed = "Retraining failed"
    if trains:
        if not looked.retraining:
            notices.notice(root, "drift", f"{looked.cause} Retraining.", run)
        now = time.time()
        goes = (*(t for t in looked.goes if t > now - WEEK), now)
        looked = looks.note(root, looked, retraining=run, code=None, goes=goes, held="")
    try:
        code, told = train(root, Trigger("drift", "monitor", looked.cause, run)) if trains else (DONE, "")
        failed = "Retrained, but what follows is not done" if code == DONE else failed
        lines = retrain.after(root, looked.cause, run) if code == DONE else []
    except Refused as error:
        code, told, lines = REFUSED, str(error), []
    except InputError as error:
        code, told, lines = MISTAKE, str(error), []
    if code not in (130, 143):
        words = "Retrained" if code == DONE else "Retrained in vain" if code == REFUSED else failed
        told = "\n".join([f"{words}, because {looked.cause}", *([told] if code else []), *lines])
        looks.note(root, looked, code=code, done=told, retraining="")
        if code in (DONE, MISTAKE) and told != before:  # of other ends runs.py tells
            notices.notice(root, "retrained" if code == DONE else "refused", told, run)
    return code, told


def _train(root: Path, trigger: Trigger) -> tuple[int, str]:
    """The flow `train`, as `python -m pipelines run` runs it."""
    from pipelines import dvc_cli
    from pipelines.flows import train

    with dvc_cli.turn(root):
        return train.run(root, trigger)
