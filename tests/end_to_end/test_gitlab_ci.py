"""The shipped GitLab pipeline, run on this machine: it syncs committed files and prunes removed files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.lab import Lab, git
from tests.support.npm_packages import install
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.live

VERSION = "4.73.0"  # later versions need a newer Node than 20
MERGE_REQUEST = "merge_request_event"


@pytest.fixture(scope="session")
def gitlab_ci_local() -> Path:
    """Install gitlab-ci-local from npm in the user's cache; return the path of the program."""
    folder = install(f"gitlab-ci-local-{VERSION}", f"gitlab-ci-local@{VERSION}", needs=("rsync",))
    return folder / "node_modules" / ".bin" / "gitlab-ci-local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The exit code and the output of a pipeline, and the names of the jobs that ran."""

    code: int
    text: str
    jobs: set[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A clone of the lab; its pipeline runs on this machine with the documented accounts."""

    root: Path
    program: Path
    variables: Path

    def commit(self, message: str) -> None:
        """Commit all changes."""
        git(self.root, "add", "-A")
        git(self.root, "commit", "-qm", message)

    def run(self, source: str = "push") -> Answer:
        """Run the jobs that the pipeline's rules select for this pipeline source."""
        settings = (
            f"NIMLAB={sys.executable} -m nimlab", "NIMLAB_INSTALL=true", f"CI_PIPELINE_SOURCE={source}"
        )  # fmt: skip
        flags = [part for variable in settings for part in ("--variable", variable)]
        if source == MERGE_REQUEST:
            flags += ["--variable", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME=main"]
            flags += ["--unset-variable", "CI_COMMIT_BRANCH"]
        flags += ["--variables-file", os.path.relpath(self.variables, self.root)]
        done = subprocess.run(
            [str(self.program), "--force-shell-executor", *flags],
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
            env=environment(HOME=str(self.variables.parent), PYTHONPATH=str(REPOSITORY)),
            stdin=subprocess.DEVNULL,
        )
        text = done.stdout + done.stderr
        started = set(re.findall(r"^(\w+) +starting shell", text, re.MULTILINE))
        return Answer(code=done.returncode, text=text, jobs=started)

    def artifact(self, name: str) -> str:
        """Return the content of an artifact of the plan job."""
        return (self.root / ".gitlab-ci-local" / "artifacts" / "plan" / name).read_text(encoding="utf-8")

    def report(self, kind: str) -> str:
        """Return a GitLab report of the plan job; its path is in the pipeline's configuration."""
        config = yaml.safe_load((self.root / ".gitlab-ci.yml").read_text(encoding="utf-8"))
        (path,) = self.root.rglob(config["plan"]["artifacts"]["reports"][kind])
        return path.read_text(encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, with the pinned kubectl and without the machine's Git settings."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull, **more}


def shim(folder: Path) -> Path:
    """Create a folder with a program `nimlab` that runs the code of this checkout; return the folder."""
    folder.mkdir()
    program = folder / "nimlab"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nimlab "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return folder


FILES = {
    "NIMLAB_PLAN_KUBECONFIG": "plan.kubeconfig",
    "NIMLAB_KUBECONFIG": "sync.kubeconfig",
    "NIMLAB_PLATFORM_KUBECONFIG": "sync-platform.kubeconfig",
}


def documented_kubeconfigs(lab: Lab, folder: Path) -> None:
    """Create the accounts' kubeconfigs in the folder, with the commands in docs/gitlab.md."""
    guide = (REPOSITORY / "docs" / "gitlab.md").read_text(encoding="utf-8")
    variables = environment(KUBECONFIG=str(lab.kubeconfig), PYTHONPATH=str(REPOSITORY))
    variables["PATH"] = f"{shim(folder / 'bin')}{os.pathsep}{variables['PATH']}"
    (script,) = (part.split("```")[0] for part in guide.split("```sh\n")[1:])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("dst-lab", lab.namespace)],
        cwd=lab.root,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in FILES.values():
        shutil.move(lab.root / name, folder)


def file_variables(folder: Path, *names: str) -> dict[str, Any]:
    """Return the CI variables of type "file" that docs/gitlab.md requires."""
    return {
        name: {"type": "file", "values": {"*": (folder / FILES[name]).read_text(encoding="utf-8")}}
        for name in names
    }


@pytest.fixture
def pipeline(lab: Lab, gitlab_ci_local: Path, tmp_path: Path) -> Iterator[Pipeline]:
    """Yield a pipeline for the lab; the platform's credentials are not set."""
    home = tmp_path / "home"
    home.mkdir()
    documented_kubeconfigs(lab, home)
    variables = home / "variables.yml"
    variables.write_text(yaml.safe_dump(file_variables(home, *list(FILES)[:2])), encoding="utf-8")
    shutil.copy(REPOSITORY / ".gitlab-ci.yml", lab.root)
    shutil.copy(REPOSITORY / ".gitignore", lab.root)
    git(lab.root, "init", "-q", "-b", "main")
    git(lab.root, "remote", "add", "origin", "git@gitlab.example.org:dst/lab.git")
    prepared = Pipeline(root=lab.root, program=gitlab_ci_local, variables=variables)
    prepared.commit("the lab")
    yield prepared
    for account in ("plan", "sync"):
        lab.kubectl("delete", "clusterrole,clusterrolebinding", f"nimlab-{account}-platform-{lab.namespace}")


def test_committed_experiment_is_synced_and_removed_experiment_is_pruned(
    pipeline: Pipeline, lab: Lab
) -> None:
    green = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8").replace("blue", "green")
    lab.write("green", green)
    pipeline.commit("green")
    done = pipeline.run()
    assert (done.code, done.jobs) == (0, {"validate", "sync"}), done.text
    assert "13 of 13 peers running" in done.text
    assert "nimp2p-exp-green" in lab.names("StatefulSet")
    (lab.root / "experiments" / "green.yaml").unlink()
    lab.edit("purple", "peers: 5", "peers: 7")
    pipeline.commit("remove green, scale purple")
    done = pipeline.run()
    assert done.code == 0, done.text
    assert "11 of 11 peers running" in done.text
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]


def test_platform_has_its_own_job_and_account(pipeline: Pipeline, lab: Lab) -> None:
    only = yaml.safe_dump(
        file_variables(pipeline.variables.parent, "NIMLAB_KUBECONFIG", "NIMLAB_PLATFORM_KUBECONFIG")
    )
    pipeline.variables.write_text(only, encoding="utf-8")
    done = pipeline.run()
    assert (done.code, done.jobs) == (0, {"validate", "sync", "platform"}), done.text
    assert "9 of 9 peers running" in done.text
    assert lab.names("Deployment") == ["lab-grafana", "lab-loki", "lab-prometheus"]


def test_scheduled_pipeline_corrects_drift(pipeline: Pipeline, lab: Lab) -> None:
    assert pipeline.run().code == 0
    lab.kubectl("scale", "statefulset/nimp2p-exp-purple", "--replicas=2")
    lab.kubectl("delete", "service/nimp2p-exp-blue")
    done = pipeline.run("schedule")
    assert (done.code, done.jobs) == (0, {"sync"}), done.text
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["replicas"] == 5
    assert "nimp2p-exp-blue" in lab.names("Service")
    done = pipeline.run("schedule")
    assert "0 created, 0 updated, 0 pruned" in done.text


def test_merge_request_shows_the_plan_of_the_merge_and_changes_nothing(pipeline: Pipeline, lab: Lab) -> None:
    git(lab.root, "checkout", "-qb", "more-purple")
    lab.edit("purple", "peers: 5", "peers: 7")
    pipeline.commit("more purple")
    git(lab.root, "checkout", "-q", "main")
    green = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8").replace("blue", "green")
    lab.write("green", green)
    pipeline.commit("green, merged in the meantime")
    assert pipeline.run().code == 0
    git(lab.root, "update-ref", "refs/remotes/origin/main", "main")
    git(lab.root, "checkout", "-q", "more-purple")
    done = pipeline.run(MERGE_REQUEST)
    assert (done.code, done.jobs) == (0, {"validate", "plan"}), done.text
    assert "WARN 3" in done.text
    plan = pipeline.artifact("plan.txt")
    assert "5 → 7" in plan
    assert "green" not in plan
    actions = {o["key"]: o["action"] for o in json.loads(pipeline.artifact("plan.json"))["objects"]}
    assert json.loads(pipeline.report("terraform")) == {"create": 0, "update": 2, "delete": 0}
    assert 'name="purple"' in pipeline.report("junit")
    assert json.loads(pipeline.report("codequality")) == []
    assert actions[f"StatefulSet/{lab.namespace}/nimp2p-exp-purple"] == "update"
    assert "prune" not in actions.values()
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["replicas"] == 5


def test_merge_request_without_changes_passes_without_a_warning(pipeline: Pipeline, lab: Lab) -> None:
    assert pipeline.run().code == 0
    git(lab.root, "update-ref", "refs/remotes/origin/main", "main")
    git(lab.root, "checkout", "-qb", "notes")
    (lab.root / "notes.txt").write_text("an unrelated commit", encoding="utf-8")
    pipeline.commit("notes")
    done = pipeline.run(MERGE_REQUEST)
    assert done.code == 0, done.text
    assert "WARN 3" not in done.text
    assert "Nothing to do" in pipeline.artifact("plan.txt")


def test_broken_file_fails_before_any_write(pipeline: Pipeline, lab: Lab) -> None:
    lab.edit("purple", "peers: 5", "peers: many")
    pipeline.commit("a mistake")
    done = pipeline.run()
    assert done.code != 0
    assert done.jobs == {"validate"}
    assert "experiments/purple.yaml:7:10" in done.text
    assert lab.names("StatefulSet") == []


def test_missing_credentials_fail_with_the_name_of_the_variable(pipeline: Pipeline, lab: Lab) -> None:
    variables = yaml.safe_load(pipeline.variables.read_text(encoding="utf-8"))
    del variables["NIMLAB_KUBECONFIG"]
    pipeline.variables.write_text(yaml.safe_dump(variables), encoding="utf-8")
    done = pipeline.run()
    assert done.code != 0
    assert "NIMLAB_KUBECONFIG: is not set, see docs/gitlab.md" in done.text
    assert lab.names("StatefulSet") == []


def test_pipeline_syncs_one_at_a_time_with_the_full_history() -> None:
    config = yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    assert config["sync"]["resource_group"]
    assert config["sync"]["interruptible"] is False
    assert config["variables"]["GIT_DEPTH"] == "0"
    assert config["plan"]["allow_failure"] == {"exit_codes": [3]}
    assert config["plan"]["artifacts"]["when"] == "always"
    assert config["plan"]["artifacts"]["access"] == "developer"
    assert all("timeout" in config[job] for job in config["stages"])


def test_nimlab_is_tested_on_every_supported_python_and_on_the_lowest_dependencies() -> None:
    config = yaml.safe_load((REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = [part.rpartition(" ")[2] for part in project["classifiers"] if ":: 3." in part]
    assert config["test"]["parallel"]["matrix"] == [{"PYTHON_VERSION": versions}]
    assert config["test-lowest"]["script"] == ["make test-lowest"]
