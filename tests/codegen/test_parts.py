"""Parts of a program: a parameter that is the same constant in all calls of a function is written into it, whatever the function
is called."""
import pytest

from graphc.codegen.llvm.parts import _with_constants

NAMES = ("@plain", '@"k.dots.and-lines"', '@"k.of f32[4, 48]_(2, 2)_(5, 5)"', '@"k.(ptr %p0, i64 %n0)"')


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_those_of_their_parameters(name):
    head = f"void {name}(ptr %ctx, ptr noalias %p1, i64 %n0, i64 %n1, ptr %scratch) #0"
    body = ("entry:\n  call void @g(ptr %ctx, ptr %p1, i64 {}, i64 %n01, ptr %scratch)\n"
            "  %n0.by = mul i64 %n1, {}\n")
    calls = [["%ctx", "%v", "784", "%w", "%s"], ["%ctx", "%v2", "784", "7", "%s"]]
    text, wanted = (f"define internal {head} {{\n{body.format(n, n)}}}\n" for n in ("%n0", "784"))
    assert _with_constants(text, head, calls) == wanted
