"""The metrics, the dashboard that shows them, and Prometheus's configuration."""

import json
import re
import shutil
import subprocess
from typing import Any

import promql_parser
import pytest
import yaml
from deployment.manifests import INFRA, ROOT
from programs import needs

from degrain.monitoring import METRICS

DASHBOARD = json.loads(
    (INFRA / "monitoring" / "grafana" / "dashboards" / "degrain.json").read_text()
)
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
BUCKETS = {
    f"{metric.exported_name}_bucket": metric.exported_name
    for metric in METRICS
    if metric.kind == "histogram"
}
"""Series of a histogram's buckets to the histogram."""
OF_RAY = {"ray_node_cpu_count", "ray_node_gpus_utilization"}
"""Metrics of Ray itself; `tests/integration/test_monitoring.py` finds them at Ray's endpoint."""


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of an expression, with the labels by which they are selected or grouped."""
    # Grafana replaces its variables before Prometheus parses.
    promql_parser.parse(expression.replace("$__range", "6h"))
    grouped = {
        label.strip()
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    found = re.findall(r"\b(ray_\w+)(\{[^}]*\})?", expression)
    return [
        (BUCKETS.get(name, name), (grouped - {"le"}) | set(re.findall(r"(\w+)=~", labels)))
        for name, labels in found
    ]


def test_names_of_metrics_are_unique_and_follow_prometheus() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"degrain_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_the_dashboard_shows_the_metrics_of_the_list_and_no_others() -> None:
    shown = {name for expression in EXPRESSIONS for name, _ in selectors(expression)}
    assert shown == {metric.exported_name for metric in METRICS} | OF_RAY


def test_the_dashboard_uses_labels_that_the_metrics_have() -> None:
    labels = {metric.exported_name: set(metric.labels) for metric in METRICS}
    for expression in EXPRESSIONS:
        for name, used in selectors(expression):
            assert used <= labels.get(name, {"NodeAddress"}), expression


def test_an_expression_with_an_error_is_refused() -> None:
    with pytest.raises(ValueError):
        selectors("sum by (model ray_degrain_train_loss")


def test_variables_of_the_dashboard_are_labels_and_each_is_used() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    used = {name for text in EXPRESSIONS for name in re.findall(r"\$(\w+)", text)} - {"__range"}
    assert used == set(variables) == {"model", "run"}
    exported = {metric.exported_name: metric.labels for metric in METRICS}
    for name, each in variables.items():
        query = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["definition"])
        assert query is not None
        assert query[2] == name
        assert name in exported[query[1]]


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_documentation_lists_the_metrics() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        row = f"| `{metric.exported_name}` | {metric.kind} | {metric.unit} | {labels} |"
        assert row in text


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((INFRA / "monitoring" / name).read_text())
    return content


def test_prometheus_reads_the_services_of_compose() -> None:
    jobs = {job["job_name"]: job for job in read("prometheus.yml")["scrape_configs"]}
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    (found,) = jobs["ray"]["dns_sd_configs"]
    nodes = {name for name, each in compose.items() if each["image"] == "degrain:0.1.0-cpu"}
    assert set(found["names"]) == nodes
    for name in nodes:
        command = compose[name]["command"]
        text = command if isinstance(command, str) else " ".join(command)
        assert f"--metrics-export-port={found['port']}" in text


def test_grafana_finds_the_datasource_of_the_dashboard() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    used = {target["datasource"]["uid"] for p in DASHBOARD["panels"] for target in p["targets"]}
    assert used == {source["uid"]}


@needs(shutil.which("promtool"), "prometheus")
def test_promtool_accepts_the_configuration() -> None:
    file = INFRA / "monitoring" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True)
