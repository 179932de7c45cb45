"""The manifests of `infra/k8s`, as kustomize renders them."""

import copy
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from deployment.manifests import (
    OVERLAYS,
    ROOT,
    check_command,
    commands,
    mappings,
    pod_templates,
    render,
    render_folder,
    validate_object,
)
from jsonschema import ValidationError
from ray.serve.schema import ServeDeploySchema

from degrain.errors import UserError
from degrain.serving.config import TOKEN_VARIABLE

DOCUMENTATION = (ROOT / "docs" / "deployment.md").read_text()


def one(overlay: str, kind: str, name: str) -> dict[str, Any]:
    """An object of an overlay."""
    found = [o for o in render(overlay) if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1
    return copy.deepcopy(found[0])


def containers(overlay: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name of the object, pod and container of every container."""
    for each in render(overlay):
        for template in pod_templates(each):
            for container in template["spec"]["containers"]:
                yield each["metadata"]["name"], template["spec"], container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    objects = render(overlay)
    kinds = {each["kind"] for each in objects}
    assert {"RayCluster", "RayJob", "RayCronJob", "RayService", "PodDisruptionBudget"} <= kinds
    for each in objects:
        validate_object(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_deployed_starts_no_study_before_there_are_photos(overlay: str) -> None:
    assert "RayJob" not in {each["kind"] for each in render_folder(overlay)}
    (study,) = render_folder(f"{overlay}/study")
    assert (study["kind"], study["metadata"]["namespace"]) == ("RayJob", "degrain")


def add_key(content: dict[str, Any]) -> None:
    content["spec"]["unknown"] = 1


def add_key_to_a_container(content: dict[str, Any]) -> None:
    next(pod_templates(content))["spec"]["containers"][0]["imagePullPolice"] = "Always"


def give_a_list_for_a_mapping(content: dict[str, Any]) -> None:
    next(pod_templates(content))["spec"]["securityContext"] = []


@pytest.mark.parametrize("change", [add_key, add_key_to_a_container, give_a_list_for_a_mapping])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("RayCluster", "degrain"),
        ("RayJob", "degrain-tune"),
        ("RayCronJob", "degrain-retrain"),
        ("RayService", "degrain-serve"),
        ("Deployment", "mlflow"),
        ("StatefulSet", "postgres"),
    ],
)
def test_wrong_objects_are_refused(
    kind: str, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    content = one(OVERLAYS[0], kind, name)
    validate_object(content)
    change(content)
    with pytest.raises(ValidationError):
        validate_object(content)


def test_an_unknown_key_of_a_policy_is_refused() -> None:
    content = one(OVERLAYS[0], "NetworkPolicy", "postgres")
    content["spec"]["ingres"] = content["spec"].pop("ingress")
    with pytest.raises(ValidationError):
        validate_object(content)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_are_those_of_degrain(overlay: str) -> None:
    entrypoints = [
        m["entrypoint"] for each in render(overlay) for m in mappings(each) if "entrypoint" in m
    ]
    found = [command for text in entrypoints for command in commands(text)]
    assert sorted(command[0] for command in found) == ["retrain", "tune"]
    for command in found:
        check_command(command)


def test_a_renamed_option_is_refused() -> None:
    with pytest.raises(UserError, match="unrecognized"):
        check_command(["tune", "--buget", "2h"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str) -> None:
    """By the pod security standard `restricted`, which the namespace enforces."""
    namespace = one(overlay, "Namespace", "degrain")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    names = set()
    for name, pod, container in containers(overlay):
        names.add(name)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    of_ray = {"degrain", "degrain-tune", "degrain-retrain", "degrain-serve"}
    assert names == of_ray | {"mlflow", "postgres"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_have_requests_and_limits(overlay: str) -> None:
    for name, _, container in containers(overlay):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound]), (name, bound)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_versions(overlay: str) -> None:
    for name, _, container in containers(overlay):
        assert re.fullmatch(r".+:\d[\w.-]+", container["image"]), (name, container["image"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_has_the_tested_version(overlay: str) -> None:
    tested = re.search(r"(?m)^ray==(.+)$", (ROOT / "infra" / "constraints.txt").read_text())
    assert tested is not None
    versions = [m["rayVersion"] for o in render(overlay) for m in mappings(o) if "rayVersion" in m]
    assert versions == [tested[1]] * 3


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_references_and_documented(overlay: str) -> None:
    objects = render(overlay)
    assert "Secret" not in {each["kind"] for each in objects}
    names = {
        m[key]["name"]
        for each in objects
        for m in mappings(each)
        for key in ("secretRef", "secretKeyRef")
        if key in m
    }
    assert names == {"degrain-s3", "degrain-postgres", "degrain-serve"}
    for name in names:
        assert f"kubectl create secret generic {name}" in DOCUMENTATION
    for each in objects:
        for mapping in mappings(each):
            if "value" in mapping and "name" in mapping:
                assert not re.search("PASSWORD|SECRET|TOKEN|KEY", mapping["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_pods(overlay: str) -> None:
    """Services, budgets and policies select labels that pods have, by the manifests or KubeRay."""
    of_kuberay = {("ray.io/is-ray-node", "yes"), ("ray.io/node-type", "head")}
    labels = of_kuberay | {
        pair
        for each in render(overlay)
        for template in pod_templates(each)
        for pair in template.get("metadata", {}).get("labels", {}).items()
    }
    for each in render(overlay):
        spec = each.get("spec", {})
        selectors = [m["podSelector"] for m in mappings(spec) if "podSelector" in m]
        if each["kind"] == "PodDisruptionBudget":
            selectors.append(spec["selector"])
        if each["kind"] == "Service":
            selectors.append({"matchLabels": spec["selector"]})
        for selector in selectors:
            assert set(selector.get("matchLabels", {}).items()) <= labels, each["metadata"]["name"]


def test_nothing_is_reachable_by_default() -> None:
    policy = one(OVERLAYS[0], "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_large_cluster_scales_on_spot_nodes() -> None:
    job = one("gpu-spot", "RayCronJob", "degrain-retrain")["spec"]["jobTemplate"]
    for spec in (one("gpu-spot", "RayCluster", "degrain")["spec"], job["rayClusterSpec"]):
        assert spec["enableInTreeAutoscaling"] is True
        (group,) = spec["workerGroupSpecs"]
        pod = group["template"]["spec"]
        assert group["minReplicas"] < group["maxReplicas"]
        assert pod["nodeSelector"] == {"degrain/pool": "gpu-spot"}
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod["containers"][0]["image"].endswith("-cuda")


def test_the_service_is_one_that_degrain_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = one(OVERLAYS[0], "RayService", "degrain-serve")["spec"]
    config = ServeDeploySchema(**yaml.safe_load(spec["serveConfigV2"]))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    build = getattr(importlib.import_module(module), function)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(UserError, match="there is no token"):
        build(application.args)
    monkeypatch.setenv(TOKEN_VARIABLE, "0123456789abcdef")
    build(application.args)
    for template in pod_templates(spec):
        (container,) = template["spec"]["containers"]
        assert TOKEN_VARIABLE in [variable["name"] for variable in container["env"]]
        ports = [port["containerPort"] for port in container["ports"]]
        assert config.http_options.port in ports
    group = spec["rayClusterConfig"]["workerGroupSpecs"][0]
    cores = group["minReplicas"] * int(
        group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    )
    assert application.args["max_replicas"] * application.args["replica_cpus"] <= cores


def test_mlflow_has_the_store_of_compose() -> None:
    """`tests/integration/test_compose_commands.py` runs the command of compose."""
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]["mlflow"]
    pod = one(OVERLAYS[0], "Deployment", "mlflow")["spec"]["template"]["spec"]
    arguments = [each.partition("=") for each in pod["containers"][0]["args"] if "store" in each]
    assert arguments
    for option, _, value in arguments:
        assert f"{option} {value} " in compose["command"]
