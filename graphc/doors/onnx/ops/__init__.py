"""Rules of the operators of ai.onnx, by what they are. How a rule is written says graphc/doors/onnx/__init__.py."""
