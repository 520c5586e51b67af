"""The two images that ours build on, made from Debian packages where no registry can be reached.

They take the places of the official ones for a test; nothing else should run on them.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

RELEASE = "bookworm"
PACKAGES = {
    "python:3.11-slim-bookworm": "python3,python3-pip,python3-venv,ca-certificates",
    "redis:7-bookworm": "redis-server",
}
NETWORK_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""What this machine needs to reach a package index, and so the image while it is built upon."""


def ensure_base_images() -> None:
    """Pull the images that are missing, or make them if they can't be pulled."""
    for image, packages in PACKAGES.items():
        if _succeeds("docker", "image", "inspect", image) or _succeeds("docker", "pull", image):
            continue
        print(f"making {image} from Debian packages")
        with tempfile.TemporaryDirectory() as directory:
            _make(image, packages, Path(directory) / "root")


def _make(image: str, packages: str, root: Path) -> None:
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", RELEASE, str(root)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for file in NETWORK_FILES:
        if Path(file).exists():
            (root / file[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / file[1:])
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        subprocess.run(["docker", "import", "-", image], stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
