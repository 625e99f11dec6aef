"""Pod settings and roles, from the file to running peers, and the rules that reject invalid settings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from nimlab.agents.stagger import delay_ms, main
from nimlab.cli.inspect_commands import _pods_of
from nimlab.errors import EditError, GuardError, NimlabError, SpecError
from nimlab.files.edit_experiment_file import set_peers
from nimlab.files.load import load_lab
from nimlab.files.placement_rules import is_qualified, priority_faults, selector_faults, toleration_faults
from nimlab.files.spec import Experiment, LabFiles
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.canonical_form import canonical
from nimlab.objects.manifest import Manifest
from nimlab.plan.pod_restarts import estimate_restart_s
from nimlab.plan.resource_requests import resources_of
from nimlab.render import load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests, check_unique
from tests.support.api_proxy import run_proxy
from tests.support.golden import GOLDEN
from tests.support.lab import Lab
from tests.support.paths import SAMPLE_LAB

OPEN = (GOLDEN / "render" / "roles" / "contracts" / "open.yaml").read_text(encoding="utf-8")
ROLES = (GOLDEN / "render" / "roles" / "experiments" / "green.yaml").read_text(encoding="utf-8")
PLACED = (GOLDEN / "render" / "placement" / "experiments" / "green.yaml").read_text(encoding="utf-8")
HEAD = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\nspec:\n  contract: open\n"
LAB = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")


def loaded(experiment: str, *, lab: str = LAB, contract: str = OPEN) -> LabFiles:
    """Load the shipped lab with one more contract and experiment."""
    overlay: dict[str, str | None] = {
        "contracts/open.yaml": contract,
        "experiments/green.yaml": experiment,
        "lab.yaml": lab,
    }
    return load_lab(SAMPLE_LAB, overlay)


def green(files: LabFiles) -> Experiment:
    assert files.problems == (), files.problems
    return next(e for e in files.experiments if e.name == "green")


def workloads(files: LabFiles) -> dict[str, Manifest]:
    """Return the StatefulSets of `green` by name; assert that each other object exists once."""
    manifests = render_experiment(TEMPLATES, green(files), files.lab)
    others = [m["kind"] for m in manifests if m["kind"] != "StatefulSet"]
    assert sorted(others) == ["ConfigMap", "NetworkPolicy", "Service"]
    assert all(canonical(m) == m for m in manifests)
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == "StatefulSet"}


def pod_of(manifest: Manifest) -> Any:
    return manifest["spec"]["template"]["spec"]


def with_defaults(text: str) -> str:
    """Return the shipped lab.yaml with one more line in its defaults, and without a number of peers."""
    return LAB.replace("  defaults:", f"  defaults:\n    {text}\n    # was:").replace("    peers: 2\n", "")


def codes(files: LabFiles) -> list[tuple[str, str]]:
    return [(p.code, p.pointer) for p in files.problems]


def test_every_role_is_a_statefulset_behind_the_shared_service() -> None:
    files = loaded(ROLES)
    statefulsets = workloads(files)
    assert {n: m["spec"]["replicas"] for n, m in statefulsets.items()} == {
        "nimp2p-exp-green-bootstrap": 1,
        "nimp2p-exp-green-publisher": 3,
    }
    assert {m["spec"]["serviceName"] for m in statefulsets.values()} == {"nimp2p-exp-green"}
    selectors = [m["spec"]["selector"]["matchLabels"] for m in statefulsets.values()]
    assert selectors == [{"experiment": "green", "role": r} for r in ("bootstrap", "publisher")]
    for manifest in statefulsets.values():
        env = {e["name"]: e["value"] for e in pod_of(manifest)["containers"][0]["env"]}
        assert env["PEERS"] == "4"
        assert env["NODE_ROLE"] == manifest["metadata"]["labels"]["role"]
    assert green(files).peers == 4
    assert sum(resources_of(m).pods for m in statefulsets.values()) == 4
    assert sum(resources_of(m).memory_bytes for m in statefulsets.values()) == (256 + 3 * 64) * 2**20


def test_sum_over_the_roles_is_compared_with_the_labs_limits() -> None:
    small = LAB.replace("peersPerExperiment: 10000", "peersPerExperiment: 3")
    problems = [p for p in loaded(ROLES, lab=small).problems if p.location.path == "experiments/green.yaml"]
    assert [(p.code, p.pointer) for p in problems] == [("limit", "spec.roles")]
    tight = LAB.replace("peersPerExperiment: 10000", "peersPerExperiment: 9\n    memory: 700Mi")
    assert loaded(ROLES, lab=tight).problems == ()  # blue 64, purple 80, green 448
    tighter = tight.replace("700Mi", "500Mi")
    assert [p.code for p in loaded(ROLES, lab=tighter).problems] == ["limit"]


def test_experiment_overrides_the_labs_defaults() -> None:
    lab = with_defaults(
        "nodeSelector: {pool: any, zone: a}\n    priorityClassName: low\n"
        "    env: [{name: LOG_LEVEL, value: warn}, {name: LOG_FORMAT, value: json}, {name: OTHER, value: x}]"
    )
    (made,) = workloads(loaded(HEAD + "  peers: 2\n  nodeSelector: {pool: p2p}\n", lab=lab)).values()
    pod = pod_of(made)
    assert pod["nodeSelector"] == {"pool": "p2p", "zone": "a"}
    assert pod["priorityClassName"] == "low"
    env = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    assert env == {"PEERS": "2", "MODE": "lab", "LOG_LEVEL": "warn", "LOG_FORMAT": "json"}


def test_roles_of_the_lab_apply_to_experiments_without_peers() -> None:
    lab = with_defaults("roles: [{name: a, peers: 1}, {name: b, peers: 2}]")
    assert list(workloads(loaded(HEAD, lab=lab))) == ["nimp2p-exp-green-a", "nimp2p-exp-green-b"]
    assert list(workloads(loaded(HEAD + "  peers: 5\n", lab=lab))) == ["nimp2p-exp-green"]
    go = HEAD.replace("contract: open", "contract: dst-go") + "  connectTo: 1\n"
    files = loaded(go, lab=lab)
    assert green(files).groups[0].role is None


def test_problem_in_the_labs_defaults_is_reported_in_lab_yaml() -> None:
    with pytest.raises(SpecError) as refused:
        loaded(HEAD, lab=with_defaults("priorityClassName: system-node-critical"))
    (problem,) = refused.value.problems
    assert (problem.location.path, problem.pointer) == ("lab.yaml", "spec.defaults.priorityClassName")


@pytest.mark.parametrize(
    ("text", "code", "pointer"),
    [
        ("  env: [{name: PEERS, value: '1'}]\n", "contract", "spec.env[0].name"),
        ("  env: [{name: PATH, value: /x}]\n", "contract", "spec.env[0].name"),
        ("  args: [--root]\n", "contract", "spec.args[0]"),
        ("  args: ['--verbose=1']\n", "contract", "spec.args[0]"),
        ("  roles: [{name: a, peers: 1, args: [x]}]\n", "contract", "spec.roles[0].args[0]"),
        ("  roles: [{name: a, peers: 1, priorityClassName: system-x}]\n", "bad-value",
         "spec.roles[0].priorityClassName"),
        ("  start: {stagger: 500}\n", "bad-unit", "spec.start.stagger"),
        ("  start: {stagger: 2h}\n", "bad-value", "spec.start.stagger"),
        ("  peers: 4\n  start: {stagger: 200s}\n", "limit", "spec.start.stagger"),
        ("  roles: [{name: a-very-very-long-one, peers: 1}]\n", "bad-name", "spec.roles[0].name"),
        ("  tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists}]\n", "bad-value",
         "spec.tolerations[0]"),
        ("  topologySpread: [{topologyKey: zone, maxSkew: 0}]\n", "bad-value",
         "spec.topologySpread[0].maxSkew"),
        ("  nodeSelector: {pool: [a]}\n", "wrong-type", "spec.nodeSelector.pool"),
    ],
)  # fmt: skip
def test_invalid_setting_is_reported_once_at_its_position(text: str, code: str, pointer: str) -> None:
    named = HEAD.replace("name: green", f"name: green{'-' + 'x' * 20 if code == 'bad-name' else ''}")
    problems = codes(loaded(named + text))
    assert (code, pointer) in problems
    assert len(problems) == 1


def test_contract_cannot_allow_a_variable_that_it_derives() -> None:
    files = loaded(HEAD, contract=OPEN.replace("pattern: BOOTSTRAP", "pattern: PEERS"))
    assert ("contract", "spec.extraEnv[1].pattern") in codes(files)


@pytest.mark.parametrize(
    ("toleration", "is_allowed"),
    [
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, False),
        ({"key": "", "operator": "Exists"}, False),
        ({"key": None, "operator": "Exists"}, False),
        ({"key": "node-role.kubernetes.io/master"}, False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 0}, True),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, False),
        ({"key": "node.kubernetes.io/disk-pressure", "effect": "NoExecute", "tolerationSeconds": 1}, False),
        ({"key": "a\n"}, False),
        ({"key": "a", "value": "b c"}, False),
    ],
)
def test_toleration_that_is_too_wide_is_rejected(toleration: dict[str, Any], is_allowed: bool) -> None:
    assert (not list(toleration_faults(toleration))) is is_allowed


def test_invalid_keys_labels_and_priority_classes_are_rejected() -> None:
    assert is_qualified("topology.kubernetes.io/zone")
    assert not is_qualified("a/b/c")
    assert not is_qualified("x" * 254 + "/a")
    assert list(selector_faults({"a": 1}))
    assert list(priority_faults("system-cluster-critical"))
    assert not list(priority_faults("low"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tolerations", [{"operator": "Exists"}]),
        ("nodeSelector", {"node-role.kubernetes.io/control-plane": ""}),
        ("nodeSelector", {"not a key": "x"}),
        ("priorityClassName", "system-node-critical"),
        ("priority", 1000),
        ("nodeName", "node-0"),
        ("imagePullSecrets", [{"name": "a", "key": "b"}]),
        ("imagePullSecrets", [{"name": "../a"}]),
        ("imagePullSecrets", [{"name": "a"}, {"name": "a"}]),
        ("topologySpreadConstraints", [{"topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway"}] * 2),
        ("schedulerName", "mine"),
        ("runtimeClassName", "mine"),
        ("volumes", [{"name": "a", "hostPath": {"path": "/"}}]),
        ("hostNetwork", True),
    ],
)
def test_guard_rejects_forbidden_pod_settings_of_a_template(field: str, value: Any) -> None:
    files = loaded(PLACED)
    experiment, apply_set = green(files), ApplySet(name="experiments", namespace=files.lab.namespace)
    made = [stamp(m, apply_set) for m in render_experiment(TEMPLATES, experiment, files.lab)]
    check_manifests(made, experiment, files.lab, apply_set)
    for manifest in made:
        if manifest["kind"] == "StatefulSet":
            pod_of(manifest)[field] = value
    with pytest.raises(GuardError, match="pods"):
        check_manifests(made, experiment, files.lab, apply_set)


def test_role_and_experiment_cannot_share_a_workload() -> None:
    overlay: dict[str, str | None] = {
        "contracts/open.yaml": OPEN,
        "experiments/green.yaml": ROLES,
        "experiments/other.yaml": HEAD.replace("name: green", "name: green-publisher"),
    }
    both = load_lab(SAMPLE_LAB, overlay)
    made = {e.name: render_experiment(TEMPLATES, e, both.lab) for e in both.experiments}
    with pytest.raises(GuardError, match="both contain this object"):
        check_unique(made)


def test_two_spellings_of_a_toleration_give_the_same_template() -> None:
    short = PLACED.replace("spot, operator: Exists}", 'spot, operator: Exists, value: ""}')
    long = PLACED.replace("key: dedicated, value", "key: dedicated, operator: Equal, value")
    plain, *others = (pod_of(workloads(loaded(t))["nimp2p-exp-green"]) for t in (PLACED, short, long))
    assert others == [plain, plain]


@pytest.mark.parametrize(
    ("pod", "first", "wait_ms"), [("x-0", 0, 0), ("x-7", 0, 3500), ("x-publisher-2", 3, 2500)]
)
def test_start_delay_grows_with_the_number_of_preceding_peers(pod: str, first: int, wait_ms: int) -> None:
    assert delay_ms(pod, step_ms=500, first=first) == wait_ms


@pytest.mark.parametrize("pod", ["", "7", "x-", "x-a", "x-٣"])
def test_pod_name_without_a_number_is_an_error(pod: str) -> None:
    with pytest.raises(ValueError, match="POD_NAME"):
        delay_ms(pod, step_ms=1, first=0)
    with pytest.raises(SystemExit) as ended:
        main(["--step-ms=1"], {"POD_NAME": pod})
    assert ended.value.code == 2


def test_stagger_waits_as_long_as_configured(capsys: pytest.CaptureFixture[str]) -> None:
    started_s = time.monotonic()
    assert main(["--step-ms=10", "--first=1"], {"POD_NAME": "x-1"}) == 0
    assert time.monotonic() - started_s >= 0.02
    assert capsys.readouterr().out == "stagger  20 ms until the node starts\n"


def test_estimated_restart_includes_the_stagger() -> None:
    (made,) = workloads(loaded(PLACED)).values()
    (quick,) = workloads(loaded(PLACED.replace("  start: {stagger: 1s}\n", ""))).values()
    for at_once, more_s in ((True, 2), (False, 3)):
        slow_s, quick_s = (estimate_restart_s(m, 3, at_once=at_once) for m in (made, quick))
        assert slow_s - quick_s == more_s


def test_scale_changes_the_peers_of_one_role_only() -> None:
    scaled = set_peers(ROLES, 7, "publisher")
    assert scaled == ROLES.replace("peers: 3", "peers: 7")
    with pytest.raises(EditError) as none:
        set_peers(ROLES, 7)
    assert none.value.hint == "choose a role with `--role`: bootstrap, publisher"
    with pytest.raises(EditError):
        set_peers(ROLES, 7, "attacker")
    with pytest.raises(EditError):
        set_peers(PLACED, 7, "publisher")


def test_logs_select_all_roles_or_one() -> None:
    experiment = green(loaded(ROLES))
    names = [f"nimp2p-exp-green-{rest}" for rest in ("bootstrap-0", *(f"publisher-{i}" for i in range(3)))]
    assert [key.name for key in _pods_of(experiment, None, None)] == names
    assert [key.name for key in _pods_of(experiment, "publisher", 2)] == names[-1:]
    assert [key.name for key in _pods_of(green(loaded(PLACED)), None, 1)] == ["nimp2p-exp-green-1"]
    for role, peer in (("attacker", None), (None, 2)):
        with pytest.raises(NimlabError) as refused:
            _pods_of(experiment, role, peer)
        assert refused.value.hint == "choose a role with `--role`: bootstrap, publisher"


@pytest.mark.live
def test_no_object_is_suspect_after_a_sync_of_every_setting(lab: Lab, tmp_path: Path) -> None:
    prepare(lab)
    placed = PLACED.replace("kubernetes.io/arch: amd64", "kubernetes.io/os: linux")
    lab.write("green", placed.replace("topology.kubernetes.io/zone", "kubernetes.io/os"))
    lab.write("teal", ROLES.replace("name: green", "name: teal").replace("nodeSelector", "#"))
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        through = Lab(lab.root, lab.namespace, proxy.kubeconfig, lab.cluster, lab.capture)
        again = through.run("sync", "--dry-run", "--exit-code", "--strict")
        assert again.code == 0, again.out + again.err
        assert [r for r in proxy.seen if r.method != "GET"] == []


@pytest.mark.live
def test_roles_are_created_scaled_and_removed(lab: Lab) -> None:
    prepare(lab)
    text = ROLES.replace("nodeSelector", "#").replace("disk", "#")
    lab.write("green", text)
    answer = lab.run("sync", "green")
    assert answer.code == 0, answer.out + answer.err
    assert "4 of 4 peers running" in answer.out
    row = next(line.split() for line in lab.run("list").out.splitlines() if line.startswith("green"))
    assert row[:4] == ["green", "nimp2p-exp-green", "4", "4"]
    pods = ["nimp2p-exp-green-bootstrap-0", *(f"nimp2p-exp-green-publisher-{i}" for i in range(3))]
    assert lab.names("Pod") == pods
    shown = lab.run("status", "green").out
    assert all(pod in shown for pod in pods)
    assert "--role" in lab.run("scale", "green", "--peers", "2").err
    scaled = lab.run("scale", "green", "--role", "publisher", "--peers", "5", "--sync")
    assert scaled.code == 0, scaled.out + scaled.err
    made = lab.cluster.list_objects("StatefulSet", namespace=lab.namespace).items
    assert {m["metadata"]["labels"]["role"]: m["spec"]["replicas"] for m in made} == {
        "bootstrap": 1,
        "publisher": 5,
    }
    env = [e for m in made for e in pod_of(m)["containers"][0]["env"]]
    peers = {e["value"] for e in env if e["name"] == "PEERS"}
    assert peers == {"6"}

    lab.write("green", HEAD + "  peers: 2\n")
    back = lab.run("sync", "green")
    assert back.code == 0, back.out + back.err
    assert lab.names("StatefulSet") == ["nimp2p-exp-green"]
    assert lab.run("sync", "green", "--dry-run", "--exit-code").code == 0


def prepare(lab: Lab) -> None:
    """Add the contract `open` to the lab, and the PriorityClass `low` to the cluster."""
    (lab.root / "contracts" / "open.yaml").write_text(OPEN, encoding="utf-8")
    existing = lab.kubectl("get", "priorityclass", "low", "--ignore-not-found", "-o", "name")
    if not existing:
        lab.kubectl("create", "priorityclass", "low", "--value=1")
