"""What CI does before the tests, and `make` without npm: small scripts in PATH stand for a machine."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="an sdist goes without .ci")

BRINGS = {
    "dicom3tools": ["dciodvfy"],
    "npm": ["npm", "node"],
    "chromium chromium-driver": ["chromium", "chromedriver"],
    "zsh": ["zsh"],
    "fish": ["fish"],
    "tcsh": ["tcsh"],
    "shellcheck": ["shellcheck"],
}
"""Commands of the packages that are asked for together."""

APT = """
echo "$DEBIAN_FRONTEND $*" >> apt.log
[ "$1" = update ] && exit $UPDATE
for package; do
  case " $REFUSED " in
    *" $package "*) echo Reading; echo "E: $package: held broken packages" >&2; exit 100;;
  esac
done
for package; do
  case $package in
    dicom3tools) made dciodvfy;;
    chromium-driver) made chromedriver;;
    npm) made npm; made node;;
    -*|install) ;;
    *) made $package;;
  esac
done
"""
"""An apt-get that writes down what it is asked for, and refuses what $REFUSED names."""


class Machine:
    """A folder of the commands that there are, to begin with a shell and little else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in ("bash", "dirname", "sed", "tail", "ln", "mkdir", "rm", "mv", "touch", "tar", "gzip"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.has("id", "echo 0")
        self.has("apt-get", "made() { ln -s bash bin/$1; }\n" + APT)

    def has(self, name: str, does: str = "exit 0") -> None:
        """Give it one more command."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!{shutil.which('bash')}\n{does}\n")
        (self.bin / name).chmod(0o755)

    def run(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that finds nothing but these."""
        environment = {"PATH": str(self.bin), "REFUSED": "", "UPDATE": "0", **variables}
        return subprocess.run(
            [str(word) for word in words],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def tools(self, **variables: str) -> list[str]:
        """Lines of `.ci/tools`, which always succeeds and leaves standard error alone."""
        done = self.run(self.bin / "bash", ROOT / ".ci" / "tools", **variables)
        assert done.returncode == 0
        assert done.stderr == ""
        return done.stdout.splitlines()

    def asked(self) -> list[str]:
        """Packages of each installation that apt-get was asked for, behind one update."""
        log = self.folder / "apt.log"
        calls = log.read_text().splitlines() if log.exists() else []
        assert calls[:1] in ([], ["noninteractive update -q"])
        assert all(call.startswith("noninteractive install -y ") for call in calls[1:])
        return [" ".join(w for w in call.split()[2:] if not w.startswith("-")) for call in calls[1:]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_missing_tool_is_installed_by_itself(machine: Machine) -> None:
    assert machine.tools() == [f"{packages}: installed" for packages in BRINGS]
    assert machine.asked() == list(BRINGS)
    (machine.folder / "apt.log").unlink()
    assert machine.tools() == []
    assert not (machine.folder / "apt.log").exists(), "with everything there, not even an update"


@pytest.mark.parametrize("packages", BRINGS)
def test_only_what_is_missing_is_asked_for(machine: Machine, packages: str) -> None:
    for name in [name for other in BRINGS if other != packages for name in BRINGS[other]]:
        machine.has(name)
    machine.tools()
    assert machine.asked() == [packages]


@pytest.mark.parametrize("missing", [["chromium"], ["chromedriver"], ["chromium", "chromedriver"]])
def test_a_browser_and_its_driver_belong_together(machine: Machine, missing: list[str]) -> None:
    for name in [name for names in BRINGS.values() for name in names if name not in missing]:
        machine.has(name)
    machine.tools()
    assert machine.asked() == ["chromium chromium-driver"]


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_any_browser_that_the_tests_know_will_do(machine: Machine, name: str) -> None:
    machine.has(name)
    machine.has("chromedriver")
    machine.tools()
    assert "chromium chromium-driver" not in machine.asked()
    assert f'shutil.which("{name}")' in (ROOT / "tests" / "browser.py").read_text()


@pytest.mark.parametrize("packages", BRINGS)
def test_one_that_cannot_be_had_stops_no_other(machine: Machine, packages: str) -> None:
    """As npm conflicts with a Node.js of another source."""
    first = packages.split()[0]
    expected = {
        other: f"{other}: not to be had ({first}: held broken packages); tests that need it skip"
        if other == packages
        else f"{other}: installed"
        for other in BRINGS
    }
    assert machine.tools(REFUSED=packages) == list(expected.values())
    assert machine.asked() == list(BRINGS)


def test_without_a_network(machine: Machine) -> None:
    """Neither the update nor any installation succeeds, or the update alone does not."""
    lines = machine.tools(REFUSED=" ".join(BRINGS), UPDATE="100")
    assert [line.split(": not to be had (")[0] for line in lines] == list(BRINGS)
    assert machine.asked() == list(BRINGS)
    (machine.folder / "apt.log").unlink()
    assert machine.tools(UPDATE="100") == [f"{packages}: installed" for packages in BRINGS]
    assert machine.asked() == list(BRINGS)


def test_an_apt_that_succeeds_and_brings_nothing(machine: Machine) -> None:
    machine.has("apt-get")
    lines = machine.tools()
    assert lines[1] == "npm: not to be had (apt-get did not bring it); tests that need it skip"
    assert len(lines) == len(BRINGS)


@pytest.mark.parametrize("lacks", ["root", "apt-get"])
def test_where_nothing_can_be_installed(machine: Machine, lacks: str) -> None:
    if lacks == "root":
        machine.has("id", "echo 1000")
    else:
        (machine.bin / "apt-get").unlink()
    reason = {"root": "only root installs packages", "apt-get": "there is no apt-get"}[lacks]
    assert machine.tools() == [
        f"{packages}: not to be had ({reason}); tests that need it skip" for packages in BRINGS
    ]
    assert machine.asked() == []


def test_no_tool_of_the_tests_is_forgotten() -> None:
    """What tests look for in PATH is installed, or belongs to every Debian, or is no package of Debian's."""
    looked = re.compile(r'\b(?:which|needs)\("([\w-]+)"\)')
    wanted = {name for path in (ROOT / "tests").glob("*.py") for name in looked.findall(path.read_text())}
    wanted -= {"bash", "mount", "setpriv"} | {"git", "make"} | {"hadolint", "bosh"}
    names = {name for names in BRINGS.values() for name in names}
    assert wanted <= names | {"chromium-browser", "google-chrome"}
    assert names - {"npm"} <= wanted


@pytest.mark.parametrize("fails", ["", "demo", "docs", "test"])
def test_a_run_ends_as_make_does(machine: Machine, fails: str) -> None:
    """Tools that cannot be had do not matter; the demo, the site and the tests do."""
    shutil.copytree(ROOT / ".ci", machine.folder / ".ci")
    machine.has("id", "echo 1000")
    machine.has("make", f'echo make "$@"; [ "$1" != "{fails}" ]')
    done = machine.run(machine.bin / "bash", ".ci/run")
    assert (done.returncode == 0) == (fails == "")
    made = [line for line in done.stdout.splitlines() if line.startswith("make")]
    steps = ["demo", "docs", "test"]
    assert made == [f"make {step}" for step in steps[: steps.index(fails or "test") + 1]]
    assert os.access(ROOT / ".ci" / "tools", os.X_OK)


def test_shellcheck_agrees() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here")
    done = subprocess.run(["shellcheck", *sorted((ROOT / ".ci").iterdir())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


CODE = b"var niivue = {};"
PACK = """
mkdir package package/dist
echo -n '{}' > package/dist/niivue.umd.js
tar czf a.tgz package
rm -r package
"""
NPM = {
    "missing": None,
    "without a network": "echo npm error >&2; exit 1",
    "other bytes": PACK.format("other"),
    "right": PACK.format(CODE.decode()),
}


@pytest.mark.parametrize("npm", NPM)
def test_the_viewer_may_be_missing_but_not_wrong(machine: Machine, npm: str) -> None:
    """Where npm does not bring it, `make test` goes on and `make viewer` fails; other bytes stop both."""
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    (machine.bin / "make").symlink_to(str(shutil.which("make")))
    if does := NPM[npm]:
        machine.has("npm", does)
    shutil.copy(ROOT / "Makefile", machine.folder)
    folder = machine.folder / "src" / "seran" / "quality" / "viewer"
    folder.mkdir(parents=True)
    (folder / "niivue.lock").write_text(f"0.0.0 {sha256(CODE).hexdigest()}\n")
    goals = {"demanded": ["viewer"], "of the tests": ["viewer", "WITHOUT_NPM=0"]}
    for how, goal in goals.items():
        done = machine.run("make", "--no-print-directory", f"PYTHON={sys.executable}", *goal)
        gone_on = npm == "right" or (how == "of the tests" and npm != "other bytes")
        assert (done.returncode == 0) == gone_on, (how, done.stdout, done.stderr)
        assert done.stderr.count("not the bytes in src/seran/quality/viewer/niivue.lock") == (
            npm == "other bytes"
        )
        if npm in ("missing", "without a network"):
            said = "no viewer, so no reports: npm is missing or did not bring @niivue/niivue@0.0.0"
            assert done.stdout == f"{said} (make viewer tries again)\n"
    viewer = folder / "niivue.umd.js"
    assert viewer.read_bytes() == CODE if npm == "right" else not viewer.exists()
    assert "$(MAKE) --no-print-directory viewer WITHOUT_NPM=0\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("goal", [["web"], ["web", "WITHOUT_NPM=0"]], ids=["demanded", "of the tests"])
def test_the_page_may_be_missing(machine: Machine, goal: list[str]) -> None:
    """Where npm does not bring ONNX Runtime."""
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    (machine.bin / "make").symlink_to(str(shutil.which("make")))
    shutil.copy(ROOT / "Makefile", machine.folder)
    viewer, web = machine.folder / "src/seran/quality/viewer", machine.folder / "web"
    viewer.mkdir(parents=True)
    web.mkdir()
    for name in ("__init__.py", "weights/shipped/fast-x2-bd.onnx"):
        (machine.folder / "src/seran" / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.folder / "src/seran" / name).touch()
    for name in ("niivue.lock", "view.js", "report.css", "niivue.umd.js"):  # the last is the newest
        (viewer / name).write_text("0 0\n")
    (web / "onnxruntime-web.lock").write_text("0.0.0\n")
    done = machine.run("make", "--no-print-directory", *goal)
    assert (done.returncode == 0) == (len(goal) > 1)
    said = "no page for the browser: npm is missing or did not bring onnxruntime-web@0.0.0"
    assert done.stdout == f"{said} (make web tries again)\n"
    assert "$(MAKE) --no-print-directory web WITHOUT_NPM=0\n" in (ROOT / "Makefile").read_text()


def test_the_page_is_not_built_of_other_bytes(tmp_path: Path) -> None:
    for name in (
        "ort.webgpu.min.mjs",
        "ort-wasm-simd-threaded.asyncify.mjs",
        "ort-wasm-simd-threaded.asyncify.wasm",
    ):
        path = tmp_path / "package" / "dist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("other")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    words = [sys.executable, ROOT / "web" / "build.py", tmp_path / "a.tgz", tmp_path / "page"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not the bytes in web/onnxruntime-web.lock" in done.stderr
    assert not (tmp_path / "page").exists()
