"""The command line: graphc demo | run | profile | plan | dump | draw | explain | explore | opt | export | to-onnx |
chat | doctor."""
from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from graphc import __version__
from graphc.cli_answers import answered, whole_number
from graphc.compiler import STAGES
from graphc.errors import GraphError
from graphc.schedule.platforms import EVERY_TARGET, PLATFORMS

COMMANDS = "demo | run | profile | plan | dump | draw | explain | explore | opt | export | to-onnx | chat | doctor"
SOURCE = ("a file with the text of a graph, an ONNX model (.onnx), or module.py:name for a @gc.graph function, a "
          "training step or a network")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 1 something given is wrong (said on stderr), 130
    interrupted, 141 nobody reads the output. SystemExit with 2 for wrong usage, with 0 after --help and --version."""
    def command() -> int | None:
        given = sys.argv[1:] if arguments is None else arguments
        options = _parser("opt" in given).parse_args(given)
        return options.command(options)
    return answered(command)


def _parser(passes: bool = False) -> argparse.ArgumentParser:
    """`passes`: the help names those that there are, for which they have to be loaded."""
    parser = argparse.ArgumentParser(prog="graphc",
                                     description="A static-graph compiler for neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(required=True, metavar=COMMANDS)
    demo = commands.add_parser("demo", help="train a network on handwritten digits and save pictures")
    demo.add_argument("--epochs", type=_positive, default=15)
    demo.add_argument("--out", type=Path, default=Path("graphc-demo"), help="folder for the picture and the text")
    demo.set_defaults(command=_command("demo"))
    run = commands.add_parser("run", help="compile a graph and run it on .npy files, or on random numbers")
    _add_source(run)
    run.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    run.add_argument("--out", type=Path, help="folder for the outputs as .npy; without it they are printed")
    run.add_argument("--threads", default="0")
    run.set_defaults(command=_command("run"))
    profile = commands.add_parser("profile",
                                  help="where the time of a graph goes: a table of its kernels on random numbers")
    _add_source(profile)
    profile.add_argument("inputs", nargs="*", metavar="NAME=FILE.npy", help="inputs without a file are random")
    profile.add_argument("--threads", default="0")
    profile.add_argument("--runs", default="5")
    profile.add_argument("--svg", type=Path, help="file for the roofline plot")
    profile.set_defaults(command=_command("profile"))
    _add_plan(commands.add_parser("plan", help="layers, parameters, arithmetic and memory, without running anything"))
    _add_draw(commands.add_parser("draw", help="a picture of a graph (.svg, .png and .pdf: extra draw; .dot)"))
    dump = commands.add_parser("dump", help="print a graph at a stage of its compilation")
    _add_source(dump)
    dump.add_argument("--stage", choices=STAGES, default="fused")
    dump.add_argument("--target", choices=sorted(EVERY_TARGET), help="compile for this CPU instead of ours")
    dump.set_defaults(command=_command("dump"))
    explain = commands.add_parser("explain",
                                  help="why neighbours are not fused, and among which schedules each kernel's was "
                                       "chosen")
    _add_source(explain)
    explain.add_argument("--target", choices=sorted(EVERY_TARGET), help="compile for this CPU instead of ours")
    explain.set_defaults(command=_command("explain"))
    _add_explore(commands.add_parser("explore",
                                     help="one HTML page that shows a program whole, from the source to assembly"))
    opt = commands.add_parser("opt", help="apply passes to a graph and print it")
    _add_source(opt)
    opt.add_argument("--passes", default="", help="comma-separated" + (
        f"; known: {_command('known_passes')()}" if passes else ""))
    opt.set_defaults(command=_command("opt"))
    _add_export(commands.add_parser("export", help="write a C library of a graph or a training step"))
    _add_to_onnx(commands.add_parser("to-onnx", help="write a graph, network or training step as an ONNX file"))
    _add_chat(commands.add_parser("chat", help="talk to a language model in a GGUF file (extra: llm)"))
    doctor = commands.add_parser("doctor", help="check this installation and say what is untested here")
    doctor.set_defaults(command=_command("doctor"))
    return parser


def _add_explore(explore: argparse.ArgumentParser) -> None:
    _add_source(explore)
    explore.add_argument("-o", "--out", type=Path, default=Path("explore.html"), help="the page's file")
    explore.set_defaults(command=_command("explore"))


def _add_plan(plan: argparse.ArgumentParser) -> None:
    _add_source(plan)
    plan.add_argument("--memory", help='what a call may take in all, such as "300 MB": the rest is computed again')
    plan.set_defaults(command=_command("plan"))


def _add_draw(draw: argparse.ArgumentParser) -> None:
    _add_source(draw)
    draw.add_argument("-o", "--out", type=Path, default=Path("graph.svg"), help="the picture's file")
    draw.add_argument("--stage", choices=("graph", "simplified", "fused"), default="graph")
    draw.add_argument("--depth", type=int, help="layers inside of so many others are one box each; 0: the outermost")
    draw.set_defaults(command=_command("draw"))


def _add_export(library: argparse.ArgumentParser) -> None:
    library.add_argument("source", help="module.py:name of what gc.export takes, or a file with the text of a graph")
    library.add_argument("folder", type=Path)
    library.add_argument("--name", default="net", help="what the names in C begin with")
    library.add_argument("--target", action="append", default=[], help="a system, such as " + next(iter(PLATFORMS)))
    library.add_argument("--weights", choices=("embed", "file"), default="embed")
    library.add_argument("--no-threads", action="store_true", help="without a thread pool")
    library.set_defaults(command=_command("export"))


def _add_to_onnx(writing: argparse.ArgumentParser) -> None:
    writing.add_argument("source", help="module.py:name of what gc.to_onnx takes, or a file with the text of a graph")
    writing.add_argument("file", type=Path, help="for example net.onnx")
    writing.add_argument("--type", action="append", default=[], metavar="NAME=TYPE",
                         help="what an input of a network is, for example x='f32[B, 784]'")
    writing.add_argument("--state", type=Path, help="a network's parameters: a file of safetensors")
    writing.add_argument("--seed", type=_natural, help="the same, drawn: from this number")
    writing.add_argument("--opset", type=_positive, help="the version of ONNX's operators")
    writing.set_defaults(command=_command("to_onnx"))


def _add_chat(chat: argparse.ArgumentParser) -> None:
    chat.add_argument("model", type=Path, help="a GGUF file")
    chat.add_argument("--prompt", help="one question; without it the lines of the terminal, or of stdin")
    chat.add_argument("--system", help="what the model is told first")
    chat.add_argument("--tokens", type=_positive, default=512, help="of an answer, at most")
    chat.add_argument("--temperature", type=float, default=0.0, help="0, the default: the likeliest token each time")
    chat.add_argument("--top-p", type=float, help="draw from the fewest tokens that have this probability together")
    chat.add_argument("--seed", type=int, default=0)
    chat.add_argument("--store", choices=("f32", "bf16", "f16"), help="make all matrices numbers of this type")
    chat.set_defaults(command=_command("chat", "graphc.doors.gguf.chat"))      # without a compiler, if code is on disk


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help=SOURCE)
    parser.add_argument("--bind", action="append", default=[], metavar="NAME=SIZE",
                        help="the size of a named dimension")
    parser.add_argument("--type", action="append", default=[], metavar="NAME=TYPE",
                        help="what an input of a network is, for example x='f32[1, 784]'")


def _command(name: str, module: str = "graphc.cli_commands") -> Callable[..., object]:
    """A function of the commands, whose modules are loaded when it is called."""
    return lambda *options: getattr(importlib.import_module(module), name)(*options)


def _natural(text: str) -> int:
    """For argparse, which names the option."""
    try:
        return whole_number(text, "it")
    except GraphError as error:
        raise argparse.ArgumentTypeError(error.text) from None


def _positive(text: str) -> int:
    number = _natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"it takes a number from 1 on, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
