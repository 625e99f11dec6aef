"""The images of the rig, made here under the very names that contracts and lab.yaml pin.

In: built programs. Out: archives in the user's cache. So the manifests run unchanged, and no registry is
asked.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nimlab.files.load import load_lab
from tests.rig.oci import Folder, Image, write_archive
from tests.rig.programs import CACHE, RigError

PAUSE: Final = "localhost/pause:1.0"

_REPOSITORY: Final = Path(__file__).parents[2]
_FORMAT: Final = "1"  # of the archives; another one when oci.py makes them differently
_BASE_PACKAGES: Final = "python3,iproute2,python3-prometheus-client"
_BASE: Final = "localhost/nimlab-base:2"  # a new number whenever the packages change


def make_images(programs: Mapping[str, Path], say: Callable[[str], None]) -> list[Path]:
    """Return the archives of all images, making what isn't in the cache. Raises RigError."""
    files = load_lab(_REPOSITORY)
    images = files.lab.images
    nobody = "65534:65534"
    wanted = [
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
    return [*(_archive(image) for image in wanted), _own_image(str(images.nimlab), say)]


def _archive(image: Image) -> Path:
    made_from = repr(
        (_FORMAT, image.name, image.target, image.user, sorted(image.folders), image.program.parent.name)
    )
    path = CACHE / f"image-{image.program.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        write_archive(image, path)
    return path


def _own_image(name: str, say: Callable[[str], None]) -> Path:
    """This project's image, built from its Containerfile as a user would, on a base of Debian's packages."""
    sources = [_REPOSITORY / "Containerfile", _REPOSITORY / "constraints.txt"]
    sources += [_REPOSITORY / "nimlab" / "__init__.py"]
    sources += sorted((_REPOSITORY / "nimlab" / "agents").rglob("*.py"))
    digest = hashlib.sha256(f"{_FORMAT} {name} {_BASE_PACKAGES}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    path = CACHE / f"image-nimlab-{digest.hexdigest()[:16]}.tar"
    if path.exists():
        return path
    _make_base(say)
    say(f"building {name} from the Containerfile")
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


def _make_base(say: Callable[[str], None]) -> None:
    """Make an image of Debian's packages, which stands for the base image that a registry would give."""
    if _BASE in _buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
        return
    say(f"making a base image of Debian's packages ({_BASE_PACKAGES})")
    root = CACHE / "base"
    _run("rm", "-rf", "--one-file-system", str(root))
    site, release = _debian()
    _run("debootstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", release, str(root), site)
    container = _buildah("from", "scratch").strip()
    _buildah("add", "--quiet", container, str(root), "/")
    _buildah("commit", "--quiet", "--rm", container, _BASE)
    _run("rm", "-rf", "--one-file-system", str(root))


def _debian() -> tuple[str, str]:
    """Where this machine's own packages come from, and which release it is."""
    said = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages")
    lines = [line.split() for line in said.splitlines() if line]
    if not lines:
        raise RigError("apt knows no packages: run `apt-get update`")
    return lines[0][0], lines[0][1]


def _buildah(*arguments: str) -> str:
    storage = CACHE / "buildah"
    where = ("--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs")
    return _run("buildah", *where, *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RigError(f"`{' '.join(command[:8])} …` failed: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout
