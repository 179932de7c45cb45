"""Start, show or end the local stack (`make up`, `make status`, `make env`, `make down`)."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from credentials import credentials_file
from processes import ROOT, Server, StackError
from servers import BUCKET, Programs
from stack import FOLDER, USUAL_PORTS, down, environment, read_state, running_jobs, status, up

TITLES = {
    "mlflow": "MLflow",
    "s3": "S3",
    "ray": "Ray",
    "prometheus": "Prometheus",
    "grafana": "Grafana",
}


def port(text: str) -> int:
    """Parse a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; name a number from 1 to 65535")
    return int(text)


def main() -> int:
    """Start, show or end the stack; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["up", "status", "env", "down"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of logs and data")
    for name, usual in USUAL_PORTS.items():
        option = "dashboard" if name == "ray" else name
        parser.add_argument(
            f"--{option}-port",
            dest=name,
            type=port,
            help=f"port of {TITLES[name]} (default: {usual}, or another if it is in use)",
        )
    parser.add_argument("--cpus", type=int, help="CPUs of the Ray head (default: all)")
    options = parser.parse_args()
    try:
        if options.action == "up":
            return start(options)
        actions = {"status": show, "env": print_environment, "down": end}
        return actions[options.action](options.folder)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def start(options: argparse.Namespace) -> int:
    """Start what does not run; print the addresses and the next commands."""
    ours = {server.name: server.url for server in read_state(options.folder)}
    programs = Programs.find(ours.get("s3"))
    ports = {name: getattr(options, name) for name in USUAL_PORTS}
    stack = up(options.folder, store=ROOT, programs=programs, ports=ports, cpus=options.cpus)
    kept = [TITLES[s.name] for s in stack.servers if s.name not in stack.started]
    if kept:
        print(f"running already: {', '.join(kept)}")
    for server in stack.servers:
        print(f"{TITLES[server.name] + ':':11} {server.url}{_remark(server)}")
    for note in programs.notes():
        print(note)
    print(f"logs:       {options.folder}")
    print('submit:     . .venv/bin/activate; eval "$(' + _command("env", options.folder) + ')"')
    print("            ray job submit -- python pipelines/tune.py")
    print(f"end all:    {_command('down', options.folder)}")
    return 0


def _remark(server: Server) -> str:
    remarks = {
        "s3": f"bucket s3://{BUCKET}",
        "ray": "the dashboard needs the token: ray get-auth-token",
        "grafana": f"user admin, password in {credentials_file()}",
    }
    return f"  ({remarks[server.name]})" if server.name in remarks else ""


def _command(action: str, folder: Path) -> str:
    if folder == FOLDER:
        return f"make {'-s ' if action == 'env' else ''}{action}"
    return f"{sys.executable} {Path(__file__)} {action} --folder {folder}"


def show(folder: Path) -> int:
    """Print the state of each server; 1 unless all are healthy."""
    states = status(folder)
    if not states:
        print("the stack is not running; start it with 'make up'")
        return 1
    for server, state in states:
        log = "" if state == "healthy" else f"; see its log '{server.log}'"
        print(f"{TITLES[server.name]:11} {server.url:27} {state}{log}")
    for job in _jobs(folder):
        print(f"job         {job}")
    return int(any(state != "healthy" for _, state in states))


def print_environment(folder: Path) -> int:
    """Print the variables by which a shell uses the stack, as export commands."""
    variables = environment(folder)
    if not variables:
        raise StackError("the stack is not running; start it with 'make up'")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def end(folder: Path) -> int:
    """End the stack, and the jobs that run on it."""
    for job in _jobs(folder):
        print(f"ending the job {job}")
    ended, already_ended = down(folder)
    for server in already_ended:
        print(f"{TITLES[server.name]} had already ended; see its log '{server.log}'")
    names = ", ".join(TITLES[server.name] for server in ended)
    print(f"ended {names}" if names else "the stack is not running")
    return 0


def _jobs(folder: Path) -> list[str]:
    """The jobs that run on the stack's Ray; none where it does not answer."""
    urls = [s.url for s, state in status(folder) if s.name == "ray" and state == "healthy"]
    os.environ.update(environment(folder))
    try:
        return [job for url in urls for job in running_jobs(url)]
    except (RuntimeError, OSError, ValueError) as error:
        print(f"its jobs are not known: {' '.join(str(error).split())[:200]}")
        return []


if __name__ == "__main__":
    sys.exit(main())
