"""What `import graphc` costs: no compiler, no LLVM, no graph library before the first compile."""
import subprocess
import sys

CODE = """
import sys, graphc as gc
assert not {"llvmlite", "networkx", "graphc.compiler"} & sys.modules.keys(), sorted(sys.modules)

@gc.graph
def f(x: gc.f32[3]):
    return gc.exp(x).sum()
str(gc.grad(f))
assert not {"llvmlite", "networkx", "graphc.compiler"} & sys.modules.keys()
assert "compile" in dir(gc) and not hasattr(gc, "compiles")
"""


def test_import_loads_no_compiler():
    subprocess.run([sys.executable, "-c", CODE], check=True)
