"""The suite on one version of Kubernetes, on a bed of its own: `python -m tests.conformance.versions 1.36`.

Writes docs/conformance-kubernetes-1.36.md: what came of each case in that run, and whether the API server took all that
Shoal makes. CI runs on the version that beds have by default, so this is for the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from testbed.kubernetes.binaries import VERSIONS

DOCS = Path(__file__).parents[2] / "docs"
_BED = {"SHOAL_KUBE_BED_NAME": "kubev", "SHOAL_KUBE_BED_NETWORK": "192.168.76", "SHOAL_REQUIRE": "kubernetes"}
_TESTS = (
    "tests/conformance",
    "tests/integration/test_kubernetes_objects.py",
    "tests/integration/test_kubernetes_rendered.py",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one test: `passed`, `failed`, `skipped` with the reason, `impossible` where the engine says so itself."""

    file: str
    name: str
    result: str
    took_s: float


def read_outcomes(report: str) -> list[Outcome]:
    """From pytest's JUnit XML, by file and name."""
    found = [_outcome(case) for case in ElementTree.fromstring(report).iter("testcase")]
    return sorted(found, key=lambda each: (each.file, each.name))


def _outcome(case: ElementTree.Element) -> Outcome:
    file, name = case.get("classname", "").split(".")[-1], case.get("name", "")
    took_s = float(case.get("time", "0"))
    skipped = case.find("skipped")
    if skipped is not None:
        why = skipped.get("message", "")
        return Outcome(file, name, why if why.startswith("impossible") else f"skipped: {why}", took_s)
    failed = case.find("failure") is not None or case.find("error") is not None
    return Outcome(file, name, "failed" if failed else "pass", took_s)


def page(version: str, day: str, outcomes: Sequence[Outcome]) -> str:
    """What docs/ has of a run."""
    return "\n".join([*_head(version, day, outcomes), *(_row(each) for each in outcomes), ""])


def _head(version: str, day: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    passed = sum(each.result == "pass" for each in outcomes)
    minor = version.rpartition(".")[0]
    yield f"# Kubernetes {version}"
    yield ""
    yield "The conformance suite, and that the API server takes all that Shoal makes, on a real one of this version, by"
    yield f"`make test-kubernetes VERSION={minor}` on {day}: {passed} of {len(outcomes)} passed. Made by"
    yield "`tests/conformance/versions.py`; don't edit it. [What the cases mean](conformance.md)."
    yield ""
    yield "| file | test | result | seconds |"
    yield "|---|---|---|---|"


def _row(each: Outcome) -> str:
    cells = (each.file.removeprefix("test_"), each.name.removeprefix("test_"), each.result, f"{each.took_s:.1f}")
    return f"| {' | '.join(cells)} |".replace("[", "(").replace("]", ")")


def main(asked: str) -> int:
    """Runs it all; the exit code is pytest's."""
    version = next((each for each in VERSIONS if each == asked or each.rpartition(".")[0] == asked), None)
    if version is None:
        print(f"error: {asked}: found no such version, expected one of {', '.join(VERSIONS)}", file=sys.stderr)
        return 2
    environ = {**os.environ, **_BED}
    bed = [sys.executable, "-m", "testbed.kubernetes"]
    try:
        subprocess.run([*bed, "up", "--version", version], env=environ, check=True)
        subprocess.run([*bed, "load"], env=environ, check=True)
        with tempfile.NamedTemporaryFile(suffix=".xml") as report:
            command = [sys.executable, "-m", "pytest", "-m", "kubernetes", f"--junitxml={report.name}", *_TESTS]
            code = subprocess.run(command, env=environ, check=False).returncode
            outcomes = read_outcomes(Path(report.name).read_text())
    finally:
        subprocess.run([*bed, "down", "--purge"], env=environ, check=True)
    minor = version.rpartition(".")[0]
    written = DOCS / f"conformance-kubernetes-{minor}.md"
    written.write_text(page(version, f"{datetime.now(UTC):%Y-%m-%d}", outcomes), encoding="utf-8")
    print(f"{written.relative_to(DOCS.parent)} says what came of it")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
