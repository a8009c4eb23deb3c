"""Import all that the engine needs, and say what was found: run by the engine's own Python, never imported.

The last line of standard output is one JSON object: ``versions``, ``device``, ``build``, ``seconds``; or ``missing``
with the name of the module that failed, and ``message``. ``probe.py EXTRA [FOLDER]`` tries an extra alone, which lies
in FOLDER where it is not switched on yet; the object holds its ``version``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time

MODULES = (
    "numpy",
    "torch",
    "rasterio",
    "pyproj",
    "shapely",
    "pandas",
    "pyogrio",
    "geopandas",
    "scipy",
    "sklearn",
    "lightning_fabric",
    "safetensors",
    "jinja2",
    "onnxruntime",
)


def main(arguments: list[str]) -> int:
    """Print the findings; return 0 when everything imports and works."""
    return probe_extra(*arguments) if arguments else probe_engine()


def probe_engine() -> int:
    """Try what every engine has."""
    versions = {"python": platform.python_version()}
    seconds = {}
    for name in MODULES:
        start = time.perf_counter()
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a broken library raises anything: OSError for a DLL, AttributeError, SystemError
            return report({"missing": name, "message": f"{type(error).__name__}: {error}"}, 1)
        seconds[name] = round(time.perf_counter() - start, 3)
        versions[name] = str(getattr(module, "__version__", ""))
    try:
        facts = check()
    except Exception as error:
        return report({"missing": "a working torch or rasterio", "message": f"{type(error).__name__}: {error}"}, 1)
    return report({"versions": versions, "seconds": seconds, "executable": sys.executable, **facts}, 0)


def check() -> dict[str, object]:
    """Use what often imports and yet fails: PROJ's database, a convolution, the GPU."""
    import pyproj
    import rasterio.crs
    import torch

    rasterio.crs.CRS.from_epsg(32720).to_wkt()
    pyproj.Transformer.from_crs(4326, 32720).transform(-3.0, -60.0)
    torch.nn.functional.conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
    build = "cuda" if torch.version.cuda else "cpu"
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda").add_(1).item()
        memory_gb = torch.cuda.get_device_properties(0).total_memory / 2**30
        return {"build": build, "device": "cuda", "device_name": f"{torch.cuda.get_device_name(0)}, {memory_gb:.0f} GB"}
    return {"build": build, "device": "cpu", "device_name": f"{os.cpu_count()} CPU cores ({platform.machine()})"}


def probe_extra(name: str, folder: str = "") -> int:
    """Try an extra by using it."""
    if folder:
        sys.path.append(folder)  # where the switch is going to put it
    try:
        EXTRAS[name]()
    except Exception as error:
        return report({"missing": name, "message": f"{type(error).__name__}: {error}"}, 1)
    return report({"version": importlib.metadata.version(name)}, 0)


def use_openvino() -> None:
    """Compute something on the processor: OpenVINO loads what it needs for that only then."""
    import numpy
    import openvino
    from openvino import opset13

    values = opset13.parameter([2], numpy.float32)
    compiled = openvino.Core().compile_model(openvino.Model([opset13.relu(values)], [values]), "CPU")
    found = compiled(numpy.array([-1, 2], numpy.float32))[0].tolist()
    if found != [0, 2]:
        raise ValueError(f"relu of -1 and 2 is {found}")


EXTRAS = {"openvino": use_openvino}


def report(findings: dict[str, object], code: int) -> int:
    """Print the findings as the last line and return the exit code."""
    print(json.dumps(findings), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
