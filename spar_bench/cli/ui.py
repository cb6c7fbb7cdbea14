"""`ui`: browse runs in the MLflow UI."""

import os
import signal
import subprocess

import click

from spar_bench.cli.options import tracking_option


@click.command()
@tracking_option
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(tracking_uri: str | None, port: int) -> None:
    """Browse runs in the MLflow UI, on this machine only."""
    from spar_bench import track

    uri = track.tracking_uri(tracking_uri)
    command, environment = track.ui_command(uri, port=port)
    click.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C stops it)")
    for experiment, address in track.view_urls(uri, port=port).items():
        click.echo(f"{experiment}: {address}")
    # The server starts workers; its own process group lets all of them end with it.
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:

        def end(*_: object) -> None:
            os.killpg(server.pid, signal.SIGTERM)

        before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
        code = server.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    raise SystemExit(0 if code == -signal.SIGTERM else code)
