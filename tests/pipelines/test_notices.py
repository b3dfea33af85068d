"""Notices: what is told, to whom, and that telling never harms."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import served

from pipelines import notices, runs
from pipelines.notices import notice


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pipelines" / "flows").mkdir(parents=True)
    served.prepare(tmp_path)
    for name in ("dvc.yaml", "params.yaml"):  # by which a run knows that this is a project
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def change(root: Path, before: str, after: str) -> None:
    path = root / "infra" / "operations.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_notice_is_a_line_in_the_file_and_one_on_stderr(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notice(project, "drift", "the pictures are darker;\n retraining", run_id="r1")
    notice(project, "promoted", "digits 1.2.0 is live")
    assert capsys.readouterr().err.splitlines() == [
        "notice: drift: the pictures are darker; retraining", "notice: promoted: digits 1.2.0 is live",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (project / notices.FILE).read_text().splitlines()]
    assert [(one["event"], one["text"], one["run"], one["undelivered"]) for one in lines] == [
        ("drift", "the pictures are darker; retraining", "r1", []), ("promoted", "digits 1.2.0 is live", "", []),
    ]  # fmt: skip
    assert [one["event"] for one in notices.history(project)] == ["promoted", "drift"]


def test_what_is_not_asked_for_is_not_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notice(project, "done", "all went well")
    change(project, "on: [crashed, ", "on: [")
    notice(project, "crashed", "it died")
    assert not (project / notices.FILE).exists()
    assert capsys.readouterr().err == ""


def test_without_a_file_it_is_still_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project, "file: true", "file: false")
    notice(project, "fault", "a defect")
    assert not (project / notices.FILE).exists()
    assert "notice: fault: a defect" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["settings", "folder", "nothing"])
def test_a_notice_that_cannot_be_told_harms_nothing(
    project: Path, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if broken == "settings":
        change(project, "notify:", "notify: {}\nnot_a_section:")
    elif broken == "folder":
        (project / ".graftline").write_text("in the way")
    else:
        (project / "infra" / "operations.yaml").unlink()
    notice(project, "fault", "a defect")
    assert "Traceback" not in capsys.readouterr().err


def test_secrets_and_length_are_cut(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:hunter2222")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    notice(project, "fault", "s3://name:pass@host/x said wJalrXUtnFEMI, not admin:hunter2222 " + "long " * 400)
    (line,) = (project / notices.FILE).read_text().splitlines()
    assert not [secret for secret in ("wJalr", "hunter2222", "name:pass") if secret in line]
    assert "s3://[struck out]@host/x said" in line
    assert len(json.loads(line)["text"]) == notices.LONGEST


def test_the_file_stays_bounded_and_survives_a_cut_off_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST", 20)
    for number in range(55):
        notice(project, "drift", f"number {number}")
        assert len((project / notices.FILE).read_text().splitlines()) <= 21
    with (project / notices.FILE).open("a") as handle:
        handle.write('{"event": "dr')  # as a full disk leaves it
    notice(project, "drift", "after")
    told = [one["text"] for one in notices.history(project)]
    assert told[:3] == ["after", "number 54", "number 53"]


def test_eight_at_once_lose_nothing(project: Path) -> None:
    def tell(number: int) -> None:
        for each in range(5):
            notice(project, "drift", f"{number}.{each}")

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one["text"] for one in notices.history(project)} == {f"{a}.{b}" for a in range(8) for b in range(5)}


def test_the_newest_stand_below_the_runs(project: Path) -> None:
    assert runs.show(project, 5, as_json=False) == ["No run is recorded yet."]
    for number in range(7):
        notice(project, "drift", f"number {number}")
    with runs.recorded(project, "train") as run:
        run.end(3, "accuracy is too low", ["gate"])
    _, row, blank, heading, first, *others = runs.show(project, 5, as_json=False)
    assert "refused" in row
    assert (blank, heading) == ("", "The newest notices (.graftline/notices.jsonl):")
    assert first.endswith("  refused: train ended as refused: accuracy is too low")
    assert first[:16] == row[:16], "in the same time zone"
    assert [one.rpartition(" ")[2] for one in others] == ["6", "5", "4", "3"]
    json.loads("\n".join(runs.show(project, 5, as_json=True)))


def test_a_run_that_ends_badly_is_told_and_one_that_ends_well_is_not(project: Path) -> None:
    with runs.recorded(project, "train") as run:
        run.end(3, "accuracy is too low", ["gate"])
    with runs.recorded(project, "train") as well:
        well.end(0, "12 stages", ["gate"])
    with pytest.raises(RuntimeError), runs.recorded(project, "monitor"):
        raise RuntimeError("a defect")
    assert [(one["event"], one["text"]) for one in notices.history(project)] == [
        ("fault", "monitor ended as fault: RuntimeError: a defect"),
        ("refused", "train ended as refused: accuracy is too low"),
    ]
    assert notices.history(project)[1]["run"] == run.id


# --- Prefect's blocks ---


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A Slack of our own: its address, and what came."""
    came: list[Any] = []

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if "slow" in self.path:
                time.sleep(5)
            self.send_response(500 if "broken" in self.path else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *words: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Slack)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    thread.join()
    server.server_close()


def test_blocks_are_called_by_name_and_a_failing_one_harms_nothing(
    project: Path, prefect_server: None, webhook: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from pydantic import SecretStr

    address, came = webhook
    for name in ("team", "broken"):
        CustomWebhookNotificationBlock(
            name=name, url=f"{address}/{name}-hunter2222", json_data={"text": "{{subject}} | {{body}}"},
            secrets={"token": SecretStr("hunter2222")},
        ).save(name)  # fmt: skip
    change(project, "blocks: []", "blocks: [custom-webhook/team, custom-webhook/broken, slack-webhook/absent]")
    notice(project, "promoted", "digits 1.2.0 is live")
    assert [json.loads(one)["text"] for one in came if "text" in one][:1] == [
        f"{project.name}: promoted | digits 1.2.0 is live"
    ]
    (told,) = notices.history(project)
    undelivered = str(told["undelivered"])
    assert "custom-webhook/broken: " in undelivered
    assert "slack-webhook/absent: ValueError" in undelivered
    assert "custom-webhook/team" not in undelivered
    assert "hunter2222" not in (project / notices.FILE).read_text() + capsys.readouterr().err


def test_a_block_that_does_not_answer_is_left(
    project: Path, prefect_server: None, webhook: tuple[str, list[Any]]
) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from pipelines.flows import notify

    CustomWebhookNotificationBlock(name="slow", url=f"{webhook[0]}/slow", json_data={"text": "{{body}}"}).save("slow")
    began = time.monotonic()
    assert notify.send(project, ["custom-webhook/slow"], "s", "t", seconds=2) == [
        "custom-webhook/slow: no answer within 2 s"
    ]
    assert time.monotonic() - began < 4


def test_without_a_server_blocks_are_named_as_undelivered(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines.flows import notify

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        (told,) = notify.send(project, ["slack-webhook/team"], "s", "t")
    assert told == "slack-webhook/team: no Prefect server is named by PREFECT_API_URL"
