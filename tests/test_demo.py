"""README's first command, `make demo`, on the pinned packages, and the figures in README and docs."""

import json
import subprocess
import sys

import pytest

from tests.docs_figures import PAGES, REPOSITORY, SEEN, figures, marked, seen
from tests.server_process import serving


@pytest.mark.slow
def test_docs_have_the_figures_of_the_demo(tmp_path):
    """Of the run in runs/demo if there is one, as after `make demo`, which .ci/run calls; otherwise of a new one, which
    needs the package index, or the packages in the cache. Data, tokens and order are the same on every machine; later
    digits of bits per byte depend on the processor."""
    made = REPOSITORY / "runs/demo"
    run = made if (made / "stages/report.json").is_file() else tmp_path / "runs/demo"
    command = [sys.executable, "-m", "launch.pretrain", "configs/demo.py", "--workdir", str(run)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    of_run = figures(run)
    with serving(run) as server:
        for page in PAGES:
            text = page.read_text()
            for name, figure in marked(text):
                assert abs(float(of_run[name].replace(",", "")) - float(figure.replace(",", ""))) <= 0.011, (page, name)
            for _, document, answer, _ in SEEN.findall(text):
                now, said = seen(server.url, int(document)), json.loads(answer)
                for one in (now, said):
                    one["folders"][0].pop("name")
                assert now == said, page
