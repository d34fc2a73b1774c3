"""ONNX Runtime, inference only."""
from __future__ import annotations

import onnxruntime

from benchmarks.engines.case import ONNX, Case, onnx_batches

CONFIGURATION = ("all graph optimisations, weights prepacked, sequential execution, intra-op threads spinning as by "
                 "default")


class OnnxRuntime:
    def __init__(self, case: Case):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(case.folder / ONNX), options,
                                                    providers=["CPUExecutionProvider"])
        self.names = [x.name for x in self.session.get_inputs()]
        self.batches = onnx_batches(case)

    def run(self, *arrays):
        return self.session.run(None, dict(zip(self.names, arrays)))

    def arrays(self, result):
        return tuple(result)


make = OnnxRuntime
