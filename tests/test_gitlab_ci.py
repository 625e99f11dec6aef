"""The pipeline as shipped, run for real: commit a file, and it runs; remove it, and it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nimlab import sandbox as control_plane
from tests.live import REPOSITORY, Lab, git

pytestmark = pytest.mark.live

VERSION = "4.73.0"  # later ones need a newer Node than 20


@pytest.fixture(scope="session")
def gitlab_ci_local(pytestconfig: pytest.Config) -> Path:
    """Return the program, installed from npm into the user's cache."""
    folder = control_plane.default_cache() / f"gitlab-ci-local-{VERSION}"
    program = folder / "node_modules" / ".bin" / "gitlab-ci-local"
    missing = [name for name in ("npm", "rsync") if shutil.which(name) is None]
    if missing and not program.exists():
        why = f"{' and '.join(missing)} missing on this machine"
        pytest.fail(why) if pytestconfig.getoption("--require-live") else pytest.skip(why)
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        subprocess.run([*install, f"gitlab-ci-local@{VERSION}"], check=True, timeout=300, cwd=folder)
    return program


class Pipeline:
    """A clone of the lab with an origin, whose pipeline runs on this machine."""

    def __init__(self, lab: Lab, program: Path) -> None:
        self.root = lab.root
        self._program = program
        self._kubeconfig = lab.kubeconfig
        shutil.copy(REPOSITORY / ".gitlab-ci.yml", self.root)
        git(self.root, "init", "-q", "-b", "main")
        git(self.root, "remote", "add", "origin", "git@gitlab.example.org:dst/lab.git")
        self.commit("the lab")

    def commit(self, message: str) -> None:
        """Commit everything."""
        git(self.root, "add", "-A")
        git(self.root, "commit", "-qm", message)

    def run(self, *jobs: str, source: str = "push") -> subprocess.CompletedProcess[str]:
        """Run jobs as a pipeline of that source would."""
        nimlab = Path(sys.executable).parent / "nimlab"
        command = f"{nimlab}" if nimlab.exists() else f"{sys.executable} -m nimlab"
        variables = {
            "NIMLAB": command,
            "NIMLAB_INSTALL": "true",
            "NIMLAB_KUBECONFIG": str(self._kubeconfig),
            "NIMLAB_PLAN_KUBECONFIG": str(self._kubeconfig),
            "CI_PIPELINE_SOURCE": source,
        }
        flags = [part for name, value in variables.items() for part in ("--variable", f"{name}={value}")]
        return subprocess.run(
            [str(self._program), "--force-shell-executor", *flags, *jobs],
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture
def pipeline(lab: Lab, gitlab_ci_local: Path) -> Pipeline:
    """A lab whose pipeline can be run."""
    return Pipeline(lab, gitlab_ci_local)


def test_commit_runs_an_experiment_and_its_removal_prunes_it(pipeline: Pipeline, lab: Lab) -> None:
    green = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8").replace("blue", "green")
    lab.write("green", green)
    pipeline.commit("green")
    done = pipeline.run("validate", "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 of 13 peers running" in done.stdout + done.stderr
    assert "nimp2p-exp-green" in lab.names("StatefulSet")
    (lab.root / "experiments" / "green.yaml").unlink()
    pipeline.commit("no green")
    done = pipeline.run("sync", source="schedule")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nimp2p-exp-green" not in lab.names("StatefulSet")
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")


def test_merge_request_shows_the_plan_and_changes_nothing(pipeline: Pipeline, lab: Lab) -> None:
    pipeline.run("sync")
    lab.edit("purple", "peers: 5", "peers: 7")
    pipeline.commit("more purple")
    done = pipeline.run("plan", source="merge_request_event")
    assert "to update" in done.stdout + done.stderr
    assert "5 → 7" in done.stdout + done.stderr
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["replicas"] == 5


def test_broken_file_fails_the_pipeline(pipeline: Pipeline, lab: Lab) -> None:
    lab.edit("purple", "peers: 5", "peers: many")
    pipeline.commit("a mistake")
    done = pipeline.run("validate")
    assert done.returncode != 0
    assert "experiments/purple.yaml" in done.stdout + done.stderr


def test_sync_runs_one_at_a_time_with_the_whole_history() -> None:
    text = (REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["sync"]["resource_group"]
    assert config["sync"]["interruptible"] is False
    assert config["variables"]["GIT_DEPTH"] == "0"
    assert config["plan"]["allow_failure"] == {"exit_codes": [3]}
