"""Nipype: `seran upscale` as a node of a workflow.

Its inputs are the options of the command, read from the command's own signature: ``Upscale.help()`` lists
them. They are named as there, ``--slice-profile`` as ``slice_profile``; but Nipype's schedulers count CPUs by
``num_threads``, which is ``--threads``.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    CommandLine,
    CommandLineInputSpec,
    File,
    Str,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.base.traits_extension import BasePath

from seran.apps import arguments
from seran.apps.arguments import Argument
from seran.apps.upscale import upscale
from seran.job import record

SEVERAL = "Where several scans are sharpened"  # heading of options that Nipype itself has: it runs many nodes
OTHER_NAMES = {"threads": "num_threads", "label_check": "no_label_check"}


def _trait(option: Argument) -> Any:  # noqa: ANN401
    """What an option takes, as Nipype has it."""
    flag, text = option.flags[-1], option.text
    if option.kind is bool and option.default:
        return traits.Bool(argstr=flag, desc=f"do not {text}")
    if option.kind is bool:
        return traits.Bool(argstr=option.flags[-2], desc=text)
    stated = {"argstr": " ".join([flag, *["%s"] * option.count]), "desc": text}
    if option.choices:
        return traits.Enum(*option.choices, **stated)
    kind = {int: traits.Int, float: traits.Float}.get(option.kind, Str)
    if option.count > 1:
        return traits.Tuple(*[kind()] * option.count, **stated)
    if option.words:
        return traits.Either(kind(), traits.Enum(*option.words), **stated)
    if option.metavar in ("FILE", "PAGE"):
        return File(**stated)
    return kind(**stated, nohash=flag == "--threads")


def _inputs() -> dict[str, Any]:
    """The traits of every option of the command that is of use to one node, by name."""
    found = {
        "in_file": BasePath(
            exists=True,
            argstr="%s",
            position=0,
            mandatory=True,
            desc="the scan, or the folder of a DICOM series",
        ),
        "out_file": File(
            argstr="%s",
            position=1,
            name_source=["in_file"],
            name_template="%s_sharp",
            keep_extension=True,
            desc="the result",
        ),
    }
    for option in arguments.of(upscale):
        flag = next((f for f in option.flags if f.startswith("--")), "")
        if flag not in ("", "--in", "--out") and option.group != SEVERAL:
            name = flag[2:].replace("-", "_")
            found[OTHER_NAMES.get(name, name)] = _trait(option)
    return found


UpscaleInputSpec = type("UpscaleInputSpec", (CommandLineInputSpec,), {"__module__": __name__, **_inputs()})


class UpscaleOutputSpec(TraitedSpec):  # type: ignore[misc]
    """What a run leaves."""

    out_file = File(exists=True, desc="the result")
    record = File(exists=True, desc="its record: how it came about and what its checks say (JSON)")
    verdict = traits.Enum("PASS", "WARN", "FAIL", "not known", desc="the worst of the checks")
    estimated_file = File(exists=True, desc="with maps: what the scan did not measure of the result")
    uncertainty_file = File(exists=True, desc="with uncertainty: how far each voxel may be off")


class Upscale(CommandLine):  # type: ignore[misc]
    """Sharpen a scan in the plane of its slices or, with ``isotropic``, across them.

    A result whose checks say FAIL is an error of the node; with ``strict="off"`` it is not, and ``verdict``
    says it.
    """

    _cmd = f"{shlex.quote(sys.executable)} -m seran upscale"  # this version, whatever PATH names
    input_spec = UpscaleInputSpec
    output_spec = UpscaleOutputSpec

    def _run_interface(self, runtime: Any, correct_return_codes: tuple[int, ...] = (0,)) -> Any:  # noqa: ANN401
        runtime = super()._run_interface(runtime, correct_return_codes)
        if runtime.returncode not in correct_return_codes:
            self.raise_exception(runtime)  # with seran's line; Nipype would miss the result first
        return runtime

    def _list_outputs(self) -> dict[str, Any]:
        outputs = super()._list_outputs()
        result = Path(outputs["out_file"]).absolute()
        outputs |= {"out_file": str(result), "record": str(record.sidecar(result))}
        if made := record.read(result):
            outputs["verdict"] = made.verdict
        for name, trait in (("estimated", "maps"), ("uncertainty", "uncertainty")):
            if isdefined(wanted := getattr(self.inputs, trait)) and wanted:
                outputs[f"{name}_file"] = str(record.outputs(result, [name])[1])
        return outputs
