"""What vLLM's own parser says of engines' arguments: a program, since vLLM takes ten seconds to be
imported, and talks.

Standard input: {NAME: [ARGUMENT, …], …}; standard output, its last line: {NAME: COMPLAINT, …}.
"""

import difflib
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def vllm_parser() -> Any:
    """The parser of vLLM's server; for a wrong value it raises ValueError."""
    import models.cpu_torch  # noqa: F401  before vLLM, which imports torchvision

    # isort: split
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = refuse
    return parser


def complaint(parser: Any, arguments: Sequence[str]) -> str | None:
    """What is wrong with a server's command line, in one sentence; None where nothing is."""
    known = sorted(option[2:] for option in parser._option_string_actions if option[:2] == "--")
    for name in (each[2:] for each in arguments if each[:2] == "--"):
        # vLLM would take the beginning of a name; read in panel.toml it would be a riddle.
        if name.partition(".")[0] not in known:
            near = difflib.get_close_matches(name, known, n=1)
            return f"{name}: vLLM knows no such argument{f'; is it {near[0]}?' if near else '.'}"
    try:
        parser.parse_args(list(arguments))
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def main() -> None:
    commands, parser = json.load(sys.stdin), vllm_parser()
    found = {name: complaint(parser, arguments) for name, arguments in commands.items()}
    print(json.dumps({name: said for name, said in found.items() if said}))


if __name__ == "__main__":
    main()
