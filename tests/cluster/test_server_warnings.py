"""Server warnings and retries are reported immediately. Each text is reported only once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest

from nimlab import report
from nimlab.cluster.kube.server_warnings import Notices, warnings_in
from tests.support.api_proxy import Broken, Seen, run_proxy
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize(
    ("headers", "texts"),
    [
        ([], []),
        (['299 - "use apps/v1"'], ["use apps/v1"]),
        (['299 - "a"', '299 - "b"'], ["a", "b"]),
        (['299 - "a, b", 299 - "c"'], ["a, b", "c"]),
        (['299 - "a" "Mon, 23 Nov 2026 12:00:00 GMT", 299 - "b"'], ["a", "b"]),
        ([r'299 - "say \"no\" to C:\\"'], [r'say "no" to C:\ '.strip()]),
        (['299 kube-apiserver/1.34 "a"'], ["a"]),
        (['110 - "Response is Stale"'], []),
        (['110 - "stale", 299 - "a"'], ["a"]),
        (['299 - ""', '299 - " "'], []),
        (["", "299", '299 "a"', '299 - "open', "nonsense"], []),
        (['299 - "a" nonsense, 299 - "b"'], []),
        (['299 - "' + "…".encode().decode("latin-1") + '"'], ["…"]),
        (['299 - "\xe9"'], ["\xe9"]),
    ],
)
def test_warning_headers_are_parsed_as_in_the_rfc(headers: list[str], texts: list[str]) -> None:
    assert list(warnings_in(headers)) == texts


def test_hostile_header_is_parsed_in_linear_time() -> None:
    started_s = time.monotonic()
    assert list(warnings_in(['299 - "' + "\\" * 50_001, '299 - "' + 'a" "' * 20_000])) == []
    assert time.monotonic() - started_s < 5


def test_each_text_is_reported_once_across_threads() -> None:
    reported: list[tuple[str, str]] = []
    notices = Notices(lambda label, text: reported.append((label, text)))
    with ThreadPoolExecutor(8) as pool:
        for n in range(400):
            pool.submit(notices.add_warnings, [f'299 - "w{n % 7}"'])
            pool.submit(notices.add_retry, f"r{n % 3}", 12.4)
    assert sorted(reported) == sorted(
        [("warning", f"w{n}") for n in range(7)]
        + [("retry", f"r{n}; retrying for up to 12 s") for n in range(3)]
    )
    assert sorted(notices.warnings) == [f"w{n}" for n in range(7)]


def test_number_of_stored_warnings_is_limited() -> None:
    notices = Notices(None)
    notices.add_warnings(f'299 - "{n}"' for n in range(1000))
    assert len(notices.warnings) == 100


def test_notice_cannot_contain_control_characters() -> None:
    line = report.format_note("warning", "a\x1b[2J\r\nb\u202e", paint=False)
    assert line == "warning  a\\x1b[2J b\\u202e"


SERVICE_TYPES = "object.spec.?clusterIP.orValue('') != 'None'"
MESSAGE = "'headless … ' + object.metadata.name"


@pytest.fixture
def policy(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """Create a policy that warns about each headless Service of the lab; wait until it is in effect."""
    name = f"warn-{lab.namespace}"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["services"]}
            ],
        },
        "validations": [{"expression": SERVICE_TYPES, "messageExpression": MESSAGE}],
    }
    kind = "ValidatingAdmissionPolicy"
    manifests = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}},
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Warn"]},
        },
    ]
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}), encoding="utf-8")
    lab.kubectl("apply", "-f", str(path))
    deadline_s = time.monotonic() + 60
    while "headless" not in (output := probe(lab)):
        assert time.monotonic() < deadline_s, f"the policy is not in effect: {output}"
    yield name
    lab.kubectl("delete", f"{kind}Binding", name)
    lab.kubectl("delete", kind, name)


def probe(lab: Lab) -> str:
    """Return the server's warnings about a headless Service, from a dry run."""
    completed = subprocess.run(
        [
            str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(lab.kubeconfig),
            "-n", lab.namespace, "create", "service", "clusterip", "probe",
            "--clusterip=None", "--dry-run=server",
        ],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return completed.stderr


@pytest.mark.live
@pytest.mark.usefixtures("policy")
def test_policy_warning_is_shown_once_in_sync_and_plan(lab: Lab) -> None:
    answer = lab.run("sync", "--no-wait", "--output", "json")
    assert answer.code == 0, answer
    name = "nimp2p-exp-blue"
    assert sum(f"… {name}" in line for line in answer.err.splitlines()) == 1, answer.err
    assert "\nwarning  Validation failed for ValidatingAdmissionPolicy" in answer.err
    run = json.loads(answer.out)
    assert any(name in text for text in run["warnings"])
    assert len(run["warnings"]) == len(set(run["warnings"])) >= 2
    schema = json.loads((REPOSITORY / "schema" / "plan.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(run, schema)

    service = lab.get("Service", name)
    assert service is not None
    lab.kubectl("label", "service", name, "app.kubernetes.io/part-of=other", "--overwrite")
    plan = lab.run("sync", "--dry-run", "--output", "json")
    assert plan.code == 0, plan
    assert sum(f"… {name}" in line for line in plan.err.splitlines()) == 1, plan.err
    assert any(name in text for text in json.loads(plan.out)["warnings"])
    text = lab.run("sync", "--no-wait")
    assert text.code == 0
    assert sum(f"… {name}" in line for line in text.err.splitlines()) == 1, text.err
    quiet = lab.run("sync", "--dry-run", "--output", "json")
    assert "warnings" not in json.loads(quiet.out), "unchanged objects are not sent, so no policy runs"


@pytest.fixture
def closed_port(tmp_path: Path) -> Path:
    """Return a kubeconfig whose server refuses every connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "n", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "n", "user": {}}],
        "contexts": [{"name": "n", "context": {"cluster": "n", "user": "n"}}],
        "current-context": "n",
    }
    path = tmp_path / "closed_port"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.process
@pytest.mark.serial
@pytest.mark.parametrize("command", ["sync", "list"])
def test_refused_connection_is_reported_before_the_retry(
    lab_folder: Path, closed_port: Path, command: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nimlab", command, "--lab", str(lab_folder), "--kubeconfig", str(closed_port)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(2)]
    assert process.poll() is None, "the program is still retrying"
    assert lines[0].startswith("cluster  ")
    assert lines[1].startswith("retry    no response from http://127.0.0.1:")
    assert "refused" in lines[1]
    assert lines[1].endswith("; retrying for up to 12 s\n")
    process.terminate()
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "retry" not in rest
    assert "Traceback" not in rest


@pytest.mark.live
def test_busy_server_is_reported_and_a_single_error_is_not(lab: Lab, tmp_path: Path) -> None:
    lock, seen = threading.Lock(), {"services": 0}

    def once(request: Seen) -> Broken | None:
        with lock:
            if "/services" not in request.path or seen["services"]:
                return None
            seen["services"] += 1
        return Broken(status=503, body={"kind": "Status", "message": "restarting"})

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = once
        flags = ("--lab", str(lab.root), "--kubeconfig", str(proxy.kubeconfig))
        completed = subprocess.run(
            [sys.executable, "-m", "nimlab", "sync", "--dry-run", *flags],
            check=False, capture_output=True, text=True, timeout=60, cwd=REPOSITORY,
        )  # fmt: skip
        assert completed.returncode == 0, completed
        assert "retry" not in completed.stderr
        busy = Broken(status=429, body={"kind": "Status", "message": "busy"}, headers={"Retry-After": "20"})
        proxy.fault = lambda request: busy if "/services" in request.path else None
        process = subprocess.Popen(
            [sys.executable, "-m", "nimlab", "sync", "--dry-run", *flags],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=REPOSITORY,
        )  # fmt: skip
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        process.terminate()
        process.communicate(timeout=60)
    assert lines[1] == "retry    the server responded with 429; retrying for up to 100 s\n"
