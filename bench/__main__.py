"""`python -m bench`: arguments -> peers, server, rounds -> table, plot and samples in a folder."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import FrameType

from bench import peers, plot, table, targets
from bench.lab import REPOSITORY, LabError
from bench.programs import Program, ProgramError
from bench.rounds import Sample, Setting, play
from bench.server import ServerError, fresh_server
from nimlab import __version__
from nimlab.cache import default_cache
from nimlab.errors import NimlabError
from nimlab.files.git import read_commit

_SIZES = (10, 100, 334, 1000)
_HEAD = """\
# Performance

Made by `make bench`, which writes this page, `performance.png` and `performance.json` anew. What is compared,
how, and what is fair about it: [bench/README.md](../bench/README.md). Ratios and requests are what to read;
seconds are those of one noisy machine.

![seconds and requests against the number of experiments](performance.png)"""
_LEAST = 3  # one is changed, one is removed, one stays


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench and return the exit code: 0 if every turn succeeded, 1 if one didn't."""
    asked = _parse(arguments)
    setting = Setting(
        names=asked.only, sizes=asked.sizes, repeat=asked.repeat, seed=asked.seed, timeout_s=asked.timeout
    )
    signal.signal(signal.SIGTERM, _stop)
    try:
        programs = peers.provide_all(setting.names, asked.cache, _note)
        samples, facts = _measure(setting, programs)
    except (ProgramError, ServerError, LabError, NimlabError) as error:
        _note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _note("stopped; the sandbox is down")
        return 130
    _write(asked.out, samples, facts)
    return 1 if any(s.error for s in samples) else 0


def _measure(setting: Setting, programs: Mapping[str, Program]) -> tuple[list[Sample], dict[str, str]]:
    """Play all rounds on a fresh server in a temporary folder."""
    samples: list[Sample] = []
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nimlab-bench-") as folder:
        _note("starting a fresh API server")
        with fresh_server(Path(folder)) as server:
            for sample in play(setting, server, programs, Path(folder)):
                samples.append(sample)
                _note(_line(sample))
            facts = _facts(setting, programs, server.version)
    facts["duration of the whole"] = f"{(time.monotonic() - began_s) / 60:.0f} min"
    return samples, facts


def _facts(setting: Setting, programs: Mapping[str, Program], server: str) -> dict[str, str]:
    """Return what the figures depend on."""
    commit = read_commit(Path(__file__).parent)
    where = f"{commit.sha[:12]}{' with changes' if commit.dirty else ''}" if commit else "no commit"
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    pins = {"flux": "fluxcd/pkg/ssa", "helm": "Helm", "kubectl": "kubectl"}
    return {
        "nimlab": f"{__version__} ({where}), Python {platform.python_version()}, "
        f"urllib3 {metadata.version('urllib3')}",
        **{pins[name]: program.version for name, program in programs.items()},
        "API server": server,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"load at the end {loads}",
        "seed": str(setting.seed),
        "rounds": f"{setting.repeat}; medians, with [least-most]; x is the ratio to nimlab",
    }


def _write(out: Path, samples: Sequence[Sample], facts: Mapping[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tables = [table.format_facts(facts), targets.format_targets(samples), table.format_tables(samples)]
    report = "\n\n".join(part for part in (_HEAD, *tables) if part) + "\n"
    (out / "performance.md").write_text(report, encoding="utf-8")
    raw = [{**asdict(sample), "step": sample.step.value} for sample in samples]
    document = {"facts": dict(facts), "samples": raw}
    (out / "performance.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    if not plot.draw(samples, out / "performance.png"):
        _note("no plot: matplotlib isn't installed (`pip install 'nimlab[bench]'`)")
    sys.stdout.write(report)
    _note(f"written to {out}")


def _line(sample: Sample) -> str:
    what = f"{sample.size:>5} {sample.step.value:<24} {peers.TITLES[sample.name]:<34}"
    if sample.cost is None:
        return f"{what} failed: {sample.error}"
    cost = sample.cost
    asked = table.total(sample.requests)
    return f"{what} {cost.wall_s:8.2f} s {asked:6} requests {cost.peak_bytes / 1e6:5.0f} MB"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--sizes", type=_sizes, default=_SIZES, metavar="N,N", help="numbers of experiments")
    parser.add_argument("--repeat", type=_positive, default=3, metavar="N", help="rounds of each size")
    parser.add_argument("--seed", type=int, default=1, help="of the experiments and of the order of turns")
    parser.add_argument(
        "--only", type=_names, default=peers.NAMES, metavar="NAME,NAME", help=f"of {', '.join(peers.NAMES)}"
    )
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="S", help="for one program of one turn"
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", metavar="DIR")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), metavar="DIR", help="of built programs"
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` isn't a number from 1 on")
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(_positive(part) for part in text.split(","))
    if min(sizes) < _LEAST:
        raise argparse.ArgumentTypeError(
            f"a size has to be {_LEAST} at least: one changes, one goes, one stays"
        )
    return sizes


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in peers.NAMES:
            raise argparse.ArgumentTypeError(f"there is no `{name}`; there are {', '.join(peers.NAMES)}")
    return names


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _note(text: str) -> None:
    sys.stderr.write(f"bench    {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
