"""From an experiment's file to the flags in its pods: the program accepts every value that nimlab accepts.

The program imports nothing from nimlab, so both define the limits. These tests compare the limits.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from nimlab.agents.shape.__main__ import parse_link
from nimlab.agents.shape.link import LEAST_BIT_PER_S, MOST_BIT_PER_S, MOST_DELAY_MS
from nimlab.files.load import load_lab
from nimlab.files.spec import LabFiles
from nimlab.render import load_templates, render_experiment
from tests.support.paths import SAMPLE_LAB

TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")
LEAST = {"downlink": "1kbit", "uplink": "1kbit", "latency": "0ms", "jitter": "0ms", "loss": "0%"}
MOST = {"downlink": "40Gbit", "uplink": "40Gbit", "latency": "1m", "jitter": "1m", "loss": "100%"}


def load_green(network: dict[str, Any]) -> LabFiles:
    """Return the shipped lab with one more experiment. Its file is JSON, which is valid YAML."""
    text = json.dumps(
        {
            "apiVersion": "nimlab.dev/v1",
            "kind": "Experiment",
            "metadata": {"name": "green"},
            "spec": {"contract": "nimp2p", "network": network},
        }
    )
    return load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})


def flags_of(network: dict[str, Any]) -> list[str]:
    """Return the arguments of the container."""
    files = load_green(network)
    assert files.problems == ()
    green = next(e for e in files.experiments if e.name == "green")
    manifests = render_experiment(TEMPLATES, green, files.lab)
    pod = next(m for m in manifests if m["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    flags: list[str] = next(c for c in pod["initContainers"] if c["name"] == "shape")["args"]
    return flags


@pytest.mark.parametrize(
    ("network", "rate_bit_per_s", "delay_ms", "loss_ratio"),
    [(LEAST, LEAST_BIT_PER_S, 0, 0.0), (MOST, MOST_BIT_PER_S, MOST_DELAY_MS, 1.0)],
)
def test_the_program_accepts_what_nimlab_accepts(
    network: dict[str, str], rate_bit_per_s: int, delay_ms: int, loss_ratio: float
) -> None:
    link, _ = parse_link(flags_of(network))
    assert (link.uplink_bit_per_s, link.downlink_bit_per_s) == (rate_bit_per_s, rate_bit_per_s)
    assert (link.latency_ms, link.jitter_ms, link.loss_ratio) == (delay_ms, delay_ms, loss_ratio)


@pytest.mark.parametrize(
    ("name", "text", "flag"),
    [
        ("downlink", "0Mbit", "--downlink-bit-per-s=0"),
        ("downlink", "999bit", "--downlink-bit-per-s=999"),
        ("uplink", "999bit", "--uplink-bit-per-s=999"),
        ("uplink", "40000000001bit", "--uplink-bit-per-s=40000000001"),
        ("latency", "60001ms", "--latency-ms=60001"),
        ("jitter", "2m", "--jitter-ms=120000"),
    ],
)
def test_nimlab_rejects_what_the_program_rejects(name: str, text: str, flag: str) -> None:
    (problem,) = load_green({"latency": "1s", name: text}).problems
    assert problem.what.startswith(f"`network.{name}` is `{text}`, and must be from")
    with pytest.raises(SystemExit) as caught:
        parse_link([flag])
    assert caught.value.code == 2
