"""The `fourd` group: commands are imported when they run, errors become one sentence and an exit code.

`fourd --help` must start at once, so this module imports click and nothing heavier.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from fourdface import __version__
from fourdface.errors import FourdError

# torch's threads spin while they wait for each other, which costs a busy machine more than the work itself
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS: dict[str, tuple[str, str]] = {
    "preprocess": ("fourdface.cli.preprocess:command", "Find and track the face in a photo or clip."),
    "fit-flame": ("fourdface.cli.fit_flame:command", "Fit the head model to what was tracked."),
    "lift": ("fourdface.cli.lift:command", "Turn one photo into an avatar."),
    "reenact": ("fourdface.cli.reenact:command", "Move an avatar as a driving video does."),
    "render": ("fourdface.cli.render:command", "Render an avatar from any side."),
    "synth-data": ("fourdface.cli.synth_data:command", "Make pictures to train with, with their truth."),
    "train": ("fourdface.cli.train:command", "Train the networks of a method."),
    "eval": ("fourdface.cli.eval:command", "Measure results by fixed protocols."),
    "info": ("fourdface.cli.info:command", "Say what an artifact or a video holds."),
    "doctor": ("fourdface.cli.doctor:command", "Check this installation."),
    "assets": ("fourdface.cli.assets:command", "Manage models and their licences."),
}
"""Command -> (module:attribute, one line of help). The line is repeated here so that the list needs no imports."""

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class FourdGroup(click.Group):
    """A click group that loads commands lazily and answers every failure with one sentence on stderr."""

    running = ""
    """Name of the command that was last resolved: it opens the sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None for a name that does not exist."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        _accept_verbosity(command)
        return command  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Remember which command runs."""
        self.running = args[0] if args and args[0] in COMMANDS else ""
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run and exit: 0 ok, 1 failure, 2 wrong call, 130 interrupted (DESIGN.md section 4)."""
        self.running = ""
        _start_logging()
        extra["standalone_mode"] = False
        extra.setdefault("prog_name", "fourd")
        try:
            result = super().main(*args, **extra)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BaseException as error:
            self._fail(error)
        sys.exit(result if isinstance(result, int) else 0)

    def _fail(self, error: BaseException) -> NoReturn:
        """Exit with the code and the sentence that belong to the error."""
        if isinstance(error, SystemExit | GeneratorExit):
            raise error
        code, sentence = explain(error, self.running)
        if verbosity() == logging.DEBUG and not isinstance(error, click.exceptions.ClickException):
            traceback.print_exception(error)
        if sentence:
            name = " ".join(filter(None, ("fourd", self.running)))
            click.echo(f"{name}: {sentence}", err=True)
        _silence_stdout()
        sys.exit(code)


def explain(error: BaseException, running: str = "") -> tuple[int, str]:
    """The exit code for an error and the sentence that the user reads ("" where silence is right)."""
    if isinstance(error, FourdError):
        return error.exit_code, _one_line(str(error))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return 2, ""
    if isinstance(error, click.exceptions.ClickException):
        name = " ".join(filter(None, ("fourd", running)))
        return error.exit_code, f"{_one_line(error.format_message()).rstrip('.')}; `{name} --help` lists what it takes"
    if isinstance(error, KeyboardInterrupt | click.exceptions.Abort):
        return EXIT_INTERRUPTED, "interrupted"
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
        return 1, ""  # whoever read our output has left, and knows why
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return 1, f"{error.strerror[:1].lower()}{error.strerror[1:]}{place}"
    if isinstance(error, MemoryError):
        return 1, "out of memory; try a smaller --size"
    text = _one_line(str(error))
    return 1, f"unexpected {type(error).__name__}: {text[:300]}; this is a bug: -v shows the traceback for a report"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def verbosity() -> int:
    """The level of the log on stderr: logging.DEBUG with -v, ERROR with -q, INFO otherwise."""
    return logging.getLogger("fourdface").level


def _set_verbosity(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger("fourdface").setLevel(logging.ERROR if parameter.name == "quiet" else logging.DEBUG)


def _verbosity_options() -> list[click.Option]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set_verbosity, help="Errors only."),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Details, and tracebacks of errors.",
        ),
    ]


def _accept_verbosity(command: click.Command) -> None:
    """Let -q and -v stand after the command's name as well as before it."""
    taken = {name for parameter in command.params for name in parameter.opts}
    if not isinstance(command, click.Group) and "-q" not in taken:
        command.params.extend(_verbosity_options())


class _Formatter(logging.Formatter):
    """`fourd: message`, warnings named as such and in yellow where colour is wanted."""

    def format(self, record: logging.LogRecord) -> str:
        label = {logging.WARNING: "warning: ", logging.ERROR: "error: "}.get(record.levelno, "")
        if label and wants_colour():
            label = f"\x1b[33m{label}\x1b[0m"
        return f"fourd: {label}{record.getMessage()}"


def wants_colour() -> bool:
    """Whether stderr may be coloured: a terminal, and no NO_COLOR in the environment."""
    return not os.environ.get("NO_COLOR") and sys.stderr.isatty()


def _start_logging() -> None:
    """Send the log to stderr; stdout carries only results."""
    logger = logging.getLogger("fourdface")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logger.handlers = [handler]


def _silence_stdout() -> None:
    """Keep Python from failing a second time when it flushes a closed or full stdout at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            return


def _on_terminate(signum: int, frame: object) -> NoReturn:
    """Leave through the normal way, so that temporary files are removed (schedulers send SIGTERM)."""
    sys.exit(EXIT_TERMINATED)


@click.group(
    cls=FourdGroup,
    params=_verbosity_options(),
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The main job: fourd lift in.jpg | fourd reenact drive.mp4 -o out.mp4",
)
@click.version_option(__version__, prog_name="fourd")
def cli() -> None:
    """One portrait photo becomes a 4D head: lift it, move it, look at it from any side."""


def main() -> NoReturn:
    """Entry point of the `fourd` program."""
    signal.signal(signal.SIGTERM, _on_terminate)
    cli.main()
