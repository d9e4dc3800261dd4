import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors import safe_open

from seran import cli, files, methods, weights
from seran.data import fetch
from seran.engines import Engine
from seran.engines.runtime import ov
from seran.errors import BadInput
from seran.systems import SYSTEMS
from seran.weights.file import LARGEST, _entries, _entry

SHIPPED = sorted(weights.shipped().items())
DIGESTS = {
    "fast-native": "df141cc8683c4b8804598cafcefe2bdd2b6db70bef6c019bc04b88c25c82a3c4",
    "fast-x2-bd": "e80c73f8e0832129a7faf1a5f08c26a6696c39239b4ebfc9c52da4d700ef6641",
    "fast-x4-bd": "dd614426e5085b7cbcf97ff4226d9866cec091d19ae192a391239ee2b2fc85f3",
    "idn-x2-bd": "de45144980d77923f2d2874c3ee80f1031b34ef0511ea0d56916dfed68a82cde",
    "seran-isotropic": "370117c79267da37010c80f1245db04894264b22d64b70b2a07d9182fe6473cf",
    "seran-isotropic-uncertainty": "c75f37236610a85bedb8c1c1050a10317ea158c6e5bb3ac52acf9d2629661cc3",
    "seran-native": "943a718c6eb48a8e2ce6d62f4747ff98e702e76bff547035d51c5df3a97a273e",
    "seran-native-uncertainty": "502f7d34f933d04c13c3d84f4620df105367080bf7e1e8f78525f27f941c0ccd",
    "seran-x2-bd": "5e61dcd8421b7246deda4c741dd1cae394bb4976f39852dd0a3294d7d78ec9f8",
    "seran-x2-td": "11a818a954e05b30f7415f219dea50e4d7fc378bd5f689ca41a0593342264e7f",
    "seran-x3-bd": "1660d7b67a32e98f1f6ad62c1c95bf63c4e6ae70ea07bd5e693d85077d65a9b7",
    "seran-x4-bd": "c258ae4d0c1a8784dc088b724bf39922925251e37955a464217e16ffe885edfa",
    "srcnn-x2-bd": "504187f64a12dd98dd570d4d23dc2f55ccff9b0b38bfedcdaed7cd8dc00b2b79",
    "vdsr-x2-bd": "9f6deab9c8744b865c90e9b5adbd70992a436981c200be004fea670a33b7bc1a",
}
"""What is sealed; records name it, so it changes with new parameters only."""


def test_something_is_shipped() -> None:
    assert "seran-x2-bd" in weights.shipped()
    assert sum(path.stat().st_size for _, path in SHIPPED) < 60e6


@pytest.mark.parametrize(("name", "path"), SHIPPED)
def test_shipped_weights_are_intact_and_documented(name: str, path: Path) -> None:
    held = weights.read(path)
    card = held.card
    several = {"native": "native", "slices": "isotropic"}.get(card.degradation)  # networks in one file
    if card.model == weights.UNCERTAINTY:  # of others, whose name it has
        assert name == f"seran-{several}-uncertainty"
        assert card.options["of"] == DIGESTS[f"seran-{several}"]
    else:
        assert name == f"{card.model}-{several or f'x{card.scale}-{card.degradation}'}"
    assert held.digest == DIGESTS[name]
    assert len(repr(held)) < 300
    assert held.evidence.spacings
    assert held.evidence.scores
    assert card.patches > (50_000 if card.model == "seran" else 5_000)
    assert card.scans
    assert all(scan["licence"] and scan["repository"] and scan["subject"] for scan in card.scans)
    assert card.command.startswith(("seran train", "python paper/"))
    assert card.validation
    for trace in (b"site-packages", b"/src/seran", str(Path.home()).encode() + b"/"):
        assert trace not in held.data, "a path of the machine that exported it"


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
    for content in (b"", b"short", sealed(SHIPPED[0][1])[:-1], sealed(SHIPPED[0][1])[:-1000]):
        (tmp_path / "cut.onnx").write_bytes(content)
        with pytest.raises(BadInput, match="expected weights written by `seran export`"):
            weights.read(tmp_path / "cut.onnx")


def with_card(path: Path, card: object) -> Path:
    """A weights file without parameters."""
    content = b"\x08\x08\x3a\x00" + _entry("seran.card", json.dumps(card))
    path.write_bytes(content + _entry("seran.sha256", hashlib.sha256(content).hexdigest()))
    return path


def test_a_card_from_another_version(tmp_path: Path) -> None:
    known = asdict(weights.read(SHIPPED[0][1]).card)
    without = {name: value for name, value in known.items() if name not in ("anchor", "seconds")}
    for card, words in (
        ({**known, "colour": "blue"}, "unknown: colour"),
        (without, "missing: anchor, seconds"),
        (without | {"colour": "blue"}, "unknown: colour; missing: anchor, seconds"),
        ([], "card is not one this version of seran reads"),
        ("blue", "card is not one this version of seran reads"),
    ):
        with pytest.raises(BadInput, match=rf"a\.onnx: its card is not one .*{words}|{words}"):
            weights.read(with_card(tmp_path / "a.onnx", card))


def test_a_card_of_version_01_has_evidence_inside(tmp_path: Path) -> None:
    """It moves; evidence of the file's own takes its place."""
    card = asdict(weights.read(SHIPPED[0][1]).card)
    path = with_card(tmp_path / "a.onnx", {**card, "ranges": {"head.weight": [0, 1]}, "int8_loss": 0.02})
    first = weights.read(path)
    assert first.evidence == weights.Evidence(None, {"head.weight": [0, 1]}, 0.02)
    grown = weights.Evidence(weights.Spacings((0.5, 1.5), (1.0, 4.0)), {"tail.weight": [0, 2]}, 0.01)
    path.write_bytes(weights.with_evidence(first.data, grown))
    assert weights.read(path).evidence == grown
    assert weights.read(path).card == first.card


def sealed(path: Path) -> bytes:
    """A weights file without its evidence."""
    data = path.read_bytes()
    return data[
        : data.rindex(_entry("seran.sha256", weights.read(path).digest))
        + len(_entry("seran.sha256", "0" * 64))
    ]


def test_evidence_grows_behind_what_is_sealed(tmp_path: Path) -> None:
    source = weights.shipped()["srcnn-x2-bd"]
    path, plain, before = tmp_path / "a.onnx", sealed(source), weights.read(source)
    path.write_bytes(plain)
    bare = weights.read(path)
    assert (bare.evidence, bare.digest) == (weights.Evidence(), before.digest)
    assert bare != before
    for scores in ({}, {"T1": {"psnr": 41.25}}):
        grown = weights.Evidence(weights.Spacings((0.5, 1.5), (1.0, 4.0)), {"up": [-1.0, 2.5]}, 0.01, scores)
        data = weights.with_evidence(path.read_bytes(), grown)
        assert data.startswith(plain)
        path.write_bytes(data)
        held = weights.read(path)
        assert (held.card, held.digest, held.evidence) == (before.card, before.digest, grown)
        assert held == weights.read(path)
        assert len({held, weights.read(path), bare}) == 2
        assert weights.tensors(held.data).keys() == weights.tensors(plain).keys()
        onnx.checker.check_model(onnx.load_from_string(data))
        assert ov.Core().read_model(data).input("low")


def test_damaged_evidence_is_an_error(tmp_path: Path) -> None:
    """Any byte of it, a part of it, and that of other weights."""
    source = weights.shipped()["srcnn-x2-bd"]
    data, start = source.read_bytes(), len(sealed(source))
    other = weights.shipped()["vdsr-x2-bd"]
    wrong = [
        data[:-1],
        data[: start + 1],
        data + b"x",
        data[:start] + other.read_bytes()[len(sealed(other)) :],
    ]
    for at in {*range(start, len(data), 7), *range(start, start + 40), *range(len(data) - 100, len(data))}:
        changed = bytearray(data)
        changed[at] ^= 1
        wrong.append(bytes(changed))
    for content in wrong:
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.onnx: the evidence behind the weights is damaged"):
            weights.read(tmp_path / "a.onnx")


def test_evidence_of_another_version(tmp_path: Path) -> None:
    source = weights.shipped()["srcnn-x2-bd"]
    held = weights.read(source)
    stated = json.dumps({"colour": "blue"})
    (tmp_path / "a.onnx").write_bytes(sealed(source) + _entries(stated, held.digest))
    with pytest.raises(BadInput, match="unknown: colour"):
        weights.read(tmp_path / "a.onnx")


def test_names_that_do_not_fit() -> None:
    with pytest.raises(BadInput, match=r": expected bicubic, zerofill, nlm, srcnn, .*, seran"):
        methods.method("sran", 2)
    with pytest.raises(BadInput, match="no weights are shipped for seran-x4-td"):
        methods.method("seran", 4, "td")
    path = weights.shipped()["seran-x2-bd"]
    with pytest.raises(BadInput, match=r"--scale 3: .* is for x2"):
        methods.method("seran", 3, file=path)
    with pytest.raises(BadInput, match=r"--method edsr: .* holds weights of seran"):
        methods.method("edsr", 2, file=path)
    with pytest.raises(BadInput, match="bicubic has no weights"):
        methods.method("bicubic", 2, file=path)
    with pytest.raises(BadInput, match="--device tpu: expected auto"):
        methods.method("seran", 2, engine=Engine(device="tpu"))


def test_the_registry_lists_what_is_shipped() -> None:
    """After new weights: seran weights register."""
    listed = weights.listed()
    assert {n: (p.stat().st_size, files.sha256(p)) for n, p in SHIPPED} == {n: listed[n] for n, _ in SHIPPED}


def resealed(path: Path, model: onnx.ModelProto) -> Path:
    """A file with the card of shipped weights and another network; whoever makes one can seal it."""
    card = weights.read(dict(SHIPPED)["srcnn-x2-bd"]).card
    body = model.SerializeToString() + _entry("seran.card", json.dumps(asdict(card)))
    path.write_bytes(body + _entry("seran.sha256", hashlib.sha256(body).hexdigest()))
    return path


def network(*nodes: onnx.NodeProto, **parameters: np.ndarray) -> onnx.ModelProto:
    """An ONNX model from low to high."""
    ends = [
        helper.make_tensor_value_info(n, 1, ["n", 1, a, b])
        for n, a, b in (("low", "h", "w"), ("high", "a", "b"))
    ]
    held = [numpy_helper.from_array(value, name) for name, value in parameters.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


ENLARGE = helper.make_node("Resize", ["low", "", "scales"], ["large"])
SCALES = np.array([1, 1, 2, 2], np.float32)


def test_a_network_with_nothing_but_known_operators_runs(tmp_path: Path, scan: Path) -> None:
    model = network(ENLARGE, helper.make_node("Relu", ["large"], ["high"]), scales=SCALES)
    own = resealed(tmp_path / "own.onnx", model)
    assert cli.run(["upscale", str(scan), str(tmp_path / "out.nii"), "--weights", str(own)]) == 0


def strange() -> dict[str, onnx.ModelProto]:
    """What is refused -> a network that has it."""
    relu = helper.make_node("Relu", ["low"], ["high"])
    loop = helper.make_node("Loop", ["trips", "", "low"], ["high"], body=network(relu).graph)
    outside = network(relu, w=np.zeros((2, 2), np.float32))
    onnx.external_data_helper.set_external_data(outside.graph.initializer[0], "/etc/passwd")
    lying = network(relu, w=np.zeros((2, 2), np.float32))
    lying.graph.initializer[0].dims[0] = 1 << 60
    function = network(relu)
    function.functions.append(helper.make_function("", "Relu", ["x"], ["y"], [relu], function.opset_import))
    constant = numpy_helper.from_array(np.zeros(1, np.float32), "c")
    onnx.external_data_helper.set_external_data(constant, "/etc/passwd")
    constants = [helper.make_node("Constant", [], ["c"], value=constant), relu]
    drawn = helper.make_node("RandomNormal", [], ["high"], shape=[1, 1, 9, 9])
    deeper = helper.make_node("Relu", ["low"], ["high"], g=network(relu).graph)
    return {
        "the operator Loop": network(loop, trips=np.array(1 << 62)),
        "the operator RandomNormal": network(drawn),
        "the operator mine:Relu": network(helper.make_node("Relu", ["low"], ["high"], domain="mine")),
        "tensor field 13": outside,
        "bytes": lying,
        "model field 25": function,
        "tensor field 1[34]": network(*constants),
        "attribute field 6": network(deeper),
    }  # fmt: skip


@pytest.mark.parametrize("what", strange())
def test_a_strange_network_is_refused_before_it_is_run(tmp_path: Path, what: str) -> None:
    with pytest.raises(BadInput, match=rf"own\.onnx: its network is not one that seran runs: .*{what}"):
        weights.read(resealed(tmp_path / "own.onnx", strange()[what]))
    with pytest.raises(BadInput, match=f"not one that seran runs from a file: .*{what}"):
        weights.seal(strange()[what].SerializeToString(), weights.read(SHIPPED[0][1]).card)


@pytest.mark.parametrize(
    ("what", "model"),
    [
        ("its input is not low", network(helper.make_node("Relu", ["other"], ["high"]), other=SCALES)),
        (
            "more than 268,435,456 values",
            network(
                helper.make_node("ConstantOfShape", ["n"], ["zeros"]),
                helper.make_node("Add", ["low", "zeros"], ["high"]),
                n=np.array([1, 1, 1 << 20, 1 << 20]),
            ),
        ),
        ("", network(helper.make_node("Conv", ["low", "w"], ["high"]), w=SCALES)),
        ("no image of finite values", network(helper.make_node("Log", ["low"], ["high"]))),
        (
            "no image of finite values",
            network(
                ENLARGE,
                helper.make_node("Sub", ["large", "one"], ["below"]),
                helper.make_node("Sqrt", ["below"], ["high"]),
                scales=SCALES,
                one=np.array(9, np.float32),
            ),
        ),
    ],
)
def test_a_network_that_makes_no_image_is_one_line(
    tmp_path: Path, scan: Path, what: str, model: onnx.ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    own, out = resealed(tmp_path / "own.onnx", model), tmp_path / "out.nii"
    assert cli.run(["upscale", str(scan), str(out), "--weights", str(own)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert what in said
    assert not out.exists()


def test_what_is_no_protocol_buffer_ends_at_once(tmp_path: Path) -> None:
    """Numbers without end, lengths beyond the file, fields that there are none of: for card and network."""
    card = _entry("seran.card", json.dumps(asdict(weights.read(SHIPPED[0][1]).card)))
    began = time.perf_counter()
    for start in (
        b"\x08" + b"\xff" * 3_000_000,
        b"\x3a" + b"\xff" * 8 + b"\x7f",
        b"\x00\x00",
        b"\x09" + bytes(8),
    ):
        for body in (start + card, card[:2] + start):
            content = body + _entry("seran.sha256", hashlib.sha256(body).hexdigest())
            (tmp_path / "a.onnx").write_bytes(content)
            with pytest.raises(BadInput, match=r"a\.onnx: its (card|network) is not one"):
                weights.read(tmp_path / "a.onnx")
    assert time.perf_counter() - began < 5


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(
        BadInput, match=rf"expected weights of at most {LARGEST:,} bytes, got 214,748,364,800"
    ):
        weights.read(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", "2"), ("options", []), ("scans", [{"licence": 3}]), ("validation", {"T1": "good"}),
        ("anchor", "edge"), ("seconds", 10**400), ("recipe", None), ("patches", True),
    ],
)  # fmt: skip
def test_a_card_whose_values_are_of_other_types(tmp_path: Path, name: str, value: object) -> None:
    known = asdict(weights.read(SHIPPED[0][1]).card)
    with pytest.raises(
        BadInput, match=rf"its card is not one this version of seran reads \({name}: expected"
    ):
        weights.read(with_card(tmp_path / "a.onnx", {**known, name: value}))


def test_a_card_nested_without_end(tmp_path: Path) -> None:
    content = b"\x3a\x00" + _entry("seran.card", '{"a":' * 100_000)
    (tmp_path / "a.onnx").write_bytes(content + _entry("seran.sha256", hashlib.sha256(content).hexdigest()))
    with pytest.raises(BadInput, match=r"its card is not one .*nested too deep"):
        weights.read(tmp_path / "a.onnx")


class Mirror(SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; the first answer for a file may end early."""

    cut: ClassVar[set[str]] = set()
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        """A file from the byte asked for, or half of it."""
        self.asked.append((self.path, self.headers["Range"]))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        begin = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cut = self.path in self.cut
        self.cut.discard(self.path)
        self.wfile.write(data[begin : len(data) // 2 if cut else None])

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """An address, its folder with SRCNN's and VDSR's weights; an installation that lacks SRCNN's."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "SERAN_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERAN_CACHE", str(tmp_path / "cache"))
    held = {name: path for name, path in SHIPPED if name != "srcnn-x2-bd"}
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name in ("srcnn-x2-bd", "vdsr-x2-bd"):
        shutil.copy(dict(SHIPPED)[name], folder)
    monkeypatch.setattr(weights, "shipped", lambda: held)
    monkeypatch.setattr(fetch, "sleep", lambda seconds: None)
    methods.forget()  # an earlier test may have loaded what this installation lacks
    Mirror.cut.clear()
    Mirror.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def command(*args: object) -> int:
    return cli.run(["weights", *map(str, args)])


@pytest.mark.slow
def test_weights_are_pulled_and_then_used(
    mirror: tuple[str, Path], tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = mirror
    sharpen = ["upscale", str(scan), str(tmp_path / "out.nii"), "--method", "srcnn", "--strict", "off"]
    assert cli.run(sharpen) == 2
    assert "seran weights pull srcnn-x2-bd" in capsys.readouterr().err
    Mirror.cut.add("/srcnn-x2-bd.onnx")
    assert command("pull", "--mirror", url + "/nothing", "--mirror", url) == 0
    assert f"1 pulled, {len(SHIPPED) - 1} were here" in capsys.readouterr().out
    assert [bytes_ is not None for path, bytes_ in Mirror.asked if "nothing" not in path] == [False, True]
    assert command("verify") == 0
    assert f"{len(SHIPPED)} of {len(SHIPPED)} are here" in capsys.readouterr().out
    assert command("list") == 0
    assert str(tmp_path / "cache" / "weights" / "srcnn-x2-bd.onnx") in capsys.readouterr().out
    assert cli.run(sharpen) == 0


def test_wrong_bytes_are_never_kept(
    mirror: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = mirror
    path = folder / "srcnn-x2-bd.onnx"
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"x")
    assert command("pull", "srcnn-x2-bd", "--mirror", url) == 2
    assert "expected sha256" in capsys.readouterr().err
    path.write_bytes(right[:-100])
    assert command("pull", "srcnn-x2-bd", "--mirror", url) == 2
    assert "the server announces" in capsys.readouterr().err
    assert not list((tmp_path / "cache" / "weights").iterdir())


def test_an_interrupted_download_continues(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = mirror
    Mirror.cut.add("/srcnn-x2-bd.onnx")

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "sleep", interrupted)
    assert command("pull", "srcnn-x2-bd", "--mirror", url) == 130
    assert (tmp_path / "cache" / "weights" / ".srcnn-x2-bd.onnx.part").stat().st_size > 10_000
    assert command("pull", "srcnn-x2-bd", "--mirror", url) == 0
    assert Mirror.asked[-1][1] is not None


def test_the_proxy_of_the_environment_is_asked(
    mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = mirror
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.setenv("no_proxy", "")
    assert command("pull", "srcnn-x2-bd", "--mirror", "http://weights.invalid/seran") == 2
    assert Mirror.asked[-1][0] == "http://weights.invalid/seran/srcnn-x2-bd.onnx"
    assert "404" in capsys.readouterr().err


def test_a_machine_without_a_network(
    mirror: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported there, carried over, put where pulled weights lie: no server is asked."""
    assert command("export", "vdsr-x2-bd", "--out", tmp_path / "stick") == 0
    os.link(tmp_path / "stick" / "vdsr-x2-bd.onnx", os.fsencode(tmp_path) + b"/stick/caf\xe9.onnx")
    assert command("export", "vdsr-x2-bd", "--out", tmp_path / "stick") == 0
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "stick", capture_output=True)
    assert (sums.returncode, sums.stdout.count(b"OK")) == (0, 2)
    assert command("export", "srcnn-x2-bd", "--out", tmp_path / "stick") == 2
    assert "srcnn-x2-bd: not here" in capsys.readouterr().err
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    shutil.copy(mirror[1] / "srcnn-x2-bd.onnx", tmp_path / "cache" / "weights")
    assert command("verify", "srcnn-x2-bd", "srcnn-x2-bd") == 0  # once, however often it is named
    assert capsys.readouterr().out.startswith("1 of 1 are here")
    path = tmp_path / "cache" / "weights" / "srcnn-x2-bd.onnx"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    assert command("verify") == 2
    assert "damaged" in capsys.readouterr().err
    assert not Mirror.asked


def test_planted_weights_are_not_run(
    mirror: tuple[str, Path], tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sealed and intact, but not those that the registry lists under this name."""
    planted = tmp_path / "cache" / "weights" / "srcnn-x2-bd.onnx"
    planted.parent.mkdir(parents=True)
    model = network(ENLARGE, helper.make_node("Relu", ["large"], ["high"]), scales=SCALES)
    resealed(planted, model)
    for words in (["--method", "srcnn"], ["--weights", "srcnn-x2-bd"], ["--weights", str(planted)]):
        assert cli.run(["upscale", str(scan), str(tmp_path / "out.nii"), *words]) == 2
        assert "expected the weights that the registry lists" in capsys.readouterr().err
    assert command("pull", "--mirror", mirror[0]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not Mirror.asked


def test_every_byte_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    digest = files.digest
    monkeypatch.setattr(files, "digest", lambda path, *how: hashed.append(path) or digest(path, *how))
    monkeypatch.delattr(weights, "read")
    assert command("verify") == 0
    assert hashed == list(weights.at_hand().values())


def test_other_programs_get_safetensors(tmp_path: Path) -> None:
    assert command("export", "seran-x2-bd", "--safetensors", "--out", tmp_path) == 0
    with safe_open(tmp_path / "seran-x2-bd.safetensors", "np") as file:
        assert json.loads(file.metadata()["card"])["model"] == "seran"
        assert json.loads(file.metadata()["evidence"])["ranges"]
        assert sum(file.get_tensor(k).size for k in file.keys()) == SYSTEMS["seran"].parameters[0]  # noqa: SIM118


def test_what_cannot_be_done(mirror: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("pull", "seran-x9-bd", "--mirror", mirror[0]) == 2
    assert "weights seran-x9-bd: unknown; did you mean seran-x" in capsys.readouterr().err
    assert command("pull") == 2
    assert "--mirror URL" in capsys.readouterr().err
    assert command("export") == 2
    assert "--out FOLDER" in capsys.readouterr().err
