"""Container images of the rig, built under the names that contracts and lab.yaml pin.

In: built programs. Out: image archives in the user's cache. Because of these names, the rig runs the rendered
manifests unchanged and without a registry.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nimlab.files.load import load_lab
from tests.rig.node_programs import CACHE, RigError
from tests.rig.oci_archive import Folder, Image, write_archive
from tests.support.paths import SAMPLE_LAB

PAUSE: Final = "localhost/pause:1.0"

_REPOSITORY: Final = Path(__file__).parents[2]
_FORMAT: Final = "1"  # increase the number if a change of oci_archive.py changes the archives
_BASE_PACKAGES: Final = "python3,iproute2,python3-prometheus-client"
_BASE: Final = "localhost/nimlab-base:2"  # increase the number when the packages change


def make_images(programs: Mapping[str, Path], note: Callable[[str], None]) -> list[Path]:
    """Return the archives of all images. Build archives that are not in the cache. Raises RigError."""
    files = load_lab(SAMPLE_LAB)
    images = files.lab.images
    nobody = "65534:65534"
    static = [
        Image(name=PAUSE, program=programs["pause"], target="/pause", user=nobody),
        Image(
            name=str(files.contracts["nimp2p"].image),
            program=programs["peer"],
            target="/node/main",
            user="0:0",
            working_folder="/node",
        ),
        Image(
            name=str(images.prometheus),
            program=programs["prometheus"],
            target="/bin/prometheus",
            user="65534",
            folders={
                "/prometheus": Folder(mode=0o775, owner=65534),
                "/etc/prometheus": Folder(mode=0o755, owner=0),
            },
            working_folder="/prometheus",
        ),
        Image(
            name=str(images.node_exporter),
            program=programs["node_exporter"],
            target="/bin/node_exporter",
            user="65534",
        ),
    ]
    return [*(_archive(image) for image in static), _nimlab_image(str(images.nimlab), note)]


def _archive(image: Image) -> Path:
    inputs = repr(
        (_FORMAT, image.name, image.target, image.user, sorted(image.folders), image.program.parent.name)
    )
    path = CACHE / f"image-{image.program.name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        write_archive(image, path)
    return path


def _nimlab_image(name: str, note: Callable[[str], None]) -> Path:
    """Return the image of the agents, built from the Containerfile on a base image of Debian packages."""
    sources = [_REPOSITORY / "Containerfile", _REPOSITORY / "constraints.txt"]
    sources += [_REPOSITORY / "nimlab" / "__init__.py"]
    sources += sorted((_REPOSITORY / "nimlab" / "agents").rglob("*.py"))
    digest = hashlib.sha256(f"{_FORMAT} {name} {_BASE_PACKAGES}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = CACHE / f"image-nimlab-{digest.hexdigest()[:16]}.tar"
    if path.exists():
        return path
    _make_base(note)
    note(f"building {name} from the Containerfile")
    _buildah(
        "bud",
        "--isolation",
        "chroot",
        "--pull-never",
        "--build-arg",
        f"BASE={_BASE}",
        "--tag",
        name,
        str(_REPOSITORY),
    )
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{fresh}:{name}")
    fresh.replace(path)
    return path


def _make_base(note: Callable[[str], None]) -> None:
    """Build a base image from Debian packages. It replaces the base image that a registry would provide."""
    if _BASE in _buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
        return
    note(f"building a base image of Debian packages ({_BASE_PACKAGES})")
    root = CACHE / "base"
    _run("rm", "-rf", "--one-file-system", str(root))
    mirror, release = _debian_mirror()
    _run("debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", release, str(root), mirror)
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, str(root), "/")
    _buildah("commit", "--quiet", "--rm", container, _BASE)
    _run("rm", "-rf", "--one-file-system", str(root))


def _debian_mirror() -> tuple[str, str]:
    """Return the mirror of this machine's packages, and the release."""
    output = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages")
    lines = [line.split() for line in output.splitlines() if line]
    if not lines:
        raise RigError("apt has no package lists: run `apt-get update`")
    return lines[0][0], lines[0][1]


def _buildah(*arguments: str) -> str:
    storage = CACHE / "buildah"
    options = ("--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs")
    return _run("buildah", *options, *arguments)


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise RigError(f"`{' '.join(command[:8])} …` failed: {(result.stderr or result.stdout)[-800:]}")
    return result.stdout
