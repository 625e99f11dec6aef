from __future__ import annotations

from pathlib import Path

import pytest

from nimlab.errors import SandboxError
from nimlab.sandbox import build_programs, find_programs
from nimlab.sandbox.state_values import PART_NAMES, Step

SUPPORTED = {
    "etcd": "etcd Version: 3.6.1\nGit SHA: x",
    "kube-apiserver": "Kubernetes v1.34.9",
    "kube-controller-manager": "Kubernetes v1.34.9",
    "kube-scheduler": "Kubernetes v1.34.9",
    "kwok": "kwok version v0.8.0 go1.26.0 (linux/amd64)",
}


def make_program(folder: Path, name: str, output: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    program.chmod(0o755)
    return program


def make_set(folder: Path, **other: str) -> Path:
    for name, output in {**SUPPORTED, **other}.items():
        make_program(folder, name, output)
    return folder


def find(cached: Path | None = None, **environment: str) -> tuple[find_programs.Programs | None, list[Step]]:
    steps: list[Step] = []
    return find_programs.find_programs(environment, cached, steps.append), steps


@pytest.mark.process
def test_assets_come_before_path_and_path_before_the_cache(tmp_path: Path) -> None:
    assets, path, cached = (make_set(tmp_path / n) for n in ("assets", "path", "cached"))
    (assets / "kwok").unlink()
    (path / "kwok").unlink()
    (assets / "etcd").unlink()
    programs, _ = find(cached, KUBEBUILDER_ASSETS=str(assets), PATH=str(path))
    assert programs is not None
    sources = {name: program.parent.name for name, program in programs.paths.items()}
    assert sources == {
        "etcd": "path",
        "kube-apiserver": "assets",
        "kube-controller-manager": "assets",
        "kube-scheduler": "assets",
        "kwok": "cached",
    }
    assert programs.version == "v1.34.9"


@pytest.mark.process
@pytest.mark.parametrize("output", ["Kubernetes v1.33.4", "Kubernetes v2.34.4", "no number", ""])
def test_an_unsupported_version_is_skipped_and_reported(tmp_path: Path, output: str) -> None:
    path = make_set(tmp_path / "path", **{"kube-apiserver": output})
    cached = make_set(tmp_path / "cached")
    programs, steps = find(cached, PATH=str(path))
    assert programs is not None
    assert programs.paths["kube-apiserver"] == cached / "kube-apiserver"
    assert programs.version == find_programs.VERSION
    assert [step.text.split(":")[0] for step in steps] == [f"{path}/kube-apiserver is not used"]


@pytest.mark.process
def test_a_program_that_fails_is_skipped(tmp_path: Path) -> None:
    path = make_set(tmp_path / "path")
    (path / "etcd").write_text("#!/bin/sh\necho etcd Version: 3.6.1\nexit 1\n")
    assert find(PATH=str(path))[0] is None


def test_no_program_is_found_on_an_empty_machine() -> None:
    assert find() == (None, [])
    assert find(PATH="", KUBEBUILDER_ASSETS="") == (None, [])


def test_the_cache_contains_one_complete_set_per_version_of_go(tmp_path: Path) -> None:
    complete_set = make_set(tmp_path / "sandbox" / find_programs.name_set("go1.26.1"))
    assert find_programs.find_cached(tmp_path, "go1.26.1") == complete_set
    assert find_programs.find_cached(tmp_path, "go1.26.2") is None
    assert find_programs.find_cached(tmp_path, None) == complete_set  # as if Go had been uninstalled
    (complete_set / PART_NAMES[-1]).unlink()
    assert find_programs.find_cached(tmp_path, "go1.26.1") is None
    assert find_programs.find_cached(tmp_path, None) is None


@pytest.mark.parametrize("go", [None, "go1.23.9"])
def test_a_missing_or_old_go_is_an_error_with_a_hint(tmp_path: Path, go: str | None) -> None:
    with pytest.raises(SandboxError, match="needs Go") as caught:
        build_programs.build_programs(tmp_path, go, log_path=tmp_path / "log", report=lambda _: None)
    assert "KUBEBUILDER_ASSETS" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_failed_build_is_reported_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(tmp_path / "path", "go", "no")
    (tmp_path / "path" / "go").write_text("#!/bin/sh\necho 'the disk is full'\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    log = tmp_path / "build.log"
    with pytest.raises(SandboxError, match="the disk is full") as caught:
        build_programs.build_programs(tmp_path / "cache", "go1.26.1", log_path=log, report=lambda _: None)
    assert caught.value.where == str(log)
    assert "the disk is full" in log.read_text()
    assert list((tmp_path / "cache" / "sandbox").iterdir()) == []


@pytest.mark.process
def test_a_build_is_atomic_and_reports_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = make_program(tmp_path / "path", "go", "")
    go.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = list ]; then printf "a@v1\\nb@v1\\n%s@v1\\n" "$5"; exit; fi\n'
        'printf "a\\nb\\n%s\\n" "$7"; mkdir -p "$(dirname "$6")"; : > "$6"; chmod +x "$6"\n'
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    steps: list[Step] = []
    log = tmp_path / "build.log"
    built = build_programs.build_programs(tmp_path, "go1.26.1", log_path=log, report=steps.append)
    assert built == find_programs.find_cached(tmp_path, "go1.26.1")
    assert {p.name for p in built.parent.iterdir()} == {built.name}
    assert steps[0].log == log
    totals = {s.text: s.total for s in steps if s.phase == "compile"}
    assert totals == {s.name: 3 if s.name == "etcd" else 1 for s in find_programs.SOURCES}
