"""OpenVINO, inference only."""
from __future__ import annotations

import openvino

from benchmarks.engines.case import ONNX, Case, onnx_batches

CONFIGURATION = "latency hint, f32, one stream, one kept infer request"


class OpenVino:
    def __init__(self, case: Case):
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": case.threads, "NUM_STREAMS": 1,
                    "INFERENCE_PRECISION_HINT": "f32"}
        self.request = openvino.Core().compile_model(str(case.folder / ONNX), "CPU", settings).create_infer_request()
        self.batches = onnx_batches(case)

    def run(self, *arrays):
        return self.request.infer(list(arrays))

    def arrays(self, result):
        return tuple(result[i] for i in range(len(result)))


make = OpenVino
