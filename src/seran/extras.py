"""What seran can do with more than it requires, by the name of the extra that brings it.

``pip install 'seran[train,itk]'`` installs two; upscaling NIfTI, MGH and most DICOM needs none.
"""

from importlib import util

from seran.errors import BadInput

EXTRAS = {
    "train": ("torch", "lightning_fabric", "onnx", "onnxscript", "safetensors", "tensorboard"),
    "cluster": ("distributed", "dask", "dask_jobqueue"),
    "dicom": ("gdcm",),
    "itk": ("SimpleITK",),
    "winograd": ("MNN",),
}
"""The modules that each brings."""


def missing() -> dict[str, list[str]]:
    """Of every extra, the modules that are not installed; nothing is imported."""
    return {
        extra: [name for name in modules if util.find_spec(name) is None] for extra, modules in EXTRAS.items()
    }


def needed(what: str, error: ModuleNotFoundError) -> BadInput:
    """The error to raise where ``what`` could not import a module: it names the extra that brings it."""
    name = (error.name or str(error)).split(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if name in modules), None)
    if extra is None:
        return BadInput(
            f"{what} needs {name}, and this installation lacks it; `pip check` says what is wrong"
        )
    return BadInput(f"{what} needs {name}; pip install 'seran[{extra}]'")
