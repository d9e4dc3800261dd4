"""seran: MR image super-resolution that states its grid, its protocol and its limits."""

import sys

__version__ = "0.1.0"

# OpenVINO tells Google Analytics of every import; where this module cannot be imported, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
