"""The scripts of `seran completion`, in the shells that they are for."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seran import cli
from seran.apps import completion

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    for shell in completion.SHELLS:
        (folder / shell).write_text(completion.completion(shell) + "\n")
    return folder


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} here")
    return found


PRESS = """
source "$1"; shift
cd "$1"; shift
line=$1; COMP_WORDS=($line); [[ $line == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ $(complete -p seran) == "complete -o default -F _seran seran" ]] || exit 3
_seran
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What bash does when Tab is pressed at the end of a line."""


def tab(scripts: Path, line: str) -> list[str]:
    done = subprocess.run(
        [needs("bash"), "--norc", "-c", PRESS, "bash", scripts / "bash", scripts, line],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.split()


def test_bash(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", "bash"]) == 0
    assert capsys.readouterr().out == (scripts / "bash").read_text()
    assert tab(scripts, "seran upsc") == ["upscale"]
    assert tab(scripts, "seran upscale --sca") == ["--scale"]
    assert set(tab(scripts, "seran ")) == {*cli.COMMANDS, "help", "--help", "--version"}
    assert tab(scripts, "seran help upsc") == ["upscale"]
    assert {"-i", "-o", "-q", "--verbose"} <= set(tab(scripts, "seran upscale -"))
    assert tab(scripts, "seran upscale --dtype ui") == ["uint8", "uint16"]
    assert tab(scripts, "seran upscale --dtype = ui") == ["uint8", "uint16"]  # how it cuts --dtype=ui
    assert tab(scripts, "seran upscale a.nii --precision =") == ["auto", "bf16", "f32", "int8"]
    assert tab(scripts, "seran upscale --method sr") == ["srcnn"]
    assert tab(scripts, "seran upscale sca") == []  # then bash itself offers the files
    assert tab(scripts, "seran weights ver") == ["verify"]
    assert tab(scripts, "seran bids raw out par") == ["participant"]
    assert "seran-x2-bd-paper" in tab(scripts, "seran train seran-x2")
    assert tab(scripts, "seran train seran-x2-bd --war") == ["--warmup"]
    assert tab(scripts, "seran prepare ixi --contr") == ["--contrast"]
    assert tab(scripts, "seran completion z") == ["zsh"]


def test_it_knows_what_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option of every command's help, and no other that can be given."""
    known = completion.commands()
    assert set(known) == {*cli.COMMANDS, "help"}
    assert set(known["help"].words) == set(cli.COMMANDS)
    for name in cli.COMMANDS:
        text = ""
        for words in {"train": [["seran-x2-bd"]], "prepare": [[], ["ixi"], ["open"], ["to-nifti"]]}.get(
            name, [[]]
        ):
            assert cli.run([name, *words, "--help"]) == 0
            text += capsys.readouterr().out
        options = [line.strip() for line in text.splitlines() if line[:3] == "  -"]
        lines = [re.split(r"  |[ ][A-Z{[]", line)[0] for line in options]
        said = {flag for line in lines for flag in line.split(", ")}
        assert said <= set(known[name].options), name
        others = {f"--{flag.removeprefix('--no-')}" for flag in set(known[name].options) - said}
        assert others <= said, name  # the negations of flags that are off


def test_zsh(scripts: Path, tmp_path: Path) -> None:
    """Its line editor is driven on a terminal of its own."""
    program = f"""
zmodload zsh/zpty
zpty z {needs("zsh")} -f -i
zpty -w z "PS1=; source {scripts}/zsh; cd {tmp_path}
zle-line-init() {{ print -n editor-'is'-ready }}; zle -N zle-line-init"
zpty -r -m z line '*editor-is-ready*'
zpty -w -n z $'seran upsc\\t--sca\\t END\\n'
zpty -r -m z line '*END*'
print -r -- "$line"
"""
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    done = subprocess.run(
        [needs("zsh"), "-f", "-c", program], capture_output=True, text=True, timeout=120, env=environment
    )
    assert re.search(r"seran upscale \W*--scale \W*END", done.stdout), (done.stdout, done.stderr)


def test_fish(scripts: Path) -> None:
    def offered(line: str) -> list[str]:
        code = f"source {scripts}/fish; complete -C {line!r}"
        done = subprocess.run([needs("fish"), "--no-config", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [row.split("\t")[0] for row in done.stdout.splitlines()]

    assert offered("seran upsc") == ["upscale"]
    assert offered("seran upscale --sca") == ["--scale"]
    assert "-i" in offered("seran upscale -")
    assert offered("seran upscale --dtype ui") == ["uint8", "uint16"]


def test_tcsh(scripts: Path) -> None:
    done = subprocess.run(
        [needs("tcsh"), "-f", "-c", f"source {scripts}/tcsh; complete seran"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "'p/1/(" in done.stdout
    assert "upscale" in done.stdout


def test_shellcheck_agrees(scripts: Path) -> None:
    checked = subprocess.run(
        [needs("shellcheck"), "-s", "bash", scripts / "bash"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
