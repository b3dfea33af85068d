"""`python -m pipelines monitor`: new data, judged by the live bundle; a failed rule retrains, with its cause.

A look costs only what is new: where no file has changed since the last one, its answer holds. New is what the live
model was not made from, and what was not judged by it before; fewer samples than monitor.min_samples wait. What is
computed stands in components/monitoring; what is remembered, in looks.py.

Exit codes: 0 no rule failed, or it led to a retraining that ended well; 3 a rule failed, and nothing was done about it
(held back, nothing new to train on, monitor.then is nothing, --only-look) or what was made of it was refused; otherwise
the retraining's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from components.contracts import InputError, Refused, read_json, write_atomic, write_json
from pipelines import judging, looks, notices, operations, runs
from pipelines.looks import Looked, State
from pipelines.triggers import Trigger

WEEK = 7 * 86_400.0
DONE, REFUSED = 0, 3
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
    with runs.recorded(root, "monitor", trigger) as run, looks.alone(root) as alone:
        begun(run)
        if not alone:
            told = "Another look at this project goes on; nothing was done."
            run.end(DONE, told, ())
            return DONE, told, None
        looked = look(root)
        code, told = act(root, looked, run.id, only_look, train)
        _show_done(root, "" if told == looked.told else told)
        # Every look at the same finding ends with its exit code, but only the one that did something tells of it.
        idle = looked.state != "drift" or looked.code is not None or told.startswith(HELD)
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
    from components.monitoring import arrivals
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
    key = looks.key_of(arrivals.fingerprint(data), digest)
    before = looks.load(root)
    if before is not None and before.key == key:
        return replace(before.looked, again=True)
    kept = before.looked if before is not None and before.digest == digest else None
    looked, arrived = judging.judge(root, settings, model, data, name)
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
    if looked.code is not None:  # it was done at an earlier look
        return looked.code, looked.done
    settings = operations.read(root).monitor
    why_not = "only looked" if only_look else why_held(root, looked, settings, time.time())
    if why_not:
        told = f"{HELD}{why_not}."
        if not only_look and not looked.noticed:
            notices.notice(root, "drift", f"{looked.cause} {told}", run)
            looks.note(root, looked, done=told, noticed=True)
        return REFUSED, told
    return retrained(root, looked, run, train or _train)


def why_held(root: Path, looked: Looked, settings: operations.Monitor, now: float) -> str:
    """Why a failed rule does not retrain now; "" if it does."""
    if settings.then == "nothing":
        return "monitor.then is nothing"
    if not looked.retraining:  # one that was begun and died goes on
        held = held_back(runs.history(root), settings, now)
        if held:
            return held
        from pipelines import dvc_cli

        if not dvc_cli.stale(root):
            return _nothing_to_train_on(root, looked, settings)
    return ""


def held_back(records: Iterable[runs.Record], settings: operations.Monitor, now: float) -> str:
    """By the cool-down or the limit; "" if neither. A retraining that died or was interrupted does not cool down."""
    ours = [one for one in records if one.flow == "train" and one.trigger.kind == "drift" and one.state != "unchanged"]
    ended = [one.ended for one in ours if one.ended is not None and one.state not in ("crashed", "interrupted")]
    until = max(ended, default=0.0) + 3600 * settings.cool_down_hours
    if ended and now < until:
        last, following = _time(max(ended)), _time(until)
        return f"the last retraining ended {last}, and the next may begin {following} (monitor.cool_down_hours)"
    recent = sorted(one.started for one in ours if one.started > now - WEEK)
    if len(recent) >= settings.max_retrainings:
        first = recent[len(recent) - settings.max_retrainings]
        return (
            f"{len(recent)} retrainings in a week are as many as monitor.max_retrainings allows; a person must look. "
            f"The next may begin {_time(first + WEEK)}"
        )
    return ""


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
    """Retrain with the cause, then commit, release and promote as monitor.then says. What dies is gone on with."""
    from pipelines import dvc_cli, retrain

    begun = looked.retraining
    if not begun:
        notices.notice(root, "drift", f"{looked.cause} Retraining.", run)
        looked = looks.note(root, looked, retraining=run, noticed=True)
    try:
        code, told = DONE, ""
        if not begun or dvc_cli.stale(root):
            code, told = train(root, Trigger("drift", "monitor", looked.cause, run))
        lines = retrain.after(root, looked.cause, run) if code == DONE else []
    except Refused as error:
        code, told, lines = REFUSED, str(error), []
    except InputError as error:
        code, told, lines = 2, str(error), []
    if code not in (130, 143):
        words = "Retrained" if code == DONE else "Retrained in vain" if code == REFUSED else "Retraining failed"
        told = "\n".join([f"{words}, because {looked.cause}", *([told] if code else []), *lines])
        looks.note(root, looked, code=code, done=told, retraining="")
        if code in (DONE, 2):  # of other ends runs.py tells
            notices.notice(root, "retrained" if code == DONE else "refused", told, run)
    return code, told


def _train(root: Path, trigger: Trigger) -> tuple[int, str]:
    """The flow `train`, as `python -m pipelines run` runs it."""
    from pipelines import dvc_cli
    from pipelines.flows import train

    with dvc_cli.turn(root):
        return train.run(root, trigger)
