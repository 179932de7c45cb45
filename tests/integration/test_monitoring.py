"""The metrics at the endpoint of a Ray node that Prometheus reads."""

import re
import time
import urllib.request

import pytest
import ray

from degrain.monitoring import (
    METRICS,
    TrainingGauges,
    record_drift,
    record_request,
    record_retraining,
    record_served_photo,
    record_trial,
    record_waiting_photos,
)

pytestmark = pytest.mark.ray
OF_RAY = ("ray_node_cpu_count", "ray_node_gpus_utilization")
"""Metrics of Ray itself that the dashboard shows; the second needs a GPU."""


def scrape() -> str:
    """The metrics of all nodes, in Prometheus's text format."""
    pages = []
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            pages.append(answer.read().decode())
    return "\n".join(pages)


def value(page: str, name: str, **labels: str) -> float:
    """The value of the one series with these labels."""
    found = [
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith(f"{name}{{")
        and all(f'{key}="{text}"' in line for key, text in labels.items())
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_metrics_reach_the_endpoint_of_ray(ray_cluster: None) -> None:
    with TrainingGauges("red10", "metrics-test") as gauges:
        gauges.set({"val_psnr": 31.5, "val_ssim": 0.875, "train_loss": 0.25, "step": 40.0})
        gauges.set({"patches_per_second": 64.0, "data_wait_share": 0.125})
        record_trial("red10", "metrics-test")
        record_trial("red10", "metrics-test")
        record_retraining("metrics-test")
        record_drift("metrics-test", 1.5)
        record_request(429)
        record_served_photo("metrics-test", 1.5)
        record_waiting_photos(3)
        deadline = time.monotonic() + 600
        while True:
            page = scrape()
            if all(re.search(rf"\n{m.exported_name}(_bucket)?{{", page) for m in METRICS):
                break
            assert time.monotonic() < deadline, page
            time.sleep(1)
    run = {"model": "red10", "run": "metrics-test"}
    assert value(page, "ray_degrain_val_psnr_db", **run) == 31.5
    assert value(page, "ray_degrain_val_ssim", **run) == 0.875
    assert value(page, "ray_degrain_train_loss", **run) == 0.25
    assert value(page, "ray_degrain_patches_per_second", **run) == 64
    assert value(page, "ray_degrain_data_wait_share", **run) == 0.125
    trials = {"model": "red10", "status": "metrics-test"}
    assert value(page, "ray_degrain_trials_total", **trials) == 2
    assert value(page, "ray_degrain_retrainings_total", decision="metrics-test") == 1
    assert value(page, "ray_degrain_drift", trait="metrics-test") == 1.5
    assert value(page, "ray_degrain_served_requests_total", status="429") == 1
    assert value(page, "ray_degrain_served_seconds_sum", version="metrics-test") == 1.5
    assert value(page, "ray_degrain_waiting_photos") == 3
    for metric in METRICS:
        assert re.search(rf"# TYPE {metric.exported_name} {metric.kind}\n", page)
    assert OF_RAY[0] in page
