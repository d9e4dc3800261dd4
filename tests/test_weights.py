from pathlib import Path

import pytest

from seran import methods, weights
from seran.errors import BadInput

SHIPPED = sorted(weights.shipped().items())


def test_something_is_shipped() -> None:
    assert "seran-x2-bd" in weights.shipped()
    assert sum(path.stat().st_size for _, path in SHIPPED) < 40e6


@pytest.mark.parametrize(("name", "path"), SHIPPED)
def test_shipped_weights_are_intact_and_documented(name: str, path: Path) -> None:
    data, card, digest = weights.read(path)
    assert name == f"{card.model}-x{card.scale}-{card.degradation}"
    assert len(digest) == 64
    assert card.patches > (50_000 if card.model == "seran" else 5_000)
    assert card.scans
    assert all(scan["licence"] and scan["repository"] and scan["subject"] for scan in card.scans)
    assert card.command.startswith(("seran train", "python paper/"))
    assert card.validation
    for trace in (b"site-packages", b"/src/seran", str(Path.home()).encode() + b"/"):
        assert trace not in data, "a path of the machine that exported it"


@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.99, 1.0])
def test_one_wrong_byte_is_an_error(tmp_path: Path, where: float) -> None:
    data = bytearray(SHIPPED[0][1].read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path = tmp_path / "wrong.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"wrong\.onnx: .*(damaged|cut-off)"):
        weights.read(path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such weights file"):
        weights.read(tmp_path / "none.onnx")
    for content in (b"", b"short", SHIPPED[0][1].read_bytes()[:-1000]):
        (tmp_path / "cut.onnx").write_bytes(content)
        with pytest.raises(BadInput, match="expected weights written by `seran export`"):
            weights.read(tmp_path / "cut.onnx")


def test_a_card_from_another_version(tmp_path: Path) -> None:
    content = b"\x08\x08" + weights._entry("seran.card", '{"model": "seran", "colour": "blue"}')
    digest = weights.hashlib.sha256(content).hexdigest()
    (tmp_path / "a.onnx").write_bytes(content + weights._entry("seran.sha256", digest))
    with pytest.raises(BadInput, match="card is not one this version of seran reads"):
        weights.read(tmp_path / "a.onnx")


def test_names_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match=r"expected a method of bicubic, zerofill, nlm, srcnn, .*, seran"):
        methods.method("sran", 2)
    with pytest.raises(BadInput, match="no weights are shipped for seran-x2-td"):
        methods.method("seran", 2, "td")
    path = weights.shipped()["seran-x2-bd"]
    with pytest.raises(BadInput, match="--scale 3, these are for x2"):
        methods.method("seran", 3, file=path)
    with pytest.raises(BadInput, match="weights of edsr, these are of seran"):
        methods.method("edsr", 2, file=path)
    with pytest.raises(BadInput, match="bicubic has no weights"):
        methods.method("bicubic", 2, file=path)
    with pytest.raises(BadInput, match="device of auto"):
        methods.method("seran", 2, engine=methods.Engine(device="tpu"))
