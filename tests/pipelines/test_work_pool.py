"""A real Prefect server takes the base job template of infra/kubernetes; infra/cloud names types of pools that are."""

from __future__ import annotations

import json
import re
from pathlib import Path

INFRA = Path(__file__).parent.parent.parent / "infra"


def test_prefect_takes_the_template(prefect_server: None) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    template = json.loads((INFRA / "kubernetes" / "base-job-template.json").read_text())
    wanted = WorkPoolCreate(name="graftline-test", type="kubernetes", base_job_template=template)
    with get_client(sync_client=True) as client:
        pool = client.create_work_pool(wanted)
        assert pool.base_job_template == template
        client.delete_work_pool("graftline-test")


def test_every_type_of_pool_that_is_named_is_one() -> None:
    """Prefect carries a list of all types with their defaults, also of those whose package is not installed."""
    import prefect.server

    place = "api/collections_data/views/aggregate-worker-metadata.json"
    packages = json.loads((Path(prefect.server.__file__).parent / place).read_text())
    known = {name for types in packages.values() for name in types}
    texts = [path.read_text() for path in [INFRA / "README.md", INFRA / "cloud" / "README.md"]]
    named = {one for text in texts for one in re.findall(r"--type[ =]([a-z0-9-]+)", text)}
    assert {"ecs", "vertex-ai", "azure-container-instance"} <= named <= known
