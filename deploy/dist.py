"""Build the sdist and the wheel of both distributions, the same bytes from the same files: `make dist`.

What is tracked is copied, as it lies here, and built in the copy: nothing else in the checkout gets into an archive.
Times are those of the last commit (or ``SOURCE_DATE_EPOCH``); owners, permissions and umask of this machine leave no
trace. The versions of Python and setuptools do: requirements/build.txt has the one that `make dist` takes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = (".", "research")


def main() -> None:
    """Read the folder to write into from the command line, and build."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "dist", help="folder of the archives")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for archive in build(output.resolve()):
        print(archive)


def build(output: Path) -> list[Path]:
    """Build everything into a folder; archives of the same name are replaced."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    made = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        _copy_tracked(source)
        for project in PROJECTS:
            for kind in ("sdist", "wheel"):
                archive = output / _build(kind, source / project, output, epoch)
                if kind == "sdist":
                    _settle(archive, epoch)
                made.append(archive)
    return made


def _copy_tracked(target: Path) -> None:
    """Copy the tracked files, with the permissions that a checkout has under the usual umask."""
    for name in _git("ls-files", "-z").split("\0"):
        path, copy = ROOT / name, target / name
        if not name or not path.is_file():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _build(kind: str, project: Path, output: Path, epoch: int) -> str:
    """Build one archive of a project with the setuptools of this environment; its name."""
    script = f"import setuptools.build_meta as b; print(b.build_{kind}({str(output)!r}))"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=environment, umask=0o022, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout.splitlines()[-1]


def _settle(sdist: Path, epoch: int) -> None:
    """Write an sdist again in the order of names, without what the machine that made it put in."""
    with tempfile.TemporaryFile() as draft:
        with tarfile.open(sdist) as old, tarfile.open(fileobj=draft, mode="w", format=tarfile.PAX_FORMAT) as new:
            for member in sorted(old.getmembers(), key=lambda member: member.name):
                member.mtime, member.pax_headers = epoch, {}
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                new.addfile(member, old.extractfile(member))
        draft.seek(0)
        with sdist.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed:
            shutil.copyfileobj(draft, packed)


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
