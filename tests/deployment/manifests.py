"""Reads, renders and validates the files of `infra`, without a container engine or a cluster."""

import functools
import importlib.resources
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate import validate
from referencing import Registry, Resource

from degrain.cli.main import COMMANDS, MODULES
from degrain.cli.options import parse

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
OVERLAYS = sorted(path.name for path in (INFRA / "k8s" / "overlays").iterdir())
STARTS = {";", "&&", "||", "|", "(", "--", "exec"}
"""Words in front of a command."""
KUBERNETES_VERSION = "1.32"
"""The oldest version that the manifests are for."""
_SCHEMAS = "kubernetes-json-schema/v1.32.0-local-strict/_definitions.json"
_CORE = "urn:kubernetes"


def program(name: str) -> str:
    """A program of the development packages, or of the PATH."""
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    assert found is not None, f"'{name}' is not installed; put it on the PATH"
    return found


@functools.cache
def render(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay and of its study, by kustomize."""
    return [*render_folder(overlay), *render_folder(f"{overlay}/study")]


@functools.cache
def render_folder(name: str) -> list[dict[str, Any]]:
    """The objects of one folder of overlays."""
    done = subprocess.run(
        [program("kubectl"), "kustomize", str(INFRA / "k8s" / "overlays" / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # kustomize warns of deprecated fields.
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def validate_object(content: Mapping[str, Any]) -> None:
    """Raise jsonschema.ValidationError for unknown keys, wrong types and missing fields."""
    if content["apiVersion"].startswith("ray.io/"):
        _kuberay_validator(content["kind"]).validate(content)
    else:
        validate(dict(content), KUBERNETES_VERSION, strict=True)


def _kuberay_validator(kind: str) -> Draft202012Validator:
    """A validator of one of KubeRay's kinds, whose pods have the schema of Kubernetes."""
    return Draft202012Validator({"$ref": f"urn:kuberay#/$defs/{kind}"}, registry=_registry())


@functools.cache
def _registry() -> Registry:
    package = importlib.resources.files("kubernetes_validate")
    core = json.loads((package / _SCHEMAS).read_text())
    kuberay = yaml.safe_load((Path(__file__).parent / "kuberay.yaml").read_text())
    return Registry().with_resources(
        [
            (_CORE, Resource.from_contents({**core, "$id": _CORE})),
            ("urn:kuberay", Resource.from_contents(kuberay)),
        ]
    )


def pod_templates(content: object) -> Iterator[dict[str, Any]]:
    """All pod templates in an object, KubeRay's included."""
    if isinstance(content, list):
        for each in content:
            yield from pod_templates(each)
    if isinstance(content, dict):
        if "containers" in content.get("spec", {}):
            yield content
        for each in content.values():
            yield from pod_templates(each)


def mappings(content: object) -> Iterator[dict[str, Any]]:
    """All mappings in parsed YAML."""
    if isinstance(content, dict):
        yield content
    children = content.values() if isinstance(content, dict) else content
    if isinstance(content, dict | list):
        for each in children:
            yield from mappings(each)


def commands(text: str) -> list[list[str]]:
    """The arguments of each `degrain` in shell text: alone, behind `exec`, or behind `--`."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[list[str]] = []
    words: list[str] | None = None
    before = ";"
    for word in lexer:
        if word == "degrain" and words is None and before in STARTS:
            words = []
            found.append(words)
        elif set(word) <= set(";&|()"):
            words = None
        elif words is not None:
            words.append(word)
        before = word
    return found


def check_command(arguments: list[str]) -> None:
    """Parse a command of Degrain. Raises UserError for options that do not exist."""
    name, *options = arguments
    assert name in COMMANDS, name
    module = importlib.import_module(f"degrain.cli.{MODULES.get(name, name)}")
    parse(module.COMMAND, options, prog=f"degrain {name}")
