"""A faster way, where one is at hand: each with what it costs, as docs/speed.md has it."""

import os

from seran import methods
from seran.engines import Engine
from seran.engines.mnn import MOST_THREADS
from seran.job.options import Options
from seran.machine import cpus, has_bf16, instructions, missing

VNNI = {"avx512_vnni", "avx_vnni"}


def faster(options: Options, engine: Engine) -> str:
    """What would make a network faster on this CPU, in a line; empty if nothing is known to.

    Args:
        options: how a scan is sharpened.
        engine: how its network is run.
    """
    name, known = options.implied()[0], instructions()
    if not methods.is_network(name) or engine.device not in ("auto", "cpu"):
        return ""
    if name.endswith("+"):
        return "faster: without --ensemble it takes an eighth of the time, and at x2 loses 0.1 to 0.2 dB"
    if engine.precision == "f32" and has_bf16():
        return "faster: without --precision f32 this CPU uses bf16, which costs less than 0.02 dB"
    eight = options.degradation == "bd" and name == methods.DEFAULT and options.weights is None
    if engine.precision == "auto" and eight and known & VNNI and "amx_int8" not in known:
        return "faster: with --precision int8 it takes 0.7 to 0.9 of the time, and loses at most 0.03 dB"
    half = engine.precision == "bf16" or (engine.precision == "auto" and has_bf16())
    lacks = os.name == "posix" and missing()["winograd"] and (engine.threads or cpus()) <= MOST_THREADS
    if lacks and not half and engine.precision != "int8" and "avx2" in known and "avx512f" not in known:
        return "faster: pip install 'seran[winograd]' halves the time on this CPU, which has no AVX-512"
    if name == methods.DEFAULT and options.degradation == methods.NATIVE and not options.thin:
        return "faster: with --fast it takes about a seventh of the time; docs/speed.md says what that costs"
    return ""
