"""`degrain serve`: photos over HTTP, and a web page."""

import contextlib
import time
from dataclasses import dataclass, field

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.inference.config import InferenceConfig
from degrain.serving.config import ServingConfig


@dataclass(frozen=True, kw_only=True)
class Serve(TrackingOptions):
    """Serve the champion over HTTP, with a web page, until Ctrl-C. It follows promotions and
    rollbacks; without a champion the starter model serves.
    """

    serving: ServingConfig = field(default_factory=ServingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    def run(self, console: Console) -> dict[str, object]:
        """Start the service and wait."""
        from degrain.cluster import shut_down_ray, start_ray
        from degrain.serving.settings import check_reachable, read_settings

        settings = read_settings(self.serving, self.inference, self.mlflow)
        check_reachable(settings)
        start_ray(loopback=self.serving.loopback, metrics_port=self.serving.metrics_port)
        # It imports Ray, which `start_ray` configures.
        from degrain.serving.application import end_work, metrics_addresses, start, stop

        url = f"http://{self.serving.host}:{self.serving.port}"
        try:
            models = start(settings)
            if models.is_starter:
                reason = models.lost_champion or "there is no champion yet"
                console.print(f"{reason}: serving the starter model")
            console.print(f"model: {models.champion.label}")
            console.print(f"metrics: {', '.join(metrics_addresses())}")
            console.print(f"serving on {url}; Ctrl-C ends it")
            # A signal may reach a thread of Ray's; this one handles it when it wakes.
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    end_work(self.serving.drain_seconds, lambda photos: self._tell(console, photos))
                except KeyboardInterrupt:
                    end_work(0, lambda _: None)
            stop()
        finally:
            shut_down_ray()
        return {"url": url}

    def _tell(self, console: Console, photos: int) -> None:
        seconds = f"{self.serving.drain_seconds:g} s"
        console.print(
            f"ending: {photos} photos in work are finished, for up to {seconds}; Ctrl-C ends now"
            if photos
            else "ending: no photo is in work"
        )


COMMAND = Serve
