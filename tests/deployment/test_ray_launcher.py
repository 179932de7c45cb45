"""`infra/ray/cluster.yaml`, for Ray's launcher on AWS."""

import copy
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import ray.autoscaler
import yaml
from botocore.exceptions import ParamValidationError
from botocore.validate import ParamValidator
from deployment.manifests import INFRA, check_command, commands
from jsonschema import ValidationError
from jsonschema import validate as validate_schema

TEXT = (INFRA / "ray" / "cluster.yaml").read_text()
CLUSTER: dict[str, Any] = yaml.safe_load(TEXT)


def check(cluster: dict[str, Any]) -> None:
    """Check by Ray's own schema, and each node by the parameters of EC2's RunInstances."""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    validate_schema(cluster, schema)
    instances = botocore.session.get_session().get_service_model("ec2")
    shape = instances.operation_model("RunInstances").input_shape
    for kind in cluster["available_node_types"].values():
        parameters = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(parameters, shape)
        if report.has_errors():
            raise ParamValidationError(report=report.generate_report())


def test_the_cluster_is_valid() -> None:
    check(CLUSTER)


def test_unknown_keys_are_refused() -> None:
    wrong = copy.deepcopy(CLUSTER)
    wrong["max_worker"] = 3
    with pytest.raises(ValidationError):
        check(wrong)
    wrong = copy.deepcopy(CLUSTER)
    wrong["available_node_types"]["head"]["node_config"]["InstanceTyp"] = "m7i.large"
    with pytest.raises(ParamValidationError):
        check(wrong)


def test_workers_are_spot_instances_and_the_head_is_not() -> None:
    types = CLUSTER["available_node_types"]
    market = types["gpu-spot"]["node_config"]["InstanceMarketOptions"]
    assert market == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert CLUSTER["head_node_type"] == "head"
    assert types["gpu-spot"]["max_workers"] == CLUSTER["max_workers"]


def test_commands_are_those_of_degrain() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("#   ray job submit")]
    found = [command for line in lines for command in commands(line)]
    assert [command[0] for command in found] == ["train"]
    for command in found:
        check_command(command)
