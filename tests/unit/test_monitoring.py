"""Metrics for Prometheus, in a process without Ray."""

import subprocess
import sys


def test_without_ray_nothing_is_recorded_and_ray_is_not_imported() -> None:
    script = (
        "import sys; from degrain import monitoring as m\n"
        "with m.TrainingGauges('red10', 'run') as gauges: gauges.set({'val_psnr': 30.0})\n"
        "m.record_trial('red10', 'finished'); m.record_retraining('kept'); m.record_drift('a', 1)\n"
        "m.record_request(200); m.record_served_photo('v', 1); m.record_waiting_photos(1)\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
